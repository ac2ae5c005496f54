"""The schedule, in virtual time: hours pass in milliseconds and every number can be exact."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
import structlog

from agent.model import Failure, Outcome, Phase, Reason, Target
from agent.scheduler import CUT_SECONDS, FIRST_RUNS_SECONDS, GRACE, JITTER, Scheduler, Start, Timetable, spread
from tests.lab.targets import target as make_target

HOUR = 3600.0
VIRTUAL_TIME = pytest.mark.looptime(noop_cycles=0)
CLOCK_TICK_SECONDS = 1e-4
"""Virtual time goes in steps of a microsecond, and hours of it add up what each rounds off."""


def target(
    name: str, *, interval: float = 15.0, confirm_interval: float = 5.0, confirm_runs: int = 3, timeout: float = 6.0
) -> Target[Any]:
    return dataclasses.replace(
        make_target("tcp", address="127.0.0.1:1"),
        name=name,
        interval_seconds=interval,
        timeout_seconds=timeout,
        confirm_interval_seconds=confirm_interval,
        confirm_runs=confirm_runs,
    )


def outcome(of: Target[Any], *, success: bool = True) -> Outcome:
    failure = None if success else Failure(phase=Phase.CONNECT, reason=Reason.REFUSED, detail="refused")
    return Outcome(target=of, started_at=0.0, duration_seconds=0.0, phases={}, facts={}, failure=failure)


class Diary:
    """Takes the place of the runner and of the ledger: runs take as long and end as they are told."""

    def __init__(
        self,
        seconds: Callable[[Target[Any]], float] = lambda _: 0.01,
        healthy: Callable[[float], bool] = lambda _: True,
    ) -> None:
        self._seconds = seconds
        self._healthy = healthy
        self.begun: dict[str, list[float]] = {}
        self.lags: list[float] = []
        self.skips = 0
        self.together = 0
        self.most_together = 0
        self.now_running: Counter[str] = Counter()
        self.overlaps = 0

    async def run(self, of: Target[Any]) -> Outcome:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.begun.setdefault(of.name, []).append(began)
        self.now_running[of.name] += 1
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        self.overlaps += self.now_running[of.name] > 1
        try:
            await asyncio.sleep(self._seconds(of))
        finally:
            self.now_running[of.name] -= 1
            self.together -= 1
        return outcome(of, success=self._healthy(began))

    def started(self, lag_seconds: float) -> None:
        self.lags.append(lag_seconds)

    def skipped(self, rounds: int) -> None:
        self.skips += rounds

    @property
    def runs(self) -> int:
        return sum(map(len, self.begun.values()))


async def watch(
    targets: list[Target[Any]], diary: Diary, seconds: float, *, concurrency: int = 1000, pod: str = "pod"
) -> None:
    """Let a scheduler run for a while."""
    scheduler = Scheduler(targets, diary.run, diary, pod=pod, concurrency=concurrency)
    scheduler.start()
    await asyncio.sleep(seconds)
    assert scheduler.ended == []
    await scheduler.stop(0.0)


@VIRTUAL_TIME
async def test_an_hour_of_hundreds_of_targets_has_exactly_its_rounds() -> None:
    """Every target runs once at the start and then once an interval, for an hour, without drift, skip or overlap."""
    targets = [target(f"t{number}") for number in range(300)]
    diary = Diary()
    await watch(targets, diary, HOUR)
    starts = spread(targets, "pod")
    assert diary.skips == 0
    assert diary.overlaps == 0
    for each in targets:
        first, *rounds = diary.begun[each.name]
        assert 0.0 <= first <= FIRST_RUNS_SECONDS
        # 3600 s hold 240 rounds; the first of them follows the first run by half an interval to one and a half.
        assert len(rounds) in {239, 240}
        phase = starts[each.name].phase_seconds
        for began in rounds:
            place = round((began - phase) / 15.0) * 15.0 + phase
            assert abs(began - place) <= JITTER * 15.0 / 2 + 1e-6


@VIRTUAL_TIME
async def test_the_period_is_the_interval_after_a_day() -> None:
    """Jitter and the time runs take do not lengthen the period: a day later the rounds lie where they did."""
    diary = Diary(seconds=lambda _: 3.0)
    await watch([target("t", interval=60.0)], diary, 24 * HOUR)
    _, first, *others = diary.begun["t"]
    assert len(others) + 1 in {24 * 60 - 1, 24 * 60}
    drift = (others[-1] - first) - 60.0 * len(others)
    assert abs(drift) <= JITTER * 60.0


@VIRTUAL_TIME
async def test_jitter_moves_every_run_and_stays_in_its_window() -> None:
    diary = Diary()
    await watch([target("t", interval=10.0)], diary, 10 * HOUR)
    gaps = [after - before for before, after in pairwise(diary.begun["t"][1:])]
    assert min(gaps) >= 10.0 * (1 - JITTER) - 1e-6
    assert max(gaps) <= 10.0 * (1 + JITTER) + 1e-6
    assert max(gaps) - min(gaps) > 10.0 * JITTER  # it is used


@VIRTUAL_TIME
@pytest.mark.parametrize("count", [1, 2, 5, 50, 400])
async def test_first_runs_of_all_targets_begin_within_a_second(count: int) -> None:
    diary = Diary()
    await watch([target(f"t{number}") for number in range(count)], diary, FIRST_RUNS_SECONDS)
    begun = sorted(first for first, *_ in diary.begun.values())
    assert len(begun) == count
    assert begun[-1] < FIRST_RUNS_SECONDS
    # And not in one burst.
    assert max(Counter(round(first, 3) for first in begun).values()) <= 1 + count // 400


def test_the_targets_of_a_pod_divide_their_interval_evenly() -> None:
    targets = [target(f"t{number}", interval=30.0) for number in range(60)]
    phases = sorted(start.phase_seconds for start in spread(targets, "pod").values())
    assert [after - before for before, after in pairwise(phases)] == pytest.approx([0.5] * 59)


@pytest.mark.parametrize(
    "share",
    [lambda start: start.phase_seconds / 15.0, lambda start: start.first_seconds / FIRST_RUNS_SECONDS],
    ids=["rounds", "first-runs"],
)
@pytest.mark.parametrize("count", [1, 3, 100])
def test_the_starts_of_a_fleet_are_uniform(share: Callable[[Start], float], count: int) -> None:
    """A thousand pods with the same targets, started together, ask each of them evenly over the time there is."""
    targets = [target(f"t{number}") for number in range(count)]
    shares: dict[str, list[float]] = {each.name: [] for each in targets}
    for number in range(1000):
        for name, start in spread(targets, f"8f3c2a1e-0000-4000-8000-{number:012d}").items():
            shares[name].append(share(start))
    for name, values in list(shares.items())[:3]:
        buckets = Counter(int(value * 20) for value in values)
        # 50 expected in each of 20; chi square with 19 degrees of freedom is above 43.8 once in a thousand.
        chi_square = sum((buckets[bucket] - 50) ** 2 / 50 for bucket in range(20))
        assert chi_square < 43.8, (name, buckets)


def test_two_pods_do_not_repeat_each_others_order() -> None:
    """What follows what differs from pod to pod, so that no pair of servers is always asked in the same beat."""
    targets = [target(f"t{number}") for number in range(10)]

    def order(pod: str) -> tuple[str, ...]:
        starts = spread(targets, pod)
        return tuple(sorted(starts, key=lambda name: starts[name].phase_seconds))

    assert len({order(f"pod-{number}") for number in range(20)}) == 20


def test_a_pod_that_restarts_keeps_its_place() -> None:
    targets = [target(f"t{number}") for number in range(10)]
    assert spread(targets, "pod") == spread(targets, "pod")


@VIRTUAL_TIME
async def test_a_slow_target_never_overlaps_itself_and_what_it_misses_is_counted() -> None:
    """Runs of two and a half intervals: every round is either run or counted as skipped, none is worked off later."""
    diary = Diary(seconds=lambda _: 2.5)
    await watch([target("t", interval=1.0)], diary, HOUR)
    assert diary.overlaps == 0
    rounds = diary.runs - 1 + diary.skips  # less the first run, which is not on the grid
    assert abs(rounds - 3600) <= 3
    # Each run makes two or three rounds pass, as jitter has it.
    assert 3600 / 3 < diary.runs <= 3600 / 2.5
    assert min(after - before for before, after in pairwise(diary.begun["t"])) >= 2.5 - 1e-6


@VIRTUAL_TIME
async def test_a_run_a_hair_longer_than_its_interval_does_not_lose_every_other_round() -> None:
    """A target that always times out, with a timeout as long as its interval, is still probed every interval."""
    diary = Diary(seconds=lambda _: 1.001)
    await watch([target("t", interval=1.0)], diary, HOUR)
    assert diary.runs > 3550
    assert diary.skips < 15


@VIRTUAL_TIME
async def test_the_cap_holds_and_waiting_for_a_slot_is_lag() -> None:
    """With ten targets, two slots and runs of one second, no more than two run, and the others' wait is told as lag."""
    diary = Diary(seconds=lambda _: 1.0)
    await watch([target(f"t{number}", interval=10.0) for number in range(10)], diary, 9.0, concurrency=2)
    assert diary.most_together == 2
    first = sorted(diary.lags[:10])
    # Ten first runs due at once, two at a time, one second each: the last two wait for about four seconds.
    assert first[-1] == pytest.approx(4.0, abs=0.3)
    assert first[0] == pytest.approx(0.0, abs=0.01)


