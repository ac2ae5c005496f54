"""Panels: of all that Grafana's typed builders know, the choice that makes the dashboards look alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap as heatmaps
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import statetimeline, timeseries
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.asking import MINUTE, SOURCE, Ask, Column, all_over_range, at_the_end, over_range
from grafana.links import Link
from grafana.look import CALM, NEUTRAL, Override, Steps, missing, override, thresholds

WIDTH = 24
"""Columns of Grafana's grid."""


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
        .with_target(at_the_end("A", expr).legend_format(f"{{{{{named_by}}}}}" if named_by else "__auto"))
        .unit(unit)
        .thresholds(thresholds(steps))
        .mappings([*mappings, *([missing(no_value)] if no_value is not None and steps is not NEUTRAL else [])])
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
    ranked: bool = False,
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
    """Values over time, each series in a colour that its name decides, or in a shade of one.

    `ranked`: beside it the series by their last value, the highest on top, where below it they would not all be seen.
    """
    palette = builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)
    if shades:
        palette = palette.mode(dashboard.FieldColorModeId.SHADES).fixed_color(shades)
    legend = common_builders.VizLegendOptions().show_legend(True)
    if ranked:
        legend = legend.display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.RIGHT)
        legend = legend.calcs(["lastNotNull"]).sort_by("Last *").sort_desc(True)
    else:
        legend = legend.display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
    tooltip = (
        common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    panel = (
        timeseries.Panel()
        .targets(all_over_range(asked, step))
        .interval(step)
        .unit(unit)
        .legend(legend)
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
        .with_target(over_range("A", ask, step))
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
        .with_target(over_range("A", ask, step).format(PromQueryFormat.HEATMAP))
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
                at_the_end(ref, column.expr).format(PromQueryFormat.TABLE)
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
