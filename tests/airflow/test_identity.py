"""Whose pod it is, and which tasks say that they run in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.airflow.identity import (
    AIRFLOW_VERSION_VARIABLE,
    POD_UID_VARIABLE,
    TASK_KEYS,
    VALUE_LIMIT,
    Place,
    Task,
    downward_variables,
    read_place,
    read_task,
)
from agent.airflow.tasks import TASKS_LIMIT, Tasks
from agent.sinks.metrics import TASK_LABELS

ANNOTATED = {
    "NETPROBE_ANNOTATION_DAG_ID": "My DAG é",
    "NETPROBE_ANNOTATION_TASK_ID": "group.load",
    "NETPROBE_ANNOTATION_RUN_ID": "scheduled__2026-01-01T00:00:00+00:00",
    "NETPROBE_ANNOTATION_TRY_NUMBER": "2",
    "NETPROBE_ANNOTATION_MAP_INDEX": "",
    "NETPROBE_LABEL_DAG_ID": "MyDAG-74900e7a2",
    "NETPROBE_LABEL_TASK_ID": "group.load",
    "NETPROBE_LABEL_RUN_ID": "scheduled__2026-01-01T0000000000-b36726f5d",
    "NETPROBE_LABEL_TRY_NUMBER": "2",
    "NETPROBE_LABEL_MAP_INDEX": "",
}
"""As the downward API fills them in a pod of KubernetesExecutor (Airflow 3.3): what is missing is empty."""


def test_an_annotation_comes_before_its_label() -> None:
    assert read_task(ANNOTATED) == Task(
        dag_id="My DAG é", task_id="group.load", run_id="scheduled__2026-01-01T00:00:00+00:00", try_number="2"
    )


def test_labels_are_all_a_pod_of_the_operator_has() -> None:
    labelled = {name: "" if "ANNOTATION" in name else value for name, value in ANNOTATED.items()}
    assert read_task(labelled) == Task(
        dag_id="MyDAG-74900e7a2",
        task_id="group.load",
        run_id="scheduled__2026-01-01T0000000000-b36726f5d",
        try_number="2",
    )


def test_a_pod_that_names_no_task_has_none() -> None:
    assert read_task(dict.fromkeys(ANNOTATED, "")) is None
    assert read_task({}) is None


def test_where_it_runs_as_far_as_known() -> None:
    assert read_place({"NETPROBE_POD_NAME": "etl-load-1", "NETPROBE_NODE_NAME": ""}) == Place(pod="etl-load-1")
    assert read_place({}).as_dict() == {}


def test_any_bytes_of_an_environment_can_be_shown() -> None:
    """os.environ has surrogates for bytes that are no UTF-8; no metric and no page could carry them."""
    undecodable = b"caf\xe9".decode("utf-8", "surrogateescape")
    task = read_task({"NETPROBE_LABEL_DAG_ID": undecodable, "NETPROBE_LABEL_TASK_ID": "x" * 1000})
    assert task is not None
    assert task.dag_id == "caf?"
    assert task.task_id == "x" * VALUE_LIMIT


def test_what_is_declared_is_what_is_read() -> None:
    for name in downward_variables():
        found = read_task({name: "seen"}), read_place({name: "seen"})
        assert name in {POD_UID_VARIABLE, AIRFLOW_VERSION_VARIABLE} or "seen" in str(found), name
    assert TASK_KEYS == TASK_LABELS


# --- told ------------------------------------------------------------------------------------------------------------


def tell(tasks: Tasks, **told: Any) -> None:
    tasks.tell(json.dumps(told).encode())


def test_a_task_is_known_from_its_beginning_to_its_end() -> None:
    tasks = Tasks()
    first = {"dag_id": "etl", "task_id": "load", "run_id": "manual__1", "try_number": 1}
    tell(tasks, state="running", **first, map_index=-1)
    tell(tasks, state="running", **first)
    tell(tasks, state="running", **first, map_index=3)
    assert [task.as_dict() for task in tasks.running] == [
        {**first, "try_number": "1"},
        {**first, "try_number": "1", "map_index": "3"},
    ]
    tell(tasks, state="ended", **first)
    assert [task.map_index for task in tasks.running] == ["3"]
    tell(tasks, state="ended", **first)  # again, or never told
    tell(tasks, state="ended", **first, map_index=3)
    assert tasks.running == ()


def test_how_many_are_known_is_bounded() -> None:
    """A listener that never says that a task has ended fills nothing."""
    tasks = Tasks()
    for number in range(10 * TASKS_LIMIT):
        tell(tasks, state="running", dag_id="etl", task_id=f"t{number}")
    assert len(tasks.running) == TASKS_LIMIT
    assert tasks.running[-1].task_id == f"t{10 * TASKS_LIMIT - 1}"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "expected JSON, got something else"),
        (b"\xff", "expected JSON, got something else"),
        (b"[" * 4000, "expected JSON, got something else"),
        (b"[]", "expected an object, got a list"),
        (b"{}", "state: expected running or ended, got null"),
        (b'{"state": ["running"]}', "state: expected running or ended, got a list"),
        (b'{"state": "running", "dag_id": "d"}', "task_id: expected a name, got nothing"),
        (b'{"state": "running", "dag_id": "", "task_id": "t"}', "dag_id: expected a name, got nothing"),
        (
            b'{"state": "running", "dag_id": true, "task_id": "t"}',
            "dag_id: expected text or a number of at most 250 characters, got true",
        ),
        (
            b'{"state": "running", "dag_id": {}, "task_id": "t"}',
            "dag_id: expected text or a number of at most 250 characters, got a mapping",
        ),
    ],
)
def test_anything_else_is_refused_with_a_sentence(body: bytes, sentence: str) -> None:
    tasks = Tasks()
    with pytest.raises(ValueError, match="expected ") as error:
        tasks.tell(body)
    assert str(error.value) == sentence
    assert tasks.running == ()


def test_half_a_surrogate_pair_can_be_shown() -> None:
    tasks = Tasks()
    tasks.tell(b'{"state": "running", "dag_id": "\\ud800", "task_id": "t"}')
    assert tasks.running[0].dag_id == "?"
