"""Postgres on our own connection: TLS by SSLRequest, the first word of a server, and asyncpg's login and queries.

asyncpg never dials by itself, reads no environment and no file, and makes no second attempt: it is handed a loop whose
`create_connection` gives out the connection that is already there. Only its cancel request gets another, to the same
address with the same TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
from asyncpg.pgproto.pgproto import BufferError as UnreadableError

from agent.model import Fact, Phase, Reason
from agent.net import postgres_wire as wire
from agent.net.connect import Stream, connect
from agent.net.resolve import Address
from agent.net.tls import start_tls
from agent.prober import ProbeFailure, Recorder, excerpt, shorten

ANSWER_LIMIT_BYTES = 1 << 20
"""How much of a server's answers one run reads."""
GRACE_SECONDS = 2.0
"""How long a session that is over may take to end in order, in the background."""


@dataclass(frozen=True, slots=True)
class Route:
    """The way to a server: one address, and the TLS to ask for."""

    address: Address
    context: ssl.SSLContext | None
    """None: TLS is not asked for."""
    required: bool
    """The server may not decline TLS."""
    server_name: str

    async def open(self, notes: Recorder) -> Stream:
        """Connect and agree on TLS. Raises OSError, ssl.SSLError, EOFError, ProbeFailure, asyncpg.PostgresError."""
        stream = await connect(self.address, notes)
        try:
            if self.context is not None:
                await self._encrypt(stream, self.context, notes)
        except BaseException:
            stream.abort()
            raise
        return stream

    async def _encrypt(self, stream: Stream, context: ssl.SSLContext, notes: Recorder) -> None:
        with notes.phase(Phase.LOGIN):
            stream.writer.write(wire.SSL_REQUEST)
            answer = await stream.read(wire.LOGIN_MESSAGE_LIMIT_BYTES)
            if not answer:
                raise EOFError
            if answer in {b"S", b"N"}:
                notes.facts[Fact.TLS_DECLINED] = answer == b"N"
            if answer == b"N":
                if self.required:
                    detail = f"expected {self.address} to offer TLS, got: it does not"
                    raise ProbeFailure(Reason.TLS_UNSUPPORTED, detail)
                return
            if answer.startswith(b"E"):
                await _raise_error(answer, stream)
            if answer != b"S":
                # Among them: more bytes than the one of the answer, which somebody in between may have put there for
                # the client to take as encrypted (CVE-2021-23222).
                raise wire.not_postgres(answer)
        await start_tls(stream, context, self.server_name, notes)


async def _raise_error(data: bytes, stream: Stream) -> None:
    """Read an error that is the answer to SSLRequest to its end, and raise it."""
    messages = wire.Messages()
    while data:
        for message in messages.feed(data):
            raise wire.server_error(message.body)
        data = await stream.read(wire.LOGIN_MESSAGE_LIMIT_BYTES)
    raise EOFError


