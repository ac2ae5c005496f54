"""What runs saw, in few words: targets, histories and snapshots for tables of rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from agent.diagnosis import Confidence, History, Pod, Resolver, Snapshot, diagnose
from agent.diagnosis.experiment import Answer, Experiment, Question
from agent.model import REASONS, Fact, Failure, Outcome, Phase, Reason, Scope, Target
from tests.lab.targets import target

NOW = 1_700_000_000.0
DAY = 86_400.0
HIGH, MEDIUM, LOW = Confidence.HIGH, Confidence.MEDIUM, Confidence.LOW

Facts = Mapping[Fact, Any]


def http(name: str, url: str, *, scope: Scope = Scope.PUBLIC, **keys: Any) -> Target[Any]:
    return dataclasses.replace(target("http", url=url, **keys), name=name, scope=scope)


def tcp(name: str, address: str, *, scope: Scope = Scope.CLUSTER, **keys: Any) -> Target[Any]:
    return dataclasses.replace(target("tcp", address=address, **keys), name=name, scope=scope)


def postgres(name: str, dsn: str, *, scope: Scope = Scope.CLUSTER, **keys: Any) -> Target[Any]:
    return dataclasses.replace(target("postgres", dsn=dsn, mode="handshake", **keys), name=name, scope=scope)


def failing(
    probed: Target[Any],
    failed: str,
    facts: Facts | None = None,
    *,
    detail: str = "expected x, got y",
    times: int = 2,
    phases: Mapping[Phase, float] | None = None,
) -> History:
    """A target that has failed so often in the same way, `phase/reason`; it worked before.

    Without `phases`, every phase up to the one that failed took a millisecond.
    """
    phase, reason = Phase(failed.partition("/")[0]), Reason(failed.partition("/")[2])
    assert reason in REASONS[phase]
    if phases is None:
        phases = dict.fromkeys(list(Phase)[: list(Phase).index(phase) + 1], 0.001)
    failures = [
        Outcome(
            target=probed,
            started_at=NOW - 2.0 * n,
            duration_seconds=sum(phases.values()),
            phases=phases,
            facts=facts or {},
            failure=Failure(phase=phase, reason=reason, detail=detail),
        )
        for n in range(times)
    ]
    return History(probed, (*failures, _success(probed, {}, NOW - 2.0 * times)))


def working(probed: Target[Any], facts: Facts | None = None, *, phases: Mapping[Phase, float] | None = None) -> History:
    """A target that has always worked."""
    return History(probed, tuple(_success(probed, facts or {}, NOW - 2.0 * n, phases) for n in range(3)))


def _success(probed: Target[Any], facts: Facts, at: float, phases: Mapping[Phase, float] | None = None) -> Outcome:
    return Outcome(
        target=probed, started_at=at, duration_seconds=0.01, phases=phases or {Phase.CONNECT: 0.001}, facts=facts
    )


def experiment(question: Question, answer: Answer, *targets: str) -> Experiment:
    return Experiment(question=question, answer=answer, targets=targets, started_at=NOW)


def snapshot(*histories: History, experiments: Sequence[Experiment] = ()) -> Snapshot:
    """A pod that has been running for an hour, in the namespace airflow of a cluster."""
    return Snapshot(
        at=NOW,
        pod=Pod(
            started_at=NOW - 3600,
            resolver=Resolver(nameservers=("10.96.0.10",), search=(), ndots=5, timeout_seconds=1.0),
            namespace="airflow",
            cluster_domain="cluster.local",
            kubernetes_api=("10.96.0.1", 443),
        ),
        histories=histories,
        experiments=tuple(experiments),
    )


Said = set[tuple[str, str, tuple[str, ...]]]


def said(seen: Snapshot) -> Said:
    """What is diagnosed: cause, confidence, targets."""
    return {(v.cause.value, v.confidence.value, v.targets) for v in diagnose(seen).verdicts}


def texts(seen: Snapshot) -> str:
    """Everything the diagnosis says."""
    return "\n".join(text for v in diagnose(seen).verdicts for text in (v.summary, *v.evidence, v.advice))
