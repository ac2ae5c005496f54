"""postgres through pgbouncer: every mode, both ways to pool, with TLS and without; and what pgbouncer refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import asyncpg
import pytest

from agent.model import Fact
from agent.probers.postgres import PostgresProber
from agent.runner import run
from tests.lab.certificates import Certificates
from tests.lab.leaks import repeat
from tests.lab.misbehaving import refusing_port
from tests.lab.postgres import DATABASE, PASSWORD, PgBouncer, Postgres, directory, eventually_async
from tests.lab.targets import probe, target, verdict

MODES = ("handshake", "login", "query")
SLEEPING = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'"

Start = Callable[..., PgBouncer]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Postgres]:
    with directory() as home, Postgres.create(home) as server:
        yield server


@pytest.fixture
def start(upstream: Postgres) -> Iterator[Start]:
    """Starts a pgbouncer in front of `upstream`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(PgBouncer(stack.enter_context(directory()), upstream, **options))


@pytest.fixture(scope="module", params=["transaction", "session", "session with TLS", "transaction with TLS"])
def pooler(request: pytest.FixtureRequest, upstream: Postgres, certificates: Certificates) -> Iterator[PgBouncer]:
    pool_mode, _, tls = request.param.partition(" with ")
    with (
        directory() as home,
        PgBouncer(home, upstream, pool_mode=pool_mode, certificate=certificates.good if tls else None) as pooler,
    ):
        yield pooler


@pytest.fixture(scope="module")
def plain(upstream: Postgres) -> Iterator[PgBouncer]:
    """One without TLS that pools transactions, with databases that are not there."""
    databases = (f"gone = host=127.0.0.1 port={upstream.port} dbname=gone",)
    with directory() as home, PgBouncer(home, upstream, databases=databases) as pooler:
        yield pooler


def keys(pooler: PgBouncer, mode: str, user: str = "probe", database: str = DATABASE, **more: Any) -> dict[str, Any]:
    password = {} if mode == "handshake" else {"password": PASSWORD}
    return {"dsn": f"postgresql://{user}@127.0.0.1:{pooler.port}/{database}", "mode": mode, **password, **more}


@pytest.mark.parametrize("mode", MODES)
async def test_every_mode_works_through_a_pooler(pooler: PgBouncer, upstream: Postgres, mode: str) -> None:
    outcome = await probe("postgres", **keys(pooler, mode))
    assert verdict(outcome) == "success", outcome.failure
    if mode == "query":
        # A pooler says which version is behind it, but not whether that is in recovery: it is asked.
        assert outcome.facts[Fact.IN_RECOVERY] is False
        assert outcome.facts[Fact.SERVER_VERSION] == upstream.psql("show server_version")


async def test_a_pooler_keeps_its_server_connections(pooler: PgBouncer) -> None:
    """A transaction that is left open, or a session that is left unclean, would cost it one at every run."""
    prober = PostgresProber()
    asked = target("postgres", **keys(pooler, "query"), timeout_seconds=30)

    async def one() -> None:
        assert verdict(await run(prober, asked)) == "success"

    await one()
    before = pooler.log.count("new connection to server")
    await repeat(40, one, at_once=1)
    await prober.aclose()
    assert pooler.log.count("new connection to server") - before <= 1


async def test_a_query_that_fails_costs_a_pooler_no_connection(plain: PgBouncer) -> None:
    prober = PostgresProber()
    asked = target("postgres", **keys(plain, "query", query="select 1/0"))
    assert verdict(await run(prober, asked)) == "verify/query_failed"
    await prober.aclose()
    before = plain.log.count("new connection to server")
    for _ in range(10):
        assert verdict(await run(prober, asked)) == "verify/query_failed"
        await prober.aclose()
    assert plain.log.count("new connection to server") == before


async def test_a_query_that_takes_too_long_is_cancelled_behind_the_pooler(
    pooler: PgBouncer, upstream: Postgres
) -> None:
    watcher = await upstream.connect()

    async def running() -> bool:
        return int(await watcher.fetchval(SLEEPING)) == 1

    async def over() -> bool:
        return int(await watcher.fetchval(SLEEPING)) == 0

    try:
        asking = asyncio.create_task(
            probe("postgres", **keys(pooler, "query", query="select pg_sleep(60)"), timeout_seconds=1)
        )
        await eventually_async(running, "the query to run")
        assert verdict(await asking) == "request/timeout"
        await eventually_async(over, "the query to be cancelled", seconds=10)
    finally:
        await watcher.close()


