"""Where outcomes go. `write` is synchronous, does not block and does not raise; who needs a queue owns it, bounded."""

from __future__ import annotations

from typing import Protocol

from agent.model import Outcome


class Sink(Protocol):
    """One consumer of outcomes."""

    def write(self, outcome: Outcome) -> None:
        """Take note of one run."""
