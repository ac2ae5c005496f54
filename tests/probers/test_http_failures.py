"""Every reason an http target can fail for, with a server that does exactly that."""

from __future__ import annotations

import gzip
import json
import ssl
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest

from agent.model import DETAIL_LIMIT, Fact, Phase
from agent.probers.http import HttpProber
from agent.runner import run
from tests.lab.certificates import Certificates
from tests.lab.http_servers import HttpServer, Received, redirect, response
from tests.lab.misbehaving import (
    Server,
    closing,
    closing_when_spoken_to,
    dripping,
    echoing,
    flooding,
    greeting,
    refusing_port,
    resetting,
    segmented,
    silent,
)
from tests.lab.openssl import OpenSslServer
from tests.lab.targets import probe, target, verdict

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# --- the connection ---


async def test_a_server_that_hangs_up_at_once() -> None:
    """Whether it is a FIN or a RST that comes depends on whether our request was under way."""
    async with closing() as server:
        assert verdict(await probe("http", url=f"http://{server.address}/")) in {"request/closed", "request/reset"}


async def test_refused() -> None:
    outcome = await probe("http", url=f"http://127.0.0.1:{refusing_port()}/")
    assert verdict(outcome) == "connect/refused"
    assert list(outcome.phases) == [Phase.CONNECT]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (closing_when_spoken_to(), "request/closed"),
        (closing_when_spoken_to(b"HTTP/1.1 200 OK\r\nContent-"), "request/closed"),
        (closing_when_spoken_to(b"HTTP/1.1 100 Continue\r\n\r\n"), "request/closed"),
        (resetting(), "request/reset"),
        (resetting(b"HTTP/1.1 200 OK\r\nContent-"), "request/reset"),
        (closing_when_spoken_to(_HEAD + b"the beginning"), "transfer/closed"),
        (closing_when_spoken_to(_CHUNKED + b"5\r\nhello\r\n"), "transfer/closed"),
        (closing_when_spoken_to(_CHUNKED + b"ff\r\nhello"), "transfer/closed"),
        (resetting(_HEAD + b"the beginning"), "transfer/reset"),
        (resetting(_CHUNKED + b"5\r\nhello\r\n"), "transfer/reset"),
        (resetting(b"HTTP/1.1 200 OK\r\n\r\nuntil the end"), "transfer/reset"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_connections_that_end_too_early(server: Server, expected: str) -> None:
    """In the phase that was under way: before the head is complete, or in the body."""
    async with server:
        outcome = await probe("http", url=f"http://{server.address}/")
    assert verdict(outcome) == expected, outcome.failure
    assert (outcome.facts.get(Fact.HTTP_STATUS_CODE) == 200) == expected.startswith("transfer")


# --- trap 14: time ---


def _dripping_body() -> Server:
    return segmented([_HEAD, *[b"x"] * 900], gap_seconds=0.02)


def _dripping_head() -> Server:
    return segmented([b"HTTP/1.1 200 OK\r\nX-Slow: ", *[b"x"] * 900], gap_seconds=0.02)


@pytest.mark.parametrize(
    ("server", "phase"),
    [
        (silent(), Phase.REQUEST),
        (_dripping_head(), Phase.REQUEST),
        (segmented([b"HTTP/1.1 100 Continue\r\n\r\n"] * 900, gap_seconds=0.02), Phase.REQUEST),
        (segmented([_HEAD]), Phase.TRANSFER),
        (_dripping_body(), Phase.TRANSFER),
        (segmented([_CHUNKED, b"5\r\nhello\r\n"]), Phase.TRANSFER),
    ],
    ids=["silent", "dripping head", "endless 100 Continue", "no body", "dripping body", "no last chunk"],
)
async def test_trap_t14_http_timeouts_show_in_the_phase_that_took_the_time(server: Server, phase: Phase) -> None:
    """And a server that always says a little more does not win more time."""
    async with server:
        outcome = await probe("http", url=f"http://{server.address}/", timeout_seconds=0.3)
    assert verdict(outcome) == f"{phase}/timeout"
    assert max(outcome.phases, key=lambda each: outcome.phases[each]) is phase
    assert outcome.failure is not None
    assert outcome.failure.detail.endswith("within 0.3s")


async def test_trap_t14_http_tls_timeout(certificates: Certificates) -> None:
    async with silent() as server:
        outcome = await probe("http", url=f"https://{server.address}/", timeout_seconds=0.3)
    assert verdict(outcome) == "tls/timeout"
    assert max(outcome.phases, key=lambda each: outcome.phases[each]) is Phase.TLS


# --- TLS ---


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("expired", "certificate_expired"),
        ("not_yet_valid", "certificate_not_yet_valid"),
        ("wrong_name", "certificate_name_mismatch"),
        ("unknown_issuer", "certificate_untrusted"),
    ],
)
async def test_trap_t12_http_broken_certificates_are_still_shown(
    certificates: Certificates, state: str, expected: str
) -> None:
    """An alert on the expiry of a certificate must not resolve itself when the certificate expires."""
    certificate = getattr(certificates, state)
    async with HttpServer(response(), tls=certificate.server_context()) as server:
        outcome = await probe("http", url=server.url(), tls={"ca_file": str(certificates.ca_file)})
    assert verdict(outcome) == f"tls/{expected}"
    assert outcome.facts[Fact.CERTIFICATE_EXPIRES_AT] == certificate.expires_at
    assert outcome.facts[Fact.CERTIFICATE_VERIFIED] is False


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_that_is_missing(certificates: Certificates, version: ssl.TLSVersion) -> None:
    """With TLS 1.3 the server says so in place of an answer to the request."""
    tls = {"ca_file": str(certificates.ca_file)}
    context = certificates.good.server_context(client_ca=certificates.ca_file, maximum=version)
    client = certificates.client

    def serve(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(response())

    with OpenSslServer(context, serve) as server:
        url = f"https://{server.address}/"
        without = await probe("http", url=url, tls=tls)
        tls |= {"certificate_file": str(client.chain_file), "key_file": str(client.key_file)}
        with_one = await probe("http", url=url, tls=tls)
    assert verdict(without) == "tls/client_certificate_required"
    assert verdict(with_one) == "success"


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (closing_when_spoken_to(response("400 Bad Request")), "tls/not_tls"),
        (greeting(), "tls/not_tls"),
        (closing_when_spoken_to(), "tls/closed"),
        (resetting(), "tls/reset"),
        (silent(), "tls/timeout"),  # it waits for the end of a head
    ],
    ids=["an answer", "a greeting", "it hangs up", "it resets", "it waits"],
)
async def test_https_to_a_server_without_tls(server: Server, expected: str) -> None:
    async with server:
        outcome = await probe("http", url=f"https://{server.address}/", timeout_seconds=0.5)
    assert verdict(outcome) == expected, outcome.failure


