"""What `kubectl apply -k` would send is what a cluster takes, and what netprobe reads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, Manifest, check, kustomized
from tests.lab.command import COMMAND, environment

KUSTOMIZE = DEPLOY / "kustomize"
RULES = sorted((DEPLOY / "prometheus/rules").glob("*.yaml"))
OVERLAYS = sorted(path.name for path in (KUSTOMIZE / "overlays").iterdir())
BYTES_OF_A_CONFIG_MAP = 1 << 20
"""Kubernetes takes no larger one."""


def of(overlay: str) -> list[Manifest]:
    return kustomized(KUSTOMIZE / "overlays" / overlay)


def config_map(overlay: str, name: str) -> Manifest:
    (found,) = [made for made in of(overlay) if (made["kind"], made["metadata"]["name"]) == ("ConfigMap", name)]
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_what_an_overlay_makes(overlay: str) -> None:
    """What is for the operator aside, whose schemas Kubernetes does not have: other tests look at it."""
    made = of(overlay)

    # Who pushes is not scraped as well: both would count the same things.
    operated = [] if overlay == "remote-write" else ["PodMonitor", *["PrometheusRule"] * len(RULES)]
    assert [manifest["kind"] for manifest in made] == ["ConfigMap"] * 3 + operated
    for manifest in made:
        assert manifest["metadata"]["namespace"] == "airflow"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "netprobe"
        if manifest["kind"] not in operated:
            check(manifest)
            assert sum(map(len, map(str.encode, manifest["data"].values()))) < BYTES_OF_A_CONFIG_MAP


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_netprobe_takes_the_configuration(overlay: str, tmp_path: Path) -> None:
    """As the sidecar finds it: the files of the ConfigMap and of the Secret, each as the kubelet links it."""
    files = {**config_map(overlay, "netprobe")["data"], "remote-write-password": "secret"}
    held = tmp_path / "..2026_01_01"
    held.mkdir()
    (tmp_path / "..data").symlink_to(held.name)
    for name, text in files.items():
        (held / name).write_text(text, "utf-8")
        (tmp_path / name).symlink_to(f"..data/{name}")
    command = [*COMMAND, "config", "show", "--config", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)

    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)
    assert shown["discover"]["sources"] == ["airflow", "kubernetes"]
    assert ("url" in shown.get("remote_write", {})) == (overlay == "remote-write")


MODES = {"native": "pod-templates", "legacy": "pod-templates/legacy", "remote-write": "pod-templates"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_has_the_templates_of_its_mode(overlay: str) -> None:
    templates = config_map(overlay, "netprobe-pod-templates")["data"]

    assert templates == {
        name: (DEPLOY / MODES[overlay] / name).read_text("utf-8") for name in ("airflow-2.yaml", "airflow-3.yaml")
    }
    kinds = {"native": "initContainers", "legacy": "containers", "remote-write": "initContainers"}
    for text in templates.values():
        assert "netprobe" in [container["name"] for container in yaml.safe_load(text)["spec"][kinds[overlay]]]


def test_the_policies_are_there_for_who_asks_for_them(tmp_path: Path) -> None:
    """And for nobody else: the first policy that selects a pod shuts what is not in it."""
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "namespace": "airflow",
                "resources": [os.path.relpath(KUSTOMIZE / "overlays/native", tmp_path)],
                "components": [os.path.relpath(KUSTOMIZE / "components/network-policy", tmp_path)],
            }
        )
    )
    policies = [manifest for manifest in kustomized(tmp_path) if manifest["kind"] == "NetworkPolicy"]

    assert len(policies) == 3
    for policy in policies:
        assert policy["metadata"]["namespace"] == "airflow"
        check(policy)
    for overlay in OVERLAYS:
        assert "NetworkPolicy" not in [manifest["kind"] for manifest in of(overlay)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_airflow_gets_its_files_as_they_are(overlay: str) -> None:
    """The listener, and the hook for who uses it."""
    files = ("plugins/netprobe_listener.py", "airflow_local_settings.py")

    assert config_map(overlay, "netprobe-airflow")["data"] == {
        Path(name).name: (DEPLOY / "airflow" / name).read_text("utf-8") for name in files
    }
