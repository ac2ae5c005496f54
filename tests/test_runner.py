"""One run: its clock, its deadline, what becomes of whatever a prober raises, and several addresses."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent.model import Fact, Outcome, Phase, Reason, Target
from agent.prober import ProbeFailure, Recorder
from agent.runner import GRACE_SECONDS, each, run
from tests.lab.leaks import nothing_leaks
from tests.lab.targets import target, verdict

Asking = Callable[[Recorder], Awaitable[None]]


class OwnProber:
    """A prober of the test's own, made of what one run does."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def prepare(self, target: Target[Any]) -> None:
        pass

    async def probe(self, target: Target[Any], recorder: Recorder) -> None:
        await self._asking(recorder)

    async def aclose(self) -> None:
        pass


async def outcome_of(asking: Asking, *, timeout_seconds: float = 5.0, negative: bool = False) -> Outcome:
    asked = target("tcp", address="db.test:5432", timeout_seconds=timeout_seconds, negative=negative)
    return await run(OwnProber(asking), asked, wall_clock=lambda: 1_700_000_000.0)


async def wait_for_ever(phase: Phase, recorder: Recorder) -> None:
    with recorder.phase(phase):
        await asyncio.Event().wait()


async def test_a_run_that_returns_is_a_success() -> None:
    async def asking(recorder: Recorder) -> None:
        with recorder.phase(Phase.CONNECT):
            recorder.facts[Fact.ADDRESS] = "192.0.2.1:5432"

    outcome = await outcome_of(asking)
    assert outcome.success
    assert outcome.started_at == 1_700_000_000.0
    assert set(outcome.phases) == {Phase.CONNECT}
    assert outcome.duration_seconds >= outcome.phases[Phase.CONNECT]
    assert outcome.facts == {Fact.ADDRESS: "192.0.2.1:5432"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "refused"), "connect/refused"),
        (ProbeFailure(Reason.UNEXPECTED_REPLY, "expected a, got b", phase=Phase.VERIFY), "verify/unexpected_reply"),
        (ProbeFailure(Reason.REFUSED, "expected a, got b"), "connect/refused"),
        (ProbeFailure(Reason.QUERY_FAILED, "a pair that does not exist"), "connect/internal"),
        (TimeoutError(), "connect/timeout"),
        (ZeroDivisionError("ours"), "connect/internal"),
        (asyncio.CancelledError(), "connect/internal"),
        (ExceptionGroup("several", [OSError(1, "one")]), "connect/internal"),
    ],
    ids=repr,
)
async def test_whatever_a_prober_raises_becomes_a_failure(error: BaseException, expected: str) -> None:
    """Nothing but cancellation leaves a run: a defect of ours is a failure too, and the probes go on."""

    async def asking(recorder: Recorder) -> None:
        with recorder.phase(Phase.CONNECT):
            raise error

    outcome = await outcome_of(asking)
    assert verdict(outcome) == expected
    assert outcome.failure is not None
    assert outcome.failure.detail


@pytest.mark.parametrize("phase", Phase)
async def test_trap_t14_the_phase_that_consumed_the_time_gets_the_time(phase: Phase) -> None:
    """On a timeout blackbox_exporter shows 0 for the very phase that took it all."""
    outcome = await outcome_of(lambda recorder: wait_for_ever(phase, recorder), timeout_seconds=0.2)
    assert verdict(outcome) == f"{phase}/timeout"
    assert set(outcome.phases) == {phase}
    assert outcome.phases[phase] > 0.8 * outcome.duration_seconds
    assert outcome.failure is not None
    assert outcome.failure.detail.endswith("within 0.2s")


async def test_a_timeout_says_what_was_waited_for_where_that_is_known() -> None:
    async def asking(recorder: Recorder) -> None:
        recorder.at = "step 2 of 3"
        recorder.awaited = lambda: "expected a reply that matches 'PONG', got 'PI'"
        await wait_for_ever(Phase.REQUEST, recorder)

    outcome = await outcome_of(asking, timeout_seconds=0.1)
    assert outcome.failure is not None
    assert outcome.failure.detail == "step 2 of 3: expected a reply that matches 'PONG', got 'PI' within 0.1s"


async def test_an_answer_at_the_last_moment_counts() -> None:
    """The deadline judges what is still under way, not what has ended."""

    async def asking(recorder: Recorder) -> None:
        await asyncio.sleep(0.05)

    assert (await outcome_of(asking, timeout_seconds=0.5)).success


