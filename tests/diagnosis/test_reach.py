"""Hosts that do not let us in: what is certain, and what has two readings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.diagnosis import History, Snapshot
from agent.diagnosis.experiment import Connect, Connected, Mesh, MeshProxy
from agent.model import Fact, Failure, Phase, Reason, Scope
from tests.diagnosis.seen import NOW, Said, experiment, failing, http, postgres, said, snapshot, tcp, texts, working

API = http("api", "https://api.example.com/health")
SHOP = http("shop", "https://shop.example.net/")
MIRROR = http("mirror", "https://mirror.example.com/")
DATABASE = postgres("database", "postgresql://probe@database.data/app")
POOLER = postgres("pooler", "postgresql://probe@database.data:6432/app")
METRICS = tcp("metrics", "database.data:9187")
NUMBER = tcp("number", "10.96.0.20:6379")
PACKAGES = tcp("packages", "packages.example:443", scope=Scope.PUBLIC)

PUBLIC = {Fact.ADDRESS: "203.0.113.7:443"}
TO_DATABASE, TO_POOLER = {Fact.ADDRESS: "10.96.0.20:5432"}, {Fact.ADDRESS: "10.96.0.20:6432"}
OPEN = Connected(None, 0.001)
SILENT = Connected(Failure(phase=Phase.CONNECT, reason=Reason.TIMEOUT, detail="no answer"), 1.5)
ASKED = {"server": "10.96.0.10:53", "name": "api.example.com", "record": "A", "transport": "udp", "rcode": "NOERROR"}
LOOKED_UP = {Fact.DNS_ATTEMPTS: [ASKED]}


def refused(ip: str, port: int, *targets: str, rejected: bool = False) -> tuple[Connect, Connected, *tuple[str, ...]]:
    failure = Failure(phase=Phase.CONNECT, reason=Reason.REFUSED, detail="the connection was refused")
    return Connect(ip, port), Connected(failure, 0.001, rejected=rejected), *targets


def never_worked(history: History) -> History:
    return History(history.target, history.outcomes[: history.failures_in_a_row])


def young(*histories: History) -> Snapshot:
    """A pod whose agent has just begun."""
    seen = snapshot(*(never_worked(history) if history.failure else history for history in histories))
    return replace(seen, pod=replace(seen.pod, started_at=NOW - 3.0))


def by_turns(*runs: tuple[str, bool]) -> History:
    """Runs of one target by the address each tried, the newest first."""
    bad = failing(MIRROR, "connect/timeout").outcomes
    return History(
        MIRROR,
        tuple(
            replace(bad[0] if not well else bad[-1], started_at=NOW - 2.0 * n, facts={Fact.ADDRESS: f"{ip}:443"})
            for n, (ip, well) in enumerate(runs)
        ),
    )


TABLE: dict[str, tuple[Snapshot, Said]] = {
    "refused by a host of the cluster": (
        snapshot(
            failing(DATABASE, "connect/refused", TO_DATABASE),
            experiments=[experiment(*refused("10.96.0.20", 5432, "database"))],
        ),
        {("nothing_listening", "high", ("database",))},
    ),
    "refused outside, where firewalls refuse alike": (
        snapshot(
            failing(API, "connect/refused", PUBLIC),
            working(DATABASE, TO_DATABASE),
            working(SHOP),
            experiments=[experiment(*refused("203.0.113.7", 443, "api"))],
        ),
        {("nothing_listening", "medium", ("api",))},
    ),
    "refused for ever, and another target answers on the usual port": (
        snapshot(
            never_worked(failing(POOLER, "connect/refused", TO_POOLER)),
            working(DATABASE, TO_DATABASE),
            experiments=[experiment(*refused("10.96.0.20", 6432, "pooler"))],
        ),
        {("wrong_port", "medium", ("pooler",))},
    ),
    "refused for ever, and another target answers on some port": (
        snapshot(
            never_worked(failing(METRICS, "connect/refused", {Fact.ADDRESS: "10.96.0.20:9187"})),
            working(DATABASE, TO_DATABASE),
            experiments=[experiment(*refused("10.96.0.20", 9187, "metrics"))],
        ),
        {("nothing_listening", "high", ("metrics",))},
    ),
    "a connection to the usual port behind a mesh": (
        snapshot(
            never_worked(failing(POOLER, "connect/refused", TO_POOLER)),
            working(SHOP),
            experiments=[
                experiment(*refused("10.96.0.20", 6432, "pooler")),
                experiment(Connect("10.96.0.20", 5432), OPEN, "pooler"),
                experiment(MeshProxy(), Mesh("istio", ready=True, detail="127.0.0.1:15021: 200"), "pooler"),
            ],
        ),
        {("nothing_listening", "high", ("pooler",))},
    ),
    "denied by the kernel, as Cilium does for a Service without endpoints": (
        snapshot(failing(DATABASE, "connect/denied", TO_DATABASE), working(METRICS, {Fact.ADDRESS: "10.96.0.9:9187"})),
        {("target_blocked", "medium", ("database",))},
    ),
    "no way, as Cilium says of a Service without endpoints": (
        snapshot(
            failing(DATABASE, "connect/unreachable", TO_DATABASE), working(METRICS, {Fact.ADDRESS: "10.96.0.9:9187"})
        ),
        {("no_route", "medium", ("database",))},
    ),
    "rejected outside, as a load balancer without pods is": (
        snapshot(
            failing(API, "connect/refused", PUBLIC),
            working(SHOP),
            experiments=[experiment(*refused("203.0.113.7", 443, "api", rejected=True))],
        ),
        {("target_blocked", "medium", ("api",))},
    ),
    "a ClusterIP as a number, rejected": (
        snapshot(
            failing(NUMBER, "connect/refused", {Fact.ADDRESS: "10.96.0.20:6379"}),
            working(SHOP),
            experiments=[experiment(*refused("10.96.0.20", 6379, "number", rejected=True))],
        ),
        {("service_without_endpoints", "medium", ("number",))},
    ),
    "one address failed once": (
        snapshot(by_turns(("203.0.113.7", True), ("203.0.113.8", False), ("203.0.113.7", True))),
        set(),
    ),
    "one address failed whenever it was tried": (
        snapshot(
            by_turns(("203.0.113.7", True), ("203.0.113.8", False), ("203.0.113.7", True), ("203.0.113.8", False))
        ),
        {("one_address_dead", "high", ("mirror",))},
    ),
    "the internet is silent, by hosts of two owners": (
        snapshot(
            failing(API, "connect/timeout", PUBLIC),
            failing(SHOP, "connect/timeout", {Fact.ADDRESS: "203.0.113.99:443"}),
            working(DATABASE, TO_DATABASE),
        ),
        {("egress_blocked", "high", ("api", "shop"))},
    ),
    "the internet is silent, by hosts of one owner": (
        snapshot(
            failing(API, "connect/timeout", PUBLIC),
            failing(MIRROR, "connect/timeout", {Fact.ADDRESS: "203.0.113.99:443"}),
            working(DATABASE, TO_DATABASE),
        ),
        {("egress_blocked", "medium", ("api", "mirror"))},
    ),
    "two public hosts are refused": (
        snapshot(
            failing(API, "connect/refused", PUBLIC),
            failing(SHOP, "connect/refused", {Fact.ADDRESS: "203.0.113.99:443"}),
            working(DATABASE, TO_DATABASE),
        ),
        {("egress_blocked", "medium", ("api", "shop"))},
    ),
    "two public hosts are silent, and nothing else was asked": (
        snapshot(
            failing(API, "connect/timeout", PUBLIC, phases={Phase.CONNECT: 1.5}),
            failing(SHOP, "connect/timeout", {Fact.ADDRESS: "203.0.113.99:443"}, phases={Phase.CONNECT: 1.5}),
        ),
        {("egress_blocked", "medium", ("api", "shop"))},
    ),
    "the internet is silent within the first seconds": (
        young(
            failing(API, "connect/timeout", PUBLIC),
            failing(SHOP, "connect/timeout", {Fact.ADDRESS: "203.0.113.99:443"}),
            working(DATABASE, TO_DATABASE),
        ),
        {("egress_blocked", "medium", ("api", "shop"))},
    ),
    "what must not be reachable is, within the first seconds": (
        young(failing(replace(DATABASE, negative=True), "verify/unexpected_success", TO_DATABASE)),
        {("policy_not_enforced", "medium", ("database",))},
    ),
    "one public host and the Kubernetes API, which tasks may never have reached": (
        snapshot(
            failing(API, "connect/timeout", {**PUBLIC, **LOOKED_UP}),
            experiments=[experiment(Connect("10.96.0.1", 443), SILENT, "api")],
        ),
        {("egress_blocked", "medium", ("api",))},
    ),
    "one host of the cluster and the Kubernetes API, which tasks may never have reached": (
        snapshot(
            failing(DATABASE, "connect/timeout", TO_DATABASE),
            working(SHOP),
            experiments=[experiment(Connect("10.96.0.1", 443), SILENT, "database")],
        ),
        {("cluster_blocked", "medium", ("database",))},
    ),
    "a name of two labels may be a Service's or a host's": (
        snapshot(failing(PACKAGES, "resolve/name_not_found")),
        {("name_not_found", "high", ("packages",))},
    ),
}


def test_a_cache_on_the_node_is_no_pod_to_a_policy() -> None:
    silent = {"server": "169.254.20.10:53", "name": "api.example.com", "record": "A", "transport": "udp"}
    seen = snapshot(failing(API, "resolve/timeout", {Fact.DNS_ATTEMPTS: [silent | {"error": "timeout"}]}))
    seen = replace(seen, pod=replace(seen.pod, resolver=replace(seen.pod.resolver, nameservers=("169.254.20.10",))))
    assert "k8s-app=node-local-dns" in texts(seen)
    assert "node-local-dns" not in texts(snapshot(failing(API, "resolve/timeout")))


@pytest.mark.parametrize("row", TABLE)
def test_verdicts(row: str) -> None:
    seen, expected = TABLE[row]
    assert said(seen) == expected


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("refused outside, where firewalls refuse alike", ("or a firewall or a balancer answers in its place",)),
        ("refused for ever, and another target answers on the usual port", ("what should listen there does not run",)),
        ("refused for ever, and another target answers on some port", ("database answers on port 5432 of the same",)),
        ("denied by the kernel, as Cilium does for a Service without endpoints", ("a Service without a ready pod",)),
        ("no way, as Cilium says of a Service without endpoints", ("There is no way", "a Service without a ready pod")),
        ("rejected outside, as a load balancer without pods is", ("a load balancer without a ready pod",)),
        ("the internet is silent, by hosts of one owner", ("all hosts of one owner being down",)),
        ("two public hosts are refused", ("or with nobody listening at any of them",)),
        ("two public hosts are silent, and nothing else was asked", ("the whole network being down",)),
        ("the internet is silent within the first seconds", ("a new pod's network may not be ready yet",)),
        (
            "one public host and the Kubernetes API, which tasks may never have reached",
            ("DNS and nothing more; or this one host is down",),
        ),
        (
            "one host of the cluster and the Kubernetes API, which tasks may never have reached",
            ("or with this one being down",),
        ),
        ("a ClusterIP as a number, rejected", ("kubectl -n NAMESPACE get endpointslices",)),
        ("a name of two labels may be a Service's or a host's", ("nor as a name outside the cluster", "forward")),
    ],
)
def test_words(row: str, words: tuple[str, ...]) -> None:
    seen = texts(TABLE[row][0])
    assert [word for word in words if word not in seen] == []