async def test_http_to_a_server_with_tls(certificates: Certificates) -> None:
    """It waits for more of a ClientHello, hangs up, or sends an alert: no HTTP in any case."""
    async with HttpServer(response(), tls=certificates.good.server_context()) as server:
        outcome = await probe("http", url=f"http://{server.address}/")
    assert verdict(outcome) in {"request/closed", "request/reset", "request/protocol_error"}


# --- answers that are not HTTP ---


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "'SSH-2.0-OpenSSH_9.2'"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64", "\\x12\\x04"),  # HTTP/2's SETTINGS
        (b"\x15\x03\x03\x00\x02\x02\x46", "\\x15\\x03\\x03"),  # a TLS alert
        (b"<html>no head</html>", "<html>no head</html>"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "2x0"),
        (b"HTTP/2 200\r\n\r\n", "HTTP/2 200"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "no colon"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "many"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "-1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "Content-Length: 2"),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", "a\\\\x00b"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 9000 + b"\r\n\r\n", "a line of more than 8190 bytes"),
        (b"HTTP/1.1 200 " + b"a" * 200_000, "a line of more than 8190 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000, "Too many headers"),
    ],
    ids=lambda value: str(value[:24]),
)
async def test_answers_that_are_not_http(answer: bytes, seen: str) -> None:
    """Each is bounded, is the server's fault and is quoted."""
    async with segmented([answer]) as server:
        outcome = await probe("http", url=f"http://{server.address}/")
    assert verdict(outcome) == "request/protocol_error", outcome.failure
    assert outcome.failure is not None
    assert seen.replace("\\\\", "\\") in outcome.failure.detail.replace("\\\\", "\\")
    assert outcome.failure.detail.isprintable()
    assert len(outcome.failure.detail) <= DETAIL_LIMIT


