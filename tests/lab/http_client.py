"""One HTTP request on one connection, every byte of the answer in sight."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said before it closed the connection."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


async def request(url: str, *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    """Ask, and read until the server closes the connection."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    raw = await exchange(parts.hostname, parts.port or 80, "\r\n".join([*lines, "", ""]).encode() + body)
    return parse(raw)


async def exchange(host: str, port: int, sent: bytes) -> bytes:
    """Send bytes on a new connection, and return all that comes back until it ends."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(sent)
            return await reader.read(-1)
        finally:
            writer.transport.abort()


def parse(raw: bytes) -> Answer:
    """An answer as it came over the wire."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return Answer(int(status.split()[1]), headers, body)
