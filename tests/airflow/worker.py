"""Runs tasks in one process of real Airflow, again and again: its import is what costs. Airflow's interpreter runs it.

A line of JSON in, `{"do": "run", "dag": …, "environ": {…}}`, a line of JSON out: how the task ended, what the plugin
logged of it, and how long its hooks took.
"""

from __future__ import annotations

import json
import logging
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pluggy
from airflow import __version__  # type: ignore[import-not-found]
from airflow.listeners.listener import get_listener_manager  # type: ignore[import-not-found]
from airflow.utils.db import initdb  # type: ignore[import-not-found]
from sqlalchemy.orm import make_transient  # type: ignore[import-not-found]

HERE = Path(__file__).resolve().parent
PLUGIN = HERE.parents[1] / "deploy/airflow/plugins/netprobe_listener.py"
DAGS = runpy.run_path(str(HERE / "dags/tasks.py"))
MORE: dict[str, Any] = {"error": None, **({"session": None} if __version__.startswith("2.") else {})}
"""Arguments of hooks that the plugin does not take."""
NOBODY = "http://127.0.0.1:1"
LOGGER = "airflow.task.netprobe"


class Kept(logging.Handler):
    """Every record, as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.levelname, record.getMessage()))


def run(dag: str) -> dict[str, Any]:
    """One task from its beginning to its end."""
    return {"state": _state(_instance(dag))}


def elsewhere() -> dict[str, Any]:
    """A task of another process is marked as failed in this one, as schedulers and API servers do."""
    get_listener_manager().hook.on_task_instance_failed(
        previous_state="running", task_instance=_of_another_process(), **MORE
    )
    return {}


def signature(arguments: list[str]) -> dict[str, Any]:
    """The plugin's listener, called through a hook that has these arguments."""
    specification: dict[str, Any] = {}
    hooks = ("running", "success", "failed")
    for hook in hooks:
        exec(f"def on_task_instance_{hook}({', '.join(arguments)}): pass", specification)
    marker = pluggy.HookspecMarker("airflow")
    spec = type("Spec", (), {})()
    for hook in hooks:
        setattr(spec, f"on_task_instance_{hook}", marker(specification[f"on_task_instance_{hook}"]))
    manager = pluggy.PluginManager("airflow")
    manager.add_hookspecs(spec)
    manager.register(runpy.run_path(str(PLUGIN))["NetprobeListener"]())
    instance = _of_another_process()
    instance.pid = os.getpid()
    for hook in hooks:
        values = {name: instance if name == "task_instance" else None for name in arguments}
        getattr(manager.hook, f"on_task_instance_{hook}")(**values)
    return {}


def imported() -> dict[str, Any]:
    """What the plugin imports beyond what Airflow has imported to look for plugins."""
    before = set(sys.modules)
    runpy.run_path(str(PLUGIN))
    return {"modules": sorted(set(sys.modules) - before)}


def _instance(dag: str) -> Any:
    (instance,) = DAGS[dag].test().get_task_instances()
    return instance


def _of_another_process() -> Any:
    """A task instance of the metadata database, of which this process knows nothing more."""
    url = os.environ["NETPROBE_URL"]
    os.environ["NETPROBE_URL"] = NOBODY
    instance = _instance("fails")
    os.environ["NETPROBE_URL"] = url
    for variable in [name for name in os.environ if name.startswith("AIRFLOW_CTX_")]:
        del os.environ[variable]
    make_transient(instance)
    instance.pid = 1
    return instance


def _state(instance: Any) -> str:
    return str(getattr(instance.state, "value", instance.state))


def _answer(do: str, environ: dict[str, str], **arguments: Any) -> dict[str, Any]:
    kept = Kept()
    logger = logging.getLogger(LOGGER)
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    before = dict(os.environ)
    os.environ.update(environ)
    try:
        return {**globals()[do](**arguments), "records": kept.records}
    finally:
        logger.removeHandler(kept)
        os.environ.clear()
        os.environ.update(before)


def main() -> None:
    # Airflow writes to standard output whatever it likes.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    initdb()
    for line in sys.stdin:
        print(json.dumps(_answer(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
