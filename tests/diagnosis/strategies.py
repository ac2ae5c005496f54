"""Random snapshots: pods, targets, outcomes, histories and experiments, sane and odd, for testing the rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from hypothesis import strategies as st

from agent.diagnosis import History, Pod, Resolver, Snapshot
from agent.diagnosis.experiment import (
    Answer,
    Clock,
    Connect,
    Connected,
    Exchanged,
    Experiment,
    Gateway,
    LocalNetwork,
    LocalTables,
    Looked,
    Lookup,
    Mesh,
    MeshProxy,
    Question,
    ServerClock,
    SmallSegments,
)
from agent.keys import section
from agent.model import DETAIL_LIMIT, REASONS, Fact, Failure, Outcome, Phase, Reason, Role, Scope, Target
from agent.probers import PROBERS

SECRET = "5ecret-Marker"
"""Stands wherever a target's options may hold a secret. No text of a diagnosis may show it."""

NOW = 1_700_000_000.0

NAMESERVERS = ("10.96.0.10", "10.96.0.11", "169.254.20.10", "fd00:10:96::a")
API = ("10.96.0.1", 443)

CLUSTER_HOSTS = (
    "internal-database",
    "broker.airflow",
    "api.airflow.svc",
    "kubernetes.default.svc.cluster.local",
    "kubernetes.default.svc.cluster.local.",
    "10.96.0.20",
    "localhost",
    "127.0.0.1",
    "::1",
)
PRIVATE_HOSTS = ("10.20.0.5", "192.168.7.9", "100.64.3.3", "db.corp.internal", "nas.local", "fd00:20::5")
PUBLIC_HOSTS = (
    "api.example.com",
    "api.example.com.",
    "partner.example.net",
    "xn--bcher-kva.example",
    "203.0.113.7",
    "2001:db8::7",
    ".".join(["a" * 63] * 3) + ".example",
)
HOSTS: Mapping[Scope, Sequence[str]] = MappingProxyType(
    {Scope.CLUSTER: CLUSTER_HOSTS, Scope.PRIVATE: PRIVATE_HOSTS, Scope.PUBLIC: PUBLIC_HOSTS}
)
ADDRESSES = (
    "10.96.0.20",
    "10.96.0.21",
    "10.20.0.5",
    "203.0.113.7",
    "203.0.113.8",
    "127.0.0.1",
    "2001:db8::7",
    "fd00:20::5",
    "fe80::1",
)
PORTS = (1, 80, 443, 3128, 5432, 6379, 8080, 65535)

# --- texts -----------------------------------------------------------------------------------------------------------

_ODD = st.text(st.characters(codec="utf-8"), max_size=40)
"""What a peer may say: anything."""
_TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "CN=api.example.com",
            "expected x, got y",
            "CN=Corporate Proxy CA,O=Example",
            "line one\nline two",
            "\x1b[31mred\x1b[0m",
            "a\u2028b\u202ec\x00d",
            "w" * DETAIL_LIMIT,
            "HTTP/1.1 503 Service Unavailable",
            "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
        ]
    ),
    _ODD,
)
_FLOATS = st.one_of(
    st.sampled_from([0.0, 0.001, 0.3, 0.99, 1.0, 1.02, 3.0, 3.1, 5.0, 5.003, 6.0, 1e9]),
    st.floats(min_value=0, max_value=100, allow_nan=False),
)

# --- targets ---------------------------------------------------------------------------------------------------------


