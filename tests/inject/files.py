"""Injecting into text, and what is meant to come out, worked out from the data alone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml

from agent.airflow.inject.document import Unreadable, read
from agent.airflow.inject.injecting import Injector, Refused
from agent.airflow.inject.places import Lists
from agent.airflow.inject.sidecar import Mode, Options, Position, container, volume

TEMPLATES = Path(__file__).parent / "templates"
FILES = sorted(path for path in TEMPLATES.iterdir() if path.suffix in {".yaml", ".json"})


def injected(data: bytes, options: Options | None = None, chart: Lists | None = None, base: str | None = None) -> bytes:
    injector = Injector(options=options or Options(), chart=chart, base=base)
    return injector.inject(read("pod.yaml", data)).text.encode()


def removed(data: bytes, chart: Lists | None = None) -> bytes:
    return Injector(options=Options(), chart=chart).remove(read("pod.yaml", data)).text.encode()


def problems(
    data: bytes, options: Options | None = None, chart: Lists | None = None, base: str | None = None
) -> list[str]:
    """What is said to a file, where that is not taken."""
    try:
        injected(data, options, chart, base)
    except (Refused, Unreadable) as error:
        return [str(problem) for problem in error.args]
    return []


def loaded(data: bytes) -> list[Any]:
    """The documents of a file, by the C parser, which Airflow uses; netprobe reads it with the one in Python."""
    return list(yaml.load_all(data, Loader=yaml.CSafeLoader))


def note_of(made: dict[str, Any]) -> Any:
    """What the sidecar carries of its own removal."""
    (entry,) = [entry for entry in made["env"] if entry["name"] == "NETPROBE_INJECTED"]
    return json.loads(entry["value"])


def expected(spec: Any, options: Options, *, ends_with_task: bool = True) -> Any:
    """A pod's spec with the sidecar in it, but for the note."""
    result = copy.deepcopy(spec)
    made = container(options, ends_with_task=ends_with_task)
    if options.mode is Mode.LEGACY:
        result["containers"] = [*result["containers"], made]
        if options.share_process_namespace and ends_with_task:
            result["shareProcessNamespace"] = True
    else:
        others = result.get("initContainers") or []
        first = options.position is Position.FIRST
        result["initContainers"] = [made, *others] if first else [*others, made]
    result["volumes"] = [*(result.get("volumes") or []), volume(options)]
    return result


def without_note(spec: Any) -> Any:
    """A pod's spec as if the sidecar had no note."""
    result = copy.deepcopy(spec)
    for made in [*(result.get("initContainers") or ()), *result["containers"]]:
        if made["name"] == "netprobe":
            made["env"] = [entry for entry in made["env"] if entry["name"] != "NETPROBE_INJECTED"]
    return result
