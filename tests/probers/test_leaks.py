"""However a run ends, it leaves nothing behind: no descriptor, socket, thread, task or session.

Counted over 1,000 runs of each type and each way to end, with one prober, as the agent has it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.model import Phase
from agent.prober import Prober, Recorder
from agent.probers import PROBERS
from agent.runner import run
from tests.lab.certificates import Certificates
from tests.lab.http_servers import HttpServer, response
from tests.lab.leaks import nothing_leaks, repeat
from tests.lab.misbehaving import echoing, silent, upgrading
from tests.lab.nameservers import Nameserver, loopback_ip, resolv_conf, zone
from tests.lab.nameservers import silent as unanswering
from tests.lab.postgres import PASSWORD, Postgres
from tests.lab.targets import target, verdict

RUNS = 1000


@dataclass(frozen=True, slots=True)
class Lab:
    """What peers of any type are made of."""

    certificates: Certificates
    directory: Path
    postgres: Callable[[], Postgres]

    @property
    def tls(self) -> dict[str, str]:
        return {"ca_file": str(self.certificates.ca_file)}


@dataclass(frozen=True, slots=True)
class Peers:
    """Targets of one type, by their keys."""

    answering: Mapping[str, Any]
    silent: Mapping[Phase, Mapping[str, Any]]
    """Targets whose runs wait in vain, by the phase they wait in."""
    settled: Callable[[], Any] | None = None
    """Raises unless the server, too, holds nothing any more."""


def mute_nameserver() -> Nameserver:
    return Nameserver(unanswering, ip=loopback_ip(), port=53)


@asynccontextmanager
async def tcp(lab: Lab) -> AsyncIterator[Peers]:
    dialogue = [{"send": "PING\r\n"}, {"expect": "PING"}]
    async with (
        echoing(tls=lab.certificates.good.server_context()) as server,
        silent() as mute,
        mute_nameserver() as nameserver,
    ):
        yield Peers(
            answering={"address": server.address, "tls": lab.tls, "dialogue": dialogue},
            silent={
                Phase.RESOLVE: {"address": "db.test.:1", "resolv_conf": resolv_conf(lab.directory, nameserver)},
                Phase.TLS: {"address": mute.address, "tls": lab.tls},
                Phase.REQUEST: {"address": mute.address, "dialogue": dialogue},
            },
        )


@asynccontextmanager
async def dns(lab: Lab) -> AsyncIterator[Peers]:
    async with (
        Nameserver(zone("db.test. A 192.0.2.1"), ip=loopback_ip(), port=53) as nameserver,
        mute_nameserver() as mute,
    ):
        yield Peers(
            answering={"query": "db.test.", "resolv_conf": resolv_conf(lab.directory, nameserver)},
            silent={Phase.RESOLVE: {"query": "db.test.", "resolv_conf": resolv_conf(lab.directory, mute)}},
        )


@asynccontextmanager
async def http(lab: Lab) -> AsyncIterator[Peers]:
    async with (
        HttpServer(response(body=b"ok"), tls=lab.certificates.good.server_context()) as server,
        HttpServer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\no", close=False) as unfinished,
        silent() as mute,
        mute_nameserver() as nameserver,
    ):
        yield Peers(
            answering={"url": server.url(), "tls": lab.tls},
            silent={
                Phase.RESOLVE: {"url": "http://api.test./", "resolv_conf": resolv_conf(lab.directory, nameserver)},
                Phase.PROXY: {"url": "https://127.0.0.1:1/", "proxy": f"http://{mute.address}"},
                Phase.TLS: {"url": f"https://{mute.address}/"},
                Phase.REQUEST: {"url": f"http://{mute.address}/"},
                Phase.TRANSFER: {"url": unfinished.url()},
            },
        )


@asynccontextmanager
async def postgres(lab: Lab) -> AsyncIterator[Peers]:
    server = lab.postgres()
    keys = {
        "dsn": f"postgresql://probe@127.0.0.1:{server.port}/app",
        "password": PASSWORD,
        "sslmode": "verify-full",
        "tls": lab.tls,
        "mode": "query",
    }
    async with silent() as mute, upgrading(None) as half_way, mute_nameserver() as nameserver:
        yield Peers(
            answering=keys,
            silent={
                Phase.RESOLVE: {"dsn": "postgresql://db.test./", "resolv_conf": resolv_conf(lab.directory, nameserver)},
                Phase.TLS: {"dsn": f"postgresql://{half_way.address}/", "sslmode": "require"},
                Phase.LOGIN: {"dsn": f"postgresql://{mute.address}/", "sslmode": "disable"},
                Phase.REQUEST: keys | {"query": "select pg_sleep(60)"},
            },
            settled=server.no_sessions,
        )


PEERS: Mapping[str, Callable[[Lab], AbstractAsyncContextManager[Peers]]] = {
    "dns": dns,
    "http": http,
    "tcp": tcp,
    "postgres": postgres,
}


def test_every_type_is_counted() -> None:
    """A new type has a row here, or this fails."""
    assert set(PEERS) == set(PROBERS)


@pytest.fixture
def lab(certificates: Certificates, tmp_path: Path, request: pytest.FixtureRequest) -> Lab:
    return Lab(certificates, tmp_path, lambda: request.getfixturevalue("postgres"))


@asynccontextmanager
async def under_test(kind: str, lab: Lab) -> AsyncIterator[tuple[Prober, Peers]]:
    """One prober and its peers; when it has closed, the server holds no session either."""
    async with AsyncExitStack() as stack:
        peers = await stack.enter_async_context(PEERS[kind](lab))
        prober = PROBERS[kind].prober()
        try:
            yield prober, peers
        finally:
            await prober.aclose()
        if peers.settled is not None:
            await peers.settled()


@pytest.mark.parametrize("kind", PROBERS)
async def test_runs_that_succeed_leave_nothing_behind(kind: str, lab: Lab) -> None:
    async with under_test(kind, lab) as (prober, peers):
        fine = target(kind, timeout_seconds=60, **peers.answering)

        async def one() -> None:
            assert verdict(await run(prober, fine)) == "success"

        await repeat(40, one)
        async with nothing_leaks():
            await repeat(RUNS, one)


@pytest.mark.parametrize("kind", PROBERS)
async def test_runs_that_time_out_leave_nothing_behind(kind: str, lab: Lab) -> None:
    """The deadline of a few milliseconds meets runs wherever they are: most of them in vain wait for a silent peer."""
    async with under_test(kind, lab) as (prober, peers):
        targets = itertools.cycle(
            target(kind, timeout_seconds=milliseconds / 1000, **keys)
            for milliseconds in (1, 2, 5, 10, 20, 50, 250)
            for keys in (peers.answering, *peers.silent.values())
        )
        seen: set[str] = set()

        async def one() -> None:
            seen.add(verdict(await run(prober, next(targets))))

        await repeat(40, one)
        async with nothing_leaks():
            await repeat(RUNS, one)
    assert seen > {f"{phase}/timeout" for phase in peers.silent}
    assert all(end == "success" or end.endswith("/timeout") for end in seen)


@pytest.mark.parametrize("kind", PROBERS)
async def test_runs_that_are_cancelled_leave_nothing_behind(kind: str, lab: Lab) -> None:
    """Cancelled at a thousand different moments, from before the first step to after the last."""
    async with under_test(kind, lab) as (prober, peers):
        fine = target(kind, timeout_seconds=60, **peers.answering)
        await run(prober, fine)
        began = time.perf_counter()
        await run(prober, fine)
        whole_seconds = time.perf_counter() - began
        cancelled_in: set[Phase] = set()

        async def one(after_seconds: float) -> None:
            recorder = Recorder()
            task = asyncio.ensure_future(run(prober, fine, recorder=recorder))
            await asyncio.sleep(after_seconds)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
                cancelled_in.add(recorder.current)

        moments = (1.1 * whole_seconds * n / RUNS for n in itertools.count())
        await repeat(40, lambda: one(whole_seconds / 2), at_once=4)
        async with nothing_leaks():
            await repeat(RUNS, lambda: one(next(moments)), at_once=4)
    assert cancelled_in


@pytest.mark.parametrize("kind", PROBERS)
async def test_runs_that_are_cancelled_while_they_wait_leave_nothing_behind(kind: str, lab: Lab) -> None:
    async with under_test(kind, lab) as (prober, peers):
        stuck = itertools.cycle(
            (phase, target(kind, timeout_seconds=60, **keys)) for phase, keys in peers.silent.items()
        )

        async def one() -> None:
            phase, waiting = next(stuck)
            recorder = Recorder()
            task = asyncio.ensure_future(run(prober, waiting, recorder=recorder))
            async with asyncio.timeout(30):
                while recorder.phases.get(phase, 0.0) < 0.002:
                    assert not task.done()
                    await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        await repeat(40, one)
        async with nothing_leaks():
            await repeat(RUNS, one)