class _Greeting(asyncio.Protocol):
    """Waits for the first thing a server says to a StartupMessage, and then for the end of the connection."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[wire.Message] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._messages = wire.Messages()

    def data_received(self, data: bytes) -> None:
        if self.answer.done():
            return
        try:
            for message in self._messages.feed(data):
                if message.kind in {b"R", b"E"}:
                    self.answer.set_result(message)
                    return
        except ProbeFailure as failure:
            self.answer.set_exception(failure)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or EOFError())
        if not self.lost.done():
            self.lost.set_result(None)


async def greet(stream: Stream, startup: bytes, notes: Recorder, farewells: Farewells) -> None:
    """Send a StartupMessage and wait until the server asks for credentials, or lets us in without.

    Takes the stream over. Raises OSError, EOFError, ProbeFailure, asyncpg.PostgresError.
    """
    greeting = _Greeting()
    transport = stream.writer.transport
    try:
        # Whatever the stream's own reader holds came before TLS and is not looked at.
        transport.set_protocol(greeting)
        with notes.phase(Phase.LOGIN):
            transport.write(startup)
            code, name = wire.demand(await greeting.answer)
            notes.facts[Fact.AUTHENTICATION] = shorten(name)
    except BaseException:
        stream.abort()
        raise
    if code == wire.AUTHENTICATION_OK:
        # The server makes a session for us whether we want it or not.
        farewells.say(_take_leave(stream, greeting))
    else:
        # The server takes the end of the stream for a client that has no password, and says nothing about it.
        transport.close()
        stream.abort()


async def _take_leave(stream: Stream, greeting: _Greeting) -> None:
    try:
        stream.writer.transport.write(wire.TERMINATE)
        async with asyncio.timeout(GRACE_SECONDS):
            await greeting.lost
    finally:
        stream.abort()


_VERSION = re.compile(r"[^0-9]*[0-9]{1,9}(?:\.[0-9]{1,9})*(?!\.?[0-9])")
"""What asyncpg relies on to read a version in, which takes the first number wherever it stands, but none that is too
long for an int."""


class _Reader(asyncio.Protocol):
    """Stands between the connection and asyncpg: reads along while the login lasts, and counts."""

    def __init__(self, inner: asyncio.Protocol, notes: Recorder) -> None:
        self._inner = inner
        self._notes = notes
        self._messages = wire.Messages(ANSWER_LIMIT_BYTES)
        self._parameters: dict[str, str] = {}
        self._received = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a TCP connection has
        self._transport = transport
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        try:
            self._look_at(data)
            with asyncpg_errors():
                self._inner.data_received(data)
        except ProbeFailure as failure:
            transport, self._transport = self._transport, None
            transport.abort()
            self._inner.connection_lost(failure)

    def _look_at(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > ANSWER_LIMIT_BYTES:
            raise wire.too_large(ANSWER_LIMIT_BYTES)
        for message in self._messages.feed(data):
            if message.kind == b"R":
                self._on_authentication(message.body)
            elif message.kind == b"S":
                name, value = wire.parameter(message.body)
                self._parameters[name] = value
            elif message.kind == b"E":
                wire.server_error(message.body)  # asyncpg waits for ever after one that it cannot read
            elif message.kind == b"Z":
                self._on_login()

    def _on_login(self) -> None:
        version = self._parameters.get("server_version", "")
        if _VERSION.match(version) is None:
            detail = f"expected the server to tell a version such as 15.4, got {excerpt(version)}"
            raise ProbeFailure(Reason.PROTOCOL_ERROR, detail)
        self._notes.facts[Fact.SERVER_VERSION] = shorten(version)
        if "in_hot_standby" in self._parameters:
            self._notes.facts[Fact.IN_RECOVERY] = self._parameters["in_hot_standby"] == "on"

    def _on_authentication(self, body: bytes) -> None:
        code, name = wire.authentication(body)
        if code == wire.AUTHENTICATION_OK:
            self._notes.facts.setdefault(Fact.AUTHENTICATION, name)
        elif wire.asks(code):
            self._notes.facts[Fact.AUTHENTICATION] = shorten(name)
            if wire.needs_more_than_a_password(name):
                detail = f"expected the server to accept a password, got: it asks for {name}"
                raise ProbeFailure(Reason.ACCESS_DENIED, detail)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


class _Loop:
    """The running loop as asyncpg sees it: a new connection is the one that is there, or the next along its route."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: Stream, route: Route, notes: Recorder) -> None:
        self._loop = loop
        self._unused: Stream | None = stream
        self._route = route
        self._notes = notes
        self.streams = [stream]

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], *_address: Any
    ) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        protocol = factory()
        if self._unused is not None:
            stream, self._unused = self._unused, None
            attached: asyncio.Protocol = _Reader(protocol, self._notes)
        else:
            # For a cancel request, which has times and facts of no interest.
            stream, attached = await self._route.open(Recorder()), protocol
            self.streams.append(stream)
        transport = stream.writer.transport
        transport.set_protocol(attached)
        attached.connection_made(transport)
        return transport, protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Session:
    """A login at a server. Leaving it never waits: what is left to say is said in the background."""

    def __init__(self, connection: Any, loop: _Loop, farewells: Farewells) -> None:
        self.connection = connection
        """asyncpg.Connection."""
        self._loop = loop
        self._farewells = farewells

    def leave(self) -> None:
        """End the session: cancel what the server still does for it, roll back, terminate, close."""
        self._farewells.say(self._leave())

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                if not self.connection.is_closed():
                    # asyncpg sends the cancel request of a query that was left, and waits for its end, on its own.
                    # A pooler keeps a server connection only if no transaction is open on it.
                    if self.connection.is_in_transaction():
                        await self.connection.execute("rollback")
                    await self.connection.close()
        finally:
            self.connection.terminate()
            _abort(self._loop)


def _abort(loop: _Loop) -> None:
    for stream in loop.streams:
        stream.abort()


async def log_in(
    stream: Stream,
    route: Route,
    notes: Recorder,
    farewells: Farewells,
    *,
    user: str,
    password: Callable[[], str],
    database: str,
    application_name: str,
) -> Session:
    """Log in on a connection, which is taken over. The password is asked for at once; an empty one stands for none.

    Raises what `password` raises, and OSError, ProbeFailure, asyncpg.PostgresError, asyncpg.InterfaceError,
    asyncpg.InternalClientError.
    """
    loop = _Loop(asyncio.get_running_loop(), stream, route, notes)
    try:
        with notes.phase(Phase.LOGIN), asyncpg_errors():
            # What is not given here asyncpg would look for in PG* variables, ~/.pgpass and ~/.postgresql.
            connection = await asyncpg.connect(
                loop=loop,
                host=route.address.ip,
                port=route.address.port,
                user=user,
                password=password(),
                database=database,
                timeout=None,
                command_timeout=None,
                statement_cache_size=0,
                ssl=False,
                direct_tls=False,
                server_settings={"application_name": application_name},
                target_session_attrs="any",
                krbsrvname="postgres",
                gsslib="gssapi",
            )
    except BaseException:
        _abort(loop)
        raise
    return Session(connection, loop, farewells)


_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    LookupError,
    TypeError,
    UnreadableError,
    ValueError,
)


@contextlib.contextmanager
def asyncpg_errors() -> Iterator[None]:
    """Tell apart what asyncpg raises on purpose and what its parsers raise over bytes they cannot read."""
    try:
        yield
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        raise
    except _UNREADABLE as error:
        detail = f"expected the Postgres protocol, got what asyncpg cannot read: {type(error).__name__}: {error}"
        raise ProbeFailure(Reason.PROTOCOL_ERROR, detail) from error


class Farewells:
    """Sessions that are being ended in the background."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, farewell: Coroutine[Any, Any, None]) -> None:
        """Run one to its end. How it fails is of no interest: it aborts its connection in any case."""
        task = asyncio.get_running_loop().create_task(farewell)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def aclose(self) -> None:
        """Wait for all of them: at most GRACE_SECONDS."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
