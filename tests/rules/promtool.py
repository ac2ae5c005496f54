"""Rules are tested by `promtool test rules`; this writes what it reads, and runs it.

A `Case` is one alert in one `Situation`: the series there are, and what has to be so at which time. Modules named
`cases_*.py` hold them in `CASES`; `test_rules.py` runs them all, with both versions, and holds that every alert has a
case for every situation. Cases that share one list of series are played together: that is what takes the time.

Series have a value every five seconds, or none: `series("up", {"pod": "a"}, {0: 1, 15: 1, 30: STALE})`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "rules"
GRID_SECONDS = 5
"""Times of samples are multiples of this."""


class Situation(StrEnum):
    """What every alert is tried in."""

    FIRES = "fires"
    BELOW = "does not fire just below"
    RESOLVES = "resolves"
    MISSING = "missing data"
    SHORT_PODS = "pods that come and go every 20 seconds"


class _Stale:
    """What Prometheus stores where a series has ended."""


STALE: Final = _Stale()
Points = Mapping[int, float | _Stale]
"""Values by the second."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series that is there before the rules look."""

    name: str
    """With its labels, as PromQL writes it."""
    values: str
    """In promtool's notation, one each GRID_SECONDS."""

    def as_dict(self) -> dict[str, str]:
        return {"series": self.name, "values": self.values}


def selector(metric: str, labels: Mapping[str, str]) -> str:
    """A metric with labels as PromQL writes it. Those that are empty are absent."""
    inner = ",".join(f"{key}={json.dumps(value)}" for key, value in labels.items() if value)
    return f"{metric}{{{inner}}}"


def series(metric: str, labels: Mapping[str, str], points: Points) -> Series:
    """A series with these values at these times, and nothing between."""
    words: list[str] = []
    next_second = 0
    for second, value in sorted(points.items()):
        assert second % GRID_SECONDS == 0, f"{second} is not on the grid"
        if gap := (second - next_second) // GRID_SECONDS:
            words.append(f"_x{gap}")
        words.append("stale" if isinstance(value, _Stale) else f"{value:g}")
        next_second = second + GRID_SECONDS
    return Series(selector(metric, labels), " ".join(words))


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert fires with these labels, and none besides; its name is the case's."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str] | None = None
    """Where they are given, exactly these."""


@dataclass(frozen=True, slots=True)
class Value:
    """An expression has these series and values, and none besides: by selector as `selector` writes it."""

    expression: str
    series: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One alert in one situation. Times are seconds from the beginning of the series."""

    alert: str
    situation: Situation
    name: str = ""
    """What tells it from others of the same alert and situation."""
    series: Sequence[Series]
    firing: Mapping[int, Sequence[Firing]] = field(default_factory=dict)
    """By time, every instance of the alert that fires, pending ones not among them; none where it must not."""
    never_from: int | None = None
    """Nothing fires from then on until the last of `firing`, or the whole time where it is 0."""
    without_gap: tuple[int, int] | None = None
    """From the first until the second, the alert fires at every evaluation."""
    values: Mapping[int, Sequence[Value]] = field(default_factory=dict)
    interval_seconds: int = 30
    """How often rules are evaluated; promtool knows one interval for all groups."""
    rules: Sequence[str] = ()
    """Files of RULES, in the order in which their groups are evaluated. Without any: the recorded and the alert's."""

    def __str__(self) -> str:
        return f"{self.alert} {self.situation}{', ' if self.name else ''}{self.name}"


@cache
def groups_of(path: Path) -> list[dict[str, Any]]:
    """The groups of a file of rules."""
    groups: list[dict[str, Any]] = yaml.safe_load(path.read_text("utf-8"))["groups"]
    return groups


