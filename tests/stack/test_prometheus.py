"""Prometheus itself scrapes a running agent, and every series of the contract can be queried."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from agent.sinks.metrics import FAMILIES, SELF_FAMILIES
from agent.starvation import Throttling
from tests.lab.agents import Running, eventually, running
from tests.lab.certificates import Certificates
from tests.lab.http_client import request
from tests.lab.http_servers import HttpServer, response
from tests.lab.misbehaving import echoing, refusing_port
from tests.lab.prometheus import Prometheus, prometheus, promtool_complaints
from tests.lab.remote_write import TAKEN, Scripted
from tests.lab.zone import zone

OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> AsyncIterator[tuple[Running, Prometheus]]:
    """An agent that watches one server of each kind and one that is down, and pushes; scraped every second."""
    directory = tmp_path_factory.mktemp("stack")
    async with (
        echoing() as echo,
        HttpServer(response(body=b"ok"), tls=certificates.good.server_context()) as https,
        zone({"db.test.": ["192.0.2.1"]}) as nameserver,
        Scripted(TAKEN) as receiver,
    ):
        configuration = f"""
defaults: {{interval: 1s, timeout: 1s}}
remote_write: {{url: "{receiver.url()}", interval: 5s}}
pushgateway: {{url: "http://127.0.0.1:{refusing_port()}", interval: 5s}}
targets:
  - {{name: broker, type: tcp, address: "{echo.address}", dialogue: [{{send: PING}}, {{expect: PING}}]}}
  - {{name: api, type: http, url: "{https.url()}", proxy: none, tls: {{ca_file: "{certificates.ca_file}"}}}}
  - {{name: nameserver, type: dns, query: db.test., server: "{nameserver.ip}"}}
  - {{name: down, type: tcp, address: "127.0.0.1:{refusing_port()}"}}
