"""Every cause can be reached: one world for each, as plain as it can be, that leads to this verdict and to no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from agent.diagnosis import Cause, Diagnosis, History, Snapshot, diagnose
from agent.diagnosis.experiment import Connect, Connected, LocalNetwork, LocalTables, Mesh, MeshProxy
from agent.model import Fact, Failure, Outcome, Phase, Reason, Scope, Target
from tests.diagnosis.seen import DAY, NOW, experiment, failing, http, postgres, snapshot, tcp, working

API = http("api", "https://api.example.com/health")
SHOP = http("shop", "https://shop.example.net/")
BROKER = tcp("broker", "broker.airflow:6379")
ORDERS = tcp("orders", "orders.airflow:80")
WAREHOUSE = postgres("warehouse", "postgresql://probe@warehouse.corp.internal/app", scope=Scope.PRIVATE)
LEDGER = postgres("ledger", "postgresql://probe@ledger.corp.internal/app", scope=Scope.PRIVATE)
MOVED = tcp("moved", "10.20.0.5:5432", scope=Scope.PRIVATE)
FORBIDDEN = replace(tcp("metadata", "metadata:5432"), negative=True)

PUBLIC, PUBLIC_TOO = {Fact.ADDRESS: "203.0.113.7:443"}, {Fact.ADDRESS: "203.0.113.99:443"}
IN_CLUSTER, IN_CLUSTER_TOO = {Fact.ADDRESS: "10.96.0.20:6379"}, {Fact.ADDRESS: "10.96.0.21:80"}
BEHIND_VPN, BEHIND_VPN_TOO = {Fact.ADDRESS: "10.20.0.5:5432"}, {Fact.ADDRESS: "10.20.0.6:5432"}
CONNECTED: Mapping[Phase, float] = {Phase.CONNECT: 0.01}

SILENT = Connected(Failure(phase=Phase.CONNECT, reason=Reason.TIMEOUT, detail="no answer"), 1.5)
REFUSED = Failure(phase=Phase.CONNECT, reason=Reason.REFUSED, detail="the connection was refused")
OPEN = Connected(None, 0.001)
KUBERNETES_API = Connect("10.96.0.1", 443)
NO_IPV6 = LocalTables((), (), global_ipv6=False, sent_segments=10, retransmitted_segments=0, default_routes=(4,))
NO_ROUTE = LocalTables(
    (), ("10.20.0.5",), global_ipv6=True, sent_segments=10, retransmitted_segments=0, default_routes=(4,)
)


def asked(server: str, **how: Any) -> dict[Fact, Any]:
    """A question that one nameserver got."""
    entry = {"server": f"{server}:53", "name": "api.example.com", "record": "A", "transport": "udp", **how}
    return {Fact.DNS_ATTEMPTS: [entry]}


def tried(server: str, other: str) -> dict[Fact, Any]:
    """One nameserver left a question unanswered, and the next one answered."""
    silent = asked(server, error="timeout", duration_seconds=1.0)[Fact.DNS_ATTEMPTS]
    return {Fact.DNS_ATTEMPTS: silent + asked(other, rcode="NOERROR", duration_seconds=0.001)[Fact.DNS_ATTEMPTS]}


def runs(history: History, *succeeded: bool) -> History:
    """By turns, the newest first, from a history whose newest outcome failed and whose oldest did not."""
    bad, good = history.outcomes[0], history.outcomes[-1]
    outcomes = tuple(replace(good if well else bad, started_at=NOW - 2.0 * n) for n, well in enumerate(succeeded))
    return History(history.target, outcomes)


def every_15_seconds(target: Target[Any], facts: Mapping[Fact, Any], slow: Phase) -> History:
    """Four successes in which one phase took a second more than it should."""
    good = working(target, facts, phases={Phase.RESOLVE: 0.001, Phase.CONNECT: 0.001} | {slow: 1.02}).outcomes[0]
    return History(target, tuple(replace(good, started_at=NOW - 15.0 * n) for n in range(4)))


def began_badly(target: Target[Any]) -> History:
    """Its first run, two seconds after the pod's start, failed; the next one did not."""
    bad, good = failing(target, "connect/timeout").outcomes[0], working(target).outcomes[0]
    return History(target, (replace(good, started_at=NOW - 5.0), replace(bad, started_at=NOW - 28.0)))


