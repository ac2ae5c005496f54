"""Outcomes and diagnoses as they are made of real runs, for what comes after."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from agent.diagnosis import Cause, Confidence, Diagnosis, Verdict
from agent.model import Fact, Failure, Outcome, Phase, Reason, Target
from tests.lab.targets import target as make_target

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "dns": {"query": "db.example.com", "server": "127.0.0.1:53"},
    "http": {"url": "https://api.example.com/data"},
    "postgres": {"dsn": "postgresql://probe@db.example.com:5432/app"},
    "tcp": {"address": "broker.example.com:6379"},
}
"""The least each type of target has to be told."""


def named(name: str, kind: str = "tcp", **fields: Any) -> Target[Any]:
    """A target of a type, with a name and other fields of its own."""
    return dataclasses.replace(make_target(kind, **EXAMPLES[kind]), name=name, **fields)


def outcome(
    target: Target[Any],
    failed: tuple[Phase, Reason] | None = None,
    *,
    at: float = 1_700_000_000.0,
    seconds: float = 0.01,
    phases: Iterable[Phase] = (),
    facts: Mapping[Fact, Any] | None = None,
) -> Outcome:
    """What a run of a target found: a failure or none, each phase taking a millisecond."""
    failure = (
        None if failed is None else Failure(phase=failed[0], reason=failed[1], detail=f"expected x, got {failed[1]}")
    )
    return Outcome(
        target=target,
        started_at=at,
        duration_seconds=seconds,
        phases=dict.fromkeys(phases, 0.001),
        facts=facts or {},
        failure=failure,
    )


def diagnosis(*verdicts: tuple[Cause, *tuple[str, ...]]) -> Diagnosis:
    """One verdict for each cause, with the targets it explains."""
    return Diagnosis(
        tuple(
            Verdict(cause=cause, confidence=Confidence.HIGH, targets=tuple(targets), summary="", evidence=(), advice="")
            for cause, *targets in verdicts
        )
    )
