"""What the status page costs: bytes, CPU as a ratio against /targets of the same agent, memory.

    python -m tests.benchmarks.status_page_cost [--rounds 40]

Every third target fails, all have as many outcomes as are remembered, and the verdict is that of the rules. Both
are made as the server makes them, turns of the loop included; they take turns, and the median counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from agent.config.targets import show_target
from agent.diagnosis import diagnose
from agent.diagnosis.document import document
from agent.diagnosis.snapshot import History, Snapshot
from agent.experiments import read_pod
from agent.model import Fact, Outcome, Phase, Reason
from agent.server import CHUNK_TARGETS
from agent.sinks.status import RECENT, StatusSink, entry
from agent.status_page import render
from tests.lab.outcomes import named, outcome

LINKS = [("GET", "/targets", "every target")]
_PHASES = [Phase.RESOLVE, Phase.CONNECT, Phase.TLS, Phase.REQUEST, Phase.TRANSFER, Phase.VERIFY]
_FACTS: dict[Fact, Any] = {Fact.HTTP_STATUS_CODE: 200, Fact.ADDRESS: "192.0.2.1:443", Fact.TLS_VERSION: "TLSv1.3"}
_MEMORY = """
import asyncio, resource, sys, time
from agent.lean import lean_imports; lean_imports()
import agent.app
from agent.sinks.status import StatusSink
def used():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize() / 1024
before = used()
from agent.status_page import render
said = {"healthy": True, "verdicts": [], "since": 1.0, "held_seconds": 1.0, "experiments": [], "budget": {}}
asyncio.run(render(said, [], []))
print(used() - before)
"""


def agent_of(targets: int) -> tuple[StatusSink, Mapping[str, Any]]:
    """What an agent knows of so many targets, and what it says."""
    everybody = [named(f"target-{number:03}", "http") for number in range(targets)]
    status = StatusSink(everybody)
    newest: list[Outcome] = []
    for number, target in enumerate(everybody):
        failed = (Phase.CONNECT, Reason.REFUSED) if number % 3 == 0 else None
        for run in range(RECENT):
            newest.append(outcome(target, failed, at=time.time() - run, phases=_PHASES, facts=_FACTS))
            status.write(newest[-1])
    histories = tuple(History(known.target, known.recent) for known in status.statuses())
    now = time.time()
    found = diagnose(Snapshot(at=now, pod=read_pod([], now), histories=histories))
    return status, document(found, since=now, held_seconds=60.0, waiting=(), experiments=(), budget={})


async def listed(status: StatusSink) -> int:
    """What /targets answers, as the server makes it."""
    chunks = []
    for number, known in enumerate(status.statuses()):
        if number % CHUNK_TARGETS == 0:
            await asyncio.sleep(0)
        chunks.append(json.dumps(entry(known, show_target(known.target)), ensure_ascii=False).encode())
    return sum(map(len, chunks))


async def measure(targets: int, rounds: int) -> None:
    status, said = agent_of(targets)
    spent: dict[str, list[float]] = {"page": [], "targets": []}
    size = other = 0
    for _ in range(rounds):
        began = time.process_time()
        size = sum(map(len, (await render(said, status.statuses(), LINKS)).chunks))
        between = time.process_time()
        other = await listed(status)
        spent["page"].append(between - began)
        spent["targets"].append(time.process_time() - between)
    page, peer = (statistics.median(spent[name]) for name in ("page", "targets"))
    made = f"{size / 1000:5.1f} kB, {page * 1e3:6.2f} ms of CPU"
    print(f"{targets:>4} targets: {made}, {page / peer:.2f} of /targets ({other / 1000:.1f} kB, {peer * 1e3:.2f} ms)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    for targets in (1, 10, 200):
        asyncio.run(measure(targets, rounds))
    grown = [
        float(subprocess.run([sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    print(f"memory once somebody has looked: {statistics.median(grown):.0f} KiB; before that, none")


if __name__ == "__main__":
    main()
