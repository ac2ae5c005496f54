"""The http prober against healthy servers: what it sends, what it learns, where it goes."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent.model import Fact, Phase
from agent.probers.http import USER_AGENT
from tests.lab.certificates import Certificates
from tests.lab.http_servers import HttpServer, Received, application, redirect, response, routed
from tests.lab.misbehaving import segmented
from tests.lab.nameservers import Nameserver, loopback_ip, resolv_conf, zone
from tests.lab.targets import probe, verdict


@pytest.fixture(autouse=True)
def no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def test_a_plain_answer_gives_phases_and_facts() -> None:
    """Only the phases that were reached are there, and the facts say what was seen."""
    async with HttpServer(response(body=b"hello")) as server:
        outcome = await probe("http", url=server.url("/health?token=t0ps3cret"), expect={"body_matches": "^hello$"})
    assert verdict(outcome) == "success"
    assert list(outcome.phases) == [Phase.CONNECT, Phase.REQUEST, Phase.TRANSFER, Phase.VERIFY]
    assert outcome.facts == {
        Fact.ADDRESS: server.address,
        Fact.HTTP_REDIRECTS: [],
        Fact.HTTP_STATUS_CODE: 200,
        Fact.HTTP_VERSION: "1.1",
        Fact.HTTP_BODY_BYTES: 5,
    }
    assert server.requests[0].target == "/health?token=t0ps3cret"
    assert outcome.target.address == f"http://{server.address}/health"


async def test_a_named_https_server_gives_every_phase_and_its_certificate(certificates: Certificates) -> None:
    async with HttpServer(response(body=b"hello"), tls=certificates.with_intermediate.server_context()) as server:
        outcome = await probe(
            "http", url=server.url(host="localhost"), family="4", tls={"ca_file": str(certificates.ca_file)}
        )
    assert verdict(outcome) == "success"
    phases = [Phase.RESOLVE, Phase.CONNECT, Phase.TLS, Phase.REQUEST, Phase.TRANSFER, Phase.VERIFY]
    assert list(outcome.phases) == phases
    assert outcome.facts[Fact.CERTIFICATE_VERIFIED] is True
    assert outcome.facts[Fact.CERTIFICATE_EXPIRES_AT] == certificates.with_intermediate.expires_at
    assert outcome.facts[Fact.ADDRESSES] == ["127.0.0.1"]


async def test_what_is_sent_by_default() -> None:
    async with HttpServer(response()) as server:
        await probe("http", url=server.url("/a%2Fb/%7Ec?q=%2F&r=a+b#part"))
    (request,) = server.requests
    assert (request.method, request.target, request.version) == ("GET", "/a%2Fb/%7Ec?q=%2F&r=a+b", "HTTP/1.1")
    assert request.headers == {
        "host": server.address,
        "user-agent": USER_AGENT,
        "accept": "*/*",
        "accept-encoding": "gzip, deflate",
        "connection": "close",
    }


async def test_what_is_not_ascii_is_quoted() -> None:
    async with HttpServer(response()) as server:
        assert verdict(await probe("http", url=server.url("/bücher?größe=1"))) == "success"
    assert server.requests[0].target == "/b%C3%BCcher?gr%C3%B6%C3%9Fe=1"


async def test_method_headers_and_body() -> None:
    """A configured header replaces a default one whatever its case, `Host` included."""
    async with HttpServer(response()) as server:
        await probe(
            "http",
            url=server.url(),
            method="PUT",
            headers={
                "host": "virtual.example.test",
                "USER-AGENT": "mine",
                "X-Api-Key": "k3y",
                "Content-Type": "text/x",
            },
            body="ä",
        )
    (request,) = server.requests
    assert (request.method, request.body) == ("PUT", "ä".encode())
    assert request.headers["host"] == "virtual.example.test"
    assert request.headers["user-agent"] == "mine"
    assert request.headers["x-api-key"] == "k3y"
    assert request.headers["content-type"] == "text/x"
    assert request.headers["content-length"] == "2"


@pytest.mark.parametrize(("method", "length"), [("POST", "0"), ("GET", None), ("DELETE", None)])
async def test_an_empty_body_is_announced_where_a_body_is_usual(method: str, length: str | None) -> None:
    async with HttpServer(response()) as server:
        await probe("http", url=server.url(), method=method)
    assert server.requests[0].headers.get("content-length") == length


async def test_files_are_read_at_every_run(tmp_path: Path) -> None:
    """A rotated token or body needs no reload."""
    token, body = tmp_path / "token", tmp_path / "body"
    async with HttpServer(response()) as server:
        for turn in ("one", "two"):
            token.write_text(f"{turn}\n")
            body.write_text(f"body {turn}")
            await probe("http", url=server.url(), method="POST", bearer_token_file=str(token), body_file=str(body))
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer one", "Bearer two"]
    assert [request.body for request in server.requests] == [b"body one", b"body two"]


@pytest.mark.parametrize(
    ("keys", "sent"),
    [
        (
            {"basic_auth": {"username": "ann", "password": "pä:ss"}},
            "Basic " + base64.b64encode("ann:pä:ss".encode()).decode(),
        ),
        ({"basic_auth": {"username": "ann"}}, "Basic " + base64.b64encode(b"ann:").decode()),
        ({"bearer_token": "t0k"}, "Bearer t0k"),
        ({"headers": {"Authorization": "Custom x"}}, "Custom x"),
    ],
)
async def test_authorization(keys: dict[str, Any], sent: str) -> None:
    async with HttpServer(response()) as server:
        await probe("http", url=server.url(), **keys)
    assert server.requests[0].headers["authorization"] == sent


# --- bodies ---


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", _raw_deflate),
        ("identity", bytes),
        ("gzip", lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:])),
        ("gzip", lambda data: gzip.compress(data) + b"\0" * 512),
    ],
)
async def test_compressed_bodies(coding: str, pack: Callable[[bytes], bytes]) -> None:
    data = b"the quick brown fox " * 5000
    async with HttpServer(response(body=pack(data), headers={"Content-Encoding": coding})) as server:
        outcome = await probe("http", url=server.url(), expect={"body_matches": "^(the quick brown fox ){5000}$"})
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.HTTP_BODY_BYTES] == len(data)


@pytest.mark.parametrize("coding", ["deflate", "gzip"])
async def test_a_compressed_body_may_come_byte_by_byte(coding: str) -> None:
    packed = zlib.compress(b"hello") if coding == "deflate" else gzip.compress(b"hello")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    async with segmented([head, *(bytes([byte]) for byte in packed)], gap_seconds=0) as server:
        outcome = await probe("http", url=f"http://{server.address}/", expect={"body_matches": "^hello$"})
    assert verdict(outcome) == "success"


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [_CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: t\r\n\r\n"],
        [bytes([byte]) for byte in _CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"],
        [b"\r\nHTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", b"hello"],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hint\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        [b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"hello"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellowhat comes behind the end is not looked at"],
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello\0\0", b"\0"],
        [_CHUNKED + b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 500 A second answer\r\n\r\n"],
        [b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
    ],
    ids=lambda pieces: str(pieces[0][:40]) + str(len(pieces)),
)
async def test_framings_of_a_body(pieces: list[bytes]) -> None:
    """However an answer is framed and cut into segments, it is the same answer; the server need not close."""
    async with segmented(pieces, gap_seconds=0.001) as server:
        outcome = await probe("http", url=f"http://{server.address}/", expect={"body_matches": "^hello$"})
    assert verdict(outcome) == "success", outcome.failure


async def test_a_body_may_end_with_the_connection(certificates: Certificates) -> None:
    """RFC 9112, section 6.3: no length, so the body ends where the connection does; over TLS as well."""
    for tls in (None, certificates.good.server_context()):
        async with HttpServer(b"HTTP/1.1 200 OK\r\n\r\nhello", tls=tls) as server:
            outcome = await probe(
                "http",
                url=server.url(),
                tls={"ca_file": str(certificates.ca_file)},
                expect={"body_matches": "^hello$"},
            )
        assert verdict(outcome) == "success"


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", "200 OK\r\nContent-Length: 1000"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked"),
        ("HEAD", "200 OK\r\nContent-Encoding: gzip"),
        ("GET", "204 No Content"),
        ("GET", "304 Not Modified\r\nContent-Length: 1000"),
        ("GET", "304 Not Modified\r\nContent-Encoding: gzip"),
        ("GET", "200 OK\r\nContent-Length: 0\r\nContent-Encoding: gzip"),
    ],
)
async def test_answers_without_a_body(method: str, head: str) -> None:
    """They are complete with their head, whatever their headers say and although the connection stays open."""
    async with HttpServer(f"HTTP/1.1 {head}\r\n\r\n".encode(), close=False) as server:
        outcome = await probe("http", url=server.url(), method=method, expect={"status": ["2xx", 304]})
    assert verdict(outcome) == "success", outcome.failure
    assert outcome.facts[Fact.HTTP_BODY_BYTES] == 0


async def test_a_complete_server_with_keep_alive_compression_and_chunks() -> None:
    async def numbers(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.enable_compression()
        await answer.prepare(request)
        for number in range(1000):
            await answer.write(f"{number}\n".encode())
        await answer.write_eof()
        return answer

    async with application(web.get("/numbers", numbers)) as url:
        outcome = await probe("http", url=f"{url}/numbers", expect={"body_matches": "\n999\n$"})
    assert verdict(outcome) == "success"


# --- expectations ---


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (304, [304]),
        (304, ["304"]),
        (404, ["4xx"]),
        (299, ["2xx"]),
        (399, ["200-399"]),
        (500, ["2xx", 500]),
        (999, ["5xx"]),
    ],
)
async def test_status_expectations(status: int, expected: list[Any]) -> None:
    async with HttpServer(response(f"{status} Whatever")) as server:
        outcome = await probe("http", url=server.url(), expect={"status": expected})
    assert verdict(outcome) == ("success" if status != 999 else "verify/unexpected_status")


async def test_one_of_several_header_values_is_enough() -> None:
    answer = b"HTTP/1.1 200 OK\r\nVia: one\r\nvia: two\r\nContent-Length: 0\r\n\r\n"
    async with HttpServer(answer) as server:
        outcome = await probe("http", url=server.url(), expect={"headers": {"VIA": "^two$"}})
    assert verdict(outcome) == "success"


async def test_trap_t10_body_patterns_and_json_together() -> None:
    """Every expectation sees the whole body; one does not use it up for the next."""
    async with HttpServer(response(body=b'{"status": "ok", "items": [{"a/b": 1.0}, null]}')) as server:
        expect = {
            "body_matches": ['"ok"', "items"],
            "body_not_matches": "error",
            "json": [
                {"pointer": "/status", "equals": "ok"},
                {"pointer": "/items/0/a~1b", "equals": 1},
                {"pointer": "/items/1", "equals": None},
                {"pointer": "/items", "matches": "null"},
                {"pointer": "", "equals": {"items": [{"a/b": 1}, None], "status": "ok"}},
            ],
        }
        good = await probe("http", url=server.url(), expect=expect)
        expect["json"] = [{"pointer": "/status", "equals": "broken"}]
        bad = await probe("http", url=server.url(), expect=expect)
    assert verdict(good) == "success"
    assert bad.failure is not None
    assert bad.failure.detail == """expected '/status' in the JSON body to be "broken", got "ok\""""


