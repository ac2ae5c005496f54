"""`netprobe run --fail-open`: whatever is wrong, the pod can start, and the sidecar ends with 0 when told.

In a network namespace with nothing but loopback: what the environment names is probed, and must not be reached.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.agents import Running, eventually
from tests.lab.command import COMMAND, environment
from tests.lab.http_client import Answer, request
from tests.lab.netns import Namespace, namespace

URL = "http://127.0.0.1:9733"
OPEN = ("run", "--fail-open")


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    with namespace() as alone:
        yield alone


class Sidecar(Running):
    """A process on the host, and its pages."""

    def __init__(self, process: asyncio.subprocess.Process, host: Namespace) -> None:
        super().__init__(process)
        self._host = host

    async def get(self, path: str, url: str = URL) -> Answer:
        return await asyncio.to_thread(self._host.inside, lambda: asyncio.run(request(url + path)))

    async def answers(self, path: str, url: str = URL) -> Answer:
        """The first answer there is."""

        async def answer() -> Answer | None:
            assert self.process.returncode is None, self.text
            try:
                return await self.get(path, url)
            except OSError:
                return None

        found: Answer = await eventually(answer, f"an answer, got {self.text}")
        return found

    def of(self, event: str) -> list[dict[str, Any]]:
        return [seen for seen in self.events if seen["event"] == event]

    async def told_to_end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()


@asynccontextmanager
async def sidecar(
    host: Namespace, *arguments: str, env: dict[str, str] | None = None, command: tuple[str, ...] = COMMAND
) -> AsyncIterator[Sidecar]:
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", host.name, *command, *arguments,
        env=environment(**(env or {})), cwd="/", stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    agent = Sidecar(process, host)
    try:
        yield agent
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await agent.close()


async def target_names(agent: Sidecar) -> list[str]:
    return [entry["name"] for entry in json.loads((await agent.get("/targets")).body)["targets"]]


BAD = """
log: {level: debug, colour: red}
targets:
  - {name: mine, type: tcp, address: "db:5432", interval: 15}
  - {name: mine, type: smtp}
