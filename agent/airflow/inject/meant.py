"""What a change is meant to come to, as data. The edited text is held against it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from agent.airflow.inject.sidecar import CONTAINER, VOLUME
from agent.airflow.inject.splice import Addition, Path


def added(home: Any, additions: Sequence[Addition]) -> Any:
    """A mapping with additions."""
    result = copy.deepcopy(home)
    for addition in additions:
        *parents, last = addition.path
        place = result
        for key in parents:
            if place.get(key) is None:
                place[key] = {}
            place = place[key]
        there = place.get(last) or ()
        if not addition.item:
            place[last] = addition.value
        else:
            place[last] = [addition.value, *there] if addition.first else [*there, addition.value]
    return result


def taken_out(home: Any, lists: Iterable[Path], keys: Iterable[str]) -> Any:
    """A mapping without a sidecar. What its lists come back to is for the text to say: see `without_nothing`."""
    result = {key: value for key, value in copy.deepcopy(home).items() if key not in keys}
    for path in lists:
        place = _at(result, path[:-1])
        if isinstance(place, dict) and isinstance(place.get(path[-1]), list):
            place[path[-1]] = [item for item in place[path[-1]] if not _is_ours(item)]
    return result


def without_nothing(home: Any, lists: Iterable[Path]) -> Any:
    """A mapping in which the empty among these lists, and what is around them, are all left out: null, [] and {}."""
    result = copy.deepcopy(home)
    for path in lists:
        for length in range(len(path), 0, -1):
            place = _at(result, path[: length - 1])
            if isinstance(place, dict) and place.get(path[length - 1], 0) in (None, [], {}):
                del place[path[length - 1]]
    return result or None


def _is_ours(item: Any) -> bool:
    return isinstance(item, dict) and item.get("name") in {CONTAINER, VOLUME}


def _at(data: Any, path: Iterable[str]) -> Any:
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data