async def test_the_charset_of_the_answer_counts() -> None:
    headers = {"Content-Type": 'text/plain; Charset="ISO-8859-1"'}
    async with HttpServer(response(body="größe".encode("latin-1"), headers=headers)) as server:
        assert verdict(await probe("http", url=server.url(), expect={"body_matches": "^größe$"})) == "success"


@pytest.mark.parametrize("charset", ["no-such-charset", "base64", "idna", "undefined", "punycode", "iso-8859-12"])
async def test_a_charset_that_cannot_be_used_is_no_defect_of_ours(charset: str) -> None:
    headers = {"Content-Type": f"text/plain; charset={charset}"}
    async with HttpServer(response(body=b"hello", headers=headers)) as server:
        assert verdict(await probe("http", url=server.url(), expect={"body_matches": "^hello$"})) == "success"


# --- redirects ---


async def test_redirects_are_followed_and_their_times_added_up(certificates: Certificates) -> None:
    """Over a new connection each; from http to https; relative and absolute; the facts are those of the last hop."""
    async with HttpServer(response(body=b"end"), tls=certificates.good.server_context()) as last:
        routes = {"/a/start": redirect("../b?secret=1"), "/b": redirect(last.url("/end?token=s3"))}
        async with HttpServer(routed(routes)) as first:
            outcome = await probe("http", url=first.url("/a/start"), tls={"ca_file": str(certificates.ca_file)})
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.HTTP_REDIRECTS] == [
        {"url": first.url("/a/start"), "status": 302},
        {"url": first.url("/b"), "status": 302},
    ]
    assert outcome.facts[Fact.ADDRESS] == last.address
    assert outcome.facts[Fact.CERTIFICATE_VERIFIED] is True
    assert (first.connections, last.connections) == (2, 1)
    assert [request.target for request in (*first.requests, *last.requests)] == [
        "/a/start",
        "/b?secret=1",
        "/end?token=s3",
    ]