def alerts(directory: Path = RULES) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Every alert by its name, with its file."""
    return {
        rule["alert"]: (path, rule)
        for path in sorted(directory.glob("*.yaml"))
        for group in groups_of(path)
        for rule in group["rules"]
        if "alert" in rule
    }


def document(cases: Iterable[Case], directory: Path = RULES) -> dict[str, Any]:
    """What `promtool test rules` reads, for cases that have the same rules and the same interval."""
    cases = list(cases)
    ((interval, files),) = {(case.interval_seconds, _files(case, directory)) for case in cases}
    scenes: dict[int, list[Case]] = {}
    for case in cases:
        scenes.setdefault(id(case.series), []).append(case)
    return {
        "rule_files": [str(file) for file in files],
        "evaluation_interval": f"{interval}s",
        "group_eval_order": [group["name"] for file in files for group in groups_of(file)],
        "tests": [_test(scene) for scene in scenes.values()],
    }


def complaints(cases: Iterable[Case], promtool: str, directory: Path, rules: Path = RULES) -> str:
    """What `promtool test rules` objects to; empty where all holds. `directory` is for files of this run."""
    together: dict[tuple[int, tuple[Path, ...]], list[Case]] = {}
    for case in cases:
        together.setdefault((case.interval_seconds, _files(case, rules)), []).append(case)
    said = []
    for number, some in enumerate(together.values()):
        file = directory / f"{number}.test.yaml"
        # JSON is YAML, too, and is written a hundred times as fast.
        file.write_text(json.dumps(document(some, rules)))
        command = [promtool, "test", "rules", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said.append(done.stdout + done.stderr)
    return "\n".join(said)


def _files(case: Case, directory: Path) -> tuple[Path, ...]:
    names = case.rules or ("netprobe-recording.yaml", alerts(directory)[case.alert][0].name)
    return tuple(directory / name for name in dict.fromkeys(names))


def _test(scene: Sequence[Case]) -> dict[str, Any]:
    return {
        "name": ", ".join(dict.fromkeys(f"{case.situation}{': ' if case.name else ''}{case.name}" for case in scene)),
        "interval": f"{GRID_SECONDS}s",
        "input_series": [one.as_dict() for one in scene[0].series],
        "alert_rule_test": [test for case in scene for test in _told(case)],
        "promql_expr_test": [test for case in scene for test in _asked(case)],
    }


def _told(case: Case) -> Iterator[dict[str, Any]]:
    """Alerts whose annotations are looked at."""
    for second, expected in case.firing.items():
        told = [one for one in expected if one.annotations is not None]
        assert not told or len(told) == len(expected), f"{case}: annotations of all or of none"
        if told:
            yield {
                "eval_time": f"{second}s",
                "alertname": case.alert,
                "exp_alerts": [
                    {"exp_labels": dict(one.labels), "exp_annotations": dict(one.annotations or {})} for one in told
                ],
            }


def _asked(case: Case) -> Iterator[dict[str, Any]]:
    """Expressions: which instances fire at a time, and since when."""
    firing = selector("ALERTS", {"alertname": case.alert, "alertstate": "firing"})
    assert case.firing or case.values, f"{case} asks nothing"
    for second, expected in case.firing.items():
        instances = [
            selector("ALERTS", {"alertname": case.alert, "alertstate": "firing", **one.labels}) for one in expected
        ]
        yield _expression(second, Value(firing, dict.fromkeys(instances, 1)))
    # Windows are a second longer than needed: whether one holds the moment at which it begins differs between versions.
    if case.never_from is not None:
        end = max([*case.firing, *case.values])
        assert end > case.never_from, f"{case}: no time to be silent in"
        yield _expression(end, Value(f"count_over_time({firing}[{end - case.never_from + 1}s])", {}))
    if case.without_gap is not None:
        begin, until = case.without_gap
        assert case.firing[until], f"{case}: nothing is said to fire at the end of the time without a gap"
        evaluations = until // case.interval_seconds - (begin - 1) // case.interval_seconds
        yield _expression(until, Value(f"count_over_time({firing}[{until - begin + 1}s]) != {evaluations}", {}))
    for second, values in case.values.items():
        yield from (_expression(second, value) for value in values)


def _expression(second: int, value: Value) -> dict[str, Any]:
    return {
        "expr": value.expression,
        "eval_time": f"{second}s",
        "exp_samples": [{"labels": labels, "value": number} for labels, number in value.series.items()],
    }
