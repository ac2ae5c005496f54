"""`netprobe demo` as people run it, in a network namespace that shows every packet it would send elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from agent.demo.world import ZONE
from tests.lab.command import COMMAND, environment

PATIENCE_SECONDS = 60.0
USUAL_PORT = 9733

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Namespace:
    """Loopback, and a way out that leads to nobody and counts what is sent on it."""

    name: str

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
        )
        return done.stdout

    def processes(self) -> list[int]:
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        return [int(pid) for pid in listed.stdout.split()]

    def sent_elsewhere(self) -> int:
        """Packets that were not for loopback, the search for a neighbour included."""
        return int(self.run("cat", "/sys/class/net/out/statistics/tx_packets"))

    def get(self, url: str) -> str:
        fetch = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=20).read().decode())"
        return self.run(sys.executable, "-c", fetch, url)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    space = Namespace(f"netprobe-demo-{os.getpid()}-{next(_numbers)}")
    subprocess.run(["ip", "netns", "add", space.name], check=True)
    try:
        space.run("ip", "link", "set", "lo", "up")
        space.run("ip", "link", "add", "out", "type", "veth", "peer", "name", "nobody")
        for interface in ("out", "nobody"):
            # Or the kernel itself looks for neighbours.
            space.run("sysctl", "-q", "-w", f"net.ipv6.conf.{interface}.disable_ipv6=1")
            space.run("ip", "link", "set", interface, "up")
        space.run("ip", "address", "add", "198.51.100.1/24", "dev", "out")
        space.run("ip", "route", "add", "default", "via", "198.51.100.2")
        yield space
    finally:
        for pid in space.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", space.name], check=True)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the demo keeps its files. Its Postgres runs as another user, who may not enter pytest's own directories."""
    with TemporaryDirectory(prefix="netprobe-test-") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


@dataclass
class Demo:
    """A demo that runs, and what it has said."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line, also one that has been said already."""
        for line in self.lines:
            if match := re.search(pattern, line):
                return match
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line)
                if match := re.search(pattern, line):
                    return match
        raise AssertionError(f"no line with {pattern!r} in:\n{''.join(self.lines)}")

    async def url(self) -> str:
        return (await self.says(r"(http://\S+)/metrics "))[1]

    async def ended(self) -> int:
        """Its exit code."""
        await asyncio.wait_for(self.process.communicate(), PATIENCE_SECONDS)
        assert self.process.returncode is not None
        return self.process.returncode


