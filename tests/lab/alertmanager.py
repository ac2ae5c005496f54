"""A real Alertmanager on loopback, the shipped configuration made fit for it, and an inbox for what it sends."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from tests.lab.agents import eventually
from tests.lab.command import REPOSITORY
from tests.lab.http_client import request
from tests.lab.http_servers import application
from tests.lab.receivers import Receiver

SHIPPED = REPOSITORY / "deploy/alertmanager/alertmanager.yml"
PROGRAM = "prometheus-alertmanager"
"""Debian's name for it."""

SOONER = 100
"""By how much the times of the shipped configuration are divided: 30 seconds become 300 milliseconds."""

Document = dict[str, Any]
Labels = Mapping[str, str]


# --- configuration ---------------------------------------------------------------------------------------------------

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_TIMES = ("group_wait", "group_interval", "repeat_interval")


def shipped() -> Document:
    """The configuration in deploy/, its templates named so that they are found from anywhere."""
    document: Document = yaml.safe_load(SHIPPED.read_text("utf-8"))
    document["templates"] = [str(SHIPPED.parent / path) for path in document["templates"]]
    return document


def sooner(document: Document, factor: int = SOONER) -> Document:
    """The same with every time of every route divided by one factor, so that their order stays what it is."""
    changed = copy.deepcopy(document)
    _divide(changed["route"], factor)
    return changed


def _divide(route: Document, factor: int) -> None:
    for key in _TIMES:
        if key in route:
            route[key] = f"{milliseconds(route[key]) // factor}ms"
    for inner in route.get("routes", []):
        _divide(inner, factor)


def milliseconds(duration: str) -> int:
    """A duration in Prometheus' words: 1h30m."""
    parts = re.findall(r"(\d+)(ms|[smhdw])", duration)
    assert parts, duration
    assert "".join(map("".join, parts)) == duration, duration
    return sum(int(count) * _UNITS[unit] for count, unit in parts)


def into_inbox(document: Document, url: str) -> Document:
    """The same with a webhook in place of whatever each receiver is: it posts to `url`/NAME OF THE RECEIVER."""
    changed = copy.deepcopy(document)
    changed.pop("global", None)
    changed["receivers"] = [
        {"name": receiver["name"], "webhook_configs": [{"url": f"{url}/{receiver['name']}", "send_resolved": True}]}
        for receiver in document["receivers"]
    ]
    return changed


USER, PASSWORD, ROUTING_KEY = "alertmanager", "of the mail server", "0123456789abcdef0123456789abcdef"
"""What the local servers want to be shown."""


def redirected(document: Document, directory: Path, url: str, *, smtp_port: int, smtp_ca: Path) -> Document:
    """The same with receivers of their own kinds, on loopback: `url`/slack, /pagerduty and /webhook/RECEIVER, and mail.

    The secrets are in files, as they are to be; the mail server has to show a certificate for 127.0.0.1.
    """
    changed = copy.deepcopy(document)
    for name, content in (("slack-url", f"{url}/slack"), ("smtp-password", PASSWORD), ("routing-key", ROUTING_KEY)):
        (directory / name).write_text(content, "utf-8")
    changed["global"] |= {
        "slack_api_url_file": str(directory / "slack-url"),
        "pagerduty_url": f"{url}/pagerduty",
        "smtp_smarthost": f"127.0.0.1:{smtp_port}",
        "smtp_auth_username": USER,
        "smtp_auth_password_file": str(directory / "smtp-password"),
    }
    for receiver in changed["receivers"]:
        for mail in receiver.get("email_configs", []):
            mail["tls_config"] = {"ca_file": str(smtp_ca)}
        for pager in receiver.get("pagerduty_configs", []):
            pager["routing_key_file"] = str(directory / "routing-key")
        for hook in receiver.get("webhook_configs", []):
            hook["url"] = f"{url}/webhook/{receiver['name']}"
    return changed


