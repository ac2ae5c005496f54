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


def having_been_unsure(now: int) -> Says:
    """What the last word of a pod is, the word before it said something else."""
    cause = "dns_unreachable" if now >= 225 else "unknown"
    return Says([cause], {"db": cause})


def of_job(job: str, found: Sequence[Series]) -> list[Series]:
    return [Series(f'{one.name.removesuffix("}")},job="{job}"}}', one.values) for one in found]


def twice(found: Sequence[Series]) -> list[Series]:
    """As of pods that are scraped and push."""
    return [*of_job("netprobe", found), *of_job("push", found)]


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
            "a pod that is scraped and pushes counts once",
            [
                *twice(all_series([scraped(f"bad-{n}", 0, 300) for n in range(2)], lambda _: FAILING)),
                *twice(all_series([scraped(f"good-{n}", 0, 300) for n in range(3)], lambda _: WELL)),
            ],
            {
                240: [
                    pods("netprobe:pods:count2m", 5),
                    pods("netprobe:pods:count15m", 5),
                    *(
                        Value(f'{name}{{cause="dns_unreachable"}}', pods(name, 2, cause="dns_unreachable").series)
                        for name in ("netprobe:diagnosis_pods:count2m", "netprobe:diagnosis_pods:count15m")
                    ),
                    pods("netprobe:target_pods:count2m", 5, **DB),
                    pods("netprobe:target_failing_pods:count2m", 2, **DB),
                    pods("netprobe:target_diagnosis_pods:count2m", 2, **DB, cause="dns_unreachable"),
                    pods("netprobe:target_diagnosis_pods:count15m", 2, **DB, cause="dns_unreachable"),
                ]
            },
        ),
        recorded(
            "a pod that is scraped and pushes fails where either says so",
            [
                *of_job("netprobe", all_series([scraped("a", 0, 300)], lambda _: WELL)),
                *of_job("push", all_series([scraped("a", 0, 300)], lambda _: FAILING)),
            ],
            {
                240: [
                    pods("netprobe:target_pods:count2m", 1, **DB),
                    pods("netprobe:target_failing_pods:count2m", 1, **DB),
                    pods("netprobe:target_diagnosis_pods:count2m", 1, **DB, cause="dns_unreachable"),
                ]
            },
        ),
        recorded(
            "series without a pod are one pod's, and no more than all",
            [
                Series(one.name.replace('pod="', 'instance="'), one.values)
                for one in all_series([scraped(f"host-{n}", 0, 300) for n in range(9)], lambda _: FAILING)
            ],
            {
                240: [
                    pods("netprobe:pods:count2m", 1),
                    Value("max(netprobe:diagnosis_pods:count2m)", {"{}": 1}),
                    pods("netprobe:target_pods:count2m", 1, **DB),
                    pods("netprobe:target_failing_pods:count2m", 1, **DB),
                    pods("netprobe:target_diagnosis_pods:count2m", 1, **DB, cause="dns_unreachable"),
                ]
            },
        ),
        recorded(
            "pods that have ended count under the last of their causes alone",
            all_series([scraped(f"{n}", 0, 240, ended=True) for n in range(3)], having_been_unsure),
            {
                second: [pods(f"netprobe:target_diagnosis_pods:{window}", 3, **DB, cause="dns_unreachable")]
                for second, window in ((240, "count2m"), (330, "count2m"), (360, "count15m"), (960, "count15m"))
            },
            interval_seconds=30,
        ),
        recorded(
            "pods that had recovered when they ended count under none",
            all_series([scraped(f"{n}", 0, 240, ended=True) for n in range(3)], changing),
            {
                second: [nothing(f"netprobe:target_diagnosis_pods:{window}")]
                for second, window in ((240, "count2m"), (330, "count2m"), (360, "count15m"), (960, "count15m"))
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


OF_TARGET = {"namespace": "airflow", "target": "db"}
COUNTERS: Sequence[tuple[str, Mapping[str, str], Mapping[str, str] | None]] = (
    ("netprobe_probes_total", {"result": "failure"}, None),
    ("netprobe_probe_failures_total", {"phase": "connect", "reason": "refused"}, None),
    ("netprobe_probe_duration_seconds_bucket", {"le": "1"}, {**OF_TARGET, "le": "1"}),
    ("netprobe_phase_duration_seconds_sum", {"phase": "tls"}, {**OF_TARGET, "phase": "tls"}),
    ("netprobe_phase_duration_seconds_count", {"phase": "tls"}, {**OF_TARGET, "phase": "tls"}),
)
"""Each that is added up, its labels, and those that it is recorded with, where that is not all but the pod's."""


def gap_cases(metric: str, labels: Mapping[str, str], by: Mapping[str, str]) -> list[Case]:
    """A pod that has counted for long, and from which nothing is heard for a while."""
    name = metric.replace("netprobe_", "netprobe:", 1).removesuffix("_total") + ":increase1m"

    def grown_by(number: float, until: int) -> dict[int, Sequence[Value]]:
        # Within 59 minutes, which no evaluation begins or ends.
        return {until: [Value(f"sum_over_time({name}[59m])", {selector("", by): number})]}

    def of(points: Points, heard: Points | None = None) -> list[Series]:
        return [
            series(metric, {**ORDERS, "pod": "a", **labels}, points),
            series("netprobe_config_last_reload_successful", {**ORDERS, "pod": "a"}, heard or dict.fromkeys(points, 1)),
        ]

    def scraped_but(begin: int, end: int) -> dict[int, float]:
        """With 5000 of its past, and one more at each scrape; not heard of between these seconds."""
        return {second: 5000.0 + second // 60 for second in range(0, 5400, 60) if not begin < second < end}

    hour = 60 * MINUTE
    return [
        recorded(
            f"{metric}: after fourteen minutes it has grown by what was counted meanwhile",
            of(scraped_but(1800, 1800 + 14 * MINUTE)),
            grown_by(59, 90 * MINUTE + 30),
        ),
        recorded(
            f"{metric}: after twenty minutes not by its whole past, and by what comes then",
            of(scraped_but(1800, 3000)),
            grown_by(39, 90 * MINUTE + 30),
        ),
        recorded(
            f"{metric}: after seventy minutes neither",
            of({0: 5000, 60: 5001, 4260: 5010, 4320: 5012}),
            grown_by(2, 74 * MINUTE + 30),
        ),
        recorded(
            f"{metric}: what begins in a pod that is heard of all the time counts from its beginning",
            of({900: 3, 960: 5}, dict.fromkeys(range(0, 1000, 60), 1)),
            grown_by(5, hour - 30),
        ),
        recorded(f"{metric}: a new pod's counts from its beginning", of({300: 3, 360: 5}), grown_by(5, hour - 30)),
        recorded(
            f"{metric}: what begins anew counts from there", of({0: 0, 60: 9, 120: 2, 180: 3}), grown_by(12, hour - 30)
        ),
    ]


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
        *(
            case
            for metric, labels, by in COUNTERS
            for case in gap_cases(metric, {**DB, **labels}, {**ORDERS, **DB, **labels} if by is None else by)
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


@pytest.mark.parametrize("path", sorted(RULES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_query_finds_what_was_evaluated_last(path: Path) -> None:
    """It finds nothing that is older than five minutes: an alert that is evaluated less often is there now and then."""
    seconds = {"s": 1, "m": 60, "h": 3600}
    intervals = [group["interval"] for group in groups_of(path)]

    assert [one for one in intervals if int(one[:-1]) * seconds[one[-1]] > 5 * MINUTE] == []
