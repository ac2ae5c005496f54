"""What is known about each target now: its last outcome, since when it is as it is, and a bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.model import Outcome, Target, rfc3339

RECENT = 10
"""Outcomes remembered of each target."""
EXPIRED_FAILURES = 10
"""Failures remembered of each target beyond those: a night of successes does not wash away what happened before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One target, as it is now."""

    target: Target[Any]
    last: Outcome | None
    """None until the first run has ended."""
    since: float | None
    """Unix time of the first outcome of the present success or failure."""
    recent: tuple[Outcome, ...]
    """The newest first, `last` included."""
    earlier_failures: tuple[Outcome, ...]
    """Failures remembered beyond those, the newest first."""
    first: Outcome | None
    """The very first one."""

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """Every failure still remembered, the newest first."""
        return (*(outcome for outcome in self.recent if not outcome.success), *self.earlier_failures)


class _Memory:
    """What is kept about one target."""

    __slots__ = ("expired", "first", "recent", "since", "target")

    def __init__(self, target: Target[Any]) -> None:
        self.target = target
        self.since: float | None = None
        self.first: Outcome | None = None
        self.recent: deque[Outcome] = deque()
        self.expired: deque[Outcome] = deque(maxlen=EXPIRED_FAILURES)

    def take(self, outcome: Outcome) -> None:
        if self.first is None:
            self.first = outcome
        if not self.recent or self.recent[-1].success != outcome.success:
            self.since = outcome.started_at
        self.recent.append(outcome)
        if len(self.recent) > RECENT:
            oldest = self.recent.popleft()
            if not oldest.success:
                self.expired.append(oldest)

    @property
    def status(self) -> Status:
        recent = tuple(reversed(self.recent))
        return Status(
            target=self.target,
            last=recent[0] if recent else None,
            since=self.since,
            recent=recent,
            earlier_failures=tuple(reversed(self.expired)),
            first=self.first,
        )


class StatusSink:
    """Remembers outcomes."""

    def __init__(self, targets: Iterable[Target[Any]]) -> None:
        self._memories = {target.name: _Memory(target) for target in targets}

    def write(self, outcome: Outcome) -> None:
        self._memories[outcome.target.name].take(outcome)

    def statuses(self) -> Iterator[Status]:
        """Every target, in the order of the configuration."""
        for memory in list(self._memories.values()):
            yield memory.status

    def status(self, name: str) -> Status:
        """One target by its name. KeyError where there is none."""
        return self._memories[name].status

    @property
    def waiting(self) -> list[str]:
        """The targets whose first run has not ended."""
        return [name for name, memory in self._memories.items() if not memory.recent]


def entry(status: Status, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON form of a status, with the target's configuration as `netprobe config show` prints it."""
    last = status.last
    return {
        "name": status.target.name,
        "type": status.target.type,
        "address": status.target.address,
        "scope": status.target.scope.value,
        "role": status.target.role.value,
        "state": "unknown" if last is None else "success" if last.success else "failure",
        "since": None if status.since is None else rfc3339(status.since),
        "configuration": dict(configuration),
        "last": None if last is None else last.as_dict(),
        "recent": [_brief(outcome) for outcome in status.recent],
        "failures": [outcome.as_dict() for outcome in status.failures],
    }


def _brief(outcome: Outcome) -> dict[str, Any]:
    """One outcome on one line: when, how long, and how it went."""
    failure = outcome.failure
    return {
        "started_at": rfc3339(outcome.started_at),
        "duration_seconds": round(outcome.duration_seconds, 6),
        "success": outcome.success,
        "phase": failure.phase.value if failure else None,
        "reason": failure.reason.value if failure else None,
    }
