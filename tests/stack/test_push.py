"""Results of pods nobody scraped: a real Prometheus that is written to, and a real Pushgateway."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.config import load
from agent.model import Phase, Reason, Secret
from agent.net.tls import TlsOptions
from agent.probers.http_options import BasicAuth
from tests.lab.agents import eventually, running
from tests.lab.certificates import Certificates
from tests.lab.http_servers import HttpServer, receive, response
from tests.lab.misbehaving import Server, refusing_port, silent
from tests.lab.outcomes import outcome
from tests.lab.pushing import IDENTITY, Pod
from tests.lab.receivers import Receiver, pushgateway, remote_write_receiver

REFUSED = (Phase.CONNECT, Reason.REFUSED)
WRITE = "/api/v1/write"
AIRFLOW = {
    "NETPROBE_ANNOTATION_DAG_ID": "orders",
    "NETPROBE_ANNOTATION_TASK_ID": "load",
    "NETPROBE_ANNOTATION_RUN_ID": "scheduled__2026-01-01T00:00:00+00:00",
    "NETPROBE_POD_NAME": "orders-load-x7k2",
    "NETPROBE_POD_NAMESPACE": "airflow",
}


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Receiver]:
    async with remote_write_receiver(tmp_path) as started:
        yield started


async def increase(receiver: Receiver, selector: str, by: str = "") -> dict[str, float]:
    """The increase of series over five minutes, each rounded to a whole number, by a label."""
    expression = f"round(increase({selector}[5m]))"
    found = await receiver.query(f"sum by ({by}) ({expression})" if by else expression)
    return {entry["metric"].get(by, ""): float(entry["value"][1]) for entry in found}


# --- exact ----------------------------------------------------------------------------------------------------------


async def test_a_pod_of_three_seconds_that_nobody_scraped_is_counted(receiver: Receiver, tmp_path: Path) -> None:
    """The whole command: started, three seconds of probes, a SIGTERM. What it counted is what Prometheus says."""
    answers = [response("200 OK"), response("200 OK"), response("500 Internal Server Error")]

    async with HttpServer(lambda _: answers.pop(0) if len(answers) > 1 else answers[0]) as server:
        configuration = f"""
defaults: {{interval: 1s, timeout: 500ms}}
remote_write: {{url: "{receiver.url}{WRITE}", labels: {{cluster: west}}}}
targets:
  - {{name: api, type: http, url: "{server.url()}", proxy: none}}
  - {{name: down, type: tcp, address: "127.0.0.1:{refusing_port()}"}}
