"""What Grafana and its sidecar loader are given to find the dashboards by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.manifests import check, kustomized
from tests.grafana.queries import FOLDER, dashboards

GRAFANA = FOLDER.parent
BYTES_OF_ANNOTATIONS = 1 << 18
"""Kubernetes takes no more of one object, and `kubectl apply` puts the whole object into one."""


def test_each_dashboard_is_a_config_map_that_the_loader_finds() -> None:
    made = kustomized(GRAFANA)

    loaded: dict[str, Any] = {}
    for manifest in made:
        check(manifest)
        assert manifest["kind"] == "ConfigMap"
        metadata = manifest["metadata"]
        assert metadata["namespace"] == "monitoring"
        assert metadata["labels"]["grafana_dashboard"] == "1"
        assert metadata["annotations"]["grafana_folder"] == "netprobe"
        assert len(json.dumps(manifest).encode()) < BYTES_OF_ANNOTATIONS
        loaded |= {name: json.loads(text) for name, text in manifest["data"].items()}
    assert loaded == {f"{uid}.json": document for uid, document in dashboards().items()}
    assert len(made) == len(loaded)


def provisioned(name: str) -> Any:
    return yaml.safe_load((GRAFANA / "provisioning" / name).read_text("utf-8"))


def test_grafana_is_told_where_the_files_are_and_not_to_change_them() -> None:
    document = provisioned("dashboards/netprobe.yaml")

    assert document["apiVersion"] == 1
    (provider,) = document["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    assert Path(provider["options"]["path"]).is_absolute()


def test_the_data_source_is_of_the_type_that_dashboards_ask_for() -> None:
    (source,) = provisioned("datasources/prometheus.yaml")["datasources"]

    chosen = {document["templating"]["list"][0]["query"] for document in dashboards().values()}
    assert chosen == {source["type"]}
    assert source["jsonData"]["httpMethod"] == "POST"
