"""An outage of names, end to end: thirty agents, Prometheus, the shipped rules, Alertmanager, and a webhook.

One fleet serves all tests here: it is healthy, broken and mended once, and what was seen is judged below. Everything is
as it is shipped, ten times as fast. `python -m tests.stack.outage` plays it at the real pace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.lab.fleet.dags import DAGS
from tests.lab.fleet.fleet import Fleet, fleet
from tests.lab.fleet.monitoring import PAGE
from tests.lab.fleet.outage import CAUSE, NEARLY_ALL, PODS, SYMPTOM, TARGETS, Outage, Phase, Story
from tests.lab.pace import Pace
from tests.stack.numbers import no_shares, wrong
from tests.stack.panels import without_answer

pytestmark = pytest.mark.timeout(600)
"""The fixture is the whole course."""

PACE = Pace(10)


@dataclass(frozen=True, slots=True)
class Looked:
    """What was wrong with the dashboards in a phase."""

    without_answer: list[str]
    wrong: list[str]
    no_shares: list[str]


@pytest.fixture(scope="module")
def story(request: pytest.FixtureRequest) -> Iterator[Story[Looked]]:
    """The course of the outage, with a look at the dashboards in each phase."""

    def look(running: Fleet, phase: Phase) -> Looked:
        unanswered = without_answer(running, PACE, phase)
        return Looked(unanswered, wrong(running, PACE, phase), no_shares(running, PACE))

    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    with fleet(PACE) as running:
        yield Outage(running, PACE, look, tell=reporter.write_line if reporter is not None else lambda _: None).play()


def is_of_a_busy_machine(labels: Mapping[str, str], story: Story[Looked]) -> bool:
    """Whether this is true of agents that share two cores with other tests, and no matter of this one."""
    if labels["alertname"] in {"NetprobeLagging", "NetprobeRunsSkipped"}:
        return True
    return any(
        all(labels.get(name) == short.get(name) for name in ("alertname", "cause", "target", "dag_id"))
        for short in story.short_of_cpu
    )


def test_nothing_fires_while_all_is_well(story: Story[Looked]) -> None:
    assert [labels for labels in story.firing_in_health if not is_of_a_busy_machine(labels, story)] == []
    assert [one for one in story.notified_in_health if one.path == PAGE] == []


def test_one_page_is_sent_for_the_outage(story: Story[Looked]) -> None:
    (page,) = story.sent(PAGE, "firing")
    (alert,) = page.notification.firing
    assert alert["labels"]["cause"] == CAUSE
    assert alert["labels"]["severity"] == "page"
    assert alert["labels"]["level"] == "fleet"


def test_the_page_says_in_words_what_is_the_matter(story: Story[Looked]) -> None:
    said = story.messages[0]
    assert "% of the pods in namespace airflow get no answer from any nameserver." in said
    (pods,) = re.findall(rf"(\d+) of {PODS} pods in namespace airflow say {CAUSE}\.", said)
    assert int(pods) >= NEARLY_ALL
    ((targets, more_targets),) = re.findall(r"at the targets (.+?) and (\d+) more\.", said)
    assert set(targets.split(", ")) <= TARGETS
    assert len(targets.split(", ")) + int(more_targets) == len(TARGETS)
    (dags,) = re.findall(r"The DAGs (.+?) are affected\.", said)
    assert set(re.split(", | and ", dags)) == {dag.dag_id for dag in DAGS}


def test_every_symptom_fires_and_is_silenced(story: Story[Looked]) -> None:
    symptoms = [alert for alert in story.silenced if alert["labels"]["alertname"] == SYMPTOM]
    assert {alert["labels"]["target"] for alert in symptoms} == TARGETS
    assert len(symptoms) == len(TARGETS)
    (cause,) = (alert for alert in story.silenced if alert["labels"].get("level") == "fleet")
    for alert in symptoms:
        assert alert["status"]["state"] == "suppressed"
        assert cause["fingerprint"] in alert["status"]["inhibitedBy"]


def test_the_page_is_resolved_once_after_the_mend(story: Story[Looked]) -> None:
    (resolved,) = story.sent(PAGE, "resolved")
    assert resolved.at > story.mended_at
    assert resolved.notification.firing == []


def test_nobody_is_told_anything_else(story: Story[Looked]) -> None:
    """Neither of the symptoms, before, during or after, nor of the pods that ended meanwhile."""
    told = [
        f"{one.at:.1f} s: {one.notification.path}: {alert['status']} {alert['labels']}"
        for one in story.arrived
        if "alerts" in one.notification.body
        for alert in one.notification.body["alerts"]
        if (alert["labels"].get("cause") != CAUSE or one.notification.path != PAGE)
        and not is_of_a_busy_machine(alert["labels"], story)
    ]
    assert told == []
    assert story.replaced


def test_nothing_else_fires(story: Story[Looked]) -> None:
    """No error budget, no gate at which pods that began in the outage had to wait, no absence of those that ended."""
    (page,) = (labels for labels in story.fired if labels["alertname"] == "NetprobeDNSDown")
    symptoms = [labels for labels in story.fired if labels["alertname"] == SYMPTOM]
    others = [
        labels for labels in story.fired if labels not in (page, *symptoms) and not is_of_a_busy_machine(labels, story)
    ]
    assert page["cause"] == CAUSE
    assert {labels["target"] for labels in symptoms} == TARGETS
    assert others == []


def test_every_query_of_the_dashboards_has_an_answer_in_health(story: Story[Looked]) -> None:
    assert story.looked["healthy"].without_answer == []


def test_every_query_of_the_dashboards_has_an_answer_in_the_outage(story: Story[Looked]) -> None:
    assert story.looked["broken"].without_answer == []


def test_what_needs_an_end_of_a_verdict_has_an_answer_after_the_mend(story: Story[Looked]) -> None:
    assert story.looked["mended"].without_answer == []


@pytest.mark.parametrize("phase", ["healthy", "broken", "mended"])
def test_panels_show_what_is_so(story: Story[Looked], phase: Phase) -> None:
    assert story.looked[phase].wrong == []
    assert story.looked[phase].no_shares == []
