"""Gives every pod that Airflow makes the netprobe sidecar: those of KubernetesExecutor and of KubernetesPodOperator.

Airflow imports this file from its configuration directory or any other place on PYTHONPATH, in the scheduler (which
makes the executor's pods) and in the workers (which make the operator's). What is injected stands in a file that
`netprobe inject --format hook-snippet` prints and a ConfigMap mounts; without that file nothing is injected. A pod
that wants none says so: annotation `netprobe/inject: "false"`.

A hook of your own goes beside it: keep this file as `netprobe_pod_mutation.py`, and in your airflow_local_settings.py

    from netprobe_pod_mutation import pod_mutation_hook as add_netprobe

    def pod_mutation_hook(pod):
        ...
        add_netprobe(pod)

Standard library only, and the kubernetes client that Airflow itself uses here. For Airflow 2.7 and later.
"""

from __future__ import annotations

import copy
import fnmatch
import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["pod_mutation_hook"]

PATH_VARIABLE = "NETPROBE_SIDECAR_SNIPPET"
DEFAULT_PATH = "/opt/airflow/netprobe/sidecar.json"
ANNOTATION = "netprobe/inject"
OPERATOR_LABEL = "kubernetes_pod_operator"
NAME = "netprobe"
QUIT_VARIABLE = "NETPROBE_QUIT_WITH_TASK"
SIZE_LIMIT_BYTES = 1 << 20

log = logging.getLogger("netprobe.pod_mutation_hook")


def pod_mutation_hook(pod: Any) -> None:
    """Add the sidecar to a pod (V1Pod), or leave the pod exactly as it is. Never raises: that would fail the task."""
    try:
        spec = _spec_with_sidecar(pod)
        if spec is not None:
            pod.spec = spec
    except Exception as error:  # noqa: BLE001 - a task without a sidecar is better than no task
        with suppress(Exception):
            log.warning("netprobe: this pod gets no sidecar: %s: %s", type(error).__name__, error)


def _spec_with_sidecar(pod: Any) -> Any:
    """Make a copy of the pod's spec with the sidecar in it; None where there is nothing to do.

    Everything is made before anything of the pod is touched. Raises whatever goes wrong.
    """
    spec = pod.spec
    annotations = (pod.metadata.annotations if pod.metadata else None) or {}
    if spec is None or not spec.containers or str(annotations.get(ANNOTATION, "")).strip().lower() == "false":
        return None
    containers, init_containers = list(spec.containers), list(spec.init_containers or [])
    if any(container.name == NAME for container in [*containers, *init_containers]):
        return None
    snippet = _snippet(Path(os.environ.get(PATH_VARIABLE) or DEFAULT_PATH))
    if snippet is None:
        return None

    _expect_linux_and_its_own_network(spec)
    (sidecar,) = _models([snippet["container"]], "V1Container")
    own_volumes = _models(snippet["volumes"], "V1Volume")
    volumes = list(spec.volumes or [])
    taken = {volume.name for volume in volumes} & {volume.name for volume in own_volumes}
    if sidecar.name != NAME or taken:
        raise ValueError(f"expected a container called {NAME} and volumes of its own, got {sidecar.name}, {taken}")
    at = next((index for index, container in enumerate(containers) if container.name == "base"), 0)
    _share(containers[at], sidecar, snippet)

    result = copy.copy(spec)
    if snippet["mode"] == "native":
        first = snippet["position"] == "first"
        result.init_containers = [sidecar, *init_containers] if first else [*init_containers, sidecar]
    elif snippet["mode"] == "legacy":
        if snippet["shareProcessNamespace"]:
            if spec.share_process_namespace is False:
                raise ValueError("expected shareProcessNamespace to be true or left out, got false")
            result.share_process_namespace = True
        else:
            _let_listener_end_it(pod, containers, at)
        # Last: Airflow takes the first container for the task's.
        result.containers = [*containers, sidecar]
    else:
        raise ValueError(f"expected mode native or legacy, got {snippet['mode']!r}")
    result.volumes = [*volumes, *own_volumes]
    return result


def _expect_linux_and_its_own_network(spec: Any) -> None:
    """Raise ValueError for a pod that the sidecar would keep from starting."""
    # Kubernetes makes its port one of the node's, and starts no second pod with it there.
    if spec.host_network:
        raise ValueError("expected a pod with a network of its own, got hostNetwork")
    named = [getattr(getattr(spec, "os", None), "name", None), (spec.node_selector or {}).get("kubernetes.io/os")]
    for name in named:
        if name not in (None, "linux"):
            raise ValueError(f"expected a pod for linux, got one for {name}")


def _snippet(path: Path) -> Any:
    """What is to be injected; None where there is no such file, which switches this hook off."""
    if not path.exists():
        return None
    if not path.is_file():
        raise ValueError(f"expected a file at {path}, got something else")
    with path.open(encoding="utf-8") as file:
        return json.loads(file.read(SIZE_LIMIT_BYTES))


def _models(values: list[Any], kind: str) -> list[Any]:
    """Objects of the kubernetes client from what their JSON says.

    Raises ValueError where this client does not know all of it: before 28.1 it drops restartPolicy without a word, and
    an init container that never ends would hold up the task for good.
    """
    # Not at the top: every Airflow process imports this file, and few make pods.
    from kubernetes.client import ApiClient, Configuration  # noqa: PLC0415

    # A configuration of its own: the default one, which each object would keep, cannot be pickled in a cluster.
    with ApiClient(configuration=Configuration()) as client:
        models: list[Any] = client.deserialize(SimpleNamespace(data=json.dumps(values)), f"list[{kind}]")
        if client.sanitize_for_serialization(models) != values:
            raise ValueError(f"expected a kubernetes client that knows all of the {kind}, got one that drops a part")
    return models


def _share(base: Any, sidecar: Any, snippet: Any) -> None:
    """Give the sidecar the variables of the task's container that were asked for. Its own come first, and hold."""
    own = {variable.name for variable in sidecar.env}
    sidecar.env = sidecar.env + [
        copy.deepcopy(variable)
        for variable in base.env or []
        if variable.name not in own
        and any(fnmatch.fnmatchcase(variable.name, pattern) for pattern in snippet["shareEnv"])
    ]
    if snippet["shareEnvFrom"] and base.env_from:
        sidecar.env_from = copy.deepcopy(base.env_from)


def _let_listener_end_it(pod: Any, containers: list[Any], at: int) -> None:
    """Have Airflow's listener, beside the task, tell the sidecar to end."""
    if str((pod.metadata.labels or {}).get(OPERATOR_LABEL, "")).lower() == "true":
        raise ValueError("expected Airflow in the pod, whose listener would end the sidecar, got KubernetesPodOperator")
    (variable,) = _models([{"name": QUIT_VARIABLE, "value": "true"}], "V1EnvVar")
    base = copy.copy(containers[at])
    base.env = [*(base.env or []), variable]
    containers[at] = base
