"""TLS: what a handshake's failure is taken for, and what it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.diagnosis import Snapshot, plan
from agent.diagnosis.experiment import Clock, Exchanged, ServerClock, SmallSegments
from agent.model import Fact, Failure, Phase, Reason, Scope
from tests.diagnosis.seen import (
    DAY,
    NOW,
    Facts,
    Said,
    experiment,
    failing,
    http,
    postgres,
    said,
    snapshot,
    tcp,
    texts,
    working,
)

API = http("api", "https://api.example.com/health")
SHOP = http("shop", "https://shop.example.net/")
HOOKS = http("hooks", "https://hooks.example.org/")
SITE = http("site", "http://www.example.info/")
WIKI = http("wiki", "https://wiki.corp.internal/", scope=Scope.PRIVATE)
SIBLING = http("sibling", "https://static.example.com/")


def shown(begins: float = -DAY, ends: float = 30 * DAY, **more: Any) -> dict[Fact, Any]:
    """Facts of a certificate whose dates are given from now."""
    facts = {
        Fact.CERTIFICATE_SUBJECT: "CN=leaf",
        Fact.CERTIFICATE_ISSUER: "CN=an authority",
        Fact.CERTIFICATE_NOT_BEFORE: NOW + begins,
        Fact.CERTIFICATE_EXPIRES_AT: NOW + ends,
    }
    return facts | {Fact(name): value for name, value in more.items()}


def signed_by(authority: str, subject: str = "CN=leaf") -> Facts:
    chain = [{"subject": subject, "issuer": authority, "expires_at": NOW + DAY}]
    return shown(certificate_subject=subject, certificate_issuer=authority, certificate_chain=chain)


EXPIRED = shown(begins=-60 * DAY, ends=-3 * DAY)
EARLY = shown(begins=DAY, ends=60 * DAY)
ON_TIME: Facts = {Fact.CLOCK_AHEAD_SECONDS: 0}
STALLED = Exchanged(Failure(phase=Phase.TLS, reason=Reason.TIMEOUT, detail="expected x, got no answer"), 1.5)
TWO_DAYS_BEHIND: Facts = {Fact.CLOCK_AHEAD_SECONDS: -2 * int(DAY)}


CERTIFICATES: dict[str, tuple[Snapshot, Said]] = {
    "expired": (
        snapshot(failing(API, "tls/certificate_expired", EXPIRED), working(SHOP)),
        {("tls_certificate", "high", ("api",))},
    ),
    "expired, seen once": (
        snapshot(failing(API, "tls/certificate_expired", EXPIRED, times=1), working(SHOP)),
        {("tls_certificate", "medium", ("api",))},
    ),
    "not yet valid, and nobody tells the time": (
        snapshot(failing(API, "tls/certificate_not_yet_valid", EARLY), working(SHOP)),
        {("tls_certificate", "high", ("api",))},
    ),
    "one certificate of two targets": (
        snapshot(
            failing(API, "tls/certificate_expired", EXPIRED), failing(SIBLING, "tls/certificate_expired", EXPIRED)
        ),
        {("tls_certificate", "high", ("api", "sibling"))},
    ),
    "two certificates, each for a reason of its own": (
        snapshot(
            failing(API, "tls/certificate_expired", EXPIRED), failing(SHOP, "tls/certificate_name_mismatch", shown())
        ),
        {("tls_certificate", "high", ("api",)), ("tls_certificate", "high", ("shop",))},
    ),
    "a private authority": (
        snapshot(failing(WIKI, "tls/certificate_untrusted", signed_by("CN=Corp CA"))),
        {("tls_certificate", "high", ("wiki",))},
    ),
    "a public name of an unknown authority may be opened on the way": (
        snapshot(failing(API, "tls/certificate_untrusted", signed_by("CN=Corp CA")), working(SHOP)),
        {("tls_certificate", "medium", ("api",))},
    ),
    "a client certificate is wanted": (
        snapshot(failing(WIKI, "tls/client_certificate_required", {Fact.CLIENT_CERTIFICATE_REQUESTED: True})),
        {("tls_certificate", "high", ("wiki",))},
    ),
    "ours has expired": (
        snapshot(failing(WIKI, "tls/client_certificate_required", {Fact.CLIENT_CERTIFICATE_EXPIRES_AT: NOW - 5 * DAY})),
        {("tls_certificate", "high", ("wiki",))},
    ),
}

INTERCEPTION: dict[str, tuple[Snapshot, Said]] = {
    "three unrelated names of one authority": (
        snapshot(
            *(failing(t, "tls/certificate_untrusted", signed_by("CN=Firewall CA")) for t in (API, SHOP, HOOKS)),
            working(SITE),
        ),
        {("tls_interception", "high", ("api", "shop", "hooks"))},
    ),
    "two may be one company's": (
        snapshot(*(failing(t, "tls/certificate_untrusted", signed_by("CN=Firewall CA")) for t in (API, SHOP))),
        {("tls_interception", "medium", ("api", "shop"))},
    ),
    "names of one domain are related": (
        snapshot(*(failing(t, "tls/certificate_untrusted", signed_by("CN=Corp CA")) for t in (API, SIBLING))),
        {("tls_certificate", "medium", ("api", "sibling"))},
    ),
    "different authorities": (
        snapshot(
            failing(API, "tls/certificate_untrusted", signed_by("CN=One CA")),
            failing(SHOP, "tls/certificate_untrusted", signed_by("CN=Other CA")),
        ),
        {("tls_certificate", "medium", ("api",)), ("tls_certificate", "medium", ("shop",))},
    ),
    "certificates that signed themselves have no authority": (
        snapshot(*(failing(t, "tls/certificate_untrusted", signed_by("CN=box", "CN=box")) for t in (API, SHOP))),
        {("tls_certificate", "medium", ("api",)), ("tls_certificate", "medium", ("shop",))},
    ),
    "private names share a private authority": (
        snapshot(
            failing(WIKI, "tls/certificate_untrusted", signed_by("CN=Corp CA")),
            failing(replace(SHOP, scope=Scope.PRIVATE), "tls/certificate_untrusted", signed_by("CN=Corp CA")),
        ),
        {("tls_certificate", "high", ("wiki", "shop"))},
    ),
}

CLOCKS: dict[str, tuple[Snapshot, Said]] = {
    "two servers agree that this clock is behind": (
        snapshot(
            failing(API, "tls/certificate_not_yet_valid", EARLY),
            working(SITE, TWO_DAYS_BEHIND),
            experiments=[experiment(ServerClock("api"), Clock(-2 * DAY + 3), "api")],
        ),
        {("clock_skew", "high", ("api",))},
    ),
    "two servers agree that it is ahead": (
        snapshot(
            failing(API, "tls/certificate_expired", EXPIRED),
            failing(SHOP, "tls/certificate_expired", EXPIRED),
            experiments=[
                experiment(ServerClock("api"), Clock(10 * DAY), "api", "shop"),
                experiment(ServerClock("shop"), Clock(10 * DAY + 1), "api", "shop"),
            ],
        ),
        {("clock_skew", "high", ("api", "shop"))},
    ),
    "one of the two clocks is wrong": (
        snapshot(
            failing(API, "tls/certificate_not_yet_valid", EARLY),
            working(SHOP),
            experiments=[experiment(ServerClock("api"), Clock(-2 * DAY), "api")],
        ),
        {("clock_skew", "medium", ("api",))},
    ),
    "the server's own clock is wrong: others agree with ours": (
        snapshot(
            failing(API, "tls/certificate_not_yet_valid", EARLY),
            working(SHOP, ON_TIME),
            working(SITE, ON_TIME),
            experiments=[experiment(ServerClock("api"), Clock(-2 * DAY), "api")],
        ),
        {("tls_certificate", "high", ("api",))},
    ),
    "the clocks agree: the certificate is what is wrong": (
        snapshot(
            failing(API, "tls/certificate_expired", EXPIRED),
            working(SITE, ON_TIME),
            experiments=[experiment(ServerClock("api"), Clock(0.4), "api")],
        ),
        {("tls_certificate", "high", ("api",))},
    ),
    "a wrong clock that does not explain the certificate": (
        snapshot(
            failing(API, "tls/certificate_expired", shown(begins=-60 * DAY, ends=-30 * DAY)),
            failing(SHOP, "tls/certificate_not_yet_valid", EARLY),
            working(SITE, TWO_DAYS_BEHIND),
            experiments=[experiment(ServerClock("shop"), Clock(-2 * DAY), "shop")],
        ),
        {("tls_certificate", "high", ("api",)), ("clock_skew", "high", ("shop",))},
    ),
    "several unrelated certificates are early, and nobody tells the time": (
        snapshot(
            failing(API, "tls/certificate_not_yet_valid", EARLY), failing(SHOP, "tls/certificate_not_yet_valid", EARLY)
        ),
        {("clock_skew", "medium", ("api", "shop"))},
    ),
    "several expired ones may well have expired": (
        snapshot(
            failing(API, "tls/certificate_expired", EXPIRED | {Fact.CERTIFICATE_SUBJECT: "CN=api"}),
            failing(SHOP, "tls/certificate_expired", EXPIRED | {Fact.CERTIFICATE_SUBJECT: "CN=shop"}),
        ),
        {("tls_certificate", "high", ("api",)), ("tls_certificate", "high", ("shop",))},
    ),
    "a wrong clock while all works": (
        snapshot(working(API, TWO_DAYS_BEHIND), working(SHOP, TWO_DAYS_BEHIND)),
        {("clock_skew", "medium", ("api", "shop"))},
    ),
    "one server with a wrong clock is nobody's trouble": (
        snapshot(working(API, TWO_DAYS_BEHIND), working(SHOP, ON_TIME)),
        set(),
    ),
    "one that nobody contradicts is no proof": (snapshot(working(API, TWO_DAYS_BEHIND), working(SHOP)), set()),
    "two that are wrong each in its own way": (
        snapshot(working(API, TWO_DAYS_BEHIND), working(SHOP, {Fact.CLOCK_AHEAD_SECONDS: 7200})),
        set(),
    ),
    "half a minute is nothing": (
        snapshot(
            working(API, {Fact.CLOCK_AHEAD_SECONDS: 31}),
            working(SHOP, {Fact.CLOCK_AHEAD_SECONDS: 30}),
        ),
        set(),
    ),
}

LANGUAGES: dict[str, tuple[Snapshot, Said]] = {
    "a page asks for TLS": (
        snapshot(failing(SITE, "verify/unexpected_status", {Fact.TLS_WANTED: True, Fact.HTTP_STATUS_CODE: 400})),
        {("plain_text_on_tls_port", "high", ("site",))},
    ),
    "an alert asks for TLS": (
        snapshot(failing(SITE, "request/protocol_error", {Fact.TLS_WANTED: True}, times=1)),
        {("plain_text_on_tls_port", "medium", ("site",))},
    ),
    "plain HTTP to port 443 is hung up on": (
        snapshot(failing(http("odd", "http://api.example.com:443/"), "request/closed")),
        {("plain_text_on_tls_port", "medium", ("odd",))},
    ),
    "plain HTTP to another port is hung up on": (
        snapshot(failing(http("odd", "http://api.example.com:8080/"), "request/closed")),
        {("server_error", "medium", ("odd",))},
    ),
    "HTTPS on port 443 is hung up on after the handshake": (
        snapshot(failing(API, "request/closed", {Fact.TLS_VERSION: "TLSv1.3"})),
        {("server_error", "medium", ("api",))},
    ),
    "a Postgres server insists on TLS": (
        snapshot(failing(postgres("db", "postgresql://probe@db:5432/app"), "login/tls_required")),
        {("plain_text_on_tls_port", "high", ("db",))},
    ),
    "TLS to a plain port": (
        snapshot(failing(API, "tls/not_tls")),
        {("tls_on_plain_text_port", "high", ("api",))},
    ),
    "TLS to a plain port of the proxy": (
        snapshot(
            failing(
                API, "tls/not_tls", {Fact.PROXY: "https://proxy:3128"}, phases={Phase.CONNECT: 0.001, Phase.TLS: 0.001}
            )
        ),
        {("tls_on_plain_text_port", "high", ("api",))},
    ),
    "a Postgres server offers no TLS": (
        snapshot(failing(postgres("db", "postgresql://probe@db:5432/app"), "login/tls_unsupported")),
        {("tls_on_plain_text_port", "high", ("db",))},
    ),
    "no version in common": (
        snapshot(failing(API, "tls/protocol_error"), working(SHOP)),
        {("tls_protocol", "high", ("api",))},
    ),
    "two targets of one server": (
        snapshot(
            failing(API, "tls/protocol_error", times=1),
            failing(tcp("api-port", "api.example.com:443", tls={}), "tls/protocol_error", times=1),
        ),
        {("tls_protocol", "high", ("api", "api-port"))},
    ),
    "hung up on in the handshake": (
        snapshot(failing(API, "tls/reset"), working(SHOP)),
        {("tls_protocol", "low", ("api",))},
    ),
    "a port of Postgres hangs up on TLS": (
        snapshot(failing(tcp("db", "db:5432", tls={}), "tls/closed"), working(SHOP)),
        {("tls_on_plain_text_port", "medium", ("db",))},
    ),
    "a port of Redis waits for a line": (
        snapshot(
            failing(tcp("broker", "broker:6379", tls={}), "tls/timeout"),
            experiments=[experiment(SmallSegments("broker"), STALLED, "broker")],
        ),
        {("tls_on_plain_text_port", "medium", ("broker",))},
    ),
    "a port of Redis is silent, and large packets may get lost": (
        snapshot(failing(tcp("broker", "broker:6379", tls={}), "tls/timeout"), working(SHOP)),
        {("stalled_after_connect", "medium", ("broker",))},
    ),
    "silence in the handshake is no protocol": (
        snapshot(failing(API, "tls/timeout"), working(SHOP)),
        {("stalled_after_connect", "medium", ("api",))},
    ),
}

TABLE = CERTIFICATES | INTERCEPTION | CLOCKS | LANGUAGES


@pytest.mark.parametrize("row", TABLE)
def test_verdicts(row: str) -> None:
    seen, expected = TABLE[row]
    assert said(seen) == expected


def test_the_time_is_asked_where_certificates_are_out_of_date() -> None:
    dated = snapshot(failing(API, "tls/certificate_expired", EXPIRED), failing(WIKI, "tls/certificate_untrusted"))
    assert [one.question for one in plan(dated) if isinstance(one.question, ServerClock)] == [ServerClock("api")]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("expired", ("expired 3 days ago", "api.example.com", "-servername api.example.com")),
        ("a client certificate is wanted", ("none is configured", "tls.certificate_file")),
        ("ours has expired", ("expired 5 days ago",)),
        ("three unrelated names of one authority", ("'CN=Firewall CA'", "REQUESTS_CA_BUNDLE")),
        ("two servers agree that this clock is behind", ("2 days behind", "www.example.info", "chronyc")),
        ("one of the two clocks is wrong", ("one of the two clocks is wrong",)),
        ("a page asks for TLS", ("curl -vk https://www.example.info:80/",)),
        ("TLS to a plain port of the proxy", ("The proxy https://proxy:3128 answers", "Write http://")),
        ("hung up on in the handshake", ("consistent with", "-noservername")),
    ],
)
def test_words(row: str, words: tuple[str, ...]) -> None:
    seen = texts(TABLE[row][0])
    assert [word for word in words if word not in seen] == []


def test_the_certificate_of_the_chain_that_has_expired_is_named() -> None:
    facts = EXPIRED | {
        Fact.CERTIFICATE_CHAIN: [
            {"subject": "CN=leaf", "issuer": "CN=old", "expires_at": NOW + 30 * DAY},
            {"subject": "CN=old", "issuer": "CN=root", "expires_at": NOW - 3 * DAY},
        ]
    }
    assert "intermediate certificate 'CN=old'" in texts(snapshot(failing(API, "tls/certificate_expired", facts)))
