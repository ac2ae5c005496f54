"""What some panels have to show in each phase of an outage: the numbers that people go by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tests.grafana.queries import Query, dashboards, panels, queries
from tests.lab.fleet.dags import DAGS, TASKS
from tests.lab.fleet.fleet import Fleet
from tests.lab.fleet.outage import CAUSE, PODS, TARGETS, Phase
from tests.lab.pace import Pace
from tests.stack.panels import CHOSEN, RANGE_SECONDS, STEP_SECONDS, over_time, values

FLEET, TARGET, TASK, ITSELF = "netprobe-fleet", "netprobe-target", "netprobe-task", "netprobe-self"
SOME: Final = 0.1
"""Of the pods: so many may have a verdict of their own on a machine that is short of CPU."""
MOST: Final = 0.75
"""Of the pods of the whole course: those that began late in the outage may have had no verdict when it ended."""
BEYOND: Final = {"budget left", "Rules, share of their interval"}
"""Shares that may be less than nothing, or more than all."""

Series = Sequence[tuple[Mapping[str, str], float]]
"""The labels and the value of each, at the end of the time range."""
Holds = Callable[[Series], bool]

_PATIENCE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Expected:
    """What a panel shows."""

    dashboard: str
    panel: str
    """Its title and, in brackets, the letter of its query."""
    words: str
    holds: Holds


def is_(value: float) -> Holds:
    """One number, this one."""
    return lambda series: [number for _, number in series] == [value]


def within(least: float, most: float) -> Holds:
    """One number or more, all of them in these bounds."""
    return lambda series: bool(series) and all(least <= number <= most for _, number in series)


def named(label: str, value: str) -> Holds:
    """One series, with this label."""
    return lambda series: [labels.get(label) for labels, _ in series] == [value]


def each(label: str, names: frozenset[str], least: float, most: float) -> Holds:
    """A row for each name, all of them in these bounds."""
    return lambda series: {labels[label] for labels, _ in series} == names and within(least, most)(series)


def by(label: str, expected: Mapping[str, float]) -> Holds:
    """Exactly these numbers, and none or 0 of anything else."""
    return lambda series: {labels[label]: number for labels, number in series if number} == expected


_DAGS = frozenset(dag.dag_id for dag in DAGS)
_OF_THE_TARGET = float(len(TASKS))
"""Pods that probe the target which is chosen: those of one DAG."""

EXPECTED: Final[Mapping[Phase, Sequence[Expected]]] = {
    "healthy": (
        Expected(FLEET, "Is the network hurting my DAGs? (A)", f"at most {SOME}", within(0, SOME)),
        Expected(FLEET, "Pods affected (A)", f"at most {SOME}", within(0, SOME)),
        Expected(FLEET, "Targets failing (A)", "0", is_(0)),
        Expected(FLEET, "Worst targets (A)", "every target, 0", each("target", TARGETS, 0, 0)),
        Expected(FLEET, "Worst targets (B)", "every target, all pods", each("target", TARGETS, 3, 3)),
        Expected(TARGET, "Fails for (A)", "0", is_(0)),
        Expected(TARGET, "Cause (A)", "healthy", named("cause", "healthy")),
        Expected(TARGET, "Availability (A)", "nearly 1", within(0.95, 1)),
        Expected(TARGET, "Availability over time (A)", "nearly 1", within(0.95, 1)),
        Expected(TARGET, "Pods by cause (A)", "all healthy", by("cause", {"healthy": _OF_THE_TARGET})),
        Expected(ITSELF, "Agents reporting (A)", str(PODS), is_(PODS)),
        Expected(ITSELF, "Not answering (A)", "0", is_(0)),
        Expected(ITSELF, "Bad configuration (A)", "0", is_(0)),
    ),
    "broken": (
        Expected(FLEET, "Is the network hurting my DAGs? (A)", "0.9 to 1", within(0.9, 1)),
        Expected(FLEET, "Most frequent cause (A)", CAUSE, named("cause", CAUSE)),
        Expected(FLEET, "Pods affected (A)", "0.9 to 1", within(0.9, 1)),
        Expected(FLEET, "Share of pods affected (A)", "0.9 to 1", within(0.9, 1)),
        Expected(FLEET, "DAGs affected (A)", str(len(DAGS)), is_(len(DAGS))),
        Expected(FLEET, "Targets failing (A)", str(len(TARGETS)), is_(len(TARGETS))),
        Expected(FLEET, "Worst targets (A)", "every target, 0.9 to 1", each("target", TARGETS, 0.9, 1)),
        Expected(FLEET, "Affected DAGs (A)", "every DAG, 0.5 to 1", each("dag_id", _DAGS, 0.5, 1)),
        Expected(FLEET, "Budget burn (A)", "over 1", within(1, 100)),
        Expected(TARGET, "Fails for (A)", "1", is_(1)),
        Expected(TARGET, "Cause (A)", CAUSE, named("cause", CAUSE)),
        Expected(TARGET, "Availability (A)", "between", within(0.01, 0.99)),
        Expected(TARGET, "Availability over time (A)", "0", is_(0)),
        Expected(TARGET, "Pods by cause (A)", f"all {CAUSE}", by("cause", {CAUSE: _OF_THE_TARGET})),
        Expected(TASK, "Did the network hurt it? (A)", "most", within(MOST, 1)),
        Expected(ITSELF, "Agents reporting (A)", str(PODS), is_(PODS)),
        Expected(ITSELF, "Not answering (A)", "0", is_(0)),
    ),
    "mended": (
        Expected(FLEET, "Pods affected (A)", f"at most {SOME}", within(0, SOME)),
        Expected(FLEET, "Targets failing (A)", "0", is_(0)),
        Expected(TARGET, "Fails for (A)", "0", is_(0)),
        Expected(TARGET, "Cause (A)", "healthy", named("cause", "healthy")),
        Expected(TARGET, "Availability (A)", "between", within(0.01, 0.99)),
        Expected(TASK, "Did the network hurt it? (A)", "most", within(MOST, 1)),
        Expected(ITSELF, "Agents reporting (A)", str(PODS), is_(PODS)),
    ),
}


def wrong(fleet: Fleet, pace: Pace, phase: Phase) -> list[str]:
    """What has not shown what it should, with what it showed last. What has just begun may take a while to be seen."""
    asked = _asked(pace)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    waiting = list(EXPECTED[phase])
    while True:
        seen = [(one, _at_the_end(fleet, pace, asked[one.dashboard, one.panel])) for one in waiting]
        missed = [(one, series) for one, series in seen if not one.holds(series)]
        if not missed or time.monotonic() > deadline:
            return [f"{one.dashboard}: {one.panel}: expected {one.words}, got {series}" for one, series in missed]
        waiting = [one for one, _ in missed]
        time.sleep(_POLL_SECONDS)


def no_shares(fleet: Fleet, pace: Pace) -> list[str]:
    """What is called a share, and is at some time less than nothing or more than all."""
    asked = _asked(pace)
    found = []
    for uid, letter, title in _shares():
        query = asked[uid, f"{title} ({letter})"]
        series = fleet.query(query.expr) if query.instant else over_time(fleet, pace, query)
        numbers = [number for one in series for number in map(float, values(one)) if not math.isnan(number)]
        if not all(0 <= number <= 1 for number in numbers):
            found.append(f"{uid}: {title} ({letter}): {min(numbers)} to {max(numbers)}")
    return found


def _shares() -> list[tuple[str, str, str]]:
    """Dashboard, letter and title of every query whose panel or column has the unit of shares."""
    found = []
    for uid, document in dashboards().items():
        for panel in panels(document):
            configured = panel["fieldConfig"]
            if configured["defaults"]["unit"] == "percentunit" and panel["title"] not in BEYOND:
                found += [(uid, str(target["refId"]), str(panel["title"])) for target in panel["targets"]]
            for column in configured.get("overrides", ()):
                units = [one["value"] for one in column["properties"] if one["id"] == "unit"]
                name = column["matcher"]["options"]
                if units == ["percentunit"] and name not in BEYOND:
                    shown = panel["transformations"][-1]["options"]["renameByName"]
                    (field,) = (field for field, renamed in shown.items() if renamed == name)
                    found.append((uid, field.rpartition("#")[2], str(panel["title"])))
    assert len(found) > len({"fleet", "target", "task", "self"})
    return found


def _asked(pace: Pace) -> dict[tuple[str, str], Query]:
    """Every query of a panel: of one DAG and one target where one has to be chosen, and else of all."""
    one = CHOSEN[0]
    return {
        (query.dashboard, query.name): replace(query, expr=pace.expression(query.expr))
        for chosen, which in ((one, {TARGET, TASK}), ({**one, "dag_id": ".*"}, {FLEET, ITSELF}))
        for query in queries(chosen, range_seconds=RANGE_SECONDS, step_seconds=STEP_SECONDS)
        if query.kind == "panel" and query.dashboard in which
    }


def _at_the_end(fleet: Fleet, pace: Pace, query: Query) -> Series:
    if query.instant:
        return [(one["metric"], float(one["value"][1])) for one in fleet.query(query.expr)]
    series = over_time(fleet, pace, query)
    last = max((float(one["values"][-1][0]) for one in series), default=0.0)
    return [(one["metric"], float(one["values"][-1][1])) for one in series if float(one["values"][-1][0]) == last]
