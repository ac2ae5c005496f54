"""Questions in, experiments out: side by side, each within its deadline, none beyond the budget or the bounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from agent.diagnosis.experiment import Experiment
from agent.diagnosis.rules.case import Wanted
from agent.diagnosis.snapshot import Snapshot
from agent.experiments.budget import Budget
from agent.prober import Prober


class Experimenter:
    """Asks. What an experiment finds goes back to the caller and nowhere else: no sink, no metric of a target."""

    def __init__(
        self,
        probers: Mapping[str, Prober],
        *,
        budget: Budget | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Use within a running event loop. The probers, by type, are those of the targets' runs; they are not closed."""
        self._probers = probers
        self._budget = budget or Budget()
        self._wall_clock = wall_clock
        self.asked = 0
        """Questions asked so far, those that found no answer included."""
        self.refused = 0
        """Questions not asked since they lead to somebody who is no target, no nameserver and not this pod."""
        self.left_out = 0
        """Questions not asked for want of budget."""

    async def ask(self, wanted: Sequence[Wanted], snapshot: Snapshot) -> tuple[Experiment, ...]:
        """Ask what the budget allows, the first first, and return what was found, in the order of the questions.

        The snapshot they were planned on says whom they may be put to. Raises nothing but cancellation; takes 2.5 s at
        most for every eight questions.
        """
        raise NotImplementedError
