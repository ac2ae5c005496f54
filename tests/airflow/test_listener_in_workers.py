"""The plugin in the very command of a worker pod: what lies in the log file of the task afterwards, and its state."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.airflow.installed import VERSIONS, airflow_python
from tests.airflow.test_listener import HERE, agent, airflow_environment, diagnosis
from tests.lab.agents import eventually
from tests.lab.misbehaving import refusing_port, silent

PATIENCE_SECONDS = 100.0
RUNS = ("broken", "terminated")


class Airflow:
    """Queued tasks, and what their workers talk to."""

    def __init__(self, version: str, home: Path) -> None:
        self.version = version
        self.home = home
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        python = airflow_python(version)
        self.environment = {
            **airflow_environment(home, HERE / "dags"),
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "AIRFLOW_IS_K8S_EXECUTOR_POD": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self._port}/execution/",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test alone, as long as its algorithm wants: sixty-four",
            "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": "86400",
        }
        seeded = subprocess.run(
            [python, HERE / "seed.py"],
            env=self.environment,
            input=json.dumps(RUNS),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert seeded.returncode == 0, seeded.stderr
        self._jobs = json.loads(seeded.stdout.splitlines()[-1])
        self._server: subprocess.Popen[bytes] | None = None
        if version.startswith("3."):
            where = ("--host", "127.0.0.1", "--port", str(self._port))
            with (home / "api-server.log").open("wb") as log:
                self._server = subprocess.Popen(
                    [python, "-m", "airflow", "api-server", "--apps", "execution", "--workers", "1", *where],
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    async def serving(self) -> None:
        """Wait until the execution API answers, where there is one."""

        async def listens() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                return False
            writer.close()
            return True

        if self._server is not None:
            await eventually(listens, "the execution API to listen")

    async def start(self, dag: str, run: str, url: str) -> asyncio.subprocess.Process:
        """A worker, as KubernetesExecutor starts it."""
        await self.serving()
        return await asyncio.create_subprocess_exec(
            *self._jobs[run][dag]["args"],
            env={**self.environment, "NETPROBE_URL": url},
            cwd=self.home,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    def log(self, dag: str, run: str) -> str:
        return (self.home / f"logs/dag_id={dag}/run_id={run}/task_id=work/attempt=1.log").read_text("utf-8")

    def state(self, dag: str, run: str) -> str:
        question = "SELECT state FROM task_instance WHERE dag_id = ? AND run_id = ?"
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=PATIENCE_SECONDS)) as database:
            ((state,),) = database.execute(question, (dag, run)).fetchall()
        return str(state)

    def close(self) -> None:
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="module", params=VERSIONS)
def airflow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    made = Airflow(request.param, tmp_path_factory.mktemp(f"workers-{request.param}"))
    yield made
    made.close()


async def test_the_verdict_is_in_the_log_file(airflow: Airflow, tmp_path: Path) -> None:
    """As its owner will find it: behind the task's own traceback, whole, and with its level."""
    async with agent(tmp_path, f"127.0.0.1:{refusing_port()}") as started:
        (verdict,) = (await diagnosis(started))["verdicts"]
        worker = await airflow.start("fails", "broken", started.url)
        assert await worker.wait() == 0
    log = airflow.log("fails", "broken")
    assert airflow.state("fails", "broken") == "failed", log
    first = f"netprobe: nothing_listening (high confidence): {verdict['summary']}"
    if airflow.version.startswith("2."):
        ((level, text),) = re.findall(r"\{netprobe_listener.py:\d+\} (\w+) - (.*(?:\n .*)*)", log)
        assert log.index("no connection, says the task") < log.index(text)
        assert level == "ERROR"
    else:
        events = [json.loads(line) for line in log.splitlines()]
        ((number, text),) = ((n, e["event"]) for n, e in enumerate(events) if e["event"].startswith("netprobe: "))
        assert events[number]["level"] == "error"
        # Before it, the group that Airflow's pages fold is closed.
        groups = [e["event"] for e in events[:number] if "group::" in e["event"]]
        assert groups[-2:] == ["::group::Post Execute", "::endgroup::"]
    assert text.splitlines()[0] == first
    assert re.fullmatch(r"  when      began \d+ s before the task started", text.splitlines()[1])
    assert text.splitlines()[-1] == "  runbook   docs/runbook.md#nothing_listening"


async def test_a_pod_that_is_told_to_end_meanwhile_has_a_task_that_failed(airflow: Airflow) -> None:
    """The task has failed, netprobe does not answer, and the SIGTERM comes while it is waited for.

    Airflow 2 raises an exception wherever the process is, here in the plugin: had it gone on from there, the failure
    would never have been written down.
    """
    async with silent() as server:
        worker = await airflow.start("fails", "terminated", f"http://{server.address}")

        async def asked() -> bool:
            return server.connections > 0

        await eventually(asked, "netprobe to be asked")
        worker.send_signal(signal.SIGTERM)
        await worker.wait()
    log = airflow.log("fails", "terminated")
    assert airflow.state("fails", "terminated") == "failed", log
    # What went wrong with netprobe is for those who debug.
    assert "netprobe's verdict" not in log
