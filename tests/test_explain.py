"""`netprobe explain`: the real command, asking real agents, and things that are none."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import explain as explain_module
from agent.cli import AGENT_URL
from agent.config import ServerOptions
from agent.diagnosis.document import VERSION, document
from agent.diagnosis.verdict import Cause, Confidence, Diagnosis, Verdict
from agent.explain import ANSWER_LIMIT_BYTES, PATIENCE_SECONDS, Place, place_of
from agent.listening import DEFAULT_PORT
from tests.lab.agents import Running, eventually, running
from tests.lab.certificates import Certificates
from tests.lab.command import Finished, netprobe
from tests.lab.http_client import request
from tests.lab.http_servers import HttpServer, Received, redirect, response
from tests.lab.misbehaving import (
    Server,
    closing_when_spoken_to,
    dripping,
    echoing,
    flooding,
    greeting,
    http_only,
    refusing_port,
    resetting,
    silent,
)

VERDICTS = Diagnosis(
    (
        Verdict(
            cause=Cause.DNS_UNREACHABLE,
            confidence=Confidence.HIGH,
            targets=("orders-api", "internal-database"),
            summary="No nameserver answers: consistent with a policy that does not allow egress to port 53.",
            evidence=("10.96.0.10 did not answer 4 questions within 2.0 s", "orders-api: resolve/timeout"),
            advice="Ask by hand: `kubectl exec POD -c netprobe -- netprobe check dns:kubernetes.default`",
        ),
    )
)


def page(diagnosis: Diagnosis = VERDICTS, **changes: Any) -> dict[str, Any]:
    """What an agent answers."""
    whole = document(
        diagnosis, since=1_700_000_000.0, held_seconds=12.0, waiting=(), experiments=(), budget={"asked": 0}
    )
    return whole | changes


def serving(answer: Mapping[str, Any] | bytes, **options: Any) -> HttpServer:
    """Something that answers like this, whatever it is asked."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return HttpServer(response(body=body, headers={"Content-Type": "application/json"}), **options)


async def explained(url: str, *arguments: str, **env: str) -> Finished:
    done = await netprobe("explain", "--url", url, *arguments, env=env)
    assert "Traceback" not in done.stderr
    return done


# --- a running agent ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def agent(directory: Path, address: str, more: str = "") -> AsyncIterator[Running]:
    """An agent that watches one server, once it has a diagnosis."""
    configuration = f"""
defaults: {{interval: 1s, timeout: 500ms}}
{more}
targets: [{{name: broker, type: tcp, address: "{address}"}}]
"""
    async with running(directory, configuration) as started:

        async def diagnosed() -> bool:
            return json.loads((await request(started.url + "/diagnosis")).body)["since"] is not None

        await eventually(diagnosed, "a diagnosis")
        yield started


async def test_exit_code_0_and_one_line_where_all_is_well(tmp_path: Path) -> None:
    async with echoing() as server, agent(tmp_path, server.address) as started:
        done = await explained(started.url)
    assert (done.code, done.stderr) == (0, "")
    (line,) = done.lines
    assert line.startswith("healthy for ")
    assert line.endswith(": no target fails, and nothing stands out")


async def test_exit_code_1_and_the_verdict_first_where_something_is_wrong(tmp_path: Path) -> None:
    runbook = "https://runbooks.example.com/netprobe/runbook.md"
    more = f"diagnosis: {{runbook_url: '{runbook}'}}"
    async with agent(tmp_path, f"127.0.0.1:{refusing_port()}", more) as started:
        done = await explained(started.url)
        as_json = await explained(started.url, "--output", "json")
    assert (done.code, as_json.code, done.stderr, as_json.stderr) == (1, 1, "", "")
    shown = json.loads(as_json.stdout)
    (verdict,) = shown["verdicts"]
    assert verdict["targets"] == ["broker"]
    assert (shown["version"], shown["healthy"]) == (VERSION, False)
    first, empty, heading = done.lines[:3]
    assert first.startswith("1 verdict for ")
    assert empty == ""
    # Between the two answers an experiment may have made it surer.
    assert re.match(rf"{verdict['cause']} \((high|medium|low) confidence\): ", heading)
    assert "  targets   broker" in done.lines
    assert f"  runbook   {runbook}#{verdict['cause']}" in done.lines


