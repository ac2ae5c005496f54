"""One connection to one address, and the stream that owns it."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable

import pytest

from agent.model import Fact, Phase
from agent.net.connect import connect
from agent.net.resolve import Address
from agent.prober import Recorder
from tests.lab.leaks import held, nothing_leaks
from tests.lab.misbehaving import Server, echoing, greeting, refusing_port, resetting, silent


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until something is so."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the state of a stream has no event
            await asyncio.sleep(0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_connection_is_made_once_to_the_address_that_is_given(host: str) -> None:
    async with echoing(host=host) as server:
        recorder = Recorder()
        async with await connect(Address(host, server.port), recorder) as stream:
            stream.writer.write(b"hello")
            assert await stream.read(100) == b"hello"
        assert server.connections == 1
    assert recorder.facts == {Fact.ADDRESS: server.address}
    assert set(recorder.phases) == {Phase.CONNECT}


async def test_small_writes_are_not_held_back() -> None:
    """Nagle's algorithm would add the peer's delayed acknowledgement, 40 ms, to the times of a dialogue."""
    async with silent() as server, await connect(Address("127.0.0.1", server.port), Recorder()) as stream:
        sock = stream.writer.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_a_connection_that_is_refused_leaves_no_socket() -> None:
    async with nothing_leaks():
        recorder = Recorder()
        with pytest.raises(ConnectionRefusedError):
            await connect(Address("127.0.0.1", refusing_port()), recorder)
    assert set(recorder.phases) == {Phase.CONNECT}


async def test_a_socket_that_cannot_be_had_is_of_the_connect_phase() -> None:
    """As on a kernel without IPv6; here there is no room for one more descriptor."""
    recorder = Recorder()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            await connect(Address("127.0.0.1", 1), recorder)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(recorder.phases) == {Phase.CONNECT}


async def test_a_connection_that_is_cancelled_leaves_no_socket() -> None:
    """Cancelled while it waits: the listener's queue is full, so that the handshake is not answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        async with nothing_leaks():
            fillers, waiting = [], None
            for _ in range(8):
                recorder = Recorder()
                waiting = asyncio.ensure_future(connect(Address("127.0.0.1", port), recorder))
                await asyncio.wait({waiting}, timeout=0.2)
                if not waiting.done():
                    break
                fillers.append(waiting.result())
            assert waiting is not None
            assert not waiting.done()
            assert held().sockets > 0
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            for stream in fillers:
                stream.abort()
        assert recorder.current is Phase.CONNECT
        assert recorder.phases[Phase.CONNECT] > 0.1


async def test_leaving_a_stream_closes_the_connection_at_once_even_where_bytes_are_unsent() -> None:
    async with silent() as server:
        async with nothing_leaks(), await connect(Address("127.0.0.1", server.port), Recorder()) as stream:
            await until(lambda: server.open_conversations == 1)
            stream.writer.write(b"x" * 50_000_000)
        await until(lambda: server.open_conversations == 0)


async def test_what_has_arrived_can_be_looked_at_before_it_is_read() -> None:
    async with greeting(b"hello") as server, await connect(Address("127.0.0.1", server.port), Recorder()) as stream:
        await until(lambda: stream.unread)
        assert stream.unread == b"hello"
        assert await stream.read(2) == b"he"
        assert stream.unread == b"llo"


async def test_what_came_before_a_reset_is_read_before_the_reset_is_raised() -> None:
    """The reader of asyncio raises first, and what the peer said is lost."""
    async with resetting(b"answer") as server, await connect(Address("127.0.0.1", server.port), Recorder()) as stream:
        stream.writer.write(b"?")
        await until(lambda: stream.reader.exception() is not None)
        assert await stream.read(3) == b"ans"
        assert await stream.read(100) == b"wer"
        with pytest.raises(ConnectionResetError):
            await stream.read(100)


async def test_a_peer_that_sends_without_an_end_has_to_wait() -> None:
    """What is not read is not kept: the buffer is bounded, and the rest stays with the peer."""
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with Server(flood) as server, await connect(Address("127.0.0.1", server.port), Recorder()) as stream:
        before = -1
        while before != sent:  # until the peer can send no more
            before = sent
            await asyncio.sleep(0.2)
        assert 0 < len(stream.unread) < 1024 * 1024
