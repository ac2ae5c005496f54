"""Ending with the task, in real PID namespaces: processes are real, and so is what one user may read of another's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.airflow import task_container
from agent.airflow.task_container import _AIRFLOWS
from tests.lab.agents import Running
from tests.lab.command import COMMAND, environment
from tests.lab.http_client import request
from tests.lab.pid_namespace import PidNamespace, pid_namespace

TOKEN = "eyJhbGciOi-the-token-of-the-task"
TASKS_USER = 50000
"""Another one than the agent's, which has no privileges either."""
WAITS = "echo up; cat >/dev/null"
"""Runs until its standard input is closed."""
AIRFLOW_3 = (
    "python",
    "-m",
    "airflow.sdk.execution_time.execute_workload",
    "--json-string",
    json.dumps({"token": TOKEN}),
)
AIRFLOW_2 = ("airflow", "tasks", "run", "etl", "load", "manual__1", "--local", "--subdir", "DAGS_FOLDER/etl.py")
NOT_AIRFLOW = ("pilot-agent", "proxy", "sidecar")


@pytest.fixture
def pod() -> Iterator[PidNamespace]:
    with pid_namespace() as namespace:
        yield namespace


def container(pod: PidNamespace, arguments: tuple[str, ...], script: str = WAITS) -> subprocess.Popen[bytes]:
    """Start a container, and wait until its process runs."""
    process = pod.start("sh", "-c", script, *arguments, user=TASKS_USER)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def first_of(container: subprocess.Popen[bytes]) -> int:
    """A container's first process, as the machine numbers it: the child of the one that waits for it."""
    (child,) = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text("ascii").split()
    return int(child)


@asynccontextmanager
async def sidecar(pod: PidNamespace, tmp_path: Path) -> AsyncIterator[Running]:
    """The agent in a container of its own, once it serves."""
    file = tmp_path / "netprobe.yaml"
    file.write_text("targets: [{name: t, type: tcp, address: '127.0.0.1:1'}]\n")
    command = (*COMMAND, "run", "--end-with-task", "--config", str(file), "--listen", "127.0.0.1:0")
    process = await asyncio.create_subprocess_exec(
        *pod.command(*command),
        env=environment(),
        cwd="/",
        stderr=asyncio.subprocess.PIPE,
    )
    agent = Running(process)
    try:
        agent.url = (await agent.event("agent_started"))["url"]
        yield agent
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await agent.close()


