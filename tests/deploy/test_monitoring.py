"""Prometheus, configured by its operator or by hand, scrapes the right pods and names their tasks."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import yaml

from agent.airflow.identity import TASK_KEYS
from agent.listening import DEFAULT_PORT
from tests.lab.agents import Running, eventually, running
from tests.lab.misbehaving import refusing_port
from tests.lab.prometheus import Prometheus, configured_prometheus

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
MONITOR = yaml.safe_load((DEPLOY / "kustomize/components/pod-monitor/podmonitor.yaml").read_text("utf-8"))
SCRAPE_FILE = DEPLOY / "prometheus/scrape-config.yaml"
(SCRAPE,) = yaml.safe_load(SCRAPE_FILE.read_text("utf-8"))["scrape_configs"]
(ENDPOINT,) = MONITOR["spec"]["podMetricsEndpoints"]

Rule = dict[str, Any]


def snake(rules: list[Rule]) -> list[Rule]:
    """Rules of a custom resource in the words of Prometheus' own configuration."""
    return [
        {re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", key): value for key, value in rule.items()} for rule in rules
    ]


def by_operator() -> list[Rule]:
    """The rules that the Prometheus Operator 0.7x makes of a PodMonitor's endpoint (`generatePodMonitorConfig`)."""
    return [
        {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)", "action": "drop"},
        {
            "source_labels": ["__meta_kubernetes_pod_container_port_name"],
            "regex": ENDPOINT["port"],
            "action": "keep",
        },
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        {"target_label": "job", "replacement": "airflow/netprobe"},
        {"target_label": "endpoint", "replacement": ENDPOINT["port"]},
        *snake(ENDPOINT["relabelings"]),
    ]


# --- pods, as Prometheus finds them ----------------------------------------------------------------------------------


def pod(name: str, *, phase: str = "Running", port: str = "netprobe", **labels: str) -> dict[str, str]:
    """What `kubernetes_sd_configs` says of one port of one container. A name is prefixed: label_dag_id."""
    return {
        "__meta_kubernetes_namespace": "airflow",
        "__meta_kubernetes_pod_name": name,
        "__meta_kubernetes_pod_phase": phase,
        "__meta_kubernetes_pod_container_name": "netprobe" if port == "netprobe" else "base",
        "__meta_kubernetes_pod_container_port_name": port,
        "__meta_kubernetes_pod_container_init": "true",
        **{f"__meta_kubernetes_pod_{key}": value for key, value in labels.items()},
    }


RUN = {
    "label_run_id": "scheduled__2026-01-01T0000000000-b36726f5d",
    "annotation_run_id": "scheduled__2026-01-01T00:00:00+00:00",
    "label_kubernetes_executor": "True",
    "label_airflow_worker": "7",
}
EXECUTOR = {
    **RUN,
    "label_dag_id": "MyDAG-b6f98aaa7",
    "annotation_dag_id": "My DAG é",
    "label_task_id": "load",
    "annotation_task_id": "load",
}
OPERATOR = {"label_dag_id": "MyDAG-b6f98aaa7", "label_task_id": "spark", "label_kubernetes_pod_operator": "True"}

PODS = [
    pod("load-try-1", label_try_number="1", **EXECUTOR),
    pod("load-try-2", label_try_number="2", **EXECUTOR),
    pod("load-starting", phase="Pending", **EXECUTOR),
    pod("load-succeeded", phase="Succeeded", **EXECUTOR),
    pod("load-failed", phase="Failed", **EXECUTOR),
    pod("load-try-1", port="http", **EXECUTOR),
    pod("spark-driver", **OPERATOR),
    pod("celery-worker-0", label_tier="airflow", label_component="worker"),
]

TASKS = {
    "load-try-1": {"dag_id": "My DAG é", "task_id": "load"},
    "load-try-2": {"dag_id": "My DAG é", "task_id": "load"},
    "load-starting": {"dag_id": "My DAG é", "task_id": "load"},
    "spark-driver": {"dag_id": "MyDAG-b6f98aaa7", "task_id": "spark"},
    "celery-worker-0": {},
}
"""What the series of each pod that is to be scraped must say of its task."""

IDENTITY = {
    "NETPROBE_ANNOTATION_DAG_ID": "My DAG é",
    "NETPROBE_ANNOTATION_TASK_ID": "load",
    "NETPROBE_ANNOTATION_RUN_ID": RUN["annotation_run_id"],
    "NETPROBE_POD_NAME": "load-try-1",
    "NETPROBE_POD_NAMESPACE": "airflow",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scraped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Running, Prometheus]]:
    """An agent that all these pods lead to, scraped by both sets of rules."""
    directory = tmp_path_factory.mktemp("monitoring")
    configuration = f"""
diagnosis: {{experiments: false}}
targets: [{{name: down, type: tcp, address: "127.0.0.1:{refusing_port()}"}}]
"""
    async with running(directory, configuration, env=IDENTITY) as agent:
        pods = directory / "pods.json"
        pods.write_text(json.dumps([{"targets": [urlsplit(agent.url).netloc], "labels": labels} for labels in PODS]))
        discovery = [{"files": [str(pods)]}]
        jobs = [
            {
                "job_name": "podMonitor/airflow/netprobe/0",
                "file_sd_configs": discovery,
                "metrics_path": ENDPOINT["path"],
                "sample_limit": MONITOR["spec"]["sampleLimit"],
                "relabel_configs": by_operator(),
                "metric_relabel_configs": snake(ENDPOINT["metricRelabelings"]),
            },
            {**{key: value for key, value in SCRAPE.items() if "sd_configs" not in key}, "file_sd_configs": discovery},
        ]
        for job in jobs:
            job |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
        async with configured_prometheus(directory, yaml.safe_dump({"scrape_configs": jobs})) as server:
            yield agent, server


