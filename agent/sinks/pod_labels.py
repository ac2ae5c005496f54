"""Whose series they are that a pod pushes: labels that name the pod and its task, and never one of its runs."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping

from agent.config.push import PushOptions

OTHER = "__other__"
"""Stands for every dag_id or task_id that is not to have series of its own."""
_LONGEST = 250
"""Airflow's own limit for a dag_id and a task_id."""
_PLACE = ("namespace", "pod", "node")


def task_labels(options: PushOptions, known: Mapping[str, str]) -> dict[str, str]:
    """dag_id and task_id where the pod names them; those that must not have series of their own as `__other__`."""
    patterns = {"dag_id": options.dag_ids, "task_id": options.task_ids}
    return {name: _capped(known[name], allowed) for name, allowed in patterns.items() if known.get(name)}


def _capped(value: str, allowed: tuple[re.Pattern[str], ...]) -> str:
    if len(value) > _LONGEST or (allowed and not any(pattern.fullmatch(value) for pattern in allowed)):
        return OTHER
    return value


def pod_labels(options: PushOptions, known: Mapping[str, str]) -> dict[str, str]:
    """What tells the series of this pod from those of every other, those of another try of its task among them."""
    place = {name: known[name] for name in _PLACE if known.get(name)}
    return {"job": options.job, "pod": socket.gethostname(), **place, **task_labels(options, known)}
