"""Outcomes as log events: one when a target changes, at debug one per outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import structlog

from agent.model import Fact, Failure, Outcome, Target


class _State:
    """What was last said about a target."""

    __slots__ = ("failure", "since")

    def __init__(self, failure: Failure | None, since: float) -> None:
        self.failure = failure
        self.since = since


class LogSink:
    """Says what changed, once, in one wide event with constant name and fields.

    `target_failed` (warning), `target_recovered` (info), `target_failure_changed` (warning: still failing, in another
    phase or for another reason), `target_first_succeeded` (info), and `target_probed` (debug) for every outcome.
    """

    def __init__(self, targets: Iterable[Target[Any]], clock: Callable[[], float] = time.monotonic) -> None:
        """The clock measures how long a state lasted, in seconds; the time of day may be set meanwhile."""
        self._clock = clock
        self._states: dict[str, _State | None] = {target.name: None for target in targets}
        self._log: Any = structlog.get_logger(__name__)

    def write(self, outcome: Outcome) -> None:
        # Standard error may be a pipe that nobody reads any more; that is no reason to stop probing.
        with suppress(OSError, ValueError):
            self._log.debug("target_probed", success=outcome.success, **_fields(outcome))
            self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        before = self._states[outcome.target.name]
        failure = outcome.failure
        began = self._clock() - outcome.duration_seconds
        if before is None:
            self._states[outcome.target.name] = _State(failure, began)
            if failure is None:
                self._log.info("target_first_succeeded", **_fields(outcome))
            else:
                self._log.warning("target_failed", **_fields(outcome))
            return
        lasted = round(began - before.since, 3)
        if (before.failure is None) != (failure is None):
            self._states[outcome.target.name] = _State(failure, began)
            if failure is None:
                self._log.info("target_recovered", **_fields(outcome), failed_for_seconds=lasted)
            else:
                self._log.warning("target_failed", **_fields(outcome), succeeded_for_seconds=lasted)
        elif _kind(before.failure) != _kind(failure):
            before.failure = failure
            self._log.warning("target_failure_changed", **_fields(outcome), failing_for_seconds=lasted)


def _kind(failure: Failure | None) -> tuple[str, str] | None:
    return None if failure is None else (failure.phase, failure.reason)


def _fields(outcome: Outcome) -> dict[str, Any]:
    target, failure = outcome.target, outcome.failure
    fields: dict[str, Any] = {"target": target.name, "type": target.type}
    if failure is not None:
        fields |= {"phase": failure.phase.value, "reason": failure.reason.value, "detail": failure.detail}
    fields |= {
        "address": target.address,
        "duration_seconds": round(outcome.duration_seconds, 6),
        "phases_seconds": {phase.value: round(seconds, 6) for phase, seconds in outcome.phases.items()},
    }
    if outcome.facts.get(Fact.STARVED):
        fields["starved"] = True
    return fields
