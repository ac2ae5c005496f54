"""CPU per DNS probe, as a ratio against blackbox_exporter in the same minute on the same machine.

    python -m tests.benchmarks.dns_cost [PROBES]

Knot answers both on 127.0.0.1. blackbox_exporter's CPU is that of its process over as many scrapes of /probe, on one
kept connection; ours is that of this process over as many runs: one nameserver by its address, then the pod's way (a
search list whose second name is found), then the resolve phase of every other type (A and AAAA together). The two take
turns; the median round counts.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from agent.model import Addresses, Family
from agent.net.resolve import resolve
from agent.prober import Recorder
from tests.lab.blackbox import blackbox, cpu_seconds_per_run, medians, process
from tests.lab.nameservers import LAB_ZONE, Nameserver, knot, loopback_ip, resolv_conf, zone

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


def lookups(path: Path, probes: int) -> float:
    """CPU seconds of this process per resolve phase."""

    async def measure() -> float:
        before = time.process_time()
        for _ in range(probes):
            notes = Recorder()
            await resolve("db.lab.test", 80, notes, family=Family.ANY, addresses=Addresses.FIRST, resolv_conf=path)
        return (time.process_time() - before) / probes

    return asyncio.run(measure())


async def serve(ip: str) -> None:
    """A nameserver on port 53, which is where resolv.conf looks for one: a process of its own."""
    async with Nameserver(zone("db.lab.test. 60 IN A 10.0.0.1\ndb.lab.test. 60 IN AAAA fd00::1"), ip=ip, port=53):
        print("ready", flush=True)
        await asyncio.Event().wait()


def main(probes: int) -> None:
    ip = loopback_ip()
    with tempfile.TemporaryDirectory() as place, knot(LAB_ZONE) as server:
        directory = Path(place)
        searching = resolv_conf(directory, ip, rest="search svc.test lab.test\n")
        plain = Path(resolv_conf(directory, ip))
        with (
            process(sys.executable, "-m", __spec__.name, "serve", ip) as nameserver,
            blackbox(directory, _MODULES) as peer,
        ):
            assert nameserver.stdout is not None
            nameserver.stdout.readline()
            ours = partial(cpu_seconds_per_run, "dns", expect={"answers": {"all": [{"matches": "^10[.]0[.]0[.]"}]}})
            cost = medians(
                {
                    "one question": partial(ours, query="db.lab.test", server=server.address),
                    "pod, two names": partial(ours, query="db", resolv_conf=searching),
                    "resolve phase": partial(lookups, plain),
                    "blackbox_exporter": partial(peer.cpu_seconds_per_probe, "dns", server.address),
                },
                probes,
            )
    other = cost.pop("blackbox_exporter")
    print(f"blackbox_exporter, one question  {other * 1e3:.3f} ms (with the scrape)")
    for name, mine in cost.items():
        print(f"netprobe, {name:22} {mine * 1e3:.3f} ms  ratio {mine / other:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
