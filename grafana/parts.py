"""What every dashboard is made of: panels, their queries and their places, variables, links and annotations.

Grafana's typed builders know every option; this is the choice of them that makes the four dashboards look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap as heatmaps
from grafana_foundation_sdk.builders import prometheus, statetimeline, timeseries
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.causes import FAMILIES

SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24
"""Columns of Grafana's grid."""
MINUTE = "1m"
"""The least distance of two points: recording rules of counters run once a minute, and no scrape interval is longer."""
HALF_MINUTE = "30s"
"""The same where only verdicts are shown, whose rules run twice a minute."""
RUNBOOK = "https://runbooks.example.com/netprobe/runbook.md"

GREEN, ORANGE, RED, GREY = "green", "orange", "red", "#8e8e8e"

Steps = Sequence[tuple[float | None, str]]
"""Thresholds: the least value and the colour from there on; the first has no least value."""
CALM: Steps = ((None, GREEN),)
NEUTRAL: Steps = ((None, "text"),)
ANY_IS_BAD: Steps = ((None, GREEN), (1, RED))
QUORUM: Steps = ((None, GREEN), (0.25, RED))
"""Of pods: where alerts begin."""
SHARE: Steps = ((None, GREEN), (0.000001, ORANGE), (0.25, RED))
"""The same, where a single one shows as well."""
PART = 0.05
"""Of the pods: verdicts of fewer are no event for all."""
BURN: Steps = ((None, GREEN), (1, ORANGE), (6, RED))
"""Of the error budget: at 1 it lasts as long as it should; 6 and 14.4 page."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under one heading, from left to right, then down."""

    title: str
    panels: tuple[dashboard.Panel, ...]


def a_minute(series: str, by: str) -> str:
    """What a recorded increase comes to in a minute, however far apart the points of a graph are."""
    return f"sum by ({by}) (sum_over_time({series}[$__interval])) * 60000 / $__interval_ms"


def by_kind(failures: str) -> str:
    """With one label for the two that say how something failed: `connect/refused`."""
    return f'label_join({failures}, "kind", "/", "phase", "reason")'


# --- links ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """From a series or a cell to a place that says more."""

    title: str
    url: str

    def properties(self) -> dict[str, str]:
        return {"title": self.title, "url": self.url}

    def builder(self) -> builders.DashboardLink:
        return builders.DashboardLink(self.title).url(self.url)


def _variables(of: str, names: Iterable[str]) -> str:
    return "".join(f"&var-{name}=${{{of}.{name}:percentencode}}" for name in names)


def from_series(title: str, uid: str, *labels: str) -> Link:
    """To another dashboard, about what a series is about. The time range comes along."""
    return Link(title=title, url=_place(uid) + _variables("__field.labels", labels))


def from_cell(title: str, uid: str, *columns: str) -> Link:
    """To another dashboard, about what a row of a table is about. The time range comes along."""
    return Link(title=title, url=_place(uid) + _variables("__data.fields", columns))


def runbook(cause: str) -> Link:
    return Link(title="Runbook", url=f"${{runbook:raw}}#${{{cause}}}")


RUNBOOK_OF_SERIES = runbook("__field.labels.cause")
RUNBOOK_OF_CELL = runbook("__data.fields.cause")


def _place(uid: str) -> str:
    return f"/d/{uid}?${{datasource:queryparam}}&${{__url_time_range}}"


# --- panels ---------------------------------------------------------------------------------------------------------


def thresholds(steps: Steps) -> builders.ThresholdsConfig:
    made = [dashboard.Threshold(value=value, color=colour) for value, colour in steps]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(made)


def texts(shown: Mapping[str, tuple[str, str]]) -> dashboard.ValueMapping:
    """What to show instead of a value, and in which colour."""
    return dashboard.ValueMap(
        options={
            value: dashboard.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (text, colour)) in enumerate(shown.items())
        }
    )


def between(least: float, most: float, text: str, colour: str) -> dashboard.ValueMapping:
    result = dashboard.ValueMappingResult(text=text, color=colour, index=9)
    return dashboard.RangeMap(options=dashboard.DashboardRangeMapOptions(from_val=least, to=most, result=result))


Override = builders.DashboardFieldConfigSourceOverrides


def override(matcher: str, options: str, properties: Mapping[str, object]) -> Override:
    """Other settings for some series or columns: those whose name (`byName`, `byRegexp`) is this."""
    return (
        Override()
        .matcher(dashboard.MatcherConfig(id_val=matcher, options=options))
        .properties([dashboard.DynamicConfigValue(id_val=name, value=value) for name, value in properties.items()])
    )


def fixed(colour: str) -> dashboard.FieldColor:
    return dashboard.FieldColor(mode=dashboard.FieldColorModeId.FIXED, fixed_color=colour)


def coloured_causes() -> list[Override]:
    """For series that are called like their cause."""
    return [
        override("byRegexp", f"/^({'|'.join(family.causes)})$/", {"color": fixed(family.colour)})
        for family in FAMILIES.values()
    ]


