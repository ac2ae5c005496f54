"""What the rules cost the Prometheus that evaluates them, as a ratio against rules that anybody might write.

    python -m tests.benchmarks.rules_cost [PODS_PER_HOUR]

A real Prometheus holds the last quarter of an hour of a fleet: pods that live for a quarter of a minute to four
minutes, have three targets, are scraped every fifteen seconds, and of which two in five cannot resolve names. Each
expression of the shipped files that reads the pods' own series is evaluated some times, and so are the peers: the
average that is written over blackbox_exporter's `probe_success`, a rate, and an alert for each pod whose target fails.
What is measured is CPU, which other work on the machine changes little. All other rules read what these record, which
does not grow with the number of pods.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import aiohttp
import cramjam

from agent.diagnosis import Cause
from agent.sinks.write_request import CONTENT_HEADERS, add_series, end, label, sample
from tests.lab.receivers import Receiver, remote_write_receiver
from tests.rules.promtool import RULES, groups_of

PODS_PER_HOUR = 10_000
HELD_SECONDS = 15 * 60
AHEAD_SECONDS = 180
"""Pods that have yet to come when the loading is done, while expressions are evaluated."""
SCRAPE_SECONDS = 15
LIVES_SECONDS = (15, 30, 60, 240)
TARGETS = ("metadata-db", "broker", "api")
DAGS, TASKS = 50, 4
EDGES = ("0.005", "0.05", "0.25", "1", "2.5", "4.5", "5.5", "+Inf")
TIMES, ENOUGH_SECONDS = 3, 1.0
"""How often each expression is evaluated at least, and for how much CPU: the kernel counts it in hundredths."""

PEERS = {
    "avg by (target) of the gauge": "avg by (namespace, target) (netprobe_probe_success)",
    "a rate by target": "sum by (namespace, target, result) (rate(netprobe_probes_total[2m]))",
    "an alert for each pod": "last_over_time(netprobe_probe_success[2m]) == 0",
}


class Plain:
    """Takes the pieces of a request; Packer, which does so in a pod, packs as it goes."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self.pieces.append(piece)


def series_of(*, fails: bool) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Each series of a pod: name, labels, and how much it grows with each scrape, or what it is (0 and 1)."""
    for cause in Cause:
        shown = Cause.DNS_UNREACHABLE if fails else Cause.HEALTHY
        yield "netprobe_diagnosis", {"cause": cause.value}, float(cause is shown)
    yield "netprobe_config_last_reload_successful", {}, 1
    for name in TARGETS:
        labels = {"target": name, "type": "tcp"}
        yield "netprobe_probe_success", labels, float(not fails)
        yield "netprobe_target_diagnosis", {**labels, "cause": Cause.DNS_UNREACHABLE.value}, float(fails)
        yield "netprobe_probes_total", {**labels, "result": "success"}, float(not fails)
        yield "netprobe_probes_total", {**labels, "result": "failure"}, float(fails)
        if fails:
            yield "netprobe_probe_failures_total", {**labels, "phase": "resolve", "reason": "timeout"}, 1
        for edge in EDGES:
            yield "netprobe_probe_duration_seconds_bucket", {**labels, "le": edge}, float(not fails)
        for phase in ("resolve", "connect", "tls", "request"):
            yield "netprobe_phase_duration_seconds_sum", {**labels, "phase": phase}, 0.01
            yield "netprobe_phase_duration_seconds_count", {**labels, "phase": phase}, 1


COUNTED = ("_total", "_bucket", "_sum", "_count")


def pod_request(number: int, begins: float) -> tuple[bytes, int]:
    """Everything one pod is scraped for in its life, and how many series that is."""
    lives = LIVES_SECONDS[number % len(LIVES_SECONDS)]
    times = [int((begins + after) * 1000) for after in range(0, lives, SCRAPE_SECONDS)]
    place = {
        "namespace": "airflow",
        "dag_id": f"dag_{number % DAGS}",
        "task_id": f"task_{number % TASKS}",
        "pod": f"worker-{number:08}",
        "instance": f"worker-{number:08}",
        "job": "netprobe",
    }
    fixed = {key: label(key, value) for key, value in place.items()}
    request = Plain()
    total = 0
    for name, labels, step in series_of(fails=number % 5 < 2):
        pieces = {
            **fixed,
            **{key: label(key, value) for key, value in labels.items()},
            "__name__": label("__name__", name),
        }
        grows = name.endswith(COUNTED)
        samples = [
            piece for index, at in enumerate(times) for piece in sample(step * (index + 1) if grows else step, at)
        ]
        samples += end(times[-1] + SCRAPE_SECONDS * 1000)
        add_series(request, [pieces[key] for key in sorted(pieces)], samples)  # type: ignore[arg-type]
        total += 1
    return b"".join(request.pieces), total


async def load(prometheus: Receiver, pods_per_hour: int) -> tuple[int, int]:
    """Write the fleet's past and its next minutes, and say how many pods and series they are."""
    between = 3600 / pods_per_hour
    began = time.time() - HELD_SECONDS
    number = series = 0
    bodies: list[bytes] = []
    async with aiohttp.ClientSession(trust_env=False) as session:
        while (begins := began + number * between) < time.time() + AHEAD_SECONDS:
            body, size = pod_request(number, begins)
            bodies.append(body)
            number, series = number + 1, series + size
            if len(bodies) == 100:
                await _write(session, prometheus, bodies)
                bodies = []
        await _write(session, prometheus, bodies)
    return number, series