async def test_what_is_over_is_remembered(tmp_path: Path) -> None:
    """Whoever comes when the fault has gone still learns what it was, and from when to when."""
    port = refusing_port()
    async with agent(tmp_path, f"127.0.0.1:{port}") as started:

        async def shown() -> dict[str, Any]:
            return dict(json.loads((await request(started.url + "/diagnosis")).body))

        began_at = (await shown())["verdicts"][0]["began_at"]
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
        async with server:

            async def over() -> bool:
                return bool((await shown())["recent"])

            await eventually(over, "a verdict that is over")
            done = await explained(started.url)
            (past,) = (await shown())["recent"]
    assert (past["targets"], past["began_at"]) == (["broker"], began_at)
    assert past["evidence"]
    assert past["ended_at"] > began_at
    assert done.lines[-1] == f"Over: {past['cause']} of broker, from {began_at} to {past['ended_at']}"
    assert done.code == 0


async def test_where_nothing_is_probed_nobody_waits_for_it(tmp_path: Path) -> None:
    """What the environment names was ruled out, and nothing is configured."""
    async with running(tmp_path, "discover: {deny: ['*']}\n") as started:
        done = await explained(started.url)
    assert (done.code, done.stdout) == (
        0,
        "Nothing is probed: there is no target, neither configured nor found in the environment.\n",
    )


async def test_nothing_is_known_before_the_first_result(tmp_path: Path) -> None:
    """That is no failure."""
    async with silent() as server:
        slow = f"targets: [{{name: t, type: tcp, address: '{server.address}', tls: {{}}, timeout: 60s, interval: 60s}}]"
        async with running(tmp_path, slow) as started:
            done = await explained(started.url)
    assert (done.code, done.stdout) == (0, "Nothing is known yet: no target has a result.\n")


async def test_the_environments_proxy_is_not_asked(tmp_path: Path) -> None:
    """It is for the world outside; nobody could ask the own pod through it."""
    dead = f"http://127.0.0.1:{refusing_port()}"
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"), dead)
    async with echoing() as server, agent(tmp_path, server.address) as started:
        done = await explained(started.url, **proxies)
    assert done.code == 0


@pytest.mark.parametrize("ending", ["/", "/diagnosis", "/diagnosis/", ""])
async def test_a_url_may_end_as_people_end_it(ending: str, tmp_path: Path) -> None:
    async with serving(page()) as server:
        done = await explained(server.url(ending))
    assert done.code == 1
    assert [one.target for one in server.requests] == ["/diagnosis"]


async def test_a_host_and_port_will_do() -> None:
    async with serving(page()) as server:
        assert (await explained(server.address)).code == 1


async def test_https_is_verified(certificates: Certificates) -> None:
    """Behind an ingress an agent has a name and a certificate, and what cannot be trusted is not believed."""
    async with serving(page(), tls=certificates.good.server_context()) as server:
        trusted = await explained(server.url(), SSL_CERT_FILE=str(certificates.ca_file))
        untrusted = await explained(server.url())
    assert (trusted.code, untrusted.code) == (1, 3)
    assert "got a certificate that cannot be trusted: " in untrusted.stderr


# --- what is no agent -----------------------------------------------------------------------------------------------

DEEP = b"[" * 100_000

NOT_AN_AGENT: dict[str, tuple[Callable[[], Server], str]] = {
    "closes when spoken to": (closing_when_spoken_to, "a connection that was closed too early"),
    "resets": (resetting, "an error: Connection reset by peer"),
    "echoes": (echoing, "an answer that is not HTTP"),
    "another protocol": (greeting, "an answer that is not HTTP"),
    "not found": (lambda: HttpServer(response("404 Not Found", b"no")), "HTTP status 404"),
    "no content": (lambda: HttpServer(response("204 No Content")), "HTTP status 204"),
    "broken": (lambda: HttpServer(response("503 Service Unavailable")), "HTTP status 503"),
    "elsewhere": (lambda: HttpServer(redirect("https://login.example.com/")), "HTTP status 302"),
    "broken off": (
        lambda: HttpServer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        "a connection that was closed too early",
    ),
    "HTML": (lambda: serving(b"<!doctype html><title>Welcome to nginx!</title>"), "an answer that is not JSON"),
    "empty": (lambda: serving(b""), "an answer that is not JSON"),
    "not text": (lambda: serving(b"\xff\xfe\x00garbage"), "an answer that is not JSON"),
    "deep JSON": (lambda: serving(DEEP), "an answer that is not JSON"),
    "other JSON": (lambda: serving(b'{"status": "ok"}'), "JSON that is no diagnosis"),
    "a list": (lambda: serving(b"[]"), "JSON that is no diagnosis"),
    "healthy is a word": (lambda: serving(page(healthy="yes")), "JSON that is no diagnosis"),
    "a later version": (lambda: serving(page(version=2)), "version 2 of its form, and this knows 1"),
    "a strange version": (lambda: serving(page(version="x" * 99)), f'version "{"x" * 19} of its form'),
    "no verdicts": (lambda: serving({"version": 1, "healthy": False}), "a diagnosis that lacks something"),
    "odd verdicts": (lambda: serving(page(verdicts=[1])), "a diagnosis that lacks something"),
    "odd times": (lambda: serving(page(held_seconds=float("inf"))), "a diagnosis that lacks something"),
    "too much": (lambda: serving(b" " * (ANSWER_LIMIT_BYTES + 1)), "more than 8 MiB"),
}


