"""Targets for tests, read from the keys a configuration file would hold."""

from __future__ import annotations

from typing import Any

from agent.keys import section
from agent.model import Outcome, Role, Scope, Target
from agent.probers import PROBERS
from agent.runner import run


def target(kind: str, *, timeout_seconds: float = 5.0, negative: bool = False, **keys: Any) -> Target[Any]:
    """A target of a type, its own keys as in YAML."""
    return Target(
        name="under-test",
        type=kind,
        interval_seconds=15.0,
        timeout_seconds=timeout_seconds,
        confirm_interval_seconds=5.0,
        confirm_runs=3,
        negative=negative,
        gate=False,
        role=Role.CUSTOM,
        scope=Scope.CLUSTER,
        options=section(PROBERS[kind].options)(keys),
    )


async def probe(kind: str, *, timeout_seconds: float = 5.0, negative: bool = False, **keys: Any) -> Outcome:
    """One run of a target of a type, its own keys as in YAML."""
    prober = PROBERS[kind].prober()
    try:
        return await run(prober, target(kind, timeout_seconds=timeout_seconds, negative=negative, **keys))
    finally:
        await prober.aclose()


def verdict(outcome: Outcome) -> str:
    """`phase/reason` of a failure, or `success`."""
    return f"{outcome.failure.phase}/{outcome.failure.reason}" if outcome.failure else "success"
