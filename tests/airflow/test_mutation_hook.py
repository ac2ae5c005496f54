"""The shipped pod_mutation_hook, called by real Airflow for the pods of its executor and of its operator."""

from __future__ import annotations

import ast
import copy
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import kubernetes_validate
import pytest

from agent.airflow.inject.sidecar import Mode, Options, Position, container, snippet, volume
from tests.airflow.installed import VERSIONS, airflow_python

HERE = Path(__file__).resolve().parent
HOOK = HERE.parents[1] / "deploy" / "airflow" / "airflow_local_settings.py"
DOCUMENT = HERE.parents[1] / "docs" / "inject.md"
TASK = {"dag_id": "etl daily", "task_id": "load", "run_id": "manual__1", "try_number": 2, "map_index": -1}

TEMPLATES: Mapping[str, dict[str, Any]] = {
    "minimal": {"containers": [{"name": "base", "image": "apache/airflow"}], "restartPolicy": "Never"},
    "git-sync": {
        "initContainers": [{"name": "git-sync-init", "image": "git-sync"}],
        "containers": [
            {
                "name": "base",
                "image": "apache/airflow",
                "env": [
                    {"name": "AIRFLOW_CONN_DB", "valueFrom": {"secretKeyRef": {"name": "db", "key": "uri"}}},
                    {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
                    {"name": "NETPROBE_CONFIG", "value": "/elsewhere"},
                ],
                "envFrom": [{"secretRef": {"name": "all"}}],
            },
            {"name": "git-sync", "image": "git-sync"},
        ],
        "volumes": [{"name": "dags", "emptyDir": {}}],
        "restartPolicy": "Never",
    },
    "apart": {
        "containers": [{"name": "base", "image": "apache/airflow"}],
        "shareProcessNamespace": False,
        "restartPolicy": "Never",
    },
    "taken": {
        "containers": [{"name": "base", "image": "apache/airflow"}],
        "volumes": [{"name": "netprobe-config", "emptyDir": {}}],
        "restartPolicy": "Never",
    },
    "of the node": {
        "containers": [{"name": "base", "image": "apache/airflow"}],
        "hostNetwork": True,
        "restartPolicy": "Never",
    },
    "windows": {
        "containers": [{"name": "base", "image": "job"}],
        "os": {"name": "windows"},
        "restartPolicy": "Never",
    },
    "windows nodes": {
        "containers": [{"name": "base", "image": "job"}],
        "nodeSelector": {"kubernetes.io/os": "windows"},
        "restartPolicy": "Never",
    },
}

SNIPPETS: Mapping[str, Options] = {
    "native": Options(),
    "last": Options(position=Position.LAST, startup_probe=False),
    "shared": Options(share_env=("AIRFLOW_CONN_*", "*_PROXY", "NETPROBE_*"), share_env_from=True),
    "legacy": Options(mode=Mode.LEGACY),
    "apart": Options(mode=Mode.LEGACY, share_process_namespace=False),
}

BROKEN: Mapping[str, str] = {
    "no JSON": "{",
    "empty": "",
    "a list": "[]",
    "without a container": "{}",
    "another mode": json.dumps({**json.loads(snippet(Options())), "mode": "sideways"}),
    "an unknown field": json.dumps(
        {**json.loads(snippet(Options())), "container": {**container(Options()), "colour": "red"}}
    ),
    "another name": json.dumps({**json.loads(snippet(Options())), "container": {"name": "base"}}),
    "a wrong type": json.dumps({**json.loads(snippet(Options())), "container": "netprobe"}),
}

NO_THANKS = {"metadata": {"annotations": {"netprobe/inject": "false"}}}
MORE = {"spec": {"containers": [{"name": "base"}, {"name": "user-side", "image": "side"}]}}
EXECUTOR: Mapping[str, dict[str, Any]] = {
    "executor": {},
    "executor, override": {"override": MORE},
    "executor, no thanks": {"override": NO_THANKS},
}
OPERATOR: Mapping[str, dict[str, Any]] = {
    "operator": {"operator": {"image": "job", "cmds": ["run"]}},
    "operator, xcom": {
        "operator": {
            "image": "job",
            "do_xcom_push": True,
            "env_vars": {"HTTPS_PROXY": "p"},
            "init_containers": [{"name": "user-init", "image": "init"}],
        }
    },
    "operator, no thanks": {"operator": {"image": "job", "annotations": NO_THANKS["metadata"]["annotations"]}},
}
CALLS = {**EXECUTOR, **OPERATOR}

GOOD = list(itertools.product(("minimal", "git-sync"), SNIPPETS, CALLS))
BAD = [("minimal", name, call) for name in (*BROKEN, "a directory", "a pipe") for call in ("executor", "operator")]
CLASHES = [
    ("taken", "native", "executor"),
    ("apart", "legacy", "executor"),
    *itertools.product(("of the node", "windows", "windows nodes"), ("native", "legacy"), ("executor", "operator")),
]
OFF = [("minimal", "missing", call) for call in CALLS]
CASES = [*GOOD, *BAD, *CLASHES, *OFF]


@cache
def answers(version: str) -> Any:
    """What became of every case: one process for all, as Airflow's import takes seconds."""
    with TemporaryDirectory() as name:
        home = Path(name)
        (home / "config").mkdir()
        shutil.copy(HOOK, home / "config")
        shutil.copy(HOOK, home / "config" / "netprobe_pod_mutation.py")
        for template, spec in TEMPLATES.items():
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "placeholder-name"}, "spec": spec}
            (home / f"{template}.yaml").write_text(json.dumps(pod))
        for key, options in SNIPPETS.items():
            (home / f"{key}.json").write_text(snippet(options))
        for key, text in BROKEN.items():
            (home / f"{key}.json").write_text(text)
        (home / "a directory.json").mkdir()
        os.mkfifo(home / "a pipe.json")
        cases = [
            {
                "template": str(home / f"{template}.yaml"),
                "snippet": str(home / f"{key}.json"),
                "worker": ["airflow", "run"],
                **CALLS[call],
            }
            for template, key, call in CASES
        ]
        environment = {
            "PATH": os.environ["PATH"],
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [str(airflow_python(version)), str(HERE / "mutated.py")],
            input=json.dumps({"task": TASK, "cases": cases, "good": str(home / "native.json"), "own_hook": own_hook()}),
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    assert done.returncode == 0, done.stderr
    given = json.loads(done.stdout.splitlines()[-1])
    return {**given, "cases": dict(zip(CASES, given["cases"], strict=True))}


def own_hook() -> str:
    """The hook that docs/inject.md shows to those who have one."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    return str(example)


def expected(plain: Any, options: Options) -> Any:
    """A pod's spec with the sidecar in it."""
    spec = copy.deepcopy(plain)
    base = spec["containers"][0]
    made = container(options)
    own = [entry["name"] for entry in made["env"]]
    if options.share_env:
        fits = [
            entry
            for entry in base.get("env", ())
            if entry["name"].startswith("AIRFLOW_CONN_") or entry["name"].endswith("_PROXY")
        ]
        made["env"] += [entry for entry in fits if entry["name"] not in own]
        if base.get("envFrom"):
            made["envFrom"] = base["envFrom"]
    init = spec.get("initContainers", [])
    if options.mode is Mode.LEGACY:
        spec["containers"].append(made)
        if options.share_process_namespace:
            spec["shareProcessNamespace"] = True
        else:
            base["env"] = [*base.get("env", ()), {"name": "NETPROBE_QUIT_WITH_TASK", "value": "true"}]
    else:
        spec["initContainers"] = [made, *init] if options.position is Position.FIRST else [*init, made]
    spec["volumes"] = [*spec.get("volumes", ()), volume(options)]
    return spec


def gets_one(key: str, call: str) -> bool:
    # No listener of Airflow's runs in the operator's pods: nobody would end the sidecar.
    return not call.endswith("no thanks") and not (key == "apart" and call in OPERATOR)


@pytest.mark.parametrize(("template", "key", "call"), GOOD)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_pod_gets_the_sidecar_and_nothing_else(version: str, template: str, key: str, call: str) -> None:
    """All else is as Airflow made it, of the executor's pods and of the operator's; the second time changes nothing."""
    case = answers(version)["cases"][template, key, call]
    spec = case["plain"]["spec"]

    assert case["once"]["spec"] == (expected(spec, SNIPPETS[key]) if gets_one(key, call) else spec)
    assert case["once"]["metadata"].get("annotations") == case["plain"]["metadata"].get("annotations")
    assert case["once"]["spec"]["containers"][0]["name"] == "base"
    assert case["twice"] == case["once"]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_comes_out_is_a_pod(version: str) -> None:
    """By Kubernetes' own schemas, the oldest that has native sidecars and the newest."""
    for (_, key, call), case in answers(version)["cases"].items():
        if key in SNIPPETS and gets_one(key, call):
            pod = {"apiVersion": "v1", "kind": "Pod", **case["once"]}
            for kubernetes in ("1.29", kubernetes_validate.latest_version()):
                kubernetes_validate.validate(pod, kubernetes, strict=True)


@pytest.mark.parametrize(("template", "key", "call"), [*BAD, *CLASHES])
@pytest.mark.parametrize("version", VERSIONS)
def test_what_cannot_be_injected_leaves_the_pod_alone(version: str, template: str, key: str, call: str) -> None:
    """And is one line in the log."""
    case = answers(version)["cases"][template, key, call]

    assert case["once"]["spec"] == case["plain"]["spec"]
    assert len(case["logged"]) == 1
    assert case["logged"][0].startswith("netprobe: this pod gets no sidecar: ")


@pytest.mark.parametrize(("template", "key", "call"), OFF)
@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_snippet_nothing_happens(version: str, template: str, key: str, call: str) -> None:
    """That is the switch: take the file away."""
    case = answers(version)["cases"][template, key, call]

    assert case["once"]["spec"] == case["plain"]["spec"]
    assert case["logged"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_that_is_no_pod_makes_it_raise(version: str) -> None:
    """An exception would fail the task."""
    assert answers(version)["strange"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_hook_of_ones_own_calls_it(version: str) -> None:
    """As the document shows."""
    pod = answers(version)["own"]

    assert pod["metadata"] == {"labels": {"team": "data"}}
    assert pod["spec"] == expected({"containers": [{"name": "base"}]}, Options())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_would_drop_a_field_injects_nothing(version: str) -> None:
    """Without restartPolicy the sidecar would be an init container that never ends."""
    found = answers(version)["old_client"]

    assert found["same"]
    assert found["pod"] == {"spec": {"containers": [{"name": "base"}]}}
    assert "drops a part" in found["logged"][0]


def test_the_file_goes_wherever_airflow_goes() -> None:
    """Airflow 2.7 has Python 3.8; the official chart reads the file as a template; only Airflow is there besides."""
    text = HOOK.read_text("utf-8")
    tree = ast.parse(text, feature_version=(3, 8))
    at_the_top = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }

    assert "{{" not in text
    assert at_the_top <= sys.stdlib_module_names
