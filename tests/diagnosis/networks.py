"""A pod in a cluster and what it can see of the network, in few words: for tables of rules about names and reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from agent.diagnosis import History, Pod, Resolver, Snapshot
from agent.diagnosis.experiment import (
    Answer,
    Connect,
    Connected,
    Experiment,
    Gateway,
    LocalNetwork,
    LocalTables,
    Looked,
    Lookup,
    Question,
)
from agent.diagnosis.rules.reading import literal
from agent.model import Fact, Failure, Outcome, Phase, Reason, Scope, Target
from tests.diagnosis.seen import NOW, http, postgres, tcp
from tests.lab.targets import target

FIRST, SECOND = "10.96.0.10", "10.96.0.11"
API = ("10.96.0.1", 443)
POD = Pod(
    started_at=NOW - 3600,
    resolver=Resolver(
        nameservers=(FIRST, SECOND),
        search=("airflow.svc.cluster.local", "svc.cluster.local", "cluster.local"),
        ndots=5,
        timeout_seconds=1.0,
    ),
    namespace="airflow",
    cluster_domain="cluster.local",
    kubernetes_api=API,
)
EVERY_SECONDS = 2.0
"""Between two runs of a target."""

SHOP = http("shop", "https://shop.example.net/")
HOOKS = http("hooks", "https://hooks.example.org/")
DATABASE = postgres("database", "postgresql://probe@internal-database:5432/app")
BROKER = tcp("broker", "broker:6379")
WEB = http("web", "http://web/", scope=Scope.CLUSTER)
WAREHOUSE = postgres("warehouse", "postgresql://probe@warehouse.corp.internal:5432/app", scope=Scope.PRIVATE)
WIKI = http("wiki", "http://wiki.corp.internal/", scope=Scope.PRIVATE)
BY_NUMBER = postgres("by-number", "postgresql://probe@10.60.0.9:5432/app", scope=Scope.PRIVATE)
SIDECAR = tcp("sidecar", "127.0.0.1:8125")
FORBIDDEN = dataclasses.replace(tcp("forbidden", "10.244.2.90:5432"), negative=True)

ADDRESSES: Mapping[str, str] = {
    "shop": "203.0.113.20:443",
    "hooks": "198.51.100.30:443",
    "database": "10.96.1.30:5432",
    "broker": "10.96.1.40:6379",
    "web": "10.96.1.50:80",
    "warehouse": "10.50.0.10:5432",
    "wiki": "10.50.0.20:80",
    "by-number": "10.60.0.9:5432",
    "sidecar": "127.0.0.1:8125",
}


def dns(name: str, query: str, server: str | None = None) -> Target[Any]:
    """A target that asks the pod's nameservers, or one of its own."""
    keys: dict[str, Any] = {"query": query} if server is None else {"query": query, "server": server}
    return dataclasses.replace(target("dns", **keys), name=name)


def run(
    probed: Target[Any],
    ended: str = "ok",
    *,
    at: float = NOW,
    facts: Mapping[Fact, Any] | None = None,
    phases: Mapping[Phase, float] | None = None,
) -> Outcome:
    """One run that ended `ok` or with `phase/reason`, with the address it spoke to if it got so far."""
    failure, reached = None, Phase.VERIFY
    if ended != "ok":
        reached, reason = Phase(ended.partition("/")[0]), Reason(ended.partition("/")[2])
        failure = Failure(phase=reached, reason=reason, detail=f"expected x, got {reason}")
    if phases is None:
        first = 1 if literal(probed) is not None else 0
        phases = dict.fromkeys(list(Phase)[first : list(Phase).index(reached) + 1], 0.001)
    known: dict[Fact, Any] = {}
    if reached is not Phase.RESOLVE and probed.name in ADDRESSES:
        known[Fact.ADDRESS] = ADDRESSES[probed.name]
    return Outcome(
        target=probed,
        started_at=at,
        duration_seconds=sum(phases.values()),
        phases=phases,
        facts={**known, **(facts or {})},
        failure=failure,
    )


