"""What watches a fleet: Prometheus and Alertmanager as they are shipped, at a pace of one's own, and a webhook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from tests.lab import alertmanager as lab
from tests.lab.alertmanager import Alertmanager, Inbox
from tests.lab.command import REPOSITORY
from tests.lab.fleet import history
from tests.lab.pace import Document, Pace
from tests.lab.receivers import Receiver

PORT: Final = 9090
"""Prometheus' own. It runs in a namespace where nobody else has it."""
LOOKBACK_SECONDS: Final = 300.0
"""For how long a sample is what a series has now: Prometheus' default, and Grafana's to rely on."""
RESEND_SECONDS: Final = 60.0
"""After which Prometheus says again that an alert fires."""

PAGE: Final = "netprobe-page"
"""The receiver of pages, and the path at which its webhook posts."""
MESSAGE: Final = "message"
"""The path at which pages arrive in words."""

_DEPLOY = REPOSITORY / "deploy/prometheus"


@dataclass(frozen=True, slots=True)
class Monitoring:
    """Programs that run."""

    prometheus: Receiver
    alertmanager: Alertmanager
    inbox: Inbox


def rule_files() -> list[Path]:
    """The rules that are shipped."""
    return sorted((_DEPLOY / "rules").glob("*.yaml"))


@asynccontextmanager
async def monitoring(directory: Path, pace: Pace, discovery: Path) -> AsyncIterator[Monitoring]:
    """All three, once they are ready. `discovery`: the file_sd file that stands for the API of Kubernetes.

    The files are written at once; nobody else runs in the event loop that could wait for it.
    """
    async with (
        lab.inbox() as inbox,
        lab.alertmanager(directory, pace.alertmanager(_receiving(inbox.url))) as alertmanager,
    ):
        storage = directory / "prometheus"
        history.write(storage, pace)
        prometheus = Receiver(
            (
                "prometheus",
                f"--config.file={_configuration(directory, pace, discovery, alertmanager.port)}",
                f"--storage.tsdb.path={storage}",
                "--web.listen-address=:{port}",
                "--web.enable-remote-write-receiver",
                f"--query.lookback-delta={_milliseconds(pace.seconds(LOOKBACK_SECONDS))}",
                f"--rules.alert.resend-delay={_milliseconds(pace.seconds(RESEND_SECONDS))}",
            )
        )
        prometheus.port = PORT
        try:
            await prometheus.start()
            yield Monitoring(prometheus, alertmanager, inbox)
        finally:
            await prometheus.kill()


def _receiving(url: str) -> Document:
    """What is shipped, with a webhook for each receiver. Pages come as the message that people read as well."""
    shipped = lab.shipped()
    document = lab.into_inbox(shipped, url)
    (written,) = (one for one in shipped["receivers"] if one["name"] == PAGE)
    (received,) = (one for one in document["receivers"] if one["name"] == PAGE)
    received["slack_configs"] = [{**one, "api_url": f"{url}/{MESSAGE}"} for one in written["slack_configs"]]
    return document


def _configuration(directory: Path, pace: Pace, discovery: Path, alertmanager_port: int) -> Path:
    """What is shipped: the scraping and relabelling of deploy/prometheus/scrape-config.yaml, and the rules."""
    rules = directory / "rules"
    rules.mkdir()
    for file in rule_files():
        _write(rules / file.name, pace.rules(_read(file)))
    scraping = _read(_DEPLOY / "scrape-config.yaml")["scrape_configs"]
    for job in scraping:
        del job["kubernetes_sd_configs"]
        job["file_sd_configs"] = [{"files": [str(discovery)]}]
    document = {
        "global": {"scrape_interval": "15s", "evaluation_interval": "1m"},
        "rule_files": [f"{rules}/*.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]},
        "scrape_configs": [
            *scraping,
            {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{PORT}"]}]},
        ],
    }
    file = directory / "prometheus.yml"
    _write(file, pace.prometheus(document))
    return file


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"


def _read(file: Path) -> Document:
    document: Document = yaml.safe_load(file.read_text("utf-8"))
    return document


def _write(file: Path, document: Document) -> None:
    file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=10_000), "utf-8")
