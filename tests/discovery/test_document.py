"""docs/discovery.md and config/airflow.yaml say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.config import load
from agent.config.sections import Source
from tests.discovery.document import DOCUMENT, renewed
from tests.discovery.finding import discovered

TEXT = DOCUMENT.read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith(("| `AIRFLOW_", "| `OTEL_"))]
AIRFLOW_YAML = Path(__file__).parents[2] / "config" / "airflow.yaml"


def test_the_table_of_ports_is_that_of_the_code() -> None:
    """Whoever changes the code runs the generator."""
    assert renewed(TEXT) == TEXT, "python -m tests.discovery.document"


@pytest.mark.parametrize("row", ROWS)
def test_each_example_leads_where_the_document_says(row: str) -> None:
    """The first cell is an environment, the others the targets it leads to."""
    environment, names, asked, role = (cell.strip() for cell in row.strip("|").split("|"))
    environ = dict(pair.split("=", 1) for pair in re.findall(r"`([^`]+)`", environment))

    found = discovered(environ).targets

    assert [target.name for target in found] == re.findall(r"`([^`]+)`", names)
    assert [(target.type, target.address) for target in found] == re.findall(r"(\w+) `([^`]+)`", asked)
    assert {f"`{target.role}`" for target in found} == {role}


def test_every_kind_of_variable_has_an_example() -> None:
    """Rows that vanish would leave nothing to check."""
    assert len(ROWS) == 15


def test_the_configuration_for_a_worker_loads_without_a_variable() -> None:
    """It asks for discovery and names no target: nothing in it is particular to one cluster."""
    config = load(AIRFLOW_YAML, {})

    assert config.discover is not None
    assert config.discover.sources == (Source.AIRFLOW, Source.KUBERNETES)
    assert config.targets == ()
