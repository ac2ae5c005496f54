"""Follow-up experiments: the questions the agent may ask when a target fails, and the answers. Values only.

A question goes to nobody but a target's own host, the nameservers of resolv.conf, the Kubernetes API server whose
address the pod has, and this pod itself. An experiment is never an outcome: no metric of a target counts it.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.model import Failure, Reason


@dataclass(frozen=True, slots=True)
class Lookup:
    """Ask one nameserver for the records of one name, once."""

    name: str
    """Fully qualified, without the trailing dot: no search list applies."""
    record: str
    """`A`, `AAAA`."""
    server: str
    """IP address of a nameserver of resolv.conf."""
    transport: str = "udp"
    """`udp` or `tcp`."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What the nameserver said."""

    rcode: str | None
    """None where there was no answer."""
    records: tuple[str, ...] = ()
    """The addresses in the answer."""
    error: Reason | None = None
    """Why there was no answer."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a TCP connection to one address, and close it."""

    ip: str
    port: int
    hops: int | None = None
    """How many routers its packets may pass, as any number where left out. With 1 they do not get beyond the node: an
    answer that comes all the same, from a host further away, was given in this pod."""


@dataclass(frozen=True, slots=True)
class Connected:
    """How the connection went."""

    failure: Failure | None
    seconds: float
    rejected: bool | None = None
    """Where it was refused: whether an ICMP message said so (a packet filter, or a Service without endpoints) and not
    the host's own RST (nobody listens there). None where the kernel does not tell."""
    icmp: str | None = None
    """What an ICMP message said that ended it: `port unreachable`, `administratively prohibited`, `host unreachable`.
    None where none came, or the kernel does not hand it out."""
    icmp_from: str | None = None
    """The IP address that sent it: the host itself, a router or node on the way, or this pod (a filter on its own way
    out, or a neighbour that does not answer)."""


@dataclass(frozen=True, slots=True)
class SmallSegments:
    """Run a target's own probe once more over connections whose TCP segments are small (RFC 879: 536 bytes).

    Where that works and the usual run stalls, large packets get lost on the way.
    """

    target: str


@dataclass(frozen=True, slots=True)
class Exchanged:
    """How that run went."""

    failure: Failure | None
    seconds: float


@dataclass(frozen=True, slots=True)
class ServerClock:
    """Ask a TLS target for its time, by the Date header of its answer, without judging its certificate."""

    target: str


@dataclass(frozen=True, slots=True)
class Clock:
    """How far this node's clock is ahead of the server's, in seconds; None where the server does not tell."""

    ahead_seconds: float | None


@dataclass(frozen=True, slots=True)
class MeshProxy:
    """Ask the usual ports of loopback whether a mesh's proxy is in this pod, and whether it is ready."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """What was found."""

    kind: str | None
    """`istio`, `linkerd`, `envoy`; None where no port of any is open."""
    ready: bool | None
    """None where it does not tell."""
    detail: str
    """What answered what: `127.0.0.1:15021/healthz/ready: 503`."""


@dataclass(frozen=True, slots=True)
class LocalNetwork:
    """Read this pod's own tables: routes, neighbours, counters. Sends nothing, and costs no budget."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A default route's next hop, and whether this pod has its link-layer address."""

    ip: str
    resolved: bool | None
    """None where the neighbour table does not hold it."""


@dataclass(frozen=True, slots=True)
class LocalTables:
    """What the kernel says about this pod's network namespace."""

    gateways: tuple[Gateway, ...]
    """IPv4 and IPv6, in order of metric."""
    unrouted: tuple[str, ...]
    """Of the addresses of failing targets, those for which there is no route here."""
    global_ipv6: bool
    """Whether the pod has an IPv6 address that reaches beyond its link."""
    sent_segments: int
    """TCP segments sent since the previous look, or since the agent's start."""
    retransmitted_segments: int
    """Of these, sent again since the previous look."""
    default_routes: tuple[int, ...] | None = None
    """The IP versions (4, 6) that have a default route: also one without a gateway, which `gateways` does not hold.
    None where the tables cannot be read."""


Question = Lookup | Connect | SmallSegments | ServerClock | MeshProxy | LocalNetwork
Answer = Looked | Connected | Exchanged | Clock | Mesh | LocalTables


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A question that was asked, and its answer."""

    question: Question
    answer: Answer
    targets: tuple[str, ...]
    """Names of the targets whose failure it is to explain."""
    started_at: float
    """Unix time in seconds."""