"""
        async with running(tmp_path, configuration, env=AIRFLOW) as agent:
            began = time.monotonic()

            async def late() -> bool:
                return time.monotonic() - began > 3

            await eventually(late, "three seconds")
            agent.process.send_signal(signal.SIGTERM)
            assert await agent.ended() == 0
        asked = len(server.requests)

    assert asked >= 3
    ok = await increase(receiver, 'netprobe_probes_total{target="api",result="success"}', "dag_id")
    failed = await increase(receiver, 'netprobe_probes_total{target="api",result="failure"}', "dag_id")
    assert ok == {"orders": 2.0}
    assert failed == {"orders": asked - 2.0}
    # A pair that was first counted in the middle of the pod's life.
    pair = 'netprobe_probe_failures_total{target="api",phase="verify",reason="unexpected_status"}'
    assert await increase(receiver, pair, "task_id") == {"load": asked - 2.0}
    buckets = await increase(receiver, 'netprobe_probe_duration_seconds_bucket{target="api",le="+Inf"}', "le")
    assert buckets == {"+Inf": 2.0}
    down = await receiver.value('increase(netprobe_probes_total{target="down",result="failure"}[5m])')
    counted = await receiver.value('last_over_time(netprobe_probes_total{target="down",result="failure"}[5m])')
    assert down is not None
    assert counted is not None
    assert counted >= 2
    assert down == pytest.approx(counted, rel=0.0051), "the half percent that docs/push.md admits"
    # What a pod shows of itself ends with it.
    assert await receiver.query("netprobe_probes_total") == []
    assert await receiver.query('{__name__=~".+",run_id!=""}') == []
    labels = await receiver.api("/api/v1/labels")
    assert "run_id" not in labels
    (series,) = await receiver.query('last_over_time(netprobe_probe_success{target="api"}[5m])')
    assert series["metric"] == {
        "__name__": "netprobe_probe_success",
        "cluster": "west",
        "dag_id": "orders",
        "job": "netprobe",
        "namespace": "airflow",
        "pod": "orders-load-x7k2",
        "target": "api",
        "task_id": "load",
        "type": "http",
    }


@pytest.mark.parametrize(("zeros", "factor"), [(1, 1.5), (2, 1.25), (10, 1.05), (100, 1.005), (1000, 1.0005)])
async def test_how_much_prometheus_adds_depends_on_the_zeros_alone(
    receiver: Receiver, zeros: int, factor: float
) -> None:
    """The figures of docs/push.md: 1 + 1 / (2 * zeros), for counts and buckets alike."""
    async with Pod(remote_write=receiver.url + WRITE, zeros=zeros) as pod:
        for _ in range(8):
            pod.metrics.write(outcome(pod.target))

    async def a_while_later() -> bool:
        """Until the end is further away than Prometheus would extrapolate to it."""
        found = await receiver.value('increase(netprobe_probes_total{result="success"}[1m])')
        return found is not None and abs(found - 8 * factor) < 0.001

    await eventually(a_while_later, f"an increase of 8 * {factor}")
    for name in ("count", 'bucket{le="0.025"}', 'bucket{le="+Inf"}'):
        found = await receiver.value(f"increase(netprobe_probe_duration_seconds_{name}[5m])")
        assert found == pytest.approx(8 * factor), name
    mean = await receiver.value(
        "increase(netprobe_probe_duration_seconds_sum[5m]) / increase(netprobe_probe_duration_seconds_count[5m])"
    )
    assert mean == pytest.approx(0.01), "no ratio is off, with any number of zeros"
    rate = await receiver.value('rate(netprobe_probes_total{result="success"}[5m]) * 300')
    assert rate == pytest.approx(8 * factor)


async def test_many_pods_of_one_task_that_end_together_add_up(receiver: Receiver) -> None:
    async def live(number: int) -> None:
        identity = {**IDENTITY, "pod": f"load-orders-{number}"}
        async with Pod(remote_write=receiver.url + WRITE, identity=identity) as pod:
            for _ in range(number):
                pod.metrics.write(outcome(pod.target, REFUSED))

    await asyncio.gather(*(live(number) for number in range(1, 31)))
    assert await increase(receiver, 'netprobe_probes_total{result="failure"}', "dag_id") == {"orders": 465.0}
    assert await increase(receiver, "netprobe_probe_failures_total", "reason") == {"refused": 465.0}


async def test_a_pod_that_pushes_while_it_lives_is_counted_once(receiver: Receiver) -> None:
    """Periodic pushes, and a pair that begins between two of them."""
    async with Pod(remote_write=receiver.url + WRITE, interval=0.2) as pod:
        for number in range(6):
            pod.metrics.write(outcome(pod.target, REFUSED if number >= 3 else None))
            sent = pod.metrics.pushes["remote_write"].succeeded

            async def pushed(before: int = sent) -> bool:
                return pod.metrics.pushes["remote_write"].succeeded > before + 1

            await eventually(pushed, "another push")
    assert not pod.metrics.pushes["remote_write"].failures
    assert await increase(receiver, "netprobe_probes_total", "result") == {"success": 3.0, "failure": 3.0}
    assert await increase(receiver, "netprobe_probe_failures_total", "reason") == {"refused": 3.0}
    resets = await receiver.query('resets({__name__=~"netprobe_.*_total"}[5m]) > 0')
    assert resets == []


# --- receivers that are in trouble ----------------------------------------------------------------------------------


async def test_a_receiver_that_is_killed_and_comes_back_has_everything(receiver: Receiver) -> None:
    async with Pod(remote_write=receiver.url + WRITE, interval=0.3) as pod:
        pushes = pod.metrics.pushes["remote_write"]
        pod.metrics.write(outcome(pod.target))

        async def pushed() -> bool:
            return pushes.succeeded >= 2

        await eventually(pushed, "two pushes")
        await receiver.kill()
        pod.metrics.write(outcome(pod.target))
        pod.metrics.write(outcome(pod.target, REFUSED))

        async def failed() -> bool:
            return sum(pushes.failures.values()) >= 2

        await eventually(failed, "two failures")
        await receiver.start()
        pod.metrics.write(outcome(pod.target))
    assert pushes.dropped == 0
    assert await increase(receiver, "netprobe_probes_total", "result") == {"success": 3.0, "failure": 1.0}
    assert await increase(receiver, "netprobe_probe_failures_total", "reason") == {"refused": 1.0}


@asynccontextmanager
async def losing_answers(receiver: Receiver, number: int) -> AsyncIterator[Server]:
    """Stands before a receiver, hands every request on, and keeps the first few answers to itself."""
    left = number

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        request = await receive(reader)
        inner_reader, inner = await asyncio.open_connection("127.0.0.1", receiver.port)
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        inner.write(f"{request.method} {request.target} HTTP/1.1\r\n{head}\r\n".encode() + request.body)
        answer = await inner_reader.read(-1)
        inner.close()
        left -= 1
        if left < 0:
            writer.write(answer)
            await writer.drain()

    async with Server(conversation) as between:
        yield between


@pytest.mark.parametrize("lost", [1, 2])
async def test_answers_that_get_lost_lose_nothing_and_count_nothing_twice(receiver: Receiver, lost: int) -> None:
    """Prometheus has what it was sent and refuses to have it again: the push goes on from there."""
    async with (
        losing_answers(receiver, lost) as between,
        Pod(remote_write=f"http://{between.address}{WRITE}", interval=0.3) as pod,
    ):
        pod.metrics.write(outcome(pod.target))

        async def failed() -> bool:
            return bool(pod.metrics.pushes["remote_write"].failures)

        await eventually(failed, "an answer that got lost")
        pod.metrics.write(outcome(pod.target))
        pod.metrics.write(outcome(pod.target, REFUSED))
    assert await increase(receiver, "netprobe_probes_total", "result") == {"success": 2.0, "failure": 1.0}
    assert await increase(receiver, "netprobe_probe_failures_total", "reason") == {"refused": 1.0}
    assert pod.metrics.pushes["remote_write"].dropped == 0


async def test_tls_and_credentials_as_prometheus_wants_them(tmp_path: Path, certificates: Certificates) -> None:
    web = f"""
