"""A TCP server that answers PING with PONG, as a message broker does, and can stop listening and begin again."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from agent.demo.ports import LOOPBACK, port_of, reserve


class LineServer:
    """While the server is down, its port refuses connections and belongs to nobody else."""

    def __init__(self) -> None:
        self._reservation = reserve()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        return port_of(self._reservation)

    async def listen(self) -> None:
        """Begin to accept connections. Raises OSError."""
        if self._server is None:
            self._server = await asyncio.start_server(_pong, LOOPBACK, self.port)

    async def stop_listening(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_listening()
        self._reservation.close()


async def _pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ValueError):  # a peer that resets, or never ends its line
        while line := await reader.readline():
            writer.write(b"+PONG\r\n" if line.strip().upper() == b"PING" else b"-ERR unknown command\r\n")
            await writer.drain()
    writer.close()
