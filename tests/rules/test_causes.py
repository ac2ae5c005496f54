"""Every cause has its alert, and every alert says what it is about, how urgent it is, and where to read on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agent.diagnosis import Cause
from tests.rules.promtool import RULES, alerts, groups_of

ROOT = Path(__file__).resolve().parents[2]
ALERTS = {name: rule for name, (_, rule) in alerts().items()}
RUNBOOK = "https://runbooks.example.com/netprobe/runbook.md#"
GRAFANA = "https://grafana.example.com/d/"
EVERY = {cause.value for cause in Cause} - {Cause.HEALTHY.value}


def causes_of(rule: dict[str, Any]) -> set[str]:
    """The causes that an alert is about: those that it selects, or the one that it is labelled with."""
    selected = {cause for found in re.findall(r'cause=~?"([^"]+)"', rule["expr"]) for cause in found.split("|")}
    return selected | ({rule["labels"]["cause"]} if "cause" in rule["labels"] else set())


def by_level(*levels: str) -> dict[str, dict[str, Any]]:
    return {name: rule for name, rule in ALERTS.items() if rule["labels"]["level"] in levels}


@pytest.mark.parametrize("cause", sorted(EVERY))
def test_every_cause_is_in_exactly_one_family(cause: str) -> None:
    families = {
        rule["labels"]["family"] for rule in by_level("fleet", "target", "self").values() if cause in causes_of(rule)
    }

    assert len(families) == 1, f"{cause} is in {families or 'none'}"


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_about_causes_that_there_are(alert: str) -> None:
    assert causes_of(ALERTS[alert]) <= EVERY


def test_a_cause_is_a_targets_own_or_left_out_of_the_quorum_of_targets() -> None:
    """What is recorded for targets, and what alerts make of it: together everything, and nothing twice."""
    (recorded,) = (
        rule["expr"]
        for group in groups_of(RULES / "netprobe-causes.yaml")
        for rule in group["rules"]
        if rule.get("record") == "netprobe:target_diagnosis_pods:quorum2m"
    )
    left_out = {cause for found in re.findall(r'cause!~"([^"]+)"', recorded) for cause in found.split("|")}
    own = {cause for rule in by_level("target").values() if "quorum2m{" in rule["expr"] for cause in causes_of(rule)}

    assert own | left_out == EVERY
    assert own & left_out == set()


@pytest.mark.parametrize("alert", ALERTS)
def test_labels(alert: str) -> None:
    labels = ALERTS[alert]["labels"]

    assert alert.startswith("Netprobe")
    assert labels["severity"] in {"page", "ticket"}
    assert labels["level"] in {"fleet", "dag", "target", "self"}
    assert labels["family"]
    assert set(labels) <= {"severity", "level", "family", "cause", "explains"}
    # Only what somebody gets up for may keep silent what others would have been told.
    assert ("explains" in labels) <= (labels["level"] == "fleet" and labels["severity"] == "page")
    assert labels.get("explains", "targets") == "targets"
    assert labels["level"] != "self" or labels["severity"] == "ticket"


def headings() -> set[str]:
    """The anchors of the runbook, as GitHub makes them."""
    text = (ROOT / "docs/runbook.md").read_text("utf-8")
    return {heading.lower().replace(" ", "-") for heading in re.findall(r"^#{2,3} (\w+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("alert", ALERTS)
def test_where_to_read_on(alert: str) -> None:
    """A section of the runbook, the cause's or the alert's, and a dashboard that there is."""
    annotations = ALERTS[alert]["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert annotations["runbook_url"].startswith(RUNBOOK)
    assert annotations["dashboard_url"].startswith(GRAFANA)
    anchor = annotations["runbook_url"].removeprefix(RUNBOOK)
    anchors = causes_of(ALERTS[alert]) or EVERY if anchor == "{{ $labels.cause }}" else {anchor}
    uid, _, variables = annotations["dashboard_url"].removeprefix(GRAFANA).partition("?")
    dashboard = json.loads((ROOT / f"grafana/dashboards/{uid}.json").read_text("utf-8"))
    known = {variable["name"] for variable in dashboard["templating"]["list"]}

    assert anchors <= headings()
    assert dashboard["uid"] == uid
    assert set(re.findall(r"\bvar-(\w+)=", variables)) <= known


def test_the_runbook_tells_of_no_alert_that_is_not_there() -> None:
    _, _, part = (ROOT / "docs/runbook.md").read_text("utf-8").partition("\n## Alerts\n")

    assert set(re.findall(r"^### (\w+)$", part, re.MULTILINE)) <= set(ALERTS)