tls_server_config:
  cert_file: {certificates.good.chain_file}
  key_file: {certificates.good.key_file}
basic_auth_users:
  netprobe: $2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay
"""
    async with remote_write_receiver(
        tmp_path, web_config=web, tls=certificates.ca_file, auth=("netprobe", "test")
    ) as receiver:
        for password, expected in (("wrong", {(Phase.VERIFY, Reason.UNEXPECTED_STATUS): 1}), ("test", {})):
            async with Pod(
                remote_write=receiver.url + WRITE,
                basic_auth=BasicAuth(username="netprobe", password=Secret(password)),
                tls=TlsOptions(ca_file=certificates.ca_file),
            ) as pod:
                pod.metrics.write(outcome(pod.target))
            assert pod.metrics.pushes["remote_write"].failures == expected
        assert await increase(receiver, "netprobe_probes_total", "result") == {"success": 1.0, "failure": 0.0}


# --- the Pushgateway ------------------------------------------------------------------------------------------------


async def groups(gateway: Receiver) -> list[dict[str, str]]:
    """The labels of each group it has."""
    found: list[dict[str, Any]] = await gateway.api("/api/v1/metrics")
    return [group["labels"] for group in found]


async def test_a_gateway_has_the_last_result_of_each_task() -> None:
    async with pushgateway() as gateway:
        for number, pod_name in enumerate(("first", "second"), start=1):
            async with Pod(pushgateway=gateway.url, identity={**IDENTITY, "pod": pod_name}) as pod:
                for _ in range(number):
                    pod.metrics.write(outcome(pod.target, REFUSED))
            assert not pod.metrics.pushes["pushgateway"].failures
        async with Pod(pushgateway=gateway.url, identity={**IDENTITY, "task_id": "extract"}) as pod:
            pod.metrics.write(outcome(pod.target))

        group = {"job": "netprobe", "namespace": "airflow", "dag_id": "orders"}
        expected = [{**group, "task_id": "extract"}, {**group, "task_id": "load"}]
        assert sorted(await groups(gateway), key=str) == expected
        page = await gateway.page("/metrics")
    lines = [
        line for line in page.splitlines() if line.startswith("netprobe_probes_total") and 'task_id="load"' in line
    ]
    assert [line.rpartition(" ")[2] for line in lines if 'result="failure"' in line] == ["2"], "the second pod's alone"
    assert "run_id" not in page
    assert 'pod="' not in page


@pytest.mark.parametrize("dag_id", ["a/b", "daily orders", "größe", "100%", "..", "a?b#c", "x" * 250])
async def test_whatever_a_dag_is_called_its_group_is_called_so(dag_id: str) -> None:
    async with pushgateway() as gateway:
        async with Pod(pushgateway=gateway.url, identity={"dag_id": dag_id, "task_id": "load"}) as pod:
            pod.metrics.write(outcome(pod.target))
        assert await groups(gateway) == [{"job": "netprobe", "dag_id": dag_id, "task_id": "load"}]


async def test_both_at_once(receiver: Receiver) -> None:
    async with pushgateway() as gateway:
        async with Pod(remote_write=receiver.url + WRITE, pushgateway=gateway.url) as pod:
            pod.metrics.write(outcome(pod.target))
        assert len(await groups(gateway)) == 1
    assert await increase(receiver, "netprobe_probes_total", "result") == {"success": 1.0, "failure": 0.0}


@pytest.mark.parametrize("section", ["remote_write", "pushgateway"])
async def test_a_receiver_that_hangs_keeps_no_pod_from_ending_well(section: str, tmp_path: Path) -> None:
    """The whole command: what it could not push it says, and its exit code is that of every pod."""
    async with silent() as receiver:
        configuration = f"""
{section}: {{url: "http://{receiver.address}/"}}
targets: [{{name: down, type: tcp, address: "127.0.0.1:{refusing_port()}"}}]
"""
        async with running(tmp_path, configuration, env=AIRFLOW) as agent:
            agent.process.send_signal(signal.SIGTERM)
            assert await agent.ended() == 0
            failed = await agent.event("push_failed", sink=section)
            assert (failed["phase"], failed["reason"]) == ("request", "timeout")
            assert (await agent.event("push_given_up"))["samples"] > 0
            await agent.event("agent_stopped")


async def test_a_second_signal_cuts_the_last_push_off(tmp_path: Path) -> None:
    async with silent() as receiver:
        configuration = f"""
