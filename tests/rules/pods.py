"""Pods as Prometheus sees them: what each says at which times, as series for promtool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.rules.promtool import GRID_SECONDS, STALE, Points, Series, series

SCRAPE_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Says:
    """What a pod says at one moment."""

    causes: Sequence[str] = ()
    """None is healthy."""
    targets: Mapping[str, str | None] = field(default_factory=dict)
    """By target, the cause that explains it; None where it works."""
    slow: Sequence[str] = ()
    """Targets that work although a cause is said of them."""

    def fails(self, target: str) -> bool:
        return self.targets[target] is not None and target not in self.slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod: where it belongs, when it is heard of, and when its series end."""

    name: str
    namespace: str = "airflow"
    dag_id: str = "orders"
    task_id: str = "load"
    heard: Sequence[int]
    """Seconds at which it is scraped or pushes."""
    ends: int | None = None
    """When its series get a stale marker; never, where it outlives the test."""

    @property
    def labels(self) -> dict[str, str]:
        return {"namespace": self.namespace, "dag_id": self.dag_id, "task_id": self.task_id, "pod": self.name}

    def series(self, says: Callable[[int], Says], *, counters: bool = False) -> list[Series]:
        """Its diagnosis and its targets, and, if wanted, what it has counted of failures."""
        said = {second: says(second) for second in self.heard}
        causes = dict.fromkeys(cause for one in said.values() for cause in one.causes)
        found = [
            self._gauge(
                "netprobe_diagnosis", {"cause": cause}, {s: float(cause in one.causes) for s, one in said.items()}
            )
            for cause in causes
        ]
        found.append(
            self._gauge(
                "netprobe_diagnosis", {"cause": "healthy"}, {s: float(not one.causes) for s, one in said.items()}
            )
        )
        for target in dict.fromkeys(target for one in said.values() for target in one.targets):
            labels = {"target": target, "type": "tcp"}
            probed = {s: one for s, one in said.items() if target in one.targets}
            values = {s: float(not one.fails(target)) for s, one in probed.items()}
            found.append(self._gauge("netprobe_probe_success", labels, values))
            found += self._causes_of(target, labels, probed)
            if counters:
                found += self._failures(labels, values)
        return found

    def _causes_of(self, target: str, labels: Mapping[str, str], probed: Mapping[int, Says]) -> list[Series]:
        """One series at a time: that of the last cause, which is 0 when it explains the target no more.

        Where another cause takes its place, it ends.
        """
        points: dict[str, Points] = {}
        last: str | None = None
        for second, one in probed.items():
            former, last = last, one.targets[target] or last
            if former is not None and former != last:
                points[former] = {**points[former], second: STALE}
            if last is not None:
                points[last] = {**points.get(last, {}), second: float(one.targets[target] is not None)}
        return [
            self._gauge("netprobe_target_diagnosis", {**labels, "cause": cause}, values)
            for cause, values in points.items()
        ]

    def _failures(self, labels: Mapping[str, str], success: Mapping[int, float]) -> list[Series]:
        total, points = 0, {}
        for second, value in success.items():
            total += value == 0
            if total:
                points[second] = float(total)
        where = {**labels, "phase": "connect", "reason": "refused"}
        return [self._gauge("netprobe_probe_failures_total", where, points)] if points else []

    def _gauge(self, metric: str, labels: Mapping[str, str], values: Points) -> Series:
        points: Points = dict(values) if self.ends is None else {**values, self.ends: STALE}
        return series(metric, {**self.labels, **labels}, points)


def scraped(
    name: str,
    begins: int,
    until: int,
    *,
    ended: bool = False,
    namespace: str = "airflow",
    dag_id: str = "orders",
    task_id: str = "load",
) -> Pod:
    """A pod that is scraped every 15 seconds. One that has not ended is there still."""
    heard = range(begins, until, SCRAPE_SECONDS)
    ends = heard[-1] + SCRAPE_SECONDS if ended else None
    return Pod(name=name, heard=heard, ends=ends, namespace=namespace, dag_id=dag_id, task_id=task_id)


def glimpsed(name: str, at: int, **where: str) -> Pod:
    """A pod that is heard of once: by the only scrape of its life, or by the push at its end."""
    return Pod(name=name, heard=(at,), ends=at + GRID_SECONDS, **where)


def short_lived(begins: int, until: int, every: int = 20, **where: str) -> list[Pod]:
    """Pods that come and go, one after the other."""
    return [glimpsed(f"short-{second}", second, **where) for second in range(begins, until, every)]


def all_series(pods: Iterable[Pod], says: Callable[[int], Says], *, counters: bool = False) -> list[Series]:
    """The series of pods that say the same at the same time."""
    return [one for pod in pods for one in pod.series(says, counters=counters)]
