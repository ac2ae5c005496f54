"""What an HTTP answer gives away about who made it, on the wire."""

from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path

import pytest

from agent.model import Fact
from tests.lab.certificates import Certificates
from tests.lab.http_servers import HttpServer, redirect, response, routed
from tests.lab.misbehaving import Server, closing_when_spoken_to
from tests.lab.proxies import squid
from tests.lab.targets import probe, verdict


@pytest.fixture(autouse=True)
def no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def at(seconds_from_now: float) -> str:
    return formatdate(time.time() + seconds_from_now, usegmt=True)


async def test_server_media_type_and_title() -> None:
    page = b"<html><head><TITLE lang=en>\n Sign in\n to\tour portal </title></head></html>"
    headers = {"Server": "nginx/1.22", "Content-Type": "Text/HTML; charset=utf-8"}
    async with HttpServer(response(body=page, headers=headers)) as server:
        facts = (await probe("http", url=server.url())).facts
    assert facts[Fact.HTTP_SERVER] == "nginx/1.22"
    assert facts[Fact.HTTP_CONTENT_TYPE] == "text/html"
    assert facts[Fact.HTTP_TITLE] == "Sign in to our portal"


async def test_only_pages_in_html_have_titles() -> None:
    async with HttpServer(response(body=b"<title>no</title>", headers={"Content-Type": "text/plain"})) as server:
        assert Fact.HTTP_TITLE not in (await probe("http", url=server.url())).facts


async def test_what_a_server_says_of_itself_is_bounded_and_without_secrets() -> None:
    headers = {"Server": "hunter2hunter2 " + "x" * 4000, "Content-Type": "text/html"}
    body = b"<title>" + b"t" * 100 + b" hunter2hunter2 hunter2hunter2</title>"
    async with HttpServer(response(body=body, headers=headers)) as server:
        facts = (await probe("http", url=server.url(), bearer_token="hunter2hunter2")).facts
    assert facts[Fact.HTTP_SERVER] == "*** " + "x" * 105 + "…"
    assert facts[Fact.HTTP_TITLE] == "t" * 100 + " *** ***…"


@pytest.mark.parametrize(
    ("headers", "ahead"),
    [
        ({"Date": at(0)}, 0),
        ({"Date": at(-7200)}, 7200),
        ({"Date": at(7200)}, -7200),
        ({"Date": at(-600), "Age": "600"}, 0),
        ({"Date": "soon"}, None),
        ({"Date": "Sun, 06 Nov 99999999999 08:49:37 GMT"}, None),
        ({"Date": at(0), "Age": "young"}, None),
        ({}, None),
    ],
)
async def test_how_far_the_clocks_are_apart(headers: dict[str, str], ahead: int | None) -> None:
    """The dates above were made when the tests were collected, up to a while ago."""
    async with HttpServer(response(headers=headers)) as server:
        seen = (await probe("http", url=server.url())).facts.get(Fact.CLOCK_AHEAD_SECONDS)
    assert (seen is None) if ahead is None else (seen is not None and 0 <= seen - ahead + 2 < 600)


@pytest.mark.parametrize(
    ("status", "headers", "body", "proxy", "error"),
    [
        ("200 OK", {"server": "envoy"}, b"hello", "envoy", None),
        ("200 OK", {"server": "istio-envoy"}, b"hello", "istio-envoy", None),
        ("200 OK", {"X-Envoy-Upstream-Service-Time": "3"}, b"hello", "envoy", None),
        ("200 OK", {"l5d-server-id": "web"}, b"hello", "linkerd", None),
        ("200 OK", {"Server": "envoyage"}, b"no healthy upstream", None, None),
        (
            "503 Service Unavailable",
            {"server": "envoy"},
            b"upstream connect error or disconnect/reset before headers. reset reason: connection timeout",
            "envoy",
            "upstream connect error or disconnect/reset before headers. reset reason: connection timeout",
        ),
        ("503 Service Unavailable", {"server": "envoy"}, b"no healthy upstream", "envoy", "no healthy upstream"),
        ("403 Forbidden", {"server": "envoy"}, b"RBAC: access denied", "envoy", "RBAC: access denied"),
        ("504 Gateway Timeout", {}, b"upstream request timeout", None, "upstream request timeout"),
        ("502 Bad Gateway", {"server": "envoy"}, b"", "envoy", "502 Bad Gateway without a word more"),
        ("502 Bad Gateway", {"server": "envoy", "x-envoy-upstream-service-time": "1"}, b"", "envoy", None),
        ("502 Bad Gateway", {"server": "nginx"}, b"", None, None),
        (
            "504 Gateway Timeout",
            {"l5d-proxy-error": "connect timed out after 1s", "l5d-proxy-connection": "close"},
            b"",
            "linkerd",
            "connect timed out after 1s",
        ),
    ],
)
async def test_signatures_of_meshes(
    status: str, headers: dict[str, str], body: bytes, proxy: str | None, error: str | None
) -> None:
    async with HttpServer(response(status, body, headers)) as server:
        facts = (await probe("http", url=server.url())).facts
    assert (facts.get(Fact.MESH_PROXY), facts.get(Fact.MESH_ERROR)) == (proxy, error)


