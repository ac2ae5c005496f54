"""The whole agent: what goes in at the configuration comes out at the endpoints, and it ends in order."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import os
import re
import select
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent import app
from agent.airflow.identity import Place, read_place, read_task
from agent.app import Agent, pushed_labels
from agent.config import SchedulerOptions, ServerOptions
from agent.diagnosis import Cause
from agent.keys import HostPort
from agent.model import Phase, Reason, Target
from agent.probers import PROBERS
from agent.scheduler import CUT_SECONDS
from agent.server import CannotListen
from tests.lab.agents import Running, config, eventually, running
from tests.lab.command import COMMAND, PATIENCE_SECONDS, environment, netprobe, started
from tests.lab.http_client import request
from tests.lab.leaks import nothing_leaks
from tests.lab.misbehaving import Server, echoing, refusing_port, silent
from tests.lab.targets import target as make_target
from tests.lab.zone import zone

DEADLINE_SECONDS = 1.0


def target(name: str, kind: str = "tcp", *, interval: float = 0.2, timeout: float = 0.2, **keys: Any) -> Target[Any]:
    return dataclasses.replace(
        make_target(kind, **keys),
        name=name,
        interval_seconds=interval,
        timeout_seconds=timeout,
        confirm_interval_seconds=interval,
    )


async def targets_of(agent: Agent) -> dict[str, dict[str, Any]]:
    answer = await request(agent.url + "/targets")
    return {entry["name"]: entry for entry in json.loads(answer.body)["targets"]}


# --- every type -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def silent_nameserver() -> AsyncIterator[dict[str, Any]]:
    async with zone({}, silent=True) as server:
        yield {"query": "db.test.", "server": server.ip}


@asynccontextmanager
async def silent_peer(**keys: Any) -> AsyncIterator[dict[str, Any]]:
    """A server that accepts, and never says a word; `{}` in a value is its address."""
    async with silent() as server:
        yield {name: value.format(server.address) if isinstance(value, str) else value for name, value in keys.items()}


SILENCE: dict[str, list[tuple[Callable[[], AbstractAsyncContextManager[dict[str, Any]]], Phase]]] = {
    "dns": [(silent_nameserver, Phase.RESOLVE)],
    "tcp": [
        (lambda: silent_peer(address="{}", tls={}), Phase.TLS),
        (lambda: silent_peer(address="{}", dialogue=[{"expect": "PONG"}]), Phase.REQUEST),
    ],
    "http": [
        (lambda: silent_peer(url="http://{}/", proxy="none"), Phase.REQUEST),
        (lambda: silent_peer(url="https://{}/", proxy="none"), Phase.TLS),
        (lambda: silent_peer(url="https://db.test/", proxy="http://{}"), Phase.PROXY),
    ],
    "postgres": [(lambda: silent_peer(dsn="postgresql://probe@{}/app"), Phase.LOGIN)],
}
"""For each type, peers that never answer, and the phase in which that shows."""


def test_every_type_has_a_silent_peer_below() -> None:
    assert set(SILENCE) == set(PROBERS)


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, number) for kind, rows in SILENCE.items() for number in range(len(rows))]
)
async def test_trap_t03_no_type_outlives_its_deadline(kind: str, number: int) -> None:
    """Whatever waits, waits no longer than the target's timeout, and the phase that waited has the time."""
    peer, phase = SILENCE[kind][number]
    async with (
        peer() as keys,
        Agent(config(target("t", kind, interval=60.0, timeout=DEADLINE_SECONDS, **keys))) as agent,
    ):

        async def last() -> Any:
            return agent.status.status("t").last

        outcome = await eventually(last, "an outcome")
    assert outcome.failure is not None
    assert (outcome.failure.phase, outcome.failure.reason) == (phase, Reason.TIMEOUT)
    # The event loop may be late on a busy machine; a prober without a deadline would never come back.
    assert DEADLINE_SECONDS <= outcome.duration_seconds < DEADLINE_SECONDS + 30.0
    assert max(outcome.phases, key=lambda reached: outcome.phases[reached]) == phase


# --- from the configuration to the endpoints ------------------------------------------------------------------------


