"""Real Airflow builds pods from templates with netprobe in them, and the sidecar comes through as it was."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from agent.airflow.identity import Task, read_task
from tests.airflow.installed import VERSIONS as AIRFLOWS
from tests.airflow.installed import airflow_python
from tests.deploy.manifests import DEPLOY, VERSIONS, Manifest, check, containers, injected, sidecar_of

HERE = Path(__file__).resolve().parent

DAG_ID, TASK_ID, RUN_ID = "etl.daily", "load", "scheduled__2026-01-01T00:00:00+00:00"
TASK = {"dag_id": DAG_ID, "task_id": TASK_ID, "run_id": RUN_ID, "try_number": 1, "map_index": -1}

# --- templates -------------------------------------------------------------------------------------------------------

GIT_SYNC = """\
apiVersion: v1
kind: Pod
metadata:
  name: placeholder-name
spec:
  restartPolicy: Never
  initContainers:
    - name: git-sync-init
      image: registry.k8s.io/git-sync/git-sync:v4.4.0
      args: [--one-time]
      volumeMounts: [{name: dags, mountPath: /git}]
  containers:
    - name: base
      image: apache/airflow:3.3.2
      env: [{name: AIRFLOW_CONN_WAREHOUSE, value: "postgresql://warehouse:5432/app"}]
      volumeMounts: [{name: dags, mountPath: /git, readOnly: true}]
    - name: log-shipper
      image: fluent/fluent-bit:4.0
  volumes:
    - {name: dags, emptyDir: {}}
"""


@cache
def templates(version: str) -> Mapping[str, str]:
    """By name: the shipped templates of this Airflow, and one with more containers, injected in each way there is."""
    shipped = f"airflow-{version.partition('.')[0]}.yaml"
    return {
        "shipped": (DEPLOY / "pod-templates" / shipped).read_text("utf-8"),
        "shipped-legacy": (DEPLOY / "pod-templates" / "legacy" / shipped).read_text("utf-8"),
        "git-sync-first": injected(GIT_SYNC, "--position", "first"),
        "git-sync-last": injected(GIT_SYNC, "--position", "last", "--share-env", "AIRFLOW_CONN_*"),
        "git-sync-legacy": injected(GIT_SYNC, "--mode", "legacy"),
    }


TEMPLATES = ("shipped", "shipped-legacy", "git-sync-first", "git-sync-last", "git-sync-legacy")
NATIVE = [name for name in TEMPLATES if not name.endswith("legacy")]
LEGACY = [name for name in TEMPLATES if name.endswith("legacy")]

# --- what users add --------------------------------------------------------------------------------------------------


def base(**more: Any) -> dict[str, Any]:
    return {"name": "base", **more}


OVERRIDES: Mapping[str, dict[str, Any] | None] = {
    "nothing": None,
    "resources": {"containers": [base(resources={"requests": {"cpu": "2"}, "limits": {"memory": "4Gi"}})]},
    "environment": {"containers": [base(env=[{"name": "SPEED", "value": "high"}])]},
    "image": {"containers": [base(image="team/image:7")]},
    "init": {"containers": [base()], "initContainers": [{"name": "unpack", "image": "busybox:1.37"}]},
    "volume": {
        "containers": [base(volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}])],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    },
    "place": {
        "containers": [base()],
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "batch", "operator": "Exists"}],
        "securityContext": {"runAsUser": 1000},
    },
    "sidecar": {"containers": [base(), {"name": "proxy", "image": "team/proxy:1"}]},
    "sidecars": {"containers": [base(), *({"name": f"proxy-{n}", "image": "team/proxy:1"} for n in range(3))]},
    "netprobe": {
        "containers": [base()],
        "initContainers": [{"name": "netprobe", "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}],
    },
}
"""By name: the spec of what `executor_config["pod_override"]` has."""

OPERATORS: Mapping[str, dict[str, Any]] = {
    "operator": {"image": "team/job:1", "cmds": ["run"], "arguments": ["--all"]},
    "operator-with-xcom": {"image": "team/job:1", "do_xcom_push": True, "env_vars": {"SPEED": "high"}},
    "operator-with-init": {"image": "team/job:1", "init_containers": [{"name": "unpack", "image": "busybox:1.37"}]},
}
"""By name: arguments of a KubernetesPodOperator that has the template as its `pod_template_file`."""

CASES = (*OVERRIDES, *OPERATORS)

HOOK = """
def pod_mutation_hook(pod):
    pod.metadata.labels["team"] = "data"
    pod.spec.containers[0].env = [*(pod.spec.containers[0].env or ()), {"name": "TEAM", "value": "data"}]
