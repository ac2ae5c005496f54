"""postgres against a real server: every way in, every way to be kept out, every mode."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.model import Fact, Phase
from agent.probers.postgres import PostgresProber
from agent.runner import run
from tests.lab.certificates import Certificates
from tests.lab.fake_postgres import ASK_SCRAM, error, message, speaking
from tests.lab.postgres import DATABASE, HBA, PASSWORD, Postgres, directory, eventually, eventually_async
from tests.lab.targets import probe, target, verdict
from tests.lab.zone import resolv_conf, zone

MODES = ("handshake", "login", "query")


def dsn(server: Postgres, user: str | None = "probe", parameters: str = "", database: str | None = DATABASE) -> str:
    who = f"{user}@" if user else ""
    where = f"/{database}" if database else ""
    return f"postgresql://{who}127.0.0.1:{server.port}{where}{parameters}"


def keys(server: Postgres, mode: str, user: str = "probe", parameters: str = "", **more: Any) -> dict[str, Any]:
    """The keys of a target, with the password where there is a login."""
    password = {} if mode == "handshake" else {"password": PASSWORD}
    return {"dsn": dsn(server, user, parameters), "mode": mode, **password, **more}


@pytest.fixture(scope="module")
def own(certificates: Certificates) -> Iterator[Postgres]:
    """A server for tests that change or stop it. They put it back as it was."""
    with directory() as home:
        server = Postgres.create(home, certificate=certificates.good, client_ca=certificates.ca_file)
        with server:
            yield server
            server.stop()


@pytest.fixture
async def prober() -> AsyncIterator[PostgresProber]:
    prober = PostgresProber()
    yield prober
    await prober.aclose()


# --- let in ---


@pytest.mark.parametrize(
    ("role", "asked"),
    [
        ("probe", "SCRAM-SHA-256-PLUS, SCRAM-SHA-256"),
        ("md5er", "md5"),
        ("plain", "password"),
        ("trusting", "none"),
        ("encrypted", "SCRAM-SHA-256-PLUS, SCRAM-SHA-256"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
async def test_every_way_in_is_found_open(postgres: Postgres, mode: str, role: str, asked: str) -> None:
    outcome = await probe("postgres", **keys(postgres, mode, role))
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.AUTHENTICATION] == asked
    assert outcome.facts[Fact.TLS_VERSION] == "TLSv1.3"


PHASES = {
    "handshake": [Phase.CONNECT, Phase.TLS, Phase.LOGIN],
    "login": [Phase.CONNECT, Phase.TLS, Phase.LOGIN],
    "query": [Phase.CONNECT, Phase.TLS, Phase.LOGIN, Phase.REQUEST],
}


@pytest.mark.parametrize("mode", MODES)
async def test_phases_that_were_reached_have_times_and_no_others(postgres: Postgres, mode: str) -> None:
    outcome = await probe("postgres", **keys(postgres, mode))
    assert list(outcome.phases) == PHASES[mode]
    assert sum(outcome.phases.values()) <= outcome.duration_seconds


@pytest.mark.parametrize("mode", MODES)
async def test_without_tls_there_is_no_tls_phase(postgres: Postgres, mode: str) -> None:
    outcome = await probe("postgres", **keys(postgres, mode, "unencrypted", "?sslmode=disable"))
    assert verdict(outcome) == "success"
    assert Phase.TLS not in outcome.phases
    assert Fact.TLS_VERSION not in outcome.facts


@pytest.mark.parametrize("mode", ["login", "query"])
async def test_a_login_tells_the_version_and_the_role_of_the_server(postgres: Postgres, mode: str) -> None:
    outcome = await probe("postgres", **keys(postgres, mode))
    assert outcome.facts[Fact.SERVER_VERSION] == postgres.psql("show server_version")
    assert outcome.facts[Fact.IN_RECOVERY] is False


async def test_a_handshake_needs_neither_user_nor_database(postgres: Postgres) -> None:
    outcome = await probe("postgres", dsn=dsn(postgres, user=None, database=None))
    assert verdict(outcome) == "success"
    assert outcome.target.address == f"127.0.0.1:{postgres.port}"


async def test_the_database_is_the_users_own_where_none_is_named(postgres: Postgres) -> None:
    outcome = await probe("postgres", dsn=dsn(postgres, database=None), mode="login", password=PASSWORD)
    assert verdict(outcome) == "login/database_not_found"
    assert '"probe"' in str(outcome.failure and outcome.failure.detail)


async def test_ipv6(postgres: Postgres) -> None:
    outcome = await probe(
        "postgres", dsn=f"postgresql://probe@[::1]:{postgres.port}/app", mode="query", password=PASSWORD
    )
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.ADDRESS] == f"[::1]:{postgres.port}"


async def test_every_address_of_a_name_is_asked(postgres: Postgres, tmp_path: Path) -> None:
    """One that works does not hide one that does not."""
    async with zone({"db.example.test.": ["127.0.0.1", "127.0.0.3"]}) as nameserver:
        outcome = await probe(
            "postgres",
            **(keys(postgres, "query") | {"dsn": f"postgresql://probe@db.example.test:{postgres.port}/app"}),
            addresses="all",
            family="4",
            resolv_conf=resolv_conf(tmp_path, nameserver),
        )
    assert verdict(outcome) == "connect/refused"
    assert {attempt["address"]: attempt["success"] for attempt in outcome.facts[Fact.ATTEMPTS]} == {
        f"127.0.0.1:{postgres.port}": True,
        f"127.0.0.3:{postgres.port}": False,
    }


# --- kept out ---


@pytest.mark.parametrize(
    ("mode", "role", "parameters", "expected"),
    [
        ("login", "limited", "", "login/too_many_connections 53300"),
        ("handshake", "rejected", "", "login/access_denied 28000"),
        ("login", "rejected", "", "login/access_denied 28000"),
        ("handshake", "nobody", "", "login/access_denied 28000"),
        ("handshake", "rejected", "?sslmode=disable", "login/tls_required 28000"),
        ("handshake", "encrypted", "?sslmode=disable", "login/tls_required 28000"),
        ("query", "encrypted", "?sslmode=disable", "login/tls_required 28000"),
        ("handshake", "unencrypted", "", "login/access_denied 28000"),
        ("handshake", "certified", "", "tls/client_certificate_required 28000"),
        ("login", "certified", "", "tls/client_certificate_required 28000"),
        ("login", "kerberised", "", "login/access_denied None"),
    ],
)
async def test_who_is_kept_out_learns_why(
    postgres: Postgres, mode: str, role: str, parameters: str, expected: str
) -> None:
    outcome = await probe("postgres", **keys(postgres, mode, role, parameters))
    assert f"{verdict(outcome)} {outcome.facts.get(Fact.SQLSTATE)}" == expected


@pytest.mark.parametrize("role", ["probe", "md5er", "plain"])
@pytest.mark.parametrize("secret", [{"password": "wrong"}, {}], ids=["wrong", "none"])
async def test_a_wrong_password_and_none_are_rejected(postgres: Postgres, role: str, secret: dict[str, Any]) -> None:
    outcome = await probe("postgres", dsn=dsn(postgres, role), mode="login", **secret)
    assert verdict(outcome) == "login/credentials_rejected"
    assert outcome.facts[Fact.SQLSTATE] == "28P01"


@pytest.mark.parametrize("mode", ["login", "query"])
async def test_a_database_that_does_not_exist(postgres: Postgres, mode: str) -> None:
    outcome = await probe("postgres", dsn=dsn(postgres, database="nowhere"), mode=mode, password=PASSWORD)
    assert verdict(outcome) == "login/database_not_found"
    assert outcome.facts[Fact.SQLSTATE] == "3D000"


async def test_a_server_that_has_no_slot_left(certificates: Certificates) -> None:
    """The real refusal comes before the demand for credentials: a handshake sees it as well."""
    with directory() as home:
        settings = ("max_connections=3", "superuser_reserved_connections=1", "max_wal_senders=0")
        with Postgres.create(home, settings=settings) as small:
            held = [await small.connect() for _ in range(3)]
            try:
                for mode in MODES:
                    outcome = await probe("postgres", **keys(small, mode))
                    assert verdict(outcome) == "login/too_many_connections", mode
                    assert outcome.facts[Fact.SQLSTATE] == "53300"
            finally:
                for connection in held:
                    await connection.close()


async def test_sslmode_allow_shows_the_connection_that_was_refused(postgres: Postgres) -> None:
    """Two connections are made, as libpq does, and the first is not hidden."""
    outcome = await probe("postgres", **keys(postgres, "query", "encrypted", "?sslmode=allow"))
    assert verdict(outcome) == "success"
    assert "no encryption" in outcome.facts[Fact.UNENCRYPTED_REFUSAL]
    assert outcome.facts[Fact.TLS_VERSION] == "TLSv1.3"


async def test_sslmode_allow_does_without_tls_where_the_server_does(postgres: Postgres) -> None:
    outcome = await probe("postgres", **keys(postgres, "login", "probe", "?sslmode=allow"))
    assert verdict(outcome) == "success"
    assert Phase.TLS not in outcome.phases
    assert Fact.UNENCRYPTED_REFUSAL not in outcome.facts


@pytest.mark.parametrize("mode", MODES)
async def test_one_run_is_one_connection(mode: str) -> None:
    """A refusal is not tried again, whatever libraries and libpq do: half-broken would look healthy."""
    refusal = error("28000", 'no pg_hba.conf entry for host "10.1.2.3", user "probe", database "app", no encryption')
    for parameters, connections in (("", 1), ("?sslmode=disable", 1), ("?sslmode=allow", 2)):
        async with speaking(refusal) as server:
            password: dict[str, Any] = {} if mode == "handshake" else {"password": PASSWORD}
            address = f"postgresql://probe@{server.address}/app{parameters}"
            outcome = await probe("postgres", dsn=address, mode=mode, **password)
            assert verdict(outcome).startswith("login/")
            assert server.connections == connections, parameters


async def test_a_wrong_password_is_offered_once_with_sslmode_allow() -> None:
    async with speaking(message("R", ASK_SCRAM), error("28P01", "password authentication failed")) as server:
        address = f"postgresql://probe@{server.address}/app?sslmode=allow"
        outcome = await probe("postgres", dsn=address, mode="login", password="wrong")
        assert verdict(outcome) == "login/credentials_rejected"
        assert server.connections == 1


# --- queries ---


@pytest.mark.parametrize(
    ("query", "expect"),
    [
        ("select 1", {"rows": 1, "value": 1}),
        ("select true", {"value": True}),
        ("select 'text'", {"value": "text"}),
        ("select 1.50::numeric", {"value": "1.50"}),
        ("select '\\xcafe'::bytea", {"value": "\\xcafe"}),
        ("select generate_series(1, 3)", {"rows": 3, "min_rows": 2, "value": 1}),
        ("select 1 where false", {"rows": 0}),
        ("show server_encoding", {"value": "UTF8"}),
        ("set statement_timeout = 1000", {"rows": 0}),
        ("select 'pg_class'::regclass", {"rows": 1}),
        ("copy (select 1) to stdout", None),
    ],
)
async def test_queries_that_answer_as_expected(postgres: Postgres, query: str, expect: dict[str, Any] | None) -> None:
    more: dict[str, Any] = {"expect": expect} if expect else {}
    outcome = await probe("postgres", **keys(postgres, "query", query=query, **more))
    assert verdict(outcome) == "success", outcome.failure


@pytest.mark.parametrize(
    ("query", "expect", "detail"),
    [
        ("select 2", {"value": 1}, "expected the value '1', got '2'"),
        ("select null", {"value": "x"}, "expected the value 'x', got null"),
        ("select 1 where false", {"value": 1}, "expected the value '1', got no row"),
        ("select", {"value": 1}, "expected the value '1', got no row"),
        ("select generate_series(1, 3)", {"rows": 2}, "expected 2 rows, got 3"),
        ("select 1", {"min_rows": 2}, "expected at least 2 rows, got 1"),
    ],
)
async def test_queries_that_answer_something_else(
    postgres: Postgres, query: str, expect: dict[str, Any], detail: str
) -> None:
    outcome = await probe("postgres", **keys(postgres, "query", query=query, expect=expect))
    assert verdict(outcome) == "verify/unexpected_answer"
    assert outcome.failure is not None
    assert outcome.failure.detail == detail
    assert Phase.VERIFY in outcome.phases


@pytest.mark.parametrize(
    ("query", "expected", "sqlstate"),
    [
        ("select * from nowhere", "verify/query_failed", "42P01"),
        ("selec", "verify/query_failed", "42601"),
        ("select 1; select 2", "verify/query_failed", "42601"),
        ("select 1/0", "verify/query_failed", "22012"),
        ("create table here (i int)", "verify/query_failed", "25006"),
        ("select pg_terminate_backend(pg_backend_pid())", "request/closed", "57P01"),
        ("select $1::int", "verify/query_failed", None),
        ("select repeat('x', 2 * 1024 * 1024)", "transfer/too_large", None),
        ("select repeat('x', 1024) from generate_series(1, 2048)", "transfer/too_large", None),
    ],
)
async def test_queries_that_fail(postgres: Postgres, query: str, expected: str, sqlstate: str | None) -> None:
    outcome = await probe("postgres", **keys(postgres, "query", query=query))
    assert verdict(outcome) == expected
    assert outcome.facts.get(Fact.SQLSTATE) == sqlstate


async def test_a_servers_own_statement_timeout_is_a_timeout_of_the_request(postgres: Postgres) -> None:
    postgres.psql("alter role md5er set statement_timeout = '50ms'")
    try:
        outcome = await probe("postgres", **keys(postgres, "query", "md5er", query="select pg_sleep(20)"))
    finally:
        postgres.psql("alter role md5er reset statement_timeout")
    assert verdict(outcome) == "request/timeout"
    assert outcome.facts[Fact.SQLSTATE] == "57014"


async def test_a_query_can_change_nothing(postgres: Postgres) -> None:
    """Not even one that is wrapped: the transaction is read-only, and is rolled back."""
    postgres.psql("create sequence if not exists counter")
    postgres.psql("grant all on sequence counter to probe")
    for query in ("select nextval('counter')", "select set_config('transaction_read_only', 'off', false)"):
        await probe("postgres", **keys(postgres, "query", query=query))
    assert postgres.psql("select is_called from counter") == "f"
    outcome = await probe("postgres", **keys(postgres, "query", query="show transaction_read_only"))
    assert verdict(outcome) == "success"


async def test_a_session_that_is_ended_by_an_administrator(postgres: Postgres) -> None:
    running = asyncio.create_task(
        probe("postgres", **keys(postgres, "query", "md5er", query="select pg_sleep(30)"), timeout_seconds=30)
    )
    end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'md5er' and query like '%pg_sleep%'"
    administrator = await postgres.connect()
    try:

        async def ended() -> bool:
            return bool(await administrator.fetch(end))

        await eventually_async(ended, "the query to run")
    finally:
        await administrator.close()
    outcome = await running
    assert verdict(outcome) == "request/closed"
    assert outcome.facts[Fact.SQLSTATE] == "57P01"
    assert "administrator" in str(outcome.failure and outcome.failure.detail)


# --- nothing is remembered ---


@pytest.mark.parametrize("mode", MODES)
async def test_a_server_that_dies_and_returns_is_seen_by_the_next_run(
    own: Postgres, prober: PostgresProber, mode: str
) -> None:
    asked = target("postgres", **keys(own, mode))
    assert verdict(await run(prober, asked)) == "success"
    own.stop()
    assert verdict(await run(prober, asked)) == "connect/refused"
    own.start()
    own.wait_until_ready()
    assert verdict(await run(prober, asked)) == "success"


async def test_a_password_that_changes_is_seen_by_the_next_run(
    own: Postgres, prober: PostgresProber, tmp_path: Path
) -> None:
    """On either side: the file is read at every run."""
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    asked = target("postgres", dsn=dsn(own), mode="login", password_file=str(file))
    assert verdict(await run(prober, asked)) == "success"
    own.psql("alter role probe password 'another'")
    try:
        assert verdict(await run(prober, asked)) == "login/credentials_rejected"
        file.write_text("another")
        assert verdict(await run(prober, asked)) == "success"
    finally:
        own.psql(f"alter role probe password '{PASSWORD}'")


async def test_a_password_file_that_is_gone_is_no_defect_of_ours(
    postgres: Postgres, prober: PostgresProber, tmp_path: Path
) -> None:
    asked = target("postgres", dsn=dsn(postgres), mode="login", password_file=str(tmp_path / "missing"))
    outcome = await run(prober, asked)
    assert verdict(outcome) == "login/credentials_rejected"
    assert "missing" in str(outcome.failure and outcome.failure.detail)


async def test_a_certificate_that_is_replaced_is_seen_by_the_next_run(
    own: Postgres, prober: PostgresProber, certificates: Certificates
) -> None:
    tls = {"ca_file": str(certificates.ca_file)}
    asked = target("postgres", dsn=dsn(own, parameters="?sslmode=verify-full"), tls=tls)
    first = await run(prober, asked)
    assert first.facts[Fact.CERTIFICATE_EXPIRES_AT] == certificates.good.expires_at
    own.install(certificates.expired)
    own.reload()
    try:
        second = await run(prober, asked)
    finally:
        own.install(certificates.good)
        own.reload()
    assert verdict(second) == "tls/certificate_expired"
    assert second.facts[Fact.CERTIFICATE_EXPIRES_AT] == certificates.expired.expires_at
    assert verdict(await run(prober, asked)) == "success"


async def test_a_rule_that_changes_is_seen_by_the_next_run(own: Postgres, prober: PostgresProber) -> None:
    asked = target("postgres", **keys(own, "handshake"))
    assert verdict(await run(prober, asked)) == "success"
    own.hba("hostnossl all all 127.0.0.1/32 scram-sha-256")
    try:
        assert verdict(await run(prober, asked)) == "login/access_denied"
    finally:
        own.hba(*HBA[1:])


# --- standbys and servers that are not there yet ---


async def test_a_standby_is_in_recovery(own: Postgres) -> None:
    with directory() as home, own.standby(home) as standby:
        for mode in ("login", "query"):
            outcome = await probe("postgres", **keys(standby, mode))
            assert verdict(outcome) == "success"
            assert outcome.facts[Fact.IN_RECOVERY] is True


async def test_a_server_that_takes_no_sessions_yet_is_starting(own: Postgres) -> None:
    """A standby without hot standby stays for ever where every server is for a moment."""
    with directory() as home:
        standby = own.standby(home, settings=("hot_standby=off",))
        standby.start()
        try:
            eventually(lambda: "consistent recovery state reached" in standby.log, "the standby to recover")
            for mode in MODES:
                outcome = await probe("postgres", **keys(standby, mode))
                assert verdict(outcome) == "login/server_starting"
                assert outcome.facts[Fact.SQLSTATE] == "57P03"
        finally:
            standby.stop()


# --- what must not be reachable ---


@pytest.mark.parametrize(
    ("role", "more"),
    [
        ("probe", {}),
        ("rejected", {}),
        ("nobody", {}),
        ("certified", {}),
        ("encrypted", {"sslmode": "disable"}),
        ("probe", {"mode": "login", "password": "wrong"}),
        ("md5er", {"mode": "query", "password": PASSWORD, "query": "select pg_sleep(30)", "timeout_seconds": 0.5}),
        ("probe", {"mode": "query", "password": PASSWORD, "query": "select pg_terminate_backend(pg_backend_pid())"}),
    ],
)
async def test_any_answer_shows_that_a_database_can_be_reached(
    postgres: Postgres, role: str, more: dict[str, Any]
) -> None:
    """Workers of Airflow 3 must not reach the metadata database, with whatever credentials."""
    outcome = await probe("postgres", dsn=dsn(postgres, role), negative=True, **more)
    assert verdict(outcome) == "verify/unexpected_success"


async def test_a_database_that_cannot_be_reached_is_what_a_negative_target_wants(own: Postgres) -> None:
    own.stop()
    try:
        outcome = await probe("postgres", dsn=dsn(own), negative=True)
    finally:
        own.start()
        own.wait_until_ready()
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.BLOCKED_BY] == "connect/refused"


# --- the surroundings of the process ---


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres: Postgres) -> None:
    """Everything libpq and asyncpg would look at, all of it wrong, but for the password: that one is right."""
    service = tmp_path / "pg_service.conf"
    service.write_text("[other]\nhost=127.0.0.9\nport=1\nuser=nobody\n")
    passwords = tmp_path / ".pgpass"
    passwords.write_text(f"*:*:*:*:{PASSWORD}\n")
    passwords.chmod(0o600)
    (tmp_path / ".postgresql").mkdir()
    for name in ("root.crt", "root.crl", "postgresql.crt", "postgresql.key"):
        (tmp_path / ".postgresql" / name).write_text("not a certificate")
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": str(tmp_path),
        "PGHOST": "127.0.0.9",
        "PGPORT": "1",
        "PGUSER": "nobody",
        "PGDATABASE": "nowhere",
        "PGPASSWORD": PASSWORD,
        "PGPASSFILE": str(passwords),
        "PGSERVICE": "other",
        "PGSERVICEFILE": str(service),
        "PGOPTIONS": "-c search_path=nowhere",
        "PGAPPNAME": "somebody else",
        "PGSSLMODE": "verify-full",
        "PGSSLNEGOTIATION": "direct",
        "PGSSLROOTCERT": "/nowhere",
        "PGSSLCERT": "/nowhere",
        "PGSSLKEY": "/nowhere",
        "PGSSLCRL": "/nowhere",
        "PGSSLMINPROTOCOLVERSION": "nonsense",
        "PGTARGETSESSIONATTRS": "standby",
        "PGKRBSRVNAME": "nonsense",
        "PGGSSLIB": "nonsense",
        "PGCLIENTENCODING": "nonsense",
        "PGTZ": "nonsense",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("mode", MODES)
async def test_the_environment_of_the_process_changes_nothing(postgres: Postgres, mode: str) -> None:
    query = "select current_setting('application_name') || current_setting('search_path')"
    expectation: dict[str, Any] = (
        {"query": query, "expect": {"value": 'netprobe"$user", public'}} if mode == "query" else {}
    )
    outcome = await probe("postgres", **keys(postgres, mode, **expectation))
    assert verdict(outcome) == "success", outcome.failure
    outcome = await probe("postgres", **keys(postgres, mode, "unencrypted", "?sslmode=disable"))
    assert verdict(outcome) == "success", outcome.failure


@pytest.mark.usefixtures("hostile")
async def test_a_password_of_somebody_elses_is_never_used(postgres: Postgres) -> None:
    """Neither PGPASSWORD nor ~/.pgpass, though both are right: a target has its own secrets or none."""
    outcome = await probe("postgres", dsn=dsn(postgres), mode="login")
    assert verdict(outcome) == "login/credentials_rejected"


async def test_the_name_of_the_application_is_what_the_dsn_says(postgres: Postgres) -> None:
    outcome = await probe(
        "postgres",
        **keys(postgres, "query", "probe", "?application_name=orders", query="show application_name"),
        expect={"value": "orders"},
    )
    assert verdict(outcome) == "success"


async def test_no_thread_is_started(postgres: Postgres) -> None:
    """Names are not asyncpg's to resolve: getaddrinfo in a thread cannot be cancelled."""
    before = threading.active_count()
    assert verdict(await probe("postgres", **keys(postgres, "query"))) == "success"
    assert threading.active_count() == before


# --- secrets ---


@pytest.mark.parametrize("role", ["probe", "plain"])
async def test_no_outcome_shows_a_password(postgres: Postgres, role: str) -> None:
    """Not even where the server says it back."""
    encoded = PASSWORD.replace(" ", "%20")
    outcome = await probe(
        "postgres", dsn=dsn(postgres, f"{role}:{encoded}"), mode="query", query=f'select "{PASSWORD}"'
    )
    assert verdict(outcome) == "verify/query_failed"
    assert 'column "***" does not exist' in str(outcome.failure and outcome.failure.detail)
    outcome = await probe("postgres", dsn=dsn(postgres, f"{role}:s3cret%2Fwrong"), mode="login")
    assert verdict(outcome) == "login/credentials_rejected"
    for text in (str(outcome.as_dict()), str(outcome.target), repr(outcome.target.options), outcome.target.address):
        assert "s3cret" not in text