@pytest.mark.parametrize("what", NOT_AN_AGENT)
async def test_exit_code_3_and_one_sentence_for_what_is_no_agent(what: str) -> None:
    make, words = NOT_AN_AGENT[what]
    async with make() as server:
        done = await explained(f"http://{server.address}")
    assert (done.code, done.stdout) == (3, "")
    expected = f"netprobe: expected the diagnosis of an agent at http://{server.address}, got "
    assert done.stderr.startswith(expected)
    assert done.stderr.removeprefix(expected).startswith(words)
    assert done.stderr.count("\n") == 1


async def test_exit_code_3_where_nobody_listens() -> None:
    port = refusing_port()
    done = await explained(f"http://127.0.0.1:{port}/")
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr == (
        f"netprobe: expected the diagnosis of an agent at http://127.0.0.1:{port}, got an error: Connection refused\n"
    )


async def test_exit_code_3_where_tls_is_not_spoken() -> None:
    async with http_only() as server:
        done = await explained(f"https://{server.address}")
    assert done.code == 3
    assert "got a TLS error: " in done.stderr


ENDLESS: dict[str, Callable[[], Server]] = {
    "silent": silent,
    "byte by byte": dripping,
    "no end of headers": lambda: flooding(b"HTTP/1.1 200 OK\r\n"),
    "a body byte by byte": lambda: HttpServer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", close=False),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_nothing_is_waited_for_without_an_end(what: str) -> None:
    """No answer, or one without an end: a sentence in time, and the process is not kept by what goes on."""
    async with ENDLESS[what]() as server:
        done = await explained(f"http://{server.address}")
    assert done.code == 3
    assert done.stderr.endswith((f"got no answer within {PATIENCE_SECONDS:g} s\n", "got an answer that is not HTTP\n"))
    assert done.stderr.count("\n") == 1


# --- usage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "ftp://localhost:9733",
        "file:///etc/passwd",
        "http://",
        "",
        "http://localhost:port",
        "http://localhost:99999",
        "http://user:s3cret@localhost:9733",
        "http://localhost:9733/?x=1",
        "http://localhost:9733/#x",
        "http://local host:9733",
        "http://localhost:9733/\r\nX: y",
        "http://[::1:9733",
    ],
)
async def test_exit_code_2_for_what_is_no_url_of_an_agent(url: str) -> None:
    done = await explained(url)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.endswith("expected the URL of an agent, such as http://localhost:9733\n")
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://localhost:9733", Place(tls=False, host="localhost", port=9733, path="")),
        ("http://localhost:9733/", Place(tls=False, host="localhost", port=9733, path="")),
        ("localhost", Place(tls=False, host="localhost", port=9733, path="")),
        ("10.1.2.3:80", Place(tls=False, host="10.1.2.3", port=80, path="")),
        ("http://agents.example.com", Place(tls=False, host="agents.example.com", port=None, path="")),
        ("https://agents.example.com/pod-1/", Place(tls=True, host="agents.example.com", port=None, path="/pod-1")),
        ("https://agents.example.com/pod-1/diagnosis", Place(True, "agents.example.com", None, "/pod-1")),
        ("[::1]:9733", Place(tls=False, host="::1", port=9733, path="")),
        ("HTTP://LOCALHOST:9733", Place(tls=False, host="localhost", port=9733, path="")),
    ],
)
def test_urls_are_read_as_people_write_them(url: str, place: Place) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize("url", ["http://localhost:9733", "https://agents.example.com/pod-1", "http://[::1]:9733"])
def test_a_place_is_printed_as_it_is_written(url: str) -> None:
    assert str(place_of(url)) == url


