"""Certificates that expire: the alerts of netprobe-tls.yaml. Time begins at 0 here, with 1970."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.rules.gauges import Text, fires, told
from tests.rules.pods import Pod, Says, glimpsed, scraped, short_lived
from tests.rules.promtool import Case, Firing, Series, Situation

MINUTE, HOUR, DAY = 60, 3600, 86400
WHERE = {"namespace": "airflow", "target": "ledger"}
RULES = ("netprobe-tls.yaml",)
RECORDED = ("netprobe-recording.yaml", *RULES)
FAR = 1000 * DAY


def shown(pods: Sequence[Pod], expiry: Callable[[int], float]) -> list[Series]:
    """When the certificate that these pods are shown expires."""
    metric = "netprobe_tls_certificate_expiry_timestamp_seconds"
    return [told(pod, metric, expiry, target="ledger", type="https") for pod in pods]


SEEN = ("tls_certificate", "clock_skew", "flapping", "slow")
"""Causes of a target that keep nobody from seeing its certificate."""


def seen_by_one_of_two(cause: str, expiry: float) -> list[Series]:
    """In a namespace of its own: a pod with this cause that was shown this certificate; another was shown another."""
    one = scraped("one", 0, HOUR, namespace=cause)
    other = scraped("other", 0, HOUR, namespace=cause)
    return [
        *shown([one], lambda _: expiry),
        *shown([other], lambda _: FAR),
        *one.series(lambda _: Says(targets={"ledger": cause})),
    ]


@dataclass(frozen=True, slots=True)
class About:
    """One alert."""

    alert: str
    left: int
    """Seconds until the certificate expires, below which the alert is due."""
    after: int
    """Seconds for which that must be so."""
    text: Text
    """Fifteen minutes after that."""


def text(summary: str, description: str, section: str) -> Text:
    return Text(summary, description, section, "netprobe-target?var-namespace=airflow&var-target=ledger&from=now-8d")


ALERTS = [
    About(
        "NetprobeCertificateExpiring",
        21 * DAY,
        10 * MINUTE,
        text(
            "The certificate of ledger in namespace airflow expires in 20d 23h 45m 0s.",
            "The earliest expiry in the chain it showed last is 1970-01-22 00:05:00 +0000 UTC. Whatever renews it "
            "should have done so by now.",
            "netprobecertificateexpiring",
        ),
    ),
    About(
        "NetprobeCertificateExpiringSoon",
        3 * DAY,
        5 * MINUTE,
        text(
            "The certificate of ledger in namespace airflow expires in 2d 23h 45m 0s.",
            "The earliest expiry in the chain it showed last is 1970-01-04 00:05:00 +0000 UTC. From then on every task "
            "that checks it fails.",
            "netprobecertificateexpiringsoon",
        ),
    ),
    About(
        "NetprobeCertificateExpired",
        0,
        2 * MINUTE,
        text(
            "The certificate of ledger in namespace airflow expired 15m 0s ago.",
            "The earliest expiry in the chain it showed last was 1970-01-01 00:05:00 +0000 UTC. 1 of 1 pods see it "
            "fail now. The DAG orders is affected.",
            "netprobecertificateexpired",
        ),
    ),
]


def cases(about: About) -> list[Case]:
    """One alert in every situation. It is due five minutes after the beginning, unless said otherwise."""
    due = 5 * MINUTE
    old = about.left + due
    firing = [fires(about.alert, WHERE)]
    # What is to be below a number is so at the evaluation after it was that number.
    first = due + about.after + (MINUTE if about.left else 0)

    def case(
        situation: Situation,
        name: str,
        found: Sequence[Series],
        by_time: dict[int, list[Firing]],
        *,
        rules: Sequence[str] = RULES,
        every: int = MINUTE,
        gap_free: tuple[int, int] | None = None,
        never: bool = False,
    ) -> Case:
        return Case(
            alert=about.alert,
            situation=situation,
            name=name,
            series=found,
            firing=by_time,
            rules=rules,
            interval_seconds=every,
            without_gap=gap_free,
            never_from=0 if never else None,
        )

    def pods(number: int, begins: int, until: int, *, ended: bool = False) -> list[Pod]:
        return [scraped(f"pod-{begins}-{index}", begins, until, ended=ended) for index in range(number)]

    one = pods(1, 0, due + 15 * MINUTE + 15)
    failing = [said for pod in one for said in pod.series(lambda _: Says(targets={"ledger": "tls_certificate"}))]
    stuck = pods(1, 0, HOUR)
    return [
        case(
            Situation.FIRES,
            "",
            [*shown(one, lambda _: old), *failing],
            {first - MINUTE: [], first: firing, due + 15 * MINUTE: [fires(about.alert, WHERE, about.text)]},
            rules=RECORDED,
        ),
        case(
            Situation.FIRES,
            "whoever got as far as the certificate counts, whatever came of it",
            [one for cause in SEEN for one in seen_by_one_of_two(cause, old)],
            {HOUR: [fires(about.alert, {**WHERE, "namespace": cause}) for cause in SEEN]},
        ),
        case(
            Situation.FIRES,
            "of several servers one has the old certificate",
            shown(pods(1, 0, HOUR), lambda _: old) + shown(pods(3, 5, HOUR), lambda _: FAR),
            {HOUR - MINUTE: firing},
        ),
        case(
            Situation.FIRES,
            "seen once in two days",
            shown([glimpsed(f"pod-{day}", day * DAY) for day in range(2, 9, 2)], lambda _: about.left + 3 * DAY),
            {3 * DAY - HOUR: [], 3 * DAY + 2 * HOUR: firing, 9 * DAY: firing},
            every=HOUR,
            gap_free=(3 * DAY + 2 * HOUR, 9 * DAY),
        ),
        case(
            Situation.BELOW,
            "",
            shown(pods(3, 0, HOUR), lambda _: about.left + HOUR + MINUTE),
            {HOUR: []},
            never=True,
        ),
        case(
            Situation.RESOLVES,
            "a new pod is shown another certificate; what the old ones said is remembered for a week",
            shown(pods(3, 0, first + 15, ended=True), lambda _: old)
            + shown(pods(1, first + 4 * MINUTE, HOUR), lambda _: FAR),
            {first: firing, first + 5 * MINUTE: []},
        ),
        case(
            Situation.RESOLVES,
            "the pods see it change",
            shown(pods(3, 0, HOUR), lambda second: old if second < 30 * MINUTE else FAR),
            {29 * MINUTE: firing, 33 * MINUTE: []},
        ),
        case(
            Situation.RESOLVES,
            "one pod does not get as far as the new certificate",
            [
                *shown(stuck, lambda _: old),
                *(one for pod in stuck for one in pod.series(lambda _: Says(targets={"ledger": "target_blocked"}))),
                *shown(pods(1, 30 * MINUTE, HOUR), lambda _: FAR),
            ],
            {29 * MINUTE: firing, 31 * MINUTE: []},
        ),
        case(
            Situation.MISSING,
            "nobody looks for a week, and then it is forgotten",
            shown([glimpsed("pod", HOUR)], lambda _: about.left),
            {7 * DAY: firing, 9 * DAY: []},
            every=HOUR,
            gap_free=(3 * HOUR, 7 * DAY),
        ),
        case(
            Situation.MISSING,
            "no certificate was ever shown",
            [one for pod in pods(3, 0, HOUR) for one in pod.series(lambda _: Says(targets={"ledger": None}))],
            {HOUR: []},
            never=True,
        ),
        case(
            Situation.SHORT_PODS,
            "",
            shown(short_lived(0, 30 * MINUTE), lambda _: old)
            + shown(short_lived(30 * MINUTE, 40 * MINUTE), lambda _: FAR),
            {30 * MINUTE: firing, 40 * MINUTE: []},
            gap_free=(first, 30 * MINUTE),
        ),
    ]


def at_the_moment_of_expiry() -> list[Case]:
    """None of the three ends there, and the last begins: nobody is told that all is well, not for a moment."""
    expiry = 30 * MINUTE
    found = shown([scraped("pod", 0, HOUR)], lambda _: expiry)
    return [
        Case(
            alert=about.alert,
            situation=Situation.FIRES,
            name="at the moment of expiry",
            series=found,
            firing={HOUR: [fires(about.alert, WHERE)]},
            without_gap=(begins, HOUR),
            rules=RULES,
            interval_seconds=MINUTE,
        )
        for about in ALERTS
        for begins in [about.after + MINUTE + (0 if about.left else expiry)]
    ]


CASES = [*(case for about in ALERTS for case in cases(about)), *at_the_moment_of_expiry()]
