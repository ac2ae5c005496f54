"""Proxies: squid and tinyproxy for what a proxy does, own servers for what one does wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from agent.model import Fact, Phase
from agent.net.proxy import ProxyEnvironment
from agent.probers.http import USER_AGENT
from tests.lab.certificates import Certificates
from tests.lab.http_servers import HttpServer, Received, redirect, response
from tests.lab.misbehaving import closing_when_spoken_to, greeting, refusing_port, resetting, silent
from tests.lab.proxies import DENIED_HOST, PASSWORD, USER, RunningProxy, squid, tinyproxy
from tests.lab.targets import probe, verdict


@pytest.fixture(params=["squid", "tinyproxy"])
async def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunningProxy]:
    """A proxy that wants credentials."""
    start = {"squid": squid, "tinyproxy": tinyproxy}[request.param]
    async with start(tmp_path, auth=True) as running:
        yield running


def _tls(certificates: Certificates) -> dict[str, str]:
    return {"ca_file": str(certificates.ca_file)}


async def test_through_a_real_proxy(proxy: RunningProxy, certificates: Certificates) -> None:
    """Plain requests are passed on, for https a tunnel is opened; the proxy is a fact, its password is not."""
    known = f"http://{USER}:{PASSWORD}@{proxy.address}"
    async with (
        HttpServer(response(body=b"plain")) as plain,
        HttpServer(response(body=b"secure"), tls=certificates.good.server_context()) as secure,
    ):
        through = await probe("http", url=plain.url("/a?b=c"), proxy=known, expect={"body_matches": "plain"})
        tunnelled = await probe(
            "http", url=secure.url(), proxy=known, tls=_tls(certificates), expect={"body_matches": "secure"}
        )
    assert verdict(through) == "success", through.failure
    assert plain.requests[0].target == "/a?b=c"
    assert "proxy-authorization" not in plain.requests[0].headers
    assert Phase.PROXY not in through.phases
    assert verdict(tunnelled) == "success", tunnelled.failure
    assert "proxy-authorization" not in secure.requests[0].headers
    phases = [Phase.CONNECT, Phase.PROXY, Phase.TLS, Phase.REQUEST, Phase.TRANSFER, Phase.VERIFY]
    assert list(tunnelled.phases) == phases
    for outcome in (through, tunnelled):
        assert outcome.facts[Fact.PROXY] == f"http://{proxy.address}"
        assert outcome.facts[Fact.ADDRESS] == proxy.address
        assert PASSWORD not in str(outcome.as_dict())


async def test_real_proxies_say_no(proxy: RunningProxy, certificates: Certificates) -> None:
    known = f"http://{USER}:{PASSWORD}@{proxy.address}"
    port = refusing_port()
    async with HttpServer(response(), tls=certificates.good.server_context()) as server:
        unknown = await probe("http", url=server.url(), proxy=f"http://{USER}:wrong@{proxy.address}")
        nobody = await probe("http", url=server.url(), proxy=f"http://{proxy.address}")
        plain = await probe("http", url=f"http://127.0.0.1:{port}/", proxy=f"http://{proxy.address}")
        denied = await probe("http", url=f"https://{DENIED_HOST}/", proxy=known)
        dead = await probe("http", url=f"https://127.0.0.1:{port}/", proxy=known)
    assert verdict(unknown) == "proxy/auth_required"
    assert verdict(nobody) == "proxy/auth_required"
    assert server.connections == 0
    assert verdict(plain) == "proxy/auth_required"
    assert verdict(denied) == "proxy/denied"
    # squid names the error of its own connection, tinyproxy does not
    assert verdict(dead) in {"proxy/refused", "proxy/unreachable"}
    assert dead.failure is not None
    assert dead.failure.detail.startswith(
        f"expected the proxy http://{proxy.address} to open a tunnel to 127.0.0.1:{port}, got 50"
    )


async def test_squid_says_why_a_server_cannot_be_reached(tmp_path: Path) -> None:
    async with squid(tmp_path) as proxy:
        outcome = await probe("http", url=f"https://127.0.0.1:{refusing_port()}/", proxy=f"http://{proxy.address}")
    assert verdict(outcome) == "proxy/refused"


async def test_tls_to_the_proxy_and_through_it(tmp_path: Path, certificates: Certificates) -> None:
    """Each handshake is verified for its own name; the facts are about the target's certificate."""
    server_certificate = certificates.with_intermediate
    async with squid(tmp_path, auth=True, certificates=certificates) as proxy:
        known = f"https://{USER}:{PASSWORD}@{proxy.tls_address}"
        async with (
            HttpServer(response()) as plain,
            HttpServer(response(), tls=server_certificate.server_context()) as secure,
        ):
            through = await probe("http", url=plain.url(), proxy=known, tls=_tls(certificates))
            tunnelled = await probe("http", url=secure.url(), proxy=known, tls=_tls(certificates))
            untrusted = await probe("http", url=secure.url(), proxy=known)
    assert verdict(through) == "success", through.failure
    assert Fact.CERTIFICATE_SUBJECT not in through.facts
    assert verdict(tunnelled) == "success", tunnelled.failure
    assert tunnelled.facts[Fact.CERTIFICATE_EXPIRES_AT] == server_certificate.expires_at
    assert len(tunnelled.facts[Fact.CERTIFICATE_CHAIN]) == 2
    assert verdict(untrusted) == "tls/certificate_untrusted"
    assert untrusted.facts[Fact.ADDRESS] == proxy.tls_address


