"""CPU per DNS probe, as a ratio against blackbox_exporter in the same minute on the same machine.

    python -m tests.benchmarks.dns_cost [PROBES]

Knot answers both on 127.0.0.1. blackbox_exporter's CPU is that of its process over as many scrapes of /probe, on one
kept connection; ours is that of this process over as many runs: one nameserver by its address, then the pod's way (a
search list whose second name is found), then the resolve phase of every other type (A and AAAA together). The two take
turns; the median round counts.
"""

from __future__ import annotations

import asyncio
import http.client
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agent.model import Addresses, Family
from agent.net.resolve import resolve
from agent.prober import Recorder
from agent.probers import PROBERS
from agent.runner import run
from tests.benchmarks.http_cost import ROUNDS, cpu_seconds, process, wait_until_ready
from tests.lab.misbehaving import refusing_port
from tests.lab.nameservers import LAB_ZONE, Nameserver, knot, loopback_ip, resolv_conf, zone
from tests.lab.targets import target

_MODULES = """
modules:
  dns:
    prober: dns
    timeout: 5s
    dns:
      query_name: db.lab.test
      query_type: A
      transport_protocol: udp
      preferred_ip_protocol: ip4
      validate_answer_rrs: {fail_if_not_matches_regexp: ['10[.]0[.]0[.]']}
"""


def theirs(pid: int, port: int, address: str, probes: int) -> float:
    """CPU seconds of blackbox_exporter per probe."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    before = cpu_seconds(pid)
    for _ in range(probes):
        connection.request("GET", f"/probe?module=dns&target={address}")
        page = connection.getresponse().read()
        if b"\nprobe_success 1" not in page:
            raise SystemExit(f"blackbox_exporter failed: {page.decode()}")
    spent = cpu_seconds(pid) - before
    connection.close()
    return spent / probes


async def ours(probes: int, **keys: Any) -> float:
    """CPU seconds of this process per probe."""
    prober = PROBERS["dns"].prober()
    subject = target("dns", expect={"answers": {"all": [{"matches": "^10[.]0[.]0[.]"}]}}, **keys)

    async def one() -> None:
        outcome = await run(prober, subject)
        if not outcome.success:
            raise SystemExit(f"netprobe failed: {outcome.failure}")

    return await _cpu(one, probes)


async def lookups(path: Path, probes: int) -> float:
    """CPU seconds of this process per resolve phase."""

    async def one() -> None:
        await resolve("db.lab.test", 80, Recorder(), family=Family.ANY, addresses=Addresses.FIRST, resolv_conf=path)

    return await _cpu(one, probes)


async def _cpu(one: Callable[[], Awaitable[None]], probes: int) -> float:
    before = time.process_time()
    for _ in range(probes):
        await one()
    return (time.process_time() - before) / probes


async def serve(ip: str) -> None:
    """A nameserver on port 53, which is where resolv.conf looks for one: a process of its own."""
    async with Nameserver(zone("db.lab.test. 60 IN A 10.0.0.1\ndb.lab.test. 60 IN AAAA fd00::1"), ip=ip, port=53):
        print("ready", flush=True)
        await asyncio.Event().wait()


def main(probes: int) -> None:
    exporter = shutil.which("prometheus-blackbox-exporter")
    if exporter is None:
        raise SystemExit("prometheus-blackbox-exporter is not installed (Debian package of that name)")
    ip, port = loopback_ip(), refusing_port()
    with tempfile.TemporaryDirectory() as place, knot(LAB_ZONE) as server:
        directory = Path(place)
        modules = directory / "blackbox.yml"
        modules.write_text(_MODULES)
        searching = resolv_conf(directory, ip, rest="search svc.test lab.test\n")
        plain = Path(resolv_conf(directory, ip))
        with (
            process(sys.executable, "-m", __spec__.name, "serve", ip) as nameserver,
            process(exporter, f"--config.file={modules}", f"--web.listen-address=127.0.0.1:{port}") as blackbox,
        ):
            assert nameserver.stdout is not None
            nameserver.stdout.readline()
            wait_until_ready(port)
            ways: dict[str, Callable[[int], float]] = {
                "one question": lambda n: asyncio.run(ours(n, query="db.lab.test", server=server.address)),
                "pod, two names": lambda n: asyncio.run(ours(n, query="db", resolv_conf=searching)),
                "resolve phase": lambda n: asyncio.run(lookups(plain, n)),
                "blackbox_exporter": lambda n: theirs(blackbox.pid, port, server.address, n),
            }
            for way in ways.values():
                way(50)
            rounds = [{name: way(probes) for name, way in ways.items()} for _ in range(ROUNDS)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in ways}
    other = medians.pop("blackbox_exporter")
    print(f"blackbox_exporter, one question  {other * 1e3:.3f} ms (with the scrape)")
    for name, mine in medians.items():
        print(f"netprobe, {name:22} {mine * 1e3:.3f} ms  ratio {mine / other:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
