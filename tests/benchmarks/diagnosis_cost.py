"""CPU of one evaluation of the diagnosis, for 300 targets, as a ratio against one TCP probe in the same minute.

    python -m tests.benchmarks.diagnosis_cost [EVALUATIONS]

An evaluation is what the agent does after an outcome: a snapshot of what is remembered of every target (ten outcomes
each), the rules, and the questions they would like to ask. It is taken while all is well, while the nameservers are
silent, so that whatever has a name fails, and while the internet is. The probe is a connection to a server in a process
of its own. All of them take turns, and the median round counts.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.diagnosis import Diagnosis, History, Pod, Resolver, Snapshot, diagnose, plan
from agent.model import Fact, Outcome, Phase, Reason, Role, Scope, Target
from agent.sinks.status import RECENT, StatusSink
from tests.lab.blackbox import cpu_seconds_per_run, medians, process
from tests.lab.misbehaving import echoing
from tests.lab.outcomes import named, outcome
from tests.lab.targets import target

TARGETS = 300
NOW = 1_700_000_000.0
NAMESERVERS = ("10.96.0.10",)
_KINDS = (
    ("http", Scope.PUBLIC, Role.CONNECTION),
    ("postgres", Scope.CLUSTER, Role.METADATA_DB),
    ("tcp", Scope.PRIVATE, Role.BROKER),
    ("dns", Scope.CLUSTER, Role.NAMESERVER),
)
_KEYS: dict[str, Callable[[int], dict[str, Any]]] = {
    "http": lambda n: {"url": f"https://api-{n}.example.com/"},
    "postgres": lambda n: {"dsn": f"postgresql://probe@database-{n}:5432/app"},
    "tcp": lambda n: {"address": f"broker-{n}.corp.example.com:6379"},
    "dns": lambda n: {"query": f"service-{n}.airflow.svc.cluster.local"},
}
_WAY = {
    "http": (Phase.RESOLVE, Phase.CONNECT, Phase.TLS, Phase.REQUEST, Phase.TRANSFER, Phase.VERIFY),
    "postgres": (Phase.RESOLVE, Phase.CONNECT, Phase.LOGIN),
    "tcp": (Phase.RESOLVE, Phase.CONNECT),
    "dns": (Phase.RESOLVE, Phase.VERIFY),
}

Finding = Callable[[Target[Any], float], Outcome]
"""What a run of a target found, at a time."""


@dataclass(frozen=True, slots=True)
class World:
    """Targets, and what is remembered of them."""

    pod: Pod
    status: StatusSink

    @classmethod
    def where(cls, finding: Finding) -> World:
        """All runs of a while ago went well; the last ones found this."""
        targets = list(_targets())
        status = StatusSink(targets)
        for age in range(RECENT, 0, -1):
            for one in targets:
                status.write((finding if age <= RECENT // 2 else _well)(one, NOW - 15.0 * age))
        resolver = Resolver(
            nameservers=NAMESERVERS,
            search=("airflow.svc.cluster.local", "svc.cluster.local", "cluster.local"),
            ndots=5,
            timeout_seconds=5.0,
        )
        pod = Pod(
            started_at=NOW - 3600.0,
            resolver=resolver,
            namespace="airflow",
            cluster_domain="cluster.local",
            kubernetes_api=("10.96.0.1", 443),
        )
        return cls(pod, status)

    def evaluate(self) -> Diagnosis:
        snapshot = Snapshot(
            at=NOW,
            pod=self.pod,
            histories=tuple(History(status.target, status.recent) for status in self.status.statuses()),
        )
        diagnosis = diagnose(snapshot)
        plan(snapshot)
        return diagnosis

    def cpu_seconds_per_evaluation(self, evaluations: int) -> float:
        before = time.process_time()
        for _ in range(evaluations):
            self.evaluate()
        return (time.process_time() - before) / evaluations


def _targets() -> Iterator[Target[Any]]:
    for n in range(TARGETS):
        kind, scope, role = _KINDS[n % len(_KINDS)]
        options = target(kind, **_KEYS[kind](n)).options
        yield named(f"{kind}-{n}", kind, options=options, scope=scope, role=role)


def _address(one: Target[Any]) -> str:
    """An address of its own for each."""
    number = int(one.name.rpartition("-")[2])
    return f"198.51.{number // 250}.{number % 250 + 1}:{one.options.port or 53}"


def _well(one: Target[Any], at: float) -> Outcome:
    address = _address(one)
    return outcome(
        one,
        at=at,
        phases=_WAY[one.type],
        facts={Fact.ADDRESS: address, Fact.ADDRESSES: [address.rpartition(":")[0]], Fact.HTTP_SERVER: "nginx"},
    )


def _no_nameserver(one: Target[Any], at: float) -> Outcome:
    waited = [
        {"server": f"{server}:53", "name": one.options.host, "record": record, "transport": "udp", "error": "timeout"}
        for server in NAMESERVERS
        for record in ("A", "AAAA")
    ]
    return outcome(
        one,
        (Phase.RESOLVE, Reason.TIMEOUT),
        at=at,
        seconds=5.0,
        phases=[Phase.RESOLVE],
        facts={Fact.DNS_ATTEMPTS: waited},
    )


def _no_internet(one: Target[Any], at: float) -> Outcome:
    if one.scope is not Scope.PUBLIC:
        return _well(one, at)
    address = _address(one)
    return outcome(
        one,
        (Phase.CONNECT, Reason.TIMEOUT),
        at=at,
        seconds=5.0,
        phases=[Phase.RESOLVE, Phase.CONNECT],
        facts={Fact.ADDRESS: address, Fact.ADDRESSES: [address.rpartition(":")[0]]},
    )


async def serve() -> None:
    """The server process: prints its port."""
    async with echoing() as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


def main(evaluations: int) -> None:
    worlds = {
        "all is well": World.where(_well),
        "no nameserver": World.where(_no_nameserver),
        "no internet": World.where(_no_internet),
    }
    with process(sys.executable, "-m", __spec__.name, "serve") as server:
        assert server.stdout is not None
        address = f"127.0.0.1:{server.stdout.readline().strip()}"
        ways: dict[str, Callable[[int], float]] = {
            name: world.cpu_seconds_per_evaluation for name, world in worlds.items()
        }
        cost = medians({"probe": partial(cpu_seconds_per_run, "tcp", address=address), **ways}, evaluations)
    print(f"{TARGETS} targets, {RECENT} outcomes each; one TCP probe: {cost['probe'] * 1e6:.0f} µs of CPU")
    for name, world in worlds.items():
        causes = ", ".join(f"{cause.value}" for cause in world.evaluate().causes)
        ratio = cost[name] / cost["probe"]
        print(f"{name}: {cost[name] * 1e3:.2f} ms of CPU an evaluation, {ratio:.1f} TCP probes ({causes})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve())
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