remote_write: {{url: "http://{receiver.address}/"}}
targets: [{{name: down, type: tcp, address: "127.0.0.1:{refusing_port()}"}}]
"""
        async with running(tmp_path, configuration, env=AIRFLOW) as agent:
            agent.process.send_signal(signal.SIGTERM)

            async def pushing() -> bool:
                return receiver.connections > 0

            await eventually(pushing, "a push")
            agent.process.send_signal(signal.SIGTERM)
            assert await agent.ended() == 0
        assert [event for event in agent.events if event["event"] == "agent_forced"]
        assert not [event for event in agent.events if event["event"].endswith(("_broken", "_raised"))]
        assert "Traceback" not in agent.text


# --- docs/push.md ---------------------------------------------------------------------------------------------------

DOCUMENT = Path(__file__).parents[2] / "docs" / "push.md"


def examples() -> list[dict[str, Any]]:
    """What is shown as YAML."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


def test_the_sections_shown_are_sections_that_load(tmp_path: Path) -> None:
    sections = [example for example in examples() if "groups" not in example]
    assert len(sections) == 3
    for number, section in enumerate(sections):
        target = {"name": "a", "type": "tcp", "address": "a.example.com:1"}
        file = tmp_path / f"{number}.yaml"
        url = {"url": "http://receiver.example.com"}
        file.write_text(
            yaml.safe_dump({"targets": [target], **{name: {**url, **keys} for name, keys in section.items()}})
        )
        load(file, {})


async def test_the_rules_shown_add_pods_up(receiver: Receiver, tmp_path: Path) -> None:
    (group,) = [example for example in examples() if "groups" in example]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(group))
    check = await asyncio.create_subprocess_exec("promtool", "check", "rules", str(tmp_path / "rules.yml"))
    assert await check.wait() == 0
    for number in range(3):
        identity = {**IDENTITY, "pod": f"load-orders-{number}", "node": f"node-{number}"}
        async with Pod(remote_write=receiver.url + WRITE, identity=identity) as pod:
            for _ in range(4):
                pod.metrics.write(outcome(pod.target, REFUSED))
    for rule in group["groups"][0]["rules"]:
        found = {
            tuple(sorted(entry["metric"].items())): float(entry["value"][1]) * 600
            for entry in await receiver.query(rule["expr"])
            if float(entry["value"][1])
        }
        ((labels, counted),) = found.items()
        assert counted == pytest.approx(12 * 1.005)
        assert {"dag_id", "task_id", "target", "namespace"} <= {name for name, _ in labels}
        assert {"pod", "node"}.isdisjoint(name for name, _ in labels)
