"""TCP servers that do one wrong thing each: async context managers with a `port`, on an ephemeral port of loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 s


class Server:
    """Has the same conversation with every peer, and ends what is left of them when the test is done.

    With `tls` every connection begins with a handshake, and the conversation happens inside.
    """

    def __init__(
        self, conversation: Conversation, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self._conversation = conversation
        self._tls = tls
        self._peers: set[asyncio.Task[None]] = set()
        self.connections = 0
        """How many peers have come (with `tls`: have finished the handshake)."""
        self.host = host
        self.port = 0
        """Before it starts, the one to listen on: 0 for any that is free."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._meet, self.host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for peer in self._peers:
            peer.cancel()
        await asyncio.gather(*self._peers, return_exceptions=True)

    @property
    def address(self) -> str:
        """host:port, as a configuration holds it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def open_conversations(self) -> int:
        return len(self._peers)

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio would keep, and complain about, the tasks it made itself.
        self.connections += 1
        task = asyncio.ensure_future(self._converse(reader, writer))
        self._peers.add(task)
        task.add_done_callback(self._peers.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._conversation(reader, writer)
        except (OSError, EOFError):
            pass  # the peer has gone, which is its right
        finally:
            writer.transport.abort()


async def until_closed(reader: asyncio.StreamReader) -> None:
    """Wait for the peer to leave."""
    while await reader.read(65536):
        pass


def silent(*, tls: ssl.SSLContext | None = None) -> Server:
    """Accepts and never says a word."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until_closed(reader)

    return Server(conversation, tls=tls)


def closing(after: bytes = b"", *, tls: ssl.SSLContext | None = None) -> Server:
    """Sends this much, at once, and closes in order."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(after)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return Server(conversation, tls=tls)


def closing_when_spoken_to(answer: bytes = b"") -> Server:
    """Waits for the first bytes, answers this much and closes in order."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answer)
        writer.write_eof()
        await until_closed(reader)

    return Server(conversation)


def resetting(after: bytes = b"", *, when_spoken_to: bool = True) -> Server:
    """Sends this much and resets the connection: at once, or when the first bytes have come."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if when_spoken_to:
            await reader.read(65536)
        writer.write(after)
        await writer.drain()
        reset(writer)

    return Server(conversation)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a RST instead of a FIN."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()


def dripping(byte: bytes = b".", every_seconds: float = 0.02, *, tls: ssl.SSLContext | None = None) -> Server:
    """Sends a byte every so often, without an end: each read succeeds, the answer never comes."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(every_seconds)

    return Server(conversation, tls=tls)


def flooding(chunk: bytes = b"x" * 65536) -> Server:
    """Sends as much as the peer takes."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(chunk)
            await writer.drain()

    return Server(conversation)


def greeting(text: bytes = b"220 mail.example.test ESMTP\r\n", *, tls: ssl.SSLContext | None = None) -> Server:
    """Speaks first, as SMTP, SSH and MySQL servers do, and then waits."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await until_closed(reader)

    return Server(conversation, tls=tls)


def http_only() -> Server:
    """A server of another protocol: answers whatever it is sent with an HTTP 400, and closes."""
    return closing_when_spoken_to(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")


def segmented(pieces: Sequence[bytes], *, when_spoken_to: bool = True, gap_seconds: float = 0.01) -> Server:
    """Sends an answer in pieces, each in a segment of its own, and then waits."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if when_spoken_to:
            await reader.read(65536)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(gap_seconds)
        await until_closed(reader)

    return Server(conversation)


def echoing(*, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Server:
    """Sends back what it gets."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    return Server(conversation, tls=tls, host=host)


def upgrading(
    context: ssl.SSLContext | None, *, ask: int = 8, answer: bytes = b"S", then: Conversation | None = None
) -> Server:
    """Reads this many bytes in the clear, answers, makes a TLS handshake, and goes on with `then` (or in silence).

    Without a context it stays silent instead of making the handshake.
    """

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(ask)
        writer.write(answer)
        await writer.drain()
        if context is not None:
            await writer.start_tls(context)
            if then is not None:
                await then(reader, writer)
                return
        await until_closed(reader)

    return Server(conversation)


def refusing_port(host: str = "127.0.0.1") -> int:
    """A port of loopback that nobody listens on: bound once, so that no other test gets it soon, and let go."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        return int(server.getsockname()[1])
