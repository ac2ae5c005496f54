"""Is the network hurting my DAGs right now?"""

from __future__ import annotations

from collections.abc import Callable

from grafana_foundation_sdk.models import dashboard

from grafana.asking import HALF_MINUTE, Ask, Column, failed_runs, most
from grafana.links import RUNBOOK_OF_CELL, RUNBOOK_OF_SERIES, from_cell, from_series
from grafana.look import (
    ANY_IS_BAD,
    BURN,
    GREEN,
    ORANGE,
    PART,
    QUORUM,
    RED,
    SHARE,
    as_total,
    between,
    coloured,
    coloured_causes,
    texts,
)
from grafana.page import Row, changes, page
from grafana.panels import WIDTH, lines, stat, states, table
from grafana.variables import RunbookAddress, chosen

WHERE = 'namespace=~"$namespace", dag_id=~"$dag_id"'
NAMESPACE = 'namespace=~"$namespace"'
PODS = f"netprobe:pods:count2m{{{WHERE}}}"
VERDICTS = "netprobe:diagnosis_pods:count2m"
HEALTHY = f'{VERDICTS}{{{WHERE}, cause="healthy"}}'
FAILING = f"netprobe:target_failing_pods:count2m{{{WHERE}}}"
PROBING = f"netprobe:target_pods:count2m{{{WHERE}}}"
DAG = "namespace, dag_id"
DAG_PODS = f'sum by ({DAG}) (netprobe:pods:count15m{{{WHERE}, dag_id!=""}})'
DAG_HEALTHY = f'sum by ({DAG}) (netprobe:diagnosis_pods:count15m{{{WHERE}, dag_id!="", cause="healthy"}})'
DAG_AFFECTED = f"({DAG_PODS} - ({DAG_HEALTHY} or 0 * {DAG_PODS}))"
DAG_VERDICTS = f'netprobe:diagnosis_pods:count15m{{{WHERE}, dag_id!="", cause!="healthy", cause=~"$cause"}}'
TARGET = "namespace, target"
BUDGET = f"on ({TARGET}) (1 - netprobe:target_objective:ratio)"


def burn(window: str) -> str:
    return f"netprobe:probe_errors:ratio{window}{{{NAMESPACE}}} / {BUDGET}"


def recent(of: Callable[[str], str]) -> str:
    """Of the last two minutes; of the last fifteen where no pod ran within two."""
    return f"{of('2m')} or ({of('15m')} unless on () {PODS})"


def affected(window: str) -> str:
    """The share of pods with a verdict other than healthy."""
    pods = f"sum(netprobe:pods:count{window}{{{WHERE}}})"
    healthy = f'sum(netprobe:diagnosis_pods:count{window}{{{WHERE}, cause="healthy"}})'
    return f"(({pods} - ({healthy} or vector(0))) / {pods})"


def cause(window: str) -> str:
    """What most pods name, or `healthy`, with 0, where none names anything."""
    verdicts = f'netprobe:diagnosis_pods:count{window}{{{WHERE}, cause!="healthy"}}'
    healthy = f'netprobe:diagnosis_pods:count{window}{{{WHERE}, cause="healthy"}}'
    return f"(topk(1, sum by (cause) ({verdicts})) or (0 * sum by (cause) ({healthy}) unless on () {verdicts}))"


def dags(window: str) -> str:
    """How many have a pod with a verdict other than healthy."""
    verdicts = f'netprobe:diagnosis_pods:count{window}{{{WHERE}, dag_id!="", cause!="healthy"}}'
    return f"count(max by ({DAG}) ({verdicts}) > 0)"


def _verdicts_of_some(offset: str) -> str:
    return (
        f'sum by (namespace, cause) ({VERDICTS}{{{WHERE}, cause!="healthy", cause=~"$cause"}}{offset})'
        f" / on (namespace) group_left () sum by (namespace) ({PODS}{offset}) >= {PART}"
    )


