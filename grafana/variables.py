"""Variables: what a reader can choose, and where links lead."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard

from grafana.asking import SOURCE

RUNBOOK = "https://runbooks.example.com/netprobe/runbook.md"
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
