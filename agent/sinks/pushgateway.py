"""The Prometheus Pushgateway: the last result of each task, whichever pod had it.

The gateway keeps what it is given until somebody deletes it, and adds nothing up. So a group is a task and not a pod,
the pod that pushes last replaces all of its predecessor, and there is no increase() over pods: docs/push.md.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.metrics_core import Metric
from yarl import URL

from agent.probers.http_options import Method
from agent.sinks.exposition import Exposition
from agent.sinks.parcel import Parcel
from agent.sinks.selection import never, pushed

_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")
"""What stands in a path as it is. What holds anything else, a slash for one, is written in base64."""


class Pushgateway:
    """Composes the request of one agent. Implements Contents."""

    def __init__(
        self, url: URL, slices: Callable[[int], Iterator[Metric]], grouping: Sequence[tuple[str, str]]
    ) -> None:
        """`url` is the gateway's; `grouping` are the labels of the group, `job` first."""
        path = "/".join(part for pair in grouping for part in _segment(*pair))
        self._url = url.with_path(f"{url.raw_path.rstrip('/')}/metrics/{path}", encoded=True)
        self._slices = slices
        self._exposition = Exposition(self._pushed)
        self._samples = 0

    async def compose(self, *, last: bool) -> Sequence[Parcel]:  # noqa: ARG002 - a gateway knows no end
        self._samples = 0
        document = await self._exposition.render("", "")
        return [
            Parcel(
                method=Method.PUT,
                url=self._url,
                headers=(("Content-Type", document.content_type),),
                body=b"".join(document.chunks),
                samples=self._samples,
            )
        ]

    def _pushed(self, targets: int) -> Iterator[Metric]:
        for metric in self._slices(targets):
            some = Metric(metric.name, metric.documentation, metric.type, metric.unit)
            some.samples = list(pushed(metric, never))
            if some.samples:
                self._samples += len(some.samples)
                yield some


def _segment(name: str, value: str) -> tuple[str, str]:
    """A label of the group, as its path has it (Pushgateway 0.9 and newer)."""
    if _PLAIN.fullmatch(value) and value not in {".", ".."}:
        return name, value
    return f"{name}@base64", base64.urlsafe_b64encode(value.encode("utf-8", "replace")).decode()
