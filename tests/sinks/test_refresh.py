"""A look before the turn: at what, how often, and how long somebody waits for it. Schedule and rules are real."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.diagnosis import Pod, Resolver
from agent.diagnostician import Diagnostician
from agent.model import Outcome, Phase, Reason, Target
from agent.scheduler import FIRST_RUNS_SECONDS, JITTER, Scheduler
from agent.sinks.refresh import NEW_SECONDS, PATIENCE_SECONDS, SPACING_SECONDS, Refresh
from agent.sinks.status import StatusSink
from agent.starvation import Starvation
from tests.lab.outcomes import named, outcome

VIRTUAL_TIME = pytest.mark.looptime(noop_cycles=0)
INTERVAL_SECONDS = 600.0
POD = Pod(
    started_at=0.0,
    resolver=Resolver(nameservers=("10.96.0.10",), search=(), ndots=5, timeout_seconds=5.0),
)


class World:
    """Targets that are seldom looked at, in a network that can break. Clocks are the loop's."""

    def __init__(self, *names: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.broken: set[str] = set()
        self.seconds = 0.01
        """How long a run takes."""
        self.runs: Counter[str] = Counter()
        self.began_at = self.last_began_at = self.loop.time()
        targets = [named(name, interval_seconds=INTERVAL_SECONDS, confirm_runs=0) for name in names]
        self.status = StatusSink(targets)
        self.refresh = Refresh(
            self.status,
            lambda deserves: self.scheduler.hasten(deserves),  # noqa: PLW0108 - that is made below
            wall_clock=self.loop.time,
        )
        self.diagnostician = Diagnostician(
            self.status, POD, Starvation(None), asker=None, listeners=(self.refresh,), wall_clock=self.loop.time
        )
        self.scheduler = Scheduler(targets, self._run, self, pod="pod", concurrency=10)

    async def _run(self, target: Target[Any]) -> Outcome:
        self.runs[target.name] += 1
        at = self.last_began_at = self.loop.time()
        await asyncio.sleep(self.seconds)
        failed = (Phase.CONNECT, Reason.REFUSED) if target.name in self.broken else None
        found = outcome(target, failed, at=at, seconds=self.seconds)
        for sink in (self.status, self.refresh, self.diagnostician):
            sink.write(found)
        return found

    def started(self, lag_seconds: float) -> None:
        assert lag_seconds == pytest.approx(0.0, abs=0.001)

    def skipped(self, rounds: int) -> None:
        raise AssertionError(f"{rounds} rounds were skipped")

    def healthy(self) -> bool:
        return self.diagnostician.current.diagnosis.healthy


@asynccontextmanager
async def world(*names: str) -> AsyncIterator[World]:
    """One whose first runs are over, long ago."""
    made = World(*names)
    made.scheduler.start()
    await asyncio.sleep(FIRST_RUNS_SECONDS + SPACING_SECONDS)
    assert made.runs == dict.fromkeys(names, 1)
    yield made
    made.diagnostician.close()
    await made.scheduler.stop(0.0)


@VIRTUAL_TIME
async def test_what_broke_since_the_last_round_is_in_the_diagnosis_when_the_answer_comes() -> None:
    async with world("a", "b") as made:
        made.broken.add("a")
        began = made.loop.time()
        await made.refresh()
        assert not made.healthy()
        assert made.loop.time() - began < PATIENCE_SECONDS
        assert made.runs == {"a": 2, "b": 2}


@VIRTUAL_TIME
async def test_where_all_is_well_the_answer_comes_as_soon_as_that_is_known() -> None:
    async with world("a", "b") as made:
        began = made.loop.time()
        await made.refresh()
        assert made.healthy()
        assert made.loop.time() - began == pytest.approx(made.seconds, abs=0.001)


@VIRTUAL_TIME
async def test_nobody_waits_longer_than_said() -> None:
    """A run that hangs goes on; its result will be there for whoever asks later."""
    async with world("a") as made:
        made.seconds = 30.0
        began = made.loop.time()
        await made.refresh()
        assert made.loop.time() - began == pytest.approx(PATIENCE_SECONDS, abs=0.001)
        made.broken.add("a")
        await asyncio.sleep(31.0)
        assert not made.healthy()


@VIRTUAL_TIME
async def test_many_who_ask_are_one_look() -> None:
    """However many tasks fail: one look serves all who ask meanwhile, and the next comes when there has been time."""
    async with world("a") as made:
        made.seconds = 0.5
        await asyncio.gather(*(made.refresh() for _ in range(50)))
        await asyncio.sleep(SPACING_SECONDS - 1.0)
        await made.refresh()
        assert made.runs == {"a": 2}
        await asyncio.sleep(1.0)
        await made.refresh()
        assert made.runs == {"a": 3}


@VIRTUAL_TIME
async def test_somebody_who_leaves_takes_nothing_from_the_others() -> None:
    async with world("a") as made:
        made.seconds = 0.5
        first, second = (asyncio.create_task(made.refresh()) for _ in range(2))
        await asyncio.sleep(0.1)
        first.cancel()
        made.broken.add("a")
        await second
        assert not made.healthy()


@VIRTUAL_TIME
async def test_what_fails_or_was_just_seen_is_not_looked_at() -> None:
    """It is known."""
    async with world("a", "b") as made:
        made.broken.add("a")
        await made.refresh()
        await asyncio.sleep(SPACING_SECONDS)
        await made.refresh()
        assert made.runs == {"a": 2, "b": 3}
    async with world("a") as made:
        made.refresh._began_at = float("-inf")
        await made.refresh()
        made.refresh._began_at = float("-inf")
        await asyncio.sleep(NEW_SECONDS / 2)
        await made.refresh()
        assert made.runs == {"a": 2}


@VIRTUAL_TIME
async def test_what_failed_a_moment_ago_is_explained_first() -> None:
    """Between a failure and its diagnosis there is a tenth of a second."""
    async with world("a") as made:
        made.broken.add("a")
        made.scheduler.hasten(lambda _: True)
        await asyncio.sleep(2 * made.seconds)
        assert made.healthy()
        await made.refresh()
        assert not made.healthy()
        assert made.runs == {"a": 2}


@VIRTUAL_TIME
async def test_a_first_run_is_not_waited_for() -> None:
    """A pod may live for less than the second within which the first runs begin."""
    made = World(*"abcdefgh")
    made.broken.update("abcdefgh")
    made.scheduler.start()
    await made.refresh()
    assert not made.healthy()
    assert set(made.runs.values()) == {1}
    assert made.loop.time() - made.began_at < FIRST_RUNS_SECONDS / 2
    made.diagnostician.close()
    await made.scheduler.stop(0.0)


@VIRTUAL_TIME
async def test_what_is_running_already_is_waited_for_and_not_run_twice() -> None:
    async with world("a") as made:
        made.seconds = 0.5
        made.scheduler.hasten(lambda _: True)
        await asyncio.sleep(0.1)
        made.broken.add("a")
        await made.refresh()
        assert not made.healthy()
        assert made.runs == {"a": 2}


@VIRTUAL_TIME
async def test_the_rounds_stay_where_they_are() -> None:
    """A look before the turn is one more, and moves no other."""
    rounds: list[float] = []
    for looks in (False, True):
        async with world("a") as made:
            if looks:
                await made.refresh()
            await asyncio.sleep(1.6 * INTERVAL_SECONDS)
            assert made.runs == {"a": 3 if looks else 2}
            rounds.append(made.last_began_at - made.began_at)
    assert rounds[0] == pytest.approx(rounds[1], abs=JITTER * INTERVAL_SECONDS)


@VIRTUAL_TIME
async def test_at_the_end_nothing_is_looked_at_any_more() -> None:
    async with world("a") as made:
        await made.scheduler.stop(0.0)
        began = made.loop.time()
        await made.refresh()
        assert (made.runs, made.loop.time()) == ({"a": 1}, began)
