"""postgres leaves nothing behind: neither a session at the server nor anything in the process, however a run ends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from agent.model import Phase
from agent.prober import Recorder
from agent.probers.postgres import PostgresProber
from agent.runner import run
from tests.lab.certificates import Certificates
from tests.lab.fake_postgres import CANCEL_REQUEST, SSL_REQUEST, logged_in, read_startup, speaking
from tests.lab.leaks import nothing_leaks, repeat
from tests.lab.misbehaving import Server
from tests.lab.postgres import PASSWORD, Postgres, directory, eventually_async
from tests.lab.targets import target, verdict

RUNS = 1000


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[Postgres]:
    """A server whose clients are all this module's own."""
    with directory() as home, Postgres.create(home, certificate=certificates.good) as server:
        yield server


@pytest.fixture
async def prober() -> AsyncIterator[PostgresProber]:
    prober = PostgresProber()
    yield prober
    await prober.aclose()


def keys(server: Postgres, mode: str, user: str = "probe", **more: Any) -> dict[str, Any]:
    password = {} if mode == "handshake" else {"password": PASSWORD}
    return {"dsn": f"postgresql://{user}@127.0.0.1:{server.port}/app", "mode": mode, **password, **more}


@pytest.mark.parametrize(("mode", "user"), [("handshake", "probe"), ("handshake", "trusting"), ("login", "trusting")])
async def test_a_thousand_runs_leave_nothing(server: Postgres, prober: PostgresProber, mode: str, user: str) -> None:
    """Of the modes that test_leaks does not count. With TLS for the handshakes, and without for the login."""
    sslmode = "prefer" if mode == "handshake" else "disable"
    asked = target("postgres", **keys(server, mode, user), sslmode=sslmode, timeout_seconds=60)

    async def one() -> None:
        assert verdict(await run(prober, asked)) == "success"

    await one()
    async with nothing_leaks():
        await repeat(RUNS, one, at_once=8)
        await prober.aclose()
    await server.no_sessions()


async def test_a_thousand_runs_that_are_cut_short_anywhere_leave_nothing(
    server: Postgres, prober: PostgresProber
) -> None:
    """The deadline falls on every moment from the first packet to the middle of the query."""
    numbers = itertools.count()
    asked = [
        target(
            "postgres",
            **keys(server, "query", "trusting", query="select pg_sleep(0.02)"),
            sslmode=sslmode,
            timeout_seconds=milliseconds / 1000,
        )
        for milliseconds in range(1, 41)
        for sslmode in ("disable", "require")
    ]
    seen: set[str] = set()

    async def one() -> None:
        seen.add(verdict(await run(prober, asked[next(numbers) % len(asked)])))

    await one()
    await prober.aclose()
    async with nothing_leaks():
        await repeat(RUNS, one, at_once=4)
        await prober.aclose()
    await server.no_sessions()
    assert {"login/timeout", "request/timeout"} <= seen


async def test_a_thousand_runs_that_are_cancelled_leave_nothing(server: Postgres, prober: PostgresProber) -> None:
    """As when the agent stops: the task is cancelled, in whichever phase it is."""
    asked = target("postgres", **keys(server, "query", "trusting", query="select pg_sleep(60)"), timeout_seconds=60)
    numbers = itertools.count()

    async def one() -> None:
        task = asyncio.create_task(run(prober, asked))
        await asyncio.sleep((next(numbers) % 40) / 1000)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await one()
    await prober.aclose()
    async with nothing_leaks():
        await repeat(RUNS, one, at_once=4)
        await prober.aclose()
    await server.no_sessions()


@pytest.mark.parametrize("sslmode", ["disable", "require"])
async def test_a_query_that_takes_too_long_is_cancelled_at_the_server(
    server: Postgres, prober: PostgresProber, sslmode: str
) -> None:
    """The server would go on with it, and keep the session, for as long as it takes."""
    query = "select pg_sleep(60)"
    asked = target("postgres", **keys(server, "query", query=query), sslmode=sslmode, timeout_seconds=1)
    watcher = await server.connect()
    count = f"select count(*) from pg_stat_activity where query = '{query}' and state = 'active'"

    async def running() -> bool:
        return int(await watcher.fetchval(count)) == 1

    try:
        asking = asyncio.create_task(run(prober, asked))
        await eventually_async(running, "the query to run")
        outcome = await asking
    finally:
        await watcher.close()
    assert verdict(outcome) == "request/timeout"
    assert outcome.phases[Phase.REQUEST] == max(outcome.phases.values())
    await prober.aclose()
    await server.no_sessions()
    assert "canceling statement due to user request" in server.log


async def test_a_run_that_goes_well_says_goodbye(server: Postgres, prober: PostgresProber) -> None:
    """Whoever reads the server's log finds nothing to worry about."""
    before = len(server.log)
    for mode in ("handshake", "login", "query"):
        for user in ("probe", "trusting"):
            for sslmode in ("disable", "require"):
                asked = target("postgres", **keys(server, mode, user), sslmode=sslmode)
                assert verdict(await run(prober, asked)) == "success"
    await prober.aclose()
    await server.no_sessions()
    said = [line for line in server.log[before:].splitlines() if " LOG:  connection " not in line]
    assert said == []


# --- a server that does not let go ---


def _stubborn(left: asyncio.Event) -> Server:
    """Lets everybody in, answers no query, and ignores every request to end one."""

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass
        left.set()

    return speaking(logged_in(), never)


async def test_the_end_of_a_session_does_not_prolong_its_run() -> None:
    """It happens in the background, within a grace of its own, and then the connection is aborted."""
    left = asyncio.Event()
    async with _stubborn(left) as server:
        prober = PostgresProber()
        asked = target(
            "postgres",
            dsn=f"postgresql://probe@{server.address}/app?sslmode=disable",
            mode="query",
            timeout_seconds=0.3,
        )
        async with nothing_leaks():
            outcome = await run(prober, asked)
            assert verdict(outcome) == "request/timeout"
            assert not left.is_set(), "the session ended before the run was over: this shows nothing"
            await prober.aclose()
            await left.wait()


async def test_a_cancel_request_goes_to_the_same_address_with_the_same_tls(certificates: Certificates) -> None:
    """A pooler that insists on TLS ignores one without."""
    requests: list[tuple[bool, bytes]] = []
    cancelled = asyncio.Event()

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await read_startup(reader) == SSL_REQUEST
        writer.write(b"S")
        await writer.drain()
        await writer.start_tls(certificates.good.server_context())
        request = await read_startup(reader)
        requests.append((writer.get_extra_info("ssl_object") is not None, request))
        if request.startswith(CANCEL_REQUEST):
            cancelled.set()
            return
        writer.write(logged_in())
        while await reader.read(65536):
            pass

    async with Server(conversation) as server:
        prober = PostgresProber()
        asked = target(
            "postgres",
            dsn=f"postgresql://probe@{server.address}/app?sslmode=verify-full",
            mode="query",
            tls={"ca_file": str(certificates.ca_file)},
            timeout_seconds=0.5,
        )
        notes = Recorder()
        outcome = await run(prober, asked, recorder=notes)
        await cancelled.wait()
        await prober.aclose()
    assert verdict(outcome) == "request/timeout"
    login, cancel = requests
    assert login[0]
    assert cancel[0]
    # CancelRequest: the process and its key, as the server gave them out.
    assert cancel[1] == CANCEL_REQUEST + (4711).to_bytes(4, "big") + (42).to_bytes(4, "big")
    assert list(notes.phases) == [Phase.CONNECT, Phase.TLS, Phase.LOGIN, Phase.REQUEST]
