"""postgres: TCP, TLS by SSLRequest, the server's demand for credentials; or a login; or a query."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

import asyncpg

from agent.failures.postgres import error_of_server
from agent.model import Fact, Phase, Reason, Target
from agent.net.postgres_session import Farewells, Route, Session, asyncpg_errors, greet, log_in
from agent.net.postgres_wire import startup_message
from agent.net.resolve import Address, resolve_endpoint
from agent.net.tls import Contexts
from agent.prober import ProbeFailure, Recorder, excerpt, shorten
from agent.probers.postgres_options import (
    DEFAULT_USER,
    Mode,
    PostgresExpectation,
    PostgresOptions,
    SslMode,
    Verification,
)
from agent.runner import each

_TLS_REQUIRED = frozenset({SslMode.REQUIRE, SslMode.VERIFY_CA, SslMode.VERIFY_FULL})
_OLDEST_WITH_RECOVERY = 9
"""The first major version that can be asked whether it is in recovery. Servers that only speak the protocol call
themselves older (Redshift is 8.0) or understand the question."""


class PostgresProber:
    """Asks one server, on a connection of its own, and leaves nothing behind."""

    def __init__(self) -> None:
        self._contexts = {verification: Contexts() for verification in Verification}
        self._farewells = Farewells()

    def prepare(self, target: Target[PostgresOptions]) -> None:
        if target.options.effective_sslmode is not SslMode.DISABLE:
            self._context(target.options)

    async def probe(self, target: Target[PostgresOptions], recorder: Recorder) -> None:
        options = target.options
        addresses = await resolve_endpoint(options.dsn.endpoint, options, recorder, addresses=options.addresses)

        async def attempt(address: Address, notes: Recorder) -> None:
            with _noting_sqlstate(notes):
                await self._attempt(options, address, notes)

        await each(addresses, target, recorder, attempt)

    async def aclose(self) -> None:
        """Wait until the sessions that are being ended have ended: a few seconds at most."""
        await self._farewells.aclose()

    async def _attempt(self, options: PostgresOptions, address: Address, notes: Recorder) -> None:
        mode = options.effective_sslmode
        unencrypted = Route(address=address, context=None, required=False, server_name=options.dsn.endpoint.host)
        if mode is SslMode.DISABLE:
            await self._ask(options, unencrypted, notes)
            return
        encrypted = Route(
            address=address,
            context=self._context(options),
            required=mode in _TLS_REQUIRED,
            server_name=options.tls_options.server_name or options.dsn.endpoint.host,
        )
        if mode is SslMode.ALLOW:
            try:
                await self._ask(options, unencrypted, notes)
            except asyncpg.InvalidAuthorizationSpecificationError as refusal:
                if isinstance(refusal, asyncpg.InvalidPasswordError) or notes.current is not Phase.LOGIN:
                    raise
                notes.facts[Fact.UNENCRYPTED_REFUSAL] = shorten(str(refusal))
            else:
                return
        await self._ask(options, encrypted, notes)

    def _context(self, options: PostgresOptions) -> ssl.SSLContext:
        # Targets share contexts whose TLS options are equal, but not those that verify another part of it.
        context = self._contexts[options.verification].get(options.tls_options)
        context.check_hostname = options.verification is Verification.CHAIN_AND_NAME
        return context

    async def _ask(self, options: PostgresOptions, route: Route, notes: Recorder) -> None:
        dsn = options.dsn
        user = dsn.user or DEFAULT_USER
        database = dsn.database or user
        if options.mode is Mode.HANDSHAKE:
            startup = startup_message(user=user, database=database, application_name=dsn.application_name)
            await greet(await route.open(notes), startup, notes, self._farewells)
            return
        session = await log_in(
            await route.open(notes),
            route,
            notes,
            self._farewells,
            user=user,
            password=lambda: _password(options),
            database=database,
            application_name=dsn.application_name,
        )
        try:
            if options.mode is Mode.QUERY:
                rows = await _query(session, options.query, notes)
                if options.expect is not None:
                    with notes.phase(Phase.VERIFY):
                        _verify(rows, options.expect)
        finally:
            session.leave()


def _password(options: PostgresOptions) -> str:
    try:
        return options.reveal_password()
    except (OSError, UnicodeDecodeError) as error:
        raise ProbeFailure(Reason.CREDENTIALS_REJECTED, f"expected a password that can be read, got: {error}") from None


async def _query(session: Session, query: str, notes: Recorder) -> list[Any]:
    connection = session.connection
    with notes.phase(Phase.REQUEST), asyncpg_errors():
        # A pooler in transaction mode keeps one server for all of it, and nothing it does can last.
        await connection.transaction(readonly=True).start()
        rows: list[Any] = await connection.fetch(query)
        if Fact.IN_RECOVERY not in notes.facts and connection.get_server_version().major >= _OLDEST_WITH_RECOVERY:
            # Older than 14, or behind a pooler: it did not say so at the login.
            notes.facts[Fact.IN_RECOVERY] = await connection.fetchval("select pg_catalog.pg_is_in_recovery()")
        return rows


def _verify(rows: list[Any], expect: PostgresExpectation) -> None:
    if expect.rows is not None and len(rows) != expect.rows:
        raise _unexpected(f"expected {expect.rows} rows, got {len(rows)}")
    if expect.min_rows is not None and len(rows) < expect.min_rows:
        raise _unexpected(f"expected at least {expect.min_rows} rows, got {len(rows)}")
    if expect.value is None:
        return
    if not rows or not rows[0]:
        raise _unexpected(f"expected the value {expect.value!r}, got no row")
    seen = _as_text(rows[0][0])
    if seen != expect.value:
        raise _unexpected(f"expected the value {expect.value!r}, got {'null' if seen is None else excerpt(seen)}")


def _unexpected(detail: str) -> ProbeFailure:
    return ProbeFailure(Reason.UNEXPECTED_ANSWER, detail)


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return str(value)


@contextlib.contextmanager
def _noting_sqlstate(notes: Recorder) -> Iterator[None]:
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        said = error_of_server(error)
        if said is not None:
            notes.facts[Fact.SQLSTATE] = shorten(said.sqlstate or "")
        raise
