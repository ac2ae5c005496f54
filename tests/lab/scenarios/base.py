"""What a scenario of the fault lab is: what is watched, what is broken, and what the agent must say then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.diagnosis import Cause, Confidence
from tests.lab.world import World
from tests.lab.world.places import STANDARD

HIGH = (Confidence.HIGH,)
MEDIUM = (Confidence.MEDIUM,)
NOT_HIGH = (Confidence.MEDIUM, Confidence.LOW)
"""Where what is seen has two readings."""
ANY = tuple(Confidence)


@dataclass(frozen=True, slots=True)
class Expected:
    """A verdict the agent must reach."""

    cause: Cause
    targets: tuple[str, ...]
    """Exactly these, in any order."""
    confidences: tuple[Confidence, ...] = HIGH
    says: tuple[str, ...] = ()
    """What its summary, evidence or advice must contain (as it stands in the text)."""


def nothing(world: World) -> None:
    """Change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One world, one fault (or two, or none), and the verdict.

    The course: `prepare`, then the agent starts; unless `from_start`, every target must have succeeded and the agent
    must call itself healthy; then `break_`; then the verdicts must become exactly `expected`, and stay so for 2 s;
    then everything is undone. Without `expected` the agent must be healthy all the time for `healthy_seconds`.
    """

    name: str
    """Of the test: `egress-blocked-by-policy`."""
    title: str
    """What is broken, in the matrix: "A policy drops everything to the internet"."""
    targets: tuple[str | Mapping[str, Any], ...] = STANDARD
    """What the agent watches: names of places.TARGETS, or whole targets as in YAML (see places.target).

    `${CA_FILE}` and `${DATABASE_PASSWORD}` are set, as are the variables of `environment`.
    """
    prepare: Callable[[World], object] = nothing
    """Before the agent starts."""
    break_: Callable[[World], object] = nothing
    """The fault. With `from_start`: right after the agent has started (lift what `prepare` has blocked)."""
    expected: tuple[Expected, ...] = ()
    """Every verdict, exactly; none means healthy."""
    from_start: bool = False
    """The fault is in `prepare` (or needs no doing): nothing has to be healthy first."""
    recovers: bool = False
    """Undo `break_` in the end, and wait until the agent calls itself healthy again: a few seconds more."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More variables for the agent: HTTPS_PROXY."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More sections of the agent's configuration, over the lab's own."""
    patience_seconds: float = 20.0
    """How long the verdict may take. Long enough to be no statement about speed: the matrix has the times."""
    healthy_seconds: float = 8.0
