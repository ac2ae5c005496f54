"""The cluster's two nameservers: knot, with one zone that holds every name of the world: no other exists."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import dnslib

from tests.lab.nameservers import Nameserver, Script
from tests.lab.nameservers import zone as scripted
from tests.lab.world.change import Change
from tests.lab.world.hosts import Host, Process
from tests.lab.world.node import Node
from tests.lab.world.places import NAMES, NAMESERVER_PODS

SCRIPTED_PODS = ("10.244.2.12", "10.244.2.13")
"""Where a scripted nameserver listens: its Service leads there instead of to knot."""

_ANSWER_SECONDS = 0.2

_KNOT = """
server:
  rundir: {directory}
  listen: {ip}@53
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: {directory}
zone:
  - domain: .
    file: {directory}/all.zone
    semantic-checks: off
    zonefile-load: whole
    journal-content: none
"""


class Names:
    """What the nameservers hold, and both of them: to be started."""

    def __init__(self, cluster: Host, node: Node, directory: Path) -> None:
        self._cluster = cluster
        self._node = node
        self._records: dict[str, tuple[str, ...]] = dict(NAMES)
        self._serial = itertools.count(1)
        self._servers = [Knot(cluster, ip, directory / f"knot-{ip}") for ip in NAMESERVER_PODS]
        for server in self._servers:
            server.write(self._zone())

    def server(self, number: int) -> Knot:
        """The first or the second."""
        return self._servers[number - 1]

    def hold(self, names: Mapping[str, Sequence[str]]) -> Change:
        """Both hold these addresses for these names; with none there is no such name."""
        before = dict(self._records)
        self._records.update({name: tuple(addresses) for name, addresses in names.items()})

        def undo() -> None:
            self._records = before
            self._reload()

        change = Change(undo)
        self._reload()
        return change

    def script(self, number: int, script: Script) -> Change:
        """Let a nameserver that follows a script answer in the place of this one."""
        ip = SCRIPTED_PODS[number - 1]
        serving = self._cluster.enter(lambda: Nameserver(script, ip=ip, port=53))
        try:
            leading = self._node.endpoints(f"nameserver-{number}", [f"{ip}:53"])
        except BaseException:
            serving.undo()
            raise

        def undo() -> None:
            leading.undo()
            serving.undo()

        return Change(undo)

    @property
    def as_script(self) -> Script:
        """What they say, as a script."""
        return scripted("\n".join(self._lines()))

    def _reload(self) -> None:
        for server in self._servers:
            server.write(self._zone())
            server.reload()

    def _lines(self) -> list[str]:
        return [
            f"{name}. 5 IN {'AAAA' if ipaddress.ip_address(address).version == 6 else 'A'} {address}"
            for name, addresses in self._records.items()
            for address in addresses
        ]

    def _zone(self) -> str:
        soa = f". 5 IN SOA ns.nowhere. admin.nowhere. {next(self._serial)} 3600 600 86400 5"
        return "\n".join((soa, ". 5 IN NS ns.nowhere.", "ns.nowhere. 5 IN A 10.244.2.10", *self._lines(), ""))


class Knot:
    """One nameserver."""

    def __init__(self, host: Host, ip: str, directory: Path) -> None:
        self._host = host
        self._ip = ip
        self._directory = directory
        self._process: Process | None = None
        directory.mkdir()
        (directory / "knot.conf").write_text(_KNOT.format(directory=directory, ip=ip))

    def write(self, zone: str) -> None:
        """Put down a zone, for the start or for `reload`."""
        (self._directory / "all.zone").write_text(zone)

    def start(self) -> None:
        command = ("knotd", "--config", self._directory / "knot.conf")
        self._process = self._host.start(*command, log=self._directory / "log", cwd=self._directory)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        assert self._process is not None
        self._process.until(lambda: self._host.inside(lambda: answers(self._ip)))

    def reload(self) -> None:
        """Take the zone that has been written; a stopped server takes it when it starts."""
        if self._process is not None:
            self._host.run("knotc", "--blocking", "--socket", self._directory / "knot.sock", "zone-reload", ".")


def answers(ip: str) -> bool:
    """Whether a nameserver there tells where the Kubernetes API is: asked from where the calling thread is."""
    with suppress(OSError):
        question = dnslib.DNSRecord.question("kubernetes.default.svc.cluster.local")
        return bool(dnslib.DNSRecord.parse(question.send(ip, 53, timeout=_ANSWER_SECONDS)).rr)
    return False