"""
"""airflow_local_settings.py of somebody who has one already."""

WORKERS = {
    "2.11": ["airflow", "tasks", "run", DAG_ID, TASK_ID, RUN_ID, "--local", "--subdir", "DAGS_FOLDER/etl.py"],
    "3.3": ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string", '{"ti": {}}'],
}


KEYS = list(itertools.product(TEMPLATES, CASES))


@cache
def said(version: str) -> Mapping[str, Any]:
    """What Airflow makes of all templates, cases and folders: one process for all, as its import takes seconds."""
    with TemporaryDirectory() as home:
        (Path(home) / "config").mkdir()
        (Path(home) / "config" / "airflow_local_settings.py").write_text(HOOK)
        for name, text in templates(version).items():
            (Path(home) / f"{name}.yaml").write_text(text, "utf-8")
        cases = [
            {"template": f"{home}/{name}.yaml", "worker": WORKERS[version], **case_of(case)} for name, case in KEYS
        ]
        folders = [str(mounted(Path(home), how)) for how in FOLDERS]
        done = subprocess.run(
            [str(airflow_python(version)), str(HERE / "pods.py")],
            input=json.dumps({"task": TASK, "cases": cases, "folders": folders}),
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@cache
def pods(version: str) -> Mapping[tuple[str, str], dict[str, Any]]:
    """The pod of each template and case."""
    return dict(zip(KEYS, said(version)["pods"], strict=True))


def case_of(name: str) -> dict[str, Any]:
    if name in OPERATORS:
        return {"operator": OPERATORS[name]}
    spec = OVERRIDES[name]
    return {"override": spec and {"apiVersion": "v1", "kind": "Pod", "spec": spec}}


def template_of(version: str, name: str) -> Manifest:
    template: Manifest = yaml.safe_load(templates(version)[name])
    return template


def names(found: Any) -> list[str]:
    return [entry["name"] for entry in found]


every = pytest.mark.parametrize(("version", "case"), list(itertools.product(AIRFLOWS, CASES)))

# --- what comes of it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", NATIVE)
@every
def test_a_native_sidecar_is_kept_exactly(version: str, case: str, template: str) -> None:
    """Every field of it and its volume, and its place: a user's init containers come after it."""
    given = template_of(version, template)
    pod = pods(version)[template, case]
    expected = sidecar_of(given)
    if case == "netprobe":
        # Who names it in an override adds to it.
        expected = {**expected, "env": [*expected["env"], {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}

    assert sidecar_of(pod) == expected
    assert expected["restartPolicy"] == "Always"
    own = names(given["spec"]["initContainers"])
    assert names(pod["spec"]["initContainers"])[: len(own)] == own
    assert own.index("netprobe") == (len(own) - 1 if template.endswith("last") else 0)
    assert volumes(given) <= volumes(pod)


def volumes(pod: Manifest) -> set[str]:
    return {json.dumps(volume, sort_keys=True) for volume in pod["spec"]["volumes"]}


MORE_CONTAINERS = {"sidecar": 2, "sidecars": 4}
"""Cases in which a `pod_override` has more containers than `base`, and how many it has."""
BASE_ALONE = [case for case in CASES if case not in MORE_CONTAINERS]


@pytest.mark.parametrize("template", LEGACY)
@pytest.mark.parametrize("case", BASE_ALONE)
@pytest.mark.parametrize("version", AIRFLOWS)
def test_an_ordinary_container_is_kept_where_an_override_has_base_alone(version: str, case: str, template: str) -> None:
    given = template_of(version, template)
    pod = pods(version)[template, case]
    # The override that names an init container adds another one: it does not fit this mode.
    found = [container for container in pod["spec"]["containers"] if container["name"] == "netprobe"]

    assert found == [sidecar_of(given)]
    assert "restartPolicy" not in found[0]
    assert pod["spec"]["shareProcessNamespace"] is True
    assert volumes(given) <= volumes(pod)


@pytest.mark.parametrize("template", LEGACY)
@pytest.mark.parametrize("case", MORE_CONTAINERS)
@pytest.mark.parametrize("version", AIRFLOWS)
def test_an_ordinary_container_does_not_go_with_an_override_of_many(version: str, case: str, template: str) -> None:
    """Airflow merges containers by their places: a container of the override becomes half of what stands there.

    It is why docs/install.md wants pod_mutation_hook, which comes after the override, where both are used.
    """
    given = template_of(version, template)
    pod = pods(version)[template, case]
    place = names(given["spec"]["containers"]).index("netprobe")
    met = pod["spec"]["containers"][place]

    if place < MORE_CONTAINERS[case]:
        assert "netprobe" not in names(containers(pod))
        assert met["image"] == "team/proxy:1"
        assert met["args"] == sidecar_of(given)["args"]
    else:
        assert met == sidecar_of(given)


@pytest.mark.parametrize("template", TEMPLATES)
@every
def test_the_task_has_its_container(version: str, case: str, template: str) -> None:
    """The first one, which runs what it would run without netprobe; a user's hook has run, too."""
    pod = pods(version)[template, case]
    first = pod["spec"]["containers"][0]

    assert first["name"] == "base"
    assert first.get("args", []) == (OPERATORS[case].get("arguments", []) if case in OPERATORS else WORKERS[version])
    assert pod["metadata"]["labels"]["team"] == "data"
    assert {"name": "TEAM", "value": "data"} in first["env"]
    assert pod["spec"]["restartPolicy"] == "Never"


# In the legacy mode, an override that names the native sidecar adds an init container without an image.
SOUND = [pair for pair in itertools.product(TEMPLATES, CASES) if pair[0] in NATIVE or pair[1] != "netprobe"]


@pytest.mark.parametrize(("template", "case"), SOUND)
@pytest.mark.parametrize("version", AIRFLOWS)
def test_kubernetes_takes_the_pod(version: str, template: str, case: str) -> None:
    """The oldest and the newest each of them, and those between some, as each look takes a while."""
    pod = pods(version)[template, case]

    check(pod, VERSIONS if case in {"nothing", "operator-with-xcom"} else (VERSIONS[0], VERSIONS[-1]))
    found = names(containers(pod))
    assert len(found) == len(set(found))


@pytest.mark.parametrize("template", NATIVE)
@every
def test_the_sidecar_learns_which_task_it_is(version: str, case: str, template: str) -> None:
    """Through the fields of the pod that Airflow writes: annotations, or labels alone."""
    pod = pods(version)[template, case]
    environ = {
        entry["name"]: field(pod, entry["valueFrom"]["fieldRef"]["fieldPath"])
        for entry in sidecar_of(pod)["env"]
        if "fieldRef" in entry.get("valueFrom", ())
    }
    run_id = "scheduled__2026-01-01T0000000000-b36726f5d" if case in OPERATORS else RUN_ID

    assert read_task(environ) == Task(dag_id=DAG_ID, task_id=TASK_ID, run_id=run_id, try_number="1")


def field(pod: Manifest, path: str) -> str:
    """What the downward API makes of a field: what is not there is empty."""
    kind, _, key = path.removesuffix("']").partition("['")
    if key:
        value = pod["metadata"].get(kind.removeprefix("metadata."), {}).get(key, "")
        assert isinstance(value, str)
        return value
    return {"metadata.name": "a-pod", "metadata.namespace": "airflow", "metadata.uid": "7", "spec.nodeName": "n"}[path]


# --- the plugins folder ----------------------------------------------------------------------------------------------

PLUGIN = "netprobe_listener.py"
FOLDERS = ("by subPath", "by subPath, of nothing", "whole")
"""How the ConfigMap with the listener may be mounted into a plugins folder."""


def mounted(home: Path, how: str) -> Path:
    """A plugins folder as the kubelet leaves it (Kubernetes 1.29)."""
    folder = home / f"plugins {how}"
    folder.mkdir()
    if how == "by subPath":
        (folder / PLUGIN).write_text("")
    elif how == "by subPath, of nothing":
        # There is no such key, or no ConfigMap: what is mounted is a directory.
        (folder / PLUGIN).mkdir()
    else:
        (folder / "..2026_01_01").mkdir()
        (folder / "..2026_01_01" / PLUGIN).write_text("")
        (folder / "..data").symlink_to("..2026_01_01")
        (folder / PLUGIN).symlink_to(f"..data/{PLUGIN}")
    return folder


@pytest.mark.parametrize("version", AIRFLOWS)
def test_airflow_takes_a_plugin_that_is_mounted_by_sub_path_only(version: str) -> None:
    """As docs/install.md says; and a pod whose ConfigMap is missing does without."""
    by_sub_path, nothing, whole = said(version)["found"]

    assert [Path(found).name for found in by_sub_path] == [PLUGIN]
    assert nothing == []
    assert "Detected recursive loop" in whole


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", AIRFLOWS)
def test_options_of_the_executor_that_a_document_names_exist(version: str) -> None:
    """What Airflow does not know it ignores in silence."""
    text = (DEPLOY.parent / "docs" / "install.md").read_text("utf-8")
    named = set(re.findall(r"AIRFLOW__KUBERNETES_EXECUTOR__(\w+)", text))

    assert {name.lower() for name in named} <= set(said(version)["options"])
    assert named