@VIRTUAL_TIME
async def test_an_idle_agent_has_no_lag() -> None:
    diary = Diary()
    await watch([target(f"t{number}") for number in range(100)], diary, HOUR)
    assert max(diary.lags) == pytest.approx(0.0, abs=CLOCK_TICK_SECONDS)


@VIRTUAL_TIME
async def test_the_own_slowness_of_a_target_is_not_lag_of_the_agent() -> None:
    """A round that had to wait for the run before it was late because of the target."""
    diary = Diary(seconds=lambda _: 1.2)
    await watch([target("t", interval=1.0)], diary, 100.0)
    assert max(diary.lags) == pytest.approx(0.0, abs=CLOCK_TICK_SECONDS)


@VIRTUAL_TIME
async def test_after_a_failure_a_bounded_number_of_faster_runs_and_then_the_grid() -> None:
    """One failure that lasts: three confirmations five seconds apart, and nothing but the grid after that."""
    diary = Diary(healthy=lambda began: began < 60.0)
    await watch([target("t", interval=60.0, confirm_interval=5.0, confirm_runs=3)], diary, 600.0)
    failed = [began for began in diary.begun["t"] if began >= 60.0]
    gaps = [after - before for before, after in pairwise(failed)]
    assert gaps[:3] == pytest.approx([5.0, 5.0, 5.0], abs=1e-3)
    grid = failed[4:]
    phase = spread([target("t", interval=60.0)], "pod")["t"].phase_seconds
    for began in grid:
        off = (began - phase + 30.0) % 60.0 - 30.0
        assert abs(off) <= JITTER * 60.0 / 2 + 1e-6
    assert len(grid) == pytest.approx((600.0 - failed[0]) / 60.0, abs=1.1)
    assert diary.skips == 0