async def test_a_target_is_probed_again_and_again_and_seen_everywhere() -> None:
    async with echoing() as server, Agent(config(target("echo", address=server.address))) as agent:

        async def three() -> bool:
            return server.connections >= 3

        await eventually(three, "three connections")
        metrics = (await request(agent.url + "/metrics")).text
        entry = (await targets_of(agent))["echo"]
        ready = await request(agent.url + "/readyz")
        alive = await request(agent.url + "/healthz")
    assert 'netprobe_probe_success{target="echo",type="tcp"} 1.0' in metrics
    assert entry["state"] == "success"
    assert entry["last"]["success"] is True
    assert entry["configuration"]["address"] == server.address
    assert len(entry["recent"]) >= 2
    assert (ready.status, alive.status) == (200, 200)


async def test_the_very_next_run_sees_that_a_server_died_and_came_back() -> None:
    """Nothing is kept between runs that could hide it."""
    async with Agent(config(target("t", address=f"127.0.0.1:{refusing_port()}"))) as agent:

        async def state() -> str:
            return str((await targets_of(agent))["t"]["state"])

        async def is_failure() -> bool:
            return await state() == "failure"

        await eventually(is_failure, "a failure")
        last = (await targets_of(agent))["t"]["last"]
    assert (last["phase"], last["reason"]) == ("connect", "refused")
    assert last["detail"].startswith("expected ")


async def test_a_bad_target_does_not_hold_up_a_good_one() -> None:
    """Dead, silent and healthy targets side by side, with few slots: each has its rounds."""
    async with silent() as mute, echoing() as server:
        targets = (
            target("refused", address=f"127.0.0.1:{refusing_port()}"),
            target("silent", address=mute.address, tls={}, timeout=0.1),
            target("good", address=server.address),
        )
        async with Agent(config(*targets, scheduler=SchedulerOptions(concurrency=2))) as agent:

            async def all_done() -> bool:
                return all(len(status.recent) >= 4 for status in agent.status.statuses())

            await eventually(all_done, "four outcomes of each target")
            entries = await targets_of(agent)
    assert [entries[name]["state"] for name in ("refused", "silent", "good")] == ["failure", "failure", "success"]
    assert all(brief["success"] for brief in entries["good"]["recent"])


async def test_ready_means_a_first_result_of_every_target_or_time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that never answers makes the agent wait for a while, and not for ever."""
    monkeypatch.setattr(app, "READY_SECONDS", 1.0)
    async with silent() as mute, echoing() as server:
        slow = target("slow", address=mute.address, tls={}, interval=120.0, timeout=100.0)
        async with Agent(config(slow, target("quick", address=server.address))) as agent:
            began = asyncio.get_running_loop().time()
            first = await request(agent.url + "/readyz")

            async def is_ready() -> bool:
                return (await request(agent.url + "/readyz")).status == 200

            await eventually(is_ready, "readiness")
            waited = asyncio.get_running_loop().time() - began
            assert (await request(agent.url + "/startupz")).status == 200
            await agent.aclose(drain_seconds=0.0)
    assert first.status == 503
    assert first.text.startswith("waiting for the first result of slow")
    assert waited >= 0.9


async def test_tls_contexts_exist_before_the_first_run(tmp_path: Path) -> None:
    """Making one takes longer than most probes: the first run of each target would look slow.

    One that cannot be made is that target's failure and nobody else's.
    """

    def contexts() -> int:
        return sum(isinstance(thing, ssl.SSLContext) for thing in gc.get_objects())

    unusable = target("unusable", address="127.0.0.1:1", tls={"ca_file": str(tmp_path / "absent")}, interval=60.0)
    usable = target("usable", address="127.0.0.1:1", tls={}, interval=60.0)
    agent = Agent(config(unusable, usable))
    before = contexts()
    await agent.start()
    try:
        assert agent.status.waiting == ["unusable", "usable"]
        assert contexts() == before + 1
    finally:
        await agent.aclose()


async def test_an_agent_without_targets_is_ready() -> None:
    async with Agent(config()) as agent:
        for path in ("/readyz", "/healthz", "/startupz", "/metrics", "/targets", "/diagnosis"):
            assert (await request(agent.url + path)).status == 200


async def test_a_private_address_written_as_a_number_is_warned_of_at_the_start(tmp_path: Path) -> None:
    """Even while it works. Here a proxy is asked for it, so that nothing is sent there."""
    async with echoing() as proxy:
        literal = f"{{name: literal, type: http, url: 'http://10.1.2.3/x?key=1', proxy: 'http://{proxy.address}'}}"
        configuration = f"targets: [{literal}]\ndiagnosis: {{experiments: false}}\n"
        async with running(tmp_path, configuration) as agent:
            event = await agent.event("target_address_hardcoded")
            await agent.event("target_failed")
    assert (event["level"], event["target"], event["address"]) == ("warning", "literal", "http://10.1.2.3/x")
    assert event["detail"].startswith("expected the name of a Service, got the private address 10.1.2.3: ")
    assert len([event for event in agent.events if event["event"] == "target_address_hardcoded"]) == 1


async def test_why_a_target_fails_is_seen_everywhere(tmp_path: Path) -> None:
    """On the page, in the metric and in one event; and what was asked to find out counts as no outcome."""
    configuration = f"""
