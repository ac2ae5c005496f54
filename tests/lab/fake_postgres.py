"""Servers that speak the Postgres protocol up to the point where they do something wrong."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence

from tests.lab.misbehaving import Server, until_closed

SSL_REQUEST = struct.pack("!I", 80877103)
CANCEL_REQUEST = struct.pack("!I", 80877102)
"""How these begin, behind their length."""
ASK_SCRAM = struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0"
AUTHENTICATION_OK = struct.pack("!I", 0)

Step = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def message(kind: str, body: bytes = b"") -> bytes:
    """A message as a server sends one."""
    return struct.pack("!cI", kind.encode(), 4 + len(body)) + body


def error(sqlstate: str, text: str, severity: str = "FATAL") -> bytes:
    """An ErrorResponse."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": text}
    return message("E", b"".join(f"{name}{value}\0".encode() for name, value in fields.items()) + b"\0")


def parameter(name: str, value: str) -> bytes:
    """A ParameterStatus."""
    return message("S", f"{name}\0{value}\0".encode())


def logged_in(version: str = "15.18", *, in_recovery: str | None = "off") -> bytes:
    """What a server that trusts everybody says to a StartupMessage."""
    return b"".join(
        (
            message("R", AUTHENTICATION_OK),
            parameter("server_version", version),
            *([parameter("in_hot_standby", in_recovery)] if in_recovery is not None else []),
            parameter("client_encoding", "UTF8"),
            message("K", struct.pack("!II", 4711, 42)),
            message("Z", b"I"),
        )
    )


async def read_startup(reader: asyncio.StreamReader) -> bytes:
    """An SSLRequest, a StartupMessage or a CancelRequest, without its length."""
    (length,) = struct.unpack("!I", await reader.readexactly(4))
    return await reader.readexactly(length - 4)


async def say(
    steps: Sequence[Step], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, hang_up: bool = False
) -> None:
    """A server's part after a StartupMessage. Each step but the first waits until the client has said something.

    Bytes are sent; a coroutine function gets the streams. Then it waits for the client to leave, or hangs up.
    """
    for number, step in enumerate(steps):
        if number:
            await reader.read(65536)
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        else:
            await step(reader, writer)
    if not hang_up:
        await until_closed(reader)


def speaking(
    *steps: Step, ssl_answer: bytes = b"N", tls: ssl.SSLContext | None = None, hang_up: bool = False
) -> Server:
    """Answers SSLRequest with `ssl_answer` (and a handshake, with `tls`), and a StartupMessage with the steps."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await read_startup(reader) == SSL_REQUEST:
            writer.write(ssl_answer)
            await writer.drain()
            if tls is not None:
                await writer.start_tls(tls)
            await read_startup(reader)
        await say(steps, reader, writer, hang_up=hang_up)

    return Server(conversation)