def as_limit(name: str, colour: str) -> Override:
    """For a series that others are compared with."""
    style = {"fill": "dash", "dash": [10, 10]}
    return override("byName", name, {"color": fixed(colour), "custom.lineStyle": style, "custom.fillOpacity": 0})


def as_total(name: str) -> Override:
    """For the sum of the other series."""
    return override("byName", name, {"color": fixed(GREY), "custom.fillOpacity": 0})


def coloured(colours: Mapping[str, str]) -> list[Override]:
    return [override("byName", name, {"color": fixed(colour)}) for name, colour in colours.items()]


def _over_range(ref: str, ask: Ask, step: str) -> prometheus.Dataquery:
    query = prometheus.Dataquery().datasource(SOURCE).ref_id(ref).expr(ask.expr)
    return query.legend_format(ask.legend or "__auto").interval(step).range()


def _all_over_range(asked: Sequence[Ask], step: str) -> list[Builder[Dataquery]]:
    return [_over_range(ref, ask, step) for ref, ask in zip(ascii_uppercase, asked, strict=False)]


def _at_the_end(ref: str, expr: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(SOURCE).ref_id(ref).expr(expr).instant()


def _finished(
    panel: Builder[dashboard.Panel], *, title: str, description: str, width: int, height: int
) -> dashboard.Panel:
    """What every panel has. Its place and number come with the dashboard."""
    made = panel.build()
    made.title, made.description, made.datasource = title, description, SOURCE
    made.grid_pos = dashboard.GridPos(w=width, h=height)
    return made


def stat(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str = "short",
    steps: Steps = NEUTRAL,
    mappings: Sequence[dashboard.ValueMapping] = (),
    named_by: str | None = None,
    decimals: int | None = None,
    no_value: str | None = None,
    links: Sequence[Link] = (),
    width: int = 4,
    height: int = 4,
) -> dashboard.Panel:
    """One number at the end of the time range; with `named_by` the value of this label instead of the number."""
    panel = (
        stats.Panel()
        .with_target(_at_the_end("A", expr).legend_format(f"{{{{{named_by}}}}}" if named_by else "__auto"))
        .unit(unit)
        .thresholds(thresholds(steps))
        .mappings(list(mappings))
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .color_mode(common.BigValueColorMode.VALUE if steps is NEUTRAL else common.BigValueColorMode.BACKGROUND)
        .graph_mode(common.BigValueGraphMode.NONE)
        .justify_mode(common.BigValueJustifyMode.CENTER)
        .text_mode(common.BigValueTextMode.NAME if named_by else common.BigValueTextMode.VALUE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .data_links([link.builder() for link in links])
    )
    if decimals is not None:
        panel = panel.decimals(decimals)
    if no_value is not None:
        panel = panel.no_value(no_value)
    return _finished(panel, title=title, description=description, width=width, height=height)


def lines(
    title: str,
    description: str,
    *asked: Ask,
    unit: str = "short",
    stacked: bool = False,
    bars: bool = False,
    steps: Steps = (),
    shades: str | None = None,
    overrides: Sequence[Override] = (),
    links: Sequence[Link] = (),
    minimum: float | None = 0,
    maximum: float | None = None,
    decimals: int | None = None,
    no_value: str | None = None,
    step: str = MINUTE,
    width: int = 12,
    height: int = 8,
) -> dashboard.Panel:
    """Values over time, each series in a colour that its name decides, or in a shade of one."""
    palette = builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)
    if shades:
        palette = palette.mode(dashboard.FieldColorModeId.SHADES).fixed_color(shades)
    legend = common_builders.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM)
    tooltip = (
        common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    panel = (
        timeseries.Panel()
        .targets(_all_over_range(asked, step))
        .interval(step)
        .unit(unit)
        .legend(legend.display_mode(common.LegendDisplayMode.LIST))
        .tooltip(tooltip)
        .draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(70 if stacked or bars else 10)
        .show_points(common.VisibilityMode.AUTO)
        .color_scheme(palette)
        .thresholds(thresholds(steps or CALM))
        .overrides(list(overrides))
        .data_links([link.builder() for link in links])
    )
    if stacked:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if steps:
        style = common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(style)
    if unit == "short":
        # A line at zero lies on the axis, and not below a scale up to a hundred.
        panel = panel.axis_soft_max(1)
    if minimum is not None:
        panel = panel.min(minimum)
    if maximum is not None:
        panel = panel.max(maximum)
    if decimals is not None:
        panel = panel.decimals(decimals)
    if no_value is not None:
        panel = panel.no_value(no_value)
    return _finished(panel, title=title, description=description, width=width, height=height)


def states(
    title: str,
    description: str,
    ask: Ask,
    *,
    unit: str,
    steps: Steps,
    mappings: Sequence[dashboard.ValueMapping],
    links: Sequence[Link] = (),
    step: str = MINUTE,
    width: int = WIDTH,
    height: int = 8,
) -> dashboard.Panel:
    """A bar for each series, coloured by its value."""
    panel = (
        statetimeline.Panel()
        .with_target(_over_range("A", ask, step))
        .interval(step)
        .unit(unit)
        .decimals(0)
        .mappings(list(mappings))
        .thresholds(thresholds(steps))
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .legend(common_builders.VizLegendOptions().show_legend(False))
        .merge_values(True)
        .show_value(common.VisibilityMode.AUTO)
        .per_page(20)
        .data_links([link.builder() for link in links])
    )
    return _finished(panel, title=title, description=description, width=width, height=height)


def heatmap(
    title: str, description: str, ask: Ask, *, unit: str, step: str = MINUTE, width: int = 12, height: int = 8
) -> dashboard.Panel:
    """Of a histogram, whose buckets are the rows."""
    colours = heatmaps.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").exponent(0.5).steps(64)
    panel = (
        heatmaps.Panel()
        .with_target(_over_range("A", ask, step).format(PromQueryFormat.HEATMAP))
        .interval(step)
        .unit("short")
        .calculate(False)
        .color(colours.fill("dark-orange"))
        .y_axis(heatmaps.YAxisConfig().unit(unit).axis_placement(common.AxisPlacement.LEFT))
        .filter_values(heatmaps.FilterValueRange().le(1e-9))
    )
    return _finished(panel, title=title, description=description, width=width, height=height)


def table(
    title: str,
    description: str,
    *columns: Column,
    labels: Mapping[str, Sequence[Link]],
    sort: str,
    width: int = 12,
    height: int = 8,
) -> dashboard.Panel:
    """A row for each set of labels, which come first, in this order, each with its links; the worst row on top."""
    several = len(columns) > 1
    values = {
        f"Value #{ref}" if several else "Value": column for ref, column in zip(ascii_uppercase, columns, strict=False)
    }
    shown = {field: column.name for field, column in values.items() if column.name}
    organized = {
        "excludeByName": dict.fromkeys(("Time", *(field for field in values if field not in shown)), True),
        "includeByName": {},
        "indexByName": {name: index for index, name in enumerate((*labels, *shown))},
        "renameByName": shown,
    }
    panel = (
        tables.Panel()
        .targets(
            [
                _at_the_end(ref, column.expr).format(PromQueryFormat.TABLE)
                for ref, column in zip(ascii_uppercase, columns, strict=False)
            ]
        )
        .unit("short")
        .thresholds(thresholds(NEUTRAL))
        .transformations(
            [
                *([dashboard.DataTransformerConfig(id_val="merge", options={})] if several else []),
                dashboard.DataTransformerConfig(id_val="organize", options=organized),
            ]
        )
        .sort_by([common_builders.TableSortByFieldState().display_name(sort).desc(True)])
        .footer(common_builders.TableFooterOptions().show(False).enable_pagination(True))
        .overrides(
            [
                *(_of_column(column) for column in columns if column.name),
                *(
                    override("byName", name, {"links": [link.properties() for link in links]})
                    for name, links in labels.items()
                    if links
                ),
            ]
        )
    )
    return _finished(panel, title=title, description=description, width=width, height=height)


def _of_column(column: Column) -> Override:
    properties: dict[str, object] = {"unit": column.unit}
    if column.decimals is not None:
        properties["decimals"] = column.decimals
    if column.steps:
        properties["thresholds"] = thresholds(column.steps).build()
        properties["custom.cellOptions"] = {"type": "color-background", "mode": "basic"}
    return override("byName", column.name or "", properties)


# --- variables ------------------------------------------------------------------------------------------------------

ALL = dashboard.VariableOption(selected=True, text="All", value="$__all")


def datasource() -> builders.DatasourceVariable:
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus")


class RunbookAddress(Builder[dashboard.VariableModel]):
    """Where the links of causes lead: one place to change, which readers of the dashboard do not see."""

    def build(self) -> dashboard.VariableModel:
        return dashboard.VariableModel(
            name="runbook",
            type_val=dashboard.VariableType.CONSTANT,
            query=RUNBOOK,
            hide=dashboard.VariableHide.HIDE_VARIABLE,
            skip_url_sync=True,
        )


def chosen(
    name: str, label: str, selector: str, description: str, *, several: bool = True, listed: bool = False
) -> builders.QueryVariable:
    """Values that a label has within the time range: all of them, or some; or else one.

    "All" is `.*`, which holds for series without that label as well; or, `listed`, all the values that were found.
    """
    made = (
        builders.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query(f"label_values({selector}, {name})")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(several)
        .include_all(several)
    )
    if not several:
        return made
    return made.current(ALL) if listed else made.all_value(".*").current(ALL)


# --- annotations ----------------------------------------------------------------------------------------------------


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


# --- a dashboard ----------------------------------------------------------------------------------------------------

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
