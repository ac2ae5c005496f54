"""What breaks in the demo, one thing after the other, and heals again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

LASTS_SECONDS = 6.0
"""Three times the interval of the demo's targets: every one of them meets the fault."""
QUIET_SECONDS = 6.0
"""Between two faults, long enough for the agent to see that all is well again, and for its log to say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that can be wrong, and how to make it so."""

    broken: str
    """What is about to be wrong, a clause: `the broker stops listening`."""
    healed: str
    """And what will be right again: `the broker listens again`."""
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


async def cycle(faults: Sequence[Fault], announce: Callable[[str], None]) -> None:
    """Break one thing at a time, for ever, and say so each time."""
    for fault in itertools.cycle(faults):
        await asyncio.sleep(QUIET_SECONDS)
        announce(fault.broken)
        await fault.begin()
        await asyncio.sleep(LASTS_SECONDS)
        announce(fault.healed)
        await fault.end()


def switch(change: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    """A change that takes no time, as a step of a fault."""

    async def step() -> None:
        change()

    return step
