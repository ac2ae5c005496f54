"""Which IP addresses are private: those of clusters, VPNs and peerings, which mean something else in every network."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",  # RFC 1918
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # RFC 6598, carrier-grade NAT: VPNs and some clusters' pods
        "fc00::/7",  # RFC 4193, unique local
    )
)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=1024)
def ip_address(text: str) -> IpAddress | None:
    """An address without its scope, an IPv4 address inside IPv6 as itself; None where the text is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_private(address: IpAddress) -> bool:
    """Whether it belongs to a network of somebody's own."""
    return any(address.version == network.version and address in network for network in _PRIVATE)


def is_on_node(address: IpAddress) -> bool:
    """Whether it never leaves the pod or its link: loopback, link-local, unspecified."""
    return address.is_loopback or address.is_link_local or address.is_unspecified
