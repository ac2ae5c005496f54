"""CPU and memory from nothing to a loaded agent, as a ratio against the web server of aiohttp alone.

    python -m tests.benchmarks.start_cost [ROUNDS]

All take turns, and the median counts. Under a limit of 100m a pod waits ten times as long as is printed here.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from dataclasses import dataclass

REPORT = """
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""
STARTS = {
    "aiohttp.web": "import aiohttp.web",
    "agent, as its libraries come": "import agent.app",
    "agent, as `netprobe run` loads it": "from agent.lean import lean_imports; lean_imports(); import agent.app",
}


@dataclass(frozen=True, slots=True)
class Start:
    cpu_seconds: float
    memory_mebibytes: float


def measured(imports: str) -> Start:
    """One interpreter that does these imports and nothing else."""
    done = subprocess.run([sys.executable, "-c", imports + REPORT], capture_output=True, text=True, check=True)
    cpu, memory = map(float, done.stdout.split())
    return Start(cpu, memory)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    runs: dict[str, list[Start]] = {name: [] for name in STARTS}
    for _ in range(rounds):
        for name, imports in STARTS.items():
            runs[name].append(measured(imports))
    peer = statistics.median(start.cpu_seconds for start in runs["aiohttp.web"])
    for name, starts in runs.items():
        cpu = statistics.median(start.cpu_seconds for start in starts)
        memory = statistics.median(start.memory_mebibytes for start in starts)
        print(f"{name:<36} {cpu * 1000:4.0f} ms of CPU ({cpu / peer:.2f} of aiohttp.web), {memory:.0f} MiB at most")


if __name__ == "__main__":
    main()