@pytest.mark.parametrize("arguments", [AIRFLOW_3, AIRFLOW_2], ids=["airflow 3", "airflow 2"])
async def test_it_ends_with_the_tasks_container(pod: PidNamespace, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """And with no other, nor before; and the token that stands in the task's command line is nowhere in its log."""
    mesh = container(pod, NOT_AIRFLOW)
    base = container(pod, arguments)
    async with sidecar(pod, tmp_path) as agent:
        await agent.event("task_container_found", airflows=True)
        assert (await request(agent.url + "/healthz")).status == 200
        assert base.stdin is not None
        base.stdin.close()
        assert await agent.ended() == 0
    assert mesh.poll() is None
    names = [event["event"] for event in agent.events]
    assert names.index("task_container_ended") < names.index("agent_stopping") < names.index("agent_stopped")
    assert TOKEN not in agent.text
    assert "execute_workload" not in agent.text
    assert "DAGS_FOLDER" not in agent.text


async def test_it_waits_for_the_tasks_container(pod: PidNamespace, tmp_path: Path) -> None:
    """It may come after the sidecar, and what another container does is no task's end."""
    mesh = container(pod, NOT_AIRFLOW)
    async with sidecar(pod, tmp_path) as agent:
        base = container(pod, AIRFLOW_2)
        await agent.event("task_container_found", airflows=True)
        assert mesh.stdin is not None
        mesh.stdin.close()
        await asyncio.to_thread(mesh.wait)
        assert (await request(agent.url + "/healthz")).status == 200
        assert base.stdin is not None
        base.stdin.close()
        assert await agent.ended() == 0


async def test_children_of_the_task_that_go_on_do_not_hold_the_pod(pod: PidNamespace, tmp_path: Path) -> None:
    """A container has ended when its first process has; what that left behind is the runtime's to kill."""
    base = container(pod, AIRFLOW_3, f"sleep 300 >/dev/null & {WAITS}")
    async with sidecar(pod, tmp_path) as agent:
        await agent.event("task_container_found", airflows=True)
        assert base.stdin is not None
        base.stdin.close()
        assert await agent.ended() == 0


async def test_it_ends_with_the_tasks_container_when_that_is_killed(pod: PidNamespace, tmp_path: Path) -> None:
    """Memory is what tasks run out of."""
    base = container(pod, AIRFLOW_3)
    first = first_of(base)
    async with sidecar(pod, tmp_path) as agent:
        await agent.event("task_container_found", airflows=True)
        os.kill(first, signal.SIGKILL)
        assert await agent.ended() == 0


async def test_where_nothing_is_airflows_the_first_container_is_the_tasks(pod: PidNamespace, tmp_path: Path) -> None:
    """Pods of KubernetesPodOperator run whatever they were told to."""
    base = container(pod, ("spark-submit",))
    container(pod, NOT_AIRFLOW)
    async with sidecar(pod, tmp_path) as agent:
        await agent.event("task_container_found", airflows=False)
        assert base.stdin is not None
        base.stdin.close()
        assert await agent.ended() == 0


async def test_a_container_that_nobody_sees_has_ended_before(pod: PidNamespace, tmp_path: Path) -> None:
    """A pod must not wait for ever for a sidecar that waits for a task that is over."""
    script = (
        "import asyncio, logging, sys\n"
        "from agent.airflow import task_container as t\n"
        "asyncio.run(t.ended(t.TaskContainer(), patience_seconds=0.5))\n"
    )
    command = pod.command(sys.executable, "-c", script)
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment(), cwd="/", capture_output=True, text=True, timeout=60, check=True
    )
    assert "task_container_missing" in done.stdout
    assert task_container.PATIENCE_SECONDS == 60.0


async def test_without_a_shared_namespace_it_says_so_once_and_waits_to_be_told(tmp_path: Path) -> None:
    """A container that is alone sees itself as process 1."""
    file = tmp_path / "netprobe.yaml"
    file.write_text("targets: [{name: t, type: tcp, address: '127.0.0.1:1'}]\n")
    command = (*COMMAND, "run", "--end-with-task", "--config", str(file), "--listen", "127.0.0.1:0")
    process = await asyncio.create_subprocess_exec(
        "unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *command,
        env=environment(), cwd="/", stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    agent = Running(process)
    try:
        url = (await agent.event("agent_started"))["url"]
        event = await agent.event("task_container_invisible")
        assert "POST /quitquitquit" in event["detail"]
        assert (await request(url + "/quitquitquit", method="POST")).status == 200
        assert await agent.ended() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await agent.close()
    assert agent.text.count("task_container_invisible") == 1


@pytest.mark.parametrize(
    ("command", "airflows"),
    [
        (b"python\0-m\0airflow.sdk.execution_time.execute_workload\0--json-string\0{}\0", True),
        (b"/usr/bin/python3\0/home/airflow/.local/bin/airflow\0tasks\0run\0a\0b\0c\0--local\0", True),
        (b"airflow\0tasks\0run\0a\0b\0c\0", True),
        (b"bash\0-c\0exec airflow tasks run a b c\0", True),
        (b"airflow supervisor: 0192f0b6-1c1e-7a3b\0\0\0", True),
        (b"airflow worker -- 0192f0b6-1c1e-7a3b", True),
        (b"airflow task runner: etl load manual__1 17", True),
        (b"/usr/bin/dumb-init\0--\0/entrypoint\0airflow\0tasks\0run\0a\0", True),
        (b"", False),
        (b"/pause\0", False),
        (b"git-sync\0--repo\0https://example.com/airflow/dags.git\0", False),
        (b"airflow\0kerberos\0", False),
        (b"python\0-m\0agent\0run\0--end-with-task\0", False),
        (b"vector\0--config\0/etc/airflow tasks.yaml\0", False),
        (b"notairflow\0tasks\0run\0", False),
    ],
)
def test_which_command_lines_are_airflows(command: bytes, airflows: bool) -> None:  # noqa: FBT001
    assert (_AIRFLOWS.search(command) is not None) is airflows
