"""The shipped pod templates and chart values: what `netprobe inject` makes today, and pods that a cluster takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.manifests import DEPLOY, VERSIONS, Manifest, check, containers, injected, kustomized, sidecar_of

IMAGE = ("--image", "registry.example.com/netprobe:0.1.0")
API = ("--share-env", "AIRFLOW__CORE__EXECUTION_API_SERVER_URL")
DATABASE = ("--share-env", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
LEGACY = ("--mode", "legacy")
CHART = ("--format", "chart-values")

PODS: Mapping[str, tuple[str, ...]] = {
    "pod-templates/airflow-2.yaml": (*IMAGE, *DATABASE),
    "pod-templates/airflow-3.yaml": (*IMAGE, *API),
    "pod-templates/legacy/airflow-2.yaml": (*IMAGE, *DATABASE, *LEGACY),
    "pod-templates/legacy/airflow-3.yaml": (*IMAGE, *API, *LEGACY),
}
CHARTS: Mapping[str, tuple[str, ...]] = {
    "chart/values.yaml": (*IMAGE, *CHART),
    "chart/values-before-1.21.yaml": (*IMAGE, *CHART, "--chart-version", "1.20"),
}
HOOK_VALUES = "chart/values-hook.yaml"
BEFORE_SIDECARS = ("1.25", "1.26", "1.27", "1.28")
SHIPPED = {**PODS, **CHARTS}
"""By file: the options that make it of the same file without the sidecar."""


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_file_is_what_inject_makes(name: str) -> None:
    """Byte for byte. If not: take the sidecar out of it (`--remove`) and put it in again with these options."""
    options = SHIPPED[name]
    plain = injected(text_of(name), "--remove", *(option for option in options if option in CHART))

    assert "name: netprobe\n" not in plain
    assert injected(plain, *options) == text_of(name)


def test_every_file_is_looked_at() -> None:
    found = [path for part in ("pod-templates", "chart") for path in (DEPLOY / part).rglob("*.yaml")]

    names = {str(path.relative_to(DEPLOY)) for path in found if path.name != "kustomization.yaml"}
    assert names == {*SHIPPED, HOOK_VALUES}


@pytest.mark.parametrize("name", [*SHIPPED, HOOK_VALUES])
def test_a_file_says_what_it_is_for(name: str) -> None:
    """Its first line is a comment, and its lines are short enough to be read beside another window."""
    lines = text_of(name).splitlines()

    assert lines[0].startswith("# ")
    assert max(map(len, lines)) <= 120


# --- as pods ---------------------------------------------------------------------------------------------------------


def pod_of(name: str) -> Manifest:
    """The pod of a file; of the values of the chart, one that has what they add."""
    given: Manifest = yaml.safe_load(text_of(name))
    if name in PODS:
        return given
    extra = given["workers"] if "before" in name else given["workers"]["kubernetes"]
    base = {"name": "base", "image": "apache/airflow:3.3.2", "volumeMounts": extra["extraVolumeMounts"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "placeholder-name"},
        "spec": {
            "restartPolicy": "Never",
            "initContainers": extra["extraInitContainers"],
            "containers": [base],
            "volumes": extra["extraVolumes"],
        },
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_kubernetes_takes_it(name: str) -> None:
    """Those of the legacy mode also where there are no native sidecars, which is what they are for."""
    check(pod_of(name), (*BEFORE_SIDECARS, *VERSIONS) if "legacy" in name else VERSIONS)


def test_an_older_kubernetes_has_no_native_sidecar() -> None:
    """And its schemas would say so."""
    with pytest.raises(kubernetes_validate.ValidationError):
        check(pod_of("pod-templates/airflow-3.yaml"), BEFORE_SIDECARS[:1])


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_pod_refers_to_is_there(name: str) -> None:
    """Volumes that are mounted are declared and used; their ConfigMaps are made here, and a pod starts without them."""
    pod = pod_of(name)
    mounts = [mount for container in containers(pod) for mount in container.get("volumeMounts", ())]
    made = {
        manifest["metadata"]["name"]: manifest["data"]
        for manifest in kustomized(DEPLOY / "kustomize/overlays/native")
        if manifest["kind"] == "ConfigMap"
    }

    assert {mount["name"] for mount in mounts} == {volume["name"] for volume in pod["spec"]["volumes"]}
    for volume in pod["spec"]["volumes"]:
        for source in config_maps(volume):
            assert source["optional"] is True
            assert source["name"] in made
    for mount in mounts:
        if "subPath" in mount:
            assert mount["subPath"] in made[mount["name"]]
            assert Path(mount["mountPath"]).name == mount["subPath"]


def config_maps(volume: Manifest) -> list[Manifest]:
    projected = [
        source["configMap"] for source in volume.get("projected", {}).get("sources", ()) if "configMap" in source
    ]
    return projected + ([volume["configMap"]] if "configMap" in volume else [])


@pytest.mark.parametrize("name", SHIPPED)
def test_the_sidecar_passes_the_strictest_pod_security(name: str) -> None:
    """The standard `restricted` of Kubernetes: what it asks of a container, and of the volumes."""
    pod = pod_of(name)
    held = [*containers(pod)] if name in PODS else [sidecar_of(pod)]

    assert all(volume.keys() & {"configMap", "emptyDir", "projected", "secret"} for volume in pod["spec"]["volumes"])
    assert not pod["spec"].keys() & {"hostNetwork", "hostPID", "hostIPC"}
    for container in held:
        context = {**pod["spec"].get("securityContext", {}), **container["securityContext"]}
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] != 0
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all("hostPort" not in port for port in container.get("ports", ()))


@pytest.mark.parametrize("name", PODS)
def test_the_sidecar_is_shown_what_the_task_needs_most(name: str) -> None:
    """The one address without which no task of this Airflow runs: as the task's container has it."""
    pod = pod_of(name)
    shared = PODS[name][PODS[name].index("--share-env") + 1]
    base = pod["spec"]["containers"][0]

    (entry,) = [entry for entry in base["env"] if entry["name"] == shared]
    assert entry in sidecar_of(pod)["env"]


