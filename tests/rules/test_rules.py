"""Every alert does what it should in every situation, says promtool: Debian stable's and a current one."""

from __future__ import annotations

import importlib
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.lab.newer import VERSIONS, programs_of
from tests.rules.promtool import RULES, Case, Situation, alerts, complaints, groups_of

FILES = sorted(RULES.glob("*.yaml"))
ALERTS = alerts()


MODULES = {
    path.stem: list[Case](importlib.import_module(f"tests.rules.{path.stem}").CASES)
    for path in sorted(Path(__file__).parent.glob("cases_*.py"))
}
CASES = [case for cases in MODULES.values() for case in cases]
NEVER_OF_SHORT_PODS = frozenset({"NetprobePodsUnreachable", "NetprobeScrapeFailing", "NetprobeNoData"})
"""That a pod has not been heard of is news after minutes only: they must not fire for pods that come and go."""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_files_can_be_loaded(version: str) -> None:
    command = [programs_of(version).promtool, "check", "rules", *map(str, FILES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("module", MODULES)
def test_alerts_do_what_they_should(module: str, version: str, tmp_path: Path) -> None:
    said = complaints(MODULES[module], programs_of(version).promtool, tmp_path)

    assert said == "", said


@pytest.mark.parametrize("alert", ALERTS)
@pytest.mark.parametrize("situation", Situation)
def test_every_alert_is_tried_in_every_situation(alert: str, situation: Situation) -> None:
    """Also one that is written tomorrow. A case that says nothing of the alert itself tries nothing."""
    tried = [case for case in CASES if (case.alert, case.situation) == (alert, situation)]

    assert any(_is_tried(case) for case in tried), f"no case of {alert}: {situation}"


def _is_tried(case: Case) -> bool:
    fires = any(case.firing.values())
    match case.situation:
        case Situation.FIRES:
            return fires
        case Situation.BELOW | Situation.MISSING:
            return case.never_from == 0 or any(not firing for firing in case.firing.values())
        case Situation.RESOLVES:
            return fires and not case.firing[max(case.firing)]
        case Situation.SHORT_PODS if case.alert in NEVER_OF_SHORT_PODS:
            return case.never_from == 0
        case Situation.SHORT_PODS:
            return fires and case.without_gap is not None and not case.firing[max(case.firing)]


@pytest.mark.parametrize("alert", ALERTS)
def test_what_an_alert_says_is_looked_at(alert: str) -> None:
    """In full, at least once: whether a sentence reads well shows only in the sentence."""
    told = [one for case in CASES if case.alert == alert for firing in case.firing.values() for one in firing]

    assert any(one.annotations is not None for one in told)


def test_no_case_is_about_an_alert_that_is_not_there() -> None:
    assert {case.alert for case in CASES} == set(ALERTS)


def test_names_are_given_once() -> None:
    """Groups, alerts and recorded series: the second of a name would be taken for the first."""
    rules = [rule for path in FILES for group in groups_of(path) for rule in group["rules"]]
    names = [rule.get("alert") or rule["record"] for rule in rules]
    groups = [group["name"] for path in FILES for group in groups_of(path)]

    assert [name for name, times in Counter([*names, *groups]).items() if times > 1] == []
