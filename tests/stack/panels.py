"""Which queries of the dashboards a fleet's Prometheus has an answer to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from tests.grafana.queries import Query, queries
from tests.lab.fleet.dags import NAMESPACE
from tests.lab.fleet.fleet import Fleet
from tests.lab.fleet.outage import Phase
from tests.lab.pace import Pace

CHOSEN: Final[Sequence[Mapping[str, str]]] = tuple(
    {"namespace": NAMESPACE, "dag_id": dag_id, "task_id": "load", "target": f"{dag_id}-{what}"}
    for dag_id, what in (("orders", "api"), ("orders", "database"), ("customers", "database"), ("reporting", "api"))
)
"""What a reader has chosen: an HTTPS target, a database, a name, and a task whose pods push. What only some types have,
one of them has."""

RANGE_SECONDS: Final = 3600
STEP_SECONDS: Final = 60
_PATIENCE_SECONDS: Final = 300.0
"""At the real pace."""
_PATIENCE_AT_LEAST_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.5


def without_answer(fleet: Fleet, pace: Pace, phase: Phase) -> list[str]:
    """The queries that have none for any choice, with what was asked.

    Panels and variables in health and in the outage; after the mend, what marks that something began and ended.

    What has just begun may take a while until it has been scraped and recorded.
    """
    deadline = time.monotonic() + max(_PATIENCE_AT_LEAST_SECONDS, pace.seconds(_PATIENCE_SECONDS))
    waiting = [asked for asked in _asked(pace) if (asked[0].kind == "annotation") == (phase == "mended")]
    assert waiting, f"expected dashboards with something to ask for, {phase}"
    while True:
        waiting = [asked for asked in waiting if not any(_has_answer(fleet, pace, query) for query in asked)]
        if not waiting or time.monotonic() > deadline:
            return [f"{asked[0].kind} of {asked[0]}: {asked[0].expr}" for asked in waiting]
        time.sleep(_POLL_SECONDS)


def _asked(pace: Pace) -> list[list[Query]]:
    """Each query, once for each choice that makes a difference to it."""
    found: dict[tuple[str, str], dict[str, Query]] = {}
    for chosen in CHOSEN:
        for query in queries(chosen, range_seconds=RANGE_SECONDS, step_seconds=STEP_SECONDS):
            expr = pace.expression(query.expr)
            found.setdefault((query.kind, str(query)), {})[expr] = replace(query, expr=expr)
    return [list(asked.values()) for asked in found.values()]


def _has_answer(fleet: Fleet, pace: Pace, query: Query) -> bool:
    if query.instant:
        series = fleet.query(query.expr)
        if query.label is not None:
            return any(one["metric"].get(query.label) for one in series)
    else:
        series = over_time(fleet, pace, query)
    return any(not math.isnan(float(value)) for one in series for value in values(one))


def over_time(fleet: Fleet, pace: Pace, query: Query) -> list[dict[str, Any]]:
    """The series of a query over the time range that ends now."""
    now = time.time()
    span, step = pace.seconds(RANGE_SECONDS), pace.seconds(STEP_SECONDS)
    times = {"start": f"{now - span:.3f}", "end": f"{now:.3f}", "step": f"{step:g}"}
    series: list[dict[str, Any]] = fleet.prometheus("/api/v1/query_range", query=query.expr, **times)["result"]
    return series


def values(series: Mapping[str, Any]) -> list[str]:
    """Those of one series, at one time or over a time range."""
    points = series["values"] if "values" in series else [series["value"]]
    return [value for _, value in points]
