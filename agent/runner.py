"""One run: the clock, the deadline, the only broad `except`, and what the result means for the target."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agent.failures import PROOF_OF_ABSENCE, classify, timed_out
from agent.model import Fact, Failure, Outcome, Phase, Reason, Target
from agent.prober import ProbeFailure, Prober, Recorder


async def run(
    prober: Prober,
    target: Target[Any],
    *,
    recorder: Recorder | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> Outcome:
    """Probe a target once, within its timeout, and say what was found. Raises nothing but cancellation.

    A caller that wants to see how far the run is hands it a fresh recorder.
    """
    recorder = recorder or Recorder()
    started_at, began = wall_clock(), time.perf_counter()
    failure = await _observe(prober.probe(target, recorder), target, recorder)
    if target.negative:
        failure = _turn_round(target, failure, recorder)
    return Outcome(
        target=target,
        started_at=started_at,
        duration_seconds=time.perf_counter() - began,
        phases=recorder.phases,
        facts=recorder.facts,
        failure=failure,
    )


async def _observe(asking: Awaitable[None], target: Target[Any], recorder: Recorder) -> Failure | None:
    deadline = asyncio.timeout(target.timeout_seconds)
    try:
        async with deadline:
            await asking
    except Exception as error:  # noqa: BLE001 - the one place that may catch everything
        if deadline.expired():
            return timed_out(target, recorder)
        return classify(error, target, recorder)
    return None


def _turn_round(target: Target[Any], failure: Failure | None, recorder: Recorder) -> Failure | None:
    """What a result means for a target that must not be reachable."""
    if failure is None:
        seen = "it answered as a healthy target would"
    elif failure.reason in PROOF_OF_ABSENCE.get(failure.phase, frozenset()):
        recorder.facts[Fact.BLOCKED_BY] = f"{failure.phase}/{failure.reason}"
        return None
    elif failure.reason is Reason.INTERNAL or failure.phase is Phase.RESOLVE:
        return failure  # shows neither that the target can be reached nor that it cannot
    else:
        seen = f"it answered: {failure.detail}"
    detail = f"expected {target.address} to be unreachable, but {seen}"
    return Failure(phase=Phase.VERIFY, reason=Reason.UNEXPECTED_SUCCESS, detail=detail[:256])


async def each(
    addresses: Sequence[Any],
    target: Target[Any],
    recorder: Recorder,
    attempt: Callable[[Any, Recorder], Awaitable[None]],
) -> None:
    """Make one attempt at every address, side by side, each with a notebook of its own.

    With several, the run fails where any of them failed: its times and facts are those of the first that failed, or of
    the slowest, and `Fact.ATTEMPTS` shows them all.
    """
    if len(addresses) == 1:
        await attempt(addresses[0], recorder)
        return
    children = [recorder.child() for _ in addresses]
    tasks = [
        asyncio.ensure_future(_observe(attempt(address, child), target, child))
        for address, child in zip(addresses, children, strict=True)
    ]
    try:
        await asyncio.wait(tasks)
    finally:
        # Where the deadline of the run ends the wait, the attempts that are not done have met it too.
        failures = [
            task.result() if task.done() else timed_out(target, child)
            for task, child in zip(tasks, children, strict=True)
        ]
        for task in tasks:
            task.cancel()
        failed = [(child, failure) for child, failure in zip(children, failures, strict=True) if failure is not None]
        slowest = max(children, key=lambda child: sum(child.phases.values()))
        recorder.adopt(failed[0][0] if failed else slowest)
        recorder.facts[Fact.ATTEMPTS] = [
            _attempt_fact(address, child, failure)
            for address, child, failure in zip(addresses, children, failures, strict=True)
        ]
    if failed:
        _, first = failed[0]
        detail = f"{len(failed)} of {len(addresses)} addresses failed: {first.detail}"
        raise ProbeFailure(first.reason, detail, phase=first.phase)


def _attempt_fact(address: object, recorder: Recorder, failure: Failure | None) -> dict[str, Any]:
    return {
        "address": str(address),
        "success": failure is None,
        "phase": failure.phase.value if failure else None,
        "reason": failure.reason.value if failure else None,
        "detail": failure.detail if failure else None,
        "phases": {phase.value: round(seconds, 6) for phase, seconds in recorder.phases.items()},
    }
