"""The shipped files at another pace are the shipped files: every duration is divided, and nothing else is changed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.lab import alertmanager
from tests.lab.fleet.monitoring import rule_files
from tests.lab.pace import Document, Pace

_DURATIONS = re.compile(r"(?<=\[)[\d\w]+|(?<=offset )\S+?(?=\W)")


@pytest.mark.parametrize(
    ("shipped", "faster"),
    [("30s", "3000ms"), ("1m", "6000ms"), ("1m30s", "9000ms"), ("3d", "25920000ms"), ("5ms", "1ms")],
)
def test_a_duration_is_divided(shipped: str, faster: str) -> None:
    assert Pace(10).duration(shipped) == faster


@pytest.mark.parametrize("text", ["", "1", "m", "1m later", "-1m"])
def test_what_is_no_duration_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        Pace(10).duration(text)


@pytest.mark.parametrize(
    ("shipped", "faster"),
    [
        ("last_over_time(a[2m])", "last_over_time(a[12000ms])"),
        ("a offset 15s", "a offset 1500ms"),
        ("a[1m] offset -15s > 0", "a[6000ms] offset -1500ms > 0"),
        ("max_over_time(a[1h:1m])", "max_over_time(a[360000ms:6000ms])"),
        ("max_over_time(a[1h:])", "max_over_time(a[360000ms:])"),
        # Names, labels, numbers and what a regular expression may be.
        ("sum(netprobe:pods:count2m) > 120", "sum(netprobe:pods:count2m) > 120"),
        ('a{b=~"[0-9]+m",c="5m"} - time() < 3 * 86400', 'a{b=~"[0-9]+m",c="5m"} - time() < 3 * 86400'),
    ],
)
def test_windows_and_offsets_are_divided_and_nothing_else_of_an_expression(shipped: str, faster: str) -> None:
    assert Pace(10).expression(shipped) == faster


def test_only_the_keys_that_are_durations_are_divided() -> None:
    rule = {
        "alert": "A",
        "expr": "a[1m]",
        "for": "1m",
        "labels": {"window": "1m"},
        "annotations": {"summary": "for 1m"},
    }
    assert Pace(10).rules({"groups": [{"interval": "30s", "rules": [rule]}]}) == {
        "groups": [{"interval": "3000ms", "rules": [{**rule, "expr": "a[6000ms]", "for": "6000ms"}]}]
    }


@pytest.mark.parametrize("file", rule_files(), ids=lambda file: file.stem)
def test_the_shipped_rules_stay_rules(file: Path, tmp_path: Path) -> None:
    shipped = yaml.safe_load(file.read_text("utf-8"))
    faster = Pace(10).rules(shipped)
    (tmp_path / file.name).write_text(yaml.safe_dump(faster), "utf-8")
    checked = subprocess.run(
        ["promtool", "check", "rules", tmp_path / file.name], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    before, after = (_DURATIONS.findall(str(document)) for document in (shipped, faster))
    assert len(before) == len(after)
    assert [Pace(10).duration(one) for one in before if one[0].isdigit()] == [one for one in after if one[0].isdigit()]


def test_the_routes_of_alertmanager_keep_their_proportions() -> None:
    def pauses(route: Document) -> list[str]:
        own = [value for key, value in route.items() if key.startswith(("group_wait", "group_interval", "repeat"))]
        return own + [pause for inner in route.get("routes", []) for pause in pauses(inner)]

    shipped = alertmanager.shipped()
    before, after = pauses(shipped["route"]), pauses(Pace(10).alertmanager(shipped)["route"])
    assert before
    assert after == [Pace(10).duration(pause) for pause in before]