"""


async def test_nothing_of_a_bad_configuration_is_used(host: Namespace, tmp_path: Path) -> None:
    """All problems are logged, one event each, with the place; and everything says that it is not what was meant."""
    file = tmp_path / "netprobe.yaml"
    file.write_text(BAD)
    async with sidecar(host, *OPEN, env={"NETPROBE_CONFIG": str(tmp_path)}) as agent:
        assert (await agent.answers("/startupz")).status == 200
        await agent.event("agent_started")
        problems = agent.of("configuration_unusable")
        metrics = (await agent.get("/metrics")).text
        page = json.loads((await agent.get("/diagnosis")).body)
        names = await target_names(agent)
        assert (await agent.get("/healthz")).status == 200
        words = (await agent.get("/diagnosis?format=text")).text
        assert await agent.told_to_end() == 0
    assert words.startswith("The configuration cannot be used: none of its targets is probed")
    assert [(problem["line"], problem["path"]) for problem in problems] == [
        (2, "log.colour"),
        (4, "targets[0].interval"),
        (5, "targets[1].name"),
        (5, "targets[1].type"),
    ]
    for problem in problems:
        assert problem["level"] == "error"
        assert problem["file"] == str(file)
        assert problem["detail"].startswith("expected ")
    assert "netprobe_config_last_reload_successful 0.0" in metrics
    assert page["configuration_usable"] is False
    assert "mine" not in names
    assert not agent.of("target_probed")  # the level of the log is none of its settings either
    assert "Traceback" not in agent.text


@pytest.mark.parametrize("kind", ["empty directory", "no directory", "nothing named"])
async def test_no_configuration_is_no_problem(host: Namespace, tmp_path: Path, kind: str) -> None:
    """An optional ConfigMap that is not there leaves an empty directory."""
    named = {"empty directory": {"NETPROBE_CONFIG": str(tmp_path)}, "no directory": {"NETPROBE_CONFIG": "/absent"}}
    env = {
        **named.get(kind, {}),
        "AIRFLOW_CONN_WAREHOUSE": "postgresql://etl:s3cret@127.0.0.1:1/dwh",
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": "2",
    }
    async with sidecar(host, *OPEN, env=env) as agent:
        await agent.event("agent_started")
        metrics = (await agent.get("/metrics")).text
        page = json.loads((await agent.get("/diagnosis")).body)
        entries = json.loads((await agent.get("/targets")).body)["targets"]
        assert await agent.told_to_end() == 0
    assert "netprobe_config_last_reload_successful 1.0" in metrics
    assert page["configuration_usable"] is True
    (warehouse,) = (entry for entry in entries if entry["role"] == "connection")
    assert warehouse["address"].startswith("127.0.0.1:1")
    assert "kubernetes_api" in {entry["role"] for entry in entries}
    assert not agent.of("configuration_unusable")
    assert "s3cret" not in agent.text


async def test_an_empty_file_is_a_mistake_and_costs_no_task(host: Namespace, tmp_path: Path) -> None:
    (tmp_path / "netprobe.yaml").write_text("")
    async with sidecar(host, *OPEN, "--config", str(tmp_path)) as agent:
        assert (await agent.answers("/startupz")).status == 200
        await agent.event("configuration_unusable", detail="expected a mapping with the key targets, got nothing")
        assert await agent.told_to_end() == 0


async def test_a_mistake_in_the_manifest_costs_no_task(host: Namespace) -> None:
    """It would be exit code 2, again and again, and the pod would never start."""
    async with sidecar(host, *OPEN, "--listne", "0.0.0.0:9733") as agent:
        assert (await agent.answers("/startupz")).status == 200
        assert await agent.told_to_end() == 0
    assert "unrecognized arguments: --listne" in agent.text


async def test_a_port_that_is_taken_is_no_reason_to_end(host: Namespace) -> None:
    """It would be started again and again. It probes, and waits to be told to end."""
    async with sidecar(host, *OPEN) as first:
        await first.event("agent_started")
        async with sidecar(host, *OPEN, env={"AIRFLOW_CONN_X": "http://127.0.0.1:1"}) as second:
            cannot = await second.event("agent_cannot_listen")
            assert cannot["detail"] == "cannot listen on [::]:9733: address already in use"
            assert (await second.event("agent_started"))["url"] is None
            await second.event("target_failed")
            assert await second.told_to_end() == 0
        assert await first.told_to_end() == 0


@pytest.mark.parametrize("address", ["203.0.113.7:9733", "127.0.0.1:9733", "0.0.0.0:9999"])
async def test_it_listens_where_the_start_up_probe_asks(host: Namespace, tmp_path: Path, address: str) -> None:
    """Elsewhere it would not be found, and the task never started."""
    file = tmp_path / "netprobe.yaml"
    file.write_text(f"server: {{listen: '{address}'}}\ntargets: [{{name: t, type: tcp, address: '127.0.0.1:1'}}]\n")
    async with sidecar(host, *OPEN, "--config", str(file)) as agent:
        overridden = await agent.event("listen_address_overridden")
        assert (overridden["configured"], overridden["listen"]) == (address, "[::]:9733")
        await agent.event("agent_started")
        assert (await agent.get("/startupz")).status == 200
        assert await target_names(agent) == ["t"]
        assert await agent.told_to_end() == 0


@pytest.mark.parametrize("address", ["0.0.0.0:9733", "[::]:9733"])
async def test_an_address_that_the_start_up_probe_finds_is_obeyed(
    host: Namespace, tmp_path: Path, address: str
) -> None:
    file = tmp_path / "netprobe.yaml"
    file.write_text(f"server: {{listen: '{address}'}}\ntargets: [{{name: t, type: tcp, address: '127.0.0.1:1'}}]\n")
    async with sidecar(host, *OPEN, "--config", str(file)) as agent:
        await agent.event("agent_started")
        assert (await agent.get("/startupz")).status == 200
        assert await agent.told_to_end() == 0
    assert not agent.of("listen_address_overridden")


async def test_the_start_up_probe_of_a_cluster_of_ipv6_alone_finds_it(tmp_path: Path) -> None:
    """The kubelet comes over the pod's address: before the agent is loaded, with it, and where it cannot be."""
    url = "http://[2001:db8::7]:9733"
    with namespace() as alone:
        alone.ip("-6", "address", "add", "2001:db8::7/128", "dev", "lo")
        broken = defect(tmp_path, "aiohttp")
        for env, event in (({}, "agent_started"), (broken, "agent_unable_to_run")):
            async with sidecar(alone, *OPEN, env=env) as agent:
                answers = [await agent.answers("/startupz", url)]
                await agent.event(event)
                answers.append(await agent.answers("/startupz", url))
                assert [answer.status for answer in answers] == [200, 200]
                assert await agent.told_to_end() == 0


async def test_it_listens_where_there_is_no_ipv6(host: Namespace, tmp_path: Path) -> None:
    """A kernel that was started with ipv6.disable=1."""
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, socket\n"
        "class WithoutIPv6(socket.socket):\n"
        "    def __init__(self, family=-1, *rest, **named):\n"
        "        if family == socket.AF_INET6:\n"
        "            raise OSError(errno.EAFNOSUPPORT, 'Address family not supported by protocol')\n"
        "        super().__init__(family, *rest, **named)\n"
        "socket.socket = WithoutIPv6\n"
    )
    async with sidecar(host, *OPEN, env={"PYTHONPATH": f"{tmp_path}:{environment()['PYTHONPATH']}"}) as agent:
        await agent.event("agent_started", url=URL)
        assert (await agent.get("/startupz")).status == 200
        assert await agent.told_to_end() == 0


# --- where the agent itself cannot run ------------------------------------------------------------------------------


def defect(tmp_path: Path, module: str) -> dict[str, str]:
    """An environment in which a library cannot be imported."""
    package = tmp_path / "broken"
    package.mkdir()
    (package / f"{module}.py").write_text("raise RuntimeError('s3cret of a library')\n")
    return {"PYTHONPATH": f"{package}:{environment()['PYTHONPATH']}"}