async def test_facts_of_an_earlier_hop_are_forgotten(certificates: Certificates) -> None:
    """A certificate that is exported belongs to the server whose answer was judged."""
    async with (
        HttpServer(response()) as last,
        HttpServer(redirect(last.url()), tls=certificates.good.server_context()) as first,
    ):
        outcome = await probe(
            "http", url=first.url(host="localhost"), family="4", tls={"ca_file": str(certificates.ca_file)}
        )
    assert verdict(outcome) == "success"
    assert Fact.CERTIFICATE_SUBJECT not in outcome.facts
    assert Fact.ADDRESSES not in outcome.facts
    assert Phase.TLS in outcome.phases


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "GET", "GET", ""),
        (301, "POST", "GET", ""),
        (302, "POST", "GET", ""),
        (303, "POST", "GET", ""),
        (303, "PUT", "GET", ""),
        (303, "HEAD", "HEAD", ""),
        (302, "PUT", "PUT", "data"),
        (307, "POST", "POST", "data"),
        (308, "PATCH", "PATCH", "data"),
    ],
)
async def test_method_and_body_after_a_redirect(status: int, method: str, then: str, body: str) -> None:
    keys: dict[str, Any] = {"body": "data"} if method in {"POST", "PUT", "PATCH"} else {}
    async with HttpServer(routed({"/": redirect("/next", f"{status} Moved"), "/next": response()})) as server:
        outcome = await probe(
            "http", url=server.url(), method=method, headers={"Content-Type": "text/x", "X-Other": "1"}, **keys
        )
    assert verdict(outcome) == "success"
    assert server.requests[1].method == then
    assert server.requests[1].body == body.encode()
    assert ("content-type" in server.requests[1].headers) == bool(body)
    assert server.requests[1].headers["x-other"] == "1"


