"""The tasks that run in this pod, as far as somebody says so: on a Celery worker, its listener does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from agent.airflow.identity import TASK_KEYS, VALUE_LIMIT, Task
from agent.keys import shown

TASKS_LIMIT = 64
"""Tasks known at the same time at most: a Celery worker runs 16 by default. The one told first is forgotten first."""
NOT_MAPPED = "-1"
"""The map_index of a task that is not mapped (Airflow 2.3 and later)."""
_STATES = ("running", "ended")

_log = structlog.get_logger(__name__)


class Tasks:
    """What has been told: which task runs now."""

    def __init__(self) -> None:
        self._running: dict[Task, None] = {}

    @property
    def running(self) -> Sequence[Task]:
        """The tasks that began and have not ended, in the order in which they were told."""
        return tuple(self._running)

    def tell(self, body: bytes) -> None:
        """Take what a listener sends: JSON with `state` and the keys of a task. Raises ValueError with a sentence."""
        state, task = _read(body)
        if state == "ended":
            if task in self._running:
                del self._running[task]
                _log.info("task_ended", **task.as_dict())
        elif task not in self._running:
            if len(self._running) >= TASKS_LIMIT:
                del self._running[next(iter(self._running))]
            self._running[task] = None
            _log.info("task_started", **task.as_dict())


def _read(body: bytes) -> tuple[str, Task]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("expected JSON, got something else") from None
    if not isinstance(told, Mapping):
        raise ValueError(f"expected an object, got {shown(told)}")  # noqa: TRY004 - all that is wrong is one error
    state = told.get("state")
    if state not in _STATES:
        raise ValueError(f"state: expected {' or '.join(_STATES)}, got {shown(state)}")
    values = {key: _value(key, told[key]) for key in TASK_KEYS if told.get(key) is not None}
    if values.get("map_index") == NOT_MAPPED:
        del values["map_index"]
    for key in ("dag_id", "task_id"):
        if not values.get(key):
            raise ValueError(f"{key}: expected a name, got nothing")
    return state, Task(**values)


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or len(text := str(value)) > VALUE_LIMIT:
        raise ValueError(f"{key}: expected text or a number of at most {VALUE_LIMIT} characters, got {shown(value)}")
    return text
