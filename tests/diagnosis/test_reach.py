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
PYPI = tcp("pypi", "pypi.org:443", scope=Scope.PUBLIC)

PUBLIC = {Fact.ADDRESS: "203.0.113.7:443"}
TO_DATABASE, TO_POOLER = {Fact.ADDRESS: "10.96.0.20:5432"}, {Fact.ADDRESS: "10.96.0.20:6432"}
OPEN = Connected(None, 0.001)


def refused(ip: str, port: int, *targets: str, rejected: bool = False) -> tuple[Connect, Connected, *tuple[str, ...]]:
    failure = Failure(phase=Phase.CONNECT, reason=Reason.REFUSED, detail="the connection was refused")
    return Connect(ip, port), Connected(failure, 0.001, rejected=rejected), *targets


def never_worked(history: History) -> History:
    return History(history.target, history.outcomes[: history.failures_in_a_row])


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
    "a name of two labels may be a Service's or a host's": (
        snapshot(failing(PYPI, "resolve/name_not_found")),
        {("name_not_found", "high", ("pypi",))},
    ),
}


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
        ("a ClusterIP as a number, rejected", ("kubectl -n NAMESPACE get endpointslices",)),
        ("a name of two labels may be a Service's or a host's", ("nor as a name outside the cluster", "forward")),
    ],
)
def test_words(row: str, words: tuple[str, ...]) -> None:
    seen = texts(TABLE[row][0])
    assert [word for word in words if word not in seen] == []
