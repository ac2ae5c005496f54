"""The sidecar as Kubernetes wants it written: one container, one volume."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from agent import __version__
from agent.airflow.identity import downward_variables
from agent.listening import DEFAULT_PORT

CONTAINER = "netprobe"
VOLUME = "netprobe-config"
CONFIG_DIRECTORY = "/etc/netprobe"
IMAGE = f"netprobe:{__version__}"
REQUESTS: Mapping[str, str] = {"cpu": "10m", "memory": "64Mi"}
LIMITS: Mapping[str, str] = {"cpu": "500m", "memory": "128Mi"}
"""Loading takes a third of a second of CPU, once: at a limit of 100m the first result of a pod would come after four
seconds, and many pods live no longer. What is asked for is what it uses; the rest of the memory is room for a
`netprobe check` beside the agent (`python -m tests.benchmarks.pod_footprint`)."""
USER = 65532

NOTE_VARIABLE = "NETPROBE_INJECTED"
"""Marks a container as ours, and holds what it takes to remove it again without a trace."""


class Mode(StrEnum):
    """How the sidecar stands in the pod."""

    NATIVE = "native"
    """An init container that goes on (`restartPolicy: Always`, Kubernetes 1.29): ends after the task, by itself."""
    LEGACY = "legacy"
    """An ordinary container, which has to notice the end of the task."""


class Position(StrEnum):
    """Where a native sidecar stands among the init containers, which start one after the other."""

    FIRST = "first"
    LAST = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is to be injected."""

    mode: Mode = Mode.NATIVE
    position: Position = Position.FIRST
    image: str = IMAGE
    pull_policy: str | None = None
    config_map: str = "netprobe"
    requests: Mapping[str, str] = field(default_factory=lambda: dict(REQUESTS))
    limits: Mapping[str, str] = field(default_factory=lambda: dict(LIMITS))
    startup_probe: bool = True
    share_process_namespace: bool = True
    """Of a legacy sidecar: lets it see the processes of the task end."""
    share_env: tuple[str, ...] = ()
    """Patterns of variables of the task's container that the sidecar gets as well."""
    share_env_from: bool = False

    @property
    def watches_processes(self) -> bool:
        """Whether the pod is to have one process namespace."""
        return self.mode is Mode.LEGACY and self.share_process_namespace


def container(options: Options, *, ends_with_task: bool = True) -> dict[str, Any]:
    """The container, without anything of the pod it comes into.

    A pod that outlives its tasks (Celery) wants `ends_with_task` off.
    """
    native = options.mode is Mode.NATIVE
    arguments = ["run", "--fail-open"]
    if not native and ends_with_task:
        arguments.append("--end-with-task")
    made: dict[str, Any] = {"name": CONTAINER, "image": options.image}
    if options.pull_policy is not None:
        made["imagePullPolicy"] = options.pull_policy
    made["args"] = arguments
    if native:
        made["restartPolicy"] = "Always"
    made["env"] = [
        {"name": "NETPROBE_CONFIG", "value": CONFIG_DIRECTORY},
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in downward_variables().items()
        ),
    ]
    made["ports"] = [{"name": CONTAINER, "containerPort": DEFAULT_PORT}]
    if native and options.startup_probe:
        # Never for an ordinary container: killed for failing it, it would take the pod, and the task, with it.
        made["startupProbe"] = {
            "httpGet": {"path": "/startupz", "port": CONTAINER},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 120,
        }
    made["resources"] = {"requests": dict(options.requests), "limits": dict(options.limits)}
    made["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    made["volumeMounts"] = [{"name": VOLUME, "mountPath": CONFIG_DIRECTORY, "readOnly": True}]
    return made


def volume(options: Options) -> dict[str, Any]:
    """The configuration, with the files of a Secret that it may refer to beside it. A pod starts without them, too."""
    sources = [{kind: {"name": options.config_map, "optional": True}} for kind in ("configMap", "secret")]
    return {"name": VOLUME, "projected": {"sources": sources}}


def with_shared(made: Mapping[str, Any], base: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The container with what it is to share with the task's: entries of `env`, and `envFrom` as a whole.

    Its own variables stand before those: they hold whatever the task's environment says.
    """
    own = {entry["name"] for entry in made["env"]}
    shared = [
        entry for entry in shareable(base) if entry["name"] not in own and matches(entry["name"], options.share_env)
    ]
    result = {**made, "env": [*made["env"], *shared]}
    sources = base.get("envFrom") if options.share_env_from else None
    if not sources:
        return result
    return {key: value for name in result for key, value in _with_sources(name, result[name], sources)}


def _with_sources(name: str, value: Any, sources: Any) -> Iterable[tuple[str, Any]]:
    return [("envFrom", sources), (name, value)] if name == "env" else [(name, value)]


def shareable(base: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a container's `env` that have a name."""
    entries = base.get("env")
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns of a shell fits a name, upper and lower case told apart."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def snippet(options: Options) -> str:
    """What `pod_mutation_hook` (deploy/airflow/airflow_local_settings.py) reads."""
    document = {
        "mode": options.mode.value,
        "position": options.position.value,
        "container": container(options),
        "volumes": [volume(options)],
        "shareProcessNamespace": options.watches_processes,
        "shareEnv": list(options.share_env),
        "shareEnvFrom": options.share_env_from,
    }
    return json.dumps(document, indent=2) + "\n"
