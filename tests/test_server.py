"""The agent's own HTTP server, asked over real connections."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from agent import server as server_module
from agent.diagnosis import Diagnosis
from agent.diagnosis.document import document
from agent.keys import HostPort
from agent.server import CHUNK_TARGETS, CONNECTION_LIMIT, CannotListen, Pages, Server
from agent.sinks.status import Status
from tests.lab.command import PATIENCE_SECONDS
from tests.lab.http_client import Answer, exchange, parse, request


@dataclass(frozen=True)
class Body:
    content_type: str = "text/plain"
    encoding: str | None = None
    chunks: tuple[bytes, ...] = (b"metrics\n",)


DIAGNOSIS = document(
    Diagnosis(), since=1_700_000_000.0, held_seconds=12.0, waiting=(), experiments=(), budget={"asked": 0}
)


@dataclass
class Content:
    """What a test lets the server show."""

    document: Body = field(default_factory=Body)
    targets: Callable[[], Iterator[Mapping[str, Any]]] = lambda: iter(())
    statuses: Callable[[], Iterator[Status]] = lambda: iter(())
    diagnosis: Mapping[str, Any] = field(default_factory=lambda: DIAGNOSIS)
    broken: str | None = None
    awaited: str | None = None
    held: str | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    told: list[bytes] = field(default_factory=list)
    refreshed: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, body: bytes) -> None:
        if body == b"nonsense":
            raise ValueError("expected sense, got nonsense")
        self.told.append(body)

    async def refresh(self) -> None:
        self.refreshed += 1

    async def metrics(self, accept: str, accept_encoding: str) -> Body:
        self.asked.append((accept, accept_encoding))
        return self.document


@asynccontextmanager
async def serving(content: Content | None = None, listen: HostPort = HostPort("127.0.0.1", 0)) -> AsyncIterator[Server]:  # noqa: B008
    content = content or Content()
    server = Server(
        Pages(
            metrics=content.metrics,
            targets=content.targets,
            statuses=content.statuses,
            diagnosis=lambda: content.diagnosis,
            broken=lambda: content.broken,
            unready=lambda: content.awaited,
            unstarted=lambda: content.held,
            refresh=content.refresh,
            told=content.tell,
            leave=content.left.set,
        )
    )
    await server.start(listen)
    try:
        yield server
    finally:
        await server.aclose()


ENDPOINTS = ("/", "/metrics", "/targets", "/diagnosis", "/healthz", "/readyz", "/startupz")


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_every_endpoint_answers(path: str) -> None:
    async with serving() as server:
        answer = await request(server.url + path)
    assert answer.status == 200
    assert answer.body
    assert answer.headers["server"] == "netprobe"
    assert answer.headers["cache-control"] == "no-store"
    assert int(answer.headers["content-length"]) == len(answer.body)


async def test_the_index_names_every_endpoint() -> None:
    async with serving() as server:
        answer = await request(server.url + "/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for path in ENDPOINTS[1:]:
        assert f'href="{path[1:]}"' in answer.text


async def test_the_page_for_people_is_kept_from_everything_it_does_not_bring_along() -> None:
    async with serving() as server:
        page, other = await request(server.url + "/"), await request(server.url + "/targets")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in other.headers


@pytest.mark.parametrize("path", ["/-/ready", "/probe", "/metrics/", "/favicon.ico", "/config", "/../etc/passwd", "//"])
async def test_an_unknown_path_is_not_found(path: str) -> None:
    """No page is shown for a path nobody meant, so that a mistyped readiness check fails."""
    async with serving() as server:
        assert (await request(server.url + path)).status == 404


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_nothing_can_be_changed(path: str, method: str) -> None:
    async with serving() as server:
        answer = await request(server.url + path, method=method, body=b"x" * 10)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET,HEAD"


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_head_is_get_without_the_body(path: str) -> None:
    async with serving() as server:
        full, head = await request(server.url + path), await request(server.url + path, method="HEAD")
    assert head.status == full.status
    assert head.body == b""
    for name in ("content-length", "content-type"):
        assert head.headers[name] == full.headers[name]


@pytest.mark.parametrize(
    ("query", "content_type", "begins"),
    [
        ("", "application/json; charset=utf-8", '{\n  "version": 1,\n  "healthy": true,'),
        ("?format=json", "application/json; charset=utf-8", '{\n  "version": 1,\n  "healthy": true,'),
        ("?format=text", "text/plain; charset=utf-8", "healthy for 12 seconds, since 2023-11-14T22:13:20.000Z: "),
        ("?other=x", "application/json; charset=utf-8", '{\n  "version": 1,'),
    ],
)
async def test_the_diagnosis_is_for_programs_and_for_people(query: str, content_type: str, begins: str) -> None:
    async with serving() as server:
        answer = await request(server.url + "/diagnosis" + query)
    assert (answer.status, answer.headers["content-type"]) == (200, content_type)
    assert answer.text.startswith(begins)
    assert answer.text.endswith("\n")


@pytest.mark.parametrize(("value", "seen"), [("xml", "'xml'"), ("", "''"), ("TEXT", "'TEXT'"), ("%0Ax", r"'\nx'")])
async def test_an_unknown_format_is_refused_with_a_sentence(value: str, seen: str) -> None:
    async with serving() as server:
        answer = await request(f"{server.url}/diagnosis?format={value}")
    assert answer.status == 400
    assert answer.text == f"expected format=json or format=text, got format={seen}\n"


async def test_the_scrapers_headers_decide_the_format() -> None:
    content = Content(document=Body("application/openmetrics-text", "gzip", (b"one", b"two")))
    async with serving(content) as server:
        answer = await request(
            server.url + "/metrics", headers={"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"}
        )
    assert content.asked == [("application/openmetrics-text", "gzip")]
    assert answer.headers["content-type"] == "application/openmetrics-text"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.body == b"onetwo"


async def test_health_says_what_is_broken() -> None:
    content = Content()
    async with serving(content) as server:
        assert (await request(server.url + "/healthz")).status == 200
        content.broken = "nobody probes api"
        answer = await request(server.url + "/healthz")
    assert (answer.status, answer.text) == (503, "nobody probes api\n")


async def test_readiness_says_what_is_awaited() -> None:
    content = Content(awaited="waiting for the first result of api")
    async with serving(content) as server:
        answer = await request(server.url + "/readyz")
        assert (answer.status, answer.text) == (503, "waiting for the first result of api\n")
        content.awaited = None
        assert (await request(server.url + "/readyz")).status == 200


async def test_start_up_succeeds_whatever_is_broken() -> None:
    """A sidecar whose start-up probe fails would keep the task from starting: it fails open."""
    async with serving(Content(broken="everything", awaited="everything")) as server:
        assert (await request(server.url + "/startupz")).status == 200


async def test_targets_are_json() -> None:
    entries = [{"name": f"t{number}", "detail": 'expected ä, got "b"\n'} for number in range(3)]
    async with serving(Content(targets=lambda: iter(entries))) as server:
        answer = await request(server.url + "/targets")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(answer.body) == {"version": 1, "targets": entries}


async def test_no_targets_are_json_as_well() -> None:
    async with serving() as server:
        assert json.loads((await request(server.url + "/targets")).body) == {"version": 1, "targets": []}


async def test_a_thousand_targets_are_shown_in_small_steps() -> None:
    """The loop has its turn after every few targets."""
    turns_at: list[int] = []
    turn = 0
    done = False

    def entries() -> Iterator[dict[str, Any]]:
        for number in range(1000):
            turns_at.append(turn)
            yield {"name": f"t{number}", "x": "y" * 2000}

    async def bystander() -> None:
        nonlocal turn
        while not done:
            turn += 1
            await asyncio.sleep(0)

    async with serving(Content(targets=entries)) as server:
        other = asyncio.create_task(bystander())
        answer = await request(server.url + "/targets")
        done = True
        await other
    assert len(json.loads(answer.body)["targets"]) == 1000
    most = max(turns_at.count(seen) for seen in set(turns_at))
    assert most <= CHUNK_TARGETS


async def test_targets_are_made_once_for_all_who_ask_meanwhile() -> None:
    """Many clients do not multiply the CPU that is spent on one of them."""
    clients = 20
    begun = 0
    under_way = 0

    def asked() -> int:
        counter = server._runner.server
        assert counter is not None
        return counter.requests_count

    def entries() -> Iterator[dict[str, Any]]:
        nonlocal begun, under_way
        begun += 1
        under_way += 1
        assert under_way == 1
        number = 0
        while asked() < clients:
            yield {"name": f"t{number}", "rendering": begun}
            number += 1
        yield {"name": "last", "rendering": begun}
        under_way -= 1

    async with serving(Content(targets=entries)) as server:
        answers = await asyncio.gather(*(request(server.url + "/targets") for _ in range(clients)))
        later = json.loads((await request(server.url + "/targets")).body)
    shown = [json.loads(answer.body)["targets"] for answer in answers]
    # One for whoever came first, one for those who came meanwhile, one for who was counted and not yet heard.
    assert len({targets[-1]["rendering"] for targets in shown}) <= 3
    assert all(len({target["rendering"] for target in targets}) == 1 for targets in shown)
    assert later["targets"] == [{"name": "last", "rendering": begun}]
    assert begun <= 4


def timeless(answer: Answer) -> str:
    """What was answered, but for the moment."""
    return re.sub(r"<time.*?</time>", "", answer.text)


@pytest.mark.parametrize(
    "query",
    [
        "?target=169.254.169.254",
        "?module=http_2xx&target=127.0.0.1:22",
        "?address=127.0.0.1:1&url=http://127.0.0.1:1/",
        "?name[]=process_open_fds",
        "?host=127.0.0.1&debug=true&hostname=x",
    ],
)
@pytest.mark.parametrize("path", ENDPOINTS)
async def test_no_endpoint_takes_an_address(path: str, query: str) -> None:
    """Targets come from configuration only: whatever a caller adds changes nothing."""
    async with serving() as server:
        plain, asked = await request(server.url + path), await request(server.url + path + query)
    assert (asked.status, timeless(asked)) == (plain.status, timeless(plain))


async def test_a_header_cannot_change_where_anything_goes_either() -> None:
    async with serving() as server:
        plain = await request(server.url + "/")
        asked = await request(server.url + "/", headers={"X-Forwarded-Host": "evil.example", "X-Target": "127.0.0.1:1"})
    assert timeless(asked) == timeless(plain)


# --- clients that do not behave -------------------------------------------------------------------------------------


def endpoint(server: Server) -> tuple[str, int]:
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="a long path"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", id="a long header"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(1000)) + b"\r\n",
            id="many headers",
        ),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64 + b"\r\n\r\n", id="a TLS handshake"),
        pytest.param(b"nonsense\r\n\r\n", id="not HTTP"),
    ],
)
async def test_what_is_too_long_or_not_http_is_refused_quietly(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A client cannot make the server read without end, nor fill the log."""
    async with serving() as server:
        answer = parse(await exchange(*endpoint(server), sent))
        assert answer.status == 400
        assert (await request(server.url + "/healthz")).status == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_body_nobody_asked_for_is_not_read() -> None:
    """A request that announces a gigabyte gets its answer and the end of its connection at once."""
    async with serving() as server:
        raw = await exchange(
            *endpoint(server), b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nabc"
        )
    assert parse(raw).status == 200


