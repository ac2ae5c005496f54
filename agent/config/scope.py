"""Where a target lives, guessed from its address."""

from __future__ import annotations

from agent.model import Scope
from agent.networks import ip_address, is_on_node, is_private

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
    address = ip_address(host)
    if address is None:
        return _scope_of_name(host)
    if is_on_node(address):
        return Scope.CLUSTER
    return Scope.PRIVATE if is_private(address) else Scope.PUBLIC


def _scope_of_name(host: str) -> Scope:
    name = host.removesuffix(".").lower()
    labels = name.split(".")
    if len(labels) == 1 or "svc" in labels[1:] or name.endswith(".cluster.local"):
        return Scope.CLUSTER
    if name.endswith(_PRIVATE_ZONES):
        return Scope.PRIVATE
    return Scope.PUBLIC