async def test_facts_about_an_answer_are_those_of_the_last_hop() -> None:
    first = redirect("/b", headers={"server": "envoy", "Content-Type": "text/html", "Date": at(0)})
    async with HttpServer(routed({"/a": first, "/b": response(body=b"{}")})) as server:
        facts = (await probe("http", url=server.url("/a"))).facts
    assert facts[Fact.HTTP_LOCATION] == server.url("/b")
    assert {Fact.HTTP_SERVER, Fact.HTTP_CONTENT_TYPE, Fact.MESH_PROXY, Fact.CLOCK_AHEAD_SECONDS}.isdisjoint(facts)


@pytest.mark.parametrize(
    ("location", "seen"), [("/login?next=/token", "{}/login"), ("ftp://nowhere", None), ("http://", None)]
)
async def test_where_a_redirect_leads_that_is_not_followed(location: str, seen: str | None) -> None:
    async with HttpServer(redirect(location)) as server:
        outcome = await probe("http", url=server.url("/a"), max_redirects=0, expect={"status": [200]})
        assert outcome.facts.get(Fact.HTTP_LOCATION) == (seen.format(server.url("")) if seen else None)
    assert verdict(outcome) == "verify/unexpected_status"


@pytest.mark.parametrize(
    "body",
    [
        b"<html><center>The plain HTTP request was sent to HTTPS port</center></html>",
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
        b"Bad Request\r\nThis combination of host and port requires TLS.\r\n",
    ],
)
async def test_pages_that_ask_for_tls(body: bytes) -> None:
    async with HttpServer(response("400 Bad Request", body)) as server:
        assert (await probe("http", url=server.url())).facts[Fact.TLS_WANTED] is True
    async with HttpServer(response("200 OK", body)) as server:
        assert Fact.TLS_WANTED not in (await probe("http", url=server.url())).facts


async def test_an_alert_of_tls_in_answer_to_plain_text() -> None:
    """Some servers of TLS say it in their own language."""
    alert = bytes.fromhex("15030100020246")
    async with closing_when_spoken_to(alert) as server:
        asked = await probe("http", url=f"http://127.0.0.1:{server.port}/")
        through = await probe("http", url="https://api.example.com/", proxy=f"http://127.0.0.1:{server.port}")
        said = await probe("tcp", address=server.address, dialogue=[{"send": "PING\r\n"}, {"expect": "PONG"}])
    assert verdict(asked) == "request/protocol_error"
    assert asked.failure is not None
    assert "the port wants TLS" in asked.failure.detail
    assert verdict(through) == "proxy/protocol_error"
    assert verdict(said) == "verify/unexpected_reply"
    assert [outcome.facts.get(Fact.TLS_WANTED) for outcome in (asked, through, said)] == [True] * 3


async def test_bytes_inside_tls_are_no_alert(certificates: Certificates) -> None:
    async def conversation(reader: object, writer: object) -> None:
        writer.write(b"\x15\x03 hello")  # type: ignore[attr-defined]
        await reader.read()  # type: ignore[attr-defined]

    async with Server(conversation, tls=certificates.good.server_context()) as server:
        tls = {"ca_file": str(certificates.ca_file)}
        outcome = await probe("tcp", address=server.address, tls=tls, dialogue=[{"expect": "hello"}])
    assert verdict(outcome) == "success"
    assert Fact.TLS_WANTED not in outcome.facts


async def test_what_squid_says_of_its_own(tmp_path: Path) -> None:
    async with squid(tmp_path) as proxy:
        plain = await probe("http", url="http://127.0.0.66/", proxy=f"http://{proxy.address}")
        tunnel = await probe("http", url="https://127.0.0.66/", proxy=f"http://{proxy.address}")
    assert (verdict(plain), plain.facts[Fact.PROXY_ERROR]) == ("verify/unexpected_status", "ERR_ACCESS_DENIED 0")
    assert (verdict(tunnel), tunnel.facts[Fact.PROXY_ERROR]) == ("proxy/denied", "ERR_ACCESS_DENIED 0")