# --- values of the chart ---------------------------------------------------------------------------------------------

LISTS = {"extraInitContainers", "extraVolumes", "extraVolumeMounts"}
"""What the chart's template of a worker pod takes (release notes of 1.21, and its pod-template-file before)."""


@pytest.mark.parametrize("name", CHARTS)
def test_the_values_stand_where_the_chart_looks(name: str) -> None:
    values: dict[str, Any] = yaml.safe_load(text_of(name))
    path = ("workers",) if "before" in name else ("workers", "kubernetes")
    for key in path:
        assert values.keys() == {key}
        values = values[key]

    assert values.keys() == LISTS
    assert "{{" not in text_of(name), "the chart would take it for a template"


def test_the_hook_finds_what_its_values_mount() -> None:
    """The sidecar where the hook looks for it, mounted whole, so that it can be taken away."""
    values = yaml.safe_load(text_of(HOOK_VALUES))
    hook = (DEPLOY / "airflow/airflow_local_settings.py").read_text("utf-8")
    (path,) = re.findall(r'^DEFAULT_PATH = "(.*)"$', hook, re.MULTILINE)
    mounts = {mount["name"]: mount for mount in values["volumeMounts"]}
    sidecar = mounts["netprobe-sidecar"]

    assert values.keys() == {"volumes", "volumeMounts"}
    assert mounts.keys() == {volume["name"] for volume in values["volumes"]}
    assert all(volume["configMap"]["optional"] for volume in values["volumes"])
    assert sidecar["mountPath"] == str(Path(path).parent)
    assert "subPath" not in sidecar
    assert f"--from-file {Path(path).name}\n" in text_of(HOOK_VALUES)
    assert "{{" not in hook
    check(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "scheduler"},
            "spec": {
                "containers": [{"name": "scheduler", "image": "airflow", "volumeMounts": values["volumeMounts"]}],
                "volumes": values["volumes"],
            },
        }
    )


# --- what the sidecar reads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_the_configuration_may_refer_to_a_secret(name: str) -> None:
    """The files of a ConfigMap and of a Secret are in one directory, and a pod starts without either."""
    pod = pod_of(name)
    (mount,) = sidecar_of(pod)["volumeMounts"]
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == mount["name"]]
    directory = "/etc/netprobe"

    assert mount == {"name": "netprobe-config", "mountPath": directory, "readOnly": True}
    assert {"name": "NETPROBE_CONFIG", "value": directory} in sidecar_of(pod)["env"]
    assert volume["projected"] == {
        "sources": [{kind: {"name": "netprobe", "optional": True}} for kind in ("configMap", "secret")]
    }
    pushing = yaml.safe_load(text_of("kustomize/overlays/remote-write/remote-write.yaml"))["remote_write"]
    assert Path(pushing["basic_auth"]["password_file"]).parent == Path(directory)
    assert all(container["name"] == "netprobe" or not has_mounted(container, mount) for container in containers(pod))


def has_mounted(container: Manifest, mount: Manifest) -> bool:
    """Whether a container has this volume, too: the task has no business with the secret."""
    return mount["name"] in [each["name"] for each in container.get("volumeMounts", ())]
