"""However an experiment ends, it leaves nothing behind: no descriptor, socket, thread or task."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from agent.diagnosis.experiment import (
    Answer,
    Connect,
    LocalNetwork,
    Lookup,
    MeshProxy,
    Question,
    ServerClock,
    SmallSegments,
)
from agent.experiments import Budget, Experimenter
from agent.probers import PROBERS
from tests.experiments.asking import failing, snapshot, wanted
from tests.lab.certificates import Certificates
from tests.lab.http_servers import HttpServer, response
from tests.lab.leaks import nothing_leaks, repeat
from tests.lab.misbehaving import refusing_port, silent
from tests.lab.nameservers import Nameserver, zone
from tests.lab.nameservers import silent as unanswering
from tests.lab.targets import target

TIMES = 500
DATE = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}


@dataclass(frozen=True, slots=True)
class Peers:
    """An experimenter, and questions that are answered at once, and that are waited for in vain."""

    ask: Callable[[Question], Awaitable[Answer | None]]
    """None where it was given up, as on a machine that is too busy for hundreds at once."""
    answered: dict[str, Question]
    unanswered: dict[str, Question]


@asynccontextmanager
async def peers(certificates: Certificates) -> AsyncIterator[Peers]:
    tls = certificates.good.server_context()
    async with (
        HttpServer(response(headers=DATE), tls=tls) as server,
        silent() as mute,
        Nameserver(zone("db.test. A 192.0.2.1"), ip="127.0.0.2") as nameserver,
        Nameserver(unanswering, ip="127.0.0.3") as dead,
    ):
        cases: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("mute", "http", {"url": f"https://{mute.address}/"}),
            ("dns", "dns", {"query": "db.test.", "server": nameserver.address}),
            ("dead", "dns", {"query": "db.test.", "server": dead.address}),
            ("dead over tcp", "dns", {"query": "db.test.", "server": mute.address}),
        )
        known = snapshot(
            failing(target("http", url=server.url(), tls={"ca_file": str(certificates.ca_file)})),
            *(failing(dataclasses.replace(target(kind, **keys), name=name)) for name, kind, keys in cases),
        )
        probers = {kind: PROBERS[kind].prober() for kind in ("http", "dns")}
        experimenter = Experimenter(probers, Budget(per_minute=10**6, per_pod=10**6))

        async def ask(question: Question) -> Answer | None:
            answers = [found.answer for found in await experimenter.ask(wanted(question), known)]
            return answers[0] if answers else None

        yield Peers(
            ask,
            answered={
                "lookup": Lookup("db.test", "A", "127.0.0.2"),
                "lookup over tcp": Lookup("db.test", "A", "127.0.0.2", "tcp"),
                "connect": Connect("127.0.0.1", server.port),
                "connect, refused": Connect("127.0.0.1", refusing_port()),
                "small segments": SmallSegments("under-test"),
                "server clock": ServerClock("under-test"),
                "mesh proxy": MeshProxy(),
                "local network": LocalNetwork(),
            },
            unanswered={
                "lookup": Lookup("db.test", "A", "127.0.0.3"),
                "lookup over tcp": Lookup("db.test", "A", "127.0.0.1", "tcp"),
                "small segments": SmallSegments("mute"),
                "server clock": ServerClock("mute"),
            },
        )
        for prober in probers.values():
            await prober.aclose()


async def test_experiments_that_are_answered_leave_nothing_behind(certificates: Certificates) -> None:
    async with peers(certificates) as lab:
        for question in lab.answered.values():
            answers: list[Answer | None] = []

            async def one(question: Question = question, answers: list[Answer | None] = answers) -> None:
                answers.append(await lab.ask(question))

            await repeat(20, one)
            async with nothing_leaks():
                await repeat(TIMES, one)
            assert None not in answers


async def test_experiments_that_are_not_answered_leave_nothing_behind(certificates: Certificates) -> None:
    """Many at once: each waits for a second and a half."""
    async with peers(certificates) as lab:
        for question in lab.unanswered.values():
            answers: list[Answer | None] = []

            async def one(question: Question = question, answers: list[Answer | None] = answers) -> None:
                answers.append(await lab.ask(question))

            await repeat(20, one)
            async with nothing_leaks():
                await repeat(TIMES, one, at_once=TIMES)
            assert any(answers)


@pytest.mark.parametrize("which", ["answered", "unanswered"])
async def test_experiments_that_are_cancelled_leave_nothing_behind(certificates: Certificates, which: str) -> None:
    """At moments from before the first step to after the last."""
    async with peers(certificates) as lab:
        for question in getattr(lab, which).values():
            moments = (0.02 * n / TIMES for n in itertools.count())
            cancelled = 0

            async def one(question: Question = question, moments: Any = moments) -> None:
                nonlocal cancelled
                task = asyncio.ensure_future(lab.ask(question))
                await asyncio.sleep(next(moments))
                if task.cancel():
                    cancelled += 1
                    with pytest.raises(asyncio.CancelledError):
                        await task

            await repeat(40, one, at_once=4)
            async with nothing_leaks():
                await repeat(TIMES, one, at_once=4)
            assert cancelled
