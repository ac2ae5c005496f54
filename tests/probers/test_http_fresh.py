"""What HTTP in particular could keep from one run to the next: connections, cached answers, cookies, TLS sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from agent.model import Fact
from agent.prober import Prober
from agent.probers import PROBERS
from agent.runner import run
from tests.lab.certificates import Certificates
from tests.lab.http_servers import HttpServer, Received, application, redirect, response, routed
from tests.lab.leaks import nothing_leaks, repeat
from tests.lab.misbehaving import closing, resetting
from tests.lab.targets import target, verdict

RUNS = 1000


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    """One for all runs of a test, as the agent has it."""
    prober = PROBERS["http"].prober()
    yield prober
    await prober.aclose()


async def test_a_server_that_would_keep_the_connection_gets_a_new_one(prober: Prober) -> None:
    peers: list[Any] = []

    async def ok(request: web.Request) -> web.Response:
        peers.append(request.transport and request.transport.get_extra_info("peername"))
        return web.Response(text="ok")

    async with application(web.get("/", ok)) as url:
        subject = target("http", url=f"{url}/")
        assert [verdict(await run(prober, subject)) for _ in range(3)] == ["success"] * 3
    assert len(set(peers)) == 3


async def test_an_answer_that_changes_is_seen_by_the_next_run(prober: Prober) -> None:
    """Whatever it said about caching; no validator and no cookie of an earlier run is sent."""
    answers = iter(
        [
            response(
                body=b"one",
                headers={"Cache-Control": "public, max-age=9999", "ETag": '"1"', "Set-Cookie": "a=1; Max-Age=9999"},
            ),
            response("301 Moved Permanently", headers={"Location": "/other", "Cache-Control": "max-age=9999"}),
            response(body=b"two"),
            response(body=b"three"),
        ]
    )
    async with HttpServer(lambda _: next(answers)) as server:
        subject = target("http", url=server.url(), expect={"body_matches": "one|three"})
        ends = [verdict(await run(prober, subject)) for _ in range(3)]
    assert ends == ["success", "verify/unexpected_body", "success"]
    assert [request.target for request in server.requests] == ["/", "/", "/other", "/"]
    assert server.connections == 4
    assert not any(
        {"cookie", "if-none-match", "if-modified-since"} & request.headers.keys() for request in server.requests
    )


async def test_a_certificate_that_is_replaced_is_seen_by_the_next_run(
    prober: Prober, certificates: Certificates
) -> None:
    """No session of an earlier run is resumed, in which the server would show no certificate at all."""
    context = certificates.good.server_context()
    resumed: list[bool | None] = []
    async with HttpServer(response(), tls=context) as server:
        subject = target("http", url=server.url(), tls={"ca_file": str(certificates.ca_file)})
        first = await run(prober, subject)
        expired = certificates.expired
        context.load_cert_chain(expired.chain_file, expired.key_file)
        second = await run(prober, subject)
        resumed.append(context.session_stats()["hits"] > 0)
    assert verdict(first) == "success"
    assert verdict(second) == "tls/certificate_expired"
    assert second.facts[Fact.CERTIFICATE_EXPIRES_AT] == expired.expires_at
    assert resumed == [False]


async def test_runs_side_by_side_do_not_share(prober: Prober) -> None:
    """Twenty logins at once, each with its own cookie, through one prober."""
    numbers = iter(range(1000))

    def login(request: Received) -> bytes:
        if "cookie" not in request.headers:
            return redirect("/in", headers={"Set-Cookie": f"n={next(numbers)}"})
        return response(body=request.headers["cookie"].encode())

    async with HttpServer(login) as server:
        subject = target("http", url=server.url(), expect={"body_matches": r"^n=\d+$"})
        outcomes = await asyncio.gather(*(run(prober, subject) for _ in range(20)))
    assert {verdict(outcome) for outcome in outcomes} == {"success"}
    assert len({request.headers["cookie"] for request in server.requests if "cookie" in request.headers}) == 20


async def test_ends_of_every_kind_leave_nothing_behind(prober: Prober, certificates: Certificates) -> None:
    """Plain answers, redirects from http to https, bodies cut short or too large, resets, answers that are not HTTP."""
    tls = {"ca_file": str(certificates.ca_file)}
    async with HttpServer(response(), tls=certificates.good.server_context()) as secure:
        routes = {
            "/": response(body=b"ok"),
            "/large": response(body=b"x" * 100_000),
            "/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
            "/away": redirect(secure.url(), headers={"Set-Cookie": "a=1"}),
            "/loop": redirect("/loop"),
            "/garbage": b"no HTTP\r\n",
        }
        async with HttpServer(routed(routes)) as plain, resetting() as rude, closing() as shy:
            urls = [*(plain.url(path) for path in routes), f"http://{rude.address}/", f"https://{shy.address}/"]
            subjects = [
                target("http", timeout_seconds=60, url=url, tls=tls, body_limit="64KiB", max_redirects=3)
                for url in urls
            ]
            ends: set[str] = set()

            async def one() -> None:
                for subject in subjects:
                    ends.add(verdict(await run(prober, subject)))

            await repeat(20, one)
            async with nothing_leaks():
                await repeat(RUNS // len(subjects), one)
    assert {
        "success",
        "transfer/too_large",
        "transfer/closed",
        "verify/too_many_redirects",
        "request/protocol_error",
        "request/reset",
    } <= ends
    assert not any(end.endswith(("internal", "timeout")) for end in ends)


async def test_a_thousand_plain_runs_and_redirects_leave_nothing_behind(prober: Prober) -> None:
    async with HttpServer(routed({"/": redirect("/end"), "/end": response(body=b"ok")})) as server:
        subject = target("http", timeout_seconds=60, url=server.url())

        async def one() -> None:
            assert verdict(await run(prober, subject)) == "success"

        await repeat(20, one)
        async with nothing_leaks():
            await repeat(RUNS, one)
    assert server.connections == 2 * (RUNS + 20)
