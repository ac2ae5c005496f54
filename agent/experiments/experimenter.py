"""Questions in, experiments out: side by side, each within its deadline, none beyond the budget or the bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from agent.diagnosis.experiment import (
    Answer,
    Connect,
    Experiment,
    LocalNetwork,
    Lookup,
    MeshProxy,
    Question,
    ServerClock,
    SmallSegments,
)
from agent.diagnosis.rules.case import Wanted
from agent.diagnosis.snapshot import Snapshot
from agent.experiments.bounds import Bounds, addresses_of
from agent.experiments.budget import Budget
from agent.experiments.clock import asks_for_time, server_clock
from agent.experiments.connection import Connections
from agent.experiments.local import LocalNetworkTables
from agent.experiments.lookup import look_up
from agent.experiments.mesh import find_proxy
from agent.experiments.pod import resolv_confs
from agent.experiments.segments import may_run_again, with_small_segments
from agent.net.resolvconf import ResolvConf
from agent.prober import Prober

AT_ONCE = 8
PATIENCE_SECONDS = 1.5
"""How long an answer is waited for: a SYN that was lost is sent again after 1 s."""
DEADLINE_SECONDS = 2.5
"""When an experiment is over, whatever it does: it had its time, and the runner's half a second to let go."""

_FREE = (MeshProxy, LocalNetwork)
"""They do not leave the pod."""
_ADDRESS_LIMIT = 64
"""How many addresses the routes are looked up of."""

Complain = Callable[[str, Wanted, Exception | None], None]
"""Takes the name of an event, what was to be asked, and what was raised."""


def _log(event: str, wanted: Wanted, error: Exception | None) -> None:
    import structlog  # noqa: PLC0415 - `netprobe check` has no log, and does not pay for one

    structlog.get_logger(__name__).error(
        event, experiment=type(wanted.question).__name__, targets=list(wanted.targets), exc_info=error
    )


class Experimenter:
    """Asks. What an experiment finds goes back to the caller and nowhere else: no sink, no metric of a target."""

    def __init__(
        self,
        probers: Mapping[str, Prober],
        budget: Budget,
        *,
        complain: Complain = _log,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Use within a running event loop. The probers, by type, are those of the targets' runs, and remain theirs."""
        self._tell = complain
        self._probers = probers
        self._budget = budget
        self._wall_clock = wall_clock
        self._tables = LocalNetworkTables()
        self._connections = Connections(self._tables.unreachable_count)
        self._complained: set[tuple[str, str]] = set()
        self.asked = 0
        """Questions asked so far, those that found no answer included."""
        self.refused = 0
        """Questions not asked since they lead to somebody who is no target, no nameserver and not this pod."""
        self.left_out = 0
        """Questions not asked for want of budget."""

    async def ask(
        self, wanted: Sequence[Wanted], snapshot: Snapshot, found: Callable[[Experiment], None] = lambda _: None
    ) -> tuple[Experiment, ...]:
        """Ask what the budget allows, the first first, and return what was found, in the order of the questions.

        Each is told to `found` as soon as it has been: a host that is silent keeps nobody from what another one said.
        The snapshot they were planned on says whom they may be put to. Raises nothing but cancellation; takes 2.5 s at
        most for every eight questions.
        """
        paths = resolv_confs(history.target for history in snapshot.histories)
        confs = [ResolvConf.read(path) for path in paths]
        nameservers = {*snapshot.pod.resolver.nameservers, *(ip for conf in confs for ip in conf.nameservers)}
        bounds = Bounds.of(snapshot, nameservers)
        slots = asyncio.Semaphore(AT_ONCE)

        async def in_turn(one: Wanted) -> Experiment | None:
            async with slots:
                experiment = await self._experiment(one, snapshot, bounds)
            if experiment is not None:
                found(experiment)
            return experiment

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_turn(one)) for one in self._affordable(wanted, bounds)]
        return tuple(experiment for task in tasks if (experiment := task.result()) is not None)

    def _affordable(self, wanted: Sequence[Wanted], bounds: Bounds) -> Iterator[Wanted]:
        now = asyncio.get_running_loop().time()
        for one in wanted:
            if not _allowed(one.question, bounds):
                self.refused += 1
                self._complain("experiment_refused", one)
            elif not isinstance(one.question, _FREE) and not self._budget.take(now):
                self.left_out += 1
            else:
                self.asked += 1
                yield one

    async def _experiment(self, wanted: Wanted, snapshot: Snapshot, bounds: Bounds) -> Experiment | None:
        started_at = self._wall_clock()
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                answer = await self._answer(wanted.question, snapshot, bounds)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end the diagnosis of everything else
            self._complain("experiment_failed", wanted, error)
            return None
        return Experiment(question=wanted.question, answer=answer, targets=wanted.targets, started_at=started_at)

    def _complain(self, event: str, wanted: Wanted, error: Exception | None = None) -> None:
        """Log a defect, once for each kind of question: whoever asks may ask again and again."""
        kind = type(wanted.question).__name__
        if (event, kind) not in self._complained:
            self._complained.add((event, kind))
            self._tell(event, wanted, error)

    async def _answer(self, question: Question, snapshot: Snapshot, bounds: Bounds) -> Answer:
        match question:
            case Lookup():
                return await look_up(question, bounds.nameserver(question), PATIENCE_SECONDS)
            case Connect():
                return await self._connections.connect(question, PATIENCE_SECONDS)
            case SmallSegments():
                target = bounds.targets[question.target]
                return await with_small_segments(target, self._probers[target.type], PATIENCE_SECONDS)
            case ServerClock():
                return await server_clock(bounds.targets[question.target], PATIENCE_SECONDS, self._wall_clock)
            case MeshProxy():
                return await find_proxy()
            case LocalNetwork():
                addresses = dict.fromkeys(ip for history in snapshot.failing for ip in addresses_of(history))
                return self._tables.look(list(addresses)[:_ADDRESS_LIMIT])


def _allowed(question: Question, bounds: Bounds) -> bool:
    """Whether a question leads to nobody else, and makes sense for its target."""
    if not bounds.allow(question):
        return False
    match question:
        case ServerClock():
            return asks_for_time(bounds.targets[question.target])
        case SmallSegments():
            return may_run_again(bounds.targets[question.target])
        case _:
            return True