defaults: {{interval: 60s, timeout: 1s, confirm_runs: 0}}
targets: [{{name: broker, type: tcp, address: "127.0.0.1:{refusing_port()}"}}]
"""
    async with running(tmp_path, configuration) as agent:
        event = await agent.event("diagnosis_changed")
        page = json.loads((await request(agent.url + "/diagnosis")).body)
        metrics = (await request(agent.url + "/metrics")).text
        (entry,) = json.loads((await request(agent.url + "/targets")).body)["targets"]
    (cause,) = event["causes"]
    (verdict,) = page["verdicts"]
    assert verdict["cause"] == cause
    assert verdict["targets"] == ["broker"]
    assert (page["version"], page["healthy"], page["waiting"]) == (1, False, [])
    assert page["held_seconds"] > 0
    assert f'netprobe_diagnosis{{cause="{cause}"}} 1.0' in metrics
    assert metrics.count('netprobe_diagnosis{cause="') == len(Cause)
    assert 'netprobe_probes_total{result="failure",target="broker",type="tcp"} 1.0' in metrics
    assert len(entry["recent"]) == 1


async def test_nothing_is_asked_where_the_configuration_says_so(tmp_path: Path) -> None:
    configuration = f"""
targets: [{{name: broker, type: tcp, address: "127.0.0.1:{refusing_port()}"}}]
diagnosis: {{experiments: false}}
"""
    async with running(tmp_path, configuration) as agent:
        await agent.event("diagnosis_changed")
        page = json.loads((await request(agent.url + "/diagnosis")).body)
    assert (page["experiments"], page["budget"], page["healthy"]) == ([], None, False)


async def test_two_agents_in_one_process_have_nothing_in_common() -> None:
    async with echoing() as server:
        first = Agent(config(target("a", address=server.address)))
        async with first, Agent(config(target("b", address=server.address))) as second:
            assert 'target="a"' not in (await request(second.url + "/metrics")).text


async def test_an_agent_leaves_nothing_behind() -> None:
    """Started, used and closed again, ten times: no descriptor, thread, task or connection remains."""
    async with echoing() as server, zone({"db.test.": ["127.0.0.1"]}) as nameserver:

        async def once() -> None:
            tcp = target("tcp", address=server.address)
            dns = target("dns", "dns", query="db.test.", server=nameserver.ip)
            async with Agent(config(tcp, dns)) as agent:

                async def probed() -> bool:
                    return not agent.status.waiting

                await eventually(probed, "a first outcome of each target")
                await request(agent.url + "/metrics")

        await once()
        async with nothing_leaks():
            for _ in range(10):
                await once()


SECRETS = {
    "PASSWORD": "s3cret-of-basic-auth",
    "TOKEN": "s3cret-of-a-bearer",
    "HEADER": "s3cret-of-a-header",
    "DSN": "s3cret-of-a-dsn",
    "BODY": "s3cret-of-a-body",
    "PROXY": "s3cret-of-a-proxy",
    "QUERY": "s3cret-of-a-query",
}


async def test_no_secret_reaches_a_page_a_metric_or_the_log(tmp_path: Path) -> None:
    """Every secret a target can hold, with targets that fail in ways that quote what they sent and got."""
    async with echoing() as echo:
        configuration = f"""
