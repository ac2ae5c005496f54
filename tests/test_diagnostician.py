"""What keeps the diagnosis up to date: when it evaluates, what it asks, what it forgets, and that it harms nobody."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import structlog

from agent.diagnosis import Cause, Confidence, Diagnosis, Pod, Resolver, Snapshot, Verdict, rules
from agent.diagnosis.experiment import Connect, Connected, Experiment, LocalNetwork, LocalTables, Question
from agent.diagnosis.rules import Planner, Rule
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnostician import (
    CALM_CPU_SHARE,
    CALM_SECONDS,
    CPU_SHARE,
    DEBOUNCE_SECONDS,
    FRESH_LOCALLY_SECONDS,
    FRESH_SECONDS,
    SLICE_SECONDS,
    SPACING_SECONDS,
    TICK_SECONDS,
    Diagnostician,
)
from agent.model import Outcome, Phase, Reason, Target
from agent.sinks.status import StatusSink
from agent.starvation import Starvation
from tests.lab.outcomes import named, outcome

VIRTUAL_TIME = pytest.mark.looptime(noop_cycles=0)
REFUSED = (Phase.CONNECT, Reason.REFUSED)
TIMEOUT = (Phase.CONNECT, Reason.TIMEOUT)
LITTLE = 0.001
"""Virtual seconds in which whatever is due happens."""

POD = Pod(
    started_at=0.0,
    resolver=Resolver(nameservers=("10.96.0.10",), search=(), ndots=5, timeout_seconds=5.0),
)

A, B = Connect("10.1.1.1", 1), Connect("10.1.1.2", 2)


class Asker:
    """Answers every question after a while, and keeps what it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked: list[Question] = []
        self.cancelled = 0

    async def ask(
        self, wanted: Sequence[Wanted], snapshot: Snapshot, found: Callable[[Experiment], None]
    ) -> tuple[Experiment, ...]:
        self.asked += [one.question for one in wanted]
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        experiments = [self._answer(one, snapshot) for one in wanted]
        for experiment in experiments:
            found(experiment)
        return tuple(experiments)

    @staticmethod
    def _answer(one: Wanted, snapshot: Snapshot) -> Experiment:
        answer = (
            LocalTables(gateways=(), unrouted=(), global_ipv6=False, sent_segments=0, retransmitted_segments=0)
            if isinstance(one.question, LocalNetwork)
            else Connected(failure=None, seconds=0.001)
        )
        return Experiment(question=one.question, answer=answer, targets=one.targets, started_at=snapshot.at)


class World:
    """Targets, the sinks they are written to, and everything that was said about them."""

    def __init__(self, *targets: Target[Any], asker: Asker | None = None) -> None:
        self.targets = targets
        self.status = StatusSink(targets)
        self.told: list[tuple[float, Diagnosis]] = []
        self.asker = asker
        self.loop = asyncio.get_running_loop()
        self.diagnostician = Diagnostician(
            self.status, POD, Starvation(None), asker=asker, listeners=(self,), wall_clock=self.loop.time
        )

    def diagnosed(self, diagnosis: Diagnosis) -> None:
        self.told.append((self.loop.time(), diagnosis))

    def write(self, name: str, failed: tuple[Phase, Reason] | None = None, seconds: float = 0.01) -> None:
        """A run has ended."""
        (target,) = (target for target in self.targets if target.name == name)
        what: Outcome = outcome(target, failed, at=self.loop.time() - seconds, seconds=seconds)
        self.status.write(what)
        self.diagnostician.write(what)

    @property
    def experiments(self) -> dict[Question, tuple[str, ...]]:
        """Those that count now, with their targets."""
        return {e.question: e.targets for e in self.diagnostician.current.experiments}

    @property
    def causes(self) -> tuple[Cause, ...]:
        return self.diagnostician.current.diagnosis.causes


@pytest.fixture
def planning(monkeypatch: pytest.MonkeyPatch) -> Callable[[Planner], None]:
    """Let a planner of the test be the only one, and no rule know a cause."""

    def use(planner: Planner) -> None:
        monkeypatch.setattr(rules, "RULES", ())
        monkeypatch.setattr(rules, "PLANNERS", (planner,))

    return use