@pytest.mark.parametrize("begun", [b"", b"GET /metrics HTTP/1.1\r\nHost:"], ids=["silent", "half a request"])
async def test_a_client_that_never_finishes_its_request_is_dropped(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "IDLE_SECONDS", 0.2)
    async with serving() as server:
        assert await exchange(*endpoint(server), begun) == b""


async def test_a_client_that_drips_its_request_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is not a new lease."""
    monkeypatch.setattr(server_module, "IDLE_SECONDS", 0.3)
    async with serving() as server, asyncio.timeout(60.0):
        reader, writer = await asyncio.open_connection(*endpoint(server))
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        while not reader.at_eof():
            writer.write(b"a")
            try:
                async with asyncio.timeout(0.05):
                    assert await reader.read(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                break
        writer.transport.abort()


async def test_a_client_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was to get is not kept in memory for ever."""
    monkeypatch.setattr(server_module, "RESPONSE_SECONDS", 0.3)
    content = Content(document=Body(chunks=(b"x" * 65536,) * 1000))
    async with serving(content) as server, asyncio.timeout(60.0):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, endpoint(server))
        await loop.sock_sendall(sock, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        runner = server._runner.server
        assert runner is not None
        while not runner.connections:  # noqa: ASYNC110 - nothing else tells that the server has seen us
            await asyncio.sleep(0.01)
        while runner.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        sock.close()
        assert (await request(server.url + "/healthz")).status == 200


@pytest.mark.parametrize("read", [0, 1], ids=["at once", "in the middle of the answer"])
async def test_a_client_that_hangs_up_is_nothing_to_write_about(read: int, caplog: pytest.LogCaptureFixture) -> None:
    """Scrapes are given up every day; nobody has to read a traceback about it."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Content):
        async def metrics(self, accept: str, accept_encoding: str) -> Body:
            asked.set()
            if not read:
                await go_on.wait()
            return Body(chunks=(b"x" * 65536,) * 1000)

    async with serving(Slow()) as server:
        reader, writer = await asyncio.open_connection(*endpoint(server))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await asked.wait()
        await reader.read(read)
        writer.transport.abort()
        runner = server._runner.server
        assert runner is not None
        async with asyncio.timeout(60.0):
            while not _closed(writer):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            go_on.set()
            while runner.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await request(server.url + "/healthz")).status == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def _closed(writer: asyncio.StreamWriter) -> bool:
    descriptor: int = writer.get_extra_info("socket").fileno()
    return descriptor == -1


async def test_connections_are_bounded() -> None:
    """Whoever comes when all places are taken is turned away at once, and nobody waits in a queue without end."""
    async with serving() as server:
        host, port = endpoint(server)
        held = [await asyncio.open_connection(host, port) for _ in range(CONNECTION_LIMIT)]
        runner = server._runner.server
        assert runner is not None
        async with asyncio.timeout(60.0):
            while len(runner.connections) < CONNECTION_LIMIT:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises((ConnectionError, IndexError)):
            await request(f"http://{host}:{port}/healthz")
        for _, writer in held:
            writer.transport.abort()
        async with asyncio.timeout(60.0):
            while runner.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await request(server.url + "/healthz")).status == 200


async def test_an_answer_under_way_is_finished_when_the_server_closes() -> None:
    """T18: a scrape that has begun gets its end."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Content):
        async def metrics(self, accept: str, accept_encoding: str) -> Body:
            asked.set()
            await go_on.wait()
            return Body(chunks=(b"complete",))

    async with serving(Slow()) as server:
        url = server.url
        scrape = asyncio.create_task(request(server.url + "/metrics"))
        await asked.wait()
        closing = asyncio.create_task(server.aclose())
        # The listening socket is closed in the same step in which `aclose` begins.
        await asyncio.sleep(0)
        with pytest.raises(ConnectionError):
            await request(url + "/healthz")
        go_on.set()
        assert (await scrape).body == b"complete"
        await closing


# --- listening ------------------------------------------------------------------------------------------------------


async def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    async with serving() as first:
        host, port = endpoint(first)
        with pytest.raises(CannotListen) as refused:
            async with serving(listen=HostPort(host, port)):
                pass
    assert str(refused.value) == f"cannot listen on 127.0.0.1:{port}: address already in use"


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        (HostPort("198.51.100.1", 9733), "cannot listen on 198.51.100.1:9733: cannot assign requested address"),
        (HostPort("2001:db8::1", 9733), "cannot listen on [2001:db8::1]:9733: cannot assign requested address"),
    ],
)
async def test_an_address_that_is_not_ours_is_said_in_one_line(listen: HostPort, why: str) -> None:
    with pytest.raises(CannotListen) as refused:
        async with serving(listen=listen):
            pass
    assert str(refused.value) == why


