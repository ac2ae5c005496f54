"""Outcomes as Prometheus metrics: the contract of docs/metrics.md, over plain numbers, in a registry of its own.

The number of series is bounded by construction: everything but the failures has a fixed place in a target's budget,
and the failures seen last get what is left of it.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from agent import __version__
from agent.config.sections import Detail
from agent.diagnosis.verdict import Cause, Diagnosis
from agent.model import Fact, Outcome, Phase, Reason, Target
from agent.starvation import Starvation

SERIES_LIMIT: Mapping[Detail, int] = {Detail.NORMAL: 32, Detail.LOW: 12}
"""Series per target at most."""

DURATION_EDGES: Mapping[Detail, tuple[float, ...]] = {
    # 4.5 and 5.5 isolate the resolver's five seconds until its second try.
    Detail.NORMAL: (0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 4.5, 5.5),
    Detail.LOW: (),
}
SCHEDULE_LAG_EDGES = (0.01, 0.1, 1.0)

TIMED_PHASES: Mapping[Detail, tuple[Phase, ...]] = {
    # Comparing an answer with what was expected is local work, not time on the network.
    Detail.NORMAL: tuple(phase for phase in Phase if phase is not Phase.VERIFY),
    Detail.LOW: (),
}


TASK_LABELS = ("dag_id", "task_id", "run_id", "try_number", "map_index")


class Histogram:
    """Counts per bucket, not yet cumulated."""

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: tuple[float, ...]) -> None:
        """`edges` are the upper ones, in ascending order, less infinity."""
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value

    def samples(self, name: str, labels: dict[str, str]) -> Iterator[Sample]:
        count = 0
        for edge, count in zip((*map(str, self.edges), "+Inf"), accumulate(self.counts), strict=True):
            yield Sample(f"{name}_bucket", {**labels, "le": edge}, count)
        yield Sample(f"{name}_count", labels, count)
        yield Sample(f"{name}_sum", labels, self.total)


class TargetSeries:
    """Everything counted about one target."""

    __slots__ = (
        "_detail",
        "cause",
        "certificate_expires_at",
        "dns_queries",
        "durations",
        "explained",
        "failures",
        "http_status_code",
        "info",
        "labels",
        "last_success_at",
        "phases",
        "results",
        "success",
    )

    def __init__(self, target: Target[Any], detail: Detail) -> None:
        self._detail = detail
        self.labels = {"target": target.name, "type": target.type}
        self.info = {**self.labels, "scope": target.scope.value, "role": target.role.value, "address": target.address}
        self.results = {"success": 0, "failure": 0}
        self.durations = Histogram(DURATION_EDGES[detail])
        self.phases: dict[Phase, list[float]] = {}
        """Sum of the seconds, and their number."""
        self.failures: dict[tuple[Phase, Reason], int] = {}
        """The one seen last comes last."""
        self.success: bool | None = None
        self.last_success_at: float | None = None
        self.http_status_code: int | None = None
        self.certificate_expires_at: float | None = None
        self.dns_queries: int | None = None
        self.cause: Cause | None = None
        """The last one there was."""
        self.explained = False
        """Whether it still holds."""

    def diagnosed(self, cause: Cause | None) -> None:
        """`cause` explains this target now; None where nothing does."""
        self.cause = cause or self.cause
        self.explained = cause is not None

    def count(self, outcome: Outcome) -> None:
        self.success = outcome.success
        self.results["success" if outcome.success else "failure"] += 1
        if outcome.failure is None:
            self.durations.observe(outcome.duration_seconds)
            self.last_success_at = outcome.started_at + outcome.duration_seconds
        else:
            pair = (outcome.failure.phase, outcome.failure.reason)
            self.failures[pair] = self.failures.pop(pair, 0) + 1
        for phase in TIMED_PHASES[self._detail]:
            if phase in outcome.phases:
                seconds = self.phases.setdefault(phase, [0.0, 0])
                seconds[0] += outcome.phases[phase]
                seconds[1] += 1
        facts = outcome.facts
        self.http_status_code = facts.get(Fact.HTTP_STATUS_CODE)
        self.dns_queries = facts.get(Fact.DNS_QUERIES)
        # A run that did not get as far as the certificate says nothing about it: the last known expiry stays.
        self.certificate_expires_at = facts.get(Fact.CERTIFICATE_EXPIRES_AT, self.certificate_expires_at)

    def visible_failures(self) -> Iterator[tuple[Phase, Reason, int]]:
        """The failures seen last, as many as the target's budget has room for, oldest first."""
        gauges = (self.http_status_code, self.certificate_expires_at, self.dns_queries, self.cause)
        # info, success, last success; two results; the histogram with sum and count; sum and count of each phase.
        taken = 3 + 2 + len(self.durations.counts) + 2 + 2 * len(self.phases)
        taken += sum(value is not None for value in gauges)
        room = max(0, SERIES_LIMIT[self._detail] - taken)
        for (phase, reason), number in islice(self.failures.items(), max(0, len(self.failures) - room), None):
            yield phase, reason, number