@pytest.fixture
def ruling(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rule], None]:
    """Let a rule of the test be the only one, and nothing be asked."""

    def use(rule: Rule) -> None:
        monkeypatch.setattr(rules, "RULES", (rule,))
        monkeypatch.setattr(rules, "PLANNERS", ())

    return use


def about_failing(*questions: Question) -> Planner:
    """A planner that wants these about everything that fails."""

    def planner(case: Case) -> Iterable[Wanted]:
        names = tuple(history.name for history in case.snapshot.failing)
        return [Wanted(question, names) for question in questions] if names else []

    return planner


# --- when -----------------------------------------------------------------------------------------------------------


@VIRTUAL_TIME
async def test_nothing_is_said_before_the_first_result() -> None:
    world = World(named("a"))
    await asyncio.sleep(60.0)
    current = world.diagnostician.current
    assert (current.since, current.held_seconds, world.told) == (None, None, [])


@VIRTUAL_TIME
async def test_what_fails_together_is_diagnosed_together_and_soon() -> None:
    """One evaluation for a burst of outcomes, a tenth of a second after the first of them."""
    world = World(named("a"), named("b"))
    world.write("a", REFUSED)
    await asyncio.sleep(DEBOUNCE_SECONDS / 2)
    world.write("b", TIMEOUT)
    await asyncio.sleep(DEBOUNCE_SECONDS / 2 + LITTLE)
    ((at, diagnosis),) = world.told
    assert at == pytest.approx(DEBOUNCE_SECONDS)
    assert sorted(name for verdict in diagnosis.verdicts for name in verdict.targets) == ["a", "b"]


@VIRTUAL_TIME
async def test_a_recovery_is_seen_as_soon_as_a_failure() -> None:
    world = World(named("a"))
    world.write("a", REFUSED)
    await asyncio.sleep(10.0)
    world.write("a")
    await asyncio.sleep(DEBOUNCE_SECONDS + SPACING_SECONDS)
    assert world.causes == (Cause.HEALTHY,)


@VIRTUAL_TIME
async def test_success_after_success_can_wait_a_little_and_a_failure_behind_it_cannot() -> None:
    world = World(named("a"), named("b"))
    for name in "ab":
        world.write(name)
    await asyncio.sleep(10.0)
    world.told.clear()
    began = world.loop.time()
    world.write("a")
    world.write("b", REFUSED)
    await asyncio.sleep(DEBOUNCE_SECONDS + LITTLE)
    assert [at for at, _ in world.told] == [pytest.approx(began + DEBOUNCE_SECONDS)]
    assert DEBOUNCE_SECONDS < CALM_SECONDS


@VIRTUAL_TIME
async def test_however_many_outcomes_come_there_are_only_a_few_evaluations_a_second() -> None:
    world = World(*(named(f"t{number}") for number in range(100)))
    for turn in range(1000):  # ten seconds, a hundred outcomes a second
        world.write(f"t{turn % 100}", REFUSED if turn % 3 else None)
        await asyncio.sleep(0.01)
    assert 10 <= len(world.told) <= 10.0 / SPACING_SECONDS + 1


@VIRTUAL_TIME
async def test_a_costly_evaluation_is_made_seldom(ruling: Callable[[Rule], None]) -> None:
    """The CPU belongs to the task."""
    cost = 0.05

    def slow(_: Case) -> Iterable[Verdict]:
        time.sleep(cost)
        return ()

    ruling(slow)
    world = World(named("a"))
    for _ in range(100):  # ten seconds
        world.write("a", REFUSED)
        await asyncio.sleep(0.1)
    assert 1 < len(world.told) <= 10.0 / (cost / CPU_SHARE) + 1


