"""300 targets at one-second intervals: rounds kept, lag of schedule and loop, and CPU as a ratio against a peer's.

    python -m tests.benchmarks.scheduler_300_targets [--seconds 60] [--targets 300]

A quarter of the targets each is tcp, http, dns and postgres (handshake), on loopback servers in a process of their own.
The agent runs complete in this process: scheduler, probers, every sink, its server, and a scrape of /metrics every
15 s. Then blackbox_exporter answers as many scrapes of /probe, of the same servers in the same mix, one after the other
on one kept connection; its CPU is that of its process.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import http.client
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from agent.app import Agent
from agent.model import Target
from tests.lab.agents import config, eventually
from tests.lab.fake_postgres import ASK_SCRAM, message, speaking
from tests.lab.http_client import request
from tests.lab.http_servers import HttpServer, response
from tests.lab.misbehaving import echoing
from tests.lab.nameservers import Nameserver, zone
from tests.lab.targets import target

SCRAPE_SECONDS = 15.0
SAMPLE_SECONDS = 0.01
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

_MODULES = """
modules:
  tcp: {prober: tcp, timeout: 1s, tcp: {preferred_ip_protocol: ip4}}
  http: {prober: http, timeout: 1s, http: {preferred_ip_protocol: ip4}}
  dns: {prober: dns, timeout: 1s, dns: {query_name: db.test, query_type: A, preferred_ip_protocol: ip4}}
  postgres:
    prober: tcp
    timeout: 1s
    tcp: {preferred_ip_protocol: ip4, query_response: [{send: "\\0\\0\\0\\x08\\x04\\xd2\\x16/"}]}
"""


async def serve() -> None:
    """The server process: prints the address of each server and answers until its standard input is closed."""
    async with AsyncExitStack() as stack:
        tcp = await stack.enter_async_context(echoing())
        web = await stack.enter_async_context(HttpServer(response(body=b"ok")))
        dns = await stack.enter_async_context(Nameserver(zone("db.test. 60 IN A 192.0.2.1")))
        postgres = await stack.enter_async_context(speaking(message("R", ASK_SCRAM)))
        addresses = {"tcp": tcp.address, "http": web.address, "dns": dns.address, "postgres": postgres.address}
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def targets_of(addresses: dict[str, str], count: int) -> list[Target[Any]]:
    """The mix, at one-second intervals."""
    keys: dict[str, dict[str, Any]] = {
        "tcp": {"address": addresses["tcp"]},
        "http": {"url": f"http://{addresses['http']}/", "proxy": "none"},
        "dns": {"query": "db.test.", "server": addresses["dns"]},
        "postgres": {"dsn": f"postgresql://probe@{addresses['postgres']}/app?sslmode=disable"},
    }
    mix = [kind for _, kind in zip(range(count), list(keys) * count, strict=False)]
    return [
        dataclasses.replace(
            target(kind, **keys[kind]),
            name=f"{kind}-{number}",
            interval_seconds=1.0,
            timeout_seconds=1.0,
            confirm_interval_seconds=1.0,
        )
        for number, kind in enumerate(mix)
    ]


def percentiles(values: Sequence[float]) -> str:
    """p50, p99 and the longest, in milliseconds."""
    ordered = sorted(values)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99))
    return f"p50 {p50 * 1e3:7.2f} ms   p99 {p99 * 1e3:7.2f} ms   max {ordered[-1] * 1e3:7.2f} ms"


async def sample_loop_lag(into: list[float]) -> None:
    """How late a timer of SAMPLE_SECONDS is, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + SAMPLE_SECONDS
        await asyncio.sleep(SAMPLE_SECONDS)
        into.append(max(0.0, loop.time() - due))


async def scrape(url: str) -> None:
    while True:
        await asyncio.sleep(SCRAPE_SECONDS)
        await request(url + "/metrics", headers={"Accept-Encoding": "gzip"})


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(targets: list[Target[Any]], seconds: float) -> float:
    """Run the agent, print what was seen, and return the CPU seconds per probe."""
    lags: list[float] = []
    loop_lags: list[float] = []
    agent = Agent(config(*targets), pod="benchmark")
    keep = agent.metrics.started

    def started(lag_seconds: float) -> None:
        lags.append(lag_seconds)
        keep(lag_seconds)

    agent.metrics.started = started  # type: ignore[method-assign]
    await agent.start()

    async def on_the_grid() -> bool:
        return all(len(status.recent) > 2 for status in agent.status.statuses())

    await eventually(on_the_grid, "three outcomes of every target")
    skipped_before = agent.metrics.runs_skipped
    before = count(agent)
    lags.clear()
    others = [asyncio.create_task(sample_loop_lag(loop_lags)), asyncio.create_task(scrape(agent.url))]
    began = cpu_seconds()
    await asyncio.sleep(seconds)
    cpu = cpu_seconds() - began
    after = count(agent)
    skipped = agent.metrics.runs_skipped - skipped_before
    for other in others:
        other.cancel()
    await agent.aclose()
    probes = sum(after.values()) - sum(before.values())
    failures = after["failure"] - before["failure"]
    print(f"rounds         {probes} kept of {round(len(targets) * seconds)}, {skipped} skipped, {failures} failures")
    print(f"schedule lag   {percentiles(lags)}")
    print(f"loop lag       {percentiles(loop_lags)}")
    print(
        f"CPU            {cpu:.2f} s, {cpu / seconds:.1%} of one CPU, {cpu / probes * 1e3:.3f} ms a probe, all included"
    )
    return cpu / probes


def count(agent: Agent) -> Counter[str]:
    return sum((Counter(series.results) for series in agent.metrics.series.values()), Counter())


def blackbox(addresses: dict[str, str], probes: int) -> float | None:
    """CPU seconds per probe of blackbox_exporter, or None where it is not installed."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "blackbox.yml"
        file.write_text(_MODULES)
        port = 20_000 + os.getpid() % 10_000
        try:
            process = subprocess.Popen(
                ["prometheus-blackbox-exporter", f"--config.file={file}", f"--web.listen-address=127.0.0.1:{port}"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            return None
        try:
            connection = _connected(port, process)
            before = _cpu_of(process.pid)
            failed = 0
            for number in range(probes):
                module = list(addresses)[number % len(addresses)]
                query = urllib.parse.urlencode({"module": module, "target": addresses[module]})
                connection.request("GET", f"/probe?{query}")
                failed += b"\nprobe_success 1" not in connection.getresponse().read()
            cpu = _cpu_of(process.pid) - before
        finally:
            process.terminate()
            process.wait()
    print(f"blackbox       {cpu:.2f} s, {cpu / probes * 1e3:.3f} ms a probe, {failed} failures of {probes}")
    return cpu / probes


def _connected(port: int, process: subprocess.Popen[bytes]) -> http.client.HTTPConnection:
    while process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/-/healthy")
            connection.getresponse().read()
        except ConnectionRefusedError:
            continue
        return connection
    raise SystemExit("blackbox_exporter has ended")


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--targets", type=int, default=300)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    servers = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert servers.stdout is not None
    addresses = json.loads(servers.stdout.readline())
    print(f"{options.targets} targets at 1 s for {options.seconds:g} s")
    try:
        ours = asyncio.run(measure(targets_of(addresses, options.targets), options.seconds))
        theirs = blackbox(addresses, round(options.targets * min(options.seconds, 20.0)))
    finally:
        servers.communicate()
    if theirs is not None:
        print(f"ratio          {ours / theirs:.2f} times the CPU of blackbox_exporter, in Python, with the schedule")


if __name__ == "__main__":
    main()
