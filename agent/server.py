"""The agent's own HTTP server: what Prometheus, the kubelet and people read. Nothing takes an address.

What changes something is a POST, and answers this pod alone. Slow and silent clients are dropped, connections are
counted, and long answers are made in small steps, so that no client can disturb a probe.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from agent.explanation import as_text
from agent.keys import HostPort, shown
from agent.listening import EVERYWHERE, listening_on
from agent.wording import Wording

if TYPE_CHECKING:
    from agent.status_page import Known

CONNECTION_LIMIT = 100
"""Open connections at most; another one is closed at once. Prometheus, a kubelet and a few people need ten."""
IDLE_SECONDS = 30.0
"""How long a connection may stay open without a complete request."""
RESPONSE_SECONDS = 30.0
"""How long a client may take to read an answer."""
LINE_LIMIT_BYTES = 4096
HEADERS_LIMIT = 64
CLOSE_SECONDS = 2.0
"""How long answers under way may still take when the server closes."""
TEXT_WIDTH = 100
"""Columns of a page of text, whoever asks: nobody says how wide the terminal behind a curl is."""
CHUNK_TARGETS = 4
"""Targets whose JSON is made without a pause."""
BODY_LIMIT_BYTES = 4096
"""Of a POST."""
BODY_SECONDS = 2.0
"""How long the body of a POST may take: it comes over loopback."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
"""Not all of 127.0.0.0/8: Istio hands on what comes from outside the pod from 127.0.0.6 (Istio 1.10 and later)."""
FORWARDED = ("Forwarded", "Origin", "Via", "X-Forwarded-For", "X-Forwarded-Proto")
"""Headers of a request that somebody handed on, or that a page in somebody's browser makes through a port-forward."""


class CannotListen(Exception):  # noqa: N818 - what happened, not what kind of thing it is
    """The address to listen on cannot be had. The text says which and why, in one line."""


