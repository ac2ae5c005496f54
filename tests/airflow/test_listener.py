"""The plugin that writes verdicts into task logs, in real Airflow, beside real agents and things that are none."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.diagnosis import Cause, Confidence, Diagnosis, Past, Verdict
from agent.diagnosis.document import document
from agent.sinks import refresh
from tests.airflow.installed import VERSIONS, airflow_python
from tests.lab.agents import Running, eventually, running
from tests.lab.command import REPOSITORY, environment
from tests.lab.http_client import request
from tests.lab.http_servers import HttpServer, Received, response
from tests.lab.misbehaving import (
    Server,
    closing_when_spoken_to,
    dripping,
    echoing,
    flooding,
    greeting,
    refusing_port,
    resetting,
    silent,
)

HERE = Path(__file__).resolve().parent
AIRFLOW = REPOSITORY / "deploy" / "airflow"
PLUGIN = AIRFLOW / "plugins" / "netprobe_listener.py"
WRITTEN_BYTES = 8192
"""Of a task's log, at most."""

Record = tuple[str, str]
"""Level and text."""


def airflow_environment(home: Path, dags: Path) -> dict[str, str]:
    """An Airflow of the test's own, with the plugin in it."""
    return environment(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__DAGS_FOLDER=str(dags),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__PLUGINS_FOLDER=str(PLUGIN.parent),
        AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
    )


@dataclass(frozen=True)
class Ended:
    """How a task ended, and what the plugin logged of it."""

    state: str
    records: tuple[Record, ...]

    @property
    def shown(self) -> list[Record]:
        """What is in a log of Airflow's default level, less what ends a group of lines."""
        return [r for r in self.records if r[0] != "DEBUG" and r != ("INFO", "::endgroup::")]


