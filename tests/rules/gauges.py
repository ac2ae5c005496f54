"""What a pod says of anything, as series for promtool, and the alerts that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tests.rules.pods import Pod
from tests.rules.promtool import STALE, Firing, Points, Series, alerts, series


def told(pod: Pod, metric: str, value: Callable[[int], float], **labels: str) -> Series:
    """A metric of a pod: its value at each second at which the pod is heard of."""
    values: Points = {second: value(second) for second in pod.heard}
    return series(metric, {**pod.labels, **labels}, values if pod.ends is None else {**values, pod.ends: STALE})


class Say(Protocol):
    """What a pod says that is, or is not, as the alert wants it."""

    def __call__(self, pod: Pod, *, bad: bool) -> list[Series]: ...


def some(pods: Iterable[Pod], say: Say, *, bad: int) -> list[Series]:
    """What pods say when the first so many of them are not well."""
    return [one for index, pod in enumerate(pods) for one in say(pod, bad=index < bad)]


@dataclass(frozen=True, slots=True)
class Text:
    """What an alert says to people."""

    summary: str
    description: str
    runbook: str
    """The section."""
    dashboard: str
    """Its name and the variables."""


def fires(alert: str, labels: Mapping[str, str], text: Text | None = None) -> Firing:
    """An alert with the labels of its rule and these."""
    annotations = None
    if text is not None:
        annotations = {
            "summary": text.summary,
            "description": text.description,
            "runbook_url": f"https://runbooks.example.com/netprobe/runbook.md#{text.runbook}",
            "dashboard_url": f"https://grafana.example.com/d/{text.dashboard}",
        }
    return Firing({**alerts()[alert][1]["labels"], **labels}, annotations)
