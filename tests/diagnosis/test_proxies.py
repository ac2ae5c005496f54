"""Proxies: whose failure it is, and which are not the proxy's."""

from __future__ import annotations

from typing import Any

import pytest

from agent.diagnosis import Snapshot
from agent.model import Fact, Phase, Scope
from tests.diagnosis.seen import Said, failing, http, said, snapshot, tcp, texts, working

PROXY = {Fact.PROXY: "http://proxy.corp:3128"}
OTHER = {Fact.PROXY: "http://other.corp:3128"}
API = http("api", "https://api.example.com/health")
SHOP = http("shop", "https://shop.example.net/")
SITE = http("site", "http://www.example.org/")
WEB = http("web", "http://web/", scope=Scope.CLUSTER)
BROKER = tcp("broker", "broker:6379")


def page(status: int, **facts: str) -> dict[Fact, Any]:
    return PROXY | {Fact.HTTP_STATUS_CODE: status} | {Fact(name): value for name, value in facts.items()}


TABLE: dict[str, tuple[Snapshot, Said]] = {
    "nobody listens at the proxy": (
        snapshot(failing(API, "connect/refused", PROXY), failing(SHOP, "connect/refused", PROXY), working(BROKER)),
        {("proxy_unreachable", "high", ("api", "shop"))},
    ),
    "seen once": (
        snapshot(failing(API, "connect/timeout", PROXY, times=1), working(BROKER)),
        {("proxy_unreachable", "medium", ("api",))},
    ),
    "the proxy's name is unknown": (
        snapshot(failing(API, "resolve/name_not_found", PROXY), working(BROKER)),
        {("proxy_unreachable", "high", ("api",))},
    ),
    "another target gets through the same proxy": (
        snapshot(failing(API, "connect/timeout", PROXY), working(SHOP, PROXY)),
        {("proxy_unreachable", "medium", ("api",))},
    ),
    "two proxies": (
        snapshot(failing(API, "connect/refused", PROXY), failing(SHOP, "connect/refused", OTHER)),
        {("proxy_unreachable", "high", ("api",)), ("proxy_unreachable", "high", ("shop",))},
    ),
    "an https proxy says nothing": (
        snapshot(
            failing(
                API,
                "tls/timeout",
                {Fact.PROXY: "https://proxy.corp:3129"},
                phases={Phase.CONNECT: 0.001, Phase.TLS: 1.5},
            )
        ),
        {("proxy_unreachable", "high", ("api",))},
    ),
    "the proxy hangs up": (
        snapshot(failing(API, "proxy/reset", PROXY), failing(SHOP, "proxy/closed", PROXY), working(SITE, PROXY)),
        {("proxy_denied", "medium", ("api", "shop"))},
    ),
    "silence behind the tunnel is the target's": (
        snapshot(failing(API, "tls/timeout", PROXY)),
        {("stalled_after_connect", "medium", ("api",))},
    ),
    "a tunnel is forbidden": (
        snapshot(failing(API, "proxy/denied", PROXY), working(SHOP, PROXY)),
        {("proxy_denied", "high", ("api",))},
    ),
    "a page is forbidden": (
        snapshot(failing(SITE, "verify/unexpected_status", page(403, proxy_error="ERR_ACCESS_DENIED 0"))),
        {("proxy_denied", "high", ("site",))},
    ),
    "a page is forbidden by tinyproxy": (
        snapshot(failing(SITE, "verify/unexpected_status", page(403, http_server="tinyproxy/1.11.1"))),
        {("proxy_denied", "high", ("site",))},
    ),
    "a page is forbidden by the target itself": (
        snapshot(failing(SITE, "verify/unexpected_status", page(403, http_server="nginx"))),
        {("access_denied", "medium", ("site",))},
    ),
    "the proxy wants credentials": (
        snapshot(failing(API, "proxy/auth_required", PROXY), failing(SITE, "proxy/auth_required", PROXY)),
        {("proxy_auth", "high", ("api", "site"))},
    ),
    "tinyproxy says 401": (
        snapshot(failing(SITE, "verify/unexpected_status", page(401, http_server="tinyproxy/1.11.1"))),
        {("proxy_auth", "high", ("site",))},
    ),
    "the target says 401 through the proxy": (
        snapshot(failing(SITE, "verify/unexpected_status", page(401))),
        {("credentials_rejected", "high", ("site",))},
    ),
    "refused beyond the proxy": (
        snapshot(failing(API, "proxy/refused", PROXY), working(SHOP, PROXY)),
        {("nothing_listening", "medium", ("api",))},
    ),
    "refused beyond the proxy, of a page": (
        snapshot(
            failing(SITE, "verify/unexpected_status", page(503, proxy_error="ERR_CONNECT_FAIL 111")),
            working(SHOP, PROXY),
        ),
        {("nothing_listening", "medium", ("site",))},
    ),
    "silence beyond the proxy": (
        snapshot(failing(API, "proxy/timeout", PROXY), working(SHOP, PROXY)),
        {("target_blocked", "medium", ("api",))},
    ),
    "the proxy cannot look the name up": (
        snapshot(failing(API, "proxy/unreachable", PROXY | {Fact.PROXY_ERROR: "ERR_DNS_FAIL 0"}), working(SHOP, PROXY)),
        {("target_blocked", "medium", ("api",))},
    ),
    "the proxy reaches nobody": (
        snapshot(failing(API, "proxy/timeout", PROXY), failing(SHOP, "proxy/unreachable", PROXY), working(BROKER)),
        {("egress_blocked", "medium", ("api", "shop"))},
    ),
    "the proxy reaches nobody, and what needs no proxy works": (
        snapshot(failing(API, "proxy/timeout", PROXY), failing(SHOP, "proxy/timeout", PROXY), working(SITE)),
        {("target_blocked", "medium", ("api",)), ("target_blocked", "medium", ("shop",))},
    ),
    "a gateway error in plain HTTP, through the proxy, by whomever": (
        snapshot(failing(SITE, "verify/unexpected_status", page(503, http_server="nginx"))),
        {("server_error", "medium", ("site",))},
    ),
    "forbidden in plain HTTP, through the proxy, by whomever": (
        snapshot(failing(SITE, "verify/unexpected_status", page(403, http_server="nginx"))),
        {("access_denied", "medium", ("site",))},
    ),
    "an error of the target's own, through a tunnel": (
        snapshot(failing(API, "verify/unexpected_status", page(503, http_server="nginx"))),
        {("server_error", "high", ("api",))},
    ),
    "an expired certificate behind the tunnel": (
        snapshot(failing(API, "tls/certificate_expired", PROXY)),
        {("tls_certificate", "high", ("api",))},
    ),
}