"""
        async with (
            running(directory, configuration, env={"NETPROBE_ANNOTATION_DAG_ID": "orders"}) as agent,
            prometheus(directory, urlsplit(agent.url).netloc) as server,
        ):
            yield agent, server


SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}

PROMISED = [
    family.name + suffix for family in (*FAMILIES, *SELF_FAMILIES) for suffix in SUFFIXES.get(family.type, ("",))
]
PROCESS = [
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
]


@pytest.mark.parametrize("name", [*PROMISED, *PROCESS])
@pytest.mark.asyncio(loop_scope="module")
async def test_every_series_of_the_contract_can_be_queried(lab: tuple[Running, Prometheus], name: str) -> None:
    if name == "netprobe_cpu_throttled_seconds_total" and Throttling.find() is None:
        pytest.skip("this kernel does not tell how long a cgroup was throttled")
    _, server = lab

    async def queried() -> list[dict[str, Any]]:
        return await server.query(name)

    series = await eventually(queried, f"Prometheus to have {name}")
    assert all(entry["metric"]["job"] == "netprobe" for entry in series)


EXPRESSIONS = [
    'netprobe_probe_success{target="broker", type="tcp"} == 1',
    'netprobe_probe_success{target="down"} == 0',
    'netprobe_probe_failures_total{target="down", phase="connect", reason="refused"} > 1',
    'netprobe_probes_total{target="down", result="success"} == 0',
    'rate(netprobe_probes_total{target="broker", result="success"}[1m]) > 0.2',
    'netprobe_http_status_code{target="api"} == 200',
    'netprobe_tls_certificate_expiry_timestamp_seconds{target="api"} > time()',
    'netprobe_dns_queries_per_lookup{target="nameserver"} >= 1',
    'netprobe_phase_duration_seconds_count{target="api", phase="tls"} > 1',
    'histogram_quantile(0.9, rate(netprobe_probe_duration_seconds_bucket{target="broker"}[1m])) < 4.5',
    'time() - netprobe_last_success_timestamp_seconds{target="broker"} < 30',
    'netprobe_target_info{target="down", role="custom"} == 1',
    'netprobe_target_diagnosis{target="down", type="tcp", cause="nothing_listening"} == 1',
    'count by (target) ({target=~".+"}) <= 32',
    "scrape_samples_scraped > 50",
    "up == 1",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_dashboards_and_alerts_will_ask(lab: tuple[Running, Prometheus], expression: str) -> None:
    _, server = lab

    async def queried() -> list[dict[str, Any]]:
        return await server.query(expression)

    assert await eventually(queried, f"{expression} to hold")


@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_else_is_exported(lab: tuple[Running, Prometheus]) -> None:
    """What is not in the contract is not there: neither extra metrics nor `_created` series."""
    _, server = lab

    async def scraped() -> bool:
        return set(PROCESS) <= await server.names()

    await eventually(scraped, "a scrape")
    # Prometheus adds these of its own.
    own = {name for name in await server.names() if name.startswith("scrape_")} | {"up"}
    assert await server.names() - own <= {*PROMISED, *PROCESS}


@pytest.mark.asyncio(loop_scope="module")
async def test_prometheus_negotiated_openmetrics_and_knows_types_and_units(lab: tuple[Running, Prometheus]) -> None:
    """Units exist in OpenMetrics only: that Prometheus knows them shows in which format it was answered."""
    _, server = lab

    async def told() -> dict[str, dict[str, str]]:
        found = await server.metadata()
        return found if "netprobe_probe_duration_seconds" in found else {}

    metadata = await eventually(told, "metadata")
    assert metadata["netprobe_probe_duration_seconds"]["type"] == "histogram"
    assert metadata["netprobe_probe_duration_seconds"]["unit"] == "seconds"
    assert metadata["netprobe_phase_duration_seconds"]["type"] == "summary"
    assert metadata["netprobe_target"]["type"] == "info"
    assert metadata["netprobe_probes"]["type"] == "counter"


@pytest.mark.asyncio(loop_scope="module")
async def test_scrapes_go_well(lab: tuple[Running, Prometheus]) -> None:
    _, server = lab

    async def healthy() -> list[dict[str, Any]]:
        return [target for target in await server.targets() if target["health"] == "up"]

    (target,) = await eventually(healthy, "a healthy scrape")
    assert target["lastError"] == ""


@pytest.mark.asyncio(loop_scope="module")
async def test_promtool_has_nothing_to_say(lab: tuple[Running, Prometheus]) -> None:
    agent, _ = lab

    async def complete() -> str:
        text = (await request(agent.url + "/metrics")).text
        return text if all(name in text for name in PROMISED if "throttled" not in name) else ""

    assert promtool_complaints(await eventually(complete, "every metric")) == ""


def test_promtool_would_say_something() -> None:
    """The test above can fail."""
    assert "no help text" in promtool_complaints("# TYPE bad_thing counter\nbad_thing 1\n")


@pytest.mark.asyncio(loop_scope="module")
async def test_gzip_is_smaller_and_the_same(lab: tuple[Running, Prometheus]) -> None:
    agent, _ = lab
    plain = await request(agent.url + "/metrics", headers={"Accept": OPENMETRICS})
    packed = await request(agent.url + "/metrics", headers={"Accept": OPENMETRICS, "Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["content-type"] == plain.headers["content-type"]
    assert len(packed.body) < len(plain.body) / 3


async def test_low_detail_is_at_most_twelve_series_a_target(tmp_path: Path) -> None:
    """As Prometheus counts them, with a target that fails in changing ways."""
    async with echoing() as echo:
        configuration = f"""
defaults: {{interval: 1s, timeout: 200ms}}
metrics: {{detail: low}}
targets:
  - {{name: tls, type: tcp, address: "{echo.address}", tls: {{}}}}
  - {{name: down, type: tcp, address: "127.0.0.1:{refusing_port()}"}}
"""
        async with (
            running(tmp_path, configuration) as agent,
            prometheus(tmp_path, urlsplit(agent.url).netloc) as server,
        ):

            async def queried() -> list[dict[str, Any]]:
                return await server.query('netprobe_probe_failures_total{target="down"} > 1')

            await eventually(queried, "two failures")
            counts = await server.query('count by (target) ({target=~".+"})')
            assert {entry["metric"]["target"] for entry in counts} == {"tls", "down"}
            assert all(float(entry["value"][1]) <= 12 for entry in counts)
            agent.process.send_signal(signal.SIGTERM)
            assert await agent.ended() == 0