def young(seen: Snapshot) -> Snapshot:
    return replace(seen, pod=replace(seen.pod, started_at=NOW - 30.0))


def nameservers(seen: Snapshot, *ips: str) -> Snapshot:
    return replace(seen, pod=replace(seen.pod, resolver=replace(seen.pod.resolver, nameservers=ips)))


def starved(outcome: Outcome) -> Outcome:
    facts = {**outcome.facts, Fact.STARVED: True, Fact.EVENT_LOOP_LAG_SECONDS: 4.0}
    return replace(outcome, facts=facts)


def certificate(subject: str, issuer: str, *, begins: float, ends: float) -> dict[Fact, Any]:
    return {
        Fact.CERTIFICATE_SUBJECT: subject,
        Fact.CERTIFICATE_ISSUER: issuer,
        Fact.CERTIFICATE_NOT_BEFORE: NOW + begins,
        Fact.CERTIFICATE_EXPIRES_AT: NOW + ends,
        Fact.CERTIFICATE_CHAIN: [{"subject": subject, "issuer": issuer, "expires_at": NOW + ends}],
    }


EXPIRED = certificate("CN=api.example.com", "CN=Public CA", begins=-60 * DAY, ends=-3 * DAY)
FUTURE = certificate("CN=api.example.com", "CN=Public CA", begins=DAY, ends=60 * DAY)
PROXIED = {Fact.PROXY: "http://proxy.corp.internal:3128"}
TIMEOUT = failing(API, "connect/timeout", PUBLIC)

