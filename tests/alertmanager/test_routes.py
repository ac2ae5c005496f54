"""Whom each alert reaches, as amtool says for the configuration that is shipped."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

import pytest

from tests.alertmanager.alerts import Alert, alerts, one_of_each
from tests.lab.alertmanager import SHIPPED, shipped
from tests.lab.newer import VERSIONS, programs_of
from tests.rules import promtool

ALERTS = alerts()
ONE_OF_EACH = one_of_each()

TEAM_DAGS = ("orders_daily", "orders_2", "billing")
OTHER_DAGS = ("customers", "orders", "my_orders_daily", "billing_2", "Billing", "My DAG é")
"""Of nobody who has a route: the expression has to match the whole of a dag_id."""


def receivers(labels: Mapping[str, str], version: str = "stable") -> list[str]:
    """Who gets an alert with these labels, in order."""
    words = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in labels.items()]
    done = subprocess.run(
        [programs_of(version).amtool, "config", "routes", "test", f"--config.file={SHIPPED}", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip().split(",")


def meant(labels: Mapping[str, str]) -> list[str]:
    """Who is to get one of netprobe's alerts, in words of our own."""
    if labels["level"] == "self":
        return ["netprobe-maintainers"]
    of_the_team = labels.get("dag_id") in TEAM_DAGS
    if labels["severity"] == "page":
        return ["netprobe-page", *(["netprobe-team-orders"] if of_the_team else [])]
    return ["netprobe-team-orders" if of_the_team else "netprobe-ticket"]


def test_every_alert_of_the_rules_is_tried() -> None:
    assert {alert.labels["alertname"] for alert in ALERTS} == set(promtool.alerts()) != set()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("alert", ONE_OF_EACH, ids=str)
def test_an_alert_reaches_whom_it_should(alert: Alert, version: str) -> None:
    assert receivers(alert.labels, version) == meant(alert.labels)


@pytest.mark.parametrize("alert", [alert for alert in ALERTS if alert not in ONE_OF_EACH], ids=str)
def test_whom_an_alert_reaches_does_not_depend_on_its_cause(alert: Alert) -> None:
    # With the label that only some servers add, as well.
    assert receivers({**alert.labels, "cluster": "west"}) == meant(alert.labels)


@pytest.mark.parametrize("dag_id", [*TEAM_DAGS, *OTHER_DAGS])
@pytest.mark.parametrize("severity", ["page", "ticket"])
def test_a_team_gets_what_names_one_of_its_dags(dag_id: str, severity: str) -> None:
    (alert,) = [alert for alert in ONE_OF_EACH if alert.labels["level"] == "dag"]
    labels = alert.at(dag_id=dag_id, severity=severity).labels

    assert receivers(labels) == meant(labels)
    assert ("netprobe-team-orders" in receivers(labels)) == (dag_id in TEAM_DAGS)


@pytest.mark.parametrize("alert", ONE_OF_EACH, ids=str)
def test_a_severity_may_be_changed(alert: Alert) -> None:
    """Who finds a page too loud makes it a ticket, and it goes there."""
    other = {"page": "ticket", "ticket": "page"}[alert.labels["severity"]]

    assert receivers({**alert.labels, "severity": other}) == meant({**alert.labels, "severity": other})


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"alertname": "NetprobeOfTomorrow"}, "netprobe-maintainers"),
        ({"alertname": "NetprobeOfTomorrow", "severity": "warning", "level": "fleet"}, "netprobe-maintainers"),
        ({"alertname": "SomebodyElses", "severity": "page"}, "everything-else"),
        ({"alertname": "MyNetprobe", "severity": "page", "level": "fleet"}, "everything-else"),
        ({"alertname": "SomebodyElses", "severity": "ticket", "dag_id": "billing"}, "everything-else"),
    ],
)
def test_what_is_not_known_reaches_somebody_and_what_is_not_ours_is_left_alone(
    labels: Mapping[str, str], expected: str
) -> None:
    assert receivers(labels) == [expected]


def test_every_receiver_is_reached() -> None:
    """None is there that no route leads to."""
    reached = {name for alert in ONE_OF_EACH for name in meant(alert.labels)}
    reached |= {"netprobe-team-orders", "everything-else"}

    assert {receiver["name"] for receiver in shipped()["receivers"]} == reached
