"""One colour for each family of causes, the same on every panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.diagnosis.verdict import Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Causes that somebody looks into in the same place."""

    colour: str
    """A name of Grafana's palette, which has a shade of it for light and for dark mode."""
    causes: tuple[Cause, ...]


FAMILIES: Mapping[str, Family] = {
    "healthy": Family(colour="green", causes=(Cause.HEALTHY,)),
    "unexplained": Family(colour="semi-dark-red", causes=(Cause.UNKNOWN,)),
    "netprobe": Family(colour="#8e8e8e", causes=(Cause.PROBER_STARVED, Cause.PROBE_MISCONFIGURED)),
    "network": Family(
        colour="dark-red",
        causes=(
            Cause.NETWORK_DOWN,
            Cause.NO_ROUTE,
            Cause.EGRESS_BLOCKED,
            Cause.CLUSTER_BLOCKED,
            Cause.PRIVATE_NETWORK_UNREACHABLE,
            Cause.TARGET_BLOCKED,
            Cause.HARDCODED_ADDRESS,
            Cause.IPV6_BROKEN,
            Cause.ONE_ADDRESS_DEAD,
            Cause.POLICY_NOT_ENFORCED,
        ),
    ),
    "start": Family(colour="light-yellow", causes=(Cause.NETWORK_NOT_READY,)),
    "dns": Family(
        colour="purple",
        causes=(
            Cause.DNS_UNREACHABLE,
            Cause.DNS_NAMESERVER_DOWN,
            Cause.DNS_FAILING,
            Cause.DNS_SLOW,
            Cause.NAME_NOT_FOUND,
        ),
    ),
    "service": Family(
        colour="orange", causes=(Cause.SERVICE_WITHOUT_ENDPOINTS, Cause.NOTHING_LISTENING, Cause.WRONG_PORT)
    ),
    "performance": Family(
        colour="yellow", causes=(Cause.FLAPPING, Cause.PACKET_LOSS, Cause.SLOW, Cause.STALLED_AFTER_CONNECT)
    ),
    "tls": Family(
        colour="blue",
        causes=(
            Cause.TLS_CERTIFICATE,
            Cause.TLS_INTERCEPTION,
            Cause.TLS_PROTOCOL,
            Cause.CLOCK_SKEW,
            Cause.PLAIN_TEXT_ON_TLS_PORT,
            Cause.TLS_ON_PLAIN_TEXT_PORT,
        ),
    ),
    "proxy": Family(
        colour="light-blue",
        causes=(
            Cause.PROXY_UNREACHABLE,
            Cause.PROXY_DENIED,
            Cause.PROXY_AUTH,
            Cause.MESH_NOT_READY,
            Cause.MESH_NO_UPSTREAM,
        ),
    ),
    "target": Family(
        colour="light-red",
        causes=(
            Cause.CREDENTIALS_REJECTED,
            Cause.ACCESS_DENIED,
            Cause.DATABASE_MISSING,
            Cause.DATABASE_FULL,
            Cause.DATABASE_STARTING,
            Cause.SERVER_ERROR,
            Cause.WRONG_CONTENT,
        ),
    ),
}
"""Every cause is in one of them."""
