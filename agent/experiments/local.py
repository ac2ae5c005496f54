"""This pod's own tables, as the kernel shows them under /proc/net: routes, neighbours, addresses, counters.

Whatever is missing or damaged there is left out. Of IPv6 neighbours /proc shows nothing.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import itertools
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.diagnosis.experiment import Gateway, LocalTables
from agent.net.address import Address

TABLES = Path("/proc/thread-self/net")
"""Those of the network namespace this thread is in."""
_READ_BYTES = 256 * 1024
"""A node with the network of its own (hostNetwork) may have tables of any length."""

# linux/route.h, linux/ipv6_route.h, linux/if_arp.h, linux/if_addr.h, net/ipv6.h
_ROUTE_UP, _ROUTE_GATEWAY, _ROUTE_REJECT = 0x1, 0x2, 0x200
_NEIGHBOUR_COMPLETE = 0x2
_SCOPE_GLOBAL = 0x00
_ADDRESS_UNUSABLE = 0x08 | 0x40
"""Duplicate, or not yet known not to be."""

_DISCARD_PORT = 9
_NO_WAY = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES, errno.EINVAL}
)
"""unreachable, prohibit and blackhole routes among them."""


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A way to everywhere."""

    version: int
    """4 or 6."""
    gateway: str | None
    """None where it leads straight out of an interface."""
    metric: int


class LocalNetworkTables:
    """Looks at the tables, and remembers the counters of the previous look."""

    def __init__(self, directory: Path = TABLES) -> None:
        self._directory = directory
        self._counted = self._segments()

    def look(self, addresses: Iterable[str]) -> LocalTables:
        """Read everything now; `addresses` are those whose route is in question."""
        before, (sent, again) = self._counted, self._segments()
        self._counted = sent, again
        routes = [*default_routes(self._read("route")), *default_routes_v6(self._read("ipv6_route"))]
        routes.sort(key=lambda route: (route.version, route.metric))
        neighbours = neighbours_of(self._read("arp"))
        gateways = dict.fromkeys(route.gateway for route in routes if route.gateway is not None)
        return LocalTables(
            gateways=tuple(Gateway(ip, neighbours.get(ip)) for ip in gateways),
            unrouted=tuple(ip for ip in dict.fromkeys(addresses) if not routed(ip)),
            global_ipv6=has_global_ipv6(self._read("if_inet6")),
            sent_segments=max(0, sent - before[0]),
            retransmitted_segments=max(0, again - before[1]),
            default_routes=tuple(sorted({route.version for route in routes})) if self._read("route") else None,
        )

    def unreachable_count(self) -> int | None:
        """How many ICMP messages of unreachable destinations have come in; None where that is not told."""
        count = counters(self._read("snmp")).get("Icmp.InDestUnreachs")
        if count is None:
            return None
        return count + counters_v6(self._read("snmp6")).get("Icmp6InDestUnreachs", 0)

    def _segments(self) -> tuple[int, int]:
        """TCP segments sent, and those among them that were sent again; the kernel counts the two apart."""
        tcp = counters(self._read("snmp"))
        again = tcp.get("Tcp.RetransSegs", 0)
        return tcp.get("Tcp.OutSegs", 0) + again, again

    def _read(self, name: str) -> str:
        try:
            with (self._directory / name).open("rb") as file:
                return file.read(_READ_BYTES).decode("ascii", "replace")
        except OSError:
            return ""


def default_routes(text: str) -> Iterator[DefaultRoute]:
    """Those of /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask …, in the CPU's order."""
    for line in text.splitlines():
        with contextlib.suppress(ValueError, struct.error):
            _, destination, gateway, flags, _, _, metric, mask, *_ = line.split()
            if int(destination, 16) == 0 == int(mask, 16) and _leads(int(flags, 16)):
                ip = ipaddress.IPv4Address(struct.pack("=I", int(gateway, 16)))
                yield DefaultRoute(4, None if ip.is_unspecified else str(ip), int(metric))


def default_routes_v6(text: str) -> Iterator[DefaultRoute]:
    """Those of /proc/net/ipv6_route: destination length source length next-hop metric refcnt use flags iface."""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            destination, length, _, _, gateway, metric, _, _, flags, _ = line.split()
            if int(destination, 16) == 0 == int(length, 16) and _leads(int(flags, 16)):
                ip = ipaddress.IPv6Address(bytes.fromhex(gateway))
                yield DefaultRoute(6, None if ip.is_unspecified else str(ip), int(metric, 16))


def _leads(flags: int) -> bool:
    return bool(flags & _ROUTE_UP) and not flags & _ROUTE_REJECT


def neighbours_of(text: str) -> Mapping[str, bool]:
    """The IPv4 neighbours of /proc/net/arp, and whether each has told its link-layer address."""
    found: dict[str, bool] = {}
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            ip, _, flags, *_ = line.split()
            found[str(ipaddress.IPv4Address(ip))] = bool(int(flags, 16) & _NEIGHBOUR_COMPLETE)
    return found


def has_global_ipv6(text: str) -> bool:
    """Whether /proc/net/if_inet6 has an address that reaches beyond its link: address index length scope flags name."""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            address, _, _, scope, flags, _ = line.split()
            ip = ipaddress.IPv6Address(bytes.fromhex(address))
            usable = not int(flags, 16) & _ADDRESS_UNUSABLE
            if int(scope, 16) == _SCOPE_GLOBAL and usable and not (ip.is_loopback or ip.is_unspecified):
                return True
    return False


def counters(text: str) -> Mapping[str, int]:
    """/proc/net/snmp: a line of names, and below it one of numbers, each beginning with `Tcp:` or the like."""
    found: dict[str, int] = {}
    for above, below in itertools.pairwise(text.splitlines()):
        (protocol, _, names), (same, _, numbers) = above.partition(":"), below.partition(":")
        if protocol == same:
            for name, number in zip(names.split(), numbers.split(), strict=False):
                with contextlib.suppress(ValueError):
                    found.setdefault(f"{protocol}.{name}", int(number))
    return found


def counters_v6(text: str) -> Mapping[str, int]:
    """/proc/net/snmp6: a name and a number a line."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            name, number = line.split()
            found[name] = int(number)
    return found


def routed(ip: str) -> bool:
    """Whether there is a way to an address by the routes of this pod, whatever tables and rules they stand in.

    A datagram's socket is connected: the kernel looks its route up, and sends nothing.
    """
    address = Address(ip, _DISCARD_PORT)
    try:
        with socket.socket(address.family, socket.SOCK_DGRAM) as sock:
            sock.connect((address.ip, address.port))
    except OSError as error:
        return error.errno not in _NO_WAY
    return True
