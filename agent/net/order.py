"""The order in which a host's addresses are tried: RFC 6724 section 6, as glibc's getaddrinfo(3) applies it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

_Key = tuple[bool, bool, bool, int, int, int]


ORDERED = 64
"""How many addresses are put in order at most, the first ones: an answer over TCP has room for thousands, and to ask
for a route to each of them would hold up every other run."""


def _table(*rows: tuple[str, int]) -> tuple[tuple[ipaddress.IPv6Network, int], ...]:
    return tuple((ipaddress.IPv6Network(prefix), value) for prefix, value in rows)


# glibc's defaults (sysdeps/posix/getaddrinfo.c), which keep to RFC 3484 where RFC 6724 changed them. It matters:
# private IPv6 (fc00::/7, as many clusters have it) is tried before IPv4, not after.
_PRECEDENCE = _table(("::1/128", 50), ("2002::/16", 30), ("::/96", 20), ("::ffff:0:0/96", 10), ("::/0", 40))
_LABEL = _table(
    ("::1/128", 0),
    ("2002::/16", 2),
    ("::/96", 3),
    ("::ffff:0:0/96", 4),
    ("fec0::/10", 5),
    ("fc00::/7", 6),
    ("2001::/32", 7),
    ("::/0", 1),
)

_LINK_LOCAL, _SITE_LOCAL, _GLOBAL = 0x2, 0x5, 0xE  # RFC 4291 section 2.7
_SOME_PORT = 9
"""Nothing is sent to it: the kernel is asked for a route."""


def ordered(ips: Sequence[str]) -> list[str]:
    """The addresses, the best first; equally good ones, and those beyond ORDERED, stay in the order they came in."""
    if len(ips) == 1:
        return list(ips)
    return [*sorted(ips[:ORDERED], key=_key), *ips[ORDERED:]]


def _key(ip: str) -> _Key:
    destination = _as_v6(ip)
    source_ip = _source(ip)
    if source_ip is None:
        return (True, True, True, 0, 0, 0)  # rule 1: avoid unusable destinations
    source = _as_v6(source_ip)
    return (
        False,
        _scope(destination) != _scope(source),  # rule 2
        _longest_match(destination, _LABEL) != _longest_match(source, _LABEL),  # rule 5
        -_longest_match(destination, _PRECEDENCE),  # rule 6
        _scope(destination),  # rule 8
        -_common_bits(destination, source),  # rule 9
    )


def _source(ip: str) -> str | None:
    """The address the kernel would send from; None where there is no way to the destination."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((ip, _SOME_PORT))
            return str(sock.getsockname()[0])
    except OSError:
        return None


def _as_v6(ip: str) -> ipaddress.IPv6Address:
    address = ipaddress.ip_address(ip.partition("%")[0])
    return ipaddress.IPv6Address(f"::ffff:{address}") if address.version == 4 else address  # noqa: PLR2004


def _longest_match(address: ipaddress.IPv6Address, table: Sequence[tuple[ipaddress.IPv6Network, int]]) -> int:
    return max((row for row in table if address in row[0]), key=lambda row: row[0].prefixlen)[1]


def _scope(address: ipaddress.IPv6Address) -> int:
    mapped = address.ipv4_mapped
    if mapped is not None:
        return _LINK_LOCAL if mapped.is_link_local or mapped.is_loopback else _GLOBAL
    if address.is_link_local or address.is_loopback:
        return _LINK_LOCAL
    return _SITE_LOCAL if address.is_site_local else _GLOBAL


def _common_bits(destination: ipaddress.IPv6Address, source: ipaddress.IPv6Address) -> int:
    """How long a prefix two IPv6 addresses share. libc's like rule for IPv4, within one subnet, is left out."""
    if destination.ipv4_mapped is not None:
        return 0
    different = int(destination) ^ int(source)
    return 128 - different.bit_length()
