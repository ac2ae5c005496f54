"""What the diagnosis says, as log events: one when its causes change, and none for less."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import structlog

from agent.diagnosis import Cause, Diagnosis
from agent.diagnosis.verdict import RUNBOOK

SETTLE_SECONDS = 2.0
"""For how long causes have to be the same before they are told: most experiments have told them apart by then."""
PATIENCE_SECONDS = 10.0
"""Causes that never stay the same for that long are told after this all the same."""


class DiagnosisLog:
    """Says `diagnosis_changed` where the set of causes has changed, and how long the last one held.

    Another confidence or other targets of the same causes are no event: `/diagnosis` has them.
    """

    def __init__(self, runbook: str = RUNBOOK) -> None:
        """Use within a running event loop. `runbook` is where the sections of the causes are."""
        self._loop = asyncio.get_running_loop()
        self._runbook = runbook
        self._log: Any = structlog.get_logger(__name__)
        self._told: frozenset[Cause] = frozenset()
        self._told_since: float | None = None
        """When these causes were first seen; None while none have been."""
        self._new: Diagnosis | None = None
        """What may have to be told; None where what was told still holds."""
        self._new_since = 0.0
        self._differs_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def diagnosed(self, diagnosis: Diagnosis) -> None:
        """Take note of what holds now."""
        causes = frozenset(diagnosis.causes)
        now = self._loop.time()
        if self._told_since is None and self._new is None and diagnosis.healthy:
            # Well from the start is no change; each target has said so.
            self._told, self._told_since = causes, now
        if causes == self._told:
            self._new = None
            self._cancel()
            return
        if self._new is None:
            self._differs_since = now
        if self._new is None or frozenset(self._new.causes) != causes:
            self._new_since = now
            self._cancel()
            at = min(now + SETTLE_SECONDS, self._differs_since + PATIENCE_SECONDS)
            self._timer = self._loop.call_at(at, self.flush)
        self._new = diagnosis

    def flush(self) -> None:
        """Tell now what would be told soon: the agent ends."""
        self._cancel()
        new, self._new = self._new, None
        if new is None:
            return
        fields = {
            "causes": [cause.value for cause in new.causes],
            "before": sorted(cause.value for cause in self._told),
            "before_held_seconds": self._held(),
            "verdicts": [_brief(verdict) for verdict in new.as_dict(self._runbook)["verdicts"]],
        }
        self._told, self._told_since = frozenset(new.causes), self._new_since
        # Standard error may be a pipe that nobody reads any more.
        with suppress(OSError, ValueError):
            self._log.log(logging.INFO if new.healthy else logging.WARNING, "diagnosis_changed", **fields)

    def _held(self) -> float | None:
        return None if self._told_since is None else round(self._new_since - self._told_since, 3)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _brief(verdict: dict[str, Any]) -> dict[str, Any]:
    """A verdict less its evidence: the events of its targets have that."""
    return {key: value for key, value in verdict.items() if key != "evidence"}
