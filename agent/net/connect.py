"""The connect phase: one TCP connection to one address, and the stream that owns it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from agent.model import Fact, Phase
from agent.net.resolve import Address
from agent.prober import Recorder

READ_LIMIT_BYTES = 64 * 1024
"""How much a stream buffers before its peer has to wait."""


class Stream:
    """A TCP connection, perhaps with TLS on it. Leaving it aborts it: nothing lingers, nothing is awaited."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._socket_transport = writer.transport

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    @property
    def unread(self) -> bytes:
        """What has arrived and was not read yet. There is no public way to ask a StreamReader."""
        buffer: bytearray = self.reader._buffer  # type: ignore[attr-defined]  # noqa: SLF001
        return bytes(buffer)

    async def read(self, limit: int) -> bytes:
        """The next bytes, at most `limit`, none at the end; what came before a reset is read before that is raised.

        Raises OSError, ssl.SSLError.
        """
        try:
            return await self.reader.read(limit)
        except OSError:
            rest = self.unread[:limit]
            if not rest:
                raise
            del self.reader._buffer[: len(rest)]  # type: ignore[attr-defined]  # noqa: SLF001
            return rest

    def put_back(self, data: bytes) -> None:
        """Make what was read the next to be read again."""
        self.reader._buffer[:0] = data  # type: ignore[attr-defined]  # noqa: SLF001

    def abort(self) -> None:
        """Close at once; what is unsent is dropped."""
        if not self.writer.transport.is_closing():
            self.writer.transport.abort()
        # A transport of TLS that is closing waits for the peer's goodbye; to abort it as well raises AttributeError
        # where it was closed twice (Python 3.11.2).
        self._socket_transport.abort()


async def connect(address: Address, recorder: Recorder) -> Stream:
    """Open one connection, without a second try. Raises OSError."""
    recorder.facts[Fact.ADDRESS] = str(address)
    loop = asyncio.get_running_loop()
    with ExitStack() as unused:
        with recorder.phase(Phase.CONNECT):
            # Inside the phase: a kernel without IPv6 refuses already here.
            sock = unused.enter_context(socket.socket(address.family, socket.SOCK_STREAM))
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if recorder.segment_bytes is not None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, recorder.segment_bytes)
            await loop.sock_connect(sock, (address.ip, address.port))
        stream = Stream(*await asyncio.open_connection(sock=sock, limit=READ_LIMIT_BYTES))
        unused.pop_all()
        return stream