async def _write(session: aiohttp.ClientSession, prometheus: Receiver, bodies: list[bytes]) -> None:
    packed = bytes(cramjam.snappy.compress_raw(b"".join(bodies)))
    async with session.post(f"{prometheus.url}/api/v1/write", data=packed, headers=dict(CONTENT_HEADERS)) as answer:
        assert answer.status == 204, await answer.text()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mebibytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def evaluated(prometheus: Receiver, expressions: Sequence[str]) -> float:
    """CPU seconds that Prometheus takes to evaluate all of them once."""
    before, times = cpu_seconds(prometheus.pid), 0
    while times < TIMES or cpu_seconds(prometheus.pid) - before < ENOUGH_SECONDS:
        for expression in expressions:
            await prometheus.query(expression)
        times += 1
    return (cpu_seconds(prometheus.pid) - before) / times


def reading_pods() -> Iterator[tuple[str, int, list[str]]]:
    """Groups, how often they are evaluated in an hour, and those of their expressions that read pods' series."""
    for path in sorted(RULES.glob("*.yaml")):
        for group in groups_of(path):
            interval = int(group["interval"][:-1]) * {"s": 1, "m": 60}[group["interval"][-1]]
            yield (
                group["name"],
                3600 // interval,
                [rule["expr"] for rule in group["rules"] if _OF_PODS.search(rule["expr"])],
            )


_OF_PODS = re.compile(r"\b(netprobe_\w+|up)\b(?!:)[{\[]?")


async def main() -> None:
    pods_per_hour = int(sys.argv[1]) if len(sys.argv) > 1 else PODS_PER_HOUR
    with tempfile.TemporaryDirectory() as name:
        async with remote_write_receiver(Path(name)) as prometheus:
            pods, series = await load(prometheus, pods_per_hour)
            print(
                f"{pods_per_hour} pods an hour: {pods} pods and {series} series within a quarter of an hour and a bit"
            )
            # What the loading has left behind is not theirs.
            await evaluated(prometheus, list(PEERS.values()))
            average, *others = [await evaluated(prometheus, [expression]) for expression in PEERS.values()]
            print(f"CPU of one evaluation of {next(iter(PEERS))}: {average * 1000:.0f} ms")
            for peer, seconds in zip(list(PEERS)[1:], others, strict=True):
                print(f"  {peer}: {seconds * 1000:.0f} ms, {seconds / average:.1f} times that")
            whole = 0.0
            for group, an_hour, expressions in reading_pods():
                if expressions:
                    seconds = await evaluated(prometheus, expressions)
                    whole += seconds * an_hour / 3600
                    print(
                        f"  {group}, {len(expressions)} rules: {seconds * 1000:.0f} ms, {seconds / average:.1f} times "
                        f"that; {an_hour} times an hour, {seconds * an_hour / 36:.2f} % of a core"
                    )
            print(f"All rules together: {whole * 100:.1f} % of a core, in {mebibytes(prometheus.pid):.0f} MiB")


if __name__ == "__main__":
    asyncio.run(main())
