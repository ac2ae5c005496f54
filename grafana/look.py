"""Colours, thresholds and what else says at a glance whether a value is good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

from grafana.causes import FAMILIES

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


def missing(text: str) -> dashboard.ValueMapping:
    """Where there is no value: neither good nor bad."""
    result = dashboard.ValueMappingResult(text=text, color=GREY, index=10)
    match = dashboard.SpecialValueMatch.NULL_AND_NAN
    return dashboard.SpecialValueMap(options=dashboard.DashboardSpecialValueMapOptions(match=match, result=result))


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
