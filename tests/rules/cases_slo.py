"""Error budgets: the alerts of netprobe-slo.yaml, on recorded ratios, and once each on what pods say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.rules.gauges import Text, fires
from tests.rules.pods import Says, all_series, scraped, short_lived
from tests.rules.promtool import GRID_SECONDS, STALE, Case, Firing, Points, Series, Situation, series

MINUTE, HOUR = 60, 3600
WHERE = {"namespace": "airflow", "target": "ledger"}
FAST, SLOW = "NetprobeErrorBudgetBurnFast", "NetprobeErrorBudgetBurnSlow"
RULES = ("netprobe-slo.yaml",)
RECORDED = ("netprobe-recording.yaml", *RULES)
UNTIL = HOUR


def always(value: float, until: int = UNTIL, *, ended: int | None = None) -> Points:
    """A value that is recorded each half minute."""
    points: dict[int, float] = dict.fromkeys(range(0, until + GRID_SECONDS, 30), value)
    return points if ended is None else {**points, ended: STALE}


def errors(ratios: Mapping[str, float | Points]) -> list[Series]:
    """The share of errors by window."""
    return [
        series(f"netprobe:probe_errors:ratio{window}", WHERE, always(ratio) if isinstance(ratio, float) else ratio)
        for window, ratio in ratios.items()
    ]


def failing(*pods: float, until: int = UNTIL, probe: float = 4) -> list[Series]:
    """How many pods of each DAG see it fail, and how many of each probe it."""
    return [
        one
        for i, n in enumerate(pods)
        for one in (
            series("netprobe:target_failing_pods:count2m", {**WHERE, "dag_id": f"dag-{i}"}, always(n, until)),
            series("netprobe:target_pods:count2m", {**WHERE, "dag_id": f"dag-{i}"}, always(probe, max(until, UNTIL))),
        )
    ]


def objective(ratio: float = 0.99, until: int = UNTIL) -> list[Series]:
    return [series("netprobe:target_objective:ratio", WHERE, always(ratio, until))]


def case(
    alert: str,
    situation: Situation,
    name: str,
    found: Sequence[Series],
    firing: Mapping[int, Sequence[Firing]] | None = None,
) -> Case:
    """On recorded series. Nothing fires where nothing is said to."""
    return Case(
        alert=alert,
        situation=situation,
        name=name,
        series=found,
        firing=firing or {UNTIL: []},
        never_from=None if firing else 0,
        interval_seconds=MINUTE,
        rules=RULES,
    )


def on_ratios(alert: str, windows: Mapping[tuple[str, str], float], *, quorum: int, after: int) -> list[Case]:
    """Whatever pair of windows, by its short and its long one, is over so many errors that it matters."""
    everything: dict[str, float | Points] = {name: 0.0 for pair in windows for name in pair}
    firing = [fires(alert, WHERE)]
    found = []
    for (short, long), limit in windows.items():
        over = limit + 0.001
        pair = f"{short} and {long}"
        found += [
            case(
                alert,
                Situation.FIRES,
                pair,
                [*errors({**everything, short: over, long: over}), *objective(), *failing(quorum)],
                {0: [], after - MINUTE: [], after: firing, UNTIL: firing},
            ),
            case(
                alert,
                Situation.FIRES,
                f"{pair}, another objective",
                [*errors({**everything, short: over / 10, long: over / 10}), *objective(0.999), *failing(quorum)],
                {after: firing},
            ),
            case(
                alert,
                Situation.BELOW,
                f"{pair}, just within",
                [*errors({**everything, short: limit, long: limit}), *objective(), *failing(quorum)],
            ),
            case(
                alert,
                Situation.BELOW,
                f"{pair}, long ago",
                [*errors({**everything, short: limit, long: 0.9}), *objective(), *failing(quorum)],
            ),
            case(
                alert,
                Situation.BELOW,
                f"{pair}, a moment",
                [*errors({**everything, short: 0.9, long: limit}), *objective(), *failing(quorum)],
            ),
            case(
                alert,
                Situation.BELOW,
                f"{pair}, {quorum - 1} pods",
                [*errors({**everything, short: 0.9, long: 0.9}), *objective(), *failing(quorum - 1)],
            ),
            case(
                alert,
                Situation.RESOLVES,
                f"{pair}, it works again",
                [
                    *errors(
                        {
                            **everything,
                            short: {second: 0.9 if second < HOUR / 2 else limit for second in range(0, HOUR + 5, 30)},
                            long: 0.9,
                        }
                    ),
                    *objective(),
                    *failing(quorum),
                ],
                {HOUR // 2 - MINUTE: firing, HOUR // 2 + MINUTE: []},
            ),
            case(
                alert,
                Situation.MISSING,
                f"{pair}, nobody looks any more",
                [
                    *errors({**everything, short: always(0.9, HOUR // 2, ended=HOUR // 2 + 30), long: 0.9}),
                    *objective(),
                    *failing(quorum),
                ],
                {HOUR // 2: firing, HOUR // 2 + MINUTE: []},
            ),
        ]
    high: dict[str, float | Points] = {name: 0.9 for pair in windows for name in pair}
    return [
        *found,
        case(
            alert,
            Situation.FIRES,
            "the pods are of several DAGs",
            [*errors(high), *objective(), *failing(*[1] * quorum)],
            {after: firing},
        ),
        case(
            alert,
            Situation.FIRES,
            "two pods of two",
            [*errors(high), *objective(), *failing(2, probe=2)],
            {after: firing},
        ),
        case(
            alert,
            Situation.BELOW,
            "the only pod",
            [*errors(high), *objective(), *failing(1, probe=1)],
        ),
        case(alert, Situation.MISSING, "no objective", [*errors(high), *failing(quorum)]),
        case(alert, Situation.MISSING, "no pod", [*errors(high), *objective()]),
    ]


def remembered() -> Case:
    """Pods that come now and then see it fail one after the other."""
    high: dict[str, float | Points] = dict.fromkeys(("5m", "1h", "30m", "6h"), 0.9)
    firing = [fires(FAST, WHERE)]
    return case(
        FAST,
        Situation.RESOLVES,
        "half an hour after the pods that saw it",
        [*errors(high), *objective(), *failing(3, until=MINUTE)],
        {30 * MINUTE: firing, 33 * MINUTE: []},
    )


def says(second: int) -> Says:
    return Says(targets={"ledger": "nothing_listening"} if second < 20 * MINUTE else {"ledger": None})


def on_pods() -> list[Case]:
    """From what pods say to the alert, by way of all that is recorded."""
    several = [scraped(f"pod-{index}", 5, 25 * MINUTE, dag_id=f"dag-{index % 2}") for index in range(4)]
    seen = [*all_series(several[:3], lambda _: says(0), counters=True), *several[3].series(lambda _: says(HOUR))]
    dashboard = "netprobe-target?var-namespace=airflow&var-target=ledger"
    fast = Text(
        "ledger in namespace airflow uses up its error budget 75.0 times as fast as it may.",
        "75% of all looks within the last five minutes found it failing, 75% within six hours. 1% is what its "
        "objective allows. 3 of 4 pods see it fail now. It fails mostly with connect/refused. DAGs: dag-0, dag-1.",
        "netprobeerrorbudgetburnfast",
        dashboard,
    )
    slow = Text(
        "ledger in namespace airflow fails more often than its objective allows: 75.0 times as often.",
        "75% of all looks within a day found it failing, 75% within three days. 1% is what its objective allows. It "
        "failed mostly with connect/refused.",
        "netprobeerrorbudgetburnslow",
        dashboard,
    )
    found = [
        Case(
            alert=alert,
            situation=Situation.FIRES,
            name="what it says",
            series=seen,
            firing={at: [fires(alert, WHERE, text)]},
            rules=RECORDED,
            interval_seconds=MINUTE,
        )
        for alert, text, at in ((FAST, fast, 10 * MINUTE), (SLOW, slow, 24 * MINUTE))
    ]
    # The page holds for as long as half an hour remembers, the ticket for as long as six hours do.
    coming_and_going = all_series(short_lived(0, 54 * MINUTE), says)
    return [
        *found,
        Case(
            alert=FAST,
            situation=Situation.SHORT_PODS,
            series=coming_and_going,
            firing={20 * MINUTE: [fires(FAST, WHERE)], 54 * MINUTE: []},
            without_gap=(6 * MINUTE, 20 * MINUTE),
            rules=RECORDED,
            interval_seconds=MINUTE,
        ),
        Case(
            alert=SLOW,
            situation=Situation.SHORT_PODS,
            series=coming_and_going,
            firing={30 * MINUTE: [fires(SLOW, WHERE)], 6 * HOUR: [fires(SLOW, WHERE)], 8 * HOUR: []},
            without_gap=(20 * MINUTE, 6 * HOUR),
            rules=RECORDED,
            interval_seconds=MINUTE,
        ),
    ]


CASES = [
    *on_ratios(FAST, {("5m", "1h"): 0.144, ("30m", "6h"): 0.06}, quorum=3, after=2 * MINUTE),
    remembered(),
    *on_ratios(SLOW, {("2h", "1d"): 0.03, ("6h", "3d"): 0.01}, quorum=2, after=15 * MINUTE),
    *on_pods(),
]