_CREDENTIALS: dict[str, Any] = {
    "basic_auth": {"username": "ann", "password": "pass"},
    "headers": {"Cookie": "c=1", "X-Api-Key": "k3y", "Host": "virtual.example.test", "X-Plain": "1"},
}


async def test_credentials_stay_with_the_server_they_are_for() -> None:
    """Another port is another server: no Authorization, no secret header, no Host. They are back on the way back."""
    async with HttpServer(redirect("placeholder")) as other:
        routes = {"/": redirect("/same"), "/same": redirect(other.url()), "/back": response()}
        async with HttpServer(routed(routes)) as first:
            other._reply = redirect(first.url("/back"))
            outcome = await probe("http", url=first.url(), **_CREDENTIALS)
    assert verdict(outcome) == "success"
    for request in first.requests:
        assert request.headers["authorization"].startswith("Basic ")
        assert request.headers["cookie"] == "c=1"
        assert request.headers["x-api-key"] == "k3y"
        assert request.headers["host"] == "virtual.example.test"
    (elsewhere,) = other.requests
    assert elsewhere.headers["host"] == other.address
    assert elsewhere.headers["x-plain"] == "1"
    assert not {"authorization", "cookie", "x-api-key"} & elsewhere.headers.keys()


async def test_no_credentials_after_a_downgrade_from_https(certificates: Certificates) -> None:
    async with (
        HttpServer(response()) as plain,
        HttpServer(redirect(plain.url()), tls=certificates.good.server_context()) as secure,
    ):
        outcome = await probe(
            "http", url=secure.url(), tls={"ca_file": str(certificates.ca_file)}, bearer_token="t0ken"
        )
    assert verdict(outcome) == "success"
    assert "authorization" in secure.requests[0].headers
    assert "authorization" not in plain.requests[0].headers


async def test_cookies_live_for_one_run() -> None:
    """A server that sets a cookie and sends the client back, as login pages do, is followed; each run begins anew."""

    def start(request: Received) -> bytes:
        if "session=s1" in request.headers.get("cookie", ""):
            return response(body=b"in")
        return redirect("/", headers={"Set-Cookie": "session=s1; Path=/"})

    async with HttpServer(start) as server:
        for _ in range(2):
            outcome = await probe("http", url=server.url(), headers={"Cookie": "mine=1"}, expect={"body_matches": "in"})
            assert verdict(outcome) == "success", outcome.failure
    assert [request.headers["cookie"] for request in server.requests] == [
        "mine=1",
        "mine=1; session=s1",
        "mine=1",
        "mine=1; session=s1",
    ]


async def test_cookies_do_not_go_to_another_host() -> None:
    async with HttpServer(response()) as other:
        leave = redirect(other.url(host="localhost"), headers={"Set-Cookie": "a=1"})
        async with HttpServer(leave) as first:
            assert verdict(await probe("http", url=first.url(), family="4")) == "success"
    assert "cookie" not in other.requests[0].headers