defaults: {{interval: 1s, timeout: 500ms}}
log: {{level: debug}}
targets:
  - {{name: basic, type: http, url: "http://{echo.address}/?x=${{QUERY}}", proxy: none,
      basic_auth: {{username: probe, password: "${{PASSWORD}}"}}, headers: {{X-Api-Key: "${{HEADER}}"}},
      method: POST, body: "${{BODY}}"}}
  - {{name: bearer, type: http, url: "http://{echo.address}/", proxy: none, bearer_token: "${{TOKEN}}"}}
  - {{name: proxied, type: http, url: "http://{echo.address}/", proxy: "http://user:${{PROXY}}@{echo.address}"}}
  - {{name: database, type: postgres, dsn: "postgresql://probe:${{DSN}}@{echo.address}/app", mode: login}}
"""
        async with running(tmp_path, configuration, env=SECRETS) as agent:

            async def all_failed() -> bool:
                entries = json.loads((await request(agent.url + "/targets")).body)["targets"]
                return all(len(entry["recent"]) >= 2 for entry in entries)

            await eventually(all_failed, "two outcomes of each target")
            shown = [(await request(agent.url + path)).text for path in ("/", "/metrics", "/targets", "/diagnosis")]
            shown.append(
                (await request(agent.url + "/metrics", headers={"Accept": "application/openmetrics-text"})).text
            )
            agent.process.send_signal(signal.SIGTERM)
            assert await agent.ended() == 0
            shown.append(agent.text)
    for name, secret in SECRETS.items():
        for text in shown:
            assert secret not in text, name


# --- the end --------------------------------------------------------------------------------------------------------


class Gate(Server):
    """Answers PING with PONG once it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.asked = asyncio.Event()
        super().__init__(self._talk)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"PING")
        self.asked.set()
        await self.may_answer.wait()
        writer.write(b"PONG")
        await writer.drain()
        await reader.read()


def gated(server: Server) -> str:
    return f"""
log: {{level: debug}}
targets:
  - {{name: gate, type: tcp, address: "{server.address}", dialogue: [{{send: PING}}, {{expect: PONG}}],
      interval: 60s, timeout: 50s}}
"""


async def test_trap_t18_what_is_in_flight_at_sigterm_is_finished(tmp_path: Path) -> None:
    """The peer gets a whole conversation, the outcome is kept and can be read until the end, and the exit code is 0."""
    async with Gate() as server, running(tmp_path, gated(server)) as agent:
        await asyncio.wait_for(server.asked.wait(), 60.0)
        agent.process.send_signal(signal.SIGTERM)
        await agent.event("agent_stopping")
        assert (await request(agent.url + "/metrics")).status == 200
        assert (await request(agent.url + "/healthz")).status == 200
        server.may_answer.set()
        assert await agent.ended() == 0
        probed = await agent.event("target_probed", target="gate")
        assert probed["success"] is True
        assert (await agent.event("agent_stopped"))["cut_off"] == []


async def test_trap_t18_the_drain_is_bounded(tmp_path: Path) -> None:
    """A peer that never answers does not keep the pod from ending: its run is cut off, and what it found is kept."""
    async with Gate() as server, running(tmp_path, gated(server)) as agent:
        await asyncio.wait_for(server.asked.wait(), 60.0)
        agent.process.send_signal(signal.SIGTERM)
        assert (await agent.event("agent_stopping"))["drain_seconds"] == app.DRAIN_SECONDS
        assert await agent.ended() == 0
        assert (await agent.event("agent_stopped"))["cut_off"] == ["gate"]
        (probed,) = [event for event in agent.events if event["event"] == "target_probed"]
    assert (probed["success"], probed["phase"], probed["reason"]) == (False, "request", "timeout")
    within = float(re.findall(r"within ([0-9.]+)s, when netprobe had to end$", probed["detail"])[0])
    assert app.DRAIN_SECONDS <= within < 50.0
    assert probed["phases_seconds"]["request"] == pytest.approx(within, abs=0.2)


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with Gate() as server, running(tmp_path, gated(server)) as agent:
        await asyncio.wait_for(server.asked.wait(), 60.0)
        agent.process.send_signal(signal.SIGTERM)
        await agent.event("agent_stopping")
        agent.process.send_signal(signal.SIGTERM)
        assert await agent.ended() == 0
        await agent.event("agent_forced")
        assert not [event for event in agent.events if event["event"] == "agent_stopped"]


