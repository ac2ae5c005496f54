"""What netprobe-recording.yaml records: the numbers themselves, on which alerts and dashboards rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.lab.newer import STABLE, VERSIONS, programs_of
from tests.rules.pods import Says, all_series, glimpsed, scraped, short_lived
from tests.rules.promtool import (
    RULES,
    STALE,
    Case,
    Points,
    Series,
    Situation,
    Value,
    complaints,
    groups_of,
    selector,
    series,
)

FILE = "netprobe-recording.yaml"
MINUTE = 60
ORDERS = {"namespace": "airflow", "dag_id": "orders", "task_id": "load"}
DB = {"target": "db", "type": "tcp"}


def recorded(
    name: str, there_is: Sequence[Series], expected: Mapping[int, Sequence[Value]], *, interval_seconds: int = MINUTE
) -> Case:
    return Case(
        alert="",
        situation=Situation.FIRES,
        name=name,
        series=there_is,
        values=expected,
        interval_seconds=interval_seconds,
        rules=(FILE,),
    )


def pods(metric: str, number: float, **labels: str) -> Value:
    """One series of it, and no other."""
    return Value(metric, {selector(metric, {**ORDERS, **labels}): number})


def nothing(metric: str) -> Value:
    return Value(metric, {})


# --- pods -----------------------------------------------------------------------------------------------------------

FAILING = Says(["dns_unreachable", "unknown"], {"db": "dns_unreachable"})
WELL = Says(targets={"db": None})


def changing(now: int) -> Says:
    """On its way to health a target has another cause for a moment."""
    if now < 120:
        return FAILING
    return Says(["dns_failing"], {"db": "dns_failing"}) if now < 180 else WELL


def pod_cases() -> list[Case]:
    mixed = [
        *all_series([scraped(f"bad-{n}", 0, 300) for n in range(2)], lambda _: FAILING),
        *all_series([scraped(f"good-{n}", 0, 300) for n in range(3)], lambda _: WELL),
    ]
    return [
        recorded(
            "a pod with two causes counts once",
            mixed,
            {
                240: [
                    pods("netprobe:pods:count2m", 5),
                    Value(
                        "netprobe:diagnosis_pods:count2m",
                        {
                            selector("netprobe:diagnosis_pods:count2m", {**ORDERS, "cause": cause}): number
                            for cause, number in (("dns_unreachable", 2), ("unknown", 2), ("healthy", 3))
                        },
                    ),
                    pods("netprobe:target_pods:count2m", 5, **DB),
                    pods("netprobe:target_failing_pods:count2m", 2, **DB),
                    pods("netprobe:target_diagnosis_pods:count2m", 2, **DB, cause="dns_unreachable"),
                    pods("netprobe:pods:count15m", 5),
                    pods("netprobe:target_diagnosis_pods:count15m", 2, **DB, cause="dns_unreachable"),
                ]
            },
        ),
        recorded(
            "a pod that was heard of once counts for two minutes, and for a quarter of an hour",
            all_series([glimpsed("a", 65)], lambda _: FAILING),
            {
                60: [nothing("netprobe:pods:count2m")],
                180: [
                    pods("netprobe:pods:count2m", 1),
                    pods("netprobe:target_failing_pods:count2m", 1, **DB),
                    pods("netprobe:target_diagnosis_pods:count2m", 1, **DB, cause="dns_unreachable"),
                ],
                240: [
                    nothing("netprobe:pods:count2m"),
                    nothing("netprobe:diagnosis_pods:count2m"),
                    nothing("netprobe:target_pods:count2m"),
                    nothing("netprobe:target_failing_pods:count2m"),
                    nothing("netprobe:target_diagnosis_pods:count2m"),
                ],
                960: [pods("netprobe:pods:count15m", 1)],
                1020: [nothing("netprobe:pods:count15m"), nothing("netprobe:diagnosis_pods:count15m")],
            },
        ),
        recorded(
            "a pod that has recovered counts as recovered at once, and where nothing fails there is a 0",
            all_series([scraped("a", 0, 400)], lambda now: FAILING if now < 120 else WELL),
            {
                60: [pods("netprobe:target_failing_pods:count2m", 1, **DB)],
                120: [
                    pods("netprobe:diagnosis_pods:count2m", 1, cause="healthy"),
                    pods("netprobe:target_failing_pods:count2m", 0, **DB),
                    nothing("netprobe:target_diagnosis_pods:count2m"),
                    pods("netprobe:diagnosis_pods:count15m", 1, cause="healthy"),
                ],
            },
        ),
        recorded(
            "a target counts under the last of its causes alone, also when the last did not hold for long",
            all_series([scraped("a", 0, 400)], changing),
            {
                60: [pods("netprobe:target_diagnosis_pods:count2m", 1, **DB, cause="dns_unreachable")],
                150: [
                    pods("netprobe:target_diagnosis_pods:count2m", 1, **DB, cause="dns_failing"),
                    pods("netprobe:target_diagnosis_pods:count15m", 1, **DB, cause="dns_failing"),
                ],
                240: [
                    nothing("netprobe:target_diagnosis_pods:count2m"),
                    nothing("netprobe:target_diagnosis_pods:count15m"),
                ],
            },
            interval_seconds=30,
        ),
        recorded(
            "where nobody says whose pods they are, the labels are absent",
            all_series([scraped("a", 0, 300, dag_id="", task_id="")], lambda _: WELL),
            {240: [Value("netprobe:pods:count2m", {'netprobe:pods:count2m{namespace="airflow"}': 1})]},
        ),
    ]


# --- counters -------------------------------------------------------------------------------------------------------


def counter(pod: str, points: Points) -> Series:
    return series("netprobe_probes_total", {**ORDERS, **DB, "pod": pod, "result": "failure"}, points)


def grown(number: float) -> Value:
    return Value(
        "sum_over_time(netprobe:probes:increase1m[1h])",
        {selector("", {**ORDERS, **DB, "result": "failure"}): number},
    )


def counted(metric: str, number: float, **labels: str) -> Value:
    """How much one of those that are recorded without DAG and task has grown so far."""
    name = metric.replace("netprobe_", "netprobe:", 1)
    return Value(
        f"sum_over_time({name}:increase1m[1h])",
        {selector("", {"namespace": "airflow", "target": "db", **labels}): number},
    )


def counter_cases() -> list[Case]:
    zeros = dict.fromkeys(range(0, 120, 15), 0.0)
    return [
        recorded(
            "all of it, scraped every 15 seconds",
            [counter("a", {second: second // 15 for second in range(0, 615, 15)})],
            {1200: [grown(40)], 120: [grown(7)]},
        ),
        recorded(
            "of a pod that was scraped once, or pushed at its end, all that it counted",
            [counter("a", {105: 7, 110: STALE}), counter("b", {130: 0, 135: 4, 140: STALE})],
            {1200: [grown(11)]},
        ),
        recorded(
            "of pods that come and go, the sum",
            [counter(p.name, {p.heard[0]: 3, p.ends or 0: STALE}) for p in short_lived(0, 600)],
            {1200: [grown(90)]},
        ),
        recorded(
            "of one that begins anew, what it has counted since",
            [counter("a", {0: 5, 60: 9, 120: 2, 180: 3})],
            {1200: [grown(12)]},
        ),
        recorded(
            "nothing is lost where a minute has no sample",
            [counter("a", {0: 1, 60: 2, 120: 3, 300: 10, 360: 11})],
            {1200: [grown(11)]},
        ),
        recorded(
            "one that was silent for ten minutes has grown by the difference, after a quarter of an hour by everything",
            [counter("a", {0: 5, 60: 9, 720: 12, 1680: 13})],
            {900: [grown(12)], 1920: [grown(25)]},
        ),
        *(
            recorded(
                f"{metric} of one that was silent for four minutes, and for ten",
                [series(metric, {**ORDERS, **DB, **labels, "pod": "a"}, {0: 5, 240: 9, 840: 10})],
                {
                    600: [counted(metric, 9, **labels)],
                    1200: [counted(metric, 19, **labels)],
                },
            )
            for metric, labels in (
                ("netprobe_probe_duration_seconds_bucket", {"le": "1"}),
                ("netprobe_phase_duration_seconds_sum", {"phase": "tls"}),
                ("netprobe_phase_duration_seconds_count", {"phase": "tls"}),
            )
        ),
        recorded("nothing is made up where nothing is counted", [counter("a", zeros)], {1200: [grown(0)]}),
    ]


# --- service level --------------------------------------------------------------------------------------------------


def ratio(window: str, number: float) -> Value:
    metric = f"netprobe:probe_errors:ratio{window}"
    return Value(f"round({metric}, 0.01)", {selector("", {"namespace": "airflow", "target": "db"}): number})


def between(window: str, low: float, high: float) -> Value:
    """Whether a window holds the moment at which it begins differs between versions."""
    return Value(f"count(netprobe:probe_errors:ratio{window} >= {low} <= {high})", {"{}": 1})


def slo_cases() -> list[Case]:
    hour = 60 * MINUTE
    # Of four scrapes one finds it failing; of four pods that are heard of once, one.
    quarter = [
        *all_series([scraped("a", 5, 2 * hour)], lambda now: FAILING if now % 60 == 5 else WELL),
    ]
    pushed = [
        *all_series([glimpsed(f"bad-{n}", 20 + 240 * n) for n in range(30)], lambda _: FAILING),
        *all_series([glimpsed(f"good-{n}", 60 + 80 * n) for n in range(90)], lambda _: WELL),
    ]
    return [
        recorded(
            "the share of the time in which it failed",
            quarter,
            {
                2 * hour: [
                    ratio("5m", 0.25),
                    ratio("30m", 0.25),
                    ratio("1h", 0.25),
                    ratio("2h", 0.25),
                    ratio("3d", 0.25),
                ]
            },
        ),
        recorded("of pods that were heard of once", pushed, {2 * hour: [ratio("2h", 0.25), ratio("3d", 0.25)]}),
        recorded(
            "five minutes of errors within each window",
            all_series([scraped("a", 5, 2 * hour)], lambda now: FAILING if hour / 2 <= now < hour / 2 + 300 else WELL),
            {
                2160: [between("5m", 0.65, 0.85), between("30m", 0.15, 0.18)],
                hour: [nothing("netprobe:probe_errors:ratio5m > 0"), between("1h", 0.08, 0.09)],
                2 * hour: [between("2h", 0.041, 0.043), between("6h", 0.041, 0.043), between("1d", 0.041, 0.043)],
                3 * hour: [between("2h", 0, 0), between("6h", 0.041, 0.043)],
            },
        ),
        recorded(
            "each sample counts once",
            quarter,
            {
                2 * hour: [
                    Value(
                        "sum_over_time(netprobe:probe_success:count1m[59m30s])",
                        {selector("", {**ORDERS, "target": "db"}): 240},
                    ),
                    Value(
                        "netprobe:target_objective:ratio",
                        {selector("netprobe:target_objective:ratio", {"namespace": "airflow", "target": "db"}): 0.99},
                    ),
                ]
            },
        ),
        recorded(
            "the objective of a target that nobody probes any more is there while its errors are",
            all_series([glimpsed("a", 0)], lambda _: WELL),
            {
                2 * hour: [
                    ratio("2h", 0),
                    Value(
                        "netprobe:target_objective:ratio",
                        {selector("netprobe:target_objective:ratio", {"namespace": "airflow", "target": "db"}): 0.99},
                    ),
                ]
            },
        ),
    ]


CASES = [*pod_cases(), *counter_cases(), *slo_cases()]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_recorded(version: str, tmp_path: Path) -> None:
    said = complaints(CASES, programs_of(version).promtool, tmp_path)

    assert said == "", said


def everything() -> list[Series]:
    """Each metric that is read, of a pod, with whatever labels a scrape configuration may add."""
    pod = scraped("a", 0, 600)
    added = {"instance": "a", "node": "n1", "job": "netprobe", "container": "netprobe", "endpoint": "netprobe"}
    found = pod.series(lambda _: FAILING, counters=True)
    points = {second: float(second) for second in pod.heard}
    for metric, labels in (
        ("netprobe_probes_total", {"result": "failure"}),
        ("netprobe_probe_duration_seconds_bucket", {"le": "+Inf"}),
        ("netprobe_phase_duration_seconds_sum", {"phase": "connect"}),
        ("netprobe_phase_duration_seconds_count", {"phase": "connect"}),
    ):
        found.append(series(metric, {**pod.labels, **DB, **labels}, points))
    more = ",".join(f'{key}="{value}"' for key, value in added.items())
    return [Series(one.name.replace("{", f"{{{more},", 1), one.values) for one in found]


ALLOWED = {"namespace", "dag_id", "task_id", "target", "type", "cause", "result", "phase", "reason", "le"}


def test_everything_is_recorded_and_nothing_by_pod(tmp_path: Path) -> None:
    """Each series has labels of a bounded number of values, and no other."""
    names = {rule["record"] for group in groups_of(RULES / FILE) for rule in group["rules"]}
    unbounded = 'count by (__name__) ({__name__=~"netprobe:.+",%s!=""})'
    labels = {part.split("=")[0] for one in everything() for part in one.name.partition("{")[2].split(",")}
    assert {"pod", "node", "instance"} <= labels
    case = recorded(
        "everything",
        everything(),
        {
            600: [
                *(Value(unbounded % label, {}) for label in sorted(labels - ALLOWED)),
                Value('count(count by (__name__) ({__name__=~"netprobe:.+"}))', {"{}": len(names)}),
            ]
        },
    )

    said = complaints([case], STABLE.promtool, tmp_path)

    assert said == "", said


@pytest.mark.parametrize("window", ["5m", "30m", "1h", "2h", "6h", "1d", "3d"])
def test_a_ratio_has_the_window_that_it_is_named_after(window: str) -> None:
    """Days are too long to be played."""
    (expression,) = (
        rule["expr"]
        for group in groups_of(RULES / FILE)
        for rule in group["rules"]
        if rule["record"] == f"netprobe:probe_errors:ratio{window}"
    )

    assert re.findall(r"\[(\w+)\]", expression) == [window, window]
