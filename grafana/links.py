"""From a series or a cell to the dashboard, or to the section of the runbook, that says more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders


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