async def test_a_log_that_nobody_reads_keeps_it_neither_from_working_nor_from_ending(tmp_path: Path) -> None:
    """Whoever collects standard error may stall for longer than a pod has to end."""
    file = tmp_path / "netprobe.yaml"
    names = "".join(f"  - {{name: t{number}, type: tcp, address: '127.0.0.1:1'}}\n" for number in range(200))
    file.write_text(f"log: {{level: debug}}\ndefaults: {{interval: 1s, timeout: 1s}}\ntargets:\n{names}")
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "wb") as writer:
        async with started("run", "--config", str(file), "--listen", "127.0.0.1:0", stderr=writer.fileno()) as process:
            first = await asyncio.to_thread(reader.readline)
            url = json.loads(first)["url"]

            async def full() -> bool:
                return not select.select([], [writer], [], 0)[1]

            await eventually(full, "a full pipe")

            async def alive() -> bool:
                return (await request(url + "/healthz")).status == 200

            await eventually(alive, "an answer")
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_an_idle_agent_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    """Airflow blames the sidecar first when it exits with anything else."""
    async with running(tmp_path, "targets: [{name: t, type: tcp, address: '127.0.0.1:1'}]") as agent:
        agent.process.send_signal(number)
        assert await agent.ended() == 0
    assert "Traceback" not in agent.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_signals_that_never_cease_do_not_change_the_exit_code(tmp_path: Path, number: signal.Signals) -> None:
    """Neither while it ends nor while the interpreter does."""
    async with running(tmp_path, "targets: [{name: t, type: tcp, address: '127.0.0.1:1'}]") as agent:
        # By descriptor: the method of the process would reap it, and asyncio lose its exit code.
        process = os.pidfd_open(agent.process.pid)
        ended = asyncio.create_task(agent.ended())
        try:
            while not ended.done():
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, number)
                await asyncio.sleep(0.002)
        finally:
            os.close(process)
        assert await ended == 0
    assert "Traceback" not in agent.text


async def test_a_port_that_is_taken_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    async with echoing() as server:
        file = tmp_path / "netprobe.yaml"
        file.write_text("targets: [{name: t, type: tcp, address: '127.0.0.1:1'}]\n")
        done = await netprobe("run", "--config", str(file), "--listen", server.address)
    assert done.code == 3
    assert done.stdout == ""
    assert done.stderr == f"netprobe: cannot listen on {server.address}: address already in use\n"


async def test_an_agent_that_cannot_listen_leaves_nothing_behind() -> None:
    async with echoing() as server:
        taken = dataclasses.replace(config(), server=ServerOptions(listen=HostPort(server.host, server.port)))
        async with nothing_leaks():
            for _ in range(5):
                with pytest.raises(CannotListen):
                    await Agent(taken).start()


async def test_what_a_run_found_while_draining_is_still_served(tmp_path: Path) -> None:
    """The last result of a short-lived pod is the one that matters most."""
    async with Gate() as server:
        one = target(
            "gate",
            address=server.address,
            dialogue=[{"send": "PING"}, {"expect": "PONG"}],
            interval=60.0,
            timeout=50.0,
        )
        agent = Agent(config(one))
        await agent.start()
        await asyncio.wait_for(server.asked.wait(), 60.0)
        closing = asyncio.create_task(agent.aclose(drain_seconds=50.0))
        assert (await targets_of(agent))["gate"]["state"] == "unknown"
        server.may_answer.set()
        await closing
    assert agent.status.status("gate").last is not None


# --- whose pod it is ------------------------------------------------------------------------------------------------

