"""What a pod pushes: the metrics of an agent and its pushers, without the probes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

from yarl import URL

from agent.config import Config, Detail
from agent.config.push import PushgatewayOptions, RemoteWriteOptions
from agent.model import Target
from agent.sinks.metrics import Metrics
from agent.sinks.pushers import pushers
from agent.starvation import Starvation
from tests.lab.outcomes import named

IDENTITY: Mapping[str, str] = {
    "namespace": "airflow",
    "pod": "load-orders-x7k2",
    "node": "node-1",
    "dag_id": "orders",
    "task_id": "load",
}
NEVER = 3600.0
"""An interval that is over after the test."""


class Pod:
    """One pod. Leaving it is its end: the last push, within `grace_seconds`."""

    def __init__(
        self,
        *,
        remote_write: str | None = None,
        pushgateway: str | None = None,
        targets: int = 1,
        identity: Mapping[str, str] = IDENTITY,
        grace_seconds: float = 10.0,
        interval: float = NEVER,
        timeout: float = 10.0,
        labels: tuple[tuple[str, str], ...] = (),
        zeros: int = 100,
        **options: Any,
    ) -> None:
        self.targets: list[Target[Any]] = [named(f"target-{number}") for number in range(targets)]
        self.target = self.targets[0]
        self.metrics = Metrics(self.targets, detail=Detail.NORMAL, starvation=Starvation(None))
        common = {"interval": interval, "timeout": timeout, **options}
        config = Config(
            targets=tuple(self.targets),
            remote_write=RemoteWriteOptions(
                url=URL(remote_write) if remote_write else None, labels=labels, zeros=zeros, **common
            ),
            pushgateway=PushgatewayOptions(url=URL(pushgateway) if pushgateway else None, **common),
        )
        self.pushers = pushers(config, self.metrics, identity)
        self._grace = grace_seconds

    async def __aenter__(self) -> Self:
        for pusher in self.pushers:
            pusher.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(pusher.aclose(self._grace) for pusher in self.pushers))
