"""The world of the fault lab, and the verbs that break it.

Every verb returns a Change and registers it: whatever a scenario does not undo itself, `heal` undoes afterwards, the
newest first.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal

from tests.lab.certificates import Certificate, Certificates
from tests.lab.http_servers import Received
from tests.lab.misbehaving import Conversation
from tests.lab.nameservers import Script
from tests.lab.postgres import Postgres
from tests.lab.world.change import Change

Where = str | Sequence[str]
"""An address or network (`203.0.113.10`, `10.50.0.0/16`), or several; see places.py."""
HostName = Literal["pod", "node", "cluster", "vpn", "private", "internet"]
Refusal = Literal["port-unreachable", "admin-prohibited", "host-unreachable", "no-route", "tcp-reset"]


class World:
    """Network namespaces with real servers in them.

    Hosts: `pod` (the agent), `node` (its router: Services and policies), `cluster` (other pods, 10.244.2.0/24),
    `vpn` (the router before) `private` (10.50.0.0/16), `internet`.
    """

    certificates: Certificates
    """`certificates.ca_file` is what `${CA_FILE}` stands for in targets."""
    directory: Path
    """A scratch directory of this world's own. Every user can enter it."""

    # --- packets: a policy sees the pods behind a Service, not its ClusterIP -------------------------------------------

    def drop(self, to: Where, *, port: int | None = None, protocol: Literal["tcp", "udp"] | None = None) -> Change:
        """Drop what the pod sends there, as a NetworkPolicy does. Without a port: everything but neighbour discovery."""
        raise NotImplementedError

    def reject(
        self,
        to: Where,
        *,
        port: int | None = None,
        protocol: Literal["tcp", "udp"] | None = None,
        how: Refusal = "admin-prohibited",
    ) -> Change:
        """Refuse what the pod sends there, by an ICMP message or a RST of the router's own."""
        raise NotImplementedError

    def lose(self, percent: int, to: Where) -> Change:
        """Lose so many of the pod's packets on the way there, at random."""
        raise NotImplementedError

    def block_large_packets(self, to: Where, *, above: int = 1000) -> Change:
        """Drop packets to and from there that are longer than so many bytes, and tell nobody: a path MTU black hole."""
        raise NotImplementedError

    def slow_link(self, to: Where, seconds: float) -> Change:
        """Packets of the pod need so much longer on their way there. IPv4."""
        raise NotImplementedError

    # --- routes and addresses -----------------------------------------------------------------------------------------

    def remove_route(self, host: HostName, network: str) -> Change:
        """A host loses its route to a network (`default`, `10.50.0.0/16`): pod: at once an error; node: it tells the pod."""
        raise NotImplementedError

    def remove_address(self, host: HostName, ip: str) -> Change:
        """A host loses an address of its interface: who asks for it on the link gets no answer."""
        raise NotImplementedError

    def add_route(self, host: HostName, *route: str) -> Change:
        """`ip route replace …` on a host: `add_route("node", "unreachable", "203.0.113.0/24")`."""
        raise NotImplementedError

    def pod_without_ipv6(self) -> Change:
        """The pod has neither IPv6 address nor route."""
        raise NotImplementedError

    # --- Services -----------------------------------------------------------------------------------------------------

    def endpoints(self, service: str, *endpoints: str) -> Change:
        """Put these endpoints (`10.244.2.31:5432`) behind a Service of places.SERVICES; with none the node refuses."""
        raise NotImplementedError

    def add_service(self, name: str, cluster_ip: str, *endpoints: str) -> Change:
        """A new Service at `10.96.x.y:port`. Its name is another matter: see `records`."""
        raise NotImplementedError

    # --- names --------------------------------------------------------------------------------------------------------

    def records(self, names: Mapping[str, Sequence[str]]) -> Change:
        """Both nameservers hold these addresses for these names (none: no such name). Takes effect at once."""
        raise NotImplementedError

    def script_nameserver(self, number: Literal[1, 2], script: Script) -> Change:
        """One nameserver follows a script (tests.lab.nameservers: answering("SERVFAIL"), silent, late(…), by_name(…))."""
        raise NotImplementedError

    def script_nameservers(self, script: Script) -> Change:
        """Both do."""
        raise NotImplementedError

    @property
    def zone(self) -> Script:
        """What the nameservers usually say, to be used inside a script: `late(0.4, world.zone)`."""
        raise NotImplementedError

    def resolv_conf(self, text: str) -> Change:
        """Another resolv.conf for the pod: before the agent starts."""
        raise NotImplementedError

    # --- servers ------------------------------------------------------------------------------------------------------

    def stop(self, server: str) -> Change:
        """Stop a server: its host answers that nobody listens.

        nameserver-1, nameserver-2, kubernetes, internal-database, broker, web, workers, ledger, warehouse, wiki, api,
        shop, hooks, website, mirror, dual, six; a server with several addresses on all of them.
        """
        raise NotImplementedError

    def site(
        self,
        name: str,
        *,
        reply: bytes | Callable[[Received], bytes] | None = None,
        certificate: Certificate | None = None,
        tls: ssl.SSLContext | Literal[False] | None = None,
        seconds: float | None = None,
        port: int | None = None,
        ip: str | None = None,
    ) -> Change:
        """Change one of the HTTP servers (kubernetes, web, ledger, wiki, api, shop, hooks, website, mirror, dual, six).

        `reply`: other bytes for every request (tests.lab.http_servers.response); `certificate`: another certificate;
        `tls`: another context, False for plain text; `seconds`: how long it takes before it answers; `port`: it listens
        there instead; `ip`: only this one of its addresses changes.
        """
        raise NotImplementedError

    def certificate(self, site: str, **keys: Any) -> Certificate:
        """Issue a certificate for the names and addresses of a site: keys as those of Certificates.issue."""
        raise NotImplementedError

    def postgres(self, name: Literal["internal-database", "warehouse"]) -> Postgres:
        """The database server itself: psql(…), hba(…), reload(). What is changed by it must be undone by `undo`."""
        raise NotImplementedError

    def serve(
        self, host: HostName, ip: str, port: int, conversation: Conversation, *, tls: ssl.SSLContext | None = None
    ) -> Change:
        """A server of the scenario's own, at an address the host has (10.244.2.99, 203.0.113.99, 10.50.0.99 are free).

        On a port of a stopped server it takes its place. `conversation`: as in tests.lab.misbehaving.
        """
        raise NotImplementedError

    def run(self, host: HostName, server: Callable[[], AbstractAsyncContextManager[Any]]) -> Change:
        """Enter an asynchronous context manager in the event loop of a host: its sockets belong to that host."""
        raise NotImplementedError

    def process(self, host: HostName, *command: str | Path, port: int, user: str | None = None) -> Change:
        """Run a server process on a host, once it listens on that TCP port. It starts in `directory`."""
        raise NotImplementedError

    # --- the rest -----------------------------------------------------------------------------------------------------

    def execute(self, host: HostName, *command: str, stdin: str | None = None) -> str:
        """Run a command on a host and return its standard output."""
        raise NotImplementedError

    @property
    def agent_pid(self) -> int:
        """The agent's process: for SIGSTOP and SIGCONT."""
        raise NotImplementedError

    def undo(self, work: Callable[[], object]) -> Change:
        """Register what puts something back that a scenario has changed by itself."""
        raise NotImplementedError