NOTHING_TO_FIND = "targets: [{name: t, type: tcp, address: '127.0.0.1:1', interval: 60s, confirm_runs: 0}]"
IDENTITY = {
    "NETPROBE_ANNOTATION_DAG_ID": "etl",
    "NETPROBE_ANNOTATION_TASK_ID": "load",
    "NETPROBE_ANNOTATION_RUN_ID": "scheduled__2026-01-01T00:00:00+00:00",
    "NETPROBE_ANNOTATION_TRY_NUMBER": "2",
    "NETPROBE_ANNOTATION_MAP_INDEX": "",
    "NETPROBE_POD_NAME": "etl-load-x7",
    "NETPROBE_POD_NAMESPACE": "airflow",
    "NETPROBE_NODE_NAME": "",
}
TOLD = {"dag_id": "nightly", "task_id": "copy", "run_id": "manual__1", "try_number": 1, "map_index": 3}


async def test_whose_results_they_are_is_in_every_event_and_on_the_page(tmp_path: Path) -> None:
    known = {
        "dag_id": "etl",
        "task_id": "load",
        "run_id": "scheduled__2026-01-01T00:00:00+00:00",
        "try_number": "2",
        "pod": "etl-load-x7",
        "namespace": "airflow",
    }
    async with running(tmp_path, NOTHING_TO_FIND, env=IDENTITY) as agent:
        await agent.event("target_failed")
        page = json.loads((await request(agent.url + "/diagnosis")).body)
        metrics = (await request(agent.url + "/metrics")).text
        # The pod knows better than whoever tells.
        told = await request(agent.url + "/task", method="POST", body=json.dumps({**TOLD, "state": "running"}).encode())
        after = (await request(agent.url + "/metrics")).text
        agent.process.send_signal(signal.SIGTERM)
        assert await agent.ended() == 0
    own = [event for event in agent.events if not event["event"].startswith("task_")]
    assert {event["event"] for event in own} >= {"agent_started", "target_failed", "agent_stopped"}
    for event in own:
        assert known.items() <= event.items(), event
        assert not {"map_index", "node"} & event.keys()
    assert page["task"] == {name: known[name] for name in ("dag_id", "task_id", "run_id", "try_number")}
    assert page["place"] == {"pod": "etl-load-x7", "namespace": "airflow"}
    series = [line for line in metrics.splitlines() if "run_id" in line]
    labels = 'dag_id="etl",map_index="",run_id="scheduled__2026-01-01T00:00:00+00:00",task_id="load",try_number="2"'
    assert series == [f"netprobe_task_info{{{labels}}} 1.0"]
    assert told.status == 204
    assert [line for line in after.splitlines() if "run_id" in line] == series


async def test_a_worker_of_many_tasks_is_told_which(tmp_path: Path) -> None:
    async with running(tmp_path, NOTHING_TO_FIND) as agent:
        body = json.dumps({**TOLD, "state": "running"}).encode()
        assert (await request(agent.url + "/task", method="POST", body=body)).status == 204
        page = json.loads((await request(agent.url + "/diagnosis")).body)
        metrics = (await request(agent.url + "/metrics")).text
        await agent.event("task_started", dag_id="nightly", map_index="3")
        body = json.dumps({**TOLD, "state": "ended"}).encode()
        assert (await request(agent.url + "/task", method="POST", body=body)).status == 204
        assert "netprobe_task_info" not in (await request(agent.url + "/metrics")).text
        await agent.event("task_ended", dag_id="nightly", map_index="3")
    assert (page["task"], page["place"]) == (None, {})
    assert page["tasks"] == [{name: str(value) for name, value in TOLD.items()}]
    assert [line for line in metrics.splitlines() if "nightly" in line] == [
        'netprobe_task_info{dag_id="nightly",map_index="3",run_id="manual__1",task_id="copy",try_number="1"} 1.0'
    ]


# --- the last moments -----------------------------------------------------------------------------------------------


async def test_the_pod_itself_can_ask_it_to_end(tmp_path: Path) -> None:
    """The same end as at a SIGTERM, and a signal that comes then is the second one."""
    async with Gate() as server, running(tmp_path, gated(server)) as agent:
        await asyncio.wait_for(server.asked.wait(), 60.0)
        assert (await request(agent.url + "/quitquitquit", method="POST")).status == 200
        await agent.event("agent_stopping")
        agent.process.send_signal(signal.SIGTERM)
        assert await agent.ended() == 0
        await agent.event("agent_forced")


