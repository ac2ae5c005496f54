"""A diagnosis as JSON. Its keys are a contract: `/diagnosis` and `netprobe check` print them, programs read them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from agent.diagnosis.experiment import Experiment
from agent.diagnosis.verdict import RUNBOOK, Diagnosis, Past, Verdict
from agent.model import rfc3339

VERSION = 1


def document(
    diagnosis: Diagnosis,
    *,
    since: float | None,
    held_seconds: float | None,
    waiting: Iterable[str],
    experiments: Iterable[Experiment],
    budget: Mapping[str, int] | None,
    began_at: Mapping[Verdict, float] | None = None,
    recent: Iterable[Past] = (),
    runbook: str = RUNBOOK,
) -> dict[str, Any]:
    """What `/diagnosis` answers.

    `since` and `began_at` are Unix time, `since` is None before the first result; `waiting` names the targets without
    one. Without a budget, nothing is asked.
    """
    began = began_at or {}
    return {
        "version": VERSION,
        "healthy": diagnosis.healthy,
        "verdicts": [
            verdict.as_dict(runbook) | {"began_at": rfc3339(began[verdict]) if verdict in began else None}
            for verdict in diagnosis.verdicts
        ],
        "recent": [
            past.verdict.as_dict(runbook) | {"began_at": rfc3339(past.began_at), "ended_at": rfc3339(past.ended_at)}
            for past in recent
        ],
        "since": None if since is None else rfc3339(since),
        "held_seconds": None if held_seconds is None else round(held_seconds, 3),
        "waiting": list(waiting),
        "experiments": [experiment_document(experiment) for experiment in experiments],
        "budget": None if budget is None else dict(budget),
    }


def experiment_document(experiment: Experiment) -> dict[str, Any]:
    """A question, its answer, for whom and when."""
    question = experiment.question
    return {
        "question": {"kind": _snake_case(type(question).__name__), **_plain(question)},
        "answer": _plain(experiment.answer),
        "targets": list(experiment.targets),
        "started_at": rfc3339(experiment.started_at),
    }


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _plain(value: Any) -> Any:
    """A frozen value as JSON has it."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value
