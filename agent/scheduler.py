"""When each target runs: all at once at the start, then each on a grid of its own. Knows no protocol.

A target's grid is `start + phase + n * interval`. It is never moved: a late run, a slow run and jitter change when one
round begins, not when the next is due. Phases are spread evenly over the targets of a pod, and by a hash of the pod's
UID over the pods of a fleet, so that ten thousand agents started at once do not ask one server in chorus.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from agent.model import Outcome, Target

FIRST_RUNS_SECONDS = 1.0
"""The first runs of all targets begin within this time."""
FIRST_RUNS_GAP_SECONDS = 0.02
"""Between two first runs, where there are few targets: long enough not to share one burst of CPU."""
JITTER = 0.1
"""Width of the window around its place on the grid in which a round begins, as a share of the interval. Enough to
break step with anything else that is periodic; the rounds themselves stay where they are."""
GRACE = 0.5
"""How late a round may still begin, as a share of the interval. Later, it is skipped and counted: a backlog that was
worked off in a bunch would put load on the target that nobody configured."""

CUT_SECONDS = 0.6
"""How long runs may take to end by themselves once they are asked to: the runner's grace, and a little more."""

_log = structlog.get_logger(__name__)


class Ledger(Protocol):
    """What the scheduler tells about itself. Must not raise."""

    def started(self, lag_seconds: float) -> None:
        """A run began this long after it was due and its target idle: time spent waiting for the CPU or for a slot."""

    def skipped(self, rounds: int) -> None:
        """So many rounds of a target were given up."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a target's first run and its grid lie, in seconds after the start of the scheduler."""

    first_seconds: float
    phase_seconds: float
    """From 0 up to the interval."""


def spread(targets: Sequence[Target[Any]], pod: str) -> Mapping[str, Start]:
    """Where each target starts, by its name.

    Targets with the same interval divide it evenly among them, in an order that differs from pod to pod, and the whole
    pattern is turned by a hash of the pod. So are the first runs, within their second: pods that are started together
    do not begin with the same question.
    """
    gap = min(FIRST_RUNS_GAP_SECONDS, FIRST_RUNS_SECONDS / max(len(targets), 1))
    turn = fraction(pod, "first") * FIRST_RUNS_SECONDS
    first = {target.name: (turn + index * gap) % FIRST_RUNS_SECONDS for index, target in enumerate(targets)}
    starts: dict[str, Start] = {}
    by_interval = sorted(targets, key=lambda target: target.interval_seconds)
    for interval, group in itertools.groupby(by_interval, key=lambda target: target.interval_seconds):
        members = sorted(group, key=lambda target: fraction(pod, target.name))
        turn = fraction(pod, str(interval))
        for rank, target in enumerate(members):
            phase = (turn + rank / len(members)) % 1.0 * interval
            starts[target.name] = Start(first[target.name], phase)
    return starts