async def test_a_pod_that_lives_for_less_than_a_moment_has_a_result_of_every_target() -> None:
    """Those whose first run has not begun are run at once, and what waits for an answer then is a result."""
    async with silent() as mute, echoing() as server:
        options = make_target("tcp", address=mute.address, dialogue=[{"expect": "hello"}]).options
        targets = [target(f"good-{number}", address=server.address, interval=60.0) for number in range(20)]
        mutes = dataclasses.replace(target("mute", address=mute.address, interval=60.0, timeout=50.0), options=options)
        async with Agent(config(*targets, mutes)) as agent:
            assert agent.status.waiting
            await agent.aclose()
        assert agent.status.waiting == []
        last = agent.status.status("mute").last
    assert last is not None
    assert last.failure is not None
    assert (last.failure.phase, last.failure.reason) == (Phase.REQUEST, Reason.TIMEOUT)
    assert last.failure.detail.endswith("when netprobe had to end")
    assert all(status.last is not None and status.last.success for status in agent.status.statuses() if
               status.target.name != "mute")  # fmt: skip


async def test_a_cut_is_no_result_of_a_target_that_has_another() -> None:
    """A server that is slower than the end is not broken."""
    async with Gate() as server:
        server.may_answer.set()
        one = dataclasses.replace(
            target("t", address=server.address, dialogue=[{"send": "PING"}, {"expect": "PONG"}], timeout=50.0),
            interval_seconds=0.5,
        )
        async with Agent(config(one)) as agent:

            async def known() -> bool:
                return agent.status.status("t").last is not None

            await eventually(known, "a first result")
            server.may_answer.clear()
            server.asked.clear()
            await asyncio.wait_for(server.asked.wait(), 60.0)
            await agent.aclose()
        recent = agent.status.status("t").recent
    assert all(outcome.success for outcome in recent)


async def test_what_fails_is_looked_at_once_more_where_it_is_due_soon() -> None:
    """Whether it still does is what the last words are about."""
    port = refusing_port()
    soon = target("soon", address=f"127.0.0.1:{port}", interval=4.0, timeout=1.0)
    later = target("later", address=f"127.0.0.1:{port}", interval=3600.0, timeout=1.0)
    agent = Agent(config(soon, later))
    await agent.start()

    async def both_and_why() -> bool:
        healthy = agent._diagnostician.current.diagnosis.healthy
        return not agent.status.waiting and not healthy

    await eventually(both_and_why, "a first result of both, and a verdict")
    before = {status.target.name: len(status.recent) for status in agent.status.statuses()}
    late = echoing()
    late.port = port
    async with late:
        await agent.aclose()
    after = {status.target.name: status.recent for status in agent.status.statuses()}
    assert after["soon"][0].success
    assert len(after["later"]) == before["later"]


async def test_a_healthy_pod_ends_without_asking_again() -> None:
    async with echoing() as server:
        agent = Agent(config(target("t", address=server.address, interval=4.0)))
        await agent.start()

        async def probed() -> bool:
            return not agent.status.waiting and agent._diagnostician.current.since is not None

        await eventually(probed, "a first result")
        connections = server.connections
        await agent.aclose()
        assert server.connections == connections


