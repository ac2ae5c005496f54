"""The rules as the Prometheus Operator takes them: those that Prometheus takes, in the shape of its custom resource."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, Manifest, kustomized
from tests.prometheus_rules import COMPONENT, RULES, written

FILES = sorted(RULES.glob("*.yaml"))
MADE = {path: text for path, text in written().items() if path.name != "kustomization.yaml"}

GROUP = {"name", "interval", "rules"}
RECORDING = {"record", "expr"}
ALERTING = {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
DURATION = r"(?:\d+y)?(?:\d+w)?(?:\d+d)?(?:\d+h)?(?:\d+m)?(?:\d+s)?(?:\d+ms)?"
"""As the schema of the custom resource has it, operator 0.80."""


def test_what_is_committed_is_what_the_plain_files_say() -> None:
    """`make docs` writes it."""
    assert {path: path.read_text("utf-8") for path in COMPONENT.iterdir()} == written()


@pytest.mark.parametrize("overlay", ["native", "legacy"])
def test_an_overlay_sends_the_rules_of_the_plain_files(overlay: str) -> None:
    """Whatever kubectl does on the way: the same rules, each file in an object of its own."""
    made = {
        manifest["metadata"]["name"]: manifest
        for manifest in kustomized(DEPLOY / "kustomize/overlays" / overlay)
        if manifest["kind"] == "PrometheusRule"
    }

    assert {name: manifest["spec"] for name, manifest in made.items()} == {
        file.stem: yaml.safe_load(file.read_text("utf-8")) for file in FILES
    }
    assert {manifest["metadata"]["namespace"] for manifest in made.values()} == {"airflow"}


@pytest.mark.parametrize("file", MADE, ids=lambda file: file.stem)
def test_an_object_has_its_shape(file: Any) -> None:
    """That of monitoring.coreos.com/v1; its schema is not among those of Kubernetes. The operator refuses the rest."""
    manifest: Manifest = yaml.safe_load(MADE[file])

    assert manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert (manifest["apiVersion"], manifest["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert manifest["metadata"].keys() == {"name", "labels"}
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])
    assert manifest["spec"].keys() == {"groups"}
    names = [group["name"] for group in manifest["spec"]["groups"]]
    assert len(names) == len(set(names)), "groups are a map by their names"
    for group in manifest["spec"]["groups"]:
        assert group.keys() == GROUP
        assert is_duration(group["interval"])
        for rule in group["rules"]:
            assert rule.keys() == RECORDING or {"alert", "expr", "labels"} <= rule.keys() <= ALERTING
            assert isinstance(rule["expr"], str)
            assert all(is_duration(rule[key]) for key in ("for", "keep_firing_for") if key in rule)
            texts = {**rule.get("labels", {}), **rule.get("annotations", {})}
            assert all(isinstance(text, str) for text in texts.values()), "a number or a truth is refused"


def is_duration(value: Any) -> bool:
    return isinstance(value, str) and value != "" and re.fullmatch(DURATION, value) is not None