def fraction(*parts: str) -> float:
    """A number from 0 up to 1 that looks random and is the same for the same parts, in every process."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class Timetable:
    """When one target is due next. Told the time, never asking for it."""

    def __init__(
        self, target: Target[Any], start: Start, now: float, jitter: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._interval = target.interval_seconds
        self._confirm_interval = target.confirm_interval_seconds
        self._confirm_runs = target.confirm_runs
        self._jitter = jitter
        self._origin = now + start.phase_seconds
        self._confirmations_left = target.confirm_runs
        self._on_grid = False
        self.due = now + start.first_seconds
        """The time of the next run, as the clock that `ran` is told."""
        # The first round follows the first run by half an interval to one and a half.
        self._round = math.ceil((self.due + self._interval / 2 - self._origin) / self._interval)
        self._round_at = self._place()

    def ran(self, *, success: bool, now: float, eager_seconds: float | None = None) -> int:
        """Note that the run that was due has ended, and say how many rounds were skipped since the one before.

        With `eager_seconds` a failure is followed by another run after that time, and uses up no confirmation.
        """
        if self._on_grid:
            self._advance(1)
        skipped = self._skip(now)
        if success:
            self._confirmations_left = self._confirm_runs
        elif eager_seconds is not None or self._confirmations_left > 0:
            if eager_seconds is None:
                self._confirmations_left -= 1
            wait = self._confirm_interval if eager_seconds is None else eager_seconds
            confirm_at = max(self.due + wait, now)
            # One that would come just before a round of the grid is left to that round.
            if confirm_at <= self._round_at - wait / 2:
                self.due, self._on_grid = confirm_at, False
                return skipped
        self.due, self._on_grid = max(self._round_at, now), True
        return skipped

    def hasten(self, now: float) -> bool:
        """Have the next run now, if it is not due anyway. It is one more: the round of the grid stays where it is."""
        if self.due <= now:
            return False
        self.due, self._on_grid = now, False
        return True

    def _skip(self, now: float) -> int:
        late = now - (self._origin + self._round * self._interval)
        missed = max(0, math.ceil(late / self._interval - GRACE))
        if missed:
            self._advance(missed)
        return missed

    def _advance(self, rounds: int) -> None:
        self._round += rounds
        self._round_at = self._place()

    def _place(self) -> float:
        width = JITTER * self._interval
        return self._origin + self._round * self._interval + self._jitter(-width / 2, width / 2)


class Scheduler:
    """Runs every target at its times, no target twice at once, and no more than `concurrency` runs together."""

    def __init__(
        self,
        targets: Iterable[Target[Any]],
        run: Callable[[Target[Any]], Awaitable[Outcome]],
        ledger: Ledger,
        *,
        pod: str,
        concurrency: int,
        eager_seconds: Callable[[Target[Any]], float | None] = lambda _: None,
    ) -> None:
        """`eager_seconds` says how soon a target that failed is to be run again, where not at its own interval."""
        self._eager_seconds = eager_seconds
        self._timetables: dict[str, Timetable] = {}
        self._targets = tuple(targets)
        self._run = run
        self._ledger = ledger
        self._pod = pod
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running: set[str] = set()
        self._hastened: dict[str, asyncio.Event] = {target.name: asyncio.Event() for target in self._targets}
        self._stopping = False

    def start(self) -> None:
        """Begin. The first runs start within FIRST_RUNS_SECONDS."""
        now = asyncio.get_running_loop().time()
        starts = spread(self._targets, self._pod)
        for target in self._targets:
            timetable = self._timetables[target.name] = Timetable(target, starts[target.name], now)
            task = asyncio.create_task(self._guard(target, timetable), name=f"target {target.name}")
            task.add_done_callback(self._ended)
            self._tasks[target.name] = task

    def hasten(self, deserves: Callable[[Target[Any]], bool]) -> Sequence[str]:
        """Run whatever deserves it before its turn, and return the names of those and of what is running already.

        Nothing is, once the end has begun.
        """
        if self._stopping:
            return []
        now = asyncio.get_running_loop().time()
        names = [target.name for target in self._targets if target.name in self._running or deserves(target)]
        for name in names:
            if name not in self._running and self._timetables[name].hasten(now):
                self._hastened[name].set()
        return names

    @property
    def ended(self) -> Sequence[str]:
        """The targets that nobody runs any more, though nobody has said so. Empty unless netprobe has a defect."""
        return [] if self._stopping else [name for name, task in self._tasks.items() if task.done()]

    async def stop(
        self,
        drain_seconds: float,
        *,
        last: Callable[[Target[Any], float], bool] = lambda _target, _seconds: False,
        cut: Callable[[], None] | None = None,
    ) -> Sequence[str]:
        """Run once more whatever deserves it, let all runs under way finish within this time, and cut the rest off.

        `last` says whether a target that would be due after so many seconds is run now, for the last time. `cut`, if
        any, is called when the time is up: runs that end by themselves within CUT_SECONDS of that are not cancelled.

        Returns the names of the targets whose run was cut off. Being cancelled cuts them off at once.
        """
        self._stopping = True
        now = asyncio.get_running_loop().time()
        idle = [target for target in self._targets if target.name in self._tasks and target.name not in self._running]
        pending = {task for task in self._tasks.values() if not task.done()}
        for target in idle:
            self._tasks[target.name].cancel()
            if last(target, max(0.0, self._timetables[target.name].due - now)):
                task = self._tasks[target.name] = asyncio.create_task(self._last(target), name=f"last of {target.name}")
                pending.add(task)
        late: list[str] = []
        try:
            if pending:
                await asyncio.wait(pending, timeout=drain_seconds)
            late = [name for name, task in self._tasks.items() if not task.done()]
            if late and cut is not None:
                cut()
                await asyncio.wait({self._tasks[name] for name in late}, timeout=CUT_SECONDS)
        finally:
            for name, task in self._tasks.items():
                if not task.done():
                    late.append(name)
                    task.cancel()
            if pending:
                await asyncio.wait(pending)
        return list(dict.fromkeys(late))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._stopping:
            error = None if task.cancelled() else task.exception()
            _log.critical("target_loop_ended", task=task.get_name(), exc_info=error)

    async def _guard(self, target: Target[Any], timetable: Timetable) -> None:
        """Keep a target's loop alive, whatever a run raises."""
        while not self._stopping:
            try:
                await self._once(target, timetable)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # Nobody cancelled us: a cancellation leaked out of the run.
                self._failed(target, timetable, "target_run_cancelled_itself")
            except Exception:  # noqa: BLE001 - one target's defect must not stop its loop
                self._failed(target, timetable, "target_run_raised")

    async def _once(self, target: Target[Any], timetable: Timetable) -> None:
        loop = asyncio.get_running_loop()
        hastened = self._hastened[target.name]
        with suppress(TimeoutError):
            async with asyncio.timeout_at(timetable.due):
                await hastened.wait()
        hastened.clear()
        async with self._slots:
            self._ledger.started(max(0.0, loop.time() - timetable.due))
            self._running.add(target.name)
            try:
                outcome = await self._run(target)
            finally:
                self._running.discard(target.name)
        eager = self._eager_seconds(target)
        self._count(timetable.ran(success=outcome.success, now=loop.time(), eager_seconds=eager))

    async def _last(self, target: Target[Any]) -> None:
        """Run a target out of its turn, now that none comes any more."""
        async with self._slots:
            try:
                await self._run(target)
            except Exception:  # noqa: BLE001 - one target's defect must not keep the others from ending
                _log.error("target_run_raised", target=target.name, exc_info=True)

    def _failed(self, target: Target[Any], timetable: Timetable, event: str) -> None:
        _log.error(event, target=target.name, exc_info=True)
        self._count(timetable.ran(success=False, now=asyncio.get_running_loop().time()))

    def _count(self, skipped: int) -> None:
        if skipped:
            self._ledger.skipped(skipped)