# --- what it sends ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notification:
    """One request of Alertmanager."""

    path: str
    """Without the slash it begins with: the name of the receiver, where `into_inbox` has put it there."""
    body: Any
    """The JSON. Of a webhook: `receiver`, `status`, `groupLabels`, `alerts` and more."""

    @property
    def firing(self) -> list[Document]:
        """The alerts of a webhook's body that fire; of each `labels`, `annotations`, `startsAt` and more."""
        return [alert for alert in self.body["alerts"] if alert["status"] == "firing"]

    @property
    def resolved(self) -> list[Document]:
        return [alert for alert in self.body["alerts"] if alert["status"] == "resolved"]


class Inbox:
    """Takes what is posted to it, and keeps it in order."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[Notification] = []

    async def take(self, asked: web.Request) -> web.Response:
        self.received.append(Notification(asked.path.lstrip("/"), await asked.json()))
        return web.Response(text="ok")

    def at(self, path: str) -> list[Notification]:
        """All that came to this path so far."""
        return [notification for notification in self.received if notification.path == path]

    async def notification(
        self, path: str, is_meant: Callable[[Notification], Any] = lambda _: True, what: str = "a notification"
    ) -> Notification:
        """Wait for one at this path for which the condition holds: the first."""

        async def come() -> Notification | None:
            return next(filter(is_meant, self.at(path)), None)

        found: Notification = await eventually(come, f"{what} at {path}, got {self.at(path)}")
        return found


@asynccontextmanager
async def inbox() -> AsyncIterator[Inbox]:
    """A web server on loopback that answers every POST."""
    taken = Inbox()
    async with application(web.post("/{path:.*}", taken.take)) as taken.url:
        yield taken


# --- the program -----------------------------------------------------------------------------------------------------


class Alertmanager(Receiver):
    """Its HTTP API, version 2."""

    async def post(self, alerts: Sequence[Document]) -> None:
        """Hand alerts over as Prometheus does: `labels`, `annotations`, and `endsAt` of one that is over."""
        answer = await request(
            f"{self.url}/api/v2/alerts",
            method="POST",
            headers={"Content-Type": "application/json"},
            body=json.dumps(alerts).encode(),
        )
        assert answer.status == 200, answer

    async def alerts(self) -> list[Document]:
        """All that fire: `labels`, and in `status` the `state` and the fingerprints it is `inhibitedBy`."""
        status, text, document = await self._get("/api/v2/alerts")
        assert status == 200, text
        alerts: list[Document] = document
        return alerts

    async def failed_notifications(self) -> dict[str, float]:
        """How many notifications could not be written or sent, by kind of receiver. Kinds without any are left out."""
        counted = re.findall(
            r'^alertmanager_notifications_failed_total\{integration="(\w+)".*\} (\S+)$',
            await self.page("/metrics"),
            re.MULTILINE,
        )
        failed: dict[str, float] = {}
        for kind, count in counted:
            failed[kind] = failed.get(kind, 0) + float(count)
        return {kind: count for kind, count in failed.items() if count}


def firing(labels: Labels, *, since: datetime | None = None, **annotations: str) -> Document:
    """An alert that fires: since Alertmanager was told of it, or since this moment.

    One that is older than `group_wait` is sent at once, whatever else has not arrived yet.
    """
    alert: Document = {"labels": dict(labels), "annotations": annotations}
    return alert if since is None else {**alert, "startsAt": since.isoformat()}


def over(alert: Document) -> Document:
    """The same alert, ended now."""
    return {**alert, "endsAt": datetime.now(UTC).isoformat()}


@asynccontextmanager
async def alertmanager(directory: Path, document: Document, *, program: str = PROGRAM) -> AsyncIterator[Alertmanager]:
    """Alertmanager with this configuration, alone and on loopback only, once it is ready."""
    file = directory / "alertmanager.yml"
    await asyncio.to_thread(file.write_text, yaml.safe_dump(document, allow_unicode=True), "utf-8")
    server = Alertmanager(
        (
            program,
            f"--config.file={file}",
            f"--storage.path={directory / 'alertmanager'}",
            "--web.listen-address=127.0.0.1:{port}",
            # Empty: without it Alertmanager listens on every address for others of its kind.
            "--cluster.listen-address=",
        )
    )
    try:
        await server.start()
        yield server
    finally:
        await server.kill()