def _now() -> Row:
    return Row(
        title="Now",
        panels=(
            stat(
                "Is the network hurting my DAGs?",
                "By the share of the pods of the last two minutes (of the last fifteen, where none ran since) for "
                "which netprobe has a verdict other than healthy: none, less than a quarter, or more, which is where "
                "alerts begin.",
                recent(affected),
                unit="percentunit",
                steps=SHARE,
                mappings=[
                    texts({"0": ("No", GREEN)}),
                    between(0.000001, 0.249999, "For some pods", ORANGE),
                    between(0.25, 1, "Yes", RED),
                ],
                no_value="No pod has reported",
                width=6,
                height=5,
            ),
            stat(
                "Most frequent cause",
                "The cause that most pods name. Its section in the runbook is one click away.",
                recent(cause),
                steps=ANY_IS_BAD,
                named_by="cause",
                no_value="No pod has reported",
                links=[RUNBOOK_OF_SERIES],
                width=6,
                height=5,
            ),
            stat(
                "Pods affected",
                "Share of the pods of the last two minutes, or else fifteen, that have a verdict other than healthy.",
                recent(affected),
                unit="percentunit",
                steps=SHARE,
                decimals=0,
                no_value="No pod",
                width=3,
                height=5,
            ),
            stat(
                "DAGs affected",
                "DAGs with at least one such pod.",
                f"{recent(dags)} or vector(0)",
                steps=ANY_IS_BAD,
                width=3,
                height=5,
            ),
            stat(
                "Targets failing",
                "Targets that fail for at least one pod.",
                f"count(max by ({TARGET}) ({FAILING}) > 0) or vector(0)",
                steps=ANY_IS_BAD,
                width=3,
                height=5,
            ),
            stat(
                "Budget burn",
                "How fast the error budget of the worst target burns: errors of the last hour compared with what its "
                "objective allows. At 1 the budget lasts as long as it is meant to, at 14.4 an alert pages. Of all "
                "DAGs.",
                f"max({burn('1h')})",
                steps=BURN,
                decimals=1,
                no_value="No target",
                width=3,
                height=5,
            ),
        ),
    )


def _verdicts() -> Row:
    return Row(
        title="Verdicts",
        panels=(
            lines(
                "Pods by cause",
                "How many pods name each cause: the most at once since the point before. A pod that has two causes "
                "counts for both, one without a result yet for none. A click on a series shows the runbook.",
                Ask(expr=most(f'sum by (cause) ({VERDICTS}{{{WHERE}, cause=~"$cause"}})'), legend="{{cause}}"),
                stacked=True,
                overrides=coloured_causes(),
                links=[RUNBOOK_OF_SERIES],
                decimals=0,
                step=HALF_MINUTE,
                width=16,
            ),
            lines(
                "Share of pods affected",
                "Pods with a verdict other than healthy, of all that have one. Alerts begin at a quarter.",
                Ask(
                    expr=f"(sum by (namespace) ({PODS}) - (sum by (namespace) ({HEALTHY}) or "
                    f"0 * sum by (namespace) ({PODS}))) / sum by (namespace) ({PODS})",
                    legend="{{namespace}}",
                ),
                unit="percentunit",
                maximum=1,
                steps=QUORUM,
                step=HALF_MINUTE,
                width=8,
            ),
            states(
                "DAGs over time",
                "Share of each DAG's pods of the last fifteen minutes that have a verdict other than healthy. No bar "
                "where no pod of the DAG ran.",
                Ask(expr=f"{DAG_AFFECTED} / {DAG_PODS}", legend="{{dag_id}}"),
                unit="percentunit",
                steps=((None, GREEN), (0.000001, ORANGE), (0.5, RED)),
                mappings=[texts({"0": ("healthy", GREEN)})],
                links=[from_series("The task", "netprobe-task", "namespace", "dag_id")],
            ),
        ),
    )


