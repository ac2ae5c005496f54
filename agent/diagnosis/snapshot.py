"""Everything a diagnosis rests on, at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar, cast

from agent.diagnosis.experiment import Experiment
from agent.model import Failure, Outcome, Target

QuestionT = TypeVar("QuestionT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """What resolv.conf says."""

    nameservers: tuple[str, ...]
    search: tuple[str, ...]
    ndots: int
    timeout_seconds: float
    """How long libc waits for one message's answer before it asks again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What is known of the pod, whatever the targets do."""

    started_at: float
    """Unix time at which the agent began to probe."""
    resolver: Resolver
    namespace: str | None = None
    """The Kubernetes namespace, read from the search list where it has `<namespace>.svc.<cluster domain>`."""
    cluster_domain: str | None = None
    """`cluster.local`, by the same line."""
    kubernetes_api: tuple[str, int] | None = None
    """IP address and port, from KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT."""


@dataclass(frozen=True, slots=True)
class History:
    """One target and its latest outcomes."""

    target: Target[Any]
    outcomes: tuple[Outcome, ...]
    """The newest first; none before the first run has ended."""
    earlier_failures: tuple[Outcome, ...] = ()
    """Those that are remembered beyond these, the newest first."""
    first: Outcome | None = None
    """The very first one, where it is remembered."""

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def last(self) -> Outcome | None:
        return self.outcomes[0] if self.outcomes else None

    @property
    def failure(self) -> Failure | None:
        """Of the latest outcome."""
        return self.outcomes[0].failure if self.outcomes else None

    @property
    def failures_in_a_row(self) -> int:
        """How many of the latest outcomes failed, up to the first success."""
        return next((n for n, outcome in enumerate(self.outcomes) if outcome.success), len(self.outcomes))

    @property
    def changes(self) -> int:
        """How often it went from success to failure or back, as far as it is remembered."""
        return sum(newer.success != older.success for newer, older in pairwise(self.outcomes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is known now."""

    at: float
    """Unix time in seconds."""
    pod: Pod
    histories: tuple[History, ...]
    """Every target, in the order of the configuration."""
    experiments: tuple[Experiment, ...] = field(default=())
    """Those whose answers still count, the newest first."""
    event_loop_lag_seconds: float = 0.0
    """The longest the event loop was late within the last minute."""
    throttled_share: float = 0.0
    """Of the last minute, how much the kernel kept this process off the CPU: 0 to 1."""

    @property
    def pod_age_seconds(self) -> float:
        return self.at - self.pod.started_at

    @property
    def failing(self) -> tuple[History, ...]:
        return tuple(history for history in self.histories if history.failure is not None)

    @property
    def working(self) -> tuple[History, ...]:
        """Targets whose latest run succeeded."""
        return tuple(history for history in self.histories if history.last is not None and history.last.success)

    def asked(self, kind: type[QuestionT], target: str | None = None) -> Iterator[tuple[QuestionT, Any]]:
        """Questions of one kind with their answers, of one target or of all, the newest first."""
        for experiment in self.experiments:
            if isinstance(experiment.question, kind) and (target is None or target in experiment.targets):
                yield cast("QuestionT", experiment.question), experiment.answer
