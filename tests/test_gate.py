"""The start gate: when it opens, what it says meanwhile, and how it looks at a network that comes up."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.app import Agent
from agent.config import GateMode, GateOptions
from agent.gate import Gate
from agent.model import Phase, Reason, Role, Target
from tests.lab.agents import Running, config, eventually
from tests.lab.command import COMMAND, environment
from tests.lab.http_client import request
from tests.lab.misbehaving import echoing, refusing_port, silent
from tests.lab.netns import SERVER_IP, two_hosts
from tests.lab.outcomes import named, outcome
from tests.lab.targets import target as make_target

VIRTUAL_TIME = pytest.mark.looptime(noop_cycles=0)
REFUSED = (Phase.CONNECT, Reason.REFUSED)


class Door:
    """What the gate tells."""

    def __init__(self) -> None:
        self.opened: list[tuple[float, bool]] = []

    def __call__(self, seconds: float, timed_out: bool) -> None:  # noqa: FBT001
        self.opened.append((seconds, timed_out))


def gate_of(*targets: Target[Any], **options: Any) -> tuple[Gate, Door]:
    door = Door()
    gate = Gate(GateOptions(**options), targets, door)
    gate.start()
    return gate, door


def said(gate: Gate) -> str | None:
    """What it says now."""
    return gate.closed


def gate_target(name: str, **changes: Any) -> Target[Any]:
    return dataclasses.replace(named(name), gate=True, **changes)


@VIRTUAL_TIME
async def test_it_opens_once_every_gate_has_answered() -> None:
    a, b, other = gate_target("a"), gate_target("b"), named("other")
    gate, door = gate_of(a, b, other)
    assert said(gate) == "waiting for a, b to answer"
    await asyncio.sleep(1.5)
    gate.write(outcome(a))
    gate.write(outcome(other))
    gate.write(outcome(b, REFUSED))
    assert said(gate) == "waiting for b to answer"
    assert door.opened == []
    with capture_logs() as logged:
        await asyncio.sleep(1.0)
        gate.write(outcome(b))
    assert said(gate) is None
    assert door.opened == [(2.5, False)]
    (event,) = logged
    assert (event["event"], event["log_level"]) == ("startup_gate_opened", "info")
    assert (event["waited_seconds"], event["timed_out"], event["unanswered"]) == (2.5, False, [])
    # It has opened for good.
    gate.write(outcome(a, REFUSED))
    await asyncio.sleep(3600.0)
    assert said(gate) is None
    assert len(door.opened) == 1


@VIRTUAL_TIME
async def test_it_opens_when_its_time_is_up_and_names_who_did_not_answer() -> None:
    """Open is the default: a task is never kept from starting."""
    a, b = gate_target("a"), gate_target("b")
    gate, door = gate_of(a, b)
    gate.write(outcome(a))
    await asyncio.sleep(9.9)
    assert said(gate) is not None
    with capture_logs() as logged:
        await asyncio.sleep(0.2)
    assert said(gate) is None
    assert door.opened == [(10.0, True)]
    assert [(e["log_level"], e["timed_out"], e["unanswered"]) for e in logged] == [("warning", True, ["b"])]


@VIRTUAL_TIME
async def test_closed_means_until_everybody_has_answered() -> None:
    a = gate_target("a")
    gate, door = gate_of(a, mode=GateMode.CLOSED)
    await asyncio.sleep(86400.0)
    assert said(gate) is not None
    gate.write(outcome(a))
    assert said(gate) is None
    assert door.opened == [(86400.0, False)]


@pytest.mark.parametrize("options", [{}, {"mode": GateMode.CLOSED}, {"roles": (Role.BROKER,)}])
async def test_without_a_gate_it_is_open_from_the_start(options: dict[str, Any]) -> None:
    gate, door = gate_of(named("t"), **options)
    assert said(gate) is None
    assert door.opened == [(0.0, False)]


async def test_off_waits_for_nobody() -> None:
    gate, _ = gate_of(gate_target("a"), mode=GateMode.OFF)
    assert said(gate) is None


async def test_a_role_makes_gates() -> None:
    broker = dataclasses.replace(named("broker"), role=Role.BROKER)
    gate, _ = gate_of(broker, named("other"), roles=(Role.BROKER,))
    assert said(gate) == "waiting for broker to answer"
    gate.stop()


async def test_the_deadline_of_an_awaited_target_grows_to_its_own() -> None:
    """A packet lost before the network was there is not waited for, and a target that is just slow has the time."""
    a, negative = gate_target("a", timeout_seconds=6.0), gate_target("n", timeout_seconds=6.0, negative=True)
    gate, _ = gate_of(a, negative)
    deadlines = []
    for _ in range(5):
        deadlines.append(gate.eager(a).timeout_seconds)
        gate.write(outcome(a, REFUSED))
    assert deadlines == [1.0, 2.0, 4.0, 6.0, 6.0]
    # That nothing answers is what such a target waits for, and takes as long as ever.
    assert gate.eager(negative) is negative
    gate.write(outcome(a))
    assert gate.eager(a) is a
    assert not gate.awaits(a)
    gate.stop()


# --- in an agent ----------------------------------------------------------------------------------------------------


def agents_target(address: str, *, name: str = "api", gate: bool = True) -> Target[Any]:
    return dataclasses.replace(make_target("tcp", address=address), name=name, gate=gate, timeout_seconds=6.0)


async def test_nobody_starts_before_a_network_that_comes_up_late() -> None:
    """Runs follow one another quickly meanwhile, each of them an outcome; afterwards the target has its own rhythm."""
    port = refusing_port()
    targets = (agents_target(f"127.0.0.1:{port}"), agents_target(f"127.0.0.1:{port}", name="other", gate=False))
    async with Agent(config(*targets, gate=GateOptions(timeout=600.0))) as agent:

        async def three() -> bool:
            return len(agent.status.status("api").recent) >= 3

        assert (await request(agent.url + "/startupz")).text == "waiting for api to answer\n"
        await eventually(three, "three outcomes")
        assert (await request(agent.url + "/startupz")).status == 503
        # One that is no gate is confirmed at its own interval, which is longer.
        assert len(agent.status.status("other").recent) <= 2
        metrics = (await request(agent.url + "/metrics")).text
        assert "netprobe_startup_gate_seconds " not in metrics
        late = echoing()
        late.port = port
        async with late:

            async def is_open() -> bool:
                return (await request(agent.url + "/startupz")).status == 200

            await eventually(is_open, "an open gate")
        recent = agent.status.status("api").recent
        metrics = (await request(agent.url + "/metrics")).text
    assert recent[0].success
    assert not any(run.success for run in recent[1:])
    waited = next(line for line in metrics.splitlines() if line.startswith("netprobe_startup_gate_seconds "))
    assert float(waited.split()[1]) > 0.5
    assert "netprobe_startup_gate_timed_out 0.0" in metrics
    failures = f'netprobe_probes_total{{result="failure",target="api",type="tcp"}} {len(recent) - 1}.0'
    assert failures in metrics


async def test_an_answer_that_never_comes_holds_nobody_for_longer_than_that() -> None:
    async with silent() as mute:
        options = make_target("tcp", address=mute.address, dialogue=[{"expect": "hello"}]).options
        target = dataclasses.replace(agents_target(mute.address), options=options)
        async with Agent(config(target, gate=GateOptions(timeout=3.0))) as agent:

            async def is_open() -> bool:
                return (await request(agent.url + "/startupz")).status == 200

            assert not await is_open()
            await eventually(is_open, "an open gate")
            metrics = (await request(agent.url + "/metrics")).text
            first = agent.status.status("api").recent[-1]
    assert "netprobe_startup_gate_timed_out 1.0" in metrics
    assert first.failure is not None
    assert first.failure.detail.endswith("within 1s")


# --- a network that comes up late -----------------------------------------------------------------------------------


async def test_a_network_that_was_not_ready_is_named_and_the_start_follows_it_soon(tmp_path: Path) -> None:
    """As with network policies that are programmed some seconds after the pod has started: what is sent gets lost."""
    with two_hosts() as (pod, server), server.serving("python3", "-m", "http.server", "8080", port=8080):
        file = tmp_path / "netprobe.yaml"
        file.write_text(
            "gate: {timeout: 10m}\n"
            "defaults: {interval: 15s, timeout: 6s}\n"
            "diagnosis: {experiments: false}\n"
            "targets:\n"
            f"  - {{name: api, type: http, url: 'http://{SERVER_IP}:8080/', proxy: none, gate: true}}\n"
            f"  - {{name: db, type: tcp, address: '{SERVER_IP}:8080', gate: true}}\n"
        )
        pod.filter("output", "ip daddr 192.0.2.2 drop")
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", pod.name, *COMMAND, "run", "--fail-open", "--config", str(file),
            env=environment(), cwd="/", stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        agent = Running(process)
        try:
            await agent.event("target_failed", target="api")
            await agent.event("target_failed", target="db")
            pod.filter("output")
            opened = await agent.event("startup_gate_opened")
            await agent.event("diagnosis_changed", causes=["network_not_ready"])
        finally:
            process.kill()
            await process.wait()
            await agent.close()
    assert opened["timed_out"] is False
    first = next(event for event in agent.events if event["event"] == "target_failed")
    assert (first["phase"], first["reason"]) == ("connect", "timeout")
    assert first["detail"].endswith("within 1s")