@cache
def _options(kind: str, host: str, port: int, variant: str) -> Any:
    """Options as a configuration would give them; reading them is the slow part, and there are few."""
    shown = f"[{host}]" if ":" in host else host
    address = host.rpartition(".")[2].isdecimal() or ":" in host
    keys: dict[str, dict[str, Any]] = {
        "dns": {
            "pod": {"query": host, "record": "PTR" if address else "A"},
            "aaaa": {"query": "db.example.com" if address else host, "record": "AAAA"},
            "server": {"query": "db.example.com", "server": f"{shown}:{port}"},
            "system": {"query": "db.example.com" if address else host, "server": "system"},
        },
        "tcp": {
            "pod": {"address": f"{shown}:{port}"},
            "aaaa": {"address": f"{shown}:{port}", "tls": {}, "addresses": "all"},
            "server": {"address": f"{shown}:{port}", "dialogue": [{"send": SECRET}, {"expect": "OK"}]},
            "system": {"address": f"{shown}:{port}", "resolv_conf": "/elsewhere/resolv.conf"},
        },
        "http": {
            "pod": {"url": f"https://{shown}/data?token={SECRET}", "bearer_token": SECRET, "proxy": "none"},
            "aaaa": {"url": f"http://{shown}:{port}/", "family": "6", "headers": {"Authorization": SECRET}},
            "server": {
                "url": f"https://{shown}:{port}/x?signature={SECRET}",
                "proxy": f"http://user:{SECRET}@proxy.corp.internal:3128",
                "basic_auth": {"username": "user", "password": SECRET},
            },
            "system": {"url": f"http://{shown}/", "proxy": "http://10.20.0.9:3128", "body": SECRET, "method": "POST"},
        },
        "postgres": {
            "pod": {"dsn": f"postgresql://probe@{shown}:{port}/app", "mode": "handshake"},
            "aaaa": {"dsn": f"postgresql://probe:{SECRET}@{shown}:{port}/app", "mode": "login", "sslmode": "require"},
            "server": {"dsn": f"postgresql://probe@{shown}/app", "mode": "query", "password": SECRET},
            "system": {"dsn": f"postgresql://probe@{shown}/app", "mode": "handshake", "sslmode": "disable"},
        },
    }
    return section(PROBERS[kind].options)(keys[kind][variant])


@st.composite
def targets(draw: st.DrawFn, name: str) -> Target[Any]:
    """A target of any type, role and scope; its scope is mostly that of its host, and may be said otherwise."""
    scope = draw(st.sampled_from(Scope))
    host = draw(st.sampled_from(HOSTS[scope]))
    kind = draw(st.sampled_from(sorted(PROBERS)))
    variant = draw(st.sampled_from(["pod", "aaaa", "server", "system"]))
    port = draw(st.sampled_from(PORTS))
    return Target(
        name=name,
        type=kind,
        interval_seconds=15.0,
        timeout_seconds=draw(st.sampled_from([1.5, 6.0, 0.01])),
        confirm_interval_seconds=2.0,
        confirm_runs=3,
        negative=draw(st.sampled_from([False, False, False, True])),
        gate=False,
        role=draw(st.sampled_from(Role)),
        scope=draw(st.sampled_from([scope, scope, scope, *Scope])),
        options=_options(kind, host, port, variant),
    )


# --- outcomes --------------------------------------------------------------------------------------------------------

PAIRS: Sequence[tuple[Phase, Reason]] = [(phase, reason) for phase in Phase for reason in sorted(REASONS[phase])]
"""Every (phase, reason) a failure can have."""

_NETWORK_PAIRS: Sequence[tuple[Phase, Reason]] = [
    (Phase.RESOLVE, Reason.TIMEOUT),
    (Phase.RESOLVE, Reason.NAME_NOT_FOUND),
    (Phase.CONNECT, Reason.TIMEOUT),
    (Phase.CONNECT, Reason.REFUSED),
    (Phase.CONNECT, Reason.UNREACHABLE),
    (Phase.TLS, Reason.TIMEOUT),
]

_CERTIFICATE_PAIRS: Sequence[tuple[Phase, Reason]] = [
    (Phase.TLS, Reason.CERTIFICATE_UNTRUSTED),
    (Phase.TLS, Reason.CERTIFICATE_EXPIRED),
    (Phase.TLS, Reason.CERTIFICATE_NOT_YET_VALID),
]

