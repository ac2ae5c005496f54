"""Nameservers on loopback: one that follows a script, and real ones (knot, unbound, dnsmasq)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dnslib

START_SECONDS = 20.0

_number = itertools.count()


def loopback_ip() -> str:
    """An address of loopback that no other test uses: resolv.conf knows no port, so that nameservers share port 53."""
    return f"127.{200 + next(_number) % 50}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


@dataclass(frozen=True, slots=True)
class Asked:
    """A query that has arrived."""

    name: str
    """Without the trailing dot."""
    record: str
    transport: str
    edns: bool


class Query:
    """A query, and the way back to whoever asked."""

    def __init__(self, data: bytes, transport: str, send: Callable[[bytes], None]) -> None:
        self.data = data
        self.message = dnslib.DNSRecord.parse(data)
        self.name = str(self.message.q.qname).rstrip(".").lower()
        self.record = str(dnslib.QTYPE[self.message.q.qtype])
        self.transport = transport
        self.edns = any(record.rtype == dnslib.QTYPE.OPT for record in self.message.ar)
        self._send = send

    def reply(self, *lines: str, rcode: str = "NOERROR") -> dnslib.DNSRecord:
        """An answer with these records, in the form of a zone file, ready to be spoilt."""
        reply = self.message.reply()
        for line in lines:
            reply.add_answer(*dnslib.RR.fromZone(line))
        reply.header.rcode = getattr(dnslib.RCODE, rcode)
        if self.edns:
            reply.add_ar(dnslib.EDNS0(udp_len=1232))
        return reply

    def send(self, reply: dnslib.DNSRecord | bytes) -> None:
        """Send back a message; over TCP, with its length in front."""
        data = bytes(reply.pack() if isinstance(reply, dnslib.DNSRecord) else reply)
        self._send(data if self.transport == "udp" else len(data).to_bytes(2, "big") + data)

    def send_raw(self, data: bytes) -> None:
        """Send back bytes as they are."""
        self._send(data)


Script = Callable[[Query], Awaitable[None]]
"""What a nameserver does with a query. Over TCP, the connection is closed when it returns."""


class Nameserver:
    """Follows its script, over UDP and TCP, and counts what it is asked."""

    def __init__(self, script: Script, *, ip: str = "127.0.0.1", port: int = 0) -> None:
        self.script = script
        self.ip = ip
        self.port = port
        self.asked: list[Asked] = []
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    @property
    def names(self) -> list[str]:
        """The names asked for, in order."""
        return [asked.name for asked in self.asked]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._meet, self.ip, self.port)
        self.port = self._tcp.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), (self.ip, self.port))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._udp.close()
        self._tcp.close()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def begin(self, work: Any) -> None:
        """Keep a task until it is done."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def follow(self, query: Query) -> None:
        """Count a query, and do with it what the script says."""
        self.asked.append(Asked(query.name, query.record, query.transport, query.edns))
        await self.script(query)

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.begin(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            await self.follow(Query(await reader.readexactly(size), "tcp", writer.write))
            await writer.drain()
            writer.close()
        except (OSError, EOFError):
            pass  # the peer has gone, which is its right
        finally:
            if not writer.is_closing():
                writer.transport.abort()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, nameserver: Nameserver) -> None:
        self._nameserver = nameserver

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.DatagramTransport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = Query(data, "udp", lambda reply: self._transport.sendto(reply, addr))
        self._nameserver.begin(self._nameserver.follow(query))


# --- scripts ----------------------------------------------------------------------------------------------------------


def zone(text: str) -> Script:
    """Answers from records in the form of a zone file; CNAMEs are followed, NXDOMAIN for the rest."""
    records = dnslib.RR.fromZone(text)

    async def script(query: Query) -> None:
        name, known = query.name, {str(record.rname).rstrip(".").lower() for record in records}
        lines: list[str] = []
        rcode = "NOERROR" if name in known else "NXDOMAIN"
        while True:
            held = [record for record in records if str(record.rname).rstrip(".").lower() == name]
            found = [record for record in held if dnslib.QTYPE[record.rtype] == query.record]
            alias = next((record for record in held if record.rtype == dnslib.QTYPE.CNAME), None)
            lines.extend(record.toZone() for record in found)
            if found or alias is None:
                break
            lines.append(alias.toZone())
            name = str(alias.rdata.label).rstrip(".").lower()
        query.send(query.reply(*lines, rcode=rcode))

    return script


def answering(rcode: str = "NOERROR", *lines: str) -> Script:
    """The same to every question."""

    async def script(query: Query) -> None:
        query.send(query.reply(*lines, rcode=rcode))

    return script


async def silent(query: Query) -> None:
    """Says nothing; over TCP, and keeps the connection."""
    if query.transport == "tcp":
        await asyncio.Event().wait()


def late(seconds: float, script: Script) -> Script:
    """The same, later."""

    async def later(query: Query) -> None:
        await asyncio.sleep(seconds)
        await script(query)

    return later


def by_transport(*, udp: Script, tcp: Script) -> Script:
    """One thing over UDP, another over TCP."""

    async def script(query: Query) -> None:
        await (udp if query.transport == "udp" else tcp)(query)

    return script


