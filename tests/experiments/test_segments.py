"""Where large packets get lost, a run over small segments succeeds and the usual one stalls: a real path between hosts.

The server's host drops whatever it would send in more than 800 bytes, without a word: what a tunnel with a smaller MTU
does where its ICMP messages are filtered.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.diagnosis.experiment import Exchanged, SmallSegments
from agent.experiments.segments import SEGMENT_BYTES
from agent.model import Outcome, Phase, Reason
from agent.probers import PROBERS
from agent.runner import run
from tests.experiments.asking import asking, snapshot
from tests.lab.certificates import Certificates
from tests.lab.http_servers import response
from tests.lab.misbehaving import echoing
from tests.lab.netns import SERVER_IP, SERVER_IP6, Namespace, two_hosts
from tests.lab.postgres import DATABASE, Postgres
from tests.lab.targets import target, verdict

TIMEOUT_SECONDS = 1.5
LIMIT_BYTES = 800
Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    with two_hosts() as (client, server):
        for host in (client, server):
            # What the filter sees are then packets as a wire carries them, and not several in one.
            host.ip("link", "set", "wire", "gso_max_segs", "1")
        yield client, server


@pytest.fixture
def narrow(hosts: tuple[Namespace, Namespace]) -> Iterator[tuple[Namespace, Namespace]]:
    """The two hosts, and a path that carries small packets only."""
    hosts[1].filter("output", f"meta length > {LIMIT_BYTES} drop")
    yield hosts
    hosts[1].filter("output")


@asynccontextmanager
async def serving(
    listener: socket.socket, conversation: Conversation, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Have a conversation with every peer, on a socket that is in the network it was made in."""
    peers: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await conversation(reader, writer)
        except (OSError, EOFError):
            pass  # the peer has gone, which is its right
        finally:
            writer.transport.abort()

    def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = asyncio.ensure_future(converse(reader, writer))
        peers.add(peer)
        peer.add_done_callback(peers.discard)

    server = await asyncio.start_server(meet, sock=listener, ssl=tls)
    try:
        yield
    finally:
        server.close()
        for peer in peers:
            peer.cancel()
        await asyncio.gather(*peers, return_exceptions=True)


async def a_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request with 20 kB."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(response(body=b"x" * 20_000))
    await reader.read(1)


def pipe_to(path: str) -> Conversation:
    """Pass everything on to a Unix socket, which belongs to no network."""

    async def one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(path)
        back = asyncio.ensure_future(one_way(inner_reader, writer))
        try:
            await one_way(reader, inner_writer)
        finally:
            back.cancel()
            inner_writer.transport.abort()

    return conversation


def both(
    hosts: tuple[Namespace, Namespace],
    ip: str,
    conversation: Conversation,
    kind: str,
    keys: Callable[[str], Mapping[str, Any]],
    *,
    tls: ssl.SSLContext | None = None,
) -> tuple[Outcome, Exchanged]:
    """The usual run of a target whose server is on the other host, and then the experiment."""
    client, server = hosts
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    listener = server.inside(lambda: socket.create_server((ip, 0), family=family))
    port = listener.getsockname()[1]
    address = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"

    async def work() -> tuple[Outcome, Exchanged]:
        configured = target(kind, timeout_seconds=TIMEOUT_SECONDS, **keys(address))
        prober = PROBERS[kind].prober()
        async with serving(listener, conversation, tls), asking(snapshot(configured)) as ask:
            usual = await run(prober, configured)
            await prober.aclose()
            found = await ask.one(SmallSegments("under-test"))
            assert isinstance(found, Exchanged)
            return usual, found

    return client.inside(lambda: asyncio.run(work()))


async def test_a_request_with_a_body_is_not_sent_again() -> None:
    async with echoing() as server:
        configured = target("http", url=f"http://{server.address}/", method="POST", body="{}")
        async with asking(snapshot(configured)) as ask:
            assert await ask.every(SmallSegments("under-test")) == ()
            assert ask.experimenter.refused == 1
        assert server.connections == 0


@pytest.mark.parametrize("ip", [SERVER_IP, SERVER_IP6])
def test_an_http_answer(narrow: tuple[Namespace, Namespace], ip: str) -> None:
    usual, found = both(narrow, ip, a_page, "http", lambda address: {"url": f"http://{address}/"})
    assert usual.failure is not None
    assert usual.failure.phase in {Phase.REQUEST, Phase.TRANSFER}
    assert usual.failure.reason is Reason.TIMEOUT
    assert found.failure is None
    assert found.seconds < TIMEOUT_SECONDS


@pytest.mark.parametrize("ip", [SERVER_IP, SERVER_IP6])
def test_a_tls_handshake(narrow: tuple[Namespace, Namespace], certificates: Certificates, ip: str) -> None:
    """A chain of two certificates does not fit."""
    certificate = certificates.with_intermediate
    usual, found = both(
        narrow,
        ip,
        a_page,
        "tcp",
        lambda address: {
            "address": address,
            "tls": {"ca_file": str(certificates.ca_file), "server_name": "localhost"},
        },
        tls=certificate.server_context(),
    )
    assert verdict(usual) == "tls/timeout"
    assert found.failure is None


def test_rows_of_a_database(narrow: tuple[Namespace, Namespace], postgres: Postgres) -> None:
    usual, found = both(
        narrow,
        SERVER_IP,
        pipe_to(f"{postgres.home}/.s.PGSQL.{postgres.port}"),
        "postgres",
        lambda address: {
            "dsn": f"postgresql://postgres@{address}/{DATABASE}",
            "sslmode": "disable",
            "mode": "query",
            "query": "select repeat('x', 20000)",
        },
    )
    assert verdict(usual) == "request/timeout"
    assert found.failure is None


def test_where_no_packet_gets_lost_both_work(hosts: tuple[Namespace, Namespace]) -> None:
    usual, found = both(hosts, SERVER_IP, a_page, "http", lambda address: {"url": f"http://{address}/"})
    assert usual.failure is None
    assert found.failure is None


def test_where_the_server_says_nothing_small_segments_do_not_help(hosts: tuple[Namespace, Namespace]) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass

    usual, found = both(hosts, SERVER_IP, mute, "http", lambda address: {"url": f"http://{address}/"})
    assert verdict(usual) == "request/timeout"
    assert found.failure is not None
    assert (found.failure.phase, found.failure.reason) == (Phase.REQUEST, Reason.TIMEOUT)


@pytest.mark.parametrize("addresses", ["first", "all"])
def test_every_connection_of_the_run_has_small_segments(hosts: tuple[Namespace, Namespace], addresses: str) -> None:
    """Those of a redirect, and those of each attempt, as the server's end of them sees it."""
    seen: list[int] = []

    async def redirects(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
        line = await reader.readline()
        there = response("302 Found", headers={"Location": "/there"}) if b" / " in line else response()
        writer.write(there)
        await reader.read(1)

    usual, found = both(
        hosts, SERVER_IP, redirects, "http", lambda address: {"url": f"http://{address}/", "addresses": addresses}
    )
    assert usual.failure is None
    assert found.failure is None
    assert len(seen) == 4
    assert min(seen[:2]) > SEGMENT_BYTES
    assert max(seen[2:]) <= SEGMENT_BYTES


async def test_a_target_without_connections_is_not_run() -> None:
    async with asking(snapshot(target("dns", query="example.test"))) as ask:
        assert await ask.every(SmallSegments("under-test")) == ()
        assert ask.experimenter.refused == 1