_IP = st.sampled_from(ADDRESSES)
_SOCKET = st.builds(lambda ip, port: f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}", _IP, st.sampled_from(PORTS))
_PHASE = st.sampled_from([phase.value for phase in Phase])
_REASON = st.sampled_from([reason.value for reason in Reason])
_SECONDS_OF_PHASES = st.dictionaries(_PHASE, _FLOATS, max_size=3)
_RCODE = st.sampled_from(["NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "FORMERR", "BADVERS", "RCODE42"])
_DNS_SERVER = st.sampled_from([*(f"{ip}:53" if "." in ip else f"[{ip}]:53" for ip in NAMESERVERS), "system"])
_NAMES = st.sampled_from([*CLUSTER_HOSTS, *PUBLIC_HOSTS, "internal-database.airflow.svc.cluster.local", "."])

_DNS_ATTEMPT = st.fixed_dictionaries(
    {
        "server": _DNS_SERVER,
        "name": _NAMES,
        "record": st.sampled_from(["A", "AAAA", "PTR"]),
        "transport": st.sampled_from(["udp", "tcp"]),
    },
    optional={
        "rcode": _RCODE,
        "error": _REASON,
        "duration_seconds": _FLOATS,
        "truncated": st.booleans(),
        "edns": st.booleans(),
        "ignored": st.integers(1, 9),
    },
)
_DNS_SAYING = st.one_of(
    st.fixed_dictionaries({"server": _DNS_SERVER, "error": _REASON}),
    st.fixed_dictionaries(
        {
            "server": _DNS_SERVER,
            "rcode": _RCODE,
            "answers": st.lists(_IP, max_size=2),
            "same_answer": st.booleans(),
        }
    ),
)
_CERTIFICATE_DATES = st.sampled_from([0.0, NOW - 86_400 * 3, NOW - 60, NOW + 60, NOW + 86_400 * 30, 253_402_300_799.0])

FACTS: Mapping[Fact, st.SearchStrategy[Any]] = MappingProxyType(
    {
        Fact.ADDRESS: _SOCKET,
        Fact.ADDRESSES: st.lists(_IP, max_size=4),
        Fact.ATTEMPTS: st.lists(
            st.one_of(
                st.fixed_dictionaries(
                    {
                        "address": _SOCKET,
                        "success": st.just(value=True),
                        "phase": st.none(),
                        "reason": st.none(),
                        "detail": st.none(),
                        "phases": _SECONDS_OF_PHASES,
                    }
                ),
                st.fixed_dictionaries(
                    {
                        "address": _SOCKET,
                        "success": st.just(value=False),
                        "phase": _PHASE,
                        "reason": _REASON,
                        "detail": _TEXTS,
                        "phases": _SECONDS_OF_PHASES,
                    }
                ),
            ),
            max_size=4,
        ),
        Fact.PROXY: st.sampled_from(["http://proxy.corp.internal:3128", "http://10.20.0.9:3128"]),
        Fact.BLOCKED_BY: st.sampled_from([f"{phase}/{reason}" for phase, reason in PAIRS]),
        Fact.STARVED: st.just(value=True),
        Fact.EVENT_LOOP_LAG_SECONDS: _FLOATS,
        Fact.RETRANSMITTED_SEGMENTS: st.integers(1, 9),
        Fact.TLS_VERSION: st.sampled_from(["TLSv1.2", "TLSv1.3", None]),
        Fact.TLS_CIPHER: st.sampled_from(["TLS_AES_256_GCM_SHA384", None]),
        Fact.CERTIFICATE_SUBJECT: _TEXTS,
        Fact.CERTIFICATE_ISSUER: st.one_of(st.just("CN=Corporate Proxy CA,O=Example"), _TEXTS),
        Fact.CERTIFICATE_NAMES: st.lists(_TEXTS, max_size=3),
        Fact.CERTIFICATE_NOT_BEFORE: _CERTIFICATE_DATES,
        Fact.CERTIFICATE_EXPIRES_AT: _CERTIFICATE_DATES,
        Fact.CERTIFICATE_CHAIN: st.lists(
            st.fixed_dictionaries(
                {"subject": _TEXTS, "issuer": _TEXTS, "expires_at": st.one_of(st.none(), _CERTIFICATE_DATES)}
            ),
            max_size=3,
        ),
        Fact.CERTIFICATE_VERIFIED: st.booleans(),
        Fact.CERTIFICATE_ERROR: _TEXTS,
        Fact.CLIENT_CERTIFICATE_EXPIRES_AT: _CERTIFICATE_DATES,
        Fact.CLIENT_CERTIFICATE_REQUESTED: st.just(value=True),
        Fact.HTTP_STATUS_CODE: st.sampled_from([200, 204, 301, 302, 400, 401, 403, 404, 407, 418, 500, 502, 503, 599]),
        Fact.HTTP_VERSION: st.sampled_from(["1.0", "1.1"]),
        Fact.HTTP_REDIRECTS: st.lists(
            st.fixed_dictionaries(
                {
                    "url": st.sampled_from(["http://api.example.com/", "https://login.example.org/sso"]),
                    "status": st.sampled_from([301, 302, 307]),
                }
            ),
            max_size=3,
        ),
        Fact.HTTP_LOCATION: st.sampled_from(["http://api.example.com/", "https://login.example.org/sso"]),
        Fact.HTTP_SERVER: st.one_of(st.sampled_from(["envoy", "istio-envoy", "nginx", "squid/5.7"]), _TEXTS),
        Fact.HTTP_CONTENT_TYPE: st.sampled_from(["text/html", "application/json", ""]),
        Fact.HTTP_TITLE: st.one_of(st.just("Sign in to your account"), _TEXTS),
        Fact.CLOCK_AHEAD_SECONDS: st.sampled_from([0, 1, -1, 400, -400, 10**9, -(10**9)]),
        Fact.PROXY_ERROR: st.one_of(st.sampled_from(["ERR_CONNECT_FAIL 111", "ERR_ACCESS_DENIED 0"]), _TEXTS),
        Fact.MESH_PROXY: st.sampled_from(["envoy", "istio-envoy", "linkerd"]),
        Fact.MESH_ERROR: st.one_of(st.just("no healthy upstream"), _TEXTS),
        Fact.TLS_WANTED: st.just(value=True),
        Fact.HTTP_BODY_BYTES: st.integers(0, 1 << 40),
        Fact.NO_LOCAL_PORT: st.just(value=True),
        Fact.DNS_SERVER: _DNS_SERVER,
        Fact.DNS_RCODE: _RCODE,
        Fact.DNS_NAME: _NAMES,
        Fact.HOSTS_FILE: st.just(value=True),
        Fact.DNS_TRUNCATED: st.booleans(),
        Fact.DNS_ANSWERS: st.lists(st.one_of(_IP, _TEXTS), max_size=3),
        Fact.DNS_TTL_SECONDS: st.integers(0, 1 << 31),
        Fact.DNS_AUTHENTICATED: st.booleans(),
        Fact.DNS_QUERIES: st.integers(0, 40),
        Fact.DNS_ATTEMPTS: st.lists(_DNS_ATTEMPT, max_size=6),
        Fact.DNS_NAMESERVERS: st.lists(_DNS_SAYING, max_size=3),
        Fact.SERVER_VERSION: _TEXTS,
        Fact.IN_RECOVERY: st.booleans(),
        Fact.SQLSTATE: st.sampled_from(["28P01", "28000", "3D000", "53300", "57P03", "08P01", "XX000", ""]),
        Fact.AUTHENTICATION: st.sampled_from(["password", "SCRAM-SHA-256", "none", ""]),
        Fact.TLS_DECLINED: st.booleans(),
        Fact.UNENCRYPTED_REFUSAL: _TEXTS,
        Fact.SERVER_SIGNATURE: _TEXTS,
    }
)
"""Values of the type that each fact has. A fact added to the model later has to be given its own."""


def facts(known: Sequence[Fact] = tuple(FACTS)) -> st.SearchStrategy[dict[Fact, Any]]:
    """Some facts, few at a time: a rule looks at one or two."""
    return st.lists(st.sampled_from(known), max_size=5, unique=True).flatmap(
        lambda some: st.fixed_dictionaries({fact: FACTS[fact] for fact in some})
    )


_SOME_FACTS: Mapping[Phase, Sequence[Fact]] = MappingProxyType(
    {
        Phase.RESOLVE: (
            Fact.DNS_ATTEMPTS,
            Fact.DNS_NAMESERVERS,
            Fact.DNS_QUERIES,
            Fact.DNS_RCODE,
            Fact.DNS_NAME,
            Fact.PROXY,
            Fact.STARVED,
            Fact.EVENT_LOOP_LAG_SECONDS,
        ),
        Phase.CONNECT: (
            Fact.ADDRESSES,
            Fact.ATTEMPTS,
            Fact.DNS_NAME,
            Fact.PROXY,
            Fact.STARVED,
            Fact.EVENT_LOOP_LAG_SECONDS,
        ),
        Phase.PROXY: (Fact.PROXY, Fact.PROXY_ERROR, Fact.HTTP_STATUS_CODE, Fact.HTTP_SERVER, Fact.MESH_ERROR),
        Phase.TLS: (
            Fact.TLS_VERSION,
            Fact.TLS_WANTED,
            Fact.CERTIFICATE_SUBJECT,
            Fact.CERTIFICATE_ISSUER,
            Fact.CERTIFICATE_NOT_BEFORE,
            Fact.CERTIFICATE_EXPIRES_AT,
            Fact.CERTIFICATE_CHAIN,
            Fact.CLOCK_AHEAD_SECONDS,
        ),
        Phase.LOGIN: (
            Fact.SQLSTATE,
            Fact.TLS_DECLINED,
            Fact.UNENCRYPTED_REFUSAL,
            Fact.AUTHENTICATION,
            Fact.IN_RECOVERY,
        ),
        Phase.VERIFY: (
            Fact.HTTP_STATUS_CODE,
            Fact.HTTP_LOCATION,
            Fact.HTTP_SERVER,
            Fact.HTTP_TITLE,
            Fact.HTTP_CONTENT_TYPE,
            Fact.MESH_ERROR,
            Fact.PROXY,
            Fact.PROXY_ERROR,
            Fact.SERVER_SIGNATURE,
        ),
    }
)
"""What rules look at, by the phase that failed."""


def failures(pairs: Sequence[tuple[Phase, Reason]] = PAIRS) -> st.SearchStrategy[Failure]:
    """A failure by one of some pairs of phase and reason."""
    return st.builds(
        lambda pair, detail: Failure(phase=pair[0], reason=pair[1], detail=detail[:DETAIL_LIMIT]),
        st.sampled_from(pairs),
        _TEXTS,
    )


_OF_NEGATIVE = frozenset(
    {
        (Phase.VERIFY, Reason.UNEXPECTED_SUCCESS),
        *((Phase.RESOLVE, reason) for reason in REASONS[Phase.RESOLVE] - {Reason.NAME_NOT_FOUND, Reason.NO_RECORDS}),
        *((Phase.PROXY, reason) for reason in (Reason.DENIED, Reason.AUTH_REQUIRED)),
        *((phase, Reason.INTERNAL) for phase in Phase),
    }
)
_SAID: Mapping[Reason, Mapping[str, str]] = MappingProxyType(
    {
        Reason.TIMEOUT: {"error": "timeout"},
        Reason.UNREACHABLE: {"error": "unreachable"},
        Reason.NAME_NOT_FOUND: {"rcode": "NXDOMAIN"},
        Reason.NO_RECORDS: {"rcode": "NOERROR"},
        Reason.SERVER_FAILURE: {"rcode": "SERVFAIL"},
        Reason.QUERY_REFUSED: {"rcode": "REFUSED"},
    }
)
"""What nameservers did, by what a lookup failed with."""


def _asked(reason: Reason) -> st.SearchStrategy[dict[str, Any]]:
    """A question that explains the failure of a lookup."""
    kept = ("server", "name", "record", "transport", "duration_seconds")
    return _DNS_ATTEMPT.map(lambda attempt: {**{key: attempt[key] for key in kept if key in attempt}, **_SAID[reason]})


@st.composite
def outcomes(
    draw: st.DrawFn, target: Target[Any], at: float, pairs: Sequence[tuple[Phase, Reason] | None] = ()
) -> Outcome:
    """One outcome: a success where the pair drawn is None; phases up to the one that failed, some of them skipped."""
    if target.negative:
        # What proves that it cannot be reached is a success; what proves the opposite is one failure.
        pairs = [None, *(pair for pair in pairs or PAIRS if pair in _OF_NEGATIVE)]
    pair = draw(st.sampled_from(pairs)) if pairs else draw(st.one_of(st.none(), st.sampled_from(PAIRS)))
    phases = list(Phase)
    reached = phases if pair is None else phases[: phases.index(pair[0]) + 1]
    skipped = draw(st.one_of(st.just({Phase.PROXY, Phase.LOGIN}), st.sets(st.sampled_from(phases), max_size=4)))
    seconds = {phase: draw(_FLOATS) for phase in reached if phase not in skipped}
    failure, related = None, tuple(FACTS)
    if pair is not None:
        failure = Failure(phase=pair[0], reason=pair[1], detail=draw(_TEXTS)[:DETAIL_LIMIT])
        related = tuple(_SOME_FACTS.get(pair[0], FACTS)) if draw(st.booleans()) else related
    found = draw(facts(related))
    if pair is None and target.negative:
        found[Fact.BLOCKED_BY] = draw(FACTS[Fact.BLOCKED_BY])
    if pair is None and target.type == "dns":
        # A question was asked and answered, whatever else is odd.
        seconds.setdefault(Phase.RESOLVE, 0.001)
    if pair is not None and pair[1] in _SAID and draw(st.booleans()):
        found[Fact.DNS_ATTEMPTS] = draw(st.lists(_asked(pair[1]), min_size=1, max_size=3))
    odd = draw(st.sampled_from([False, False, False, False, True]))
    if pair in _CERTIFICATE_PAIRS and not odd:
        found[Fact.CERTIFICATE_ISSUER] = issuer = draw(FACTS[Fact.CERTIFICATE_ISSUER])
        found[Fact.CERTIFICATE_CHAIN] = [{"subject": "CN=leaf", "issuer": issuer, "expires_at": NOW}]
    if pair is not None and pair[0] is Phase.PROXY and not odd:
        found[Fact.PROXY] = draw(FACTS[Fact.PROXY])
    host, port = target.options.host, target.options.port
    if (pair is None or pair[0] is not Phase.RESOLVE) and port is not None and target.type != "dns" and not odd:
        # An address is tried as it is written.
        ip = host if host in ADDRESSES else draw(_IP)
        found[Fact.ADDRESS] = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    return Outcome(
        target=target, started_at=at, duration_seconds=draw(_FLOATS), phases=seconds, facts=found, failure=failure
    )


_REACH_ALL: Sequence[tuple[Phase, Reason] | None] = [*_NETWORK_PAIRS, None]
_ALLOWED: Mapping[str, Sequence[Phase]] = MappingProxyType(
    {
        "dns": (Phase.RESOLVE, Phase.VERIFY),
        "tcp": (Phase.RESOLVE, Phase.CONNECT, Phase.TLS, Phase.REQUEST, Phase.TRANSFER, Phase.VERIFY),
        "http": tuple(phase for phase in Phase if phase is not Phase.LOGIN),
        "postgres": tuple(phase for phase in Phase if phase is not Phase.PROXY),
    }
)
"""The phases in which a target of each type can fail."""


def _usual_pairs(target: Target[Any]) -> Sequence[tuple[Phase, Reason]]:
    """What a target of its type does fail with; a negative one mostly by being reachable."""
    if target.negative:
        return [(Phase.VERIFY, Reason.UNEXPECTED_SUCCESS), (Phase.RESOLVE, Reason.TIMEOUT)]
    unusual = {Reason.UNEXPECTED_SUCCESS, Reason.INTERNAL}
    return [pair for pair in PAIRS if pair[0] in _ALLOWED[target.type] and pair[1] not in unusual]


@st.composite
def histories(draw: st.DrawFn, name: str, habits: Mapping[Scope, tuple[Phase, Reason] | None] | None) -> History:
    """A target and up to ten outcomes: by the habit of its scope, by one habit of its own, or each as it comes."""
    target = draw(targets(name))
    count = draw(st.sampled_from([0, 1, 1, 2, 3, 10]))
    ways = ["steady", "steady", "recovered", "wild"]
    way = draw(st.sampled_from(["scope", "scope", "scope", *ways] if habits is not None else ways))
    pairs: Sequence[tuple[Phase, Reason] | None] = ()
    if way == "scope" and habits is not None:
        pairs = [habits[target.scope]]
    elif way in {"steady", "recovered"}:
        usual = draw(st.booleans())
        pairs = [draw(st.sampled_from([*_REACH_ALL, *_usual_pairs(target)] if usual else [*_REACH_ALL, *PAIRS]))]
    since = draw(st.sampled_from([0.0, 1.0, 30.0]))
    # What a rule looks at closely is the latest; of the older ones, two are enough to tell apart.
    drawn = [
        draw(outcomes(target, NOW - since - 2.0 * n, [None] if way == "recovered" and n == 0 else pairs))
        for n in range(min(count, 3))
    ]
    older = [
        dataclasses.replace(drawn[draw(st.integers(1, 2))], started_at=NOW - since - 2.0 * n) for n in range(3, count)
    ]
    age = draw(st.sampled_from([None, None, 20.0, 300.0])) if drawn else None
    before = [draw(outcomes(target, NOW - since - age, _NETWORK_PAIRS))] if age is not None else []
    failed = tuple(outcome for outcome in before if outcome.failure is not None)
    return History(target, (*drawn, *older), failed, next(iter(failed), drawn[-1] if drawn else None))


# --- the pod ---------------------------------------------------------------------------------------------------------


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    """A pod of any age, in a cluster or not."""
    in_cluster = draw(st.booleans())
    return Pod(
        started_at=NOW - draw(st.sampled_from([0.0, 2.0, 30.0, 299.0, 301.0, 86_400.0, -5.0])),
        resolver=Resolver(
            nameservers=tuple(draw(st.lists(st.sampled_from(NAMESERVERS), max_size=3, unique=True))),
            search=draw(
                st.sampled_from(
                    [(), ("airflow.svc.cluster.local", "svc.cluster.local", "cluster.local"), ("corp.internal",)]
                )
            ),
            ndots=draw(st.sampled_from([1, 2, 5])),
            timeout_seconds=draw(st.sampled_from([1.0, 5.0])),
        ),
        namespace="airflow" if in_cluster else None,
        cluster_domain="cluster.local" if in_cluster else None,
        kubernetes_api=draw(st.sampled_from([API, ("fd00:10:96::1", 443), None])) if in_cluster else None,
    )


# --- experiments -----------------------------------------------------------------------------------------------------


def questions(
    names: Sequence[str], asked_of: Sequence[str], nameservers: Sequence[str], peers: Sequence[tuple[str, int]]
) -> st.SearchStrategy[Question]:
    """Questions as planners ask them: of the nameservers, of hosts and of targets there are."""
    kinds: list[st.SearchStrategy[Question]] = [
        st.builds(
            lambda peer, hops: Connect(peer[0], peer[1], hops), st.sampled_from(peers), st.sampled_from([None, None, 1])
        ),
        st.just(MeshProxy()),
        st.just(LocalNetwork()),
        st.builds(SmallSegments, st.sampled_from(names)),
        st.builds(ServerClock, st.sampled_from(names)),
    ]
    if nameservers:
        kinds.append(
            st.builds(
                Lookup,
                st.sampled_from(asked_of),
                st.sampled_from(["A", "AAAA"]),
                st.sampled_from(nameservers),
                st.sampled_from(["udp", "tcp"]),
            )
        )
    return st.one_of(kinds)


_CONNECT_FAILURES = st.one_of(
    st.none(),
    failures([(Phase.CONNECT, reason) for reason in (Reason.TIMEOUT, Reason.REFUSED, Reason.UNREACHABLE)]),
    failures([(Phase.CONNECT, reason) for reason in sorted(REASONS[Phase.CONNECT])]),
)


def answers(question: Question) -> st.SearchStrategy[Answer]:
    """Any answer of the kind that a question has."""
    match question:
        case Lookup():
            return st.one_of(
                st.builds(
                    Looked,
                    _RCODE,
                    st.lists(_IP, max_size=3).map(tuple),
                ),
                st.builds(Looked, st.none(), st.just(()), _RESOLVE_REASON),
            )
        case Connect():
            return st.builds(
                Connected,
                _CONNECT_FAILURES,
                _FLOATS,
                st.sampled_from([None, True, False]),
                st.sampled_from([None, None, "port unreachable", "administratively prohibited", "host unreachable"]),
                st.one_of(st.none(), _IP),
            )
        case SmallSegments():
            return st.builds(Exchanged, st.one_of(st.none(), failures()), _FLOATS)
        case ServerClock():
            return st.builds(Clock, st.sampled_from([None, 0.0, 0.4, -0.4, 400.0, -400.0, 1e9, -1e9]))
        case MeshProxy():
            return st.builds(
                Mesh, st.sampled_from([None, "istio", "linkerd", "envoy"]), st.sampled_from([None, True, False]), _TEXTS
            )
        case LocalNetwork():
            return st.builds(
                LocalTables,
                st.lists(
                    st.builds(Gateway, st.sampled_from(["10.1.0.1", "fe80::1"]), st.sampled_from([None, True, False])),
                    max_size=2,
                ).map(tuple),
                st.lists(_IP, max_size=3, unique=True).map(tuple),
                st.booleans(),
                st.sampled_from([0, 1, 200]),
                st.sampled_from([0, 1, 50, 400]),
                st.sampled_from([None, (), (4,), (6,), (4, 6)]),
            )


_RESOLVE_REASON = st.sampled_from(sorted(REASONS[Phase.RESOLVE]))


def _ips(history: History) -> list[str]:
    """The addresses of a target's host, as its configuration and its latest run name them."""
    host = history.target.options.host
    found = [host] if host in ADDRESSES or host[:1].isdecimal() else []
    for outcome in history.outcomes[:1]:
        found += [outcome.facts[Fact.ADDRESS].rpartition(":")[0].strip("[]")] if Fact.ADDRESS in outcome.facts else []
    return list(dict.fromkeys(found))


@st.composite
def experiments(
    draw: st.DrawFn, found: Sequence[History], nameservers: Sequence[str], *, contradictory: bool
) -> tuple[Experiment, ...]:
    """Up to eight experiments. Contradictory ones give one question several answers."""
    names = [history.name for history in found]
    hosts = [history.target.options.host.removesuffix(".") for history in found]
    asked_of = sorted({*hosts, *(f"{host}.default.svc.cluster.local" for host in hosts if "." not in host)})
    peers = [
        (ip, port) for history in found for ip in _ips(history) for port in (history.target.options.port or 80, 8080)
    ]
    peers += [(ADDRESSES[0], PORTS[0]), (NAMESERVERS[0], 53), API]
    asked = draw(
        st.lists(questions(names, asked_of, nameservers, peers), max_size=8, unique_by=None if contradictory else repr)
    )
    return tuple(
        Experiment(
            question=question,
            answer=draw(answers(question)),
            targets=tuple(draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))),
            started_at=NOW - draw(st.sampled_from([0.0, 0.5, 5.0, 59.0])),
        )
        for question in asked
    )


@st.composite
def snapshots(draw: st.DrawFn, *, most: int = 8, contradictory: bool = True) -> Snapshot:
    """Everything at once: worlds in which each scope has one trouble, and worlds that make no sense."""
    pod = draw(pods())
    trouble = st.sampled_from([None, None, None, *_NETWORK_PAIRS, *_CERTIFICATE_PAIRS])
    habits = draw(st.one_of(st.none(), st.fixed_dictionaries(dict.fromkeys(Scope, trouble))))
    count = draw(st.integers(1, most))
    found = tuple(draw(histories(f"target-{n}", habits)) for n in range(count))
    return Snapshot(
        at=NOW,
        pod=pod,
        histories=found,
        experiments=draw(experiments(found, pod.resolver.nameservers, contradictory=contradictory)),
        event_loop_lag_seconds=draw(st.sampled_from([0.0, 0.0, 0.0, 0.05, 0.3, 5.0])),
        throttled_share=draw(st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.5, 1.0])),
    )


def alone(target: Target[Any], outcome: Outcome, pod: Pod) -> Snapshot:
    """One failed run of one target, and nothing else."""
    return Snapshot(at=NOW, pod=pod, histories=(History(target, (dataclasses.replace(outcome, target=target),)),))
