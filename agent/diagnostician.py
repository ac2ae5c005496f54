"""Keeps the diagnosis up to date: outcomes in, questions out, and what holds now to whoever listens.

A sink. No run waits for anything here, and evaluations take a small part of one CPU at most, whatever each costs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from agent.diagnosis import Diagnosis, History, Pod, Snapshot, diagnose, diagnosing, planning
from agent.diagnosis.experiment import Experiment, LocalNetwork, Question
from agent.diagnosis.rules import Steps
from agent.diagnosis.rules.case import Case, Wanted
from agent.model import Outcome, Phase, Reason
from agent.sinks.status import StatusSink
from agent.starvation import Starvation

DEBOUNCE_SECONDS = 0.1
"""From an outcome to the evaluation: what fails together is explained together."""
CALM_SECONDS = 2.0
"""The same, where a target goes on succeeding: most evaluations are of this kind, and find nothing."""
GATHERING_SECONDS = 0.05
"""The same after an answer: most come together."""
SPACING_SECONDS = 0.25
"""From one evaluation to the next at least."""
CPU_SHARE = 0.05
"""Evaluations that are costly come seldom enough not to take more of one CPU than this."""
CALM_CPU_SHARE = 0.01
"""The same, as long as targets that succeeded succeed."""
CLOCK_SECONDS = 0.001
"""How much sooner than it was asked for a timer may go off, generously."""
SLICE_SECONDS = 0.002
"""How long a part of an evaluation takes, about: then whatever else is due has its turn."""
TICK_SECONDS = 5.0
"""Between two evaluations where nothing happens but time: some verdicts fade. A healthy diagnosis waits for news."""
FRESH_SECONDS = 60.0
"""An answer older than this is asked for anew, and meanwhile still counts. The second time comes after twice as long,
and so on: a failure that stays as it is needs ever fewer questions."""
FRESH_LOCALLY_SECONDS = 10.0
"""The same of this pod's own tables, which cost nothing."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Listener(Protocol):
    """Whoever is told. Must not raise."""

    def diagnosed(self, diagnosis: Diagnosis) -> None:
        """What holds now; told at every evaluation, whether or not it is news."""


class Asker(Protocol):
    """What asks questions: agent.experiments."""

    async def ask(
        self, wanted: Sequence[Wanted], snapshot: Snapshot, found: Callable[[Experiment], None]
    ) -> tuple[Experiment, ...]:
        """Ask what may be asked, and tell each answer as soon as it is there. Raises nothing but cancellation."""


@dataclass(slots=True)
class _State:
    """How a target is."""

    kind: tuple[Phase, Reason] | None
    """How it fails; None where it succeeds."""
    since: float
    """When the first run began that found it so, by the loop's clock."""