@VIRTUAL_TIME
async def test_a_costly_evaluation_of_what_goes_on_well_is_made_even_more_seldom(
    ruling: Callable[[Rule], None],
) -> None:
    """And still, a failure does not wait for that."""
    cost = 0.02

    def slow(_: Case) -> Iterable[Verdict]:
        time.sleep(cost)
        return ()

    ruling(slow)
    world = World(named("a"), named("b"))
    for _ in range(200):  # twenty seconds
        world.write("a")
        await asyncio.sleep(0.1)
    assert 1 < len(world.told) <= 20.0 / (cost / CALM_CPU_SHARE) + 2
    await asyncio.sleep(cost / CPU_SHARE)
    world.write("a")
    world.write("b", REFUSED)
    # Whatever the machine made of twenty milliseconds.
    await asyncio.sleep(max(SPACING_SECONDS, world.diagnostician._cost / CPU_SHARE) + DEBOUNCE_SECONDS)
    assert world.causes == (Cause.UNKNOWN,)


async def test_others_have_their_turn_while_a_long_evaluation_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule by rule: a run that ends meanwhile is not kept waiting for all of them."""
    turns: list[int] = []
    ended: list[int] = []

    def rule(number: int) -> Rule:
        def slow(_: Case) -> Iterable[Verdict]:
            time.sleep(2 * SLICE_SECONDS)
            ended.append(number)
            return ()

        return slow

    monkeypatch.setattr(rules, "RULES", tuple(rule(number) for number in range(10)))
    monkeypatch.setattr(rules, "PLANNERS", ())
    world = World(named("a"))
    world.write("a", REFUSED)
    while not world.told:
        if ended and len(ended) < 10:
            turns.append(len(ended))
        await asyncio.sleep(0)
    assert len(set(turns)) >= 5
    world.diagnostician.close()


@VIRTUAL_TIME
async def test_time_alone_can_end_a_verdict(ruling: Callable[[Rule], None]) -> None:
    """As `network_not_ready`, which fades as the pod grows older."""

    def young(case: Case) -> Iterable[Verdict]:
        if case.snapshot.pod_age_seconds < 300:
            yield verdict(Cause.NETWORK_NOT_READY)

    ruling(young)
    world = World(named("a"))
    world.write("a")
    await asyncio.sleep(1.0)
    assert world.causes == (Cause.NETWORK_NOT_READY,)
    await asyncio.sleep(300.0 + TICK_SECONDS)
    assert world.causes == (Cause.HEALTHY,)
    ended = len(world.told)
    await asyncio.sleep(3600.0)
    assert len(world.told) == ended  # a healthy diagnosis waits for news


def verdict(cause: Cause, *targets: str, confidence: Confidence = Confidence.HIGH) -> Verdict:
    return Verdict(cause=cause, confidence=confidence, targets=targets, summary="so", evidence=(), advice="this")


@VIRTUAL_TIME
async def test_causes_hold_until_there_are_others_whatever_their_confidence_and_targets(
    ruling: Callable[[Rule], None],
) -> None:
    def rule(case: Case) -> Iterable[Verdict]:
        names = tuple(history.name for history in case.unexplained)
        if names:
            confidence = Confidence.HIGH if len(names) > 1 else Confidence.LOW
            yield verdict(Cause.TARGET_BLOCKED, *names, confidence=confidence)

    ruling(rule)
    world = World(named("a"), named("b"))
    world.write("a", TIMEOUT)
    await asyncio.sleep(10.0)
    world.write("b", TIMEOUT)
    await asyncio.sleep(10.0)
    current = world.diagnostician.current
    assert [one.confidence for one in current.diagnosis.verdicts] == [Confidence.HIGH]
    assert current.since == pytest.approx(DEBOUNCE_SECONDS)
    assert current.held_seconds == pytest.approx(20.0 - DEBOUNCE_SECONDS)
    for name in "ab":
        world.write(name)
    await asyncio.sleep(10.0)
    current = world.diagnostician.current
    assert current.diagnosis.healthy
    assert current.held_seconds == pytest.approx(10.0 - DEBOUNCE_SECONDS)


# --- questions ------------------------------------------------------------------------------------------------------


@VIRTUAL_TIME
async def test_what_a_planner_wants_is_asked_and_the_answer_belongs_to_the_snapshot(
    planning: Callable[[Planner], None],
) -> None:
    """An answer may lead to another question."""

    def planner(case: Case) -> Iterable[Wanted]:
        yield Wanted(A, ("a",))
        if list(case.snapshot.asked(Connect, "a")):
            yield Wanted(B, ("a",))

    planning(planner)
    asker = Asker()
    world = World(named("a"), asker=asker)
    world.write("a", REFUSED)
    await asyncio.sleep(1.0)
    assert asker.asked == [A, B]
    assert world.experiments == {A: ("a",), B: ("a",)}
    assert [e.question for e in world.diagnostician.current.experiments] == [B, A]  # the newest first


@VIRTUAL_TIME
async def test_a_question_under_way_is_not_asked_again(planning: Callable[[Planner], None]) -> None:
    planning(about_failing(A))
    asker = Asker(seconds=5.0)
    world = World(named("a"), asker=asker)
    for _ in range(4):
        world.write("a", REFUSED)
        await asyncio.sleep(1.0)
    assert asker.asked == [A]
    assert world.experiments == {}


@VIRTUAL_TIME
async def test_nothing_is_asked_without_an_asker(planning: Callable[[Planner], None]) -> None:
    """Off by configuration; there is a verdict all the same."""
    planning(about_failing(A))
    world = World(named("a"))
    world.write("a", REFUSED)
    await asyncio.sleep(1.0)
    assert (world.experiments, world.causes) == ({}, (Cause.UNKNOWN,))


@VIRTUAL_TIME
@pytest.mark.parametrize("then", [None, TIMEOUT], ids=["it works again", "it fails in another way"])
async def test_an_answer_about_a_state_that_is_over_is_dropped(
    then: tuple[Phase, Reason] | None, planning: Callable[[Planner], None]
) -> None:
    def planner(case: Case) -> Iterable[Wanted]:
        failures = ((history.name, history.failure) for history in case.snapshot.failing)
        return [Wanted(A, (name,)) for name, failure in failures if failure and failure.reason is Reason.REFUSED]

    planning(planner)
    asker = Asker()
    world = World(named("a"), asker=asker)
    world.write("a", REFUSED)
    await asyncio.sleep(5.0)
    world.write("a", REFUSED)
    await asyncio.sleep(1.0)
    assert world.experiments == {A: ("a",)}
    world.write("a", then)
    await asyncio.sleep(1.0)
    assert world.experiments == {}
    world.write("a", REFUSED)
    await asyncio.sleep(1.0)
    assert asker.asked == [A, A]


@VIRTUAL_TIME
async def test_an_answer_that_comes_too_late_is_dropped(planning: Callable[[Planner], None]) -> None:
    planning(about_failing(A))
    world = World(named("a"), asker=Asker(seconds=2.0))
    world.write("a", REFUSED)
    await asyncio.sleep(1.0)
    world.write("a")
    await asyncio.sleep(5.0)
    assert world.experiments == {}


@VIRTUAL_TIME
async def test_an_answer_counts_for_every_target_that_fails_by_then_and_is_not_asked_for_twice(
    planning: Callable[[Planner], None],
) -> None:
    """A timeout began before the question was asked, whenever it ends."""
    planning(about_failing(A))
    asker = Asker()
    world = World(named("a"), named("b"), named("c"), asker=asker)
    world.write("a", REFUSED)
    await asyncio.sleep(2.0)
    world.write("b", TIMEOUT, seconds=6.0)
    await asyncio.sleep(2.0)
    assert (asker.asked, world.experiments) == ([A], {A: ("a", "b")})
    # This one was still well when the question was asked.
    world.write("c", TIMEOUT, seconds=1.0)
    await asyncio.sleep(2.0)
    assert (asker.asked, world.experiments) == ([A, A], {A: ("a", "b", "c")})
    world.write("a")
    await asyncio.sleep(2.0)
    assert world.experiments == {A: ("b", "c")}


@VIRTUAL_TIME
async def test_answers_are_renewed_ever_more_seldom_and_count_until_then(planning: Callable[[Planner], None]) -> None:
    """After a minute, two, four …: a failure that lasts a day does not use the budget up, and its verdict stays."""
    planning(about_failing(A))
    asker = Asker()
    world = World(named("a"), asker=asker)
    asked_at: list[int] = []
    for second in range(2000):
        if second % 5 == 0:
            world.write("a", TIMEOUT)
        await asyncio.sleep(1.0)
        assert world.experiments == {A: ("a",)}
        if len(asker.asked) > len(asked_at):
            asked_at.append(second)
    first, second_time, *others = asked_at
    assert first == 0
    assert second_time == pytest.approx(FRESH_SECONDS, abs=2 * TICK_SECONDS)
    assert len(others) == 4
    for before, after in itertools.pairwise(asked_at[1:]):
        assert 2 * before <= after <= 2 * before + 3 * TICK_SECONDS


@VIRTUAL_TIME
async def test_the_pods_own_tables_are_read_more_often(planning: Callable[[Planner], None]) -> None:
    """They cost nothing, and count since the look before."""
    planning(about_failing(LocalNetwork()))
    asker = Asker()
    world = World(named("a"), asker=asker)
    for _ in range(600):
        world.write("a", TIMEOUT)
        await asyncio.sleep(1.0)
    assert 600 / (FRESH_LOCALLY_SECONDS + 2) <= len(asker.asked) <= 600 / FRESH_LOCALLY_SECONDS + 1


# --- harm -----------------------------------------------------------------------------------------------------------


@VIRTUAL_TIME
async def test_a_rule_that_raises_leaves_unknown_and_says_so_once(ruling: Callable[[Rule], None]) -> None:
    """Every failing target still has a verdict; whoever writes an outcome notices nothing."""

    def broken(_: Case) -> Iterable[Verdict]:
        raise ZeroDivisionError("a defect")

    ruling(broken)
    world = World(named("a"), named("b"))
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            world.write("a", REFUSED)
            world.write("b")
            await asyncio.sleep(1.0)
    ((cause, names),) = [(v.cause, v.targets) for v in world.diagnostician.current.diagnosis.verdicts]
    assert (cause, names) == (Cause.UNKNOWN, ("a",))
    assert [(event["event"], event["error"]) for event in logs] == [("diagnosis_raised", "ZeroDivisionError: a defect")]


@VIRTUAL_TIME
async def test_a_planner_that_raises_costs_its_questions_only(planning: Callable[[Planner], None]) -> None:
    def broken(_: Case) -> Iterable[Wanted]:
        raise ZeroDivisionError("a defect")

    planning(broken)
    world = World(named("a"), asker=Asker())
    with structlog.testing.capture_logs() as logs:
        world.write("a", REFUSED)
        await asyncio.sleep(5.0)
        world.write("a")
        await asyncio.sleep(5.0)
    assert world.told[0][1].causes == (Cause.UNKNOWN,)
    assert world.causes == (Cause.HEALTHY,)
    assert len(logs) == 1


@VIRTUAL_TIME
async def test_the_end_has_the_last_word_and_then_nothing_more(planning: Callable[[Planner], None]) -> None:
    """Questions under way are given up; an outcome of the last moment is in the diagnosis."""
    planning(about_failing(A))
    asker = Asker(seconds=2.0)
    world = World(named("a"), named("b"), asker=asker)
    world.write("a", REFUSED)
    await asyncio.sleep(1.0)
    world.diagnostician.ask_no_more()
    world.write("b", TIMEOUT)
    world.diagnostician.close()
    _, diagnosis = world.told[-1]
    assert sorted(name for one in diagnosis.verdicts for name in one.targets) == ["a", "b"]
    said = len(world.told)
    await asyncio.sleep(60.0)
    assert (len(world.told), asker.asked, asker.cancelled) == (said, [A], 1)
    assert {task for task in asyncio.all_tasks() if task.get_name() == "experiments"} == set()


@VIRTUAL_TIME
async def test_the_snapshot_has_what_is_known(ruling: Callable[[Rule], None]) -> None:
    seen: list[Snapshot] = []

    def look(case: Case) -> Iterable[Verdict]:
        seen.append(case.snapshot)
        return ()

    ruling(look)
    world = World(named("a"))
    world.write("a", REFUSED)
    await asyncio.sleep(1.0)
    assert (seen[0].event_loop_lag_seconds, seen[0].throttled_share) == (0.0, 0.0)
    assert dataclasses.astuple(seen[0].pod) == dataclasses.astuple(POD)
    assert [history.name for history in seen[0].histories] == ["a"]
    assert seen[0].at == pytest.approx(DEBOUNCE_SECONDS)
