"""The world of the fault lab, and the verbs that break it.

Every verb returns a Change and registers it: whatever a scenario does not undo itself, `heal` undoes afterwards, the
newest first.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.lab.certificates import DAY, Certificate, Certificates
from tests.lab.http_servers import Received
from tests.lab.misbehaving import Conversation
from tests.lab.nameservers import Script
from tests.lab.world import leftovers, places, servers, wiring
from tests.lab.world.agent import Agent
from tests.lab.world.change import Change
from tests.lab.world.hosts import until
from tests.lab.world.names import Names, answers
from tests.lab.world.node import Node, Protocol, Refusal, Where, both_ways, from_pod, networks
from tests.lab.world.relay import delaying
from tests.lab.world.servers import Database, Listeners, Redis, Startable
from tests.lab.world.sites import PLACES, Site, serving

HostName = Literal["pod", "node", "cluster", "vpn", "private", "internet"]

_RESOLV_CONF = (
    "".join(f"nameserver {ip}\n" for ip in places.NAMESERVER_SERVICES)
    + "search airflow.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:1 attempts:2\n"
)
_HEALTH_SECONDS = 10.0
_REFUSALS: Mapping[str, str] = {
    "tcp-reset": "meta l4proto tcp reject with tcp reset",
    **{
        how: f"reject with icmpx {how}"
        for how in ("port-unreachable", "admin-prohibited", "host-unreachable", "no-route")
    },
}


class World:
    """Network namespaces with real servers in them.

    Hosts: `pod` (the agent), `node` (its router: Services and policies), `cluster` (other pods, 10.244.2.0/24),
    `vpn` (the router before) `private` (10.50.0.0/16), `internet`.
    """

    def __init__(self, database: Path) -> None:
        """Build it and start its servers. `database` is a template (servers.template) to be copied.

        Call it, and everything else, from one thread that outlives the world: see Host.start.
        """
        self.name = leftovers.new_name()
        self.is_healed = True
        """Whether all is as it was built."""
        self._changes: list[Change] = []
        self._agent: Agent | None = None
        with ExitStack() as undo:
            self.directory = Path(tempfile.gettempdir(), self.name)
            """A scratch directory of this world's own. Every user can enter it."""
            self.directory.mkdir(mode=0o711)
            undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.certificates = Certificates(self.directory)
            """An authority of this world's own. `certificates.ca_file` is what `${CA_FILE}` stands for in targets."""
            self.hosts = wiring.build(self.name, undo)
            self._etc = leftovers.ETC / self.hosts["pod"].name
            self._etc.mkdir(parents=True)
            undo.callback(shutil.rmtree, self._etc, ignore_errors=True)
            self._write_resolv_conf(_RESOLV_CONF)
            self._node = Node(self.hosts["node"])
            self.names = Names(self.hosts["cluster"], self._node, self.directory)
            self.sites = {place.name: Site(place, self.hosts[place.host], self.certificates) for place in PLACES}
            self._databases = {
                name: Database(self.directory / name, database, self.hosts[host], ips)
                for name, host, ips in (
                    (
                        "internal-database",
                        "cluster",
                        (places.DATABASE_IP, places.DATABASE_IP_AFTER_MOVE, places.METADATA_IP),
                    ),
                    ("warehouse", "private", (places.WAREHOUSE_IP,)),
                )
            }
            for name, server in self._databases.items():
                server.install(self.certificates.issue(name, (*servers.DATABASE_NAMES, *servers.DATABASE_IPS)))
            cluster = self.hosts["cluster"]
            self.servers: dict[str, Startable] = {
                "nameserver-1": self.names.server(1),
                "nameserver-2": self.names.server(2),
                **self.sites,
                **self._databases,
                "broker": Redis(cluster, "10.244.2.40", self.directory / "redis"),
                "workers": Listeners(cluster, ("10.244.2.70", "10.244.2.71"), 8793),
            }
            for startable in self.servers.values():
                startable.start()
                undo.callback(startable.stop)
            for startable in self.servers.values():
                startable.wait_until_ready()
            self._usual = self._configuration()
            self.check()
            self._close = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close.close()

    # --- packets ------------------------------------------------------------------------------------------------------
    # A policy sees the pods behind a Service; rules for an address of a Service match what was asked of it.

    def drop(self, to: Where, *, port: int | None = None, protocol: Protocol | None = None) -> Change:
        """Drop what the pod sends there, as a NetworkPolicy does. Without port and protocol: every packet."""
        return self._keep(self._node.policy(*from_pod(to, "drop", port=port, protocol=protocol)))

    def reject(
        self,
        to: Where,
        *,
        port: int | None = None,
        protocol: Protocol | None = None,
        how: Refusal = "admin-prohibited",
    ) -> Change:
        """Refuse what the pod sends there, by an ICMP message or a RST of the router's own."""
        return self._keep(self._node.policy(*from_pod(to, _REFUSALS[how], port=port, protocol=protocol)))

    def lose(self, percent: int, to: Where) -> Change:
        """Lose so many of the pod's packets on the way there, at random."""
        return self._keep(self._node.policy(*from_pod(to, f"numgen random mod 100 < {percent} drop")))

    def block_large_packets(self, to: Where, *, above: int = 1000) -> Change:
        """Drop packets to and from there that are longer than so many bytes, and tell nobody: a path MTU black hole."""
        return self._keep(self._node.policy(*both_ways(to, f"meta length > {above} drop")))

    def slow_link(self, to: Where, seconds: float) -> Change:
        """Packets of the pod need so much longer on their way there (to endpoints, not to a Service). IPv4."""
        node = self.hosts["node"]
        ips = [str(network) for network in networks(to)]
        delay = node.enter(lambda: delaying("delay", seconds))
        node.ip(
            "link set delay up",
            "route replace default dev delay table 77",
            *(f"rule add iif pod to {ip} lookup 77 priority 77" for ip in ips),
        )

        def undo() -> None:
            node.ip(*(f"rule delete iif pod to {ip} lookup 77 priority 77" for ip in ips))
            delay.undo()

        return self.undo(undo)

    # --- routes and addresses -----------------------------------------------------------------------------------------

    def remove_route(self, host: HostName, network: str) -> Change:
        """A host loses its route to a network (`default`, `10.50.0.0/16`, `::/0`): the node then tells the pod so."""
        where, family = self.hosts[host], "-6" if ":" in network else "-4"
        routes = where.run("ip", family, "route", "show", network).splitlines()
        assert routes, f"expected {host} to have a route to {network}"
        for route in routes:
            where.run("ip", family, "route", "delete", *route.split())
        return self.undo(lambda: [where.run("ip", family, "route", "add", *route.split()) for route in routes])

    def add_route(self, host: HostName, *route: str) -> Change:
        """`ip route add …` on a host: `add_route("node", "unreachable", "203.0.113.10")`."""
        where, family = self.hosts[host], "-6" if any(":" in word for word in route) else "-4"
        where.run("ip", family, "route", "add", *route)
        return self.undo(lambda: where.run("ip", family, "route", "delete", *route))

    def remove_address(self, host: HostName, ip: str) -> Change:
        """A host loses an address of its interface: whoever asks for it on the link gets no answer."""
        where = self.hosts[host]
        line = next(line for line in where.run("ip", "-o", "address").splitlines() if f" {ip}/" in line).split()
        device, address = line[1], line[3]
        where.ip(f"address delete {address} dev {device}")

        def undo() -> None:
            where.ip(f"address add {address} dev {device}" + (" nodad" if ":" in ip else ""))
            self._forget_neighbour(ip)

        change = self.undo(undo)
        self._forget_neighbour(ip)
        return change

    def _forget_neighbour(self, ip: str) -> None:
        """Let every host ask anew whose address this is."""
        for host in self.hosts.values():
            host.run("ip", "-6" if ":" in ip else "-4", "neighbour", "flush", "to", ip)

    def pod_without_ipv6(self) -> Change:
        """The pod has neither IPv6 address nor route."""
        pod, switch = self.hosts["pod"], "/proc/sys/net/ipv6/conf/eth0/disable_ipv6"
        pod.run("sh", "-c", f"echo 1 >{switch}")

        def undo() -> None:
            pod.run("sh", "-c", f"echo 0 >{switch}")
            pod.ip(f"address add {places.POD_IP6}/64 dev eth0 nodad", *wiring.POD_ROUTES6)

        return self.undo(undo)

    # --- Services -----------------------------------------------------------------------------------------------------

    def endpoints(self, service: str, *endpoints: str) -> Change:
        """Put these endpoints (`10.244.2.31:5432`) behind a Service of places.SERVICES; with none the node refuses."""
        return self._keep(self._node.endpoints(service, endpoints))

    def add_service(self, name: str, address: str, *endpoints: str) -> Change:
        """A new Service at `10.96.x.y:port`. Its name is another matter: see `records`."""
        return self._keep(self._node.service(name, address, endpoints))

    # --- names --------------------------------------------------------------------------------------------------------

    def records(self, names: Mapping[str, Sequence[str]]) -> Change:
        """Both nameservers hold these addresses for these names (none: no such name). Takes effect at once."""
        return self._keep(self.names.hold(names))

    def script_nameserver(self, number: Literal[1, 2], script: Script) -> Change:
        """One nameserver follows a script of tests.lab.nameservers: answering("SERVFAIL"), silent, late(…)."""
        return self._keep(self.names.script(number, script))

    def script_nameservers(self, script: Script) -> Change:
        """Both do."""
        first, second = self.script_nameserver(1, script), self.script_nameserver(2, script)

        def undo() -> None:
            second.undo()
            first.undo()

        return Change(undo)

    @property
    def zone(self) -> Script:
        """What the nameservers say now, to be used inside a script: `late(0.4, world.zone)`."""
        return self.names.as_script

    def resolv_conf(self, text: str) -> Change:
        """Another resolv.conf for the pod: before the agent starts."""
        self._write_resolv_conf(text)
        return self.undo(lambda: self._write_resolv_conf(_RESOLV_CONF))

    def _write_resolv_conf(self, text: str) -> None:
        (self._etc / "resolv.conf").write_text(text)

    # --- servers ------------------------------------------------------------------------------------------------------

    def stop(self, server: str) -> Change:
        """Stop a server: its host answers that nobody listens.

        nameserver-1, nameserver-2, internal-database, warehouse, broker, workers, and the sites (kubernetes, web,
        ledger, wiki, api, shop, hooks, website, mirror, dual, six).
        """
        subject = self.servers[server]
        subject.stop()

        def undo() -> None:
            subject.start()
            subject.wait_until_ready()

        return self.undo(undo)

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
        """Change one of the sites, at all of its addresses or at one.

        `reply`: other bytes for every request (tests.lab.http_servers.response); `certificate`: another certificate;
        `tls`: another context, False for plain text; `seconds`: how long it takes before it answers; `port`: it listens
        there instead.
        """
        subject = self.sites[name]
        return self.undo(
            subject.behave(
                subject.place.ips if ip is None else (ip,),
                reply=reply,
                tls=certificate.server_context() if certificate is not None else tls,
                seconds=seconds,
                port=port,
            )
        )

    def certificate(self, site: str, **keys: Any) -> Certificate:
        """Issue a certificate for the names and addresses of a site: keys as those of Certificates.issue."""
        place = self.sites[site].place
        return self.certificates.issue(f"{site}-another", (*place.names, *place.ips), **keys)

    def expired_certificate(self, site: str) -> Certificate:
        """What the certificate of a site is like a day after its end."""
        return self.certificate(site, begins=-30 * DAY, ends=-DAY)

    def certificate_for(self, *names: str) -> Certificate:
        """A good certificate for other names."""
        return self.certificates.issue(names[0], names)

    def postgres(self, name: Literal["internal-database", "warehouse"]) -> Database:
        """The database server itself: psql(…), hba(…), reload(). Register by `undo` what puts back a change made so."""
        return self._databases[name]

    def serve(
        self, host: HostName, ip: str, port: int, conversation: Conversation, *, tls: ssl.SSLContext | None = None
    ) -> Change:
        """A server of the scenario's own, at an address the host has (10.244.2.99, 203.0.113.99, 10.50.0.99 are free).

        On a port of a stopped server it takes its place. `conversation`: as in tests.lab.misbehaving.
        """
        return self.run(host, lambda: serving(ip, port, conversation, tls))

    def run(self, host: HostName, server: Callable[[], AbstractAsyncContextManager[Any]]) -> Change:
        """Enter an asynchronous context manager in the event loop of a host: its sockets belong to that host."""
        return self._keep(self.hosts[host].enter(server))

    def process(self, host: HostName, *command: str | Path, port: int, env: Mapping[str, str] | None = None) -> Change:
        """Run a server process on a host, in `directory`, and wait until somebody listens on that TCP port there."""
        where = self.hosts[host]
        process = where.start(*command, log=self.directory / f"{host}-{port}.log", cwd=self.directory, env=env)
        change = self.undo(process.stop)
        process.until(lambda: where.run("ss", "-Hlnt", f"sport = :{port}"))
        return change

    # --- the agent ----------------------------------------------------------------------------------------------------

    def start_agent(
        self, targets: Sequence[Mapping[str, Any]], variables: Mapping[str, str], settings: Mapping[str, Any]
    ) -> Agent:
        """Start `netprobe run` in the pod, and wait until it serves; `heal` ends it."""
        agent = self._agent = Agent(
            self.hosts["pod"],
            self.directory,
            targets=targets,
            ca_file=self.certificates.ca_file,
            variables=variables,
            settings=settings,
        )
        self.undo(agent.stop)
        agent.wait_until_started()
        return agent

    @property
    def agent(self) -> Agent:
        """The one that was started last: its `pid`, its `log`."""
        assert self._agent is not None
        return self._agent

    # --- the rest -----------------------------------------------------------------------------------------------------

    def execute(self, host: HostName, *command: str, stdin: str | None = None) -> str:
        """Run a command on a host and return its standard output."""
        return self.hosts[host].run(*command, stdin=stdin)

    def undo(self, work: Callable[[], object]) -> Change:
        """Register what puts something back that a scenario has changed by itself."""
        return self._keep(Change(work))

    def _keep(self, change: Change) -> Change:
        self.is_healed = False
        self._changes.append(change)
        return change

    def mark(self) -> int:
        """A point to go back to by `undo_since`."""
        return len(self._changes)

    def undo_since(self, mark: int) -> None:
        """Undo the changes made since then, the newest first."""
        errors = []
        while len(self._changes) > mark:
            try:
                self._changes.pop().undo()
            except Exception as error:  # noqa: BLE001 - the others must be undone as well
                errors.append(error)
        if errors:
            seen = "; ".join(f"{type(error).__name__}: {error}" for error in errors)
            raise ExceptionGroup(f"expected every change to be undone, got {seen}", errors)

    def heal(self) -> None:
        """Undo every change, and check that all is as it was."""
        self.undo_since(0)
        self.check()
        self.is_healed = True

    def check(self) -> None:
        """Fail unless every host is configured as at the beginning, and every server answers the pod."""
        seen = self._configuration()
        for name, usual in self._usual.items():
            assert seen[name] == usual, f"expected {name} of {self.name} to be as it was: {sorted(seen[name] ^ usual)}"
        addresses = [
            *(service.rpartition(":")[::2] for service, endpoints in places.SERVICES.values() if endpoints),
            *((ip, str(site.place.port)) for site in self.sites.values() for ip in site.place.ips),
            *((ip, "8793") for ip in places.NAMES["workers.airflow.svc.cluster.local"]),
            (places.WAREHOUSE_IP, "5432"),
        ]
        reached = [address for address in addresses if address[0] != "10.96.1.90"]
        pod = self.hosts["pod"]
        refusals = [text for text in pod.call(_connect_to_all(reached)) if text]
        assert not refusals, f"expected every server of {self.name} to answer the pod: {refusals}"
        for ip in places.NAMESERVER_SERVICES:  # over UDP, where one lost answer is nobody's fault
            until(partial(pod.inside, partial(answers, ip)), f"{ip} of {self.name} to answer", _HEALTH_SECONDS)

    def _configuration(self) -> dict[str, frozenset[str]]:
        """What each host's addresses, routes and rules are."""
        show = "ip -o address show scope global; ip route; ip -6 route; ip rule; ip -o link show type tun"
        return {name: frozenset(host.run("sh", "-c", show).splitlines()) for name, host in self.hosts.items()}


async def _connect_to_all(addresses: Sequence[tuple[str, str]]) -> list[str]:
    """For each address, why it cannot be connected to; empty where it can."""

    async def connect(ip: str, port: str) -> str:
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                _, writer = await asyncio.open_connection(ip, int(port))
        except OSError as error:
            return f"{ip}:{port}: {error!r}"
        writer.transport.abort()
        return ""

    return await asyncio.gather(*(connect(ip, port) for ip, port in addresses))