@pytest.mark.parametrize("server", [greeting(), dripping(), echoing(), flooding()])
async def test_servers_of_other_protocols(server: Server) -> None:
    async with server:
        assert verdict(await probe("http", url=f"http://{server.address}/")) == "request/protocol_error"


@pytest.mark.parametrize(
    "body",
    [
        _CHUNKED + b"zz\r\nhello\r\n",
        _CHUNKED + b"5\r\nhello, world",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 5\r\n\r\nhello",
        response(body=gzip.compress(b"hello" * 100, mtime=0)[:-12], headers={"Content-Encoding": "gzip"}),
        response(body=gzip.compress(b"hello", mtime=0)[:4], headers={"Content-Encoding": "gzip"}),
        response(body=b"\x1f", headers={"Content-Encoding": "gzip"}),
        response(body=gzip.compress(b"hello", mtime=0)[:-8] + b"\0" * 8, headers={"Content-Encoding": "gzip"}),
        response(body=b"hello", headers={"Content-Encoding": "br"}),
        response(body=b"hello", headers={"Content-Encoding": "gzip, gzip"}),
    ],
)
async def test_bodies_that_cannot_be_read(body: bytes) -> None:
    async with HttpServer(body) as server:
        outcome = await probe("http", url=server.url())
    assert verdict(outcome) == "transfer/protocol_error", outcome.failure


# --- traps 11 and 20: size ---


@pytest.mark.parametrize("expect", [{}, {"body_matches": "x"}, {"body_not_matches": "y"}])
async def test_trap_t11_too_large_is_a_reason_of_its_own(expect: dict[str, Any]) -> None:
    """With expectations of the body or without: it is not an expectation that failed."""
    async with HttpServer(response(body=b"x" * 1025)) as server:
        over = await probe("http", url=server.url(), body_limit="1KiB", expect=expect)
        under = await probe("http", url=server.url(), body_limit="1025B", expect=expect)
    assert verdict(over) == "transfer/too_large"
    assert over.failure is not None
    assert over.failure.detail == "expected a body of at most 1KiB, got more"
    assert verdict(under) == "success"


async def test_an_unexpected_status_weighs_more_than_a_large_body() -> None:
    async with HttpServer(response("503 Service Unavailable", b"upstream connect error" * 100)) as server:
        outcome = await probe("http", url=server.url(), body_limit="1KiB")
    assert verdict(outcome) == "verify/unexpected_status"
    assert outcome.failure is not None
    assert outcome.failure.detail.startswith(
        "expected status 2xx, got 503 Service Unavailable: 'upstream connect error"
    )


def _bomb(coding: str) -> bytes:
    """256 MiB of zeros in 256 KiB."""
    packer = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("expect", [{}, {"body_matches": "x"}])
async def test_trap_t20_a_decompression_bomb_is_not_unpacked(coding: str, expect: dict[str, Any]) -> None:
    """The default limit holds although none was configured, and no more than it is ever held in memory."""
    async with HttpServer(response(body=_bomb(coding), headers={"Content-Encoding": coding})) as server:
        tracemalloc.start()
        try:
            outcome = await probe("http", url=server.url(), expect=expect)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert verdict(outcome) == "transfer/too_large"
    assert outcome.facts[Fact.HTTP_BODY_BYTES] == 1 << 20
    assert peak < 6 << 20


@pytest.mark.parametrize(
    "head", [b"Transfer-Encoding: chunked\r\n\r\n", b"Content-Length: 99999999999\r\n\r\n", b"\r\n"]
)
async def test_trap_t20_an_endless_body_is_left(head: bytes) -> None:
    """The connection is closed at the limit; memory does not follow the server's will."""

    async def conversation(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + head)
        while True:
            data = b"x" * 65536
            writer.write(b"10000\r\n" + data + b"\r\n" if b"chunked" in head else data)
            await writer.drain()

    async with Server(conversation) as server:
        outcome = await probe("http", url=f"http://{server.address}/", body_limit="256KiB")
    assert verdict(outcome) == "transfer/too_large"


# --- expectations ---