@contextlib.asynccontextmanager
async def demo(
    namespace: Namespace, temporary: Path, *arguments: str, before: tuple[str, ...] = ()
) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        *namespace.command(*before, *COMMAND, "demo", *arguments),
        # A proxy of the machine must not be asked either.
        env=environment(TMPDIR=str(temporary), HTTP_PROXY="http://198.51.100.9:3128"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Demo(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def left_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.1)


def succeeded(metrics: str) -> set[str]:
    """The targets that were well at least once."""
    samples = re.findall(r"^netprobe_probes_total\{([^}]*)\} ([\d.e+]+)$", metrics, re.MULTILINE)
    return {
        match[1]
        for labels, count in samples
        if 'result="success"' in labels and float(count) > 0 and (match := re.search(r'target="([^"]*)"', labels))
    }


TARGETS = {"api-name", "broker", "database", "metadata-database", "orders-api", "web-site"}


async def test_something_breaks_heals_and_leaves_nothing_behind(namespace: Namespace, temporary: Path) -> None:
    """Every target is well, then one breaks and heals; nothing is sent elsewhere; Ctrl-C removes everything."""
    async with demo(namespace, temporary) as running:
        url = await running.url()
        assert url == f"http://127.0.0.1:{USUAL_PORT}"
        await eventually(lambda: succeeded(namespace.get(f"{url}/metrics")) == TARGETS)
        await running.says(r"^--- the broker stops listening$")
        failed = await running.says(r"target_failed .*target=broker ")
        assert "phase=connect" in failed.string
        assert "reason=refused" in failed.string
        await running.says(r"^--- the broker listens again$")
        await running.says(r"target_recovered .*target=broker ")
        failed = await running.says(r"target_failed .*target=orders-api ")
        assert "reason=certificate_expired" in failed.string

        metrics = namespace.get(f"{url}/metrics")
        assert re.search(
            r'^netprobe_probe_failures_total\{[^}]*phase="connect",reason="refused"[^}]*\} [1-9]', metrics, re.MULTILINE
        )
        assert json.loads(namespace.get(f"{url}/targets"))
        assert left_in(temporary)

        running.process.send_signal(signal.SIGINT)
        assert await running.ended() == 0

    assert namespace.processes() == []
    assert left_in(temporary) == []
    assert namespace.sent_elsewhere() == 0
    # And the counter would have seen it.
    namespace.run(
        sys.executable, "-c", "import socket as s; s.socket(type=s.SOCK_DGRAM).sendto(b'', ('203.0.113.1', 53))"
    )
    await eventually(lambda: namespace.sent_elsewhere() > 0)


async def test_the_suggested_check_works(namespace: Namespace, temporary: Path) -> None:
    """What the demo says to type in another terminal does what it says."""
    async with demo(namespace, temporary) as running:
        await running.url()
        command = (await running.says(r"^  (\S.* check --config \S+)$"))[1]
        done = await asyncio.create_subprocess_exec(
            *namespace.command(*command.split(), "--output", "json"),
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(done.communicate(), PATIENCE_SECONDS)

    outcomes: list[dict[str, Any]] = json.loads(output)["outcomes"]
    assert {outcome["target"] for outcome in outcomes} == TARGETS


async def test_without_port_53_targets_are_addressed_by_ip(namespace: Namespace, temporary: Path) -> None:
    """Whoever may not serve port 53 still sees every target at work."""
    no_low_ports = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service", "--")
    async with demo(namespace, temporary, before=no_low_ports) as running:
        url = await running.url()
        await running.says("Port 53 is not ours to use")
        await eventually(lambda: succeeded(namespace.get(f"{url}/metrics")) == TARGETS)
        addresses = {target["target"]: json.dumps(target) for target in _entries(namespace.get(f"{url}/targets"))}

    assert ZONE not in addresses["broker"]
    assert namespace.sent_elsewhere() == 0


def _entries(targets: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(targets)["targets"]
    return entries


async def test_without_postgres_it_says_so(namespace: Namespace, temporary: Path) -> None:
    """A machine without Postgres sees the rest, and why this is missing."""
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /usr/lib/postgresql && exec "$@"', "sh")
    async with demo(namespace, temporary, before=hidden) as running:
        url = await running.url()
        await running.says("Left out: postgres, because there is no initdb")
        await eventually(lambda: succeeded(namespace.get(f"{url}/metrics")) == TARGETS - {"database"})


async def test_a_duration_ends_it(namespace: Namespace, temporary: Path) -> None:
    """`--duration` ends the demo as Ctrl-C does."""
    async with demo(namespace, temporary, "--duration", "4s") as running:
        assert await running.ended() == 0

    assert left_in(temporary) == []


async def test_postgres_ends_with_a_demo_that_is_killed(namespace: Namespace, temporary: Path) -> None:
    """Even where the demo cannot clean up, no process of its stays behind."""
    async with demo(namespace, temporary) as running:
        await running.url()
        assert len(namespace.processes()) > 1, "Postgres is part of what make test installs"
        running.process.kill()
        await running.ended()

    await eventually(lambda: namespace.processes() == [])


@contextlib.asynccontextmanager
async def taken(namespace: Namespace) -> AsyncIterator[None]:
    """Somebody listens on the usual port."""
    listen = (
        f"import socket as s; held = s.create_server(('127.0.0.1', {USUAL_PORT})); print('held', flush=True); input()"
    )
    process = await asyncio.create_subprocess_exec(
        *namespace.command(sys.executable, "-c", listen),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def test_another_port_where_the_usual_one_is_taken(namespace: Namespace, temporary: Path) -> None:
    """The demo starts beside another agent, and says where."""
    async with taken(namespace), demo(namespace, temporary) as running:
        url = await running.url()
        await running.says(f"Port {USUAL_PORT} is taken")
        assert "netprobe_build_info" in namespace.get(f"{url}/metrics")


async def test_an_address_that_was_asked_for_is_not_replaced(namespace: Namespace, temporary: Path) -> None:
    """Whoever asks for an address gets it, or is told why not."""
    address = f"127.0.0.1:{USUAL_PORT}"
    async with taken(namespace), demo(namespace, temporary, "--listen", address) as running:
        await running.says(f"cannot listen on {address}")
        assert await running.ended() == 3

    assert left_in(temporary) == []


def test_without_its_extra_it_says_what_to_install() -> None:
    """The image does not carry what only the demo needs."""
    program = "import sys; sys.modules['trustme'] = None; from agent.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 3
    assert "pip install trustme" in done.stderr
