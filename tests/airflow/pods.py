"""What real Airflow makes of a pod template. Airflow's own interpreter runs this file, with nothing of netprobe in it.

Reads a task, a list of cases and plugins folders as JSON from standard input. Prints as JSON, in their order, the pod
of each case as the Kubernetes client would send it to the API server, what Airflow finds in each folder, and the
options of its KubernetesExecutor.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import (  # type: ignore[import-not-found]
    get_base_pod_from_template,
)
from airflow.providers.cncf.kubernetes.get_provider_info import get_provider_info  # type: ignore[import-not-found]
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator  # type: ignore[import-not-found]
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator  # type: ignore[import-not-found]
from kubernetes.client import ApiClient  # type: ignore[import-not-found]

try:
    from airflow._shared.module_loading.file_discovery import (  # type: ignore[import-not-found]
        find_path_from_directory,
    )
except ImportError:  # Airflow 2
    from airflow.utils.file import find_path_from_directory  # type: ignore[import-not-found]


def executor_pod(task: dict[str, Any], template: str, override: dict[str, Any] | None, worker: list[str]) -> Any:
    """As KubernetesExecutor does: template, task, `executor_config["pod_override"]`, `pod_mutation_hook`."""
    return PodGenerator.construct_pod(
        **task,
        pod_id="etl-daily-load-x1y2z3",
        kube_image="apache/airflow:of-the-configuration",
        date=None,
        args=worker,
        pod_override_object=override and PodGenerator.deserialize_model_dict(override),
        # As for a task that names a template of its own, beside that of the configuration.
        base_worker_pod=get_base_pod_from_template(template, SimpleNamespace(pod_template_file="that of all others")),
        namespace="airflow",
        scheduler_job_id="7",
        with_mutation_hook=True,
    )


def operator_pod(task: dict[str, Any], template: str, arguments: dict[str, Any]) -> Any:
    """As KubernetesPodOperator does, with `pod_template_file`."""
    described = {
        key: PodGenerator.deserialize_model_dict({"spec": {"containers": value}}).spec.containers
        if key == "init_containers"
        else value
        for key, value in arguments.items()
    }
    operator = KubernetesPodOperator(
        task_id=task["task_id"], pod_template_file=template, namespace="airflow", in_cluster=True, **described
    )
    context = {"ti": SimpleNamespace(**task), "run_id": task["run_id"], "dag": SimpleNamespace()}
    # What needs an API server is left out; labels and the hook are not.
    return operator.build_pod_request_obj(context, dry_run=True)


def found_in(folder: str) -> list[str] | str:
    """The files that Airflow's plugin manager would look at, or why it would not look at any."""
    try:
        return list(find_path_from_directory(folder, ".airflowignore"))
    except RuntimeError as error:
        return str(error)


def main() -> None:
    client = ApiClient()
    given = json.load(sys.stdin)
    task = given["task"]
    pods = [
        operator_pod(task, case["template"], case["operator"])
        if "operator" in case
        else executor_pod(task, case["template"], case.get("override"), case["worker"])
        for case in given["cases"]
    ]
    # Importing Airflow may have printed something.
    made = [client.sanitize_for_serialization(pod) for pod in pods]
    found = [found_in(folder) for folder in given["folders"]]
    options = list(get_provider_info()["config"]["kubernetes_executor"]["options"])
    print("\n" + json.dumps({"pods": made, "found": found, "options": options}))


if __name__ == "__main__":
    main()
