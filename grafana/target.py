"""What is wrong with this target?"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from grafana.asking import HALF_MINUTE, Ask, Column, a_minute, failed_runs, most
from grafana.links import RUNBOOK_OF_SERIES, from_cell
from grafana.look import (
    ANY_IS_BAD,
    BURN,
    GREEN,
    GREY,
    ORANGE,
    PART,
    RED,
    SHARE,
    as_limit,
    as_total,
    coloured,
    coloured_causes,
    texts,
)
from grafana.page import Row, changes, page
from grafana.panels import heatmap, lines, stat, table
from grafana.variables import RunbookAddress, chosen

WHERE = 'namespace=~"$namespace", target="$target"'
FAILING = f"netprobe:target_failing_pods:count2m{{{WHERE}}}"
PROBING = f"netprobe:target_pods:count2m{{{WHERE}}}"
CAUSES = f"netprobe:target_diagnosis_pods:count2m{{{WHERE}}}"
CONCERNED = f"((sum({CAUSES}) > sum({FAILING})) or sum({FAILING}))"
"""Pods for which something is the matter with it. Some have a cause though it answers (`slow`), some none yet."""
EXPIRY = f"netprobe:tls_certificate_expiry_timestamp_seconds:last8d{{{WHERE}}}"
OBJECTIVE = f"netprobe:target_objective:ratio{{{WHERE}}}"
SUCCESSES = f"netprobe:target_success:sum1m{{{WHERE}}}"
LOOKS = f"netprobe:target_success:count1m{{{WHERE}}}"
BUCKETS = f"netprobe:probe_duration_seconds_bucket:increase1m{{{WHERE}}}"
DAG = "namespace, dag_id"
DAY = 86_400
PHASES = {
    "resolve": "purple",
    "connect": "blue",
    "proxy": "light-blue",
    "tls": "yellow",
    "login": "dark-orange",
    "request": "orange",
    "transfer": "green",
}
"""Colours, in the order of a run."""


def availability(window: str) -> str:
    return f"sum(sum_over_time({SUCCESSES}[{window}])) / sum(sum_over_time({LOOKS}[{window}]))"


def mean(phase: str = "") -> str:
    sums, counts = (
        f"sum by (phase) (sum_over_time(netprobe:phase_duration_seconds_{part}:increase1m{{{WHERE}{phase}}}"
        "[$__rate_interval]))"
        for part in ("sum", "count")
    )
    return f"{sums} / ({counts} > 0)"


def _verdicts_of_some(offset: str) -> str:
    return (
        f"sum by (namespace, cause) ({CAUSES}{offset})"
        f" / on (namespace) group_left () sum by (namespace) ({PROBING}{offset}) >= {PART}"
    )


def _now() -> Row:
    return Row(
        title="Now",
        panels=(
            stat(
                "Fails for",
                "Share of the pods of the last two minutes that probe this target and whose last run failed.",
                f"sum({FAILING}) / sum({PROBING})",
                unit="percentunit",
                steps=SHARE,
                mappings=[texts({"0": ("nobody", GREEN)})],
                decimals=0,
                no_value="no pod probes it",
            ),
            stat(
                "Cause",
                "What most of these pods say is the reason. Its section in the runbook is one click away.",
                f"topk(1, sum by (cause) ({CAUSES}))"
                f' or label_replace((sum({FAILING}) == 0) unless on () {CAUSES}, "cause", "healthy", "", "")'
                f' or label_replace((sum({FAILING}) > 0) unless on () {CAUSES}, "cause", "no verdict yet", "", "")',
                steps=ANY_IS_BAD,
                named_by="cause",
                no_value="no pod probes it",
                links=[RUNBOOK_OF_SERIES],
                width=6,
            ),
            stat(
                "Availability",
                "Of all the times a pod was looked at within the time range, in how many its last run had succeeded.",
                availability("$__range"),
                unit="percentunit",
                steps=((None, RED), (0.99, ORANGE), (0.999, GREEN)),
                decimals=2,
                width=3,
                no_value="no pod probed it",
            ),
            stat(
                "Objective",
                "What share of the time it is meant to answer.",
                f"max({OBJECTIVE})",
                unit="percentunit",
                decimals=2,
                width=3,
                no_value="none yet",
            ),
            stat(
                "Burn of the budget",
                "Errors of the last hour compared with what the objective allows: at 1 the budget lasts as long as it "
                "is meant to, at 14.4 an alert pages.",
                f"max(netprobe:probe_errors:ratio1h{{{WHERE}}} / on (namespace, target) (1 - {OBJECTIVE}))",
                steps=BURN,
                decimals=1,
                no_value="none yet",
            ),
            stat(
                "Last success",
                "How long ago the last successful run ended, of any pod that was there within the time range.",
                f"time() - max(last_over_time(netprobe_last_success_timestamp_seconds{{{WHERE}}}[$__range]))",
                unit="s",
                steps=((None, GREEN), (120, ORANGE), (600, RED)),
                decimals=0,
                no_value="none in this time",
            ),
        ),
    )


def _over_time() -> Row:
    return Row(
        title="Since when, and why",
        panels=(
            lines(
                "Availability over time",
                "Of all the times a pod was looked at, in how many its last run had succeeded, beside the objective.",
                Ask(expr=availability("$__rate_interval"), legend="available"),
                Ask(expr=f"max({OBJECTIVE})", legend="objective"),
                unit="percentunit",
                maximum=1,
                overrides=[*coloured({"available": GREEN}), as_limit("objective", ORANGE)],
                minimum=None,
            ),
            lines(
                "Pods by cause",
                "How many pods name each cause for this target, and for how many it answers and is not slow: the "
                "most at once since the point before. A click on a series shows the runbook.",
                Ask(
                    expr=most(
                        f"sum by (cause) ({CAUSES})"
                        f' or label_replace(sum({PROBING}) - {CONCERNED}, "cause", "healthy", "", "")'
                    ),
                    legend="{{cause}}",
                ),
                stacked=True,
                overrides=coloured_causes(),
                links=[RUNBOOK_OF_SERIES],
                decimals=0,
                step=HALF_MINUTE,
            ),
        ),
    )


def _latency() -> Row:
    return Row(
        title="How long it takes",
        panels=(
            heatmap(
                "Duration of successful runs",
                "How many runs took how long. The edges at 4.5 and 5.5 seconds isolate the five a resolver waits "
                "before it asks again. Empty with `metrics.detail: low` but for one row.",
                Ask(expr=f"sum by (le) (sum_over_time({BUCKETS}[$__interval]))", legend="{{le}}"),
                unit="s",
            ),
            lines(
                "Phases, stacked",
                "Mean time of each phase, of runs that reached it, failed ones included: where the time goes.",
                Ask(expr=mean(), legend="{{phase}}"),
                unit="s",
                stacked=True,
                overrides=coloured(PHASES),
            ),
            lines(
                "Duration, quantiles",
                "Half, nineteen of twenty and 99 of a hundred successful runs took no longer, as well as the buckets "
                "tell. A gap where no run succeeded.",
                *(
                    Ask(
                        expr=f"histogram_quantile({quantile}, "
                        f"sum by (le) (sum_over_time({BUCKETS}[$__rate_interval])))",
                        legend=name,
                    )
                    for quantile, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))
                ),
                unit="s",
                width=8,
            ),
            lines(
                "Time to resolve the name",
                "Mean of the phase `resolve`. Five seconds and more are a nameserver that does not answer the first "
                "time.",
                Ask(expr=mean(', phase="resolve"'), legend="resolve"),
                unit="s",
                steps=((None, GREEN), (1, ORANGE), (5, RED)),
                no_value="an address: there is no name to resolve",
                width=8,
            ),
            lines(
                "DNS messages per lookup",
                "What targets of type dns had to send for one question, at most and on average: more than two are a "
                "walk through a search list, or retries.",
                Ask(expr=f"max(max_over_time(netprobe_dns_queries_per_lookup{{{WHERE}}}[$__interval]))", legend="most"),
                Ask(expr=f"avg(avg_over_time(netprobe_dns_queries_per_lookup{{{WHERE}}}[$__interval]))", legend="mean"),
                no_value="not a target of type dns",
                width=8,
            ),
        ),
    )


def _failures() -> Row:
    failures = f'netprobe:probes:increase1m{{{WHERE}, result="failure"}}'
    return Row(
        title="What goes wrong",
        panels=(
            lines(
                "Failed runs a minute, by phase and reason",
                "In which phase runs failed, and why. `all` counts every failed run.",
                failed_runs(WHERE),
                shades=RED,
                overrides=[as_total("all")],
            ),
            lines(
                "Runs a minute",
                "By their result. More runs while it fails: each failure is confirmed by a few more.",
                Ask(expr=a_minute(f"netprobe:probes:increase1m{{{WHERE}}}", "result"), legend="{{result}}"),
                stacked=True,
                bars=True,
                overrides=coloured({"success": GREEN, "failure": RED}),
            ),
            table(
                "Who sees it fail",
                "Each DAG whose pods probe this target: for which share of them it fails, and how many runs failed in "
                "the time range. One DAG alone points at the pod: its policies, its proxy, its credentials.",
                Column(
                    expr=f"sum by ({DAG}) ({FAILING}) / sum by ({DAG}) ({PROBING})",
                    name="fails for",
                    unit="percentunit",
                    steps=SHARE,
                    decimals=0,
                ),
                Column(expr=f"sum by ({DAG}) ({PROBING})", name="pods"),
                Column(
                    expr=f"sum by ({DAG}) (sum_over_time({failures}[$__range]))",
                    name="failed runs",
                    unit="none",
                    decimals=0,
                ),
                labels={
                    "namespace": (),
                    "dag_id": [from_cell("What happened to it?", "netprobe-task", "namespace", "dag_id")],
                },
                sort="fails for",
            ),
            lines(
                "HTTP status",
                "Which status how many pods got last. `none`: no answer, or not a target of type http.",
                Ask(
                    expr=f'count_values("status", last_over_time(netprobe_http_status_code{{{WHERE}}}[2m]))'
                    f" or label_replace(sum({PROBING})"
                    f" - (count(last_over_time(netprobe_http_status_code{{{WHERE}}}[2m])) or vector(0)),"
                    ' "status", "none", "", "")',
                    legend="{{status}}",
                ),
                stacked=True,
                overrides=coloured({"200": GREEN, "none": GREY}),
                decimals=0,
            ),
        ),
    )


def _identity() -> Row:
    return Row(
        title="What it is",
        panels=(
            stat(
                "Certificate expires in",
                "The earliest expiry in the chain that the server showed last to any pod, within eight days before "
                "the end of the time range. Below zero it has expired.",
                f"min({EXPIRY}) - time()",
                unit="s",
                steps=((None, RED), (3 * DAY, ORANGE), (21 * DAY, GREEN)),
                decimals=1,
                no_value="it showed none",
                width=6,
            ),
            table(
                "Target",
                "What the configuration of the pods that are scraped says it is. Different addresses under one name "
                "are different things: give them names of their own.",
                Column(
                    expr="topk(50, count by (namespace, target, type, scope, role, address) "
                    f"(last_over_time(netprobe_target_info{{{WHERE}}}[$__range])))",
                    name="pods",
                ),
                labels=dict.fromkeys(("namespace", "target", "type", "scope", "role", "address"), ()),
                sort="pods",
                width=18,
                height=4,
            ),
        ),
    )


def make() -> dashboard.Dashboard:
    return page(
        "netprobe-target",
        "One target, as all pods together see it: since when, for whom, in which phase and why it fails or is slow.",
        _now(),
        _over_time(),
        _latency(),
        _failures(),
        _identity(),
        variables=[
            chosen("namespace", "Namespace", "netprobe:target_pods:count2m", "Where the pods run."),
            chosen(
                "target",
                "Target",
                'netprobe:target_pods:count2m{namespace=~"$namespace"}',
                "Its name in the configuration of the pods.",
                several=False,
            ),
            RunbookAddress(),
        ],
        annotations=[changes("Verdicts", _verdicts_of_some, what="cause", text="in {{namespace}}")],
        since="3h",
        refresh="1m",
    )
