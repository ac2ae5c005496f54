"""Whose pod this is: the task as Airflow wrote it onto the pod, and the pod itself.

Kubernetes hands both on as environment variables (the downward API), which `netprobe inject` declares.
KubernetesExecutor puts each value into an annotation as it is and into a label with what Kubernetes allows there;
KubernetesPodOperator writes labels alone (apache-airflow-providers-cncf-kubernetes 10.25.0). What is missing arrives
as an empty variable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

ANNOTATION_PREFIX = "NETPROBE_ANNOTATION_"
LABEL_PREFIX = "NETPROBE_LABEL_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One try of a task instance, in Airflow's words. Empty where the pod does not say."""

    dag_id: str = ""
    task_id: str = ""
    run_id: str = ""
    try_number: str = ""
    map_index: str = ""

    def __post_init__(self) -> None:
        _settle(self)

    def as_dict(self) -> dict[str, str]:
        """What is known, by name."""
        return {name: value for name in TASK_KEYS if (value := getattr(self, name))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the agent runs. Empty where the pod does not say."""

    pod: str = ""
    namespace: str = ""
    node: str = ""

    def __post_init__(self) -> None:
        _settle(self)

    def as_dict(self) -> dict[str, str]:
        """What is known, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name))}


VALUE_LIMIT = 250
"""Characters of one value: what Airflow's database has room for in a dag_id, task_id and run_id."""


def _settle(value: Task | Place) -> None:
    """Cut values to what may stand in a label of a metric: text that can be encoded, and not more than so much of it.

    Environment variables may hold any byte, and JSON any half of a surrogate pair.
    """
    for field in fields(value):
        text: str = getattr(value, field.name)
        object.__setattr__(value, field.name, text.encode("utf-8", "replace").decode()[:VALUE_LIMIT])


TASK_KEYS: tuple[str, ...] = tuple(field.name for field in fields(Task))
"""The keys of the annotations and labels, and the names of the labels of `netprobe_task_info`."""

AIRFLOW_VERSION_VARIABLE = f"{LABEL_PREFIX}AIRFLOW_VERSION"
"""Which Airflow made the pod: a label of both kinds of pod, and no annotation."""
POD_UID_VARIABLE = "NETPROBE_POD_UID"
PLACE_VARIABLES: Mapping[str, tuple[str, str]] = {
    "pod": ("NETPROBE_POD_NAME", "metadata.name"),
    "namespace": ("NETPROBE_POD_NAMESPACE", "metadata.namespace"),
    "node": ("NETPROBE_NODE_NAME", "spec.nodeName"),
}
"""By field of Place: its variable, and the field of the downward API that fills it."""


def downward_variables() -> dict[str, str]:
    """Every variable of the identity, and the field of the pod that fills it (Kubernetes 1.29, `fieldPath`)."""
    return {
        **{f"{ANNOTATION_PREFIX}{key.upper()}": f"metadata.annotations['{key}']" for key in TASK_KEYS},
        **{f"{LABEL_PREFIX}{key.upper()}": f"metadata.labels['{key}']" for key in TASK_KEYS},
        AIRFLOW_VERSION_VARIABLE: "metadata.labels['airflow_version']",
        **dict(PLACE_VARIABLES.values()),
        POD_UID_VARIABLE: "metadata.uid",
    }


def read_task(environ: Mapping[str, str] = os.environ) -> Task | None:
    """The task of this pod: annotations first, labels where they are missing; None where the pod names none."""
    found = {
        key: environ.get(f"{ANNOTATION_PREFIX}{key.upper()}") or environ.get(f"{LABEL_PREFIX}{key.upper()}") or ""
        for key in TASK_KEYS
    }
    return Task(**found) if any(found.values()) else None


def read_place(environ: Mapping[str, str] = os.environ) -> Place:
    """Where this agent runs."""
    return Place(**{field: environ.get(variable, "") for field, (variable, _) in PLACE_VARIABLES.items()})
