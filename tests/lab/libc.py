"""The same lookup by getaddrinfo(3) and by agent.net.resolve, on a host of a test's own: what each asked, and found.

Run as a module inside a network namespace that has an /etc/resolv.conf and an /etc/hosts of its own: a scenario is a
line on standard input, the comparison a line on standard output.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.model import Addresses, Family
from agent.net.resolve import resolve
from agent.net.system_lookup import SystemLookups
from agent.prober import ProbeFailure, Recorder
from tests.lab.nameservers import Nameserver, Query, Script, answering, by_transport, silent, truncated, zone
from tests.lab.netns import Namespace

REPOSITORY = Path(__file__).resolve().parents[2]

_FAMILIES = {Family.ANY: socket.AF_UNSPEC, Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A name, and the world it is looked up in."""

    query: str
    family: str = "any"
    resolv_conf: str
    hosts: str = ""
    zone: str = ""
    """What every nameserver knows."""
    servers: dict[str, dict[str, str]] = field(default_factory=dict)
    """By address, by name (`*` for the rest): an rcode, silent, truncated, or nothing for what the zone says."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a lookup asked, and what it found."""

    asked: list[list[str]]
    """Nameserver, name, record, transport."""
    found: list[str] | None
    """None where it failed."""


@contextmanager
def comparing(host: Namespace) -> Iterator[Callable[[Scenario], tuple[Lookup, Lookup]]]:
    """A function that makes the lookup of a scenario on a host: by libc, and by us."""
    etc = Path("/etc/netns") / host.name
    etc.mkdir(parents=True)
    try:
        for name in ("resolv.conf", "hosts"):
            (etc / name).touch()
        process = subprocess.Popen(
            ["ip", "netns", "exec", host.name, sys.executable, "-m", "tests.lab.libc"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            questions, answers = process.stdin, process.stdout

            def compare(scenario: Scenario) -> tuple[Lookup, Lookup]:
                questions.write(json.dumps(asdict(scenario)) + "\n")
                questions.flush()
                answer = json.loads(answers.readline())
                return Lookup(**answer["libc"]), Lookup(**answer["ours"])

            yield compare
            questions.close()
    finally:
        for file in etc.iterdir():
            file.unlink()
        etc.rmdir()


def _script(known: Script, behaviour: dict[str, str]) -> Script:
    async def script(query: Query) -> None:
        what = behaviour.get(f"{query.name} {query.record}", behaviour.get(query.name, behaviour.get("*", "")))
        special = {"": known, "silent": silent, "truncated": by_transport(udp=truncated, tcp=known)}
        await (special[what] if what in special else answering(what))(query)

    return script


async def _both(scenario: Scenario) -> dict[str, Any]:
    asked: list[list[str]] = []

    def noted(ip: str, script: Script) -> Script:
        async def note(query: Query) -> None:
            asked.append([ip, query.name, query.record, query.transport])
            await script(query)

        return note

    async def lookup(find: Callable[[], Awaitable[list[str]]]) -> Lookup:
        asked.clear()
        try:
            found: list[str] | None = await find()
        except (socket.gaierror, ProbeFailure):
            found = None
        return Lookup(list(asked), found)

    async def libc() -> list[str]:
        return await SystemLookups().addresses(scenario.query, _FAMILIES[Family(scenario.family)])

    async def ours() -> list[str]:
        addresses = await resolve(
            scenario.query,
            80,
            Recorder(),
            family=Family(scenario.family),
            addresses=Addresses.ALL,
            resolv_conf=Path("/etc/resolv.conf"),
        )
        return [address.ip for address in addresses]

    Path("/etc/resolv.conf").write_text(scenario.resolv_conf)  # noqa: ASYNC240 - nothing else is going on
    Path("/etc/hosts").write_text(scenario.hosts)  # noqa: ASYNC240
    async with AsyncExitStack() as stack:
        for ip, behaviour in scenario.servers.items():
            script = noted(ip, _script(zone(scenario.zone), behaviour))
            await stack.enter_async_context(Nameserver(script, ip=ip, port=53))
        return {"libc": asdict(await lookup(libc)), "ours": asdict(await lookup(ours))}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(asyncio.run(_both(Scenario(**json.loads(line))))), flush=True)