async def test_the_ipv6_wildcard_takes_ipv4_as_well() -> None:
    """In a dual-stack cluster the kubelet and Prometheus may come over either."""
    async with serving(listen=HostPort("::", 0)) as server:
        port = urlsplit(server.url).port
        for host in ("127.0.0.1", "[::1]"):
            assert (await request(f"http://{host}:{port}/startupz")).status == 200


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("0.0.0.0", "http://127.0.0.1:"),
        ("::", "http://127.0.0.1:"),
        ("127.0.0.1", "http://127.0.0.1:"),
        ("::1", "http://[::1]:"),
    ],
)
async def test_the_url_can_be_connected_to(host: str, shown: str) -> None:
    async with serving(listen=HostPort(host, 0)) as server:
        assert server.url.startswith(shown)
        assert (await request(server.url + "/startupz")).status == 200


# --- what is done at somebody's request -----------------------------------------------------------------------------

ACTIONS = ("/task", "/refresh", "/quitquitquit")


async def test_the_start_is_held_back_in_a_sentence() -> None:
    content = Content(held="waiting for api to answer")
    async with serving(content) as server:
        closed = await request(server.url + "/startupz")
        content.held = None
        opened = await request(server.url + "/startupz")
    assert (closed.status, closed.text) == (503, "waiting for api to answer\n")
    assert (opened.status, opened.text) == (200, "ok\n")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::"])
