"""Writes the rules for the Prometheus Operator: `python -m tests.prometheus_rules`.

Each file of deploy/prometheus/rules becomes one PrometheusRule of the same name in the kustomize component `rules`. The
comments stay where they are kept, in the plain files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "rules"
COMPONENT = DEPLOY / "kustomize" / "components" / "rules"
WIDTH = 120

KUSTOMIZATION = """\
# Needs the Prometheus Operator's custom resources. Without them: deploy/prometheus/rules.
#
# kube-prometheus-stack takes a PrometheusRule only with the label `release` and the name of its Helm release. To give
# it to all of them, in a kustomization of your own:
#
#   labels: [{pairs: {release: prometheus}}]
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources:
"""


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are, and no aliases: kubectl and people read them better."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def written() -> dict[Path, str]:
    """Every file of the component, with its text."""
    files = sorted(RULES.glob("*.yaml"))
    made = {COMPONENT / file.name: _prometheus_rule(file) for file in files}
    return {**made, COMPONENT / "kustomization.yaml": KUSTOMIZATION + "".join(f"  - {file.name}\n" for file in files)}


def _prometheus_rule(file: Path) -> str:
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": file.stem, "labels": {"app.kubernetes.io/name": "netprobe"}},
        "spec": yaml.safe_load(file.read_text("utf-8")),
    }
    text = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
    source = file.relative_to(DEPLOY.parent)
    return f"# Written by `python -m tests.prometheus_rules` from {source}, which says why. Do not edit.\n{text}"


def main() -> int:
    """Write them, and remove what has no source any more."""
    COMPONENT.mkdir(exist_ok=True)
    files = written()
    for file in set(COMPONENT.iterdir()) - files.keys():
        file.unlink()
    for file, text in files.items():
        file.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
