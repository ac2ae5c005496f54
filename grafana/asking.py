"""Queries: what Prometheus is asked, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard

from grafana.look import Steps

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
MINUTE = "1m"
"""The least distance of two points: recording rules of counters run once a minute, and no scrape interval is longer."""
HALF_MINUTE = "30s"
"""The same where only verdicts are shown, whose rules run twice a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A query over the time range."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A query at the end of the time range: its value is a column of a table, and each of its labels another."""

    expr: str
    name: str | None
    """None where only the labels matter."""
    unit: str = "short"
    steps: Steps = ()
    decimals: int | None = None


def a_minute(series: str, by: str) -> str:
    """What a recorded increase comes to in a minute, however far apart the points of a graph are."""
    return f"sum by ({by}) (sum_over_time({series}[$__interval])) * 60000 / $__interval_ms"


def most(counted: str) -> str:
    """The most there were at once since the point before: of counts that are made again every half minute.

    Counted first: the sum of what each task had most of is a number of pods that never were there together.
    """
    return f"max_over_time(({counted})[$__interval:{HALF_MINUTE}])"


def failed_runs(where: str) -> Ask:
    """Failed runs a minute by how they failed, as in `connect/refused`; and `all`, which counts every one of them."""
    kinds = a_minute(f"netprobe:probe_failures:increase1m{{{where}}}", "phase, reason")
    every = a_minute(f'netprobe:probes:increase1m{{{where}, result="failure"}}', "")
    joined = f'label_join({kinds}, "kind", "/", "phase", "reason")'
    return Ask(expr=f'{joined} or label_replace({every}, "kind", "all", "", "")', legend="{{kind}}")


def over_range(ref: str, ask: Ask, step: str) -> prometheus.Dataquery:
    query = prometheus.Dataquery().datasource(SOURCE).ref_id(ref).expr(ask.expr)
    return query.legend_format(ask.legend or "__auto").interval(step).range()


def all_over_range(asked: Sequence[Ask], step: str) -> list[Builder[Dataquery]]:
    return [over_range(ref, ask, step) for ref, ask in zip(ascii_uppercase, asked, strict=False)]


def at_the_end(ref: str, expr: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(SOURCE).ref_id(ref).expr(expr).instant()
