"""How far the own clock is from a server's."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from agent.diagnosis.experiment import Clock, ServerClock
from agent.model import Target
from agent.net.http1 import Head
from agent.net.http_signs import server_time
from tests.experiments.asking import asking, snapshot
from tests.lab.certificates import Certificates
from tests.lab.http_servers import HttpServer, application, response
from tests.lab.misbehaving import echoing, refusing_port, silent
from tests.lab.nameservers import Nameserver, loopback_ip, resolv_conf, zone
from tests.lab.targets import target

TRUTH = 1_700_000_000


def dated(age: int | None = None, *, date: str | None = None) -> bytes:
    headers = {"Date": formatdate(TRUTH, usegmt=True) if date is None else date}
    return response(headers=headers if age is None else {**headers, "Age": str(age)})


async def ahead(configured: Target[Any], now: float = TRUTH + 0.5) -> float | None:
    """What the experiment finds, on a node with a clock of its own."""
    async with asking(snapshot(configured), wall_clock=lambda: now) as ask:
        found = await ask.one(ServerClock("under-test"))
    assert isinstance(found, Clock)
    return found.ahead_seconds


@pytest.mark.parametrize("offset", [0.0, 86_400.0, -3_600.0, 0.25])
async def test_the_offset_is_that_of_the_own_clock(offset: float) -> None:
    async with HttpServer(dated()) as server:
        found = await ahead(target("http", url=server.url()), TRUTH + 0.5 + offset)
    assert found is not None
    assert offset <= found < offset + 1  # and half of the time it took


@pytest.mark.parametrize("state", ["good", "expired", "not_yet_valid", "unknown_issuer", "wrong_name"])
async def test_the_certificate_is_not_judged(certificates: Certificates, state: str) -> None:
    tls = getattr(certificates, state).server_context()
    async with HttpServer(dated(), tls=tls) as server:
        for configured in (
            target("http", url=server.url(), tls={"ca_file": str(certificates.ca_file)}),
            target("tcp", address=server.address, tls={}),
        ):
            found = await ahead(configured, TRUTH + 100.5)
            assert found is not None
            assert 100 <= found < 102


async def test_the_own_clock_agrees_with_that_of_a_real_server_here() -> None:
    """That of aiohttp puts the time into every answer."""

    async def empty(_: web.Request) -> web.Response:
        return web.Response()

    async with application(web.get("/", empty)) as url:
        found = await ahead(target("http", url=url), time.time())
    assert found is not None
    assert -2 < found < 2


async def test_an_answer_from_a_cache_is_as_old_as_it_says() -> None:
    async with HttpServer(dated(age=7200)) as server:
        found = await ahead(target("http", url=server.url()), TRUTH + 7200.5)
    assert found is not None
    assert 0 <= found < 1


async def test_no_credentials_are_sent(certificates: Certificates) -> None:
    """Nor anything else of what the target is configured with: no path, no query, no header, no certificate."""
    tls = certificates.good.server_context()
    async with HttpServer(dated(), tls=tls) as server:
        configured = target(
            "http",
            url=server.url("/private?token=hunter2hunter2hunter2"),
            method="POST",
            body="hunter2",
            headers={"X-Api-Key": "hunter2", "Host": "api.example.com"},
            bearer_token="hunter2",
        )
        assert await ahead(configured) is not None
        (request,) = server.requests
    assert (request.method, request.target, request.body) == ("HEAD", "/", b"")
    assert set(request.headers) == {"host", "user-agent", "cache-control", "connection"}
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    "reply",
    [
        response(),
        dated(date=""),
        dated(date="yesterday"),
        dated(date="Tue, 14 Nov 2023 22:13:20"),
        dated(date="Wed, 99 Nov 2023 22:13:20 GMT"),
        dated(date="Wed, 15 Nov 99999999999 22:13:20 GMT"),
        response(headers={"Date": formatdate(TRUTH, usegmt=True), "Age": "old"}),
        b"HTTP/1.1 200 OK\r\nDate: Tue",
        b"\x00" * 200,
        b"",
    ],
)
async def test_a_server_that_does_not_tell(reply: bytes) -> None:
    async with HttpServer(reply) as server:
        assert await ahead(target("http", url=server.url())) is None


async def test_a_server_that_does_not_speak_tls() -> None:
    async with HttpServer(dated()) as server:
        assert await ahead(target("http", url=f"https://{server.address}/")) is None


async def test_a_server_that_is_not_there_or_stays_silent() -> None:
    async with silent() as mute:
        for address in (f"127.0.0.1:{refusing_port()}", mute.address):
            assert await ahead(target("http", url=f"http://{address}/")) is None


async def test_the_name_is_resolved_as_the_targets_runs_do(tmp_path: Path) -> None:
    async with (
        Nameserver(zone("api.example.test. A 127.0.0.1"), ip=loopback_ip(), port=53) as nameserver,
        HttpServer(dated()) as server,
    ):
        conf = resolv_conf(tmp_path, nameserver)
        url = server.url(host="api.example.test")
        found = await ahead(target("http", url=url, resolv_conf=conf), TRUTH + 60.5)
        assert found is not None
        assert 60 <= found < 61
        assert await ahead(target("http", url=server.url(host="other.example.test"), resolv_conf=conf)) is None
        assert server.requests[0].headers["host"] == f"api.example.test:{server.port}"


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@pytest.mark.parametrize(
    ("keys", "variables"),
    [
        ({"proxy": "http://127.0.0.1:1"}, {}),
        ({"proxy": "environment"}, {"http_proxy": "http://127.0.0.1:1", "no_proxy": ""}),
        ({"proxy": "environment"}, {"http_proxy": "what is this", "no_proxy": ""}),
    ],
)
async def test_a_target_behind_a_proxy_is_not_asked(keys: dict[str, Any], variables: dict[str, str]) -> None:
    """A request past the proxy is one that the target's own runs never make."""
    async with HttpServer(dated()) as server:
        with environment(variables):
            async with asking(snapshot(target("http", url=server.url(), **keys))) as ask:
                assert await ask.every(ServerClock("under-test")) == ()
                assert ask.experimenter.refused == 1
        assert server.connections == 0


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("tcp", {}),
        ("tcp", {"tls": {}, "dialogue": [{"send": "PING"}]}),
        ("postgres", {}),
        ("dns", {"query": "example.test"}),
    ],
)
async def test_what_speaks_something_else_is_not_asked(kind: str, keys: dict[str, Any]) -> None:
    async with echoing() as server:
        address: dict[str, Any] = {
            "tcp": {"address": server.address},
            "postgres": {"dsn": f"postgresql://{server.address}/app"},
            "dns": {"server": server.address},
        }[kind]
        async with asking(snapshot(target(kind, **keys, **address))) as ask:
            assert await ask.every(ServerClock("under-test")) == ()
            assert ask.experimenter.refused == 1
        assert server.connections == 0


NEAR_A_DATE = st.text("MonTueDec 0123456789:,+-()GMTUT\t", max_size=60)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=60), NEAR_A_DATE), st.one_of(st.text(max_size=10), NEAR_A_DATE))
def test_no_header_raises(date: str, age: str) -> None:
    head = Head(200, "OK", "1.1", CIMultiDictProxy(CIMultiDict({"Date": date, "Age": age})))
    there = server_time(head)
    assert there is None or math.isfinite(there)