async def test_what_a_proxy_is_asked() -> None:
    def refuse(_: Received) -> bytes:
        return response("403 Forbidden")

    async with HttpServer(refuse) as proxy:
        keys: dict[str, Any] = {"proxy": f"http://ann:p%40ss@{proxy.address}", "headers": {"Cookie": "c=1"}}
        await probe("http", url="https://[2001:db8::1]/secret/path?q=1", **keys)
        await probe("http", url="http://api.example.test:8080/path?q=1", **keys)
    tunnel, plain = proxy.requests
    assert (tunnel.method, tunnel.target) == ("CONNECT", "[2001:db8::1]:443")
    assert tunnel.headers == {
        "host": "[2001:db8::1]:443",
        "user-agent": USER_AGENT,
        "proxy-authorization": "Basic YW5uOnBAc3M=",
    }
    assert (plain.method, plain.target) == ("GET", "http://api.example.test:8080/path?q=1")
    assert plain.headers["host"] == "api.example.test:8080"
    assert plain.headers["proxy-authorization"] == "Basic YW5uOnBAc3M="


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (response("407 Proxy Authentication Required"), "auth_required"),
        (response("401 Unauthorized"), "auth_required"),
        (response("403 Forbidden"), "denied"),
        (response("502 Bad Gateway"), "unreachable"),
        (response("503 Service Unavailable"), "unreachable"),
        (response("503 Service Unavailable", headers={"X-Squid-Error": "ERR_CONNECT_FAIL 111"}), "refused"),
        (response("503 Service Unavailable", headers={"X-Squid-Error": "ERR_CONNECT_FAIL 110"}), "timeout"),
        (response("503 Service Unavailable", headers={"X-Squid-Error": "ERR_DNS_FAIL 0"}), "unreachable"),
        (response("504 Gateway Timeout"), "timeout"),
        (response("400 Bad Request"), "protocol_error"),
        (response("302 Found", headers={"Location": "http://login.example.test/"}), "protocol_error"),
        (b"HTTP/1.1 200 Connection established\r\n\r\nand more", "protocol_error"),
        (b"SOCKS5 only\r\n", "protocol_error"),
        (b"HTTP/1.1 200 Conn", "closed"),
        (b"", "closed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_tunnel_that_is_not_opened(answer: bytes, expected: str) -> None:
    async with HttpServer(answer) as proxy:
        outcome = await probe("http", url="https://api.example.test/?q=qu3ry", proxy=f"http://{proxy.address}")
    assert verdict(outcome) == f"proxy/{expected}", outcome.failure
    assert Phase.PROXY in outcome.phases
    assert "qu3ry" not in str(outcome.as_dict())


async def test_a_407_through_a_tunnel_is_the_servers_own(proxy: RunningProxy, certificates: Certificates) -> None:
    """The proxy opened the tunnel: it wants nothing more."""
    known = f"http://{USER}:{PASSWORD}@{proxy.address}"
    answer = response("407 Proxy Authentication Required")
    async with HttpServer(answer, tls=certificates.good.server_context()) as server:
        outcome = await probe("http", url=server.url(), proxy=known, tls=_tls(certificates))
    assert verdict(outcome) == "verify/unexpected_status", outcome.failure


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_credentials_of_a_proxy_of_the_environment_are_shown(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not the target's, and a proxy may repeat them like any other server."""

    def echo(request: Received) -> bytes:
        return response(f"407 {request.headers['proxy-authorization']} hunter22")

    async with HttpServer(echo) as repeating:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://ann:hunter22@{repeating.address}")
        outcome = await probe("http", url=f"{scheme}://api.example.test/")
    assert verdict(outcome) == "proxy/auth_required"
    assert outcome.failure is not None
    assert outcome.failure.detail.endswith("got 407 Basic *** ***")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_in_the_way_says_nothing_about_a_negative_target(scheme: str) -> None:
    """Neither that it cannot be reached nor that it can."""
    url = f"{scheme}://api.example.test/"
    dead = await probe("http", url=url, proxy=f"http://127.0.0.1:{refusing_port()}", negative=True)
    async with HttpServer(response("407 Proxy Authentication Required")) as strict:
        closed = await probe("http", url=url, proxy=f"http://{strict.address}", negative=True)
    assert verdict(dead) == "connect/refused"
    assert verdict(closed) == "proxy/auth_required"


async def test_a_proxy_that_is_down_or_dumb() -> None:
    dead = await probe("http", url="https://api.example.test/", proxy=f"http://127.0.0.1:{refusing_port()}")
    async with silent() as mute:
        waiting = await probe(
            "http", url="https://api.example.test/", proxy=f"http://{mute.address}", timeout_seconds=0.3
        )
    async with resetting() as rude:
        reset = await probe("http", url="https://api.example.test/", proxy=f"http://{rude.address}")
    async with greeting() as other:
        greeted = await probe("http", url="https://api.example.test/", proxy=f"http://{other.address}")
    assert verdict(dead) == "connect/refused"
    assert verdict(waiting) == "proxy/timeout"
    assert max(waiting.phases, key=lambda phase: waiting.phases[phase]) is Phase.PROXY
    assert verdict(reset) == "proxy/reset"
    assert verdict(greeted) == "proxy/protocol_error"


async def test_a_tunnel_that_leads_to_something_without_tls() -> None:
    async with closing_when_spoken_to(b"HTTP/1.1 200 OK\r\n\r\n") as proxy:
        outcome = await probe("http", url="https://api.example.test/", proxy=f"http://{proxy.address}")
    assert verdict(outcome) in {"tls/closed", "tls/reset"}


# --- the environment ---


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "http://a.example.test/", None),
        ({"http": "http://proxy:3128"}, "http://a.example.test/", "http://proxy:3128"),
        ({"http": "proxy:3128"}, "http://a.example.test/", "http://proxy:3128"),
        ({"http": "http://ann:x@proxy"}, "http://a.example.test/", "http://proxy:80"),
        ({"http": "http://proxy:3128"}, "https://a.example.test/", None),
        ({"https": "http://proxy:3128"}, "https://a.example.test/", "http://proxy:3128"),
        ({"https": "https://proxy"}, "https://a.example.test/", "https://proxy:443"),
        ({"all": "http://proxy:3128"}, "https://a.example.test/", "http://proxy:3128"),
        ({"all": "http://other:1", "http": "http://proxy:3128"}, "http://a.example.test/", "http://proxy:3128"),
    ],
)
def test_which_proxy_the_environment_means(variables: Mapping[str, str], url: str, expected: str | None) -> None:
    proxy = ProxyEnvironment(variables).proxy_for(URL(url))
    assert (str(proxy) if proxy is not None else None) == expected


