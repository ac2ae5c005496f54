"""`netprobe demo` as people run it, in a network namespace that shows every packet it would send elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from agent.demo import EXTRA
from agent.demo.world import ZONE
from tests.lab.command import COMMAND, REPOSITORY, environment
from tests.lab.netns import Namespace, namespace

PATIENCE_SECONDS = 60.0
USUAL_PORT = 9733


@pytest.fixture
def host() -> Iterator[Namespace]:
    """Loopback, and a way out that leads to nobody and counts what is sent on it."""
    with namespace() as host:
        host.ip("link", "add", "out", "type", "veth", "peer", "name", "nobody")
        for interface in ("out", "nobody"):
            # Or the kernel itself looks for neighbours.
            host.run("sysctl", "-q", "-w", f"net.ipv6.conf.{interface}.disable_ipv6=1")
            host.ip("link", "set", interface, "up")
        host.ip("address", "add", "198.51.100.1/24", "dev", "out")
        host.ip("route", "add", "default", "via", "198.51.100.2")
        try:
            yield host
        finally:
            for pid in processes(host):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def processes(host: Namespace) -> list[int]:
    listed = subprocess.run(["ip", "netns", "pids", host.name], capture_output=True, text=True, check=True)
    return [int(pid) for pid in listed.stdout.split()]


def sent_elsewhere(host: Namespace) -> int:
    """Packets that were not for loopback, the search for a neighbour included."""
    return int(host.run("cat", "/sys/class/net/out/statistics/tx_packets"))


def get(host: Namespace, url: str) -> str:
    fetch = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=20).read().decode())"
    return host.run(sys.executable, "-c", fetch, url)


def inside(host: Namespace, *words: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", host.name, *words)


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
async def demo(host: Namespace, temporary: Path, *arguments: str, before: tuple[str, ...] = ()) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        *inside(host, *before, *COMMAND, "demo", *arguments),
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


async def test_something_breaks_heals_and_leaves_nothing_behind(host: Namespace, temporary: Path) -> None:
    """Every target is well, then one breaks and heals; nothing is sent elsewhere; Ctrl-C removes everything."""
    async with demo(host, temporary) as running:
        url = await running.url()
        assert url == f"http://127.0.0.1:{USUAL_PORT}"
        await eventually(lambda: succeeded(get(host, f"{url}/metrics")) == TARGETS)
        await running.says(r"^--- the broker stops listening$")
        await running.says(r"target_fail\w+ .*target=broker .*phase=connect reason=refused detail=")
        await running.says(r"^nothing_listening \(\w+ confidence\): .* refuses connections:")
        await running.says(r"^--- the broker listens again$")
        await running.says(r"target_recovered .*target=broker ")
        await running.says(r"diagnosis_changed .*causes=\['healthy'\] before=\['nothing_listening'\]")
        await running.says(r"target_fail\w+ .*target=orders-api .*phase=tls reason=certificate_expired detail=")

        metrics = get(host, f"{url}/metrics")
        assert re.search(
            r'^netprobe_probe_failures_total\{[^}]*phase="connect",reason="refused"[^}]*\} [1-9]', metrics, re.MULTILINE
        )
        assert json.loads(get(host, f"{url}/targets"))
        assert left_in(temporary)

        running.process.send_signal(signal.SIGINT)
        assert await running.ended() == 0

    assert processes(host) == []
    assert left_in(temporary) == []
    assert sent_elsewhere(host) == 0
    # And the counter would have seen it.
    host.run(sys.executable, "-c", "import socket as s; s.socket(type=s.SOCK_DGRAM).sendto(b'', ('203.0.113.1', 53))")
    await eventually(lambda: sent_elsewhere(host) > 0)


async def test_the_suggested_check_works(host: Namespace, temporary: Path) -> None:
    """What the demo says to type in another terminal does what it says."""
    async with demo(host, temporary) as running:
        await running.url()
        command = (await running.says(r"^  (\S.* check --config \S+)$"))[1]
        done = await asyncio.create_subprocess_exec(
            *inside(host, *command.split(), "--output", "json"),
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(done.communicate(), PATIENCE_SECONDS)

    outcomes: list[dict[str, Any]] = json.loads(output)["outcomes"]
    assert {outcome["target"] for outcome in outcomes} == TARGETS


async def test_the_suggested_explanation_works(host: Namespace, temporary: Path) -> None:
    """What is broken in the demo is what `netprobe explain` says."""
    async with demo(host, temporary) as running:
        await running.url()
        command = (await running.says(r"^  (\S.* explain --url \S+)$"))[1]
        await running.says(r"^nothing_listening ")
        done = await asyncio.create_subprocess_exec(
            *inside(host, *command.split(), "--output", "json"),
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(done.communicate(), PATIENCE_SECONDS)
    assert done.returncode == 1
    assert [(one["cause"], one["targets"]) for one in json.loads(output)["verdicts"]] == [
        ("nothing_listening", ["broker"])
    ]


async def test_without_port_53_targets_are_addressed_by_ip(host: Namespace, temporary: Path) -> None:
    """Whoever may not serve port 53 still sees every target at work."""
    no_low_ports = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service", "--")
    async with demo(host, temporary, before=no_low_ports) as running:
        url = await running.url()
        await running.says("Port 53 is not ours to use")
        await eventually(lambda: succeeded(get(host, f"{url}/metrics")) == TARGETS)
        entries = json.loads(get(host, f"{url}/targets"))["targets"]

    addresses = {entry["name"]: entry["address"] for entry in entries}
    assert addresses["broker"].startswith("127.0.0.1:")
    assert not any(ZONE in address for name, address in addresses.items() if name != "api-name")
    assert sent_elsewhere(host) == 0


async def test_without_postgres_it_says_so(host: Namespace, temporary: Path) -> None:
    """A machine without Postgres sees the rest, and why this is missing."""
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /usr/lib/postgresql && exec "$@"', "sh")
    async with demo(host, temporary, before=hidden) as running:
        url = await running.url()
        await running.says("Left out: postgres, because there is no initdb")
        await eventually(lambda: succeeded(get(host, f"{url}/metrics")) == TARGETS - {"database"})


async def test_a_duration_ends_it(host: Namespace, temporary: Path) -> None:
    """`--duration` ends the demo as Ctrl-C does."""
    async with demo(host, temporary, "--duration", "4s") as running:
        assert await running.ended() == 0

    assert left_in(temporary) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
async def test_a_signal_while_servers_start_ends_it(host: Namespace, temporary: Path, number: signal.Signals) -> None:
    """Whoever changes their mind at once gets the prompt back, and nothing is left."""
    async with demo(host, temporary) as running:
        await running.says("Starting servers")
        running.process.send_signal(number)
        assert await running.ended() == 0

    assert processes(host) == []
    assert left_in(temporary) == []


async def test_postgres_ends_with_a_demo_that_is_killed(host: Namespace, temporary: Path) -> None:
    """Even where the demo cannot clean up, no process of its stays behind."""
    async with demo(host, temporary) as running:
        await running.url()
        assert len(processes(host)) > 1, "Postgres is part of what make test installs"
        running.process.kill()
        await running.ended()

    await eventually(lambda: processes(host) == [])


@contextlib.asynccontextmanager
async def taken(host: Namespace) -> AsyncIterator[None]:
    """Somebody listens on the usual port."""
    listen = (
        f"import socket as s; held = s.create_server(('127.0.0.1', {USUAL_PORT})); print('held', flush=True); input()"
    )
    process = await asyncio.create_subprocess_exec(
        *inside(host, sys.executable, "-c", listen),
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


async def test_another_port_where_the_usual_one_is_taken(host: Namespace, temporary: Path) -> None:
    """The demo starts beside another agent, and says where."""
    async with taken(host), demo(host, temporary) as running:
        url = await running.url()
        await running.says(f"Port {USUAL_PORT} is taken")
        assert "netprobe_build_info" in get(host, f"{url}/metrics")


async def test_an_address_that_was_asked_for_is_not_replaced(host: Namespace, temporary: Path) -> None:
    """Whoever asks for an address gets it, or is told why not."""
    address = f"127.0.0.1:{USUAL_PORT}"
    async with taken(host), demo(host, temporary, "--listen", address) as running:
        await running.says(f"cannot listen on {address}")
        assert await running.ended() == 3

    assert left_in(temporary) == []


@pytest.mark.parametrize("package", EXTRA)
def test_without_its_extra_it_says_what_to_install(package: str) -> None:
    """The image does not carry what only the demo needs."""
    program = f"import sys; sys.modules[{package!r}] = None; from agent.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 3
    assert f"pip install {package} (" in done.stderr


def test_its_extra_is_what_is_declared() -> None:
    """The demo looks for every package of its extra, and for no other."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        declared = tomllib.load(file)["project"]["optional-dependencies"]["demo"]

    assert {re.split(r"[^\w-]", requirement)[0] for requirement in declared} == set(EXTRA)
