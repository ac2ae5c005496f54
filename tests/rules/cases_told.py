"""What a fault of a whole namespace leaves behind, and has been told of as its cause: no alert of its own."""

from __future__ import annotations

from collections.abc import Sequence

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


BURNING = [
    *cases_slo.errors(dict.fromkeys(("5m", "1h", "30m", "6h"), 0.9)),
    *cases_slo.objective(),
    *cases_slo.failing(3),
]

CASES = [
    *cases(cases_slo.FAST, BURNING, fires(cases_slo.FAST, cases_slo.WHERE), cases_slo.RULES, 30 * MINUTE),
    *(case for about in cases_itself.STARTS for case in starting(about)),
]
