"""A check from its first run to its diagnosis: outcomes, a few questions more where one failed, and verdicts."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agent.check.running import Run, probe_all, probers_of
from agent.config import DiagnosisOptions
from agent.diagnosis import Diagnosis, History, Pod, Snapshot, diagnose, plan
from agent.diagnosis.experiment import Experiment
from agent.diagnosis.rules.case import Wanted
from agent.experiments import read_pod
from agent.model import Target
from agent.prober import Prober
from agent.starvation import Starvation, Throttling

ROUNDS = 4
"""An answer may lead to another question, as a name to its addresses: so many times at most."""
QUESTIONS_SECONDS = 6.0
"""The longest all questions may take together: somebody waits."""


class Examination:
    """A check, as far as it is."""

    def __init__(self, targets: Sequence[Target[Any]], options: DiagnosisOptions) -> None:
        """Use within a running event loop."""
        self.runs = tuple(Run(target) for target in targets)
        self.experiments: tuple[Experiment, ...] = ()
        """The newest first."""
        self.runbook = options.runbook
        """Where the sections of the causes are."""
        self._options = options
        self._starvation = Starvation(Throttling.find())
        self._pod: Pod = read_pod(targets, time.time())

    async def perform(self, concurrency: int) -> None:
        """Probe, then ask. Cancelled, it has what was found by then."""
        self._starvation.lag.start()
        try:
            async with probers_of([run.target for run in self.runs]) as probers:
                await probe_all(self.runs, probers, self._starvation, concurrency=concurrency)
                if self._options.experiments:
                    await self._ask(probers)
        finally:
            self._starvation.lag.stop()

    def diagnosis(self) -> Diagnosis:
        return diagnose(self._snapshot())

    async def _ask(self, probers: Mapping[str, Prober]) -> None:
        """Ask what the outcomes, and then the answers, make worth asking."""
        wanted = plan(self._snapshot())
        if not wanted:
            return
        from agent.experiments import Budget, Experimenter  # noqa: PLC0415

        options = self._options
        budget = Budget(per_minute=options.experiments_per_minute, per_pod=options.experiments_per_pod)
        experimenter = Experimenter(probers, budget, complain=_complain)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUESTIONS_SECONDS):
                for _ in range(ROUNDS):
                    if not await experimenter.ask(wanted, self._snapshot(), self._found):
                        return
                    wanted = plan(self._snapshot())
                    if not wanted:
                        return

    def _found(self, experiment: Experiment) -> None:
        self.experiments = (experiment, *self.experiments)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            at=time.time(),
            pod=self._pod,
            histories=tuple(History(run.target, (run.outcome,) if run.outcome else ()) for run in self.runs),
            experiments=self.experiments,
            event_loop_lag_seconds=self._starvation.lag.recent_seconds(),
            throttled_share=self._starvation.throttled_share(),
        )


def _complain(event: str, wanted: Wanted, error: Exception | None) -> None:
    """Say on standard error what is a defect of netprobe's own; the diagnosis does without that answer."""
    why = f": {type(error).__name__}: {error}" if error else ""
    sys.stderr.write(f"netprobe: {event} ({type(wanted.question).__name__}){why}\n")