@dataclass(frozen=True, slots=True)
class _Answer:
    experiment: Experiment
    asked_at: float
    """By the loop's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """What holds now, and for how long."""

    diagnosis: Diagnosis
    since: float | None
    """Unix time at which the present causes were first seen; None before the first result of a target."""
    held_seconds: float | None
    """The same by a clock that nobody sets."""
    experiments: tuple[Experiment, ...]
    """Those it rests on, the newest first."""


class _Slices:
    """Work done in small parts, and what they cost together."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._part = 0.0
        self.cost = 0.0
        """Seconds."""

    async def take(self, steps: Steps[T]) -> T:
        """Every step of something, with pauses. Whatever it raises."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                spent = time.perf_counter() - self._began
                self._began += spent
                self.cost += spent
                self._part += spent
            if self._part >= SLICE_SECONDS:
                await asyncio.sleep(0)
                self._began, self._part = time.perf_counter(), 0.0


class Diagnostician:
    """A sink, to be written to after the StatusSink that it reads."""

    def __init__(
        self,
        status: StatusSink,
        pod: Pod,
        starvation: Starvation,
        *,
        asker: Asker | None,
        listeners: Iterable[Listener] = (),
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Use within a running event loop. Without an asker nothing is asked."""
        self._loop = asyncio.get_running_loop()
        self._status = status
        self._pod = pod
        self._starvation = starvation
        self._asker = asker
        self._listeners = tuple(listeners)
        self._wall_clock = wall_clock
        self._states: dict[str, _State] = {}
        self._answers: dict[Question, _Answer] = {}
        self._asking: dict[asyncio.Task[tuple[Experiment, ...]], frozenset[Question]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._evaluation: asyncio.Task[None] | None = None
        self._evaluated_at = float("-inf")
        self._cost = 0.0
        """What the last evaluation took of a CPU, in seconds."""
        self._diagnosis = Diagnosis()
        self._since: tuple[float, float] | None = None
        """By the wall clock, and by the loop's."""
        self._complained = ""

    @property
    def current(self) -> Current:
        since = self._since
        return Current(
            diagnosis=self._diagnosis,
            since=since[0] if since else None,
            held_seconds=self._loop.time() - since[1] if since else None,
            experiments=self._experiments(),
        )

    def write(self, outcome: Outcome) -> None:
        failure = outcome.failure
        kind = (failure.phase, failure.reason) if failure else None
        state = self._states.get(outcome.target.name)
        calm = kind is None and state is not None and state.kind is None
        if state is None or state.kind != kind:
            self._states[outcome.target.name] = _State(kind, self._loop.time() - outcome.duration_seconds)
        self._evaluate_in(CALM_SECONDS if calm else DEBOUNCE_SECONDS, calm=calm)

    def ask_no_more(self) -> None:
        """Give up the questions under way, and ask no others: the agent is about to end."""
        self._asker = None
        for task in self._asking:
            task.cancel()

    def close(self) -> None:
        """Evaluate what is known once more, and no more after that."""
        self.ask_no_more()
        for handle in (self._timer, self._evaluation):
            if handle is not None:
                handle.cancel()
        self._forget()
        if self._states:
            try:
                self._settle(diagnose(self._snapshot()))
            except Exception as error:  # noqa: BLE001 - what was known before is known still
                self._complain(error)

    def _evaluate_in(self, seconds: float, *, calm: bool = False) -> None:
        """Evaluate within this time, if that is not too soon after the last time."""
        at = max(self._loop.time() + seconds, self._rested_at(CALM_CPU_SHARE if calm else CPU_SHARE))
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._evaluate)

    def _rested_at(self, share: float) -> float:
        return self._evaluated_at + max(SPACING_SECONDS, self._cost / share)

    def _evaluate(self) -> None:
        self._timer = None
        # One may be under way, or have ended since this one was asked for.
        if self._evaluation is not None or self._loop.time() < self._rested_at(CPU_SHARE) - CLOCK_SECONDS:
            self._evaluate_in(SPACING_SECONDS)
            return
        self._evaluation = self._loop.create_task(self._renew(), name="diagnosis")
        self._evaluation.add_done_callback(self._evaluated)

    def _evaluated(self, task: asyncio.Task[None]) -> None:
        self._evaluation = None
        self._evaluated_at = self._loop.time()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:  # no defect here is a reason not to probe
            self._complain(error)
        if not self._diagnosis.healthy:
            self._evaluate_in(TICK_SECONDS)

    async def _renew(self) -> None:
        slices = _Slices()
        try:
            self._forget()
            snapshot = self._snapshot()
            self._settle(await self._diagnose(snapshot, slices))
            if self._asker is not None:
                await self._ask(self._asker, snapshot, slices)
        finally:
            self._cost = slices.cost

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            at=self._wall_clock(),
            pod=self._pod,
            histories=tuple(
                History(status.target, status.recent, status.earlier_failures, status.first)
                for status in self._status.statuses()
            ),
            experiments=self._experiments(),
            event_loop_lag_seconds=self._starvation.lag.recent_seconds(),
            throttled_share=self._starvation.throttled_share(),
        )

    async def _diagnose(self, snapshot: Snapshot, slices: _Slices) -> Diagnosis:
        try:
            return await slices.take(diagnosing(snapshot))
        except Exception as error:  # noqa: BLE001 - then nobody knows why; that something fails is known all the same
            self._complain(error)
            case = Case(snapshot)
            case.settle_the_rest()
            return Diagnosis(case.verdicts)

    def _settle(self, diagnosis: Diagnosis) -> None:
        if self._since is None or set(diagnosis.causes) != set(self._diagnosis.causes):
            self._since = (self._wall_clock(), self._loop.time())
        self._diagnosis = diagnosis
        for listener in self._listeners:
            listener.diagnosed(diagnosis)

    async def _ask(self, asker: Asker, snapshot: Snapshot, slices: _Slices) -> None:
        """Have asked what is worth asking, less what is being asked, and what is known but not for which target."""
        old = {question for question, answer in self._answers.items() if self._old(answer)}
        known = tuple(experiment for experiment in snapshot.experiments if experiment.question not in old)
        plan = await slices.take(planning(dataclasses.replace(snapshot, experiments=known)))
        # Meanwhile answers may have come, and others have lost their meaning.
        fresh = {question: answer for question, answer in self._answers.items() if question not in old}
        under_way = frozenset[Question]().union(*self._asking.values())
        wanted: list[Wanted] = []
        for one in plan:
            answer = fresh.get(one.question)
            if one.question in under_way:
                continue
            if answer is not None and all(self._counts(answer, name) for name in one.targets):
                self._share(answer, one.targets)
            else:
                wanted.append(one)
        if wanted and self._asker is not None:
            asked_at = self._loop.time()
            asking = asker.ask(wanted, snapshot, lambda experiment: self._found(experiment, asked_at))
            task = self._loop.create_task(asking, name="experiments")
            self._asking[task] = frozenset(one.question for one in wanted)
            task.add_done_callback(self._asked)

    def _found(self, experiment: Experiment, asked_at: float) -> None:
        self._answers[experiment.question] = _Answer(experiment, asked_at)
        self._evaluate_in(GATHERING_SECONDS)

    def _asked(self, task: asyncio.Task[tuple[Experiment, ...]]) -> None:
        del self._asking[task]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._complain(error)

    def _share(self, answer: _Answer, targets: Iterable[str]) -> None:
        """Let an answer count for further targets."""
        self._keep(answer, dict.fromkeys((*answer.experiment.targets, *targets)))
        self._evaluate_in(GATHERING_SECONDS)

    def _keep(self, answer: _Answer, targets: Iterable[str]) -> None:
        experiment = dataclasses.replace(answer.experiment, targets=tuple(targets))
        self._answers[experiment.question] = _Answer(experiment, answer.asked_at)

    def _forget(self) -> None:
        """Drop what was asked about a state of things that is over."""
        for question, answer in list(self._answers.items()):
            names = [name for name in answer.experiment.targets if self._counts(answer, name)]
            if not names:
                del self._answers[question]
            elif len(names) < len(answer.experiment.targets):
                self._keep(answer, names)

    def _counts(self, answer: _Answer, target: str) -> bool:
        """Whether what was asked then says something about this target as it is now."""
        return target in self._states and self._states[target].since <= answer.asked_at

    def _old(self, answer: _Answer) -> bool:
        """Whether a newer answer is worth its question."""
        now = self._loop.time()
        if isinstance(answer.experiment.question, LocalNetwork):
            return now - answer.asked_at > FRESH_LOCALLY_SECONDS
        states = [self._states[name] for name in answer.experiment.targets if name in self._states]
        failing = max((now - state.since for state in states if state.kind is not None), default=0.0)
        return now - answer.asked_at > max(FRESH_SECONDS, failing / 2)

    def _experiments(self) -> tuple[Experiment, ...]:
        answers = sorted(self._answers.values(), key=lambda answer: answer.asked_at, reverse=True)
        return tuple(answer.experiment for answer in answers)

    def _complain(self, error: BaseException) -> None:
        """Log a defect, once for each time it changes."""
        text = f"{type(error).__name__}: {error}"
        if text != self._complained:
            self._complained = text
            _log.error("diagnosis_raised", error=text, exc_info=error)
