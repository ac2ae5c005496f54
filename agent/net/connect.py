"""The connect phase: one TCP connection to one address, and the stream that owns it."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from agent.model import Fact, Phase
from agent.net.resolve import Address
from agent.prober import Recorder

READ_LIMIT_BYTES = 64 * 1024
"""How much a stream buffers before its peer has to wait."""


class Stream:
    """A TCP connection, perhaps with TLS on it. Leaving it aborts it: nothing lingers, nothing is awaited."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, recorder: Recorder) -> None:
        self.reader = reader
        self.writer = writer
        self._socket_transport = writer.transport
        self._recorder = recorder

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
        """Close at once; what is unsent is dropped. What the kernel had to send again is written down."""
        if again := _sent_again(self._socket_transport.get_extra_info("socket")):
            self._recorder.facts[Fact.RETRANSMITTED_SEGMENTS] = again
        if not self.writer.transport.is_closing():
            self.writer.transport.abort()
        # A transport of TLS that is closing waits for the peer's goodbye; to abort it as well raises AttributeError
        # where it was closed twice (Python 3.11.2).
        self._socket_transport.abort()


# linux/tcp.h, struct tcp_info: tcpi_total_retrans; the SYN counts too.
_TOTAL_RETRANS = struct.Struct("=100xI")


def _sent_again(sock: socket.socket | None) -> int:
    """How many segments of a connection were sent again; 0 where it is closed, and nobody knows any more."""
    if sock is None:
        return 0
    with suppress(OSError, struct.error):
        count: int = _TOTAL_RETRANS.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOTAL_RETRANS.size))[0]
        return count
    return 0


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
            try:
                await loop.sock_connect(sock, (address.ip, address.port))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    recorder.facts[Fact.NO_LOCAL_PORT] = True
                raise
        stream = Stream(*await asyncio.open_connection(sock=sock, limit=READ_LIMIT_BYTES), recorder)
        unused.pop_all()
        return stream
