"""Questions in, experiments out: side by side, within the budget, whatever happens."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from agent.diagnosis.experiment import (
    Connect,
    Connected,
    Experiment,
    LocalNetwork,
    LocalTables,
    Lookup,
    Mesh,
    MeshProxy,
    Question,
)
from agent.diagnosis.rules.case import Wanted
from agent.experiments.experimenter import AT_ONCE
from tests.experiments.asking import asking, snapshot, wanted
from tests.lab.misbehaving import echoing
from tests.lab.nameservers import Nameserver, Query
from tests.lab.targets import target


class Crowd:
    """A nameserver that answers nobody until told to, and counts who waits."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.open = asyncio.Event()

    async def script(self, query: Query) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await self.open.wait()
        self.waiting -= 1
        query.send(query.reply(rcode="NXDOMAIN"))


def names(count: int, server: Nameserver) -> list[Question]:
    return [Lookup(f"n{n}.example.test", "A", server.ip) for n in range(count)]


async def test_answers_come_in_the_order_of_the_questions() -> None:
    async with echoing() as server, asking(snapshot(target("tcp", address=server.address))) as ask:
        questions = [Connect("127.0.0.1", port) for port in (server.port, 1, server.port)] + [MeshProxy()]
        found = await ask.every(*questions)
    assert [experiment.question for experiment in found] == questions
    connected = [one.answer for one in found if isinstance(one.answer, Connected)]
    assert [answer.failure is None for answer in connected] == [True, False, True]


async def test_experiments_say_for_whom_and_when() -> None:
    async with (
        echoing() as server,
        asking(snapshot(target("tcp", address=server.address)), wall_clock=lambda: 1_700_000_123.5) as ask,
    ):
        question = Connect("127.0.0.1", server.port)
        (found,) = await ask.experimenter.ask([Wanted(question, ("under-test", "other"))], ask.known)
    assert (found.targets, found.started_at) == (("under-test", "other"), 1_700_000_123.5)


async def test_each_is_told_as_soon_as_it_has_been_found() -> None:
    """A nameserver that says nothing keeps nobody from what the pod's own tables say."""
    crowd = Crowd()
    async with Nameserver(crowd.script) as nameserver:
        known = snapshot(target("dns", query="example.test", server=nameserver.address))
        async with asking(known) as ask:
            told = asyncio.Queue[Experiment]()
            (slow,) = names(1, nameserver)
            asking_both = asyncio.ensure_future(
                ask.experimenter.ask(wanted(slow, LocalNetwork()), known, found=told.put_nowait)
            )
            async with asyncio.timeout(5):
                first = await told.get()
            assert first.question == LocalNetwork()
            assert not asking_both.done()
            crowd.open.set()
            assert [one.question for one in await asking_both] == [slow, LocalNetwork()]
            assert told.get_nowait().question == slow


async def test_eight_are_asked_at_once() -> None:
    crowd = Crowd()
    async with Nameserver(crowd.script) as nameserver:
        known = snapshot(target("dns", query="example.test", server=nameserver.address))
        async with asking(known) as ask:
            asking_all = asyncio.ensure_future(ask.every(*names(20, nameserver)))
            async with asyncio.timeout(5):
                while crowd.waiting < AT_ONCE:  # noqa: ASYNC110 - the lab's counter has no event
                    await asyncio.sleep(0.001)
            crowd.open.set()
            assert len(await asking_all) == 20
    assert crowd.most == AT_ONCE


async def test_those_beyond_the_budget_are_left_out_the_last_ones_first() -> None:
    async with echoing() as server, asking(snapshot(target("tcp", address=server.address)), per_minute=3) as ask:
        questions = [Connect("127.0.0.1", server.port) for _ in range(5)]
        found = await ask.every(*questions)
        assert len(found) == 3
        assert server.connections == 3
        assert (ask.experimenter.asked, ask.experimenter.left_out, ask.experimenter.refused) == (3, 2, 0)


async def test_what_stays_in_the_pod_is_free() -> None:
    async with asking(snapshot(), per_minute=1, per_pod=1) as ask:
        found = await ask.every(LocalNetwork(), MeshProxy(), LocalNetwork(), MeshProxy())
        assert [type(experiment.answer) for experiment in found] == [LocalTables, Mesh, LocalTables, Mesh]
        assert ask.experimenter.left_out == 0


async def test_no_questions_no_experiments() -> None:
    async with asking(snapshot()) as ask:
        assert await ask.every() == ()


@pytest.mark.parametrize(
    "question",
    [
        Lookup("db.example.test", "HINFO", "127.0.0.1"),
        Lookup("a" * 64 + ".example.test", "A", "127.0.0.1"),
        Lookup("db.example.test", "A", "127.0.0.1", "pigeon"),
    ],
)
async def test_a_defect_is_logged_and_nothing_else(question: Question) -> None:
    """What a planner must not ask costs its own answer, and not that of its neighbours."""
    configured = target("dns", query="example.test", server="127.0.0.1:53")
    async with asking(snapshot(configured)) as ask:
        with structlog.testing.capture_logs() as logs:
            found = await ask.every(question, MeshProxy(), question)
    assert [experiment.question for experiment in found] == [MeshProxy()]
    (event,) = logs
    assert (event["event"], event["experiment"], event["log_level"]) == ("experiment_failed", "Lookup", "error")


async def test_a_refusal_is_logged_once() -> None:
    """The diagnostician asks again at every evaluation."""
    async with asking(snapshot()) as ask:
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                await ask.every(Connect("203.0.113.9", 443))
        assert ask.experimenter.refused == 3
    assert [event["event"] for event in logs] == ["experiment_refused"]


async def test_a_caller_that_is_cancelled_ends_what_is_under_way() -> None:
    crowd = Crowd()
    async with Nameserver(crowd.script) as nameserver:
        known = snapshot(target("dns", query="example.test", server=nameserver.address))
        async with asking(known) as ask:
            asking_all = asyncio.ensure_future(ask.every(*names(20, nameserver)))
            async with asyncio.timeout(5):
                while crowd.waiting < AT_ONCE:  # noqa: ASYNC110 - the lab's counter has no event
                    await asyncio.sleep(0.001)
            before = asyncio.all_tasks()
            asking_all.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking_all
            assert len(before - asyncio.all_tasks()) == 21
            assert len(nameserver.asked) == AT_ONCE