async def test_without_redirects_the_redirecting_answer_is_judged() -> None:
    async with HttpServer(redirect("/elsewhere", "301 Moved Permanently")) as server:
        good = await probe(
            "http",
            url=server.url(),
            max_redirects=0,
            expect={"status": [301], "headers": {"Location": "^/elsewhere$"}},
        )
        bad = await probe("http", url=server.url(), max_redirects=0)
    assert verdict(good) == "success"
    assert verdict(bad) == "verify/unexpected_status"
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer", [response("300 Multiple Choices", headers={"Location": "/x"}), response("302 Found")]
)
async def test_a_3xx_that_does_not_redirect_is_the_final_answer(answer: bytes) -> None:
    async with HttpServer(answer) as server:
        assert verdict(await probe("http", url=server.url(), expect={"status": ["3xx"]})) == "success"


async def test_the_name_that_is_verified_is_each_hosts_own(certificates: Certificates) -> None:
    """blackbox_exporter pins the first host's name, or loses the pin on a redirect to the same host."""
    other = certificates.issue("other-host", ("localhost",))
    pinned = certificates.wrong_name
    tls = {"ca_file": str(certificates.ca_file), "server_name": "other.example.test"}
    async with HttpServer(response(), tls=other.server_context()) as last:
        routes = {"/": redirect("/again"), "/again": redirect(last.url(host="localhost"))}
        async with HttpServer(routed(routes), tls=pinned.server_context()) as first:
            outcome = await probe("http", url=first.url(), family="4", tls=tls)
    assert verdict(outcome) == "success", outcome.failure


# --- addresses ---


def nameserver(zone_text: str) -> Nameserver:
    return Nameserver(zone(zone_text), ip=loopback_ip(), port=53)


async def test_trap_t05_family_decides_what_is_connected_to() -> None:
    """Not only what is resolved: blackbox_exporter's gRPC prober resolves one address and dials another."""
    async with HttpServer(response(), host="::1") as server:
        good = await probe("http", url=server.url(host="localhost"), family="6")
        bad = await probe("http", url=server.url(host="localhost"), family="4")
    assert verdict(good) == "success"
    assert good.facts[Fact.ADDRESS] == server.address
    assert server.requests[0].headers["host"] == f"localhost:{server.port}"
    assert verdict(bad) == "connect/refused"
    assert bad.facts[Fact.ADDRESS] == f"127.0.0.1:{server.port}"


async def test_an_ipv6_literal() -> None:
    async with HttpServer(response(), host="::1") as server:
        outcome = await probe("http", url=server.url())
    assert verdict(outcome) == "success"
    assert server.requests[0].headers["host"] == server.address == f"[::1]:{server.port}"


async def test_all_addresses_are_asked(tmp_path: Path) -> None:
    """One that fails makes the run fail, and the facts name it. A redirect to the same host stays at its address."""
    async with (
        HttpServer(routed({"/": redirect("/next"), "/next": response()})) as server,
        nameserver("api.example.test. 60 A 127.0.0.1\napi.example.test. 60 A 127.0.0.9") as names,
    ):
        url = server.url(host="api.example.test")
        outcome = await probe("http", url=url, addresses="all", resolv_conf=resolv_conf(tmp_path, names))
    attempts = {attempt["address"]: attempt for attempt in outcome.facts[Fact.ATTEMPTS]}
    assert attempts[f"127.0.0.1:{server.port}"]["success"]
    assert attempts[f"127.0.0.9:{server.port}"]["reason"] == "refused"
    assert verdict(outcome) == "connect/refused"
    assert [request.target for request in server.requests] == ["/", "/next"]
    assert sorted(asked.record for asked in names.asked) == ["A", "AAAA"]


async def test_a_redirect_to_another_host_is_resolved(tmp_path: Path) -> None:
    async with (
        HttpServer(response(), host="127.0.0.9") as last,
        HttpServer(redirect(last.url(host="two.example.test"))) as first,
        nameserver("one.example.test. 60 A 127.0.0.1\ntwo.example.test. 60 A 127.0.0.9") as names,
    ):
        outcome = await probe("http", url=first.url(host="one.example.test"), resolv_conf=resolv_conf(tmp_path, names))
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.ADDRESS] == last.address
    assert outcome.facts[Fact.ADDRESSES] == ["127.0.0.9"]
    assert {"one.example.test", "two.example.test"} <= set(names.names)
