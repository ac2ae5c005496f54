"""A dashboard: its rows, its marks, and the way to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard

from grafana.asking import MINUTE, SOURCE
from grafana.look import ORANGE
from grafana.panels import WIDTH
from grafana.variables import datasource

TITLES = {
    "netprobe-fleet": "netprobe / Is the network hurting my DAGs right now?",
    "netprobe-target": "netprobe / What is wrong with this target?",
    "netprobe-task": "netprobe / What happened to this task?",
    "netprobe-self": "netprobe / Is netprobe itself well, and what does it cost?",
}
AIRFLOW = ("apache-airflow-mixin", "airflow")
"""Tags of dashboards about Airflow itself: what its mixin gives them, and what people do."""
CARRIED = {("netprobe-task", "netprobe-fleet"): ("dag_id",)}
"""Further variables that a link from one to another takes along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under one heading, from left to right, then down."""

    title: str
    panels: tuple[dashboard.Panel, ...]


class _Annotation(dashboard.AnnotationQuery):
    """With what Grafana's Prometheus data source reads beyond the builder's model."""

    def __init__(self, name: str, expr: str, *, title: str, text: str) -> None:
        super().__init__(name=name, datasource=SOURCE, enable=True, icon_color=ORANGE, expr=expr)
        self._formats = {"step": MINUTE, "titleFormat": title, "textFormat": text, "tagKeys": "change"}

    def to_json(self) -> dict[str, object]:
        return super().to_json() | self._formats


class Marked(Builder[dashboard.AnnotationQuery]):
    """Marks the times at which a query has a value above 0: from the first to the last of them."""

    def __init__(self, name: str, expr: str, *, title: str, text: str) -> None:
        self._made = _Annotation(name, expr, title=title, text=text)

    def build(self) -> dashboard.AnnotationQuery:
        return self._made


def changes(name: str, holds: Callable[[str], str], *, what: str, text: str) -> Marked:
    """When something begins and when it ends. `holds` is what holds, at an offset; `what` the label that names it."""
    now, before = f"({holds('')})", f"({holds(' offset 1m')})"
    return Marked(
        name,
        f'label_replace({now} unless {before}, "change", "begins", "", "")'
        f' or label_replace({before} unless {now}, "change", "ends", "", "")',
        title=f"{{{{{what}}}}} {{{{change}}}}",
        text=text,
    )


def page(
    uid: str,
    description: str,
    *rows: Row,
    variables: Sequence[Builder[dashboard.VariableModel]],
    annotations: Sequence[Marked] = (),
    since: str,
    refresh: str,
) -> dashboard.Dashboard:
    """One dashboard, with the way to the others and to those of Airflow."""
    made = (
        builders.Dashboard(TITLES[uid])
        .uid(uid)
        .description(description)
        .tags(["netprobe"])
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time(f"now-{since}", "now")
        .refresh(refresh)
        .variables([datasource(), *variables])
        .annotations(list(annotations))
        .links(
            [
                *(_to(other, CARRIED.get((uid, other), ())) for other in TITLES if other != uid),
                *map(_to_airflow, AIRFLOW),
            ]
        )
        .build()
    )
    made.panels = list(_placed(rows))
    return made


def _to(uid: str, carried: Sequence[str]) -> builders.DashboardLink:
    """Time range and namespaces come along. Not all variables do: where one value is asked for, "All" is none."""
    variables = "&".join(f"${{{name}:queryparam}}" for name in ("datasource", "namespace", *carried))
    return (
        builders.DashboardLink(TITLES[uid].removeprefix("netprobe / "))
        .type(dashboard.DashboardLinkType.LINK)
        .url(f"/d/{uid}?{variables}")
        .icon("dashboard")
        .keep_time(True)
    )


def _to_airflow(tag: str) -> builders.DashboardLink:
    """A link to each dashboard with a tag, and nothing where there is none."""
    return (
        builders.DashboardLink("Airflow")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags([tag])
        .as_dropdown(False)
        .keep_time(True)
    )


def _placed(rows: Sequence[Row]) -> Iterator[dashboard.Panel | dashboard.RowPanel]:
    number, top = 0, 0
    for row in rows:
        number += 1
        heading = dashboard.RowPanel(
            title=row.title, id_val=number, grid_pos=dashboard.GridPos(h=1, w=WIDTH, x=0, y=top), collapsed=False
        )
        yield heading
        top += 1
        left, tallest = 0, 0
        for panel in row.panels:
            number += 1
            size = panel.grid_pos or dashboard.GridPos()
            if left + size.w > WIDTH:
                left, top, tallest = 0, top + tallest, 0
            panel.id_val = number
            panel.grid_pos = dashboard.GridPos(h=size.h, w=size.w, x=left, y=top)
            left, tallest = left + size.w, max(tallest, size.h)
            yield panel
        top += tallest
