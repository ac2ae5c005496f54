"""Since when a verdict holds, and what is remembered once it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from agent.diagnosis import Cause, Confidence, Diagnosis, Verdict
from agent.model import Phase, Reason
from agent.sinks.diagnosis_history import BRIEF_SECONDS, KEPT, KEPT_SECONDS, DiagnosisHistory
from agent.sinks.status import StatusSink
from tests.lab.outcomes import named, outcome

VIRTUAL_TIME = pytest.mark.looptime(noop_cycles=0)
REFUSED = (Phase.CONNECT, Reason.REFUSED)
LONG = 10 * BRIEF_SECONDS


def verdict(cause: Cause, targets: Sequence[str] = "a", confidence: Confidence = Confidence.HIGH) -> Verdict:
    return Verdict(
        cause=cause,
        confidence=confidence,
        targets=tuple(targets),
        summary=f"why {cause}",
        evidence=("seen",),
        advice="do this",
    )


class World:
    """Four targets, and a history whose wall clock is the loop's."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.targets = {name: named(name) for name in "abcd"}
        self.status = StatusSink(self.targets.values())
        self.history = DiagnosisHistory(self.status, wall_clock=self.loop.time)
        self.began = self.loop.time()

    def runs(self, names: Sequence[str], failed: tuple[Phase, Reason] | None = None) -> None:
        """Runs of these have just begun and ended."""
        for name in names:
            self.status.write(outcome(self.targets[name], failed, at=self.loop.time()))

    def diagnosed(self, *verdicts: Verdict) -> None:
        self.history.diagnosed(Diagnosis(verdicts))

    @property
    def present(self) -> dict[Cause, float]:
        """Since when, from the start of the test."""
        return {verdict.cause: at - self.began for verdict, at in self.history.began_at.items()}

    @property
    def recent(self) -> list[tuple[Cause, float, float]]:
        return [(p.verdict.cause, p.began_at - self.began, p.ended_at - self.began) for p in self.history.recent]


@VIRTUAL_TIME
async def test_a_verdict_began_when_its_first_target_began_to_fail() -> None:
    """And not when a rule first saw through it."""
    world = World()
    world.runs("ab")
    await asyncio.sleep(LONG)
    world.runs("a", REFUSED)
    await asyncio.sleep(5.0)
    world.runs("ab", REFUSED)
    await asyncio.sleep(1.0)
    world.diagnosed(verdict(Cause.NO_ROUTE, "ab"))
    assert world.present == {Cause.NO_ROUTE: LONG}


@VIRTUAL_TIME
async def test_a_verdict_without_a_failure_began_when_it_was_first_seen() -> None:
    world = World()
    world.runs("a")
    await asyncio.sleep(LONG)
    world.diagnosed(verdict(Cause.SLOW))
    await asyncio.sleep(LONG)
    world.runs("a")
    world.diagnosed(verdict(Cause.SLOW, confidence=Confidence.LOW))
    assert world.present == {Cause.SLOW: LONG}
    world.diagnosed()
    # Its target worked all the time, so that only the verdict says when it was over.
    assert world.recent == [(Cause.SLOW, LONG, 2 * LONG)]


@VIRTUAL_TIME
async def test_it_was_over_when_the_last_of_its_targets_recovered() -> None:
    world = World()
    world.runs("ab", REFUSED)
    world.diagnosed(verdict(Cause.NO_ROUTE, "ab"))
    await asyncio.sleep(LONG)
    world.runs("a")
    await asyncio.sleep(1.0)
    world.runs("b")
    await asyncio.sleep(0.3)
    world.diagnosed()
    assert world.present == {}
    assert world.recent == [(Cause.NO_ROUTE, 0.0, LONG + 1.0)]


@VIRTUAL_TIME
async def test_the_same_failures_put_down_to_another_cause_are_not_over() -> None:
    """A better explanation is no recovery, however long the first one stood."""
    world = World()
    world.runs("ab", REFUSED)
    world.diagnosed(verdict(Cause.UNKNOWN, "a"))
    await asyncio.sleep(LONG)
    world.diagnosed(verdict(Cause.DNS_UNREACHABLE, "ab"))
    assert (world.present, world.recent) == ({Cause.DNS_UNREACHABLE: 0.0}, [])


