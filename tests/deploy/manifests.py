"""What is shipped for a cluster, and what Kubernetes' own schemas say to it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.lab.command import COMMAND, environment

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"

_OLDEST_MINOR = 29
VERSIONS = tuple(
    f"1.{minor}" for minor in range(_OLDEST_MINOR, int(kubernetes_validate.latest_version().split(".")[1]) + 1)
)
"""From the first Kubernetes that has native sidecars without being asked, to the newest whose schemas are at hand."""

Manifest = Mapping[str, Any]


def read(text: str) -> list[Manifest]:
    """The documents of a file that are not empty."""
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


@cache
def kustomized(directory: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send for a directory. Contacts nothing."""
    done = subprocess.run(["kubectl", "kustomize", str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return read(done.stdout)


def check(manifest: Manifest, versions: Sequence[str] = VERSIONS) -> None:
    """No unknown key, no wrong type, nothing left out that is required, by each version of Kubernetes."""
    for version in versions:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def containers(pod: Manifest) -> Iterator[Manifest]:
    """All of a pod, the init containers first."""
    yield from pod["spec"].get("initContainers", ())
    yield from pod["spec"]["containers"]


def sidecar_of(pod: Manifest) -> Manifest:
    """The one container that is netprobe."""
    (found,) = [container for container in containers(pod) if container["name"] == "netprobe"]
    return found


@cache
def injected(text: str, *options: str) -> str:
    """What `netprobe inject` makes of a file, with these options."""
    done = subprocess.run(
        [*COMMAND, "inject", *options], input=text, capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
