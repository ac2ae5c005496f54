"""The HTTP servers of the world: each at addresses and a port of its own, with its own certificate."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from tests.lab.certificates import Certificate, Certificates
from tests.lab.http_servers import Received, receive, redirect, response, routed
from tests.lab.misbehaving import Conversation, until_closed
from tests.lab.world import places
from tests.lab.world.hosts import Host

Reply = bytes | Callable[[Received], bytes]

LARGE_BYTES = 64 * 1024
_BIND_SECONDS = 10.0

USUAL: Reply = routed(
    {
        "/": response(body=b"hello"),
        "/health": response(body=b'{"status": "ok"}', headers={"Content-Type": "application/json"}),
        "/readyz": response(body=b"ok"),
        "/large": response(body=b"x" * LARGE_BYTES),
        "/moved": redirect("/"),
    }
)
"""What every site answers: a page, its state, a large page, a redirect to the first; 404 for the rest."""


@dataclass(frozen=True)
class Place:
    """Where a site is."""

    name: str
    host: Literal["cluster", "private", "internet"]
    ips: tuple[str, ...]
    port: int
    names: tuple[str, ...] = ()
    """What its certificate is for; none where it speaks plain text."""


PLACES = (
    Place("kubernetes", "cluster", ("10.244.2.20",), 6443, ("kubernetes.default.svc", "10.96.0.1")),
    Place("web", "cluster", ("10.244.2.50", "10.244.2.51"), 8080),
    Place("ledger", "cluster", ("10.244.2.80",), 8080),
    Place("wiki", "private", (places.WIKI_IP,), 80),
    Place("api", "internet", (places.API_IP,), 443, ("api.example.com",)),
    Place("shop", "internet", (places.SHOP_IP,), 443, ("shop.example.net",)),
    Place("hooks", "internet", (places.HOOKS_IP,), 443, ("hooks.example.org",)),
    Place("website", "internet", (places.WEBSITE_IP,), 80),
    Place("mirror", "internet", places.MIRROR_IPS, 443, ("mirror.example.org",)),
    Place("dual", "internet", (places.DUAL_IP, places.DUAL_IP6), 443, ("dual.example.com",)),
    Place("six", "internet", (places.SIX_IP6,), 443, ("six.example.net",)),
)


@dataclass(frozen=True)
class Behaviour:
    """How a site behaves at one of its addresses."""

    reply: Reply
    tls: ssl.SSLContext | None
    seconds: float
    port: int


class Site:
    """One HTTP server. Use from outside of its host's event loop."""

    def __init__(self, place: Place, host: Host, certificates: Certificates) -> None:
        self.place = place
        self._host = host
        tls = usual_certificate(place, certificates).server_context() if place.names else None
        usual = Behaviour(USUAL, tls, 0.0, place.port)
        self._behaviours = dict.fromkeys(place.ips, usual)
        self._listening: dict[str, asyncio.Server] = {}
        self._peers: set[asyncio.Task[None]] = set()
        self._stopped = False

    def start(self) -> None:
        """Listen at every address."""
        self._stopped = False
        self._host.call(self._listen(self.place.ips))

    def wait_until_ready(self) -> None:
        """It is, as soon as it has started."""

    def stop(self) -> None:
        """Listen nowhere, and cut off whoever is connected."""
        self._stopped = True
        self._host.call(self._hang_up(self.place.ips))

    def behave(
        self,
        ips: Sequence[str],
        *,
        reply: Reply | None = None,
        tls: ssl.SSLContext | Literal[False] | None = None,
        seconds: float | None = None,
        port: int | None = None,
    ) -> Callable[[], None]:
        """Behave otherwise at these addresses in what is given; return what puts it back."""
        before = {ip: self._behaviours[ip] for ip in ips}
        for ip, old in before.items():
            self._behaviours[ip] = replace(
                old,
                reply=old.reply if reply is None else reply,
                tls=old.tls if tls is None else tls or None,
                seconds=old.seconds if seconds is None else seconds,
                port=old.port if port is None else port,
            )

        def undo() -> None:
            self._behaviours.update(before)
            self._again(ips)

        self._again(ips)
        return undo

    def _again(self, ips: Sequence[str]) -> None:
        if not self._stopped:
            self._host.call(self._hang_up(ips))
            self._host.call(self._listen(ips))

    async def _listen(self, ips: Sequence[str]) -> None:
        for ip in ips:
            behaviour = self._behaviours[ip]

            def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ip: str = ip) -> None:
                task = asyncio.ensure_future(self._converse(self._behaviours[ip], reader, writer))
                self._peers.add(task)
                task.add_done_callback(self._peers.discard)

            start = partial(asyncio.start_server, meet, ip, behaviour.port, ssl=behaviour.tls)
            self._listening[ip] = await _bound(start)

    async def _hang_up(self, ips: Sequence[str]) -> None:
        for ip in ips:
            server = self._listening.pop(ip, None)
            if server is not None:
                server.close()
        for peer in self._peers:
            peer.cancel()
        await asyncio.gather(*self._peers, return_exceptions=True)

    async def _converse(self, behaviour: Behaviour, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            begun = await reader.readexactly(1)
            if not begun.isalpha():  # a TLS handshake begins with 0x16; a real server does not wait for its end
                writer.write(response("400 Bad Request"))
                writer.write_eof()
                await until_closed(reader)
                return
            request = await receive(reader, begun)
            await asyncio.sleep(behaviour.seconds)
            writer.write(behaviour.reply if isinstance(behaviour.reply, bytes) else behaviour.reply(request))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError, ssl.SSLError):
            pass  # the peer has gone, which is its right
        finally:
            writer.transport.abort()


async def _bound(start: Callable[[], Awaitable[asyncio.Server]]) -> asyncio.Server:
    """Start a server where another has just been closed.

    A process that another thread starts at that moment holds the old socket, too, until it becomes its own program.
    """
    deadline = asyncio.get_running_loop().time() + _BIND_SECONDS
    while True:
        try:
            return await start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(0.01)


def usual_certificate(place: Place, certificates: Certificates) -> Certificate:
    """A good certificate for a site's names and addresses."""
    return certificates.issue(place.name, (*place.names, *place.ips))


@asynccontextmanager
async def serving(ip: str, port: int, conversation: Conversation, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
    """A server that has the same conversation with every peer, at a given address and port."""
    peers: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await conversation(reader, writer)
        except (OSError, EOFError):
            pass  # the peer has gone, which is its right
        finally:
            writer.transport.abort()

    def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(converse(reader, writer))
        peers.add(task)
        task.add_done_callback(peers.discard)

    server = await _bound(partial(asyncio.start_server, meet, ip, port, ssl=tls))
    try:
        yield
    finally:
        server.close()
        for peer in peers:
            peer.cancel()
        await asyncio.gather(*peers, return_exceptions=True)