class Worker:
    """A process of Airflow that runs tasks."""

    def __init__(self, version: str, home: Path) -> None:
        self.version = version
        with (home / "worker.log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(airflow_python(version)), str(HERE / "worker.py")],
                env=airflow_environment(home, HERE / "dags"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def earliest(self) -> str:
        """What is known first of a task. Airflow 2 does not say when one started that no scheduler has queued."""
        return "failed" if self.version == "2.11" else "started"

    async def ask(self, do: str, url: str, environ: Mapping[str, str] | None = None, **arguments: Any) -> Any:
        """Have something done while the netprobe at this URL is the one to ask."""
        what = {"do": do, "environ": {"NETPROBE_URL": url, **(environ or {})}, **arguments}
        return await asyncio.to_thread(self._exchange, json.dumps(what))

    def _exchange(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    async def run(self, dag: str, url: str, **environ: str) -> Ended:
        """One task."""
        answer = await self.ask("run", url, environ, dag=dag)
        return Ended(answer["state"], tuple((level, text) for level, text in answer["records"]))

    def kill(self) -> None:
        """As the kernel does where memory is short."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture(scope="module", params=VERSIONS)
def worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    started = Worker(request.param, tmp_path_factory.mktemp(f"airflow-{request.param}"))
    yield started
    started.close()


# --- beside an agent ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def agent(directory: Path, address: str) -> AsyncIterator[Running]:
    """An agent that watches one server, once it has a diagnosis that its experiments are through with."""
    configuration = f"""
defaults: {{interval: 1s, timeout: 500ms}}
targets: [{{name: broker, type: tcp, address: "{address}"}}]
"""
    async with running(directory, configuration) as started:

        async def diagnosed() -> bool:
            shown = await diagnosis(started)
            return bool(shown["since"]) and all(v["confidence"] == "high" for v in shown["verdicts"])

        await eventually(diagnosed, "a diagnosis")
        yield started


async def diagnosis(agent: Running) -> dict[str, Any]:
    return dict(json.loads((await request(agent.url + "/diagnosis")).body))


async def test_the_verdict_is_in_the_log_of_a_task_that_failed(worker: Worker, tmp_path: Path) -> None:
    """Cause, confidence, sentence first, in one record; then when it was, whom it concerns, why and what to do."""
    async with agent(tmp_path, f"127.0.0.1:{refusing_port()}") as started:
        (verdict,) = (await diagnosis(started))["verdicts"]
        ended = await worker.run("fails", started.url)
        exited = await worker.run("exits", started.url)
    assert (ended.state, exited.state) == ("failed", "failed")
    assert len(exited.shown) == 1
    ((level, text),) = ended.shown
    assert level == "ERROR"
    first, when, *others = text.splitlines()
    assert first == f"netprobe: nothing_listening (high confidence): {verdict['summary']}"
    assert re.fullmatch(rf"  when      began \d+ s before the task {worker.earliest}", when)
    assert others[0] == "  targets   broker"
    assert others[1].startswith("  evidence  - ")
    assert f"  next      {verdict['advice'].splitlines()[0]}" in others
    assert others[-1] == "  runbook   docs/runbook.md#nothing_listening"


async def test_nothing_of_it_where_all_is_well(worker: Worker, tmp_path: Path) -> None:
    """One line for those who debug."""
    async with echoing() as server, agent(tmp_path, server.address) as started:
        failed = await worker.run("fails", started.url)
        # The agent takes what it is told of tasks, or there would be a line about that.
        succeeded = await worker.run("succeeds", started.url)
    assert (failed.state, succeeded.state) == ("failed", "success")
    assert (failed.records, succeeded.records) == ((("DEBUG", "netprobe: nothing is wrong"),), ())


async def test_what_was_over_before_the_task_failed_is_told_as_such(worker: Worker, tmp_path: Path) -> None:
    """The fault that made it fail need not wait for the failure."""
    port = refusing_port()
    async with agent(tmp_path, f"127.0.0.1:{port}") as started:
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):

            async def over() -> bool:
                return bool((await diagnosis(started))["recent"])

            await eventually(over, "a verdict that is over")
            past = page((), recent=[(await diagnosis(started))["recent"][0]])
        # The task ran then: the agent of this answer is quoted, with a time that no test has to wait for.
        past["recent"][0] |= {"ended_at": "2038-01-19T03:14:07.000Z"}
    async with serving(past) as server:
        ended = await worker.run("fails", server.url(""))
    ((level, text),) = ended.shown
    assert level == "WARNING"
    assert text.startswith("netprobe: nothing_listening (high confidence, over by now): ")
    assert re.search(
        rf"\n  when      began \d+ s before the task {worker.earliest}, was over \d+ s before it failed\n", text
    )


async def test_a_fault_younger_than_the_last_round_is_found(worker: Worker, tmp_path: Path) -> None:
    """A refused connection fails a task at once, and the next round may be a minute away: it is not waited for."""
    seldom = "defaults: {{interval: 1h}}\ntargets: [{{name: broker, type: tcp, address: '{address}'}}]"
    async with echoing() as server:
        configuration = seldom.format(address=server.address)
        async with running(tmp_path, configuration) as started:

            async def old() -> bool:
                shown = await diagnosis(started)
                return bool(shown["since"]) and shown["held_seconds"] > refresh.NEW_SECONDS

            await eventually(old, "a first result, some time ago")
            await server.__aexit__(None, None, None)
            ended = await worker.run("fails", started.url)
            (verdict,) = (await diagnosis(started))["verdicts"]
    assert (verdict["cause"], verdict["targets"]) == ("nothing_listening", ["broker"])
    ((level, text),) = ended.shown
    assert level in {"ERROR", "WARNING"}
    assert text.startswith("netprobe: nothing_listening (")


async def test_without_an_agent_there_is_not_a_word(worker: Worker) -> None:
    """Most pods have none, and their owners want to hear nothing of it, not even when they debug."""
    nobody = f"http://127.0.0.1:{refusing_port()}"
    ends = {dag: await worker.run(dag, nobody) for dag in ("fails", "exits", "skips", "succeeds")}
    assert {dag: ended.state for dag, ended in ends.items()} == {
        "fails": "failed",
        "exits": "failed",
        "skips": "skipped",
        "succeeds": "success",
    }
    assert [ended.records for ended in ends.values()] == [()] * 4


# --- beside something else ------------------------------------------------------------------------------------------


def verdict(**changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "cause": Cause.DNS_UNREACHABLE,
        "confidence": Confidence.HIGH,
        "targets": ("orders-api", "warehouse"),
        "summary": "No nameserver answers.",
        "evidence": ("10.96.0.10 did not answer 4 questions", "orders-api: resolve/timeout"),
        "advice": "Apply this:\n  apiVersion: v1\n  kind: ConfigMap",
    }
    return Verdict(**values | changes)


def page(verdicts: Sequence[Verdict] = (), **changes: Any) -> dict[str, Any]:
    """What an agent answers."""
    began = dict.fromkeys(verdicts, 1_700_000_000.0)
    whole = document(
        Diagnosis(tuple(verdicts)),
        since=1_700_000_000.0,
        held_seconds=12.0,
        waiting=(),
        experiments=(),
        budget=None,
        began_at=began,
    )
    return whole | changes


def serving(answer: Mapping[str, Any] | bytes) -> HttpServer:
    """Something that answers like this, whatever it is asked."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return HttpServer(response(body=body, headers={"Content-Type": "application/json"}))


GARBAGE: dict[str, Callable[[], Server]] = {
    "closes when spoken to": closing_when_spoken_to,
    "resets": resetting,
    "echoes": echoing,
    "another protocol": greeting,
    "not found": lambda: HttpServer(response("404 Not Found", b"no")),
    "broken": lambda: HttpServer(response("503 Service Unavailable", json.dumps(page([verdict()])).encode())),
    "no JSON": lambda: serving(b"<!doctype html><title>Welcome to nginx!</title>"),
    "not text": lambda: serving(b"\xff\xfe\x00garbage"),
    "deep JSON": lambda: serving(b"[" * 100_000),
    "a list": lambda: serving(b"[]"),
    "a number": lambda: serving(b"1e999"),
    "no verdicts": lambda: serving({"version": 1, "healthy": False}),
    "odd verdicts": lambda: serving(page() | {"verdicts": [1]}),
    "odd texts": lambda: serving(page() | {"verdicts": [dict.fromkeys(("cause", "confidence", "summary"), 3)]}),
    "odd times": lambda: serving(page([verdict()]) | {"recent": [{"ended_at": "yesterday", "cause": "slow"}]}),
    "broken off": lambda: HttpServer(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"verdicts": [], '),
    "too much": lambda: serving(b" " * (2 << 20)),
    "an endless answer": lambda: flooding(b"HTTP/1.1 200 OK\r\n"),
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_what_is_no_agent_changes_nothing(what: str, worker: Worker) -> None:
    async with GARBAGE[what]() as server:
        ended = await worker.run("fails", f"http://{server.address}")
    assert ended.state == "failed"
    assert ended.shown == []
    assert all(len(text) < 500 for _, text in ended.records)


KUBERNETES = {"AIRFLOW_IS_K8S_EXECUTOR_POD": "True"}

ENDLESS: dict[str, Callable[[], Server]] = {
    "silent": silent,
    "byte by byte": dripping,
    "a body byte by byte": lambda: HttpServer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", close=False),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_nobody_is_waited_for_without_an_end(what: str, worker: Worker) -> None:
    """A netprobe that is stuck, or starved, or stopped: two seconds, whatever it does meanwhile."""
    async with ENDLESS[what]() as server:
        ended = await worker.run("fails", f"http://{server.address}", **KUBERNETES)
    assert (ended.state, ended.shown) == ("failed", [])
    assert len(ended.records) == 1


async def test_nobody_is_waited_for_by_a_task_that_succeeds(worker: Worker) -> None:
    async with silent() as server:
        ended = await worker.run("succeeds", f"http://{server.address}")
    assert (ended.state, ended.shown) == ("success", [])


async def test_a_log_obeys_nobody(worker: Worker) -> None:
    """What servers say may end up in a sentence: no line of its own, no escape sequence, no group of lines."""
    evil = verdict(
        summary="\x1b[2J\x1b]0;owned\x07 first\nERROR - second\r::endgroup::",
        targets=("a\nb\u202e", "::group::x"),
        evidence=("\x9b1m\ud800", "##[group]hidden", "::gr::group::oup::hidden"),
        advice="one\n  two\x00\n\x0bthree",
    )
    async with serving(page([evil])) as server:
        ((_, text),) = (await worker.run("fails", server.url(""))).shown
    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    assert "group" not in text
    assert [line[:10].strip() for line in lines] == [
        "netprobe:",
        "when",
        "targets",
        "evidence",
        "",
        "",
        "next",
        *[""] * (len(lines) - 8),
        "runbook",
    ]


async def test_a_log_is_not_flooded(worker: Worker) -> None:
    """However much a diagnosis says, the task's own lines are still found."""
    long = "word " * 5_000
    many = [
        verdict(cause=cause, summary=long, targets=("t" * 1000,) * 30, evidence=(long,) * 3, advice="line\n" * 5000)
        for cause in (Cause.NO_ROUTE, Cause.SLOW, Cause.UNKNOWN, Cause.FLAPPING)
    ]
    async with serving(page(many)) as server:
        ended = await worker.run("fails", server.url(""))
    assert ended.state == "failed"
    assert ended.shown[0][1].startswith("netprobe: no_route (high confidence): word word")
    assert sum(len(text.encode()) for _, text in ended.shown) <= WRITTEN_BYTES


async def test_every_verdict_is_written_with_its_level(worker: Worker) -> None:
    """What is over, or only one explanation among several, is a warning; what is over and explained is left out."""
    verdicts = [
        verdict(),
        verdict(cause=Cause.SLOW, confidence=Confidence.LOW, targets=("broker",)),
        verdict(cause=Cause.NETWORK_NOT_READY, targets=("a", "b")),
    ]
    past = [
        Past(verdict=verdict(cause=cause), began_at=1_700_000_000.0, ended_at=ended_at)
        for cause, ended_at in ((Cause.DNS_UNREACHABLE, 4e9), (Cause.NO_ROUTE, 4e9), (Cause.FLAPPING, 1_700_000_060.0))
    ]
    shown = page(verdicts) | {
        "recent": document(Diagnosis(), since=0, held_seconds=0, waiting=(), experiments=(), budget=None, recent=past)[
            "recent"
        ]
    }
    async with serving(shown) as server:
        ended = await worker.run("fails", server.url(""))
    assert [(level, text.split(": ")[1]) for level, text in ended.shown] == [
        ("ERROR", "dns_unreachable (high confidence)"),
        ("WARNING", "slow (low confidence)"),
        ("WARNING", "network_not_ready (high confidence)"),
        ("WARNING", "no_route (high confidence, over by now)"),
        # Nobody says that the task started after it.
        *([("WARNING", "flapping (high confidence, over by now)")] if worker.earliest == "failed" else []),
    ]


# --- what is asked and told -----------------------------------------------------------------------------------------


def asked(server: HttpServer) -> list[str]:
    return [f"{one.method} {one.target}" for one in server.requests]


async def test_where_the_pod_says_which_task_runs_nobody_is_told(worker: Worker) -> None:
    """A pod of KubernetesExecutor: netprobe is asked when the task fails, and not when it does not."""
    async with serving(page()) as server:
        await worker.run("succeeds", server.url(""), **KUBERNETES)
        await worker.run("skips", server.url(""), **KUBERNETES)
        assert asked(server) == []
        await worker.run("fails", server.url(""), **KUBERNETES)
        assert asked(server) == ["GET /diagnosis", "POST /refresh", "GET /diagnosis"]


async def test_elsewhere_netprobe_is_told_which_task_runs(worker: Worker) -> None:
    """A Celery worker: its pod says nothing of tasks."""
    async with serving(page()) as server:
        await worker.run("succeeds", server.url(""))
        await worker.run("fails", server.url(""))
    told = [json.loads(one.body) for one in server.requests if one.target == "/task"]
    assert [(one.pop("state"), one["dag_id"]) for one in told] == [
        ("running", "succeeds"),
        ("ended", "succeeds"),
        ("running", "fails"),
        ("ended", "fails"),
    ]
    assert told[2] == told[3]
    run_id = told[2].pop("run_id")
    assert told[2] == {"dag_id": "fails", "task_id": "work", "try_number": 1, "map_index": -1}
    assert run_id.startswith("manual__")


async def test_what_began_while_the_task_ran_is_not_looked_at_again(worker: Worker) -> None:
    """It is answer enough. What was so before the task may have nothing to do with it."""
    young = page([verdict()])
    young["verdicts"][0] |= {"began_at": "2038-01-19T03:14:07.000Z"}
    old = page([verdict()])
    for shown, looks in ((young, False), (old, worker.earliest == "started")):
        async with serving(shown) as server:
            await worker.run("fails", server.url(""), **KUBERNETES)
        assert ("POST /refresh" in asked(server)) is looks


async def test_an_agent_that_cannot_look_again_is_quoted_as_it_is(worker: Worker) -> None:
    """One of an earlier version, or one that takes too long over it."""
    body = json.dumps(page([verdict()])).encode()

    def reply(what: Received) -> bytes:
        return response(body=body) if what.target == "/diagnosis" else response("404 Not Found")

    async with HttpServer(reply) as server:
        ended = await worker.run("fails", server.url(""), **KUBERNETES)
    assert [text.split(" ")[1] for _, text in ended.shown] == ["dns_unreachable"]


async def test_a_netprobe_that_does_not_say_what_is_wrong_is_told_to_end_all_the_same(worker: Worker) -> None:
    """A pod that waits for its sidecar would never end."""

    def reply(what: Received) -> bytes:
        return response(body=b"ok") if what.target == "/quitquitquit" else response("503 Service Unavailable")

    async with HttpServer(reply) as server:
        await worker.run("fails", server.url(""), NETPROBE_QUIT_WITH_TASK="true", **KUBERNETES)
    assert asked(server) == ["GET /diagnosis", "POST /quitquitquit"]


@pytest.mark.parametrize("dag", ["fails", "succeeds"])
async def test_netprobe_is_told_to_end_where_that_is_asked_for(dag: str, worker: Worker) -> None:
    """And last: whatever else is to be known has been asked by then."""
    async with serving(page()) as server:
        await worker.run(dag, server.url(""), NETPROBE_QUIT_WITH_TASK="true", **KUBERNETES)
        assert asked(server)[-1] == "POST /quitquitquit"
        server.requests.clear()
        await worker.run(dag, server.url(""), NETPROBE_QUIT_WITH_TASK="false", **KUBERNETES)
        assert "POST /quitquitquit" not in asked(server)


@pytest.mark.parametrize("version", VERSIONS)
async def test_netprobe_ends_with_a_task_that_is_killed(version: str, tmp_path: Path) -> None:
    """Of one that is out of memory, or deferred, no hook tells. Its pod would go on for good."""
    async with echoing() as server, agent(tmp_path, server.address) as started:
        worker = Worker(version, tmp_path)
        running_task = asyncio.create_task(worker.run("works_on", started.url, NETPROBE_QUIT_WITH_TASK="true"))

        async def under_way() -> bool:
            return bool((await diagnosis(started))["tasks"])

        try:
            await eventually(under_way, "a task")
        finally:
            worker.kill()
        assert await started.ended() == 0
        with pytest.raises(json.JSONDecodeError):
            await running_task
        worker.close()


async def test_the_environments_proxy_is_not_asked(worker: Worker) -> None:
    dead = f"http://127.0.0.1:{refusing_port()}"
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"), dead)
    async with serving(page([verdict()])) as server:
        ended = await worker.run("fails", server.url(""), **proxies)
    assert len(ended.shown) == 1


@pytest.mark.parametrize(
    "url", ["http://netprobe.example.com:9733", "https://127.0.0.1:9733", "nonsense", "http://[::1"]
)
async def test_no_name_is_looked_up_and_nothing_else_is_tried(url: str, worker: Worker) -> None:
    ended = await worker.run("fails", url)
    assert (ended.state, ended.shown) == ("failed", [])
    assert ended.records[-1] == (
        "DEBUG",
        "netprobe's verdict is not known: ValueError: NETPROBE_URL: expected something like http://127.0.0.1:9733",
    )


async def test_servers_of_airflow_ask_nobody(worker: Worker) -> None:
    """The scheduler and the API server call the same hooks, and their network is another one."""
    async with serving(page([verdict()])) as server:
        answer = await worker.ask("elsewhere", server.url(""))
        assert (answer["records"], server.requests) == ([], [])
        # The same call does ask where there is nothing but the task.
        answer = await worker.ask("elsewhere", server.url(""), KUBERNETES)
    assert "GET /diagnosis" in asked(server)


@pytest.mark.parametrize(
    "more",
    [["session"], ["error", "session"], ["error"]],
    ids=["2.7 to 2.9", "2.10 and 2.11", "3"],
)
async def test_every_signature_of_the_hooks_is_served(more: list[str], worker: Worker) -> None:
    """What a hook is given differs between versions; what the plugin takes is what all of them give."""
    async with serving(page([verdict()])) as server:
        answer = await worker.ask("signature", server.url(""), arguments=["previous_state", "task_instance", *more])
    assert [level for level, text in answer["records"] if text.startswith("netprobe: dns_unreachable")] == ["ERROR"]


# --- the file -------------------------------------------------------------------------------------------------------


async def test_airflow_pays_nothing_for_its_import(worker: Worker) -> None:
    """Every process of Airflow reads its plugins: this one brings in nothing that is not there."""
    answer = await worker.ask("imported", "http://127.0.0.1:1")
    assert answer["modules"] == []


def test_it_is_one_file_of_the_standard_library_for_the_oldest_python_of_airflow() -> None:
    tree = ast.parse(PLUGIN.read_text("utf-8"), feature_version=(3, 8))
    found = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert found - sys.stdlib_module_names == {"airflow"}


def test_numbers_of_the_document_are_those_of_the_code() -> None:
    """Each of them stands in a sentence of docs/task-log.md: whoever changes one has to read it."""
    tree = ast.parse(PLUGIN.read_text("utf-8"))
    numbers = {
        target.id: eval(compile(ast.Expression(node.value), PLUGIN.name, "eval"))
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.endswith(("_SECONDS", "_BYTES"))
    }
    assert (numbers["PATIENCE_SECONDS"], numbers["TELLING_SECONDS"]) == (2.0, 0.5)
    assert numbers["WRITTEN_BYTES"] == WRITTEN_BYTES
    assert (refresh.PATIENCE_SECONDS, refresh.SPACING_SECONDS) == (1.2, 10.0)
    # Whoever waits for a second look has the time to read what it has found.
    assert (
        numbers["PATIENCE_SECONDS"] - numbers["READING_SECONDS"] - numbers["ENDING_SECONDS"]
    ) > refresh.PATIENCE_SECONDS