@pytest.mark.parametrize(
    ("no_proxy", "host", "bypassed"),
    [
        ("", "a.example.test", False),
        ("*", "a.example.test", True),
        ("example.test", "a.example.test", True),
        ("EXAMPLE.test", "A.example.TEST", True),
        (".example.test", "a.example.test", True),
        (".example.test", "example.test", True),
        ("ample.test", "a.example.test", False),
        ("other.test, example.test ,x", "a.example.test", True),
        ("a.example.test:8080", "a.example.test:8080", True),
        ("a.example.test:8080", "a.example.test:80", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:8080", "10.1.2.3:8080", True),
        ("fd00::/8", "[fd12::1]", True),
        ("::1", "[::1]", True),
        ("[::1]", "[::1]", True),
        ("10.0.0.0/8", "a.example.test", False),
        (",,", "a.example.test", False),
    ],
)
def test_hosts_the_environment_keeps_from_the_proxy(no_proxy: str, host: str, *, bypassed: bool) -> None:
    environment = ProxyEnvironment({"http": "http://proxy:3128", "no": no_proxy})
    assert (environment.proxy_for(URL(f"http://{host}/")) is None) == bypassed


async def test_the_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower case wins; NO_PROXY and `proxy: none` are respected; a redirect is looked at anew."""
    async with HttpServer(response(body=b"straight")) as server, HttpServer(redirect(server.url("/x"))) as proxy:
        monkeypatch.setenv("http_proxy", f"http://ann:pr0xypass@{proxy.address}")
        monkeypatch.setenv("HTTP_PROXY", "http://upper.example.test:1")
        monkeypatch.setenv("no_proxy", "127.0.0.0/8")
        redirected = await probe("http", url="http://api.example.test/", expect={"body_matches": "straight"})
        spared = await probe("http", url=server.url())
        monkeypatch.setenv("no_proxy", "")
        straight = await probe("http", url=server.url(), proxy="none")
    assert verdict(redirected) == "success", redirected.failure
    assert Fact.PROXY not in redirected.facts
    assert proxy.requests[0].target == "http://api.example.test/"
    assert verdict(spared) == "success"
    assert verdict(straight) == "success"
    assert proxy.connections == 1


async def test_a_proxy_of_the_environment_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://ann:pr0xypass@proxy:1080")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    outcome = await probe("http", url="http://api.example.test/")
    assert verdict(outcome) == "proxy/protocol_error"
    assert outcome.failure is not None
    assert outcome.failure.detail == (
        "expected the environment's proxy for http to be an http or https URL, got one where its scheme is socks5"
    )


async def test_the_password_of_the_environments_proxy_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def echo(request: Received) -> bytes:
        return response("500 Oh", f"you sent {request.headers['proxy-authorization']} pr0xypass".encode())

    async with HttpServer(echo) as proxy:
        monkeypatch.setenv("http_proxy", f"http://ann:pr0xypass@{proxy.address}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        outcome = await probe("http", url="http://api.example.test/")
    assert outcome.failure is not None
    assert outcome.failure.detail == "expected status 2xx, got 500 Oh: 'you sent Basic *** ***'"