@pytest.mark.parametrize(
    ("answer", "expect", "expected", "detail"),
    [
        (
            response("503 Service Unavailable"),
            {},
            "unexpected_status",
            "expected status 2xx, got 503 Service Unavailable",
        ),
        (
            response("200 OK", b"fine"),
            {"status": [204, "300-399"]},
            "unexpected_status",
            "expected status 204, 3xx, got 200 OK: 'fine'",
        ),
        (
            response("404 Not Found", b"<!DOCTYPE html><html><head>\n<TITLE>\nNo such\npage</TITLE>"),
            {},
            "unexpected_status",
            "expected status 2xx, got 404 Not Found: 'No such\\npage'",
        ),
        (
            b"HTTP/1.1 500 \xff\x1b[31m\r\nContent-Length: 0\r\n\r\n",
            {},
            "unexpected_status",
            "expected status 2xx, got 500",
        ),
        (
            response(headers={"Content-Type": "text/html"}),
            {"headers": {"content-type": "^application/json"}},
            "unexpected_header",
            "expected header content-type to match '^application/json', got 'text/html'",
        ),
        (
            response(),
            {"headers": {"X-Version": "1"}},
            "unexpected_header",
            "expected header X-Version to match '1', got no such header",
        ),
        (
            response(body=b"maintenance"),
            {"body_matches": ["main", "ok"]},
            "unexpected_body",
            "expected a body that matches 'ok', got 'maintenance'",
        ),
        (response(), {"body_matches": "."}, "unexpected_body", "expected a body that matches '.', got an empty body"),
        (
            response(body=b"a fatal error occurred"),
            {"body_not_matches": ["panic", "fatal \\w+"]},
            "unexpected_body",
            "expected a body that does not match 'fatal \\\\w+', got 'fatal error'",
        ),
        (
            response(body=b"<html>"),
            {"json": [{"pointer": "/a"}]},
            "unexpected_body",
            "expected a body in JSON, got '<html>': Expecting value: line 1 column 1 (char 0)",
        ),
        (
            response(),
            {"json": [{"pointer": "/a"}]},
            "unexpected_body",
            "expected a body in JSON, got an empty body: Expecting value: line 1 column 1 (char 0)",
        ),
        (
            response(body=b"[" * 100_000),
            {"json": [{"pointer": "/a"}]},
            "unexpected_body",
            "expected a body in JSON, got '" + "[" * 60 + "…': it is nested too deeply",
        ),
        (
            response(body=b'{"a": [1, 2]}'),
            {"json": [{"pointer": "/a/2"}]},
            "unexpected_body",
            "expected '/a/2' in the JSON body, got '{\"a\": [1, 2]}'",
        ),
        (
            response(body=b'{"a": [1, 2]}'),
            {"json": [{"pointer": "/a/01"}]},
            "unexpected_body",
            "expected '/a/01' in the JSON body, got '{\"a\": [1, 2]}'",
        ),
        (
            response(body=b'{"ready": true}'),
            {"json": [{"pointer": "/ready", "equals": 1}]},
            "unexpected_body",
            "expected '/ready' in the JSON body to be 1, got true",
        ),
        (
            response(body=b'{"n": 0}'),
            {"json": [{"pointer": "/n", "equals": False}]},
            "unexpected_body",
            "expected '/n' in the JSON body to be false, got 0",
        ),
        (
            response(body=b'{"v": "1.2"}'),
            {"json": [{"pointer": "/v", "matches": "^2"}]},
            "unexpected_body",
            "expected '/v' in the JSON body to match '^2', got \"1.2\"",
        ),
        (
            response(body=b'{"v": ' + b"9" * 5000 + b"}"),
            {"json": [{"pointer": "/v"}]},
            "unexpected_body",
            'expected a body in JSON, got \'{"v": ' + "9" * 54 + "…': Exceeds the limit",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_unexpected_answers(answer: bytes, expect: dict[str, Any], expected: str, detail: str) -> None:
    """The sentence holds what was expected and what was seen."""
    async with HttpServer(answer) as server:
        outcome = await probe("http", url=server.url(), expect=expect)
    assert verdict(outcome) == f"verify/{expected}", outcome.failure
    assert outcome.failure is not None
    assert outcome.failure.detail.startswith(detail)


# --- redirects ---


async def test_too_many_redirects() -> None:
    async with HttpServer(redirect("/again?secret=1")) as server:
        outcome = await probe("http", url=server.url(), max_redirects=3)
    assert verdict(outcome) == "verify/too_many_redirects"
    assert outcome.failure is not None
    assert outcome.failure.detail == f"expected at most 3 redirects, got another to {server.url('/again')}"
    assert server.connections == 4
    assert len(outcome.facts[Fact.HTTP_REDIRECTS]) == 4


@pytest.mark.parametrize(
    "location",
    [
        "ftp://example.test/file",
        "javascript:alert(1)",
        "http://",
        "http://[::1",
        "http://host:99999/",
        "http://host:0/",
        "http://ho st/",
        "http://" + "a" * 64 + ".example.test/",
        "http://" + "ü" * 70 + ".example.test/",
        "http://xn--\u00fc/",
        "http://example..test/",
        "http://\udcff/",
        "http:/nowhere",
    ],
)
async def test_locations_that_lead_nowhere(location: str) -> None:
    answer = redirect("").replace(b"Location: ", b"Location: " + location.encode("utf-8", "surrogateescape"))
    async with HttpServer(answer) as server:
        outcome = await probe("http", url=server.url())
    assert verdict(outcome) == "request/protocol_error", outcome.failure
    assert outcome.failure is not None
    assert outcome.failure.detail.startswith("expected a Location with an http or https URL, got one where ")


async def test_a_redirect_to_a_dead_server_fails_there() -> None:
    port = refusing_port()
    async with HttpServer(redirect(f"http://127.0.0.1:{port}/")) as server:
        outcome = await probe("http", url=server.url())
    assert verdict(outcome) == "connect/refused"
    assert outcome.facts[Fact.ADDRESS] == f"127.0.0.1:{port}"
    assert outcome.facts[Fact.HTTP_REDIRECTS] == [{"url": server.url(), "status": 302}]
    assert Fact.HTTP_STATUS_CODE not in outcome.facts


@pytest.mark.parametrize("flood", [b"\r\n" * 4096, b"HTTP/1.1 100 Continue\r\n\r\n" * 1024])
async def test_an_answer_that_never_begins_is_left(flood: bytes) -> None:
    """Lines are read one by one: without a limit, a peer that sends nothing else would take all of one CPU."""
    async with flooding(flood) as server:
        outcome = await probe("http", url=f"http://{server.address}/")
    assert verdict(outcome) == "request/protocol_error"
    assert outcome.failure is not None
    assert "lines before the end of its head" in outcome.failure.detail


async def test_a_status_below_100_is_no_informational_answer() -> None:
    async with HttpServer(response("000 Nothing")) as server:
        outcome = await probe("http", url=server.url())
    assert verdict(outcome) == "verify/unexpected_status"


@pytest.mark.parametrize("expected", [{"equals": 1}, {"matches": "x"}])
async def test_no_depth_of_json_is_a_defect_of_ours(expected: dict[str, Any]) -> None:
    """What can just be read may be too deep to be compared or shown."""
    limit = sys.getrecursionlimit()
    depths = range(limit - 80, limit + 5)
    left = iter(depths)

    def nested(_: Received) -> bytes:
        depth = next(left)
        return response(body=b"[" * depth + b"]" * depth)

    async with HttpServer(nested) as server:
        for _ in depths:
            outcome = await probe("http", url=server.url(), expect={"json": [{"pointer": "", **expected}]})
            assert verdict(outcome) == "verify/unexpected_body", outcome.failure


# --- negative targets ---


async def test_a_negative_target() -> None:
    async with HttpServer(response()) as server:
        reached = await probe("http", url=server.url(), negative=True)
    blocked = await probe("http", url=f"http://127.0.0.1:{refusing_port()}/", negative=True)
    assert verdict(reached) == "verify/unexpected_success"
    assert verdict(blocked) == "success"
    assert blocked.facts[Fact.BLOCKED_BY] == "connect/refused"


# --- secrets ---


async def test_an_echoed_request_shows_no_secret(tmp_path: Path) -> None:
    """Not as configured, not as sent, not cut in half by an excerpt, not from the query string."""
    secret = "s3cr3t-" * 20
    token_file = tmp_path / "token"
    token_file.write_text(f"filed-{secret}\n")

    def echo(request: Received) -> bytes:
        lines = "".join(f"{name}: {value} " for name, value in sorted(request.headers.items()))
        return response("500 Oh", f"{lines}{request.body.decode()} {request.target}".encode())

    rows: list[dict[str, Any]] = [
        {"basic_auth": {"username": "ann", "password": secret}},
        {"bearer_token": secret},
        {"bearer_token_file": str(token_file)},
        {"headers": {"A-Cookie": secret}},
        {"method": "POST", "body": secret, "headers": {"A": "x"}},
    ]
    async with HttpServer(echo) as server:
        for keys in rows:
            headers = {"User-Agent": "x", "Accept": "x", **keys.pop("headers", {})}
            outcome = await probe("http", url=server.url("/?q=qu3ry"), headers=headers, **keys)
            text = str(outcome.as_dict())
            assert verdict(outcome) == "verify/unexpected_status"
            for leaked in ("s3cr3t", "czNjcjN0", "qu3ry"):
                assert leaked not in text
            shown = await probe(
                "http",
                url=server.url("/?q=qu3ry"),
                expect={"status": [500], "body_matches": "nothing"},
                headers=headers,
                **keys,
            )
            assert "s3cr3t" not in str(shown.as_dict())


@pytest.mark.parametrize("key", ["bearer_token_file", "basic_auth.password_file", "body_file"])
@pytest.mark.parametrize(
    ("content", "seen"), [(None, "No such file or directory"), (b"s3cr\xff3t", "it is not")], ids=["missing", "binary"]
)
async def test_a_secret_file_that_cannot_be_used_is_named(
    tmp_path: Path, key: str, content: bytes | None, seen: str
) -> None:
    """Neither the server nor netprobe is at fault. Files come and go: the next run reads anew."""
    path = tmp_path / "secret"
    section, _, name = key.rpartition(".")
    keys: dict[str, Any] = {section: {"username": "ann", name: str(path)}} if section else {name: str(path)}
    if content is not None:
        path.write_bytes(content)
    async with HttpServer(response()) as server:
        asked = target("http", url=server.url(), method="POST", **keys)
        prober = HttpProber()
        outcome = await run(prober, asked)
        path.write_text("s3cr3t")
        assert verdict(await run(prober, asked)) == "success"
    assert verdict(outcome) == "request/internal"
    assert outcome.failure is not None
    expected = f"expected {key} of the configuration to be a file of UTF-8 text, got {path}: {seen}"
    assert outcome.failure.detail == expected


@pytest.mark.parametrize("inside", ["\r\nX-Injected: 1", "\n", "\r", "\0", "\x1b", "\x7f"], ids=repr)
async def test_a_secret_of_several_lines_is_not_sent_as_several_headers(tmp_path: Path, inside: str) -> None:
    path = tmp_path / "token"
    path.write_text(f"s3cr3t{inside}tail", newline="")
    async with HttpServer(response()) as server:
        outcome = await probe("http", url=server.url(), bearer_token_file=str(path))
        inline = await probe("http", url=server.url(), bearer_token=f"s3cr3t{inside}tail")
        assert server.requests == []
    for refused in (outcome, inline):
        assert verdict(refused) == "request/internal"
        assert refused.failure is not None
        assert refused.failure.detail == (
            "expected the value configured for the header Authorization on one line, got control characters in it"
        )


@pytest.mark.parametrize("query", ["api_key=qu3ry-v4lue", "x=%71u3ry-v4lue-that-is-long&y=1"])
async def test_a_value_of_the_query_string_that_is_quoted_is_not_shown(query: str) -> None:
    """Many services name the key that they refuse."""
    message = b"no such key: qu3ry-v4lue" + b"-that-is-long" * ("long" in query)
    async with HttpServer(response("401 Unauthorized", message)) as server:
        outcome = await probe("http", url=server.url(f"/?{query}"))
    assert outcome.failure is not None
    assert outcome.failure.detail == "expected status 2xx, got 401 Unauthorized: 'no such key: ***'"


async def test_a_secret_that_comes_back_as_a_content_coding_is_not_shown() -> None:
    """Neither cut in half nor in lower case."""
    token = "S3cr3t-" * 20

    def echo(request: Received) -> bytes:
        return response(headers={"Content-Encoding": request.headers["authorization"].removeprefix("Bearer ")})

    async with HttpServer(echo) as server:
        outcome = await probe("http", url=server.url(), bearer_token=token)
    assert verdict(outcome) == "transfer/protocol_error"
    assert "s3cr" not in json.dumps(outcome.as_dict()).lower()