@pytest.mark.parametrize("module", ["aiohttp", "structlog", "voluptuous", "yaml", "prometheus_client"])
async def test_a_library_that_cannot_be_loaded_costs_no_task(host: Namespace, tmp_path: Path, module: str) -> None:
    async with sidecar(host, *OPEN, env=defect(tmp_path, module)) as agent:
        assert (await agent.answers("/startupz")).status == 200
        await agent.event("agent_unable_to_run")
        assert (await agent.answers("/startupz")).status == 200
        metrics = await agent.get("/metrics")
        assert metrics.status == 503
        assert metrics.text.startswith("netprobe cannot run, and keeps nobody waiting: RuntimeError (broken/")
        assert await agent.told_to_end() == 0
    (event,) = agent.of("agent_unable_to_run")
    assert event["level"] == "critical"
    assert "s3cret" not in agent.text


@pytest.mark.parametrize("method", ["__init__", "start"])
async def test_a_defect_at_the_start_costs_no_task(host: Namespace, tmp_path: Path, method: str) -> None:
    """Whether or not it listens by then: the port is free for the answers that are left to give."""
    (tmp_path / "sitecustomize.py").write_text(
        "from agent.scheduler import Scheduler\n"
        "def broken(*_, **__):\n"
        "    raise ZeroDivisionError('s3cret')\n"
        f"Scheduler.{method} = broken\n"
    )
    async with sidecar(host, *OPEN, env={"PYTHONPATH": f"{tmp_path}:{environment()['PYTHONPATH']}"}) as agent:
        await agent.event("agent_unable_to_run")
        assert (await agent.answers("/startupz")).status == 200
        assert (await agent.get("/diagnosis")).text.startswith("netprobe cannot run")
        assert await agent.told_to_end() == 0
    assert "s3cret" not in agent.text


@pytest.mark.parametrize("broken", ["agent.diagnostician.Diagnostician.close", "agent.scheduler.Scheduler.stop"])
async def test_a_defect_at_the_end_keeps_no_pod(host: Namespace, tmp_path: Path, broken: str) -> None:
    """It was told to end: what would stay is waited for until the pod's grace period is over."""
    module, kind, method = broken.rsplit(".", 2)
    (tmp_path / "sitecustomize.py").write_text(
        f"from {module} import {kind}\n"
        "def broken(*_, **__):\n"
        "    raise ZeroDivisionError('s3cret')\n"
        f"{kind}.{method} = broken\n"
    )
    async with sidecar(host, *OPEN, env={"PYTHONPATH": f"{tmp_path}:{environment()['PYTHONPATH']}"}) as agent:
        await agent.event("agent_started")
        assert await agent.told_to_end() == 0
    assert agent.of("agent_end_raised")
    assert not agent.of("agent_unable_to_run")


async def test_not_even_a_server_is_needed_to_stay(host: Namespace, tmp_path: Path) -> None:
    async with sidecar(host, *OPEN) as first:
        await first.event("agent_started")
        async with sidecar(host, *OPEN, env=defect(tmp_path, "aiohttp")) as second:
            await second.event("agent_cannot_listen")
            assert second.process.returncode is None
            assert await second.told_to_end() == 0
        assert await first.told_to_end() == 0


async def test_what_clients_do_to_the_last_resort_is_nothing(host: Namespace, tmp_path: Path) -> None:
    """One that says nothing, one that hangs up, one that speaks another protocol; the next one is answered."""
    async with sidecar(host, *OPEN, env=defect(tmp_path, "aiohttp")) as agent:
        await agent.event("agent_unable_to_run")
        await agent.answers("/startupz")

        async def pester() -> None:
            for sent in (b"", b"\x16\x03\x01\x00", b"GET", b"\r\n\r\n", b"POST /startupz HTTP/1.1\r\n" * 1000):
                _, writer = await asyncio.open_connection("127.0.0.1", 9733)
                writer.write(sent)
                writer.transport.abort()
            _, silent = await asyncio.open_connection("127.0.0.1", 9733)
            try:
                assert (await request(URL + "/startupz")).status == 200
            finally:
                silent.transport.abort()

        await asyncio.to_thread(host.inside, lambda: asyncio.run(pester()))
        assert await agent.told_to_end() == 0


async def test_an_ordinary_container_that_cannot_run_ends(host: Namespace, tmp_path: Path) -> None:
    """It would keep its pod from ending, and nobody waits for it to start."""
    async with sidecar(host, *OPEN, "--end-with-task", env=defect(tmp_path, "aiohttp")) as agent:
        assert await agent.ended() == 0
    assert agent.text.startswith("netprobe: internal error: RuntimeError (broken/")


async def test_an_installation_that_lacks_everything_is_told_in_an_exit_code_without_the_option(
    host: Namespace, tmp_path: Path
) -> None:
    async with sidecar(host, "run", "--config", "/absent", env=defect(tmp_path, "aiohttp")) as agent:
        assert await agent.ended() == 3