def test_the_default_is_where_an_agent_listens_by_default() -> None:
    assert place_of(AGENT_URL) == Place(tls=False, host="localhost", port=ServerOptions().listen.port, path="")
    assert (ServerOptions().listen.port, VERSION) == (DEFAULT_PORT, explain_module.VERSION)


# --- what it prints -------------------------------------------------------------------------------------------------


async def test_the_text_has_everything_a_verdict_says() -> None:
    async with serving(page(waiting=["late-one"])) as server:
        done = await explained(server.url(), COLUMNS="100")
    assert done.lines == [
        "1 verdict for 12 seconds, since 2023-11-14T22:13:20.000Z",
        "",
        "dns_unreachable (high confidence): No nameserver answers: consistent with a policy that does not",
        "allow egress to port 53.",
        "  targets   orders-api, internal-database",
        "  evidence  - 10.96.0.10 did not answer 4 questions within 2.0 s",
        "            - orders-api: resolve/timeout",
        "  next      Ask by hand: `kubectl exec POD -c netprobe -- netprobe check dns:kubernetes.default`",
        "  runbook   docs/runbook.md#dns_unreachable",
        "",
        "No result yet: late-one",
    ]


@pytest.mark.parametrize("columns", [20, 40, 60, 100, 300])
async def test_lines_are_as_wide_as_the_terminal_and_not_wider_than_can_be_read(columns: int) -> None:
    async with serving(page()) as server:
        done = await explained(server.url(), COLUMNS=str(columns))
    assert max(len(line) for line in done.lines if "`" not in line) <= max(min(columns, 120), 40)
    # A line end inside a command would spoil it for pasting.
    assert "`kubectl exec POD -c netprobe -- netprobe check dns:kubernetes.default`" in done.stdout
    joined = " ".join(" ".join(done.stdout.split()).replace("- ", "").split())
    assert "consistent with a policy that does not allow egress to port 53." in joined


async def test_what_a_server_says_cannot_command_the_terminal() -> None:
    evil = page()
    evil["verdicts"][0] |= {"summary": "\x1b[2J\x1b]0;owned\x07 done", "targets": ["a\nb\u202e"], "advice": "\x9b1m"}
    async with serving(evil) as server:
        text = await explained(server.url())
        as_json = await explained(server.url(), "--output", "json")
    for done in (text, as_json):
        assert done.code == 1
        assert all(character.isprintable() or character == "\n" for character in done.stdout)


async def test_a_manifest_in_an_advice_keeps_its_form() -> None:
    manifest = page()
    manifest["verdicts"][0]["advice"] = "Allow it:\n  kind: NetworkPolicy\n    spec: {}\n  # end"
    async with serving(manifest) as server:
        done = await explained(server.url())
    at = done.lines.index("  next      Allow it:")
    assert done.lines[at + 1 : at + 4] == [
        "              kind: NetworkPolicy",
        "                spec: {}",
        "              # end",
    ]


async def test_plain_ascii_where_the_encoding_is_not_utf_8() -> None:
    foreign = page()
    foreign["verdicts"][0]["summary"] = "größer → als …"
    async with serving(foreign) as server:
        done = await explained(server.url(), PYTHONIOENCODING="ascii")
    assert done.code == 1
    assert done.stdout.isascii()
    assert r"gr\xf6\xdfer -> als ..." in done.stdout


async def test_experiments_are_counted_and_their_absence_is_said() -> None:
    asked = {"question": {"kind": "connect"}, "answer": {}, "targets": [], "started_at": ""}
    async with serving(page(experiments=[asked, asked])) as server:
        some = await explained(server.url())
    async with serving(page(budget=None)) as server:
        off = await explained(server.url())
    assert some.lines[-1] == "It rests on 2 experiments beside the outcomes; the JSON form has them."
    assert off.lines[-1] == "Experiments are switched off (diagnosis.experiments)."


async def test_it_asks_once_and_says_who_it_is() -> None:
    seen: list[Received] = []

    def answer(received: Received) -> bytes:
        seen.append(received)
        return response(body=json.dumps(page()).encode())

    async with HttpServer(answer) as server:
        await explained(server.url())
    (received,) = seen
    assert (received.method, received.target) == ("GET", "/diagnosis")
    assert received.headers["user-agent"].startswith("netprobe/")


async def test_it_loads_only_what_it_needs() -> None:
    """It is typed where CPU is short."""
    async with serving(page()) as server:
        done = await explained(server.url(), PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "agent.explain" in loaded
    assert not loaded & {"aiohttp", "prometheus_client", "structlog", "rich", "yaml", "voluptuous", "agent.diagnosis"}
