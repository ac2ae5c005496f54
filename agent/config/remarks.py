"""What may be loaded and is better done in another way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from agent.model import Role, Target
from agent.networks import ip_address, is_private

_GIVEN_ADDRESSES = frozenset({Role.NAMESERVER, Role.KUBERNETES_API})
"""What a pod knows by its address and by nothing else: resolv.conf and the environment name it so."""


@dataclass(frozen=True, slots=True)
class HardcodedAddress:
    """A target whose host is a private address, written as a number."""

    target: Target[Any]
    ip: str

    @property
    def text(self) -> str:
        return (
            f"expected the name of a Service, got the private address {self.ip}: addresses of pods, Services and hosts "
            "move. A Service can stand for a database outside the cluster as well: docs/runbook.md#hardcoded_address"
        )


def hardcoded_addresses(targets: Iterable[Target[Any]]) -> Iterator[HardcodedAddress]:
    """Every target that will fail, or worse, ask somebody else, once an address has moved."""
    for target in targets:
        host = target.options.host
        # A dns target names a nameserver, which has no other name; what must not be reachable is told by its address.
        if target.type == "dns" or target.negative or target.role in _GIVEN_ADDRESSES or host is None:
            continue
        address = ip_address(host)
        if address is not None and is_private(address):
            yield HardcodedAddress(target, host)
