"""The kubelet's start-up probe has an answer before the agent is loaded, unless there may be a start gate."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.early import answering, undecided
from tests.lab.agents import eventually
from tests.lab.command import started
from tests.lab.http_client import Answer, request

TARGET = "targets: [{name: nobody, type: tcp, address: '127.0.0.1:1', negative: true"
EARLY = "starting\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def ask(port: int, path: str) -> Answer | None:
    try:
        return await request(f"http://127.0.0.1:{port}{path}")
    except OSError:
        return None


@asynccontextmanager
async def answers_of_a_start(directory: Path, configuration: str) -> AsyncIterator[list[Answer]]:
    """Everything an agent answers to `/metrics`, from its first answer to its first metrics."""
    path = directory / "netprobe.yaml"
    path.write_text(configuration)
    port = free_port()
    seen: list[Answer] = []

    async def metrics() -> bool:
        answer = await ask(port, "/metrics")
        if answer is not None:
            seen.append(answer)
        return answer is not None and answer.status == 200

    command = ("run", "--fail-open", "--config", str(path), "--listen", f"127.0.0.1:{port}")
    async with started(*command) as process:
        await eventually(metrics, "metrics")
        yield seen
        process.terminate()
        assert await process.wait() == 0


async def test_nobody_waits_for_the_agent_to_be_loaded(tmp_path: Path) -> None:
    """Long before there are metrics somebody says so, and lets the pod start."""
    async with answers_of_a_start(tmp_path, f"{TARGET}}}]\n") as seen:
        assert (seen[0].status, seen[0].text) == (503, EARLY)


@pytest.mark.parametrize("gate", [f"{TARGET}, gate: true}}]\n", f"gate: {{roles: [custom]}}\n{TARGET}}}]\n"])
async def test_a_gate_is_not_opened_early(tmp_path: Path, gate: str) -> None:
    """Where there may be a start gate, nobody answers before the agent itself."""
    async with answers_of_a_start(tmp_path, gate) as seen:
        assert [answer.status for answer in seen] == [200]


async def test_what_is_answered_and_what_is_left_behind() -> None:
    """The kubelet's questions are answered, whoever is silent meanwhile; afterwards the port is free."""
    port = free_port()
    with answering("127.0.0.1", port):
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        answers = {path: await ask(port, path) for path in ("/startupz", "/healthz", "/readyz", "/metrics")}
        silent.close()
        await silent.wait_closed()

    assert {path: answer.status for path, answer in answers.items() if answer} == {
        "/startupz": 200,
        "/healthz": 200,
        "/readyz": 503,
        "/metrics": 503,
    }
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_port_that_is_taken_is_left_to_the_agent() -> None:
    """Who cannot listen says nothing: the agent will find out, and say why."""
    with socket.create_server(("127.0.0.1", 0)) as taken, answering("127.0.0.1", taken.getsockname()[1]):
        assert taken.fileno() >= 0


@pytest.mark.parametrize(
    "text",
    [
        f"{TARGET}, gate: true}}]\n",
        "gate: {mode: closed}\n",
        '"g\\x61te": {mode: closed}\n',
        "server: {listen: '127.0.0.1:9000'}\n",
        "one: &one {a: b}\ntwo: {<<: *one}\n",
        "targets:\n" + "# long\n" * 200_000,
    ],
)
def test_what_may_configure_a_gate(tmp_path: Path, text: str) -> None:
    """Rather too much is taken for a gate than too little; a directory is as undecided as any of its files."""
    (tmp_path / "10-targets.yaml").write_text(f"{TARGET}}}]\n")
    assert not undecided(tmp_path)
    (tmp_path / "20-more.yaml").write_text(text)
    assert undecided(tmp_path)
    assert undecided(tmp_path / "20-more.yaml")


def test_what_configures_nothing(tmp_path: Path) -> None:
    """Nothing to read, nothing to wait for."""
    assert not undecided(None)
    assert not undecided(tmp_path)
    assert not undecided(tmp_path / "missing.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    assert not undecided(tmp_path)
    assert not undecided(tmp_path / "pipe.yaml")
