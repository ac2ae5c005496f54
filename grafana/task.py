"""What happened to this task?

Pods that are scraped say of which run they are (`netprobe_task_info`), pods that push do not. So a run is chosen by its
pods: the variable `pod` lists those of the run, or, of all runs, also those that only pushed. No query joins by pod.
"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from grafana.asking import HALF_MINUTE, Ask, Column, most
from grafana.links import RUNBOOK_OF_SERIES, Link, from_cell, from_series
from grafana.look import ANY_IS_BAD, GREEN, ORANGE, RED, between, coloured_causes, texts
from grafana.page import Row, changes, page
from grafana.panels import lines, stat, states, table
from grafana.variables import RunbookAddress, chosen

NAMESPACE = 'namespace=~"$namespace"'
DAG = f'{NAMESPACE}, dag_id="$dag_id"'
TASK = f'{DAG}, task_id=~"$task_id"'
WHERE = f'{NAMESPACE}, pod=~"$pod"'
POD = "namespace, pod"
SEEN = f"count by ({POD}) (last_over_time(netprobe_event_loop_lag_seconds{{{WHERE}}}[$__range]))"
"""Every pod that was scraped or has pushed: each agent has this series from its start."""
VERDICTS = f'max_over_time(netprobe_diagnosis{{{WHERE}, cause!="healthy"}}[$__range]) == 1'
FAILED_RUNS = f'last_over_time(netprobe_probes_total{{{WHERE}, result="failure"}}[$__range])'
GATE = f"last_over_time(netprobe_startup_gate_seconds{{{WHERE}}}[$__range])"
HURT = f"(count(count by ({POD}) ({VERDICTS})) or vector(0))"
ROWS = 200
"""Pods in the table at most."""
THIS_POD = Link(
    title="Only this pod",
    url="/d/netprobe-task?${datasource:queryparam}&${__url_time_range}&${namespace:queryparam}&${dag_id:queryparam}"
    "&var-pod=${__data.fields.pod:percentencode}",
)
THIS_RUN = Link(
    title="Only this run",
    url="/d/netprobe-task?${datasource:queryparam}&${__url_time_range}&${namespace:queryparam}&${dag_id:queryparam}"
    "&var-run_id=${__data.fields.run_id:percentencode}",
)


def _verdicts_of_the_dag(offset: str) -> str:
    return f'sum by (cause) (netprobe:diagnosis_pods:count2m{{{TASK}, cause!="healthy"}}{offset})'


def _answer() -> Row:
    return Row(
        title="In short",
        panels=(
            stat(
                "Did the network hurt it?",
                "By the share of its pods within the time range that have had a verdict other than healthy.",
                f"{HURT} / count({SEEN})",
                unit="percentunit",
                steps=((None, GREEN), (0.000001, ORANGE), (0.5, RED)),
                mappings=[
                    texts({"0": ("No", GREEN)}),
                    between(0.000001, 0.499999, "Some of its pods", ORANGE),
                    between(0.5, 1, "Yes", RED),
                ],
                no_value="No pod was seen",
                width=5,
            ),
            stat(
                "Most frequent cause",
                "The cause that most of its pods have named. Its section in the runbook is one click away.",
                f"topk(1, count by (cause) ({VERDICTS}))"
                f' or label_replace(0 * count({SEEN}) unless on () ({VERDICTS}), "cause", "healthy", "", "")',
                steps=ANY_IS_BAD,
                named_by="cause",
                no_value="No pod was seen",
                links=[RUNBOOK_OF_SERIES],
                width=5,
            ),
            stat(
                "Pods seen",
                "Pods of this choice that were scraped or have pushed.",
                f"count({SEEN}) or vector(0)",
                width=2,
            ),
            stat(
                "With a verdict",
                "Pods that have had a verdict other than healthy.",
                HURT,
                steps=ANY_IS_BAD,
                width=3,
            ),
            stat(
                "Failed runs",
                "Runs of all targets that have failed, since each of these pods began.",
                f"sum({FAILED_RUNS}) or vector(0)",
                unit="none",
                steps=((None, GREEN), (1, ORANGE)),
                width=3,
            ),
            stat(
                "Longest start gate",
                "How long a pod's start was held back at most, until the targets that are gates answered. 0 where "
                "none was held back.",
                f"max({GATE}) or vector(0)",
                unit="s",
                steps=((None, GREEN), (5, ORANGE), (10, RED)),
                decimals=1,
                width=3,
            ),
            stat(
                "Gates timed out",
                "Pods that were let go although not all their gates had answered.",
                f"sum(last_over_time(netprobe_startup_gate_timed_out{{{WHERE}}}[$__range])) or vector(0)",
                steps=ANY_IS_BAD,
                width=3,
            ),
        ),
    )


def _timeline() -> Row:
    return Row(
        title="When",
        panels=(
            states(
                "Verdicts of its pods",
                "A bar for each pod and each cause that it names, while it does. A pod of a few seconds has a bar of "
                "one step, whether it was scraped or has pushed. At most sixty at a time, verdicts before healthy.",
                Ask(
                    expr="topk(60, max by (pod, cause) ("
                    f'2 * max_over_time(netprobe_diagnosis{{{WHERE}, cause!="healthy"}}[$__interval]) == 2'
                    f' or max_over_time(netprobe_diagnosis{{{WHERE}, cause="healthy"}}[$__interval]) == 1))',
                    legend="{{pod}} {{cause}}",
                ),
                unit="short",
                steps=((None, GREEN), (2, RED)),
                mappings=[texts({"1": ("healthy", GREEN), "2": ("verdict", RED)})],
                links=[RUNBOOK_OF_SERIES],
                height=10,
            ),
            lines(
                "Pods for which a target fails",
                "Of the chosen pods, by target. A click on a series leads to the target.",
                Ask(
                    expr="sum by (namespace, target) "
                    f"(1 - min_over_time(netprobe_probe_success{{{WHERE}}}[$__interval]))",
                    legend="{{target}}",
                ),
                decimals=0,
                links=[from_series("What is wrong with it?", "netprobe-target", "namespace", "target")],
            ),
            lines(
                "All pods of the DAG, by cause",
                "For comparison: every pod of the DAG and the chosen tasks, of whatever run, and the most at once "
                "since the point before.",
                Ask(expr=most(f"sum by (cause) (netprobe:diagnosis_pods:count2m{{{TASK}}})"), legend="{{cause}}"),
                stacked=True,
                overrides=coloured_causes(),
                links=[RUNBOOK_OF_SERIES],
                decimals=0,
                step=HALF_MINUTE,
                no_value="no pod says that it belongs to this DAG",
            ),
        ),
    )


def _targets() -> Row:
    return Row(
        title="Which targets, and why",
        panels=(
            table(
                "Targets",
                "What the chosen pods probe, the worst first: how many of them ever saw it fail, and how many runs "
                "failed since each of them began.",
                Column(
                    expr=f"sum by (namespace, target) (1 - min_over_time(netprobe_probe_success{{{WHERE}}}[$__range]))",
                    name="failed for",
                    steps=ANY_IS_BAD,
                    decimals=0,
                ),
                Column(
                    expr=f"count by (namespace, target) (last_over_time(netprobe_probe_success{{{WHERE}}}[$__range]))",
                    name="pods",
                ),
                Column(expr=f"sum by (namespace, target) ({FAILED_RUNS})", name="failed runs", unit="none", decimals=0),
                labels={
                    "namespace": (),
                    "target": [from_cell("What is wrong with it?", "netprobe-target", "namespace", "target")],
                },
                sort="failed for",
            ),
            table(
                "Why runs failed",
                "Failed runs of the chosen pods since each of them began, by the phase in which they failed and the "
                "reason. `none` where none failed.",
                Column(
                    expr="sum by (namespace, target, phase, reason) "
                    f"(last_over_time(netprobe_probe_failures_total{{{WHERE}}}[$__range]))"
                    f' or label_replace(sum by (namespace, target) ({FAILED_RUNS}) == 0, "reason", "none", "", "")',
                    name="failed runs",
                    unit="none",
                    steps=ANY_IS_BAD,
                    decimals=0,
                ),
                labels={
                    "namespace": (),
                    "target": [from_cell("What is wrong with it?", "netprobe-target", "namespace", "target")],
                    "phase": (),
                    "reason": (),
                },
                sort="failed runs",
            ),
        ),
    )


def _pods() -> Row:
    return Row(
        title="Its pods",
        panels=(
            table(
                "Pods",
                "Every chosen pod, those with most verdicts first. Run, try and map index are known of pods that are "
                f"scraped. At most {ROWS} of each column: choose a run or a shorter time range.",
                Column(
                    expr=f"topk({ROWS}, count by ({POD}) ({VERDICTS}) or 0 * {SEEN})",
                    name="causes",
                    steps=ANY_IS_BAD,
                    decimals=0,
                ),
                Column(
                    expr=f"topk({ROWS}, sum by ({POD}) ({FAILED_RUNS}))",
                    name="failed runs",
                    unit="none",
                    decimals=0,
                ),
                Column(expr=f"topk({ROWS}, max by ({POD}) ({GATE}) or 0 * {SEEN})", name="start gate", unit="s"),
                Column(
                    expr=f"topk({ROWS}, max by ({POD}, task_id, run_id, try_number, map_index) "
                    f'(last_over_time(netprobe_task_info{{{WHERE}, dag_id="$dag_id", run_id=~"$run_id"}}[$__range])))',
                    name=None,
                ),
                labels={
                    "namespace": (),
                    "pod": [THIS_POD],
                    "task_id": (),
                    "run_id": [THIS_RUN],
                    "try_number": (),
                    "map_index": (),
                },
                sort="causes",
                width=16,
                height=10,
            ),
            lines(
                "Was a pod short of CPU?",
                "How late the agent's event loop was at most, and on average. Above a tenth of a second it is the CPU "
                "and not the network that is slow.",
                Ask(
                    expr=f"max(max_over_time(netprobe_event_loop_lag_seconds{{{WHERE}}}[$__interval]))",
                    legend="the slowest pod",
                ),
                Ask(
                    expr=f"avg(max_over_time(netprobe_event_loop_lag_seconds{{{WHERE}}}[$__interval]))",
                    legend="all pods",
                ),
                unit="s",
                steps=((None, GREEN), (0.1, RED)),
                width=8,
                height=10,
            ),
        ),
    )


def make() -> dashboard.Dashboard:
    told = "netprobe:pods:count15m|netprobe_task_info"
    present = "netprobe_task_info|netprobe_event_loop_lag_seconds"
    return page(
        "netprobe-task",
        "One DAG, its tasks, or one of its runs: what its pods said of the network, and when.",
        _answer(),
        _timeline(),
        _targets(),
        _pods(),
        variables=[
            chosen("namespace", "Namespace", f'{{__name__=~"{told}"}}', "Where the pods run."),
            chosen("dag_id", "DAG", f'{{__name__=~"{told}", {NAMESPACE}}}', "Whose pods.", several=False),
            chosen("task_id", "Task", f'{{__name__=~"{told}", {DAG}}}', "Of which tasks."),
            chosen("run_id", "Run", f"netprobe_task_info{{{TASK}}}", "Of which run: pods that are scraped say so."),
            chosen(
                "pod",
                "Pod",
                f'{{__name__=~"{present}", {TASK}, run_id=~"$run_id"}}',
                "Those of the run; of all runs, also those that only push.",
                listed=True,
            ),
            RunbookAddress(),
        ],
        annotations=[changes("Verdicts", _verdicts_of_the_dag, what="cause", text="in pods of the DAG")],
        since="6h",
        refresh="1m",
    )