def runs(probed: Target[Any], *ended: str, at: float = NOW, facts: Mapping[Fact, Any] | None = None) -> History:
    """Runs of a target, the newest first, one every two seconds."""
    return History(
        probed, tuple(run(probed, end, at=at - EVERY_SECONDS * n, facts=facts) for n, end in enumerate(ended))
    )


def fails(probed: Target[Any], how: str, *, times: int = 2, facts: Mapping[Fact, Any] | None = None) -> History:
    """It worked, and has failed so often since."""
    newest = [run(probed, how, at=NOW - EVERY_SECONDS * n, facts=facts) for n in range(times)]
    return History(probed, (*newest, run(probed, at=NOW - EVERY_SECONDS * times)))


def works(*probed: Target[Any]) -> list[History]:
    return [runs(one, "ok", "ok", "ok") for one in probed]


def seen(
    *histories: History,
    asked: Sequence[Experiment] = (),
    pod: Pod = POD,
    lag_seconds: float = 0.0,
    throttled_share: float = 0.0,
) -> Snapshot:
    return Snapshot(
        at=NOW + 2.0,
        pod=pod,
        histories=histories,
        experiments=tuple(asked),
        event_loop_lag_seconds=lag_seconds,
        throttled_share=throttled_share,
    )


# --- experiments, made after the latest runs --------------------------------------------------------------------------


def asked(question: Question, answer: Answer, *targets: str) -> Experiment:
    return Experiment(question=question, answer=answer, targets=targets or ("x",), started_at=NOW + 1.0)


def connects(
    place: str, reason: str | None = None, *, rejected: bool | None = None, icmp: str | None = None
) -> Experiment:
    """A connection to `ip:port`, which stands, or fails for a reason."""
    ip, _, port = place.rpartition(":")
    failure = None
    if reason is not None:
        failure = Failure(phase=Phase.CONNECT, reason=Reason(reason), detail=f"expected a connection, got {reason}")
    answer = Connected(failure, 0.001, rejected=rejected, icmp=icmp, icmp_from="10.244.1.1" if icmp else None)
    return asked(Connect(ip.strip("[]"), int(port)), answer)


API_ANSWERS = connects("10.96.0.1:443")
API_SILENT = connects("10.96.0.1:443", "timeout")


def looks(
    name: str, server: str, *records: str, rcode: str | None = "NOERROR", record: str = "A", over: str = "udp"
) -> Experiment:
    """A question to one nameserver: records, a bare rcode, or no answer (rcode None)."""
    error = Reason.TIMEOUT if rcode is None else None
    return asked(Lookup(name, record, server, over), Looked(rcode, records, error))


def tables(
    *,
    gateway: bool | None = True,
    unrouted: tuple[str, ...] = (),
    global_ipv6: bool = True,
    default_routes: tuple[int, ...] = (4, 6),
) -> Experiment:
    found = LocalTables(
        gateways=(Gateway("10.244.1.1", gateway),),
        unrouted=unrouted,
        global_ipv6=global_ipv6,
        sent_segments=1000,
        retransmitted_segments=0,
        default_routes=default_routes,
    )
    return asked(LocalNetwork(), found)


# --- lookups ----------------------------------------------------------------------------------------------------------


def question(
    name: str,
    server: str,
    rcode: str | None = None,
    *,
    record: str = "A",
    seconds: float | None = None,
    error: str = "timeout",
) -> dict[str, Any]:
    """An entry of Fact.DNS_ATTEMPTS: answered with an rcode, or not."""
    took = seconds if seconds is not None else 0.001 if rcode is not None or error != "timeout" else 1.0
    entry: dict[str, Any] = {"server": f"{server}:53", "name": name, "record": record, "transport": "udp"}
    return {**entry, "duration_seconds": took, **({"error": error} if rcode is None else {"rcode": rcode})}


def attempts(*entries: dict[str, Any]) -> dict[Fact, Any]:
    return {Fact.DNS_ATTEMPTS: list(entries)}


def unanswered(name: str, error: str = "timeout") -> dict[Fact, Any]:
    """Both nameservers, in turn, A and AAAA."""
    return attempts(
        *(question(name, server, record=record, error=error) for server in (FIRST, SECOND) for record in ("A", "AAAA"))
    )