WAYS = {"the operator": ('endpoint="netprobe"', {"endpoint", "container"}), "the configuration": ('endpoint=""', set())}
"""By way of telling Prometheus: which series are of this way, and the labels that are only there."""


async def series_of(server: Prometheus, name: str, way: str, pods: set[str]) -> dict[str, list[dict[str, str]]]:
    """The labels of the series of this name, by pod, once all these pods have some."""

    async def queried() -> dict[str, list[dict[str, str]]] | None:
        found: dict[str, list[dict[str, str]]] = {}
        for entry in await server.query(f"{name}{{{WAYS[way][0]}}}"):
            found.setdefault(entry["metric"].get("pod", ""), []).append(entry["metric"])
        return found if pods <= found.keys() else None

    found: dict[str, list[dict[str, str]]] = await eventually(queried, f"{name} of {sorted(pods)}")
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.asyncio(loop_scope="module")
async def test_each_pod_that_runs_is_scraped_once_and_names_its_task(
    scraped: tuple[Running, Prometheus], way: str
) -> None:
    """The whole ids where there are annotations, those of the labels where not, none of a pod that has none."""
    _, server = scraped
    found = await series_of(server, "netprobe_config_last_reload_successful", way, set(TASKS))

    assert found.keys() == TASKS.keys()
    for name, ids in TASKS.items():
        (labels,) = found[name]
        expected = {"job": "netprobe", "namespace": "airflow", "pod": name, "instance": name, **ids}
        own = {key: value for key, value in labels.items() if key not in {"__name__", *WAYS[way][1]}}
        assert own == expected
        assert labels.keys() - own.keys() == {"__name__", *WAYS[way][1]}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.asyncio(loop_scope="module")
async def test_only_one_series_of_a_pod_names_the_run(scraped: tuple[Running, Prometheus], way: str) -> None:
    """As every run has an id of its own. And what the agent says of its task, it says once."""
    _, server = scraped
    found = await series_of(server, "netprobe_task_info", way, set(TASKS))

    (labels,) = found["load-try-1"]
    assert labels["run_id"] == IDENTITY["NETPROBE_ANNOTATION_RUN_ID"]
    assert labels.keys() - WAYS[way][1] <= {"__name__", "job", "instance", "pod", "namespace", "node", *TASK_KEYS}
    assert {entry["metric"]["__name__"] for entry in await server.query('{run_id!=""}')} == {"netprobe_task_info"}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_pod_stays_within_what_may_be_scraped(scraped: tuple[Running, Prometheus]) -> None:
    """The limit holds a hundred targets, by the sizes of docs/metrics.md."""
    _, server = scraped

    async def queried() -> list[dict[str, Any]]:
        return await server.query("scrape_samples_scraped > 0")

    text = (DEPLOY.parent / "docs" / "metrics.md").read_text("utf-8")
    own = int(re.findall(r"The agent itself adds (\d+) series", text)[0])
    assert own + 32 * 100 < MONITOR["spec"]["sampleLimit"] == SCRAPE["sample_limit"]
    for entry in await eventually(queried, "a scrape"):
        # Beside its own it has those of one target, and the few of its process.
        assert float(entry["value"][1]) <= own + 32 + 20