def blocking(phase: Phase, then: Exception | None = None) -> Asking:
    """Keeps the whole process from doing anything else until long after a deadline of 0.1 s."""

    async def asking(recorder: Recorder) -> None:
        with recorder.phase(phase):
            _block()
            if then is not None:
                raise then

    return asking


def _block() -> None:
    time.sleep(0.1 + 1.2 * GRACE_SECONDS)


@pytest.mark.parametrize("then", [None, ProbeFailure(Reason.UNEXPECTED_BODY, "expected a, got b")], ids=repr)
async def test_a_run_that_could_not_be_stopped_has_timed_out_however_it_ended(then: Exception | None) -> None:
    """No timer fires while a regular expression backtracks: the clock decides."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    outcome = await outcome_of(blocking(Phase.VERIFY, then), timeout_seconds=0.1)
    gc.collect()  # when asyncio complains about errors that nobody looked at
    assert complaints == []
    assert verdict(outcome) == "verify/timeout"
    assert outcome.phases[Phase.VERIFY] > 0.1
    assert outcome.failure is not None
    assert re.fullmatch(
        r"expected an end within 0\.1s, got one after [0-9.]+s: the agent was busy", outcome.failure.detail
    )


@pytest.mark.parametrize(
    ("then", "expected"), [(None, "verify/unexpected_success"), (ConnectionRefusedError(111, ""), "success")], ids=repr
)
async def test_a_late_end_does_not_hide_what_a_negative_target_answered(then: Exception | None, expected: str) -> None:
    """A timeout while connecting would show that it cannot be reached."""
    outcome = await outcome_of(blocking(Phase.CONNECT, then), timeout_seconds=0.1, negative=True)
    assert verdict(outcome) == expected


async def test_a_prober_whose_clean_up_hangs_does_not_hold_the_run() -> None:
    """The deadline is one for the whole run; who does not let go is left behind."""
    released = asyncio.Event()

    async def asking(recorder: Recorder) -> None:
        try:
            await wait_for_ever(Phase.TLS, recorder)
        finally:
            await released.wait()

    async with nothing_leaks():
        async with asyncio.timeout(0.2 + 10 * GRACE_SECONDS):
            outcome = await outcome_of(asking, timeout_seconds=0.2)
        released.set()
    assert verdict(outcome) == "tls/timeout"


async def test_a_prober_that_swallows_its_cancellation_has_timed_out_all_the_same() -> None:
    async def asking(recorder: Recorder) -> None:
        try:
            await wait_for_ever(Phase.TLS, recorder)
        except asyncio.CancelledError:
            return

    assert verdict(await outcome_of(asking, timeout_seconds=0.1)) == "tls/timeout"


async def test_an_error_while_a_timed_out_run_cleans_up_changes_nothing() -> None:
    async def asking(recorder: Recorder) -> None:
        try:
            await wait_for_ever(Phase.TLS, recorder)
        finally:
            raise ConnectionResetError(104, "too late")

    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    assert verdict(await outcome_of(asking, timeout_seconds=0.1)) == "tls/timeout"
    gc.collect()  # when asyncio complains about errors that nobody looked at
    assert complaints == []


async def test_cancellation_from_outside_leaves_the_run_and_nothing_behind() -> None:
    """Shutting down: what a prober holds is released before the run is over."""
    begun, released = asyncio.Event(), asyncio.Event()

    async def asking(recorder: Recorder) -> None:
        try:
            begun.set()
            await wait_for_ever(Phase.TLS, recorder)
        finally:
            await asyncio.sleep(0)
            released.set()

    async with nothing_leaks():
        task = asyncio.ensure_future(outcome_of(asking))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert released.is_set()


# --- negative targets -------------------------------------------------------------------------------------------------


def raising(error: Exception, phase: Phase, **facts: Any) -> Asking:
    async def asking(recorder: Recorder) -> None:
        recorder.facts.update({Fact(name): value for name, value in facts.items()})
        with recorder.phase(phase):
            raise error

    return asking


async def succeeding(recorder: Recorder) -> None:
    pass


@pytest.mark.parametrize(
    ("asking", "expected", "blocked_by"),
    [
        (succeeding, "verify/unexpected_success", None),
        (raising(ConnectionRefusedError(111, ""), Phase.CONNECT), "success", "connect/refused"),
        (raising(OSError(113, ""), Phase.CONNECT), "success", "connect/unreachable"),
        (raising(PermissionError(1, ""), Phase.CONNECT), "success", "connect/denied"),
        (raising(ConnectionResetError(104, ""), Phase.TLS), "success", "tls/reset"),
        (raising(EOFError(), Phase.REQUEST), "success", "request/closed"),
        (raising(EOFError(), Phase.REQUEST, tls_version="TLSv1.3"), "verify/unexpected_success", None),
        (raising(EOFError(), Phase.REQUEST, server_signature="220"), "verify/unexpected_success", None),
        (raising(ProbeFailure(Reason.UNEXPECTED_STATUS, "500"), Phase.VERIFY), "verify/unexpected_success", None),
        (raising(ProbeFailure(Reason.NOT_TLS, "plain"), Phase.TLS), "verify/unexpected_success", None),
        (raising(ProbeFailure(Reason.NAME_NOT_FOUND, "no"), Phase.RESOLVE), "success", "resolve/name_not_found"),
        (raising(ProbeFailure(Reason.SERVER_FAILURE, "no"), Phase.RESOLVE), "resolve/server_failure", None),
        (raising(ZeroDivisionError(), Phase.CONNECT), "connect/internal", None),
        # A proxy on the way: that it is down, or wants credentials, says nothing about what lies behind it.
        (raising(ConnectionRefusedError(111, ""), Phase.CONNECT, proxy="http://p"), "connect/refused", None),
        (
            raising(ProbeFailure(Reason.NAME_NOT_FOUND, "no"), Phase.RESOLVE, proxy="http://p"),
            "resolve/name_not_found",
            None,
        ),
        (raising(ProbeFailure(Reason.NOT_TLS, "plain"), Phase.TLS, proxy="https://p"), "tls/not_tls", None),
        (
            raising(ProbeFailure(Reason.AUTH_REQUIRED, "407"), Phase.PROXY, proxy="http://p"),
            "proxy/auth_required",
            None,
        ),
        (raising(ProbeFailure(Reason.REFUSED, "503"), Phase.PROXY, proxy="http://p"), "success", "proxy/refused"),
        (raising(EOFError(), Phase.REQUEST, proxy="http://p"), "success", "request/closed"),
    ],
)
async def test_a_target_that_must_not_be_reachable(asking: Asking, expected: str, blocked_by: str | None) -> None:
    """Any word of the target shows that it can be reached; silence and refusal that it cannot; the rest nothing."""
    outcome = await outcome_of(asking, negative=True)
    assert verdict(outcome) == expected
    assert outcome.facts.get(Fact.BLOCKED_BY) == blocked_by


# --- several addresses ------------------------------------------------------------------------------------------------


def at_each(*attempts: Asking) -> Asking:
    """A run with an attempt at each of several addresses."""

    async def asking(recorder: Recorder) -> None:
        asked = target("tcp", address="db.test:5432", timeout_seconds=0.3)

        async def attempt(number: int, notes: Recorder) -> None:
            notes.facts[Fact.ADDRESS] = f"192.0.2.{number}:5432"
            await attempts[number](notes)

        with recorder.phase(Phase.RESOLVE):
            await asyncio.sleep(0)
        await each(range(len(attempts)), asked, recorder, attempt)

    return asking


async def connecting(recorder: Recorder) -> None:
    with recorder.phase(Phase.CONNECT):
        await asyncio.sleep(0)


async def connecting_slowly(recorder: Recorder) -> None:
    with recorder.phase(Phase.CONNECT):
        await asyncio.sleep(0.1)


refusing = raising(ConnectionRefusedError(111, ""), Phase.CONNECT)


async def silent(recorder: Recorder) -> None:
    await connecting(recorder)
    await wait_for_ever(Phase.TLS, recorder)


async def test_with_one_address_the_attempt_is_the_run() -> None:
    outcome = await outcome_of(at_each(connecting))
    assert set(outcome.phases) == {Phase.RESOLVE, Phase.CONNECT}
    assert Fact.ATTEMPTS not in outcome.facts


async def test_several_addresses_are_tried_side_by_side() -> None:
    together = asyncio.Barrier(3)

    async def meeting(recorder: Recorder) -> None:
        with recorder.phase(Phase.CONNECT):
            await together.wait()

    assert (await outcome_of(at_each(meeting, meeting, meeting))).success


async def test_the_slowest_of_several_healthy_addresses_is_shown() -> None:
    outcome = await outcome_of(at_each(connecting, connecting_slowly, connecting))
    assert outcome.success
    assert outcome.facts[Fact.ADDRESS] == "192.0.2.1:5432"
    assert outcome.phases[Phase.CONNECT] > 0.05
    assert [attempt["success"] for attempt in outcome.facts[Fact.ATTEMPTS]] == [True] * 3


async def test_the_first_failure_among_several_addresses_is_the_runs() -> None:
    broken = raising(ConnectionResetError(104, ""), Phase.TLS)
    outcome = await outcome_of(at_each(connecting_slowly, refusing, broken))
    assert verdict(outcome) == "connect/refused"
    assert outcome.facts[Fact.ADDRESS] == "192.0.2.1:5432"
    assert outcome.failure is not None
    assert outcome.failure.detail.startswith("2 of 3 addresses failed: expected a connection to 192.0.2.1:5432, got")
    assert [attempt["reason"] for attempt in outcome.facts[Fact.ATTEMPTS]] == [None, "refused", "reset"]
    json.dumps(outcome.as_dict())


async def test_the_deadline_meets_the_addresses_that_are_still_waiting() -> None:
    outcome = await outcome_of(at_each(connecting, refusing, silent, silent), timeout_seconds=0.3)
    assert verdict(outcome) == "tls/timeout"
    assert outcome.phases[Phase.TLS] > 0.7 * outcome.duration_seconds
    assert outcome.failure is not None
    expected = "3 of 4 addresses failed: expected 192.0.2.2:5432 to finish the TLS handshake, got no answer within 0.3s"
    assert outcome.failure.detail == expected
    seen = [(attempt["phase"], attempt["reason"]) for attempt in outcome.facts[Fact.ATTEMPTS]]
    assert seen == [(None, None), ("connect", "refused"), ("tls", "timeout"), ("tls", "timeout")]
    assert all(attempt["phases"]["tls"] > 0.2 for attempt in outcome.facts[Fact.ATTEMPTS][2:])


async def test_cancelling_a_run_cancels_every_attempt() -> None:
    async with nothing_leaks():
        task = asyncio.ensure_future(outcome_of(at_each(silent, silent, silent)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_attempt_whose_clean_up_hangs_does_not_hold_the_run() -> None:
    released = asyncio.Event()

    async def hanging(recorder: Recorder) -> None:
        try:
            await wait_for_ever(Phase.TLS, recorder)
        finally:
            await released.wait()

    async with nothing_leaks():
        async with asyncio.timeout(0.3 + 10 * GRACE_SECONDS):
            outcome = await outcome_of(at_each(hanging, connecting), timeout_seconds=0.3)
        released.set()
    assert verdict(outcome) == "tls/timeout"
    assert len(outcome.facts[Fact.ATTEMPTS]) == 2


@pytest.mark.parametrize(
    ("attempts", "expected", "blocked_by"),
    [
        ((refusing, refusing), "success", "connect/refused"),
        ((refusing, connecting), "verify/unexpected_success", None),
        ((connecting, refusing), "verify/unexpected_success", None),
        ((refusing, raising(ZeroDivisionError(), Phase.CONNECT)), "connect/internal", None),
        ((refusing, silent), "success", "connect/refused"),
    ],
)
async def test_a_negative_target_is_unreachable_only_if_every_address_is(
    attempts: tuple[Asking, ...], expected: str, blocked_by: str | None
) -> None:
    outcome = await outcome_of(at_each(*attempts), negative=True, timeout_seconds=0.3)
    assert verdict(outcome) == expected
    assert outcome.facts.get(Fact.BLOCKED_BY) == blocked_by


# --- secrets ----------------------------------------------------------------------------------------------------------


async def test_no_secret_of_the_target_is_in_an_outcome() -> None:
    """Servers repeat what they are told: neither the sentence nor a fact shows it."""

    async def asking(recorder: Recorder) -> None:
        recorder.facts[Fact.SERVER_SIGNATURE] = "no user s3cret here"
        recorder.facts[Fact.HTTP_REDIRECTS] = [{"url": "http://x/?token=s3cret", "status": 302}]
        raise ProbeFailure(Reason.PROTOCOL_ERROR, "expected a login, got: s3cret is wrong", phase=Phase.REQUEST)

    asked = target("postgres", dsn="postgresql://probe@127.0.0.1:1/app", password="s3cret", mode="login")
    outcome = await run(OwnProber(asking), asked)
    assert "s3cret" not in json.dumps(outcome.as_dict())
    assert outcome.failure is not None
    assert outcome.failure.detail == "expected a login, got: *** is wrong"