@dataclass(slots=True)
class Pushes:
    """What came of pushing to one receiver."""

    succeeded: int = 0
    """Requests."""
    failures: dict[tuple[Phase, Reason], int] = field(default_factory=dict)
    taken: int = 0
    """Samples."""
    dropped: int = 0
    last_success_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One metric of the contract."""

    name: str
    """As queried, less the suffixes of histograms and summaries."""
    type: str
    labels: tuple[str, ...] = ()
    """Beyond target and type."""
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Family(Described):
    """One that every target has."""

    samples: Callable[[str, TargetSeries], Iterator[Sample]]


def _results(name: str, series: TargetSeries) -> Iterator[Sample]:
    for result, number in series.results.items():
        yield Sample(name, {**series.labels, "result": result}, number)


def _failures(name: str, series: TargetSeries) -> Iterator[Sample]:
    for phase, reason, number in series.visible_failures():
        yield Sample(name, {**series.labels, "phase": phase.value, "reason": reason.value}, number)


def _cause(name: str, series: TargetSeries) -> Iterator[Sample]:
    if series.cause is not None:
        yield Sample(name, {**series.labels, "cause": series.cause.value}, float(series.explained))


def _phases(name: str, series: TargetSeries) -> Iterator[Sample]:
    for phase, (seconds, number) in series.phases.items():
        labels = {**series.labels, "phase": phase.value}
        yield Sample(f"{name}_count", labels, number)
        yield Sample(f"{name}_sum", labels, seconds)


def _gauge(value_of: Callable[[TargetSeries], float | None]) -> Callable[[str, TargetSeries], Iterator[Sample]]:
    """The samples of a gauge that is absent while there is no value."""

    def samples(name: str, series: TargetSeries) -> Iterator[Sample]:
        value = value_of(series)
        if value is not None:
            yield Sample(name, series.labels, float(value))

    return samples


FAMILIES: Sequence[Family] = (
    Family(
        name="netprobe_probes_total",
        type="counter",
        labels=("result",),
        help="Runs that have ended, by their result.",
        samples=_results,
    ),
    Family(
        name="netprobe_probe_failures_total",
        type="counter",
        labels=("phase", "reason"),
        help="Failed runs by where and why: the pairs seen last, as many as the target's budget of series allows.",
        samples=_failures,
    ),
    Family(
        name="netprobe_probe_success",
        type="gauge",
        help="Whether the last run succeeded: 1 or 0. Absent until the first run has ended.",
        samples=_gauge(lambda series: series.success),
    ),
    Family(
        name="netprobe_probe_duration_seconds",
        type="histogram",
        help="How long successful runs took.",
        samples=lambda name, series: series.durations.samples(name, series.labels),
    ),
    Family(
        name="netprobe_phase_duration_seconds",
        type="summary",
        labels=("phase",),
        help="Time spent in each phase, of runs that reached it, failed ones included.",
        samples=_phases,
    ),
    Family(
        name="netprobe_last_success_timestamp_seconds",
        type="gauge",
        help="When the last successful run ended, as Unix time. Absent until there was one.",
        samples=_gauge(lambda series: series.last_success_at),
    ),
    Family(
        name="netprobe_http_status_code",
        type="gauge",
        help="The HTTP status the last run got. Absent where it got none.",
        samples=_gauge(lambda series: series.http_status_code),
    ),
    Family(
        name="netprobe_tls_certificate_expiry_timestamp_seconds",
        type="gauge",
        help="The earliest expiry in the chain the server last showed, as Unix time, verified or not.",
        samples=_gauge(lambda series: series.certificate_expires_at),
    ),
    Family(
        name="netprobe_dns_queries_per_lookup",
        type="gauge",
        help="DNS messages the last run had to send for its one question.",
        samples=_gauge(lambda series: series.dns_queries),
    ),
    Family(
        name="netprobe_target_diagnosis",
        type="gauge",
        labels=("cause",),
        help="Whether this cause explains why the target fails: 1 or 0. That of the last cause alone, and absent until "
        "there was one.",
        samples=_cause,
    ),
    Family(
        name="netprobe_target_info",
        type="info",
        labels=("scope", "role", "address"),
        help="What the target is.",
        samples=lambda name, series: iter((Sample(name, series.info, 1),)),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfFamily(Described):
    """One about the agent itself."""

    samples: Callable[[str, Metrics], Iterator[Sample]]


def _value(value_of: Callable[[Metrics], float | None]) -> Callable[[str, Metrics], Iterator[Sample]]:
    def samples(name: str, metrics: Metrics) -> Iterator[Sample]:
        value = value_of(metrics)
        if value is not None:
            yield Sample(name, {}, value)

    return samples


def _causes(name: str, metrics: Metrics) -> Iterator[Sample]:
    for cause in Cause:
        yield Sample(name, {"cause": cause.value}, float(cause in metrics.causes))


def _tasks(name: str, metrics: Metrics) -> Iterator[Sample]:
    for task in metrics.tasks():
        yield Sample(name, {label: task.get(label, "") for label in TASK_LABELS}, 1)


def _push_requests(name: str, metrics: Metrics) -> Iterator[Sample]:
    for sink, pushes in metrics.pushes.items():
        yield Sample(name, {"sink": sink, "result": "success"}, pushes.succeeded)
        yield Sample(name, {"sink": sink, "result": "failure"}, sum(pushes.failures.values()))


def _push_failures(name: str, metrics: Metrics) -> Iterator[Sample]:
    for sink, pushes in metrics.pushes.items():
        for (phase, reason), number in pushes.failures.items():
            yield Sample(name, {"sink": sink, "phase": phase.value, "reason": reason.value}, number)


def _push_samples(name: str, metrics: Metrics) -> Iterator[Sample]:
    for sink, pushes in metrics.pushes.items():
        yield Sample(name, {"sink": sink, "result": "taken"}, pushes.taken)
        yield Sample(name, {"sink": sink, "result": "dropped"}, pushes.dropped)


def _push_successes(name: str, metrics: Metrics) -> Iterator[Sample]:
    for sink, pushes in metrics.pushes.items():
        if pushes.last_success_at is not None:
            yield Sample(name, {"sink": sink}, pushes.last_success_at)


SELF_FAMILIES: Sequence[SelfFamily] = (
    SelfFamily(
        name="netprobe_diagnosis",
        type="gauge",
        labels=("cause",),
        help="Whether this cause is among those that explain what the targets show: 1 or 0. One series a cause.",
        samples=_causes,
    ),
    SelfFamily(
        name="netprobe_schedule_lag_seconds",
        type="histogram",
        help="How long after it was due a run began, waiting for the CPU or for one of the concurrent runs to end.",
        samples=lambda name, metrics: metrics.schedule_lag.samples(name, {}),
    ),
    SelfFamily(
        name="netprobe_event_loop_lag_seconds",
        type="gauge",
        help="The longest the agent's event loop was late within the last minute.",
        samples=_value(lambda metrics: metrics.starvation.lag.recent_seconds()),
    ),
    SelfFamily(
        name="netprobe_cpu_throttled_seconds_total",
        type="counter",
        help="Time the agent's cgroup was kept off the CPU by its quota. Absent where the kernel does not tell.",
        samples=_value(
            lambda metrics: metrics.starvation.throttling.seconds() if metrics.starvation.throttling else None
        ),
    ),
    SelfFamily(
        name="netprobe_runs_skipped_total",
        type="counter",
        help="Rounds given up because the one before was still running, or had no slot.",
        samples=_value(lambda metrics: metrics.runs_skipped),
    ),
    SelfFamily(
        name="netprobe_config_last_reload_successful",
        type="gauge",
        help="Whether the configuration could be read when it was last asked for: 1 or 0.",
        samples=_value(lambda metrics: float(metrics.configuration_usable)),
    ),
    SelfFamily(
        name="netprobe_startup_gate_seconds",
        type="gauge",
        help="How long the start of the other containers was held back for the targets that are gates. Absent until "
        "then.",
        samples=_value(lambda metrics: metrics.gate_seconds),
    ),
    SelfFamily(
        name="netprobe_startup_gate_timed_out",
        type="gauge",
        help="Whether the gate opened because its time was up, and not all its targets had answered: 1 or 0. Absent "
        "until it opens.",
        samples=_value(lambda metrics: None if metrics.gate_seconds is None else float(metrics.gate_timed_out)),
    ),
    SelfFamily(
        name="netprobe_task_info",
        type="info",
        labels=TASK_LABELS,
        help="The task of this pod; on a Celery worker, each that runs and has said so. Absent where nobody says.",
        samples=_tasks,
    ),
    SelfFamily(
        name="netprobe_push_requests_total",
        type="counter",
        labels=("sink", "result"),
        help="Requests to push results, by what came of them. Absent, like all of them, where nothing is pushed.",
        samples=_push_requests,
    ),
    SelfFamily(
        name="netprobe_push_failures_total",
        type="counter",
        labels=("sink", "phase", "reason"),
        help="Requests to push results that failed, by where and why.",
        samples=_push_failures,
    ),
    SelfFamily(
        name="netprobe_push_samples_total",
        type="counter",
        labels=("sink", "result"),
        help="Samples that a receiver has taken, and those it will never get.",
        samples=_push_samples,
    ),
    SelfFamily(
        name="netprobe_push_last_success_timestamp_seconds",
        type="gauge",
        labels=("sink",),
        help="When a receiver last took what was pushed, as Unix time. Absent until it has.",
        samples=_push_successes,
    ),
    SelfFamily(
        name="netprobe_build_info",
        type="info",
        labels=("version", "python"),
        help="What is running.",
        samples=lambda name, _: iter((Sample(name, {"version": __version__, "python": platform.python_version()}, 1),)),
    ),
)


class Metrics(Collector):
    """The metrics sink, the scheduler's ledger, and what `/metrics` shows of both."""

    def __init__(self, targets: Iterable[Target[Any]], *, detail: Detail, starvation: Starvation) -> None:
        self.series = {target.name: TargetSeries(target, detail) for target in targets}
        self.schedule_lag: Histogram = Histogram(SCHEDULE_LAG_EDGES)
        self.runs_skipped: int = 0
        self.causes: frozenset[Cause] = frozenset()
        """None before the first result of a target: what is not known is not healthy."""
        self.configuration_usable: bool = True
        self.gate_seconds: float | None = None
        self.gate_timed_out: bool = False
        self.tasks: Callable[[], Iterable[Mapping[str, str]]] = tuple
        """The tasks to name, each by TASK_LABELS."""
        self.pushes: dict[str, Pushes] = {}
        """By sink: one for each that is configured."""
        self.starvation: Starvation = starvation
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self._process = ProcessCollector(registry=self.registry)

    def gate_opened(self, seconds: float, timed_out: bool) -> None:  # noqa: FBT001 - called back
        self.gate_seconds, self.gate_timed_out = seconds, timed_out

    def write(self, outcome: Outcome) -> None:
        self.series[outcome.target.name].count(outcome)

    def diagnosed(self, diagnosis: Diagnosis) -> None:
        self.causes = frozenset(diagnosis.causes)
        explained = {target: verdict.cause for verdict in diagnosis.verdicts for target in verdict.targets}
        for name, series in self.series.items():
            series.diagnosed(explained.get(name))

    def started(self, lag_seconds: float) -> None:
        self.schedule_lag.observe(lag_seconds)

    def skipped(self, rounds: int) -> None:
        self.runs_skipped += rounds

    def collect(self) -> Iterator[Metric]:
        """Every family as it is now, whole; what the process collector adds is not among them."""
        for family in FAMILIES:
            yield from self._slices(family, len(self.series) or 1)
        yield from self._self()

    def slices(self, targets: int) -> Iterator[Metric]:
        """Everything of the registry in its order, each family a few targets at a time.

        Slices of one family follow one another under the same name. Between two of them the caller may let time pass:
        each shows its targets as they are when it is made.
        """
        for family in FAMILIES:
            yield from self._slices(family, targets)
        yield from self._self()
        yield from self._process.collect()

    def _slices(self, family: Family, targets: int) -> Iterator[Metric]:
        everything = iter(list(self.series.values()))
        while some := list(islice(everything, targets)):
            metric = _metric(family)
            metric.samples = [sample for series in some for sample in family.samples(family.name, series)]
            if metric.samples:
                yield metric

    def _self(self) -> Iterator[Metric]:
        for family in SELF_FAMILIES:
            metric = _metric(family)
            metric.samples = list(family.samples(family.name, self))
            if metric.samples:
                yield metric


_SUFFIX = {"counter": "_total", "info": "_info"}


def _metric(family: Described) -> Metric:
    """An empty family as prometheus_client names it: without the suffix that its type implies."""
    name = family.name.removesuffix(_SUFFIX.get(family.type, ""))
    return Metric(name, family.help, family.type, unit="seconds" if name.endswith("_seconds") else "")
