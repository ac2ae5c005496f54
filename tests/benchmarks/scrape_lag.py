"""What a scrape of 1,000 targets does to the event loop, and so to the probes that run meanwhile.

    python -m tests.benchmarks.scrape_lag [--targets 1000] [--seconds 10]

Every target has every series it can have (32). The lag of a 5 ms timer is printed for a quiet loop and for one that
answers a client that scrapes without a pause (a process of its own). On a busy machine that is mostly the wait for a
CPU; so the CPU time of each turn of the loop is printed as well, beside that of rendering in one piece, as
prometheus_client's own server does.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

from agent.config import Detail
from agent.keys import HostPort
from agent.model import Fact, Phase, Reason
from agent.server import Pages, Server
from agent.sinks.exposition import Exposition
from agent.sinks.metrics import Metrics
from agent.sinks.status import StatusSink, entry
from agent.starvation import Starvation
from tests.lab.outcomes import named, outcome

TICK_SECONDS = 0.005
_PHASES = [Phase.RESOLVE, Phase.CONNECT, Phase.PROXY, Phase.TLS, Phase.REQUEST, Phase.TRANSFER]
_FACTS: dict[Fact, Any] = {Fact.HTTP_STATUS_CODE: 200, Fact.CERTIFICATE_EXPIRES_AT: 1.8e9}
_FAILURES = [(Phase.CONNECT, Reason.TIMEOUT), (Phase.TLS, Reason.TIMEOUT), (Phase.REQUEST, Reason.RESET)]

_CLIENT = """
import sys, urllib.request
url, accept = sys.argv[1:]
request = urllib.request.Request(url, headers={"Accept": accept, "Accept-Encoding": "gzip"})
while True:
    size = len(urllib.request.urlopen(request).read())
    print(size, flush=True)
"""


def percentiles(values: Sequence[float]) -> str:
    """p50, p99 and the longest, in milliseconds."""
    ordered = sorted(values)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99))
    return f"p50 {p50 * 1e3:7.2f} ms   p99 {p99 * 1e3:7.2f} ms   max {ordered[-1] * 1e3:7.2f} ms"


async def lag(seconds: float) -> list[float]:
    """How late each tick is."""
    loop = asyncio.get_running_loop()
    seen = []
    end = loop.time() + seconds
    while loop.time() < end:
        due = loop.time() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        seen.append(max(0.0, loop.time() - due))
    return seen


async def under_scrapes(url: str, accept: str, seconds: float) -> tuple[list[float], int]:
    """The lag while a client scrapes without a pause, and how often it was answered."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CLIENT, url, accept, stdout=asyncio.subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert client.stdout is not None
    await client.stdout.readline()
    seen = await lag(seconds)
    client.kill()
    rest = await client.stdout.read()
    await client.wait()
    return seen, rest.count(b"\n")


async def measure(targets: int, seconds: float) -> None:
    everybody = [named(f"target-{number:04}", "http") for number in range(targets)]
    metrics = Metrics(everybody, detail=Detail.NORMAL, starvation=Starvation(None))
    status = StatusSink(everybody)
    for sink in (metrics, status):
        for target in everybody:
            for failed in (None, *_FAILURES):
                sink.write(outcome(target, failed, phases=_PHASES, facts=_FACTS))

    def entries() -> Iterator[dict[str, Any]]:
        for known in status.statuses():
            yield entry(known, {"name": known.target.name})

    turns: list[float] = []

    def timed(targets_at_once: int) -> Iterator[Metric]:
        began = time.process_time()
        for metric in metrics.slices(targets_at_once):
            yield metric
            now = time.process_time()
            turns.append(now - began)
            began = now

    server = Server(
        Pages(
            metrics=Exposition(timed).render,
            targets=entries,
            statuses=status.statuses,
            diagnosis=dict,
            broken=lambda: None,
            unready=lambda: None,
            unstarted=lambda: None,
            refresh=lambda: asyncio.sleep(0),
            told=lambda _: None,
            leave=lambda: None,
        )
    )
    await server.start(HostPort("127.0.0.1", 0))
    lines = generate_latest(metrics.registry).count(b"\n")
    print(f"{targets} targets, {lines} lines")
    print(f"quiet            {percentiles(await lag(seconds))}")
    for name, path, accept in (
        ("text, gzip", "/metrics", "text/plain"),
        ("OpenMetrics, gzip", "/metrics", "application/openmetrics-text;version=1.0.0"),
        ("/targets", "/targets", ""),
    ):
        seen, answers = await under_scrapes(server.url + path, accept, seconds)
        print(f"{name:<16} {percentiles(seen)}   {answers} answers")
    print(f"CPU of a turn    {percentiles(turns)}   ({len(turns)} turns of the loop with a slice of a scrape each)")
    began = time.process_time()
    generate_latest(metrics.registry)
    print(f"in one piece     one turn of {(time.process_time() - began) * 1e3:.0f} ms of CPU")
    await server.aclose()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    asyncio.run(measure(options.targets, options.seconds))


if __name__ == "__main__":
    main()
