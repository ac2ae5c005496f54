"""A nameserver whose records a test changes: UDP on an own address of loopback, on port 53 as resolv.conf wants it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dnslib

TTL_SECONDS = 3600
"""Long: whoever keeps an answer at all would keep it for the whole test."""

_number = itertools.count()


class Zone(asyncio.DatagramProtocol):
    """Answers A queries from `records`: name (with its dot) to IPv4 addresses. NXDOMAIN for other names.

    Silent, it answers nobody.
    """

    def __init__(self, records: Mapping[str, list[str]], *, silent: bool = False) -> None:
        self.records = dict(records)
        self.silent = silent
        self.asked: list[str] = []
        """The names of the queries so far."""
        # An address for each process and each server, so that tests may run side by side.
        self.ip = f"127.{100 + next(_number) % 100}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"

    async def start(self) -> None:
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, local_addr=(self.ip, 53)
        )

    async def stop(self) -> None:
        """Let go of the port; whoever asks now is told so by the kernel."""
        self._transport.close()
        await asyncio.sleep(0)  # the socket is closed a turn of the loop later

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dnslib.DNSRecord.parse(data)
        name = str(query.q.qname).lower()
        self.asked.append(name)
        if self.silent:
            return
        reply = query.reply(aa=1)
        if name not in self.records:
            reply.header.rcode = dnslib.RCODE.NXDOMAIN
        elif query.q.qtype == dnslib.QTYPE.A:
            for ip in self.records[name]:
                reply.add_answer(dnslib.RR(name, dnslib.QTYPE.A, rdata=dnslib.A(ip), ttl=TTL_SECONDS))
        self._transport.sendto(reply.pack(), addr)


@asynccontextmanager
async def zone(records: Mapping[str, list[str]], *, silent: bool = False) -> AsyncIterator[Zone]:
    """A nameserver with these records."""
    server = Zone(records, silent=silent)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def resolv_conf(directory: Path, *servers: Zone, search: str = ".") -> str:
    """A resolv.conf that names these servers: its path."""
    path = directory / f"resolv-{'-'.join(server.ip for server in servers)}.conf"
    path.write_text("".join(f"nameserver {server.ip}\n" for server in servers) + f"search {search}\n")
    return str(path)
