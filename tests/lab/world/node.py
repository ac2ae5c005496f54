"""The node's packet filter: Services as kube-proxy makes them, and what a network policy would do to the pod.

The rules are held here and put in place as a whole, so that undoing one cannot depend on the order of the others.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from tests.lab.world.change import Change
from tests.lab.world.hosts import Host
from tests.lab.world.places import METADATA_IP, SERVICES, SERVICES_NETWORK

Where = str | Sequence[str]
"""An address or network (`203.0.113.10`, `10.50.0.0/16`), or several; see places.py."""
Refusal = Literal["port-unreachable", "admin-prohibited", "host-unreachable", "no-route", "tcp-reset"]
Protocol = Literal["tcp", "udp"]

_TABLE = """
add table inet lab
delete table inet lab
table inet lab {{
  {services}
  map services {{
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ {elements} }}
  }}
  chain untracked {{
    type filter hook prerouting priority raw
    iifname "delay" notrack
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    ip daddr . meta l4proto . th dport vmap @services
  }}
  chain policies {{
    {policies}
  }}
  chain forward {{
    type filter hook forward priority filter
    jump policies
    ip daddr {cluster_ips} reject comment "no endpoints, or no such port"
  }}
}}
"""


class Node:
    """The packet filter of the host between the pod and everything else."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._services = {name: (address, endpoints) for name, (address, endpoints) in SERVICES.items()}
        self._number = itertools.count()
        # Airflow 3: a worker must not reach the metadata database.
        self._policies = {next(self._number): [f'iifname "pod" ip daddr {METADATA_IP} drop']}
        self._apply()

    def service(self, name: str, address: str, endpoints: Sequence[str]) -> Change:
        """Have this Service, in place of the one of that name."""
        before = self._services.get(name)
        self._services[name] = (address, tuple(endpoints))

        def undo() -> None:
            if before is None:
                del self._services[name]
            else:
                self._services[name] = before
            self._apply()

        change = Change(undo)
        self._apply()
        return change

    def endpoints(self, name: str, endpoints: Sequence[str]) -> Change:
        """Put these endpoints behind a Service there is."""
        return self.service(name, self._services[name][0], endpoints)

    def policy(self, *rules: str) -> Change:
        """Put these rules in force, before the refusal of what no Service has taken."""
        number = next(self._number)
        self._policies[number] = list(rules)

        def undo() -> None:
            del self._policies[number]
            self._apply()

        change = Change(undo)
        self._apply()
        return change

    def _apply(self) -> None:
        self._host.run(
            "nft",
            "-f",
            "-",
            stdin=_TABLE.format(
                services="\n  ".join(_chains(self._services)),
                elements=", ".join(
                    f"{_matched(address, protocol)} : goto {name}"
                    for name, (address, endpoints) in self._services.items()
                    if endpoints
                    for protocol in ("tcp", "udp")
                ),
                policies="\n    ".join(rule for rules in self._policies.values() for rule in rules),
                cluster_ips=SERVICES_NETWORK,
            ),
        )


def _chains(services: Mapping[str, tuple[str, Sequence[str]]]) -> Iterator[str]:
    """A chain an endpoint, and one a Service that chooses among its endpoints at random."""
    for name, (_, endpoints) in services.items():
        if not endpoints:
            continue  # nothing takes its packets, and the filter refuses them
        for number, endpoint in enumerate(endpoints):
            yield f"chain {name}-{number} {{ meta l4proto {{ tcp, udp }} dnat ip to {endpoint}; }}"
        choices = ", ".join(f"{number} : goto {name}-{number}" for number in range(len(endpoints)))
        yield f"chain {name} {{ numgen random mod {len(endpoints)} vmap {{ {choices} }}; }}"


def _matched(address: str, protocol: str) -> str:
    ip, _, port = address.partition(":")
    return f"{ip} . {protocol} . {port}"


def from_pod(to: Where, statement: str, *, port: int | None = None, protocol: Protocol | None = None) -> list[str]:
    """Rules for what the pod sends there: by the address of the endpoint, and by that of the Service it asked for."""
    kinds = f"meta l4proto {protocol or '{ tcp, udp }'} " if protocol or port is not None else ""
    dport = f"th dport {port} " if port is not None else ""
    asked = f"ct original proto-dst {port} " if port is not None else ""
    rules = []
    for network in networks(to):
        rules.append(f'iifname "pod" {_family(network)} daddr {network} {kinds}{dport}{statement}')
        if network.overlaps(ipaddress.ip_network(SERVICES_NETWORK)):
            rules.append(f'iifname "pod" ct original ip daddr {network} {kinds}{asked}{statement}')
    return rules


def both_ways(to: Where, statement: str) -> list[str]:
    """Rules for what the pod sends there and what comes back."""
    rules = []
    for network in networks(to):
        rules.append(f'iifname "pod" {_family(network)} daddr {network} {statement}')
        rules.append(f'oifname "pod" {_family(network)} saddr {network} {statement}')
    return rules


def networks(to: Where) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Where that is."""
    return [ipaddress.ip_network(one) for one in ([to] if isinstance(to, str) else to)]


def _family(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return "ip" if network.version == 4 else "ip6"