@VIRTUAL_TIME
async def test_a_success_ends_the_confirmation_and_arms_it_again() -> None:
    """Two outages: each is confirmed until it is over, and no longer."""
    phase = spread([target("t", interval=60.0)], "pod")["t"].phase_seconds
    outages = [(phase + 170.0, phase + 270.0), (phase + 410.0, phase + 510.0)]
    diary = Diary(healthy=lambda began: not any(start <= began < end for start, end in outages))
    await watch([target("t", interval=60.0, confirm_interval=5.0, confirm_runs=100)], diary, 800.0)
    for start, end in outages:
        within = [began for began in diary.begun["t"] if start <= began < end]
        # The grid's rounds see the outage ten seconds after it began; from there on it is looked at every five.
        assert 90.0 / 5.0 - 2 <= len(within) <= 90.0 / 5.0 + 2
        after = [began for began in diary.begun["t"] if began >= end]
        # The run that saw the recovery came at the confirmation's pace; the next is the grid's, half a minute on.
        assert after[0] - within[-1] <= 5.0 + 1e-3
        assert after[1] - after[0] > 20.0


@VIRTUAL_TIME
async def test_a_target_that_flaps_costs_at_most_its_confirmations() -> None:
    """Alternating results: one extra run per failure, not a storm."""
    flip = iter([True, False] * 10_000)
    diary = Diary(healthy=lambda _: next(flip))
    await watch([target("t", interval=60.0, confirm_interval=5.0, confirm_runs=3)], diary, HOUR)
    assert diary.runs <= 2 * 61 + 1


