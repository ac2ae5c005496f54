"""What a fault leaves behind that has been told of by its cause: no alert of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.rules import cases_itself, cases_slo
from tests.rules.gauges import fires, some
from tests.rules.pods import scraped
from tests.rules.promtool import STALE, Case, Firing, Points, Series, Situation, series

MINUTE = 60
NAMESPACE = "airflow"


def paged(ends: int, *, level: str = "fleet", namespace: str = NAMESPACE) -> Series:
    """An alert of the cause that fires from the beginning until then. Names that are not resolved explain targets."""
    points: Points = dict.fromkeys(range(0, ends, 30), 1.0)
    labels = {"alertname": "NetprobeDNSDown", "alertstate": "firing", "explains": "targets", "level": level}
    return series("ALERTS", {**labels, "namespace": namespace}, {**points, ends: STALE})


def cases(alert: str, found: Sequence[Series], firing: Firing, rules: Sequence[str], memory: int) -> list[Case]:
    """`found` makes the alert fire for an hour; `memory`: how long it looks back."""
    ended = 10 * MINUTE
    return [
        Case(
            alert=alert,
            situation=Situation.BELOW,
            name="its cause has been told",
            series=[*found, paged(ended)],
            firing={ended: [], ended + memory - MINUTE: [], 59 * MINUTE: [firing]},
            interval_seconds=MINUTE,
            rules=rules,
        ),
        Case(
            alert=alert,
            situation=Situation.FIRES,
            name="what has been told is another namespace's",
            series=[*found, paged(ended, namespace="staging")],
            firing={ended: [firing]},
            interval_seconds=MINUTE,
            rules=rules,
        ),
        Case(
            alert=alert,
            situation=Situation.FIRES,
            name="what has been told is one target's",
            series=[*found, paged(ended, level="target")],
            firing={ended: [firing]},
            interval_seconds=MINUTE,
            rules=rules,
        ),
    ]


def starting(about: cases_itself.About) -> list[Case]:
    """Pods that start all the time, and are held back."""
    pods = [scraped(f"pod-{begins}", begins, begins + 5 * MINUTE) for begins in range(0, 3600, MINUTE)]
    firing = fires(about.alert, {"namespace": NAMESPACE})
    return cases(about.alert, some(pods, about.say, bad=len(pods)), firing, about.rules, 15 * MINUTE)


# --- error budgets --------------------------------------------------------------------------------------------------

CAUSE = "dns_unreachable"
ENDED = 10 * MINUTE
DNS = {
    "alertname": "NetprobeDNSDown",
    "level": "fleet",
    "severity": "page",
    "explains": "targets",
    "namespace": NAMESPACE,
    "cause": CAUSE,
}
SERVICE = {
    "alertname": "NetprobeServiceDown",
    "level": "target",
    "severity": "page",
    **cases_slo.WHERE,
    "cause": "nothing_listening",
}


def until_ended(name: str, labels: Mapping[str, str], value: float) -> Series:
    points: Points = dict.fromkeys(range(0, ENDED, 30), value)
    return series(name, labels, {**points, ENDED: STALE})


def alerted(labels: Mapping[str, str], **but: str) -> Series:
    """An alert that fires from the beginning until it is mended."""
    return until_ended("ALERTS", {"alertstate": "firing", **labels, **but}, 1)


def explained(pods: float, **but: str) -> Series:
    """So many pods say that the target fails of the cause that the namespace has."""
    labels = {**cases_slo.WHERE, "dag_id": "dag-0", "cause": CAUSE, **but}
    return until_ended("netprobe:target_diagnosis_pods:count2m", labels, pods)


TOLD: Mapping[str, Sequence[Series]] = {
    "the namespace's, by which most pods explain it": (alerted(DNS), explained(2)),
    "two of the namespace's, by which most pods explain it": (
        alerted(DNS),
        explained(1),
        alerted(DNS, cause="dns_failing"),
        explained(1, cause="dns_failing"),
    ),
    "the target's own": (alerted(SERVICE),),
}
"""Alerts that tell of what a target is failing of, which three of four pods see."""

NOT_TOLD: Mapping[str, Sequence[Series]] = {
    "of other targets only": (alerted(DNS), explained(3, target="another")),
    "as one pod of three explains it": (alerted(DNS), explained(1)),
    "of another cause": (alerted(DNS, cause="proxy_unreachable"), explained(3)),
    "of another namespace": (alerted(DNS, namespace="staging"), explained(3)),
    "as a cause that does not make targets fail": (alerted(DNS, explains=""), explained(3)),
    "not yet: it does not fire": (alerted(DNS, alertstate="pending"), alerted(SERVICE, alertstate="pending")),
    "of another target": (alerted(SERVICE, target="another"),),
    "as a ticket": (alerted(SERVICE, severity="ticket"),),
    "as a symptom": (alerted(SERVICE, cause=""),),
    "as a date": (alerted(SERVICE, alertname="NetprobeCertificateExpiringSoon", cause="tls_certificate"),),
}
"""Alerts that tell of something else."""


def burning(windows: Sequence[str], end: int) -> list[Series]:
    return [
        *cases_slo.errors({window: cases_slo.always(0.9, end) for window in windows}),
        *cases_slo.objective(until=end),
        *cases_slo.failing(3, until=end),
    ]


def budget_cases(alert: str, windows: Sequence[str], *, memory: int, runs_for: int) -> Iterator[Case]:
    """It would fire all the time; `memory`: how long it looks back; `runs_for`: its `for`."""
    begins = ENDED + memory + runs_for
    firing = [fires(alert, cases_slo.WHERE)]
    for name, told in TOLD.items():
        scene = [*burning(windows, begins + MINUTE), *told]
        for situation, times, never_from in (
            (Situation.BELOW, {ENDED + memory - MINUTE: []}, 0),
            (Situation.FIRES, {begins - MINUTE: [], begins: firing}, None),
        ):
            yield Case(
                alert=alert,
                situation=situation,
                name=f"told of: {name}",
                series=scene,
                firing=times,
                never_from=never_from,
                interval_seconds=MINUTE,
                rules=cases_slo.RULES,
            )
    for name, told in NOT_TOLD.items():
        yield Case(
            alert=alert,
            situation=Situation.FIRES,
            name=f"told of, but {name}",
            series=[*burning(windows, 20 * MINUTE), *told],
            firing={runs_for: firing, 20 * MINUTE: firing},
            without_gap=(runs_for, 20 * MINUTE),
            interval_seconds=MINUTE,
            rules=cases_slo.RULES,
        )


CASES = [
    *budget_cases(cases_slo.FAST, ("5m", "1h", "30m", "6h"), memory=30 * MINUTE, runs_for=2 * MINUTE),
    *budget_cases(cases_slo.SLOW, ("2h", "1d", "6h", "3d"), memory=6 * 60 * MINUTE, runs_for=15 * MINUTE),
    *(case for about in cases_itself.STARTS for case in starting(about)),
]