class Document(Protocol):
    """An answer that is complete before it is sent."""

    @property
    def content_type(self) -> str: ...

    @property
    def encoding(self) -> str | None: ...

    @property
    def chunks(self) -> Sequence[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """What the server shows, asked for at each request."""

    metrics: Callable[[str, str], Awaitable[Document]]
    """By the headers Accept and Accept-Encoding."""
    targets: Callable[[], Iterable[Mapping[str, Any]]]
    """Each target as plain JSON values."""
    statuses: Callable[[], Iterable[Known]]
    """The same targets as values, for the page that people look at."""
    diagnosis: Callable[[], Mapping[str, Any]]
    """What holds now, as agent.diagnosis.document makes it."""
    broken: Callable[[], str | None]
    """Why the agent does not work any more, if so."""
    unready: Callable[[], str | None]
    """What is still awaited before the agent's numbers mean something, if anything."""
    unstarted: Callable[[], str | None]
    """What the start of the other containers still waits for, if anything."""
    refresh: Callable[[], Awaitable[None]]
    """Looks at every target before its turn, within bounds, and returns once what was seen is explained."""
    told: Callable[[bytes], None]
    """Takes what a task says about itself. Raises ValueError with a sentence."""
    leave: Callable[[], None]
    """Asks the agent to end in order."""


Page = Callable[[web.Request], Awaitable[tuple[int, Document]]]
"""What answers one path: a status and what is sent."""


@dataclass(frozen=True, slots=True)
class _Plain:
    content_type: str
    chunks: tuple[bytes, ...]
    encoding: None = None


def _text(body: str, content_type: str = "text/plain; charset=utf-8") -> _Plain:
    return _Plain(content_type, (body.encode(),))


class _Shared:
    """A document made once for all who ask while it is awaited: many clients cost what two do."""

    def __init__(self, make: Callable[[], Awaitable[Document]], name: str) -> None:
        self._make = make
        self._name = name
        self._turn = asyncio.Lock()
        self._coming: asyncio.Task[Document] | None = None

    async def __call__(self) -> Document:
        if self._coming is None:
            self._coming = asyncio.create_task(self._next(), name=self._name)
        # One of those who share it may hang up; the others still want it.
        return await asyncio.shield(self._coming)

    async def _next(self) -> Document:
        async with self._turn:
            self._coming = None  # whoever comes from now on wants newer outcomes
            return await self._make()


class Server:
    """Serves pages on one address, from `start` to `aclose`."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._listing = _Shared(self._list, "targets")
        self._front = _Shared(self._status_page, "status page")
        self._endpoints: Mapping[str, tuple[Page, str]] = {
            "/metrics": (self._metrics, "metrics, for Prometheus"),
            "/targets": (self._targets, "every target: its configuration, last outcome and recent failures, as JSON"),
            "/diagnosis": (self._diagnosis, "why targets fail, as JSON; with ?format=text for people"),
            "/healthz": (self._healthz, "200 while the agent works"),
            "/readyz": (self._readyz, "200 once every target has a first result, or has had the time to get one"),
            "/startupz": (self._startupz, "200 once the targets that are gates have answered, or have had the time to"),
        }
        self._actions: Mapping[str, tuple[Page, str]] = {
            "/task": (self._task, "from this pod alone: which task begins or ends, as JSON"),
            "/refresh": (self._refresh, "from this pod alone: look now, as a task has failed, and answer when done"),
            "/quitquitquit": (self._quit, "from this pod alone: end, as at a SIGTERM"),
        }
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        app.router.add_get("/", self._index)
        for path, (page, _) in self._endpoints.items():
            app.router.add_get(path, self._answer(page))
        for path, (action, _) in self._actions.items():
            app.router.add_post(path, self._answer(_for_this_pod(action)))
        app.on_response_prepare.append(_add_headers)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=0,
            logger=_logger(),
            max_field_size=LINE_LIMIT_BYTES,
            max_headers=HEADERS_LIMIT,
            max_line_size=LINE_LIMIT_BYTES,
            shutdown_timeout=CLOSE_SECONDS,
        )
        self._listening: asyncio.Server | None = None

    async def start(self, listen: HostPort) -> None:
        """Begin to serve; port 0 takes a free one. Raises CannotListen."""
        await self._runner.setup()
        try:
            sock = listening_on(listen.host, listen.port, backlog=CONNECTION_LIMIT)
            self._listening = await asyncio.get_running_loop().create_server(self._accept, sock=sock)
        except OSError as error:
            await self._runner.cleanup()
            raise CannotListen(f"cannot listen on {listen}: {_why(error)}") from None

    @property
    def listening(self) -> bool:
        return self._listening is not None

    @property
    def url(self) -> str:
        """Where the server is to be found, with a host that can be connected to from here."""
        if self._listening is None:
            raise RuntimeError("the server has not been started")
        host, port = self._listening.sockets[0].getsockname()[:2]
        loopback = "127.0.0.1" if host in {"0.0.0.0", EVERYWHERE} else host  # noqa: S104 - compared, not bound
        return f"http://{HostPort(loopback, port)}"

    async def aclose(self) -> None:
        """Take no more connections, finish the answers under way within CLOSE_SECONDS, and close."""
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()

    def _accept(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        if server is None or len(server.connections) >= CONNECTION_LIMIT:
            return _Refused()
        return server()

    def _answer(self, page: Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handler(request: web.Request) -> web.StreamResponse:
            status, document = await page(request)
            return await _send(request, status, document)

        return handler

    async def _index(self, request: web.Request) -> web.StreamResponse:
        from agent.status_page import HEADERS  # noqa: PLC0415 - loaded once somebody looks, and in no other pod

        return await _send(request, 200, await self._front(), HEADERS)

    async def _status_page(self) -> Document:
        from agent.status_page import render  # noqa: PLC0415 - as above

        links = [
            *(("GET", path, what) for path, (_, what) in self._endpoints.items()),
            *(("POST", path, what) for path, (_, what) in self._actions.items()),
        ]
        return await render(self._pages.diagnosis(), self._pages.statuses(), links)

    async def _metrics(self, request: web.Request) -> tuple[int, Document]:
        headers = request.headers
        accept, accept_encoding = (",".join(headers.getall(name, [])) for name in ("Accept", "Accept-Encoding"))
        return 200, await self._pages.metrics(accept, accept_encoding)

    async def _targets(self, _: web.Request) -> tuple[int, Document]:
        return 200, await self._listing()

    async def _list(self) -> Document:
        chunks: list[bytes] = [b'{"version": 1, "targets": [']
        for number, target in enumerate(self._pages.targets()):
            if number % CHUNK_TARGETS == 0:
                await asyncio.sleep(0)
            chunks.append((",\n" if number else "\n").encode() + json.dumps(target, ensure_ascii=False).encode())
        chunks.append(b"\n]}\n")
        return _Plain("application/json; charset=utf-8", tuple(chunks))

    async def _diagnosis(self, request: web.Request) -> tuple[int, Document]:
        wanted = request.query.get("format", "json")
        if wanted == "json":
            body = json.dumps(self._pages.diagnosis(), ensure_ascii=False, indent=2)
            return 200, _text(f"{body}\n", "application/json; charset=utf-8")
        if wanted == "text":
            return 200, _text(as_text(self._pages.diagnosis(), width=TEXT_WIDTH, wording=Wording(ascii_only=False)))
        return 400, _text(f"expected format=json or format=text, got format={shown(wanted)}\n")

    async def _healthz(self, _: web.Request) -> tuple[int, Document]:
        broken = self._pages.broken()
        return (200, _text("ok\n")) if broken is None else (503, _text(f"{broken}\n"))

    async def _readyz(self, _: web.Request) -> tuple[int, Document]:
        awaited = self._pages.unready()
        return (200, _text("ok\n")) if awaited is None else (503, _text(f"{awaited}\n"))

    async def _startupz(self, _: web.Request) -> tuple[int, Document]:
        awaited = self._pages.unstarted()
        return (200, _text("ok\n")) if awaited is None else (503, _text(f"{awaited}\n"))

    async def _task(self, request: web.Request) -> tuple[int, Document]:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except TimeoutError:
            return 408, _text(f"expected the whole body within {BODY_SECONDS:g} s\n")
        except web.HTTPRequestEntityTooLarge:
            return 413, _text(f"expected at most {BODY_LIMIT_BYTES} bytes, got more\n")
        try:
            self._pages.told(body)
        except ValueError as error:
            return 400, _text(f"{error}\n")
        return 204, _Plain("text/plain; charset=utf-8", ())

    async def _refresh(self, _: web.Request) -> tuple[int, Document]:
        await self._pages.refresh()
        return 204, _Plain("text/plain; charset=utf-8", ())

    async def _quit(self, request: web.Request) -> tuple[int, Document]:
        # Who keeps the body back means the moment at which the connection is gone, and the process behind it.
        with suppress(ConnectionError, web.HTTPRequestEntityTooLarge):
            await request.read()
        self._pages.leave()
        return 200, _text("ok\n")


def _for_this_pod(action: Page) -> Page:
    """An action that obeys nobody else, as far as can be told."""

    async def guarded(request: web.Request) -> tuple[int, Document]:
        transport = request.transport
        ends = [transport.get_extra_info(end) if transport else None for end in ("peername", "sockname")]
        if all(end and end[0] in LOOPBACK for end in ends) and not any(name in request.headers for name in FORWARDED):
            return await action(request)
        return 403, _text("expected a request over this pod's own loopback, got one from elsewhere\n")

    return guarded


async def _send(
    request: web.Request, status: int, document: Document, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers=headers)
    response.headers["Content-Type"] = document.content_type
    if document.encoding is not None:
        response.headers["Content-Encoding"] = document.encoding
    response.content_length = sum(map(len, document.chunks))
    try:
        async with asyncio.timeout(RESPONSE_SECONDS):
            await response.prepare(request)
            if request.method != "HEAD":
                for chunk in document.chunks:
                    await response.write(chunk)
            await response.write_eof()
    except (TimeoutError, ConnectionError):
        # The client does not read, or has gone, which is its right. Closing would wait until all is read.
        if request.transport is not None:
            request.transport.abort()
    return response


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "netprobe"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()


class _NotTheClientsFault(logging.Filter):
    """Keeps what a client did wrong out of the log: it must not be able to fill it."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return not isinstance(error, HttpProcessingError)


def _logger() -> logging.Logger:
    logger = logging.getLogger(__name__)
    if not any(isinstance(known, _NotTheClientsFault) for known in logger.filters):
        logger.addFilter(_NotTheClientsFault())
    return logger


def _why(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return str(error.strerror or error)
    # asyncio's text repeats the address in its own way; what the system says is enough.
    return os.strerror(error.errno).lower() if error.errno else str(error)
