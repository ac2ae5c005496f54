"""One run: the clock, the deadline, the only broad `except`, and what the result means for the target."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from agent.failures import awaited, classify, overran, proves_absence, proves_presence, redact_facts, timed_out
from agent.model import Fact, Failure, Outcome, Phase, Reason, Target
from agent.prober import ProbeFailure, Prober, Recorder, shorten

GRACE_SECONDS = 0.5
"""How long a prober may take, after the deadline, to let go of what it holds. Closing a socket takes no time; a prober
that takes longer is left to itself, and the run is over. A run that ends by itself so much later than its deadline,
because this process was busy meanwhile, has met it too.
"""


async def run(
    prober: Prober,
    target: Target[Any],
    *,
    recorder: Recorder | None = None,
    until: asyncio.Future[None] | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> Outcome:
    """Probe a target once, within its timeout, and say what was found. Raises nothing but cancellation.

    A caller that wants to see how far the run is hands it a fresh recorder. One that may have to end it before its
    deadline resolves `until`: what has not come by then has timed out.
    """
    recorder = recorder or Recorder()
    started_at, began = wall_clock(), time.perf_counter()
    failure = await _observe(prober.probe(target, recorder), target, recorder, until)
    if target.negative:
        failure = _turn_round(target, failure, recorder)
    redact_facts(recorder.facts, target, recorder.secrets)
    return Outcome(
        target=target,
        started_at=started_at,
        duration_seconds=time.perf_counter() - began,
        phases=recorder.phases,
        facts=recorder.facts,
        failure=failure,
    )


async def _observe(
    asking: Coroutine[Any, Any, None], target: Target[Any], recorder: Recorder, until: asyncio.Future[None] | None
) -> Failure | None:
    # A task of its own, since a deadline inside this one could not get past a clean-up that hangs.
    task = asyncio.create_task(asking)
    began = time.perf_counter()
    waiting: set[asyncio.Future[None]] = {task} if until is None else {task, until}
    try:
        await asyncio.wait(waiting, timeout=target.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        in_time = task.done()
        waited = time.perf_counter() - began
    finally:
        if not task.done():
            await _end({task})
    if not in_time:
        return timed_out(target, recorder, cut_off_after=waited if until is not None and until.done() else None)
    failure = _judge(task, target, recorder)
    took = time.perf_counter() - began
    # What a negative target answered or refused counts however late we saw it: a timeout would show its absence.
    if took > target.timeout_seconds + GRACE_SECONDS and not target.negative:
        return overran(target, recorder, took)
    return failure


def _judge(task: asyncio.Task[None], target: Target[Any], recorder: Recorder) -> Failure | None:
    """What a finished task means."""
    if task.cancelled():  # by something the prober called, not by us
        return classify(asyncio.CancelledError(), target, recorder)
    error = task.exception()
    return None if error is None else classify(error, target, recorder)


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait, but not for ever, until they have let go."""
    for task in tasks:
        task.cancel()
        task.add_done_callback(_forget)
    await asyncio.wait(tasks, timeout=GRACE_SECONDS)


def _forget(task: asyncio.Task[None]) -> None:
    """What a cancelled task raises while it cleans up says nothing about the target; asyncio would log it."""
    if not task.cancelled():
        task.exception()


def _turn_round(target: Target[Any], failure: Failure | None, recorder: Recorder) -> Failure | None:
    """What a result means for a target that must not be reachable: every attempt must show that it is not."""
    attempts = recorder.attempts or [(recorder, failure)]
    for notes, result in attempts:
        if result is None:
            seen = "it answered as a healthy target would"
        elif proves_presence(result, notes):
            seen = f"it answered: {result.detail}"
        else:
            continue
        address = notes.facts.get(Fact.ADDRESS, target.address)
        detail = shorten(f"expected {address} to be unreachable, but {seen}")
        return Failure(phase=Phase.VERIFY, reason=Reason.UNEXPECTED_SUCCESS, detail=detail)
    undecided = [result for notes, result in attempts if result is not None and not proves_absence(result, notes)]
    if undecided:
        return undecided[0]
    recorder.facts[Fact.BLOCKED_BY] = next(f"{result.phase}/{result.reason}" for _, result in attempts if result)
    return None


async def each(
    addresses: Sequence[Any],
    target: Target[Any],
    recorder: Recorder,
    attempt: Callable[[Any, Recorder], Coroutine[Any, Any, None]],
) -> None:
    """Make one attempt at every address, side by side, each with a notebook of its own.

    With several, the run fails where any of them failed: its times and facts are those of the first that failed, of the
    first that was still waiting where the deadline ended the run, or of the slowest; `Fact.ATTEMPTS` shows them all.
    """
    if len(addresses) == 1:
        await attempt(addresses[0], recorder)
        return
    children = [recorder.child() for _ in addresses]
    tasks = [asyncio.create_task(attempt(address, child)) for address, child in zip(addresses, children, strict=True)]
    try:
        await asyncio.wait(tasks)
    finally:
        # Also where the deadline of the run ends the wait: an attempt that is not done has met it too.
        late = [child for task, child in zip(tasks, children, strict=True) if not task.done()]
        results = [
            _judge(task, target, child) if task.done() else timed_out(target, child)
            for task, child in zip(tasks, children, strict=True)
        ]
        failed = [child for child, failure in zip(children, results, strict=True) if failure is not None]
        recorder.adopt(next(iter(late or failed), max(children, key=lambda child: sum(child.phases.values()))))
        recorder.attempts = list(zip(children, results, strict=True))
        recorder.facts[Fact.ATTEMPTS] = [
            _attempt_fact(address, child, failure)
            for address, child, failure in zip(addresses, children, results, strict=True)
        ]
        summary = f"{len(failed)} of {len(addresses)} addresses failed"
        if late:
            recorder.awaited = lambda: f"{summary}: {awaited(target, late[0])}"
            await _end({task for task in tasks if not task.done()})
    first = next((failure for failure in results if failure is not None), None)
    if first is not None:
        raise ProbeFailure(first.reason, f"{summary}: {first.detail}", phase=first.phase)


def _attempt_fact(address: object, recorder: Recorder, failure: Failure | None) -> dict[str, Any]:
    return {
        "address": str(address),
        "success": failure is None,
        "phase": failure.phase.value if failure else None,
        "reason": failure.reason.value if failure else None,
        "detail": failure.detail if failure else None,
        "phases": {phase.value: round(seconds, 6) for phase, seconds in recorder.phases.items()},
    }
