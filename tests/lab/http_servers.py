"""HTTP servers on loopback: one that answers with exactly the bytes a test gives it, and a complete one, aiohttp's."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.lab.misbehaving import Server, until_closed


@dataclass(frozen=True)
class Received:
    """A request as it came over the wire."""

    method: str
    target: str
    version: str
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes


Reply = Callable[[Received], bytes]


class HttpServer(Server):
    """Answers every request with raw bytes and then closes in order; keeps the requests."""

    def __init__(
        self,
        reply: Reply | bytes,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        close: bool = True,
    ) -> None:
        super().__init__(self._answer, tls=tls, host=host)
        self._reply = reply
        self._scheme = "http" if tls is None else "https"
        self._close = close
        self.requests: list[Received] = []

    def url(self, path: str = "/", *, host: str | None = None) -> str:
        return f"{self._scheme}://{self.address if host is None else f'{host}:{self.port}'}{path}"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await receive(reader)
        self.requests.append(request)
        writer.write(self._reply if isinstance(self._reply, bytes) else self._reply(request))
        await writer.drain()
        if self._close:
            writer.close()
            await writer.wait_closed()
        else:
            await until_closed(reader)


async def receive(reader: asyncio.StreamReader, begun: bytes = b"") -> Received:
    """Read one request with its whole body; `begun` is what has been read of it already."""
    head = (begun + await reader.readuntil(b"\r\n\r\n")).decode()
    line, *fields = head.rstrip("\r\n").split("\r\n")
    method, target, version = line.split(" ")
    pairs = (field.partition(":") for field in fields)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, version, headers, body)


def response(status: str = "200 OK", body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A complete answer with its length."""
    fields = {"Content-Length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def redirect(location: str, status: str = "302 Found", headers: Mapping[str, str] | None = None) -> bytes:
    return response(status, headers={"Location": location, **(headers or {})})


def routed(routes: Mapping[str, Reply | bytes]) -> Reply:
    """Answer by path, 404 where there is none."""

    def reply(request: Received) -> bytes:
        found = routes.get(request.target.partition("?")[0], response("404 Not Found"))
        return found if isinstance(found, bytes) else found(request)

    return reply


@asynccontextmanager
async def application(*routes: web.RouteDef, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A complete HTTP server, aiohttp's, with keep-alive and all; yields its URL without a path."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        port: Any = runner.addresses[0][1]
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
