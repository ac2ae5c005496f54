"""Meshes: a connection that stands proves nothing, and neither does one that is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from agent.diagnosis import Snapshot, plan
from agent.diagnosis.experiment import Connect, Connected, Mesh, MeshProxy
from agent.model import Fact, Failure, Phase, Reason, Scope
from tests.diagnosis.seen import Facts, Said, experiment, failing, http, postgres, said, snapshot, tcp, texts, working

API = http("api", "https://api.example.com/health")
WEB = http("web", "http://web/", scope=Scope.CLUSTER)
DATABASE = postgres("database", "postgresql://probe@internal-database:5432/app")
WAREHOUSE = postgres("warehouse", "postgresql://probe@10.50.0.20:5432/app", scope=Scope.PRIVATE)
BROKER = tcp("broker", "broker:6379")
OUT_OF_REACH = tcp("metadata", "metadata:5432", negative=True)

ISTIO = Mesh("istio", True, "127.0.0.1:15021/healthz/ready: 200")
NOT_READY = Mesh("istio", False, "127.0.0.1:15021/healthz/ready: 503")
NONE = Mesh(None, None, "no proxy at the ports 15021")
FAR = Connect("203.0.113.10", 443, hops=1)


def refusal(reason: Reason) -> Failure:
    return Failure(phase=Phase.CONNECT, reason=reason, detail="expected a connection, got x")


HERE = Connected(refusal(Reason.REFUSED), 0.0001, rejected=False)
GONE = Connected(refusal(Reason.UNREACHABLE), 0.0002, icmp="too many routers on the way", icmp_from="10.244.1.1")
ACCEPTED = Connected(None, 0.0001)
REJECTED = Connected(refusal(Reason.REFUSED), 0.0001, rejected=True)


def mesh(found: Mesh) -> Any:
    return experiment(MeshProxy(), found, "api", "web")


AT: Facts = {Fact.ADDRESS: "203.0.113.10:443"}


def refused(*targets: Any, seconds: float = 0.0002) -> list[Any]:
    return [failing(t, "connect/refused", AT, phases={Phase.RESOLVE: 0.003, Phase.CONNECT: seconds}) for t in targets]


def envoy(said_by_itself: str, status: int = 503) -> dict[Fact, Any]:
    return {Fact.HTTP_STATUS_CODE: status, Fact.MESH_PROXY: "envoy", Fact.MESH_ERROR: said_by_itself}


NO_HEALTHY = envoy("no healthy upstream")

NOT_STARTED: dict[str, tuple[Snapshot, Said]] = {
    "the proxy says that it is not ready": (
        snapshot(*refused(API, WEB), failing(DATABASE, "login/closed"), experiments=[mesh(NOT_READY)]),
        {("mesh_not_ready", "high", ("api", "web", "database"))},
    ),
    "what a mesh does not carry has another cause": (
        snapshot(*refused(API, WEB), failing(DATABASE, "login/credentials_rejected"), experiments=[mesh(NOT_READY)]),
        {("mesh_not_ready", "high", ("api", "web")), ("credentials_rejected", "high", ("database",))},
    ),
    "everything is refused within this pod": (
        snapshot(*refused(API, WEB), experiments=[mesh(NONE), experiment(FAR, HERE, "api", "web")]),
        {("mesh_not_ready", "high", ("api", "web"))},
    ),
    "one target is refused within this pod": (
        snapshot(*refused(API), experiments=[mesh(NONE), experiment(FAR, HERE, "api")]),
        {("mesh_not_ready", "medium", ("api",))},
    ),
    "everything is refused at once, everywhere": (
        snapshot(*refused(API, WEB, DATABASE, WAREHOUSE)),
        {("mesh_not_ready", "medium", ("api", "web", "database", "warehouse"))},
    ),
}

NEAR_MISSES: dict[str, Snapshot] = {
    "two are refused, and that is all that is known": snapshot(*refused(API, WEB)),
    "packets leave the pod": snapshot(
        *refused(API, WEB, DATABASE, WAREHOUSE), experiments=[experiment(FAR, GONE, "api")]
    ),
    "a packet filter of the pod refuses": snapshot(
        *refused(API, WEB, DATABASE, WAREHOUSE), experiments=[experiment(FAR, REJECTED, "api")]
    ),
    "refused one hop away by the node itself": snapshot(
        failing(DATABASE, "connect/refused", {Fact.ADDRESS: "10.244.1.1:5432"}, phases={Phase.CONNECT: 0.0002}),
        experiments=[experiment(Connect("10.244.1.1", 5432, hops=1), HERE, "database")],
    ),
    "another target works": snapshot(*refused(API, WEB, DATABASE), working(WAREHOUSE)),
    "another target is slow to refuse": snapshot(*refused(API, WEB, DATABASE), *refused(WAREHOUSE, seconds=0.02)),
    "the Kubernetes API answers": snapshot(
        *refused(API, WEB, DATABASE, WAREHOUSE),
        experiments=[experiment(Connect("10.96.0.1", 443), ACCEPTED, "api")],
    ),
    "the proxy is ready": snapshot(*refused(API, WEB), experiments=[mesh(ISTIO)]),
    "everything is silent": snapshot(*(failing(t, "connect/timeout") for t in (API, WEB, DATABASE, WAREHOUSE))),
}

NO_UPSTREAM: dict[str, tuple[Snapshot, Said]] = {
    "Envoy says so, and is in this pod": (
        snapshot(failing(WEB, "verify/unexpected_status", NO_HEALTHY), experiments=[mesh(ISTIO)]),
        {("mesh_no_upstream", "high", ("web",))},
    ),
    "Envoy says so, wherever it is": (
        snapshot(failing(WEB, "verify/unexpected_status", NO_HEALTHY), working(API)),
        {("mesh_no_upstream", "medium", ("web",))},
    ),
    "Envoy knows no such host": (
        snapshot(
            failing(WEB, "verify/unexpected_status", envoy("502 Bad Gateway without a word more", 502)),
            experiments=[mesh(ISTIO)],
        ),
        {("mesh_no_upstream", "high", ("web",))},
    ),
    "Linkerd": (
        snapshot(
            failing(
                WEB,
                "verify/unexpected_status",
                {Fact.HTTP_STATUS_CODE: 504, Fact.MESH_PROXY: "linkerd", Fact.MESH_ERROR: "connect timed out"},
            ),
            experiments=[mesh(Mesh("linkerd", True, "127.0.0.1:4191/ready: 200"))],
        ),
        {("mesh_no_upstream", "high", ("web",))},
    ),
    "accepted in the pod, and hung up on": (
        snapshot(
            failing(API, "tls/closed", AT),
            failing(DATABASE, "login/reset"),
            working(BROKER),
            experiments=[mesh(NONE), experiment(FAR, ACCEPTED, "api")],
        ),
        {("mesh_no_upstream", "medium", ("api", "database"))},
    ),
    "accepted in the pod, and silent": (
        snapshot(failing(API, "tls/timeout"), working(WEB), experiments=[mesh(ISTIO)]),
        {("mesh_no_upstream", "medium", ("api",))},
    ),
    "accepted one hop away by a pod of the same node": (
        snapshot(
            failing(DATABASE, "login/closed", {Fact.ADDRESS: "10.244.1.30:5432"}),
            working(WEB),
            experiments=[experiment(Connect("10.244.1.30", 5432, hops=1), ACCEPTED, "database")],
        ),
        {("server_error", "medium", ("database",))},
    ),
    "the far end has spoken": (
        snapshot(
            failing(API, "request/closed", {Fact.TLS_VERSION: "TLSv1.3"}), working(WEB), experiments=[mesh(ISTIO)]
        ),
        {("server_error", "medium", ("api",))},
    ),
    "the server itself answers 503 through the mesh": (
        snapshot(
            failing(WEB, "verify/unexpected_status", {Fact.HTTP_STATUS_CODE: 503, Fact.MESH_PROXY: "envoy"}),
            experiments=[mesh(ISTIO)],
        ),
        {("server_error", "high", ("web",))},
    ),
    "a mesh's policy forbids it": (
        snapshot(
            failing(WEB, "verify/unexpected_status", envoy("RBAC: access denied", 403)), experiments=[mesh(ISTIO)]
        ),
        {("access_denied", "high", ("web",))},
    ),
    "the server is too slow for the mesh": (
        snapshot(
            failing(WEB, "verify/unexpected_status", envoy("upstream request timeout", 504)),
            experiments=[mesh(ISTIO)],
        ),
        {("server_error", "high", ("web",))},
    ),
    "hung up on without a mesh": (
        snapshot(failing(API, "tls/closed"), working(WEB), experiments=[mesh(NONE), experiment(FAR, GONE, "api")]),
        {("tls_protocol", "low", ("api",))},
    ),
    "a target that must not be reachable, tried by a connection alone": (
        snapshot(failing(OUT_OF_REACH, "verify/unexpected_success"), experiments=[mesh(ISTIO)]),
        {("probe_misconfigured", "medium", ("metadata",))},
    ),
    "a mesh where all is well": (
        snapshot(working(API, {Fact.MESH_PROXY: "envoy"}), working(BROKER), experiments=[mesh(ISTIO)]),
        set(),
    ),
}

TABLE = NOT_STARTED | NO_UPSTREAM


@pytest.mark.parametrize("row", TABLE)
def test_verdicts(row: str) -> None:
    seen, expected = TABLE[row]
    assert said(seen) == expected


@pytest.mark.parametrize("row", NEAR_MISSES)
def test_what_is_no_mesh_that_has_not_started(row: str) -> None:
    assert "mesh_not_ready" not in {cause for cause, _, _ in said(NEAR_MISSES[row])}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("the proxy says that it is not ready", ("Istio's proxy", "15021/healthz/ready: 503", "holdApplicationUntil")),
        ("everything is refused within this pod", ("by this pod itself", "refused within 0.20 ms")),
        ("Envoy says so, and is in this pod", ("no healthy upstream", "Istio's proxy in this pod", "ServiceEntry")),
        ("Envoy says so, wherever it is", ("in this pod or in front of the target",)),
        (
            "accepted in the pod, and hung up on",
            (
                "behind a mesh a TCP connect proves nothing",
                "was accepted in 0.10 ms: by this pod itself",
                "broker only connect",
            ),
        ),
    ],
)
def test_words(row: str, words: tuple[str, ...]) -> None:
    seen = texts(TABLE[row][0])
    assert [word for word in words if word not in seen] == []


def test_a_proxy_is_looked_for_where_one_would_explain_what_is_seen() -> None:
    """And a connection of one hop is tried to the host that is farthest away."""
    at = {Fact.ADDRESS: "10.96.0.20:5432"}
    far = {Fact.ADDRESS: "203.0.113.10:443"}
    seen = snapshot(failing(DATABASE, "login/closed", at), failing(API, "tls/timeout", far))
    asked = [one for one in plan(seen) if one.question in (MeshProxy(), FAR)]
    assert [(one.question, one.targets) for one in asked] == [
        (MeshProxy(), ("database", "api")),
        (FAR, ("database", "api")),
    ]


@pytest.mark.parametrize(
    ("facts", "found"), [({}, NONE), ({Fact.SERVER_SIGNATURE: "+PONG"}, ISTIO), ({Fact.TLS_VERSION: "TLSv1.3"}, ISTIO)]
)
def test_who_was_reached_was_reached(facts: dict[Fact, Any], found: Mesh) -> None:
    """Without a mesh, or where the far end has spoken, a target that must not be reachable is."""
    seen = snapshot(failing(OUT_OF_REACH, "verify/unexpected_success", facts), experiments=[mesh(found)])
    assert {cause for cause, _, _ in said(seen)} == {"policy_not_enforced"}


def test_a_proxy_is_looked_for_where_a_connection_alone_shows_what_must_not_be() -> None:
    seen = snapshot(failing(OUT_OF_REACH, "verify/unexpected_success", {Fact.ADDRESS: "10.96.1.90:5432"}))
    assert [one.question for one in plan(seen)][:2] == [MeshProxy(), Connect("10.96.1.90", 5432, hops=1)]


@pytest.mark.parametrize("failed", ["connect/timeout", "tls/certificate_expired", "verify/unexpected_body"])
def test_no_proxy_is_looked_for_where_none_would(failed: str) -> None:
    assert MeshProxy() not in [one.question for one in plan(snapshot(failing(API, failed)))]
