"""What the shipped pod_mutation_hook does to pods of real Airflow, whose interpreter runs this file.

Reads a task and cases as JSON from standard input. Prints for each, in their order, the pod without and with what the
hook injects, and what the hook logged. Airflow finds the hook in the configuration directory, as in a cluster.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from typing import Any

from airflow.settings import pod_mutation_hook  # type: ignore[import-not-found]
from kubernetes.client import ApiClient, V1Container, V1ObjectMeta, V1Pod, V1PodSpec  # type: ignore[import-not-found]

pods = importlib.import_module("pods")
# Airflow has put its configuration directory into the path by now.
airflow_local_settings = importlib.import_module("airflow_local_settings")
CLIENT = ApiClient()


class Lines(logging.Handler):
    """Keeps what the hook logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main() -> None:
    given = json.load(sys.stdin)
    lines = Lines()
    logger = logging.getLogger("netprobe.pod_mutation_hook")
    logger.disabled = False
    logger.addHandler(lines)
    answers = []
    for case in given["cases"]:
        os.environ["NETPROBE_SIDECAR_SNIPPET"] = "/nowhere"
        plain = pod_of(given["task"], case)
        os.environ["NETPROBE_SIDECAR_SNIPPET"] = case["snippet"]
        lines.lines.clear()
        pod = pod_of(given["task"], case)
        logged = list(lines.lines)
        once = json_of(pod)
        pod_mutation_hook(pod)
        answers.append({"plain": json_of(plain), "once": once, "twice": json_of(pod), "logged": logged})
    os.environ["NETPROBE_SIDECAR_SNIPPET"] = given["good"]
    own = own_hook(given["own_hook"])
    print("\n" + json.dumps({"cases": answers, "strange": strange(), "own": own, "old_client": old_client(lines)}))


def pod_of(task: dict[str, Any], case: dict[str, Any]) -> Any:
    if "operator" in case:
        return pods.operator_pod(task, case["template"], case["operator"])
    return pods.executor_pod(task, case["template"], case.get("override"), case["worker"])


def json_of(pod: Any) -> Any:
    return CLIENT.sanitize_for_serialization(pod)


def own_hook(code: str) -> Any:
    """What becomes of a pod by somebody's own hook, which calls ours."""
    names: dict[str, Any] = {}
    exec(code, names)  # the example of docs/inject.md
    pod = V1Pod(metadata=V1ObjectMeta(labels={}), spec=V1PodSpec(containers=[V1Container(name="base")]))
    names["pod_mutation_hook"](pod)
    return json_of(pod)


def strange() -> list[str]:
    """What the hook raises for things that are no pod."""
    raised = []
    for thing in (None, object(), V1Pod(), V1Pod(spec=V1PodSpec(containers=[]))):
        try:
            airflow_local_settings.pod_mutation_hook(thing)
        except BaseException as error:  # noqa: BLE001 - whatever it is
            raised.append(repr(error))
    return raised


def old_client(lines: Lines) -> Any:
    """What becomes of a pod where the Kubernetes client knows no restartPolicy of containers, as before 28.1."""
    lines.lines.clear()
    V1Container.openapi_types.pop("restart_policy")
    V1Container.attribute_map.pop("restart_policy")
    pod = V1Pod(spec=V1PodSpec(containers=[V1Container(name="base")]))
    before = pod.spec
    airflow_local_settings.pod_mutation_hook(pod)
    return {"same": pod.spec is before, "pod": json_of(pod), "logged": lines.lines}


if __name__ == "__main__":
    main()