async def test_the_pod_itself_may_tell_and_ask(address: str) -> None:
    """Over IPv4 and IPv6, and over IPv4 on a socket that takes both."""
    content = Content()
    async with serving(content, HostPort(address, 0)) as server:
        port = urlsplit(server.url).port
        hosts = {"::": ["127.0.0.1", "[::1]"], "::1": ["[::1]"]}.get(address, [address])
        for host in hosts:
            told = await request(f"http://{host}:{port}/task", method="POST", body=b'{"some": "body"}')
            assert (told.status, told.body) == (204, b"")
            looked = await request(f"http://{host}:{port}/refresh", method="POST")
            assert (looked.status, looked.body) == (204, b"")
            content.left.clear()
            asked = await request(f"http://{host}:{port}/quitquitquit", method="POST")
            assert (asked.status, asked.text) == (200, "ok\n")
            assert content.left.is_set()
    assert content.told == [b'{"some": "body"}'] * len(hosts)
    assert content.refreshed == len(hosts)


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_looking_does_nothing(path: str, method: str) -> None:
    """A browser, a crawler or a mistyped probe ends no agent."""
    content = Content()
    async with serving(content) as server:
        answer = await request(server.url + path, method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    assert not content.left.is_set()
    assert (content.told, content.refreshed) == ([], 0)


@pytest.mark.parametrize("path", ACTIONS)
async def test_nobody_else_may(path: str) -> None:
    """127.0.0.6 is what Istio hands on requests from outside the pod as; another address is another pod."""
    content = Content()
    async with serving(content, HostPort("0.0.0.0", 0)) as server:
        port = urlsplit(server.url).port or 0
        sent = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode()
        for source, destination in (("127.0.0.6", "127.0.0.1"), ("127.0.0.1", "127.0.0.2")):
            reader, writer = await asyncio.open_connection(destination, port, local_addr=(source, 0))
            writer.write(sent)
            answer = parse(await reader.read())
            writer.close()
            await writer.wait_closed()
            assert answer.status == 403
            assert answer.text == "expected a request over this pod's own loopback, got one from elsewhere\n"
    assert not content.left.is_set()
    assert (content.told, content.refreshed) == ([], 0)


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize("header", ["X-Forwarded-For", "x-forwarded-proto", "Via", "Forwarded", "Origin"])
async def test_a_proxy_in_the_pod_is_nobody_to_obey(path: str, header: str) -> None:
    """It speaks for somebody else."""
    content = Content()
    async with serving(content) as server:
        answer = await request(server.url + path, method="POST", headers={header: "10.0.0.1"}, body=b"{}")
    assert answer.status == 403
    assert not content.left.is_set()
    assert (content.told, content.refreshed) == ([], 0)


async def test_what_cannot_be_taken_is_refused_with_a_sentence() -> None:
    content = Content()
    async with serving(content) as server:
        wrong = await request(server.url + "/task", method="POST", body=b"nonsense")
        large = await request(server.url + "/task", method="POST", body=b"x" * (server_module.BODY_LIMIT_BYTES + 1))
        limit = await request(server.url + "/task", method="POST", body=b"x" * server_module.BODY_LIMIT_BYTES)
    assert (wrong.status, wrong.text) == (400, "expected sense, got nonsense\n")
    assert (large.status, large.text) == (413, "expected at most 4096 bytes, got more\n")
    assert limit.status == 204


async def test_a_request_to_end_that_is_kept_back_counts_once_who_sent_it_has_gone() -> None:
    """The kernel closes the connection of a process that is killed, and no other word comes from it."""
    content = Content()
    async with serving(content) as server:
        parts = urlsplit(server.url)
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"POST /quitquitquit HTTP/1.0\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
        await writer.drain()
        assert (await request(server.url + "/healthz")).status == 200
        assert not content.left.is_set()
        writer.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await content.left.wait()


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "BODY_SECONDS", 0.2)
    content = Content()
    async with serving(content) as server:
        parts = urlsplit(server.url)
        head = b"POST /task HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{"
        answer = parse(await exchange(str(parts.hostname), parts.port or 0, head))
    assert answer.status == 408
    assert content.told == []
