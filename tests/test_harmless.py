"""Circumstances a pod may bring: the sidecar works in them, or at least starts the pod and ends with 0 when told."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.lab.agents import eventually
from tests.lab.command import COMMAND, PATIENCE_SECONDS, environment
from tests.lab.http_client import Answer, request
from tests.lab.misbehaving import echoing, refusing_port

UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
READ_ONLY = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount --make-rprivate / && mount -o remount,bind,ro / && exec "$@"',
    "sh",
)
MEBIBYTE = 1 << 20

CIRCUMSTANCES: dict[str, Sequence[str]] = {
    "read-only root": (*READ_ONLY, *UNPRIVILEGED),
    # Of what it may write to, as every page of it would have to be kept: stricter than a limit of the whole.
    "64 MiB of memory": ("prlimit", f"--data={64 * MEBIBYTE}", *UNPRIVILEGED),
    "40 file descriptors": ("prlimit", "--nofile=40"),
    "no standard streams": ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"),
    "a full disk for the log": ("sh", "-c", 'exec "$@" >/dev/full 2>/dev/full', "sh"),
    "no environment": ("env", "-i", f"PYTHONPATH={environment()['PYTHONPATH']}"),
}


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that every user may read."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@asynccontextmanager
async def sidecar(
    directory: Path, port: int, target: str, circumstances: Sequence[str] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    file = directory / "netprobe.yaml"
    file.write_text(f"targets: [{{name: t, type: tcp, address: '{target}', interval: 1s, timeout: 1s}}]\n")
    process = await asyncio.create_subprocess_exec(
        *circumstances,
        *COMMAND, "run", "--fail-open", "--config", str(file), "--listen", f"127.0.0.1:{port}",
        env=environment(), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def page(port: int, path: str) -> Answer | None:
    try:
        return await request(f"http://127.0.0.1:{port}{path}")
    except OSError:
        return None


async def probing(port: int) -> None:
    """Wait until two runs have succeeded."""

    async def twice() -> bool:
        metrics = await page(port, "/metrics")
        prefix = 'netprobe_probes_total{result="success",target="t",type="tcp"} '
        counts = [line.removeprefix(prefix) for line in (metrics.text if metrics else "").splitlines()
                  if line.startswith(prefix)]  # fmt: skip
        return any(float(count) >= 2 for count in counts)

    await eventually(twice, "two successful runs")


@pytest.mark.parametrize("name", CIRCUMSTANCES)
async def test_it_works_starts_and_ends(name: str, directory: Path) -> None:
    port = refusing_port()
    async with echoing() as server, sidecar(directory, port, server.address, CIRCUMSTANCES[name]) as process:

        async def started() -> bool:
            answer = await page(port, "/startupz")
            return answer is not None and answer.status == 200

        await eventually(started, "a start")
        await probing(port)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 0


async def test_no_thread_is_needed(directory: Path) -> None:
    """A pod may have used up the processes it may have."""
    (directory / "sitecustomize.py").write_text(
        "import threading\n"
        "def start(self):\n"
        '    raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = start\n"
    )
    port = refusing_port()
    path = f"PYTHONPATH={directory}:{environment()['PYTHONPATH']}"
    async with echoing() as server, sidecar(directory, port, server.address, ("env", path)) as process:
        await probing(port)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 0


async def test_it_can_be_killed_and_started_again(directory: Path) -> None:
    """The kubelet starts a native sidecar again; connections of the one before must not keep the port from it."""
    port = refusing_port()
    async with echoing() as server:
        async with sidecar(directory, port, server.address) as first:
            await probing(port)
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            first.kill()
            assert await first.wait() == -signal.SIGKILL
        async with sidecar(directory, port, server.address) as second:
            await probing(port)
            second.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await second.wait() == 0
        writer.transport.abort()


async def test_one_that_was_stopped_for_a_while_goes_on(directory: Path) -> None:
    """A node that is short of everything stops it for seconds. Who asks meanwhile waits, and then has an answer."""
    port = refusing_port()
    async with echoing() as server, sidecar(directory, port, server.address) as process:
        await probing(port)
        process.send_signal(signal.SIGSTOP)

        async def stopped() -> bool:
            return Path(f"/proc/{process.pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "T"  # noqa: ASYNC240

        await eventually(stopped, "a stopped process")
        asked = asyncio.create_task(request(f"http://127.0.0.1:{port}/diagnosis"))
        done, _ = await asyncio.wait({asked}, timeout=1.0)
        assert not done
        process.send_signal(signal.SIGTERM)  # it waits until the process goes on
        process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 0
        # Either it came in time for an answer, or it was told that there will be none.
        await asyncio.wait({asked}, timeout=PATIENCE_SECONDS)
        assert asked.done()
        asked.exception()
