"""A look at everything before its turn, for a task that has just failed: what it met, no round may have met yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from agent.diagnosis import Diagnosis
from agent.model import Outcome, Target
from agent.sinks.status import StatusSink

SPACING_SECONDS = 10.0
"""From one to the next at least, however many tasks fail."""
PATIENCE_SECONDS = 1.2
"""For everything. Whoever asks has two seconds, and reads the diagnosis afterwards."""
NEW_SECONDS = 1.0
"""A target that succeeded so little ago is not asked again."""
SETTLE_SECONDS = 0.25
"""From the first verdict to the answer: the first experiments tell causes apart by then."""

Hasten = Callable[[Callable[[Target[Any]], bool]], Sequence[str]]
"""Runs what deserves it, and names what is awaited: agent.scheduler."""


class Refresh:
    """A sink, and a listener of the diagnostician that is written to before it."""

    def __init__(self, status: StatusSink, hasten: Hasten, *, wall_clock: Callable[[], float] = time.time) -> None:
        """Use within a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._status = status
        self._hasten = hasten
        self._wall_clock = wall_clock
        self._began_at = float("-inf")
        self._awaited: set[str] = set()
        self._failed = False
        """Whether there is something to explain."""
        self._healthy = True
        self._explained = asyncio.Event()
        self._under_way: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Look, and return once what was seen is in the diagnosis, or the time is up. Raises nothing."""
        if self._under_way is None:
            if self._loop.time() - self._began_at < SPACING_SECONDS:
                return
            self._under_way = self._loop.create_task(self._look(), name="refresh")
            self._under_way.add_done_callback(self._looked)
        # Several may wait for the same one, and each may leave.
        await asyncio.wait({self._under_way})

    def write(self, outcome: Outcome) -> None:
        """One more is there."""
        if outcome.target.name in self._awaited:
            self._awaited.discard(outcome.target.name)
            self._failed |= not outcome.success
            if not self._awaited and not self._failed:
                self._explained.set()

    def diagnosed(self, diagnosis: Diagnosis) -> None:
        """What is there is explained now."""
        self._healthy = diagnosis.healthy
        if not self._awaited and not (self._failed and diagnosis.healthy):
            self._explained.set()

    def _looked(self, _: asyncio.Task[None]) -> None:
        self._under_way = None

    async def _look(self) -> None:
        self._began_at = self._loop.time()
        # A run may have failed a moment ago, and the diagnosis not be made yet.
        self._failed = self._healthy and any(one.last and not one.last.success for one in self._status.statuses())
        self._explained.clear()
        self._awaited = set(self._hasten(self._deserves))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._awaited or self._failed:
                    await self._explained.wait()
                if self._failed:
                    await asyncio.sleep(SETTLE_SECONDS)
        except TimeoutError:
            pass  # what is known by now is what there is to say
        finally:
            self._awaited = set()

    def _deserves(self, target: Target[Any]) -> bool:
        """Whether a target worked, some time ago, or has no result yet. What failed is known to fail."""
        last = self._status.status(target.name).last
        return last is None or (last.success and last.started_at < self._wall_clock() - NEW_SECONDS)
