"""CPU per postgres probe and mode, as a ratio against `psql -c 'select 1'` in the same minute on the same machine.

    python -m tests.benchmarks.postgres_cost [PROBES]

One real server answers both, with SCRAM. psql's CPU is that of its process, started anew each time as by a script in a
pod; ours is that of this process over so many runs. The server's own CPU is in neither. The two take turns; the median
round counts.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from agent.model import Target
from agent.probers import PROBERS
from agent.runner import run
from tests.lab.certificates import Certificates
from tests.lab.postgres import BIN, PASSWORD, Postgres, directory
from tests.lab.targets import target

ROUNDS = 5
PSQL_RUNS = 20


def cpu_seconds(who: int) -> float:
    """User and system time so far."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def of_psql(server: Postgres, sslmode: str) -> float:
    """CPU seconds of one psql that logs in and asks."""
    address = f"postgresql://probe@127.0.0.1:{server.port}/app?sslmode={sslmode}"
    before = cpu_seconds(resource.RUSAGE_CHILDREN)
    for _ in range(PSQL_RUNS):
        subprocess.run(
            [BIN / "psql", "-X", "-q", "-A", "-t", address, "-c", "select 1"],
            check=True,
            stdout=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD, "PGGSSENCMODE": "disable"},
        )
    return (cpu_seconds(resource.RUSAGE_CHILDREN) - before) / PSQL_RUNS


async def of_ours(asked: Target[Any], probes: int) -> float:
    """CPU seconds of one run, what it leaves to the background included."""
    prober = PROBERS["postgres"].prober()
    assert (await run(prober, asked)).success
    await prober.aclose()
    before = cpu_seconds(resource.RUSAGE_SELF)
    for _ in range(probes):
        outcome = await run(prober, asked)
        assert outcome.success, outcome.failure
    await prober.aclose()
    return (cpu_seconds(resource.RUSAGE_SELF) - before) / probes


def main(probes: int) -> None:
    """Print a row for each mode."""
    with tempfile.TemporaryDirectory() as temporary, directory() as home:
        certificate = Certificates(Path(temporary)).good
        with Postgres.create(home, certificate=certificate) as server:
            print("mode        sslmode   netprobe ms   psql ms   ratio")
            for sslmode, mode in itertools.product(("disable", "require"), ("handshake", "login", "query")):
                keys: dict[str, Any] = {"dsn": f"postgresql://probe@127.0.0.1:{server.port}/app", "mode": mode}
                if mode != "handshake":
                    keys["password"] = PASSWORD
                asked = target("postgres", **keys, sslmode=sslmode)
                ours, theirs = [], []
                for _ in range(ROUNDS):
                    ours.append(asyncio.run(of_ours(asked, probes)))
                    theirs.append(of_psql(server, sslmode))
                ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
                mine, psql = statistics.median(ours) * 1000, statistics.median(theirs) * 1000
                print(f"{mode:11} {sslmode:9} {mine:11.2f} {psql:9.2f} {ratio:7.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
