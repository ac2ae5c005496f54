"""Where a target lives, guessed from its address."""

from __future__ import annotations

import ipaddress

from agent.model import Scope

_PRIVATE_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",  # RFC 1918
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # RFC 6598, carrier-grade NAT: VPNs and some clusters' pods
        "fc00::/7",  # RFC 4193, unique local
    )
)
_PRIVATE_ZONES = (".internal", ".local", ".home.arpa")


def scope_of(host: str | None) -> Scope:
    """Derive the scope from the host an address names; None stands for the pod's own resolver.

    cluster: loopback and link-local addresses, single-label names (the search list completes them), `*.svc`,
    `*.svc.*` and `*.cluster.local`. private: RFC 1918, RFC 6598 and unique local addresses, names in zones reserved
    for private use. public: the rest. An address alone does not tell a Service or a pod from a VPN: such a target says
    `scope: cluster` itself.
    """
    if host is None:
        return Scope.CLUSTER
    address = _address(host)
    if address is None:
        return _scope_of_name(host)
    if address.is_loopback or address.is_link_local or address.is_unspecified:
        return Scope.CLUSTER
    return Scope.PRIVATE if _private(address) else Scope.PUBLIC


def is_private_address(host: str) -> bool:
    """Whether a host is an IP address of a private network: not a name, not public, not this host or its link."""
    address = _address(host)
    return address is not None and _private(address)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host is; None where it is a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address.version == network.version and address in network for network in _PRIVATE_NETWORKS)


def _scope_of_name(host: str) -> Scope:
    name = host.removesuffix(".").lower()
    labels = name.split(".")
    if len(labels) == 1 or "svc" in labels[1:] or name.endswith(".cluster.local"):
        return Scope.CLUSTER
    if name.endswith(_PRIVATE_ZONES):
        return Scope.PRIVATE
    return Scope.PUBLIC