@pytest.mark.parametrize("fails", [True, False], ids=["broken", "healthy"])
async def test_kubernetes_is_left_the_last_words(tmp_path: Path, fails: bool) -> None:  # noqa: FBT001
    """In a mount namespace that has the file the kubelet makes."""
    file, kubelets = tmp_path / "netprobe.yaml", tmp_path / "termination"
    kubelets.write_text("")
    async with echoing() as server:
        address = f"127.0.0.1:{refusing_port()}" if fails else server.address
        file.write_text(f"targets: [{{name: broker, type: tcp, address: '{address}'}}]\n")
        script = 'mount -t tmpfs tmpfs /dev && : >/dev/termination-log && mount --bind "$1" /dev/termination-log'
        script += ' && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && shift && exec "$@"'
        command = ("unshare", "--mount", "sh", "-c", script, "sh", str(kubelets), *COMMAND)
        process = await asyncio.create_subprocess_exec(
            *command, "run", "--config", str(file), "--listen", "127.0.0.1:0",
            env=environment(), cwd="/", stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        agent = Running(process)
        try:
            await agent.event("target_failed" if fails else "target_first_succeeded")
            process.send_signal(signal.SIGTERM)
            assert await agent.ended() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await agent.close()
    text = kubelets.read_text("utf-8")
    if fails:
        assert re.match(r"netprobe: \w+ \(\w+ confidence\): .*refuse", text), text
        assert "broker" in text
    else:
        assert text == "netprobe: no target fails, and nothing stands out.\n"


class Receiver:
    """A pusher that takes its time, or breaks."""

    def __init__(self, url: str, *, seconds: float = 0.0, error: Exception | None = None) -> None:
        self._url, self._seconds, self._error = url, seconds, error
        self.closed: list[tuple[float, bool]] = []
        """How long it was given, and whether the metrics could still be read then."""

    def start(self) -> None:
        """There is nothing to begin."""

    async def aclose(self, within_seconds: float) -> None:
        self.closed.append((within_seconds, (await request(self._url + "/metrics")).status == 200))
        if self._error is not None:
            raise self._error
        await asyncio.sleep(self._seconds)


async def test_everything_is_pushed_at_the_end_within_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Side by side, whatever one of them does, after the last run and before the pages go."""
    monkeypatch.setattr(app, "FLUSH_SECONDS", 0.2)
    with capture_logs() as logged:
        async with echoing() as server:
            agent = Agent(config(target("t", address=server.address, interval=60.0)))
            await agent.start()
            broken, endless = RuntimeError("a defect"), 3600.0
            receivers = (Receiver(agent.url), Receiver(agent.url, error=broken), Receiver(agent.url, seconds=endless))
            agent._pushers = receivers
            async with asyncio.timeout(PATIENCE_SECONDS):
                await agent.aclose()
    assert [receiver.closed for receiver in receivers] == [[(0.2, True)]] * 3
    names = [event["event"] for event in logged]
    assert names.index("target_first_succeeded") < names.index("push_raised")
    assert {"push_raised", "push_unfinished", "agent_stopped"} <= set(names)


async def test_a_receiver_that_never_answers_keeps_no_pod(tmp_path: Path) -> None:
    """Nor do two, with a target that does not answer either: five seconds at most, and what is lost is counted."""
    async with silent() as mute:
        configuration = f"""
targets: [{{name: t, type: tcp, address: "{mute.address}", dialogue: [{{expect: hello}}]}}]
remote_write: {{url: "http://{mute.address}/api/v1/write", proxy: none}}
pushgateway: {{url: "http://{mute.address}", proxy: none}}
"""
        async with running(tmp_path, configuration) as agent:
            agent.process.send_signal(signal.SIGTERM)
            assert await agent.ended() == 0
    assert "Traceback" not in agent.text
    stopping, stopped = (await agent.event("agent_stopping"), await agent.event("agent_stopped"))
    took = datetime.fromisoformat(stopped["timestamp"]) - datetime.fromisoformat(stopping["timestamp"])
    # What is waited for has a bound each; the rest is the machine's.
    bounds = app.DRAIN_SECONDS + CUT_SECONDS + app.FLUSH_SECONDS + app.FLUSH_GRACE_SECONDS
    assert bounds <= 5.0
    assert timedelta(seconds=app.FLUSH_SECONDS - 0.1) <= took < timedelta(seconds=bounds + 30.0)
    assert {event["sink"] for event in agent.events if event["event"] == "push_given_up"} >= {"remote_write"}


def test_what_is_pushed_names_the_task_and_never_a_run() -> None:
    labels = pushed_labels(read_task(IDENTITY), read_place(IDENTITY))
    assert labels == {"namespace": "airflow", "pod": "etl-load-x7", "dag_id": "etl", "task_id": "load"}
    assert pushed_labels(None, Place()) == {}