@pytest.mark.parametrize("row", TABLE)
def test_verdicts(row: str) -> None:
    seen, expected = TABLE[row]
    assert said(seen) == expected


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("nobody listens at the proxy", ("http://proxy.corp:3128 refuses", "Without a proxy broker", "NO_PROXY")),
        ("nobody listens at the proxy", ("grep -i _proxy | sed 's#//[^/]*@#//***@#'`",)),
        ("a gateway error in plain HTTP, through the proxy, by whomever", ("or the proxy http://proxy.corp:3128",)),
        ("the proxy's name is unknown", ("a name that no nameserver knows",)),
        ("a page is forbidden", ("ERR_ACCESS_DENIED 0", "dstdomain www.example.org")),
        ("the proxy wants credentials", ("HTTPS_PROXY=http://USER:PASSWORD@proxy.corp:3128",)),
        ("refused beyond the proxy", ("says that api.example.com refuses connections",)),
        ("silence beyond the proxy", ("consistent with",)),
        ("the proxy cannot look the name up", ("cannot look api.example.com up",)),
        ("the proxy reaches nobody", ("consistent with its own way out",)),
    ],
)
def test_words(row: str, words: tuple[str, ...]) -> None:
    seen = texts(TABLE[row][0])
    assert [word for word in words if word not in seen] == []