@VIRTUAL_TIME
async def test_confirmations_replace_no_round_of_the_grid() -> None:
    """A confirmation that would come just before a round of the grid is left to it."""
    diary = Diary(healthy=lambda _: False)
    await watch([target("t", interval=6.0, confirm_interval=5.0, confirm_runs=3)], diary, 120.0)
    gaps = [after - before for before, after in pairwise(diary.begun["t"])]
    assert min(gaps) >= 2.5 - 1e-6
    assert diary.skips == 0


@VIRTUAL_TIME
@pytest.mark.parametrize(
    "defect", [ValueError("a defect"), asyncio.CancelledError("leaked out of a library")], ids=["raises", "cancelled"]
)
async def test_a_run_that_raises_stops_neither_its_target_nor_another(defect: BaseException) -> None:
    diary = Diary()

    async def run(of: Target[Any]) -> Outcome:
        done = await diary.run(of)
        if of.name == "bad":
            raise defect
        return done

    scheduler = Scheduler([target("bad"), target("good")], run, diary, pod="pod", concurrency=10)
    with structlog.testing.capture_logs() as events:
        scheduler.start()
        await asyncio.sleep(600.0)
        assert scheduler.ended == []
        await scheduler.stop(0.0)
    assert {event["target"] for event in events} == {"bad"}
    assert len(events) == len(diary.begun["bad"])
    assert len(diary.begun["good"]) in {40, 41}
    # Confirmed like a failure, and no faster than that.
    assert 40 <= len(diary.begun["bad"]) <= 41 + 3


@VIRTUAL_TIME
async def test_a_loop_that_ends_is_reported() -> None:
    """A defect in the scheduler itself is not silent: the target is among those that nobody runs any more."""

    class Broken(Diary):
        def skipped(self, rounds: int) -> None:
            raise RuntimeError("a defect of the ledger")

    diary = Broken(seconds=lambda of: 100.0 if of.name == "slow" else 0.01)

    async def run(of: Target[Any]) -> Outcome:
        done = await diary.run(of)
        if of.name == "slow":
            raise RuntimeError("a defect of the run")
        return done

    scheduler = Scheduler([target("slow"), target("good")], run, diary, pod="pod", concurrency=10)
    with structlog.testing.capture_logs() as events:
        scheduler.start()
        await asyncio.sleep(600.0)
        ended = list(scheduler.ended)
        await scheduler.stop(0.0)
    assert ended == ["slow"]
    assert [event["event"] for event in events][-1] == "target_loop_ended"
    assert len(diary.begun["good"]) in {40, 41}


@VIRTUAL_TIME
async def test_stopping_lets_runs_under_way_finish_and_begins_none() -> None:
    """T18: what is in flight at SIGTERM is answered, within a bounded time."""
    finished: list[str] = []
    diary = Diary(seconds=lambda of: {"quick": 0.1, "long": 3.0, "endless": 1000.0}[of.name])

    async def run(of: Target[Any]) -> Outcome:
        done = await diary.run(of)
        finished.append(of.name)
        return done

    scheduler = Scheduler(
        [target(name) for name in ("quick", "long", "endless")], run, diary, pod="pod", concurrency=10
    )
    scheduler.start()
    await asyncio.sleep(1.0)
    began = asyncio.get_running_loop().time()
    cut = await scheduler.stop(5.0)
    assert list(cut) == ["endless"]
    assert finished == ["quick", "long"]
    assert asyncio.get_running_loop().time() - began == pytest.approx(5.0, abs=0.01)
    runs = diary.runs
    await asyncio.sleep(HOUR)
    assert diary.runs == runs


