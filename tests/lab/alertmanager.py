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


# --- what it sends ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notification:
    """One request of Alertmanager."""

    path: str
    """Without the slash it begins with: the name of the receiver, where `into_inbox` has put it there."""
    body: Any
    """The JSON. Of a webhook: `receiver`, `status`, `groupLabels`, `alerts` and more."""

    @property
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
