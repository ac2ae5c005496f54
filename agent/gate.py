"""Holds the start of the other containers back until the targets that matter have answered, or have had the time to.

A native sidecar's start-up probe asks whether it is open; the kubelet starts what comes after once it is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from agent.config.sections import GateMode, GateOptions
from agent.model import Outcome, Target

EAGER_INTERVAL_SECONDS = 0.5
"""Between two runs of a target that is awaited: a network that comes up is noticed soon."""
EAGER_TIMEOUT_SECONDS = 1.0
"""Deadline of the first run of a target that is awaited, and then twice as much each time, up to its own. What is lost
before the network is there is sent again only after 1 s (TCP) or 5 s (names): a new run comes sooner. What is just slow
has the time at the next run."""

_log: Any = structlog.get_logger(__name__)


class Gate:
    """A sink. Opens once, and stays open."""

    def __init__(
        self, options: GateOptions, targets: Iterable[Target[Any]], opened: Callable[[float, bool], None]
    ) -> None:
        """Use within a running event loop. `opened` is told the seconds waited, and whether the time was up."""
        self._options = options
        self._opened = opened
        self._loop = asyncio.get_running_loop()
        gates = (t for t in targets if t.gate or t.role in options.roles) if options.mode is not GateMode.OFF else ()
        self._awaited: dict[str, int] = {target.name: 0 for target in gates}
        """The runs that have failed so far."""
        self._open = not self._awaited
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to wait."""
        self._began = self._loop.time()
        if self._open:
            self._opened(0.0, False)
        elif self._options.mode is GateMode.OPEN:
            self._timer = self._loop.call_later(self._options.timeout, self._give_up)

    def stop(self) -> None:
        """Wait no more, without opening: the agent ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def closed(self) -> str | None:
        """Who is awaited, in a sentence; None where the gate is open."""
        return None if self._open else f"waiting for {', '.join(self._awaited)} to answer"

    def awaits(self, target: Target[Any]) -> bool:
        """Whether the gate is closed because of this target."""
        return not self._open and target.name in self._awaited

    def eager(self, target: Target[Any]) -> Target[Any]:
        """The target with the deadline of its next run."""
        if not self.awaits(target) or target.negative:
            return target
        seconds = min(target.timeout_seconds, EAGER_TIMEOUT_SECONDS * 2 ** min(self._awaited[target.name], 9))
        return dataclasses.replace(target, timeout_seconds=seconds)

    def write(self, outcome: Outcome) -> None:
        """Take note of a run. A target that has answered once is awaited no more."""
        name = outcome.target.name
        if self._open or name not in self._awaited:
            return
        if outcome.success:
            del self._awaited[name]
            if not self._awaited:
                self._let_go(timed_out=False)
        else:
            self._awaited[name] += 1

    def _give_up(self) -> None:
        self._let_go(timed_out=True)

    def _let_go(self, *, timed_out: bool) -> None:
        self.stop()
        self._open = True
        waited = round(self._loop.time() - self._began, 3)
        self._opened(waited, timed_out)
        _log.log(
            logging.WARNING if timed_out else logging.INFO,
            "startup_gate_opened",
            waited_seconds=waited,
            timed_out=timed_out,
            unanswered=list(self._awaited),
        )
