"""A DNS server for one zone, over UDP and TCP, whose answers can be changed while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import dnslib

TTL_SECONDS = 5


class Nameserver:
    """Answers A queries for the names it holds; everything else does not exist."""

    def __init__(self, records: Mapping[str, str]) -> None:
        """Hold IPv4 addresses by name, names in full and without the trailing dot."""
        self._records = {name.lower(): ip for name, ip in records.items()}
        self.missing: set[str] = set()
        """Names to deny, although they have a record."""
        self.failing: set[str] = set()
        """Names to answer with SERVFAIL."""
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def start(self, ip: str, port: int) -> int:
        """Serve on an address, UDP and TCP, and return the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve_tcp, ip, port)
        bound: int = self._tcp.sockets[0].getsockname()[1]
        try:
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), (ip, bound))
        except BaseException:
            self._tcp.close()
            raise
        return bound

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()

    def answer(self, message: bytes) -> bytes | None:
        """The answer to a message; None to what is not a question."""
        try:
            question = dnslib.DNSRecord.parse(message)
        except dnslib.DNSError:
            return None
        if question.header.qr or not question.questions:
            return None
        reply = question.reply(ra=0)
        name = str(question.q.qname).rstrip(".").lower()
        if name in self.failing:
            reply.header.rcode = dnslib.RCODE.SERVFAIL
        elif name not in self._records or name in self.missing:
            reply.header.rcode = dnslib.RCODE.NXDOMAIN
        elif question.q.qtype == dnslib.QTYPE.A:
            reply.add_answer(
                dnslib.RR(question.q.qname, dnslib.QTYPE.A, rdata=dnslib.A(self._records[name]), ttl=TTL_SECONDS)
            )
        packed: bytes = reply.pack()
        return packed

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                reply = self.answer(await reader.readexactly(length))
                if reply is None:
                    break
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, nameserver: Nameserver) -> None:
        self._nameserver = nameserver

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        reply = self._nameserver.answer(data)
        if reply is not None:
            self._transport.sendto(reply, addr)
