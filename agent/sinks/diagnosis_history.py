"""Since when each verdict holds, and which ones held until a while ago: tasks also fail after the fault is over."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.diagnosis import Cause, Confidence, Diagnosis, Past, Verdict
from agent.sinks.status import Status, StatusSink

KEPT_SECONDS = 900.0
"""How long a verdict is remembered after its end."""
KEPT = 20
"""How many are, at most."""
BRIEF_SECONDS = 2.0
"""A verdict that holds no longer than this beside a longer one is a step on the way to another."""

_SURENESS = (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)


@dataclass(slots=True)
class _Episode:
    """A verdict from its first evaluation to its last, whatever its confidence and targets became."""

    verdict: Verdict
    """As it was when it was surest."""
    began_at: float
    """Unix time."""
    seen: float
    """When it was first seen, by the loop's clock."""
    names: frozenset[str]
    """Every target it ever had."""


@dataclass(slots=True)
class _Ended:
    past: Past
    names: frozenset[str]
    at: float
    """By the loop's clock."""


class DiagnosisHistory:
    """Listens to the diagnostician. Reads when targets began to fail from the StatusSink that it reads, too."""

    def __init__(self, status: StatusSink, *, wall_clock: Callable[[], float] = time.time) -> None:
        """Use within a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._status = status
        self._wall_clock = wall_clock
        self._present: dict[Verdict, _Episode] = {}
        self._ended: deque[_Ended] = deque(maxlen=KEPT)

    @property
    def began_at(self) -> Mapping[Verdict, float]:
        """Of each verdict that holds: the Unix time at which its first target began to fail, or it was first seen."""
        return {verdict: episode.began_at for verdict, episode in self._present.items()}

    @property
    def recent(self) -> tuple[Past, ...]:
        """Verdicts that ended within KEPT_SECONDS, the newest first."""
        now = self._loop.time()
        return tuple(ended.past for ended in reversed(self._ended) if now - ended.at <= KEPT_SECONDS)

    def diagnosed(self, diagnosis: Diagnosis) -> None:
        """Take note of what holds now."""
        before = list(self._present.values())
        self._present = {}
        for verdict in diagnosis.verdicts:
            same = [e for e in before if e.verdict.cause == verdict.cause and not e.names.isdisjoint(verdict.targets)]
            for episode in same:
                before.remove(episode)
            self._present[verdict] = self._continued(same, verdict)
        for episode in before:
            self._end(episode)

    def _continued(self, same: Iterable[_Episode], verdict: Verdict) -> _Episode:
        """The episode of a verdict: of all that it has grown from, if it is not new."""
        now = self._wall_clock()
        episode = _Episode(verdict, min([now, *self._failing_since(verdict)]), self._loop.time(), frozenset())
        for earlier in same:
            if _SURENESS.index(earlier.verdict.confidence) > _SURENESS.index(episode.verdict.confidence):
                episode.verdict = earlier.verdict
            episode.began_at = min(episode.began_at, earlier.began_at)
            episode.seen = min(episode.seen, earlier.seen)
            episode.names |= earlier.names
        episode.names |= frozenset(verdict.targets)
        return episode

    def _failing_since(self, verdict: Verdict) -> Iterator[float]:
        for status in self._statuses(verdict.targets):
            if verdict.cause is Cause.NETWORK_NOT_READY and status.first is not None:
                yield status.first.started_at
            elif status.since is not None and status.last is not None and not status.last.success:
                yield status.since

    def _end(self, episode: _Episode) -> None:
        """Remember what holds no more, unless the same failures are now put down to something else."""
        explained = frozenset(name for verdict in self._present for name in verdict.targets)
        if episode.names <= explained:
            return
        now = self._loop.time()
        ended_at = self._recovered_at(episode)
        if now - episode.seen < BRIEF_SECONDS:
            # What was left of another one as its targets recovered one by one.
            for ended in self._ended:
                if now - ended.at <= BRIEF_SECONDS + (now - episode.seen) and not ended.names.isdisjoint(episode.names):
                    ended.past = dataclasses.replace(ended.past, ended_at=max(ended_at, ended.past.ended_at))
                    ended.at = now
                    return
        past = Past(verdict=episode.verdict, began_at=episode.began_at, ended_at=ended_at)
        self._ended.append(_Ended(past, episode.names, now))

    def _recovered_at(self, episode: _Episode) -> float:
        """When the last of its targets recovered; now, where none of them failed."""
        recovered = [
            status.since
            for status in self._statuses(episode.names)
            if status.since is not None and status.last is not None and status.last.success
        ]
        last = max(recovered, default=0.0)
        return last if last >= episode.began_at else self._wall_clock()

    def _statuses(self, names: Iterable[str]) -> Iterator[Status]:
        for name in names:
            yield self._status.status(name)
