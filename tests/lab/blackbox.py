"""What the benchmarks against blackbox_exporter share: its process, what a probe costs it, and what a run costs us."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.probers import PROBERS
from agent.runner import run
from tests.lab.misbehaving import refusing_port
from tests.lab.targets import target

ROUNDS = 5
WARM_UP_PROBES = 50
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Blackbox:
    """A running blackbox_exporter."""

    pid: int
    port: int

    def cpu_seconds_per_probe(self, module: str, address: str, probes: int) -> float:
        """Scrape /probe so often, on one kept connection. The time is that of its process, the scrape included."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        before = _cpu_seconds(self.pid)
        for _ in range(probes):
            connection.request("GET", f"/probe?module={module}&target={address}")
            page = connection.getresponse().read()
            if b"\nprobe_success 1" not in page:
                raise SystemExit(f"blackbox_exporter failed: {page.decode()}")
        spent = _cpu_seconds(self.pid) - before
        connection.close()
        return spent / probes


@contextmanager
def blackbox(directory: Path, modules: str) -> Iterator[Blackbox]:
    """Start blackbox_exporter with a configuration, and wait until it answers."""
    exporter = shutil.which("prometheus-blackbox-exporter")
    if exporter is None:
        raise SystemExit("prometheus-blackbox-exporter is not installed (Debian package of that name)")
    file, port = directory / "blackbox.yml", refusing_port()
    file.write_text(modules)
    with process(exporter, f"--config.file={file}", f"--web.listen-address=127.0.0.1:{port}") as child:
        _wait_until_ready(port)
        yield Blackbox(child.pid, port)


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command beside the benchmark, its standard output a pipe."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            yield child
        finally:
            child.terminate()


def cpu_seconds_per_run(kind: str, probes: int, **keys: Any) -> float:
    """Run a target so often, one run after the other. The time is that of this process."""

    async def measure() -> float:
        prober = PROBERS[kind].prober()
        subject = target(kind, **keys)
        await run(prober, subject)  # builds the TLS context, once for all
        before = time.process_time()
        for _ in range(probes):
            outcome = await run(prober, subject)
            if not outcome.success:
                raise SystemExit(f"netprobe failed: {outcome.failure}")
        return (time.process_time() - before) / probes

    return asyncio.run(measure())


def medians(ways: dict[str, Callable[[int], float]], probes: int) -> dict[str, float]:
    """Let the ways take turns, after a warm-up, and return the median round of each."""
    for way in ways.values():
        way(WARM_UP_PROBES)
    rounds = [{name: way(probes) for name, way in ways.items()} for _ in range(ROUNDS)]
    return {name: statistics.median(one[name] for one in rounds) for name in ways}


def print_ratio(name: str, ours: float, theirs: float) -> None:
    """One line of the result, from CPU seconds per probe."""
    print(
        f"{name:8}  netprobe {ours * 1e3:.3f} ms  "
        f"blackbox_exporter {theirs * 1e3:.3f} ms (with the scrape)  ratio {ours / theirs:.2f}"
    )


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process, proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/-/healthy")
            connection.getresponse().read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
        finally:
            connection.close()