async def truncated(query: Query) -> None:
    """Has more to say than fits."""
    reply = query.reply()
    reply.header.tc = 1
    query.send(reply)


def by_name(scripts: Mapping[str, Script], *, otherwise: Script) -> Script:
    """One thing for these names, another for the rest."""

    async def script(query: Query) -> None:
        await scripts.get(query.name, otherwise)(query)

    return script


def resolv_conf(directory: Path, *nameservers: Nameserver | str, rest: str = "") -> str:
    """A resolv.conf that names these servers: its path."""
    path = directory / f"resolv-{next(_number)}.conf"
    ips = [server if isinstance(server, str) else server.ip for server in nameservers]
    path.write_text("".join(f"nameserver {ip}\n" for ip in ips) + rest)
    return str(path)


# --- real servers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Daemon:
    """A real nameserver that is up."""

    ip: str
    port: int
    pid: int

    @property
    def address(self) -> str:
        return f"{self.ip}:{self.port}"


@contextmanager
def _daemon(name: str, command: Callable[[Path, int], list[str]]) -> Iterator[Daemon]:
    """Run a server from a directory of its own until it is no longer needed."""
    program = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    assert program is not None, f"{name} is not installed"
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as place:
        directory, port = Path(place), _free_port()
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen([program, *command(directory, port)], stdout=log, stderr=log, cwd=directory)
        try:
            _until_it_answers(process, port, directory / "log")
            yield Daemon("127.0.0.1", port, process.pid)
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    """A port that is free for UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                tcp.bind(udp.getsockname())
                return int(udp.getsockname()[1])


def _until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    question = dnslib.DNSRecord.question("ready.lab.test")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")
        with contextlib.suppress(OSError):
            question.send("127.0.0.1", port, timeout=0.2)
            question.send("127.0.0.1", port, timeout=0.2, tcp=True)
            return
    raise AssertionError(f"no answer within {START_SECONDS:g}s: {log.read_text(errors='replace')}")


def knot(zone_text: str) -> contextlib.AbstractContextManager[Daemon]:
    """An authoritative server of lab.test; it fails for broken.test, whose file is missing, and refuses the rest."""

    def command(directory: Path, port: int) -> list[str]:
        (directory / "lab.test.zone").write_text(zone_text)
        configuration = directory / "knot.conf"
        configuration.write_text(
            f"server:\n  rundir: {directory}\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n"
            f"database:\n  storage: {directory}\n"
            f"zone:\n  - domain: lab.test\n    file: {directory}/lab.test.zone\n"
            f"  - domain: broken.test\n    file: {directory}/missing.zone\n"
            f"  - domain: 0.127.in-addr.arpa\n    file: {directory}/reverse.zone\n"
        )
        (directory / "reverse.zone").write_text(REVERSE_ZONE)
        return ["--config", str(configuration)]

    return _daemon("knotd", command)


def unbound(*lines: str) -> contextlib.AbstractContextManager[Daemon]:
    """A resolver with these lines in its server section, and no way out."""

    def command(directory: Path, port: int) -> list[str]:
        configuration = directory / "unbound.conf"
        configuration.write_text(
            "server:\n"
            f'  directory: "{directory}"\n  chroot: ""\n  username: ""\n  pidfile: "{directory}/pid"\n'
            f"  interface: 127.0.0.1\n  port: {port}\n  do-not-query-localhost: no\n  use-syslog: no\n"
            '  module-config: "iterator"\n' + "".join(f"  {line}\n" for line in lines) + "remote-control:\n"
            "  control-enable: no\n"
            'forward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@1\n'  # loopback: nothing may leave
        )
        return ["-d", "-c", str(configuration)]

    return _daemon("unbound", command)


def dnsmasq(*options: str) -> contextlib.AbstractContextManager[Daemon]:
    """A forwarder with nobody to forward to."""

    def command(directory: Path, port: int) -> list[str]:
        return [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            f"--port={port}",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--group=root",
            f"--pid-file={directory}/pid",
            *options,
        ]

    return _daemon("dnsmasq", command)


LAB_ZONE = """\
$ORIGIN lab.test.
$TTL 60
@      IN SOA   ns admin 2026112201 3600 600 86400 30
@      IN NS    ns
@      IN MX    10 mail
ns     IN A     127.0.0.1
ready  IN A     127.0.0.1
db     IN A     10.0.0.1
db     IN A     10.0.0.2
six    IN AAAA  2001:db8::1
mail   IN A     10.0.0.3
www    IN CNAME web
web    IN CNAME db
away   IN CNAME nowhere
text   IN TXT   "v=spf1 -all" " and more"
_pg._tcp IN SRV 10 5 5432 db
big    IN TXT   "{}"
""".format('" "'.join(["x" * 250] * 8))

REVERSE_ZONE = """\
$ORIGIN 0.127.in-addr.arpa.
$TTL 60
@      IN SOA   ns.lab.test. admin.lab.test. 1 3600 600 86400 30
@      IN NS    ns.lab.test.
7.0    IN PTR   host.lab.test.
"""
