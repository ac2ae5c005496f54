"""docs/alerts.md says what the rules do, and every way from an alert leads to a page that is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agent.diagnosis import Cause
from tests.rules.promtool import RULES, alerts, groups_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "alerts.md").read_text("utf-8")
RUNBOOK = (DOCS / "runbook.md").read_text("utf-8")
ALERTS = alerts()
CAUSES = {cause.value for cause in Cause}
LEVELS = dict(re.findall(r"^### [^`\n]*`level: (\w+)`\n(.*?)(?=^##)", TEXT, re.DOTALL | re.MULTILINE))
ROWS = {
    alert: (level, *cells)
    for level, section in LEVELS.items()
    for alert, *cells in re.findall(
        r"^\| `(Netprobe\w+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", section, re.MULTILINE
    )
}
ANCHORS = {
    re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    for heading in re.findall("^##+ (.+)$", RUNBOOK, re.MULTILINE)
}


def causes_of(rule: dict[str, Any]) -> set[str]:
    """Those that it names itself; none where it takes whichever there is."""
    label = rule["labels"].get("cause")
    chosen = {cause for found in re.findall(r'\bcause=~?"([\w|]+)"', rule["expr"]) for cause in found.split("|")}
    return {label} if label else chosen


def test_every_alert_has_a_row() -> None:
    assert set(ROWS) == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_a_row_says_what_the_rule_does(alert: str) -> None:
    rule = ALERTS[alert][1]
    level, severity, family, when, duration = ROWS[alert]
    lasts = ", ".join(rule[key] for key in ("for", "keep_firing_for") if key in rule)

    assert (level, severity, family) == tuple(rule["labels"][key] for key in ("level", "severity", "family"))
    assert duration == lasts
    assert {word for word in re.findall(r"`(\w+)`", when) if word in CAUSES} == causes_of(rule)
    assert when.split("(")[0].strip(), "nothing is said of when"


@pytest.mark.parametrize("alert", ALERTS)
def test_the_runbook_that_an_alert_leads_to_is_there(alert: str) -> None:
    rule = ALERTS[alert][1]
    base, _, anchor = rule["annotations"]["runbook_url"].partition("#")

    assert base == "https://runbooks.example.com/netprobe/runbook.md"
    if anchor == "{{ $labels.cause }}":
        assert (causes_of(rule) or CAUSES) <= ANCHORS
    else:
        assert anchor in ANCHORS
        assert f"(runbook.md#{anchor})" in ROWS[alert][3]


def test_every_section_on_an_alert_is_of_one_that_is_there() -> None:
    part = RUNBOOK[RUNBOOK.index("\n## Alerts\n") :]

    assert set(re.findall(r"^### (\w+)$", part, re.MULTILINE)) <= set(ALERTS)


def test_every_recorded_series_has_its_labels_in_the_table() -> None:
    """All of them, and none that is gone."""
    rows = re.findall(r"^\| ((?:`netprobe:[\w:]+`(?:, )?)+) \| (.*?) ?\| (?!is \|)(.+) \|$", TEXT, re.MULTILINE)
    said = {
        name: {"namespace", *(("dag_id", "task_id") if labels.startswith("L") else ()), *re.findall(r"`(\w+)`", labels)}
        for names, labels, _ in rows
        for name in re.findall(r"`([\w:]+)`", names)
    }
    recorded = {
        rule["record"]: rule["expr"]
        for file in sorted(RULES.glob("*.yaml"))
        for group in groups_of(file)
        for rule in group["rules"]
        if "record" in rule
    }

    assert said.keys() == recorded.keys()
    for name, expression in recorded.items():
        # Those of a series that is made from others are the others'.
        outermost = re.match(r"[^(]*?by \(([^)]*)\)", expression)
        if outermost is not None:
            assert said[name] == set(outermost[1].split(", ")), name