def _worst() -> Row:
    return Row(
        title="Who suffers, and from what",
        panels=(
            table(
                "Worst targets",
                "Every target that pods probe, the worst first: for which share of its pods it fails now, how many "
                "runs failed in the time range, and what is left of the error budget of three days. Budgets are of "
                "all DAGs.",
                Column(
                    expr=f"sum by ({TARGET}) ({FAILING}) / sum by ({TARGET}) ({PROBING})",
                    name="fails for",
                    unit="percentunit",
                    steps=SHARE,
                    decimals=0,
                ),
                Column(expr=f"sum by ({TARGET}) ({PROBING})", name="pods", unit="short"),
                Column(
                    expr=f"sum by ({TARGET}) (sum_over_time("
                    f'netprobe:probes:increase1m{{{WHERE}, result="failure"}}[$__range]))',
                    name="failed runs",
                    unit="none",
                    decimals=0,
                ),
                Column(
                    expr=f"1 - {burn('3d')}",
                    name="budget left",
                    unit="percentunit",
                    steps=((None, RED), (0, ORANGE), (0.25, GREEN)),
                    decimals=0,
                ),
                labels={
                    "namespace": (),
                    "target": [from_cell("What is wrong with it?", "netprobe-target", "namespace", "target")],
                },
                sort="fails for",
                width=12,
                height=10,
            ),
            table(
                "Affected DAGs",
                "Every DAG that had a pod within fifteen minutes before the end of the time range, the worst first, "
                "with the cause that most of its pods name.",
                Column(
                    expr=f"{DAG_AFFECTED} / {DAG_PODS}",
                    name="affected",
                    unit="percentunit",
                    steps=((None, GREEN), (0.000001, ORANGE), (0.5, RED)),
                    decimals=0,
                ),
                Column(expr=DAG_PODS, name="pods", unit="short"),
                Column(
                    expr=f"topk by ({DAG}) (1, sum by ({DAG}, cause) ({DAG_VERDICTS}))"
                    f' or label_replace({DAG_HEALTHY} unless on ({DAG}) {DAG_VERDICTS}, "cause", "healthy", "", "")',
                    name=None,
                ),
                labels={
                    "namespace": (),
                    "dag_id": [from_cell("What happened to it?", "netprobe-task", "namespace", "dag_id")],
                    "cause": [RUNBOOK_OF_CELL],
                },
                sort="affected",
                width=12,
                height=10,
            ),
        ),
    )


def _starts() -> Row:
    started, held, in_vain, not_ready = (
        f"sum(netprobe:{what}_pods:count15m{{{NAMESPACE}}}) or vector(0)"
        for what in ("started", "gate_held", "gate_timed_out", "network_not_ready")
    )
    return Row(
        title="How pods start",
        panels=(
            lines(
                "Pods that start",
                "Pods that started within a quarter of an hour: all of them; those that were held back for more than "
                "five seconds until the targets that are gates answered; those that were let go although not all had; "
                "and those that had no network in their first seconds (`network_not_ready`). Of all DAGs. Alerts begin "
                "at a quarter.",
                Ask(expr=started, legend="started"),
                Ask(expr=held, legend="held back"),
                Ask(expr=in_vain, legend="let go in vain"),
                Ask(expr=not_ready, legend="no network at first"),
                overrides=[
                    as_total("started"),
                    *coloured({"held back": "yellow", "let go in vain": RED, "no network at first": ORANGE}),
                ],
                decimals=0,
                width=WIDTH,
                height=6,
            ),
        ),
    )


def _failures() -> Row:
    return Row(
        title="Failures and budgets",
        panels=(
            lines(
                "Failed runs a minute, by phase and reason",
                "What went wrong on the wire. `all` counts every failed run.",
                failed_runs(WHERE),
                shades=RED,
                overrides=[as_total("all")],
            ),
            lines(
                "Burn of error budgets, the fastest ten",
                "Errors of the last hour compared with what each target's objective allows. At 14.4 (with the last "
                "five minutes alike) an alert pages. Of all DAGs.",
                Ask(expr=f"topk(10, {burn('1h')})", legend="{{target}} ({{namespace}})"),
                ranked=True,
                steps=((None, GREEN), (6, ORANGE), (14.4, RED)),
                decimals=1,
                links=[from_series("What is wrong with it?", "netprobe-target", "namespace", "target")],
            ),
        ),
    )


def make() -> dashboard.Dashboard:
    return page(
        "netprobe-fleet",
        "The first look: what netprobe's sidecars say of the network, whom it hurts, and where to look next.",
        _now(),
        _verdicts(),
        _worst(),
        _starts(),
        _failures(),
        variables=[
            chosen("namespace", "Namespace", "netprobe:pods:count2m", "Where the pods run."),
            chosen("dag_id", "DAG", f"netprobe:pods:count15m{{{NAMESPACE}}}", "Whose pods: every number but budgets."),
            chosen("cause", "Cause", f"{VERDICTS}{{{NAMESPACE}}}", "Narrows down who suffers, and from what."),
            RunbookAddress(),
        ],
        annotations=[changes("Verdicts", _verdicts_of_some, what="cause", text="in {{namespace}}")],
        since="1h",
        refresh="30s",
    )
