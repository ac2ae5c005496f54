"""What a diagnosis says: causes, how sure it is of them, what it rests on, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

RUNBOOK = "docs/runbook.md"
"""Where the sections of the causes are: in the repository, unless the configuration names a place of its own."""


class Cause(StrEnum):
    """Why targets fail. Closed, and safe as a label value; docs/runbook.md has a section for each."""

    HEALTHY = "healthy"
    """Nothing fails and nothing stands out: there is no verdict."""
    UNKNOWN = "unknown"
    """Targets fail, and what was seen fits no cause."""

    PROBER_STARVED = "prober_starved"
    """netprobe itself had too little CPU: its timeouts say little about the network."""
    PROBE_MISCONFIGURED = "probe_misconfigured"
    """netprobe could not ask: a defect of its own, or a file of its configuration that cannot be used."""
    POLICY_NOT_ENFORCED = "policy_not_enforced"
    """A target that must not be reachable is reachable."""

    NETWORK_DOWN = "network_down"
    """Nothing answers: neither nameservers nor addresses, inside or outside the cluster."""
    NETWORK_NOT_READY = "network_not_ready"
    """The failures were those of the pod's first seconds; since then all is well."""
    NO_ROUTE = "no_route"
    """The pod or a router has no way to the address, and says so."""
    EGRESS_BLOCKED = "egress_blocked"
    """What is public fails, while the cluster answers."""
    CLUSTER_BLOCKED = "cluster_blocked"
    """What is in the cluster fails, while public targets answer."""
    PRIVATE_NETWORK_UNREACHABLE = "private_network_unreachable"
    """What lies behind a VPN or a peering fails, while the rest answers."""
    TARGET_BLOCKED = "target_blocked"
    """This target alone is silent or refused by a filter; its neighbours answer."""
    HARDCODED_ADDRESS = "hardcoded_address"
    """A private address written down as a number fails: addresses of pods, Services and hosts move."""
    IPV6_BROKEN = "ipv6_broken"
    """IPv6 addresses fail where IPv4 ones of the same name, or of the same network, answer."""
    ONE_ADDRESS_DEAD = "one_address_dead"
    """Some addresses of a name answer and some do not."""

    DNS_UNREACHABLE = "dns_unreachable"
    """No nameserver answers."""
    DNS_NAMESERVER_DOWN = "dns_nameserver_down"
    """One of several nameservers does not answer."""
    DNS_FAILING = "dns_failing"
    """Nameservers answer that they failed, or will not answer: SERVFAIL, REFUSED."""
    DNS_SLOW = "dns_slow"
    """Lookups succeed and take too long: retries after a lost packet, or a long walk through the search list."""
    NAME_NOT_FOUND = "name_not_found"
    """The nameservers say that there is no such name, or no such record."""

    SERVICE_WITHOUT_ENDPOINTS = "service_without_endpoints"
    """The Service exists and has no ready pod behind it."""
    NOTHING_LISTENING = "nothing_listening"
    """The host answers that nobody listens on the port."""
    WRONG_PORT = "wrong_port"
    """Nobody listens on this port, and somebody on another port of the same host."""

    FLAPPING = "flapping"
    """The target fails and answers by turns."""
    PACKET_LOSS = "packet_loss"
    """Packets get lost: runs succeed after retransmissions, or fail at random."""
    SLOW = "slow"
    """The target answers, and takes most of the time it has."""
    STALLED_AFTER_CONNECT = "stalled_after_connect"
    """The connection stands and then there is silence."""

    TLS_CERTIFICATE = "tls_certificate"
    """A certificate is expired, for another name, or of an authority that is not trusted."""
    TLS_INTERCEPTION = "tls_interception"
    """Unrelated public names show certificates of the same unknown issuer: something in between opens TLS."""
    TLS_PROTOCOL = "tls_protocol"
    """The two sides find no TLS version, cipher or option in common."""
    CLOCK_SKEW = "clock_skew"
    """The clock of this node is wrong, so that valid certificates look expired or not yet valid."""
    PLAIN_TEXT_ON_TLS_PORT = "plain_text_on_tls_port"
    """The server's port speaks TLS, and is spoken to in plain text: http:// where https:// is meant."""
    TLS_ON_PLAIN_TEXT_PORT = "tls_on_plain_text_port"
    """The server's port speaks plain text, and is spoken to in TLS: https:// where http:// is meant."""

    PROXY_UNREACHABLE = "proxy_unreachable"
    """The proxy itself cannot be resolved or connected to."""
    PROXY_DENIED = "proxy_denied"
    """The proxy's rules forbid the target."""
    PROXY_AUTH = "proxy_auth"
    """The proxy wants credentials, or others."""

    MESH_NOT_READY = "mesh_not_ready"
    """The mesh's proxy in this pod is not ready, and everything the pod sends goes through it."""
    MESH_NO_UPSTREAM = "mesh_no_upstream"
    """The mesh's proxy took the connection and has nowhere to send it."""

    CREDENTIALS_REJECTED = "credentials_rejected"
    """The target does not accept this user and password, token or key."""
    ACCESS_DENIED = "access_denied"
    """The target knows us and does not let us in."""
    DATABASE_MISSING = "database_missing"
    """The database server has no such database."""
    DATABASE_FULL = "database_full"
    """The database server has no connection slot left."""
    DATABASE_STARTING = "database_starting"
    """The database server starts, recovers or shuts down."""
    SERVER_ERROR = "server_error"
    """The target was reached and failed by itself: HTTP 5xx, an error of a query, an answer broken off."""
    WRONG_CONTENT = "wrong_content"
    """The answer is not the one expected: a captive portal, a login page, another application, other records."""


class Confidence(StrEnum):
    """How sure a verdict is."""

    HIGH = "high"
    """What was seen has this explanation only."""
    MEDIUM = "medium"
    """The likeliest of a few explanations; the sentence names the others."""
    LOW = "low"
    """One explanation among several, on little evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One cause, and everything it explains."""

    cause: Cause
    confidence: Confidence
    targets: tuple[str, ...]
    """Names, in the order of the configuration: the failing targets this explains, or those that show it."""
    summary: str
    """Why, in one sentence. About policy it says "consistent with"."""
    evidence: tuple[str, ...]
    """What was seen: short sentences with figures."""
    advice: str
    """The next thing to try, with a command or a manifest where there is one."""

    def as_dict(self, runbook: str = RUNBOOK) -> dict[str, Any]:
        """The JSON form: the keys are a contract. `runbook` is what the anchor of the cause is appended to."""
        return {
            "cause": self.cause.value,
            "confidence": self.confidence.value,
            "targets": list(self.targets),
            "summary": self.summary,
            "evidence": list(self.evidence),
            "advice": self.advice,
            "runbook": f"{runbook}#{self.cause.value}",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A verdict that holds no more. Unix times."""

    verdict: Verdict
    """As it was when it was surest."""
    began_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Every verdict that holds together; none where all is well. A target is explained by at most one of them."""

    verdicts: tuple[Verdict, ...] = ()

    @property
    def healthy(self) -> bool:
        return not self.verdicts

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Without repetition, the most important first: `healthy` alone where there is no verdict."""
        return tuple(dict.fromkeys(verdict.cause for verdict in self.verdicts)) or (Cause.HEALTHY,)

    def as_dict(self, runbook: str = RUNBOOK) -> dict[str, Any]:
        """The JSON form: the keys are a contract."""
        return {"healthy": self.healthy, "verdicts": [verdict.as_dict(runbook) for verdict in self.verdicts]}
