"""Answers nobody can use: errors, refusals, portals, login pages, other languages."""

from __future__ import annotations

from typing import Any

import pytest

from agent.diagnosis import Snapshot
from agent.model import Fact, Scope
from tests.diagnosis.seen import Said, failing, http, postgres, said, snapshot, tcp, texts, working

API = http("api", "https://api.example.com/health")
SITE = http("site", "http://www.example.com/")
SHOP = http("shop", "http://shop.example.net/")
BLOG = http("blog", "http://blog.example.com/")
WEB = http("web", "http://web/", scope=Scope.CLUSTER)
BROKER = tcp("broker", "broker:6379")
REPLICA = postgres("replica", "postgresql://probe@replica:5432/app")


def answer(status: int = 200, **facts: str) -> dict[Fact, Any]:
    return {Fact.HTTP_STATUS_CODE: status} | {Fact(name): value for name, value in facts.items()}


def html(title: str, status: int = 200, **facts: str) -> dict[Fact, Any]:
    return answer(status, http_content_type="text/html", http_title=title, **facts)


TO_PORTAL = html("Welcome to our guest network", http_location="http://portal.wifi.test/start")

ERRORS: dict[str, tuple[Snapshot, Said]] = {
    "500": (
        snapshot(failing(API, "verify/unexpected_status", answer(500)), working(SITE)),
        {("server_error", "high", ("api",))},
    ),
    "500, seen once": (
        snapshot(failing(API, "verify/unexpected_status", answer(500), times=1)),
        {("server_error", "medium", ("api",))},
    ),
    "502 of a gateway": (
        snapshot(failing(API, "verify/unexpected_status", answer(502, http_server="nginx"))),
        {("server_error", "high", ("api",))},
    ),
    "429": (
        snapshot(failing(API, "verify/unexpected_status", answer(429))),
        {("server_error", "high", ("api",))},
    ),
    "503 that Envoy passed on from the server": (
        snapshot(failing(API, "verify/unexpected_status", answer(503, mesh_proxy="envoy"))),
        {("server_error", "high", ("api",))},
    ),
    "401": (
        snapshot(failing(API, "verify/unexpected_status", answer(401))),
        {("credentials_rejected", "high", ("api",))},
    ),
    "Redis wants a password": (
        snapshot(
            failing(BROKER, "verify/unexpected_reply", {Fact.SERVER_SIGNATURE: "-NOAUTH Authentication required.\\r"})
        ),
        {("credentials_rejected", "high", ("broker",))},
    ),
    "Redis wants a password, and another reply is waited for": (
        snapshot(failing(BROKER, "request/timeout", {Fact.SERVER_SIGNATURE: "-NOAUTH Authentication required.\\r"})),
        {("credentials_rejected", "high", ("broker",))},
    ),
    "another reply of a dialogue": (
        snapshot(failing(BROKER, "verify/unexpected_reply", {Fact.SERVER_SIGNATURE: "-LOADING Redis is loading"})),
        {("wrong_content", "high", ("broker",))},
    ),
    "403": (
        snapshot(failing(API, "verify/unexpected_status", answer(403))),
        {("access_denied", "high", ("api",))},
    ),
    "a mesh's policy": (
        snapshot(
            failing(WEB, "verify/unexpected_status", answer(403, mesh_proxy="envoy", mesh_error="RBAC: access denied"))
        ),
        {("access_denied", "high", ("web",))},
    ),
    "broken off in the middle": (
        snapshot(failing(WEB, "transfer/closed")),
        {("server_error", "high", ("web",))},
    ),
    "hung up on before an answer": (
        snapshot(failing(WEB, "request/reset")),
        {("server_error", "medium", ("web",))},
    ),
    "another language": (
        snapshot(failing(WEB, "request/protocol_error")),
        {("wrong_content", "high", ("web",))},
    ),
    "a body that does not unpack": (
        snapshot(failing(WEB, "transfer/protocol_error")),
        {("server_error", "high", ("web",))},
    ),
}