# --- what is written down twice --------------------------------------------------------------------------------------


def test_the_configuration_does_what_the_pod_monitor_does() -> None:
    """Rule by rule, less the labels that only the operator sets and the name of the job."""
    theirs = [rule for rule in by_operator() if rule.get("target_label") not in {"container", "endpoint", "job"}]
    deduplicated = [rule for rule in theirs if rule.get("regex") != "(Failed|Succeeded)"]

    assert SCRAPE["job_name"] == "netprobe"
    assert SCRAPE["relabel_configs"] == [deduplicated[index] for index in (0, 3, 1, 2)] + deduplicated[4:]
    assert SCRAPE["metric_relabel_configs"] == snake(ENDPOINT["metricRelabelings"])
    assert (SCRAPE["scrape_interval"], SCRAPE["scrape_timeout"], SCRAPE["metrics_path"]) == (
        ENDPOINT["interval"],
        ENDPOINT["scrapeTimeout"],
        ENDPOINT["path"],
    )


def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    """As the whole of its file, and what is misspelt it would not take."""
    # Debian's Prometheus is built without Kubernetes: what it would be told of that is looked at here.
    text = SCRAPE_FILE.read_text("utf-8")
    assert SCRAPE["kubernetes_sd_configs"] == [{"role": "pod", "namespaces": {"names": ["airflow"]}}]
    known = re.sub(r"kubernetes_sd_configs:\n(?: {6}.*\n)+", "static_configs: []\n", text)
    assert "names: [airflow]" not in known

    assert (problem := checked(tmp_path, known)) == "", problem
    assert "field relabel_config not found" in checked(
        tmp_path, known.replace("    relabel_configs:", "    relabel_config:")
    )


def checked(directory: Path, text: str) -> str:
    """What promtool says to a configuration, where it refuses it."""
    file = directory / "prometheus.yml"
    file.write_text(text)
    done = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


POD_MONITOR = {"namespaceSelector", "selector", "sampleLimit", "podMetricsEndpoints"}
ENDPOINT_KEYS = {"port", "path", "interval", "scrapeTimeout", "relabelings", "metricRelabelings"}
RELABELLING = {"sourceLabels", "regex", "targetLabel", "replacement", "action"}


def test_the_pod_monitor_has_its_shape() -> None:
    """That of monitoring.coreos.com/v1 in operator 0.80; its schema is not among those of Kubernetes."""
    rules = [*ENDPOINT["relabelings"], *ENDPOINT["metricRelabelings"]]

    assert (MONITOR["apiVersion"], MONITOR["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert MONITOR["spec"].keys() <= POD_MONITOR
    assert ENDPOINT.keys() == ENDPOINT_KEYS
    assert all(re.fullmatch(r"[1-9]\d*s", ENDPOINT[key]) for key in ("interval", "scrapeTimeout"))
    assert all(rule.keys() <= RELABELLING for rule in rules)
    assert {rule.get("action", "replace") for rule in rules} == {"replace", "drop", "labeldrop"}
    assert all(isinstance(value, str) for rule in rules for key, value in rule.items() if key != "sourceLabels")


# --- who may ask -----------------------------------------------------------------------------------------------------

POLICIES = list(yaml.safe_load_all((DEPLOY / "kustomize/components/network-policy/networkpolicy.yaml").read_text()))


def test_policies_let_prometheus_in_and_do_nothing_else() -> None:
    """One policy for each kind of pod that may have the sidecar; none for every pod of the namespace."""
    selected = [policy["spec"]["podSelector"]["matchLabels"] for policy in POLICIES]

    assert selected == [
        {"kubernetes_executor": "True"},
        {"kubernetes_pod_operator": "True"},
        {"tier": "airflow", "component": "worker"},
    ]
    for policy in POLICIES:
        assert policy["spec"]["policyTypes"] == ["Ingress"], "egress is the task's"
        ((peer,),) = [rule["from"] for rule in policy["spec"]["ingress"]]
        assert peer.keys() == {"namespaceSelector", "podSelector"}, "both, and not either"
        assert [rule["ports"] for rule in policy["spec"]["ingress"]] == [[{"protocol": "TCP", "port": DEFAULT_PORT}]]
