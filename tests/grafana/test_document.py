"""docs/dashboards.md says of the dashboards what they are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.grafana.queries import dashboards

DOCUMENT = (Path(__file__).parents[2] / "docs" / "dashboards.md").read_text("utf-8")


def rows_below(heading: str) -> list[list[str]]:
    """The cells of the table whose first column is called so."""
    (table,) = re.findall(rf"^\| {re.escape(heading)} \|.*\n\|[ |-]+\n((?:\|.*\n)+)", DOCUMENT, re.MULTILINE)
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]


def test_every_dashboard_has_its_question_and_its_parts() -> None:
    documented = {
        re.findall(r"\[([\w-]+)\]", link)[0]: (question, parts) for link, question, parts in rows_below("dashboard")
    }

    assert documented == {
        uid: (
            document["title"].removeprefix("netprobe / "),
            "; ".join(panel["title"] for panel in document["panels"] if panel["type"] == "row"),
        )
        for uid, document in dashboards().items()
    }


def test_every_variable_is_documented_where_it_is() -> None:
    columns = [f"netprobe-{name}" for name in ("fleet", "target", "task", "self")]
    documented = {
        (name.strip("`"), uid): cell
        for name, *cells, _ in rows_below("variable")
        for uid, cell in zip(columns, cells, strict=True)
        if cell
    }

    kinds = {("datasource", False): "yes", ("query", True): "any", ("query", False): "one"}
    assert documented == {
        (variable["name"], uid): kinds[variable["type"], bool(variable.get("includeAll"))]
        for uid, document in dashboards().items()
        for variable in document["templating"]["list"]
        if variable["type"] != "constant"
    }


def test_panels_that_the_document_names_exist() -> None:
    titles = {panel["title"] for document in dashboards().values() for panel in document["panels"]}

    named = set(re.findall(r'"([A-Z][^"\n]+)"', DOCUMENT)) - {"All"}
    assert len(named) > 3
    assert named <= titles