@VIRTUAL_TIME
async def test_targets_that_recover_one_by_one_leave_one_verdict_behind() -> None:
    """What remains of it has other names for a moment; the sure and long one is remembered."""
    world = World()
    world.runs("abcd", REFUSED)
    world.diagnosed(verdict(Cause.DNS_UNREACHABLE, "abcd"))
    await asyncio.sleep(LONG)
    world.runs("ab")
    world.diagnosed(verdict(Cause.TARGET_BLOCKED, "cd", Confidence.LOW))
    await asyncio.sleep(BRIEF_SECONDS / 2)
    world.runs("cd")
    world.diagnosed()
    assert world.recent == [(Cause.DNS_UNREACHABLE, 0.0, LONG + BRIEF_SECONDS / 2)]


@VIRTUAL_TIME
async def test_what_goes_on_for_some_of_them_is_another_verdict() -> None:
    world = World()
    world.runs("abcd", REFUSED)
    world.diagnosed(verdict(Cause.DNS_UNREACHABLE, "abcd"))
    await asyncio.sleep(LONG)
    world.runs("ab")
    world.diagnosed(verdict(Cause.TARGET_BLOCKED, "cd"))
    await asyncio.sleep(LONG)
    world.runs("cd")
    world.diagnosed()
    assert world.recent == [(Cause.TARGET_BLOCKED, 0.0, 2 * LONG), (Cause.DNS_UNREACHABLE, 0.0, LONG)]


@VIRTUAL_TIME
async def test_a_short_fault_on_its_own_is_remembered() -> None:
    world = World()
    world.runs("a", REFUSED)
    world.diagnosed(verdict(Cause.NOTHING_LISTENING))
    await asyncio.sleep(BRIEF_SECONDS / 4)
    world.runs("a")
    world.diagnosed()
    assert world.recent == [(Cause.NOTHING_LISTENING, 0.0, BRIEF_SECONDS / 4)]


@VIRTUAL_TIME
async def test_the_same_cause_at_two_places_is_two_verdicts() -> None:
    world = World()
    world.runs("a", REFUSED)
    world.diagnosed(verdict(Cause.NOTHING_LISTENING, "a"))
    await asyncio.sleep(LONG)
    world.runs("b", REFUSED)
    world.diagnosed(verdict(Cause.NOTHING_LISTENING, "a"), verdict(Cause.NOTHING_LISTENING, "b"))
    assert sorted(at - world.began for at in world.history.began_at.values()) == [0.0, LONG]
    await asyncio.sleep(LONG)
    world.runs("a")
    world.diagnosed(verdict(Cause.NOTHING_LISTENING, "b"))
    assert (world.present, world.recent) == (
        {Cause.NOTHING_LISTENING: LONG},
        [(Cause.NOTHING_LISTENING, 0.0, 2 * LONG)],
    )


@VIRTUAL_TIME
async def test_it_is_remembered_as_it_was_when_it_was_surest() -> None:
    world = World()
    world.runs("a", REFUSED)
    for confidence in (Confidence.MEDIUM, Confidence.HIGH, Confidence.LOW):
        world.diagnosed(verdict(Cause.NO_ROUTE, confidence=confidence))
        await asyncio.sleep(LONG)
    world.runs("a")
    world.diagnosed()
    (past,) = world.history.recent
    assert past.verdict.confidence is Confidence.HIGH


@VIRTUAL_TIME
async def test_a_network_that_was_not_ready_was_so_from_the_first_run_until_the_recovery() -> None:
    """The verdict is about what was, and stays for a while; what it is about is over by then."""
    world = World()
    world.runs("ab", REFUSED)
    world.diagnosed(verdict(Cause.NO_ROUTE, "ab"))
    await asyncio.sleep(LONG)
    world.runs("ab")
    world.diagnosed(verdict(Cause.NETWORK_NOT_READY, "ab"))
    assert (world.present, world.recent) == ({Cause.NETWORK_NOT_READY: 0.0}, [])
    await asyncio.sleep(LONG)
    world.runs("ab")
    world.diagnosed()
    assert world.recent == [(Cause.NETWORK_NOT_READY, 0.0, LONG)]


@VIRTUAL_TIME
async def test_the_newest_are_remembered_for_a_time() -> None:
    world = World()
    for _ in range(KEPT + 5):
        world.runs("a", REFUSED)
        world.diagnosed(verdict(Cause.NO_ROUTE))
        await asyncio.sleep(1.0)
        world.runs("a")
        world.diagnosed()
        await asyncio.sleep(LONG)
    ends = [end for _, _, end in world.recent]
    assert len(ends) == KEPT
    assert ends == sorted(ends, reverse=True)
    assert ends[0] == pytest.approx(world.loop.time() - world.began - LONG)
    await asyncio.sleep(KEPT_SECONDS - LONG + 0.5)
    assert world.recent == []
