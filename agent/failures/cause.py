"""What a classifier answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.model import Fact, Phase, Reason


@dataclass(frozen=True, slots=True)
class Cause:
    reason: Reason
    detail: str
    phase: Phase | None = None
    """Where the failure belongs, if not to the phase that was open."""


Classifier = Callable[[BaseException, Phase, Mapping[Fact, Any]], Cause | None]
"""(exception, open phase, facts so far) -> cause, or None for an exception of some other library."""


def peer(facts: Mapping[Fact, Any]) -> str:
    """The address that was tried, for a sentence."""
    return str(facts.get(Fact.ADDRESS, "the peer"))
