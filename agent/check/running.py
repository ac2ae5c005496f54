"""The runs of a check: side by side, each through the same runner as the daemon's, and visible while they last."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agent.model import Outcome, Target
from agent.prober import ProbeFailure, Prober, Recorder
from agent.probers import PROBERS
from agent.runner import run
from agent.starvation import Starvation

GAP_SECONDS = 0.01
"""Between one start and the next: about what a run, and the first use of what it needs, takes of one CPU. Started in
the same moment, runs would wait for each other, and show it as time of the network."""
SPREAD_SECONDS = 1.0
"""The longest all starts may take."""


class Run:
    """One target's run, as far as it is."""

    def __init__(self, target: Target[Any]) -> None:
        self.target = target
        self.recorder = Recorder()
        self.outcome: Outcome | None = None
        self._began: float | None = None
        self._ended: float | None = None

    @property
    def seconds(self) -> float | None:
        """How long it has been running, or took; None before it begins."""
        if self._began is None:
            return None
        return (self._ended or time.perf_counter()) - self._began

    async def perform(self, prober: Prober, starvation: Starvation) -> None:
        """Run it. Cancelled, it has no outcome, but its recorder shows how far it came."""
        self._began = time.perf_counter()
        try:
            with starvation.watch(self.recorder.facts):
                self.outcome = await run(prober, self.target, recorder=self.recorder)
        finally:
            self._ended = time.perf_counter()


@contextlib.asynccontextmanager
async def probers_of(targets: Sequence[Target[Any]]) -> AsyncIterator[Mapping[str, Prober]]:
    """A prober for each type, with whatever can be made before the runs."""
    probers = {kind: PROBERS[kind].prober() for kind in {target.type for target in targets}}
    for target in targets:
        with contextlib.suppress(ProbeFailure):  # the run will say it
            probers[target.type].prepare(target)
    try:
        yield probers
    finally:
        for prober in probers.values():
            await prober.aclose()


async def probe_all(
    runs: Sequence[Run], probers: Mapping[str, Prober], starvation: Starvation, *, concurrency: int
) -> None:
    """Perform every run, so many at a time; cancelling ends those that are under way and begins no more."""
    slots = asyncio.Semaphore(concurrency)

    async def in_turn(run: Run) -> None:
        async with slots:
            await run.perform(probers[run.target.type], starvation)

    async with asyncio.TaskGroup() as group:
        for run in runs:
            group.create_task(in_turn(run))
            await asyncio.sleep(min(GAP_SECONDS, SPREAD_SECONDS / len(runs)))