@VIRTUAL_TIME
async def test_a_stop_that_is_cancelled_cuts_at_once() -> None:
    diary = Diary(seconds=lambda _: 1000.0)
    scheduler = Scheduler([target("t")], diary.run, diary, pod="pod", concurrency=10)
    scheduler.start()
    await asyncio.sleep(1.0)
    stopping = asyncio.create_task(_stop(scheduler, 500.0))
    await asyncio.sleep(1.0)
    stopping.cancel()
    await asyncio.wait({stopping}, timeout=1.0)
    assert stopping.done()
    assert diary.together == 0


async def _stop(scheduler: Scheduler, seconds: float) -> None:
    await scheduler.stop(seconds)


@pytest.mark.parametrize("seed", range(50))
def test_every_round_is_run_or_counted(seed: int) -> None:
    """Whatever runs take and however they end: rounds run plus rounds skipped is the number of rounds that passed."""
    rng = random.Random(seed)
    interval = rng.choice([1.0, 5.0, 15.0])
    one = target("t", interval=interval, confirm_interval=rng.choice([0.5, 2.0]), confirm_runs=rng.randint(0, 5))
    start = Start(rng.uniform(0, 1), rng.uniform(0, interval))
    table = Timetable(one, start, 0.0)
    first_due = table.due
    phase = start.phase_seconds
    skipped = grid_runs = 0
    now = first_due
    before = -1.0
    for number in range(500):
        assert table.due >= before
        now = max(now, table.due) + rng.choice([0.0, 0.0, rng.uniform(0, 0.2), rng.uniform(0, 4 * interval)])
        due = table.due
        off = (due - phase + interval / 2) % interval - interval / 2
        before = due
        now += rng.uniform(0.0, 0.9 * interval)
        late = table._on_grid
        skipped += table.ran(success=rng.random() < 0.5, now=now)
        grid_runs += late
        assert number == 0 or late is False or abs(off) <= interval * (GRACE + JITTER) + 1e-9
    passed = table._round - grid_runs - skipped
    first_round = -(-(first_due + interval / 2 - phase) // interval)
    assert passed == first_round


async def test_runs_in_real_time_as_well() -> None:
    """The same code on a real clock: a second of a target at 100 ms."""
    diary = Diary(seconds=lambda _: 0.0)
    done = asyncio.Event()

    async def run(of: Target[Any]) -> Outcome:
        result = await diary.run(of)
        if diary.runs >= 8:
            done.set()
        return result

    await _until(Scheduler([target("t", interval=0.1)], run, diary, pod="pod", concurrency=1), done)
    assert diary.overlaps == 0


async def _until(scheduler: Scheduler, done: asyncio.Event) -> None:
    scheduler.start()
    waiting: Awaitable[bool] = done.wait()
    await asyncio.wait_for(waiting, 30.0)
    await scheduler.stop(1.0)


# --- haste and the last round ---------------------------------------------------------------------------------------


@VIRTUAL_TIME
async def test_a_target_that_somebody_waits_for_is_run_again_soon_and_then_has_its_rhythm_back() -> None:
    """As long as it fails; and none of its confirmations is used up by that."""
    waits_until, fails_until = 20.0, 30.0
    diary = Diary(healthy=lambda began: began > fails_until)

    def eager(_: Target[Any]) -> float | None:
        return 0.5 if asyncio.get_running_loop().time() < waits_until else None

    scheduler = Scheduler([target("t", interval=60.0)], diary.run, diary, pod="pod", concurrency=1, eager_seconds=eager)
    scheduler.start()
    await asyncio.sleep(HOUR)
    assert scheduler.ended == []
    await scheduler.stop(0.0)
    begun = diary.begun["t"]
    hasty = [at for at in begun if at < waits_until]
    assert 35 <= len(hasty) <= 41
    assert all(gap == pytest.approx(0.5, abs=0.02) for gap in _gaps(hasty))
    later = [at for at in begun if at >= waits_until]
    confirmations = [gap for gap in _gaps(later[:4]) if gap == pytest.approx(5.0, abs=0.02)]
    assert len(confirmations) >= 2
    assert diary.skips == 0
    # The rounds of the grid have stayed where they are.
    assert len(later) == pytest.approx((HOUR - waits_until) / 60.0, abs=5)


@VIRTUAL_TIME
async def test_haste_and_rounds_together_run_nothing_twice() -> None:
    """A run in haste that would come just before a round is left to that round."""
    diary = Diary(healthy=lambda _: False)
    scheduler = Scheduler(
        [target("t", interval=2.0)], diary.run, diary, pod="pod", concurrency=1, eager_seconds=lambda _: 0.5
    )
    scheduler.start()
    await asyncio.sleep(200.0)
    await scheduler.stop(0.0)
    assert min(_gaps(diary.begun["t"])) >= 0.24
    assert diary.skips == 0
    assert len(diary.begun["t"]) == pytest.approx(400, rel=0.2)


def _gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


@VIRTUAL_TIME
async def test_the_last_round_runs_what_deserves_it_within_the_drain() -> None:
    """It is asked when each would have been due; what runs already is left to end; nothing comes after."""
    seconds = {"soon": 0.5, "never": 0.01, "endless": 1000.0}
    diary = Diary(seconds=lambda of: seconds[of.name] if len(diary.begun[of.name]) > 1 else 0.01)
    asked: dict[str, float] = {}
    targets = [target("soon", interval=60.0), target("never", interval=3600.0), target("endless", interval=60.0)]
    scheduler = Scheduler(targets, diary.run, diary, pod="pod", concurrency=10)
    scheduler.start()
    await asyncio.sleep(2.0)

    def last(of: Target[Any], due_seconds: float) -> bool:
        asked[of.name] = due_seconds
        return of.name != "never"

    began = asyncio.get_running_loop().time()
    cut = await scheduler.stop(1.0, last=last)
    assert list(cut) == ["endless"]
    assert asyncio.get_running_loop().time() - began == pytest.approx(1.0, abs=0.01)
    assert {name: len(begun) for name, begun in diary.begun.items()} == {"soon": 2, "never": 1, "endless": 2}
    assert diary.begun["soon"][1] == pytest.approx(began)
    assert 0.0 < asked["soon"] <= 90.0
    assert scheduler.ended == []
    runs = diary.runs
    await asyncio.sleep(HOUR)
    assert diary.runs == runs
    assert diary.together == 0


@VIRTUAL_TIME
async def test_the_last_round_keeps_to_the_slots_too() -> None:
    diary = Diary(seconds=lambda _: 0.1)
    scheduler = Scheduler([target(f"t{n}") for n in range(20)], diary.run, diary, pod="pod", concurrency=5)
    cut = []
    scheduler.start()  # and at once to the end: none has begun
    cut = list(await scheduler.stop(1.0, last=lambda _, __: True))
    assert cut == []
    assert diary.runs == 20
    assert diary.most_together == 5


@VIRTUAL_TIME
async def test_runs_that_end_when_they_are_asked_to_are_not_cancelled() -> None:
    """The time is up: whoever can say what it has found so far does."""
    ending = asyncio.Event()
    finished: list[str] = []

    async def run(of: Target[Any]) -> Outcome:
        if of.name == "obeys":
            await ending.wait()
            finished.append(of.name)
            return outcome(of, success=False)
        await asyncio.sleep(HOUR)
        raise AssertionError

    diary = Diary()
    scheduler = Scheduler([target("obeys"), target("stubborn")], run, diary, pod="pod", concurrency=10)
    scheduler.start()
    await asyncio.sleep(2.0)
    began = asyncio.get_running_loop().time()
    cut = await scheduler.stop(1.0, cut=ending.set)
    assert finished == ["obeys"]
    assert set(cut) == {"obeys", "stubborn"}
    assert asyncio.get_running_loop().time() - began == pytest.approx(1.0 + CUT_SECONDS, abs=0.01)


@VIRTUAL_TIME
async def test_a_last_run_that_raises_ends_nobody_elses() -> None:
    diary = Diary()

    async def run(of: Target[Any]) -> Outcome:
        if of.name == "broken":
            raise RuntimeError("a defect")
        return await diary.run(of)

    scheduler = Scheduler([target("broken"), target("fine")], run, diary, pod="pod", concurrency=10)
    scheduler.start()
    with structlog.testing.capture_logs() as logged:
        assert list(await scheduler.stop(1.0, last=lambda _, __: True)) == []
    assert [event["event"] for event in logged] == ["target_run_raised"]
    assert list(diary.begun) == ["fine"]