CONTENT: dict[str, tuple[Snapshot, Said]] = {
    "a portal answers for everybody": (
        snapshot(
            failing(SITE, "verify/unexpected_body", TO_PORTAL), failing(SHOP, "verify/unexpected_body", TO_PORTAL)
        ),
        {("wrong_content", "high", ("site", "shop"))},
    ),
    "a portal nobody complains about": (
        snapshot(working(SITE, TO_PORTAL), working(SHOP, TO_PORTAL)),
        {("wrong_content", "high", ("site", "shop"))},
    ),
    "a portal that shows its page in place": (
        snapshot(
            failing(SITE, "verify/unexpected_body", html("Welcome to our guest network")),
            working(SHOP, html("Welcome to our guest network")),
        ),
        {("wrong_content", "medium", ("site", "shop"))},
    ),
    "a portal that says so": (
        snapshot(failing(SITE, "verify/unexpected_status", answer(511)), working(API)),
        {("wrong_content", "high", ("site",))},
    ),
    "one site that moved": (
        snapshot(working(SITE, html("New", http_location="https://new.example.org/")), working(SHOP)),
        set(),
    ),
    "two sites of one owner that moved": (
        snapshot(
            working(SITE, html("New", http_location="https://new.example.org/")),
            working(BLOG, html("New", http_location="https://new.example.org/")),
        ),
        set(),
    ),
    "upgrades to https": (
        snapshot(
            working(SITE, html("Home", http_location="https://www.example.com/")),
            working(SHOP, html("Home", http_location="https://shop.example.net/")),
        ),
        set(),
    ),
    "two servers nobody has set up": (
        snapshot(working(SITE, html("Welcome to nginx!")), working(SHOP, html("Welcome to nginx!"))),
        set(),
    ),
    "error pages look alike": (
        snapshot(
            failing(SITE, "verify/unexpected_status", html("503 Service Unavailable", 503, http_server="nginx")),
            failing(SHOP, "verify/unexpected_status", html("503 Service Unavailable", 503, http_server="nginx")),
        ),
        {("server_error", "high", ("site",)), ("server_error", "high", ("shop",))},
    ),
    "the way to a login": (
        snapshot(
            failing(
                API, "verify/unexpected_body", html("Corp", http_location="https://sso.example.com/oauth2/authorize")
            )
        ),
        {("wrong_content", "high", ("api",))},
    ),
    "a login that is not followed": (
        snapshot(failing(API, "verify/unexpected_status", answer(302, http_location="https://api.example.com/login"))),
        {("wrong_content", "high", ("api",))},
    ),
    "a login page in place": (
        snapshot(failing(API, "verify/unexpected_body", html("Sign in · Corp"))),
        {("wrong_content", "high", ("api",))},
    ),
    "a login that is meant": (
        snapshot(working(WEB, html("Sign In - Airflow", http_location="http://web/login/"))),
        set(),
    ),
    "no such path": (
        snapshot(failing(API, "verify/unexpected_status", answer(404))),
        {("wrong_content", "high", ("api",))},
    ),
    "another body": (
        snapshot(failing(API, "verify/unexpected_body", answer(http_content_type="application/json"))),
        {("wrong_content", "high", ("api",))},
    ),
    "in circles": (
        snapshot(failing(API, "verify/too_many_redirects", answer(301))),
        {("wrong_content", "high", ("api",))},
    ),
    "too much": (
        snapshot(failing(API, "transfer/too_large", answer())),
        {("wrong_content", "high", ("api",))},
    ),
    "two targets of one host, each with expectations of its own": (
        snapshot(
            failing(API, "verify/unexpected_body", answer()),
            failing(http("api-2", "https://api.example.com/v2"), "verify/unexpected_header", answer()),
        ),
        {("wrong_content", "high", ("api",)), ("wrong_content", "high", ("api-2",))},
    ),
}

TABLE = ERRORS | CONTENT


@pytest.mark.parametrize("row", TABLE)
def test_verdicts(row: str) -> None:
    seen, expected = TABLE[row]
    assert said(seen) == expected


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            "500",
            ("api.example.com was reached and failed by itself: HTTP 500", "curl -v https://api.example.com/health"),
        ),
        ("502 of a gateway", ("A gateway in front of api.example.com", "its server nginx", "endpointslices")),
        ("401", ("HTTP 401", "WWW-Authenticate")),
        ("Redis wants a password", ("redis-cli -h broker -p 6379",)),
        ("a mesh's policy", ("AuthorizationPolicy",)),
        ("broken off in the middle", ("breaks its answers off",)),
        ("another language", ("does not speak HTTP", "kubectl get service -A | grep 80")),
        ("a portal answers for everybody", ("leads them to portal.wifi.test", "'Welcome to our guest network'")),
        ("the way to a login", ("login page", "https://sso.example.com/oauth2/authorize", "bearer_token_file")),
        ("no such path", ("HTTP 404",)),
    ],
)
def test_words(row: str, words: tuple[str, ...]) -> None:
    seen = texts(TABLE[row][0])
    assert [word for word in words if word not in seen] == []
