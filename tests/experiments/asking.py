"""Snapshots as the diagnostician makes them, and experiments asked on them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from agent.diagnosis.experiment import Answer, Experiment, Question
from agent.diagnosis.rules.case import Wanted
from agent.diagnosis.snapshot import History, Pod, Resolver, Snapshot
from agent.experiments import Budget, Experimenter
from agent.model import Fact, Phase, Reason, Target
from agent.probers import PROBERS
from tests.lab.outcomes import outcome

FAILED = (Phase.CONNECT, Reason.TIMEOUT)


def failing(target: Target[Any], *, success: bool = False, **facts: Any) -> History:
    """A target whose one run failed (or succeeded), and the facts of it."""
    found: Mapping[Fact, Any] = {Fact(name): value for name, value in facts.items()}
    return History(target, (outcome(target, None if success else FAILED, facts=found),))


def snapshot(
    *histories: History | Target[Any],
    nameservers: Sequence[str] = (),
    search: Sequence[str] = (),
    kubernetes_api: tuple[str, int] | None = None,
    experiments: Iterable[Experiment] = (),
) -> Snapshot:
    """What is known, of a pod that resolves by these nameservers. A target alone has not run yet."""
    resolver = Resolver(nameservers=tuple(nameservers), search=tuple(search), ndots=5, timeout_seconds=5.0)
    return Snapshot(
        at=1_700_000_000.0,
        pod=Pod(started_at=1_699_999_000.0, resolver=resolver, kubernetes_api=kubernetes_api),
        histories=tuple(one if isinstance(one, History) else History(one, ()) for one in histories),
        experiments=tuple(experiments),
    )


def experiment(question: Question, answer: Answer) -> Experiment:
    """One that was made before."""
    return Experiment(question=question, answer=answer, targets=("under-test",), started_at=1_700_000_000.0)


def wanted(*questions: Question) -> list[Wanted]:
    return [Wanted(question, ("under-test",)) for question in questions]


@dataclass
class Asking:
    """An experimenter, and what it is asked about."""

    experimenter: Experimenter
    known: Snapshot

    async def every(self, *questions: Question) -> tuple[Experiment, ...]:
        return await self.experimenter.ask(wanted(*questions), self.known)

    async def one(self, question: Question) -> Any:
        """The answer to a question that is allowed."""
        (found,) = await self.every(question)
        assert found.question == question
        assert found.targets == ("under-test",)
        return found.answer


@asynccontextmanager
async def asking(
    known: Snapshot, *, per_minute: int = 10_000, per_pod: int = 10_000, wall_clock: Callable[[], float] = time.time
) -> AsyncIterator[Asking]:
    """An experimenter with probers of its own."""
    probers = {history.target.type: PROBERS[history.target.type].prober() for history in known.histories}
    budget = Budget(per_minute=per_minute, per_pod=per_pod)
    experimenter = Experimenter(probers, budget, wall_clock=wall_clock)
    try:
        yield Asking(experimenter, known)
    finally:
        for prober in probers.values():
            await prober.aclose()


async def answer(known: Snapshot, question: Question) -> Any:
    """What one experimenter finds out about one question."""
    async with asking(known) as ask:
        return await ask.one(question)
