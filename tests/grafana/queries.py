"""Every query of the committed dashboards, with Grafana's variables filled in: what a data source would be asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parents[2] / "grafana" / "dashboards"

LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), *(?P<label>\w+)\)")
_REFERENCE = re.compile(r"\$\{(?P<braced>\w+)(?::\w+)?\}|\$(?P<bare>[a-z_]\w*)")

NEEDS: Mapping[tuple[str, str], str] = {
    ("netprobe-target", "Time to resolve the name"): "a target with a name",
    ("netprobe-target", "DNS messages per lookup"): "a target of type dns",
    ("netprobe-target", "Certificate expires in"): "a target that shows a certificate",
    ("netprobe-task", "run_id"): "a pod that is scraped",
    ("netprobe-self", "Rules, share of their interval"): "a Prometheus that scrapes itself",
    ("netprobe-self", "Failed rule evaluations"): "a Prometheus that scrapes itself",
}
"""By dashboard and name: what shows nothing where there is nothing to show. Panels say so in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question to Prometheus."""

    dashboard: str
    """Its uid."""
    kind: Literal["panel", "variable", "annotation"]
    name: str
    """The panel's title with the letter of its query; the name of the variable or of the annotation."""
    expr: str
    instant: bool
    """At the end of the time range, not over it. A variable's values are the label `label` of the answer."""
    step: str
    """Of a query over the time range."""
    label: str | None = None
    needs: str | None = None
    """What has to be there for an answer, beyond pods that probe something."""

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.name}"


def dashboards() -> dict[str, dict[str, Any]]:
    """The committed ones, by uid."""
    read = [json.loads(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.json"))]
    return {document["uid"]: document for document in read}


def panels(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All but the headings."""
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def queries(values: Mapping[str, str], *, range_seconds: int = 3600, step_seconds: int = 60) -> list[Query]:
    """Every query of every dashboard.

    Values are those of the dashboards' variables, as regular expressions where several can be chosen; of these, one
    that is not given is all of them. `dag_id` and `target` have to be given.
    """
    return [query for document in dashboards().values() for query in _of(document, values, range_seconds, step_seconds)]


def _of(document: Mapping[str, Any], values: Mapping[str, str], range_seconds: int, step: int) -> Iterator[Query]:
    uid, variables = document["uid"], document["templating"]["list"]
    everything = {variable["name"]: ".*" for variable in variables if variable.get("includeAll")}
    filled = {
        **everything,
        **{variable["name"]: values[variable["name"]] for variable in variables if variable["name"] in values},
        "__range": f"{range_seconds}s",
        "__interval": f"{step}s",
        "__interval_ms": str(step * 1000),
        # Grafana's, where the least step of a query is that long.
        "__rate_interval": f"{4 * step}s",
    }

    def fill(expr: str) -> str:
        return _REFERENCE.sub(lambda found: filled[found["braced"] or found["bare"]], expr)

    for variable in variables:
        if variable["type"] == "query":
            asked = LABEL_VALUES.fullmatch(variable["query"])
            assert asked is not None, f"{uid}: the variable {variable['name']} asks something else"
            expr = f"group by ({asked['label']}) (last_over_time({fill(asked['selector'])}[{range_seconds}s]))"
            yield Query(
                dashboard=uid,
                kind="variable",
                name=variable["name"],
                expr=expr,
                instant=True,
                step=f"{step}s",
                label=asked["label"],
                needs=NEEDS.get((uid, variable["name"])),
            )
    for panel in panels(document):
        for target in panel["targets"]:
            yield Query(
                dashboard=uid,
                kind="panel",
                name=f"{panel['title']} ({target['refId']})",
                expr=fill(target["expr"]),
                instant=bool(target.get("instant")),
                step=f"{step}s",
                needs=NEEDS.get((uid, panel["title"])),
            )
    for annotation in document["annotations"]["list"]:
        yield Query(
            dashboard=uid,
            kind="annotation",
            name=annotation["name"],
            expr=fill(annotation["expr"]),
            instant=False,
            step=f"{step}s",
            needs=NEEDS.get((uid, annotation["name"]), "something that begins or ends"),
        )