@pytest.mark.parametrize(
    ("user", "database", "password", "expected"),
    [
        ("probe", DATABASE, "wrong", "login/credentials_rejected"),
        ("nobody", DATABASE, PASSWORD, "login/credentials_rejected"),
        ("probe", "nowhere", PASSWORD, "login/database_not_found"),
        ("probe", "gone", PASSWORD, "login/database_not_found"),
        ("rejected", DATABASE, PASSWORD, "login/access_denied"),
    ],
)
async def test_what_a_pooler_says_in_words(
    plain: PgBouncer, user: str, database: str, password: str, expected: str
) -> None:
    address = f"postgresql://{user}@127.0.0.1:{plain.port}/{database}"
    outcome = await probe("postgres", dsn=address, mode="login", password=password)
    assert verdict(outcome) == expected
    assert Fact.SQLSTATE in outcome.facts  # of 1.18, 08P01 for everything


@pytest.mark.parametrize("mode", MODES)
async def test_a_pooler_that_insists_on_tls(start: Start, certificates: Certificates, mode: str) -> None:
    pooler = start(certificate=certificates.good)
    outcome = await probe("postgres", **keys(pooler, mode), sslmode="disable")
    assert verdict(outcome) == "login/tls_required"


@pytest.mark.parametrize("mode", MODES)
async def test_a_pooler_without_tls(plain: PgBouncer, mode: str) -> None:
    assert verdict(await probe("postgres", **keys(plain, mode), sslmode="require")) == "login/tls_unsupported"


@pytest.mark.parametrize("mode", MODES)
async def test_a_pooler_that_has_no_room(start: Start, mode: str) -> None:
    pooler = start(settings=("max_client_conn = 1",))
    held = await asyncpg.connect(
        host="127.0.0.1", port=pooler.port, user="probe", password=PASSWORD, database=DATABASE, ssl=False
    )
    try:
        outcome = await probe("postgres", **keys(pooler, mode), sslmode="disable")
    finally:
        await held.close()
    assert verdict(outcome) == "login/too_many_connections"


async def test_a_pooler_whose_server_is_down(start: Start) -> None:
    """The pooler answers, and lets nobody in: `server_starting`, cannot serve now."""
    pooler = start(
        settings=("client_login_timeout = 1",),
        databases=(f"dead = host=127.0.0.1 port={refusing_port()} dbname=app",),
    )
    for mode in ("login", "query"):
        outcome = await probe("postgres", **keys(pooler, mode, database="dead"), timeout_seconds=20)
        assert verdict(outcome) == "login/server_starting", outcome.failure


async def test_a_pooler_that_has_no_server_connection_to_give(start: Start) -> None:
    pooler = start(settings=("query_wait_timeout = 1", "default_pool_size = 1"))
    # The first in line has the only one.
    held = await asyncpg.connect(
        host="127.0.0.1", port=pooler.port, user="probe", password=PASSWORD, database=DATABASE, ssl=False
    )
    try:
        async with held.transaction():
            await held.execute("select 1")
            outcome = await probe("postgres", **keys(pooler, "query"), timeout_seconds=20)
    finally:
        await held.close()
    assert verdict(outcome) == "request/timeout"
    assert "query_wait_timeout" in str(outcome.failure and outcome.failure.detail)


async def test_a_pooler_ends_a_query_that_is_too_slow_for_it(start: Start) -> None:
    pooler = start(settings=("query_timeout = 1",))
    outcome = await probe("postgres", **keys(pooler, "query", query="select pg_sleep(20)"), timeout_seconds=20)
    assert verdict(outcome) == "request/timeout"


async def test_a_server_that_dies_behind_a_pooler_is_seen_by_the_next_run(certificates: Certificates) -> None:
    with directory() as home, directory() as other, Postgres.create(home) as server:
        settings = ("client_login_timeout = 1", "query_wait_timeout = 1")
        with PgBouncer(other, server, settings=settings) as pooler:
            prober = PostgresProber()
            asked = target("postgres", **keys(pooler, "query"), timeout_seconds=20)
            assert verdict(await run(prober, asked)) == "success"
            server.stop()
            # The pooler lets clients in by what it remembers of the server, and has nothing to give them.
            assert verdict(await run(prober, asked)) in {"request/timeout", "request/closed"}
            await prober.aclose()


async def test_the_console_of_a_pooler_can_be_logged_in_to(plain: PgBouncer) -> None:
    """It has no transactions, so that its commands cannot be mode query."""
    outcome = await probe("postgres", **keys(plain, "login", database="pgbouncer"))
    assert verdict(outcome) == "success"
    assert str(outcome.facts[Fact.SERVER_VERSION]).endswith("/bouncer")
    outcome = await probe("postgres", **keys(plain, "query", database="pgbouncer"))
    assert verdict(outcome) == "verify/query_failed"