WORLDS: Mapping[Cause, Snapshot] = {
    Cause.HEALTHY: snapshot(working(API, PUBLIC)),
    Cause.UNKNOWN: snapshot(failing(API, "verify/closed"), working(SHOP)),
    Cause.PROBER_STARVED: snapshot(
        History(API, tuple(starved(outcome) for outcome in TIMEOUT.outcomes[:2])), working(SHOP, PUBLIC_TOO)
    ),
    Cause.PROBE_MISCONFIGURED: snapshot(failing(API, "request/internal"), working(SHOP)),
    Cause.POLICY_NOT_ENFORCED: snapshot(failing(FORBIDDEN, "verify/unexpected_success"), working(SHOP)),
    Cause.NETWORK_DOWN: snapshot(
        failing(API, "resolve/timeout", asked("10.96.0.10", error="timeout")),
        failing(MOVED, "connect/timeout", BEHIND_VPN, phases=CONNECTED),
        experiments=[experiment(KUBERNETES_API, SILENT, "api", "moved")],
    ),
    Cause.NETWORK_NOT_READY: young(snapshot(*(began_badly(target) for target in (API, BROKER, WAREHOUSE)))),
    Cause.NO_ROUTE: snapshot(
        failing(WAREHOUSE, "connect/unreachable", BEHIND_VPN),
        working(API, PUBLIC),
        experiments=[experiment(LocalNetwork(), NO_ROUTE, "warehouse")],
    ),
    Cause.EGRESS_BLOCKED: snapshot(
        failing(API, "connect/timeout", PUBLIC),
        failing(SHOP, "connect/timeout", PUBLIC_TOO),
        working(BROKER, IN_CLUSTER),
    ),
    Cause.CLUSTER_BLOCKED: snapshot(
        failing(BROKER, "connect/timeout", IN_CLUSTER),
        failing(ORDERS, "connect/timeout", IN_CLUSTER_TOO),
        working(API, PUBLIC),
        experiments=[experiment(KUBERNETES_API, SILENT, "broker", "orders")],
    ),
    Cause.PRIVATE_NETWORK_UNREACHABLE: snapshot(
        failing(WAREHOUSE, "connect/timeout", BEHIND_VPN),
        failing(LEDGER, "connect/timeout", BEHIND_VPN_TOO),
        working(API, PUBLIC),
    ),
    Cause.TARGET_BLOCKED: snapshot(failing(API, "connect/timeout", PUBLIC), working(SHOP, PUBLIC_TOO)),
    Cause.HARDCODED_ADDRESS: snapshot(
        failing(MOVED, "connect/timeout", BEHIND_VPN), working(LEDGER, BEHIND_VPN_TOO), working(API, PUBLIC)
    ),
    Cause.IPV6_BROKEN: snapshot(
        failing(API, "connect/unreachable", {Fact.ADDRESS: "[2001:db8::7]:443"}),
        working(SHOP, PUBLIC_TOO),
        experiments=[experiment(LocalNetwork(), NO_IPV6, "api")],
    ),
    Cause.ONE_ADDRESS_DEAD: snapshot(
        failing(API, "connect/timeout", {**PUBLIC, Fact.ADDRESSES: ["203.0.113.7", "203.0.113.8"]}),
        working(SHOP, PUBLIC_TOO),
        experiments=[experiment(Connect("203.0.113.8", 443), OPEN, "api")],
    ),
    Cause.DNS_UNREACHABLE: snapshot(failing(API, "resolve/timeout", asked("10.96.0.10", error="timeout"))),
    # Three rounds of questions that one left unanswered: two targets, at different times.
    Cause.DNS_NAMESERVER_DOWN: nameservers(
        snapshot(
            working(API, tried("10.96.0.10", "10.96.0.11")),
            every_15_seconds(SHOP, tried("10.96.0.10", "10.96.0.11"), Phase.RESOLVE),
        ),
        "10.96.0.10",
        "10.96.0.11",
    ),
    Cause.DNS_FAILING: snapshot(
        failing(API, "resolve/server_failure", asked("10.96.0.10", rcode="SERVFAIL")), working(BROKER, IN_CLUSTER)
    ),
    Cause.DNS_SLOW: snapshot(
        *(every_15_seconds(target, tried("10.96.0.10", "10.96.0.10"), Phase.RESOLVE) for target in (API, SHOP))
    ),
    Cause.NAME_NOT_FOUND: snapshot(
        failing(API, "resolve/name_not_found", asked("10.96.0.10", rcode="NXDOMAIN")), working(SHOP)
    ),
    Cause.SERVICE_WITHOUT_ENDPOINTS: snapshot(
        failing(BROKER, "connect/refused", IN_CLUSTER),
        working(ORDERS, IN_CLUSTER_TOO),
        experiments=[
            experiment(Connect("10.96.0.20", 6379), Connected(REFUSED, 0.001, rejected=True), "broker"),
        ],
    ),
    Cause.NOTHING_LISTENING: snapshot(
        failing(BROKER, "connect/refused", IN_CLUSTER),
        working(ORDERS, IN_CLUSTER_TOO),
        experiments=[
            experiment(Connect("10.96.0.20", 6379), Connected(REFUSED, 0.001, rejected=False), "broker"),
        ],
    ),
    Cause.WRONG_PORT: snapshot(
        History(BROKER, failing(BROKER, "connect/refused", IN_CLUSTER).outcomes[:2]),
        working(ORDERS, IN_CLUSTER_TOO),
        experiments=[
            experiment(Connect("10.96.0.20", 6379), Connected(REFUSED, 0.001, rejected=False), "broker"),
            experiment(Connect("10.96.0.20", 6380), OPEN, "broker"),
        ],
    ),
    Cause.FLAPPING: snapshot(
        runs(failing(API, "connect/timeout", PUBLIC), False, True, False, True, False, True), working(SHOP, PUBLIC_TOO)
    ),
    Cause.PACKET_LOSS: snapshot(
        *(every_15_seconds(target, {Fact.RETRANSMITTED_SEGMENTS: 1}, Phase.CONNECT) for target in (API, SHOP))
    ),
    Cause.SLOW: snapshot(
        History(API, tuple(replace(outcome, duration_seconds=4.0) for outcome in working(API, PUBLIC).outcomes))
    ),
    Cause.STALLED_AFTER_CONNECT: snapshot(failing(API, "tls/timeout", PUBLIC), working(SHOP, PUBLIC_TOO)),
    Cause.TLS_CERTIFICATE: snapshot(failing(API, "tls/certificate_expired", EXPIRED), working(SHOP)),
    Cause.TLS_INTERCEPTION: snapshot(
        *(
            failing(
                target,
                "tls/certificate_untrusted",
                certificate(f"CN={target.options.host}", "CN=Corporate Proxy", begins=-DAY, ends=DAY),
            )
            for target in (API, SHOP, http("news", "https://news.example.org/"))
        )
    ),
    Cause.TLS_PROTOCOL: snapshot(failing(API, "tls/protocol_error", PUBLIC, detail="no shared cipher"), working(SHOP)),
    Cause.CLOCK_SKEW: snapshot(
        failing(API, "tls/certificate_not_yet_valid", FUTURE | {Fact.CLOCK_AHEAD_SECONDS: -2 * int(DAY)}),
        working(SHOP, {Fact.CLOCK_AHEAD_SECONDS: -2 * int(DAY)}),
    ),
    Cause.PLAIN_TEXT_ON_TLS_PORT: snapshot(
        failing(
            http("api", "http://api.example.com:443/"), "request/protocol_error", {**PUBLIC, Fact.TLS_WANTED: True}
        ),
        working(SHOP),
    ),
    Cause.TLS_ON_PLAIN_TEXT_PORT: snapshot(failing(API, "tls/not_tls", PUBLIC), working(SHOP)),
    Cause.PROXY_UNREACHABLE: snapshot(failing(API, "connect/timeout", PROXIED), working(BROKER, IN_CLUSTER)),
    Cause.PROXY_DENIED: snapshot(failing(API, "proxy/denied", PROXIED), working(SHOP, PROXIED)),
    Cause.PROXY_AUTH: snapshot(failing(API, "proxy/auth_required", PROXIED), working(BROKER, IN_CLUSTER)),
    Cause.MESH_NOT_READY: snapshot(
        failing(API, "connect/refused", PUBLIC),
        failing(BROKER, "connect/refused", IN_CLUSTER),
        experiments=[
            experiment(MeshProxy(), Mesh("istio", ready=False, detail="127.0.0.1:15021/healthz/ready: 503"), "api")
        ],
    ),
    Cause.MESH_NO_UPSTREAM: snapshot(
        failing(
            http("orders", "http://orders.airflow/", scope=Scope.CLUSTER),
            "verify/unexpected_status",
            {Fact.HTTP_STATUS_CODE: 503, Fact.MESH_ERROR: "no healthy upstream", Fact.HTTP_SERVER: "envoy"},
        ),
        working(SHOP),
        experiments=[
            experiment(MeshProxy(), Mesh("istio", ready=True, detail="127.0.0.1:15021/healthz/ready: 200"), "orders")
        ],
    ),
    Cause.CREDENTIALS_REJECTED: snapshot(failing(WAREHOUSE, "login/credentials_rejected"), working(API)),
    Cause.ACCESS_DENIED: snapshot(failing(WAREHOUSE, "login/access_denied"), working(API)),
    Cause.DATABASE_MISSING: snapshot(failing(WAREHOUSE, "login/database_not_found"), working(API)),
    Cause.DATABASE_FULL: snapshot(failing(WAREHOUSE, "login/too_many_connections"), working(API)),
    Cause.DATABASE_STARTING: snapshot(failing(WAREHOUSE, "login/server_starting"), working(API)),
    Cause.SERVER_ERROR: snapshot(
        failing(API, "verify/unexpected_status", {Fact.HTTP_STATUS_CODE: 500}), working(BROKER)
    ),
    Cause.WRONG_CONTENT: snapshot(
        failing(API, "verify/unexpected_body", {Fact.HTTP_STATUS_CODE: 200}), working(BROKER)
    ),
}


def test_there_is_a_world_for_every_cause() -> None:
    """A cause that the enum gains needs one."""
    assert set(WORLDS) == set(Cause)


@pytest.mark.parametrize("cause", Cause)
def test_a_cause_is_reached(cause: Cause) -> None:
    """Its world is diagnosed so, and has no second trouble."""
    diagnosis: Diagnosis = diagnose(WORLDS[cause])

    assert diagnosis.causes == (cause,), diagnosis
