"""Is netprobe itself well, and what does it cost?"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from grafana.asking import HALF_MINUTE, Ask, Column
from grafana.look import ANY_IS_BAD, GREEN, NEUTRAL, ORANGE, RED, coloured
from grafana.page import Row, changes, page
from grafana.panels import lines, stat, table
from grafana.variables import chosen

NAMESPACE = 'namespace=~"$namespace"'
WHERE = f'{NAMESPACE}, job=~"$job"'
REPORTING = f"count(count by (namespace, pod) (last_over_time(netprobe_event_loop_lag_seconds{{{WHERE}}}[2m])))"
UNUSABLE = f"sum(1 - last_over_time(netprobe_config_last_reload_successful{{{WHERE}}}[2m]))"
STARVED = f'netprobe:diagnosis_pods:count2m{{{NAMESPACE}, cause="prober_starved"}}'
MISCONFIGURED = f'netprobe:diagnosis_pods:count2m{{{NAMESPACE}, cause="probe_misconfigured"}}'
NONE = f"0 * {REPORTING}"
"""Nothing, where there are agents that could have said so: no agents are not well."""
FOUND = f"sum(netprobe:scraped_pods:count{{{NAMESPACE}}})"
SILENT = f"(sum(netprobe:scrape_failing_pods:count5m{{{NAMESPACE}}}) or 0 * {FOUND})"
"""Of jobs called `netprobe`, whatever is chosen: no agent may ever have said what its job is called."""
GROUPS = 'rule_group=~".*;netprobe[.].*"'
CORES = "suffix: cores"
SHARES = ((0.5, "half of them below"), (0.95, "95 % below"), (1, "the highest"))
SAMPLE_LIMIT = 5000
"""Of the scrape configuration: a pod with more is not scraped at all."""


def grown(counter: str, window: str, labels: str = "") -> str:
    """By how much counters have grown, each for itself: of a pod that is new, or began anew, all it has counted.

    `increase` would need two samples of a pod, and short ones leave one.
    """
    now = f"last_over_time({counter}{{{WHERE}{labels}}}[{window}])"
    before = f"last_over_time({counter}{{{WHERE}{labels}}}[15m] offset {window})"
    return f"(({now} - {before}) >= 0 or {now})"


def grown_a_minute(counter: str, by: str, labels: str = "") -> str:
    return f"sum by ({by}) ({grown(counter, '$__interval', labels)}) * 60000 / $__interval_ms"


def results(counter: str) -> str:
    """Of pushes: with one label for receiver and result."""
    return f'label_join({grown_a_minute(counter, "sink, result")}, "kind", " ", "sink", "result")'


def spread(series: str) -> list[Ask]:
    """How a value is spread over agents."""
    return [Ask(expr=f"quantile({share}, {series})", legend=name) for share, name in SHARES]


def late(edge: str) -> Ask:
    """The share of runs beyond this edge of the histogram."""
    within = grown("netprobe_schedule_lag_seconds_bucket", "$__interval", f', le="{edge}"')
    everything = grown("netprobe_schedule_lag_seconds_count", "$__interval")
    return Ask(expr=f"1 - sum({within}) / (sum({everything}) > 0)", legend=f"by more than {edge} s")


def _versions(offset: str) -> str:
    """A quarter of an hour holds the pauses between pods."""
    return f"count by (version) (last_over_time(netprobe_build_info{{{WHERE}}}[15m]{offset}))"


def _well() -> Row:
    return Row(
        title="Is it well?",
        panels=(
            stat(
                "Agents reporting",
                "Pods whose agent was scraped or has pushed within the last two minutes.",
                f"{REPORTING} or vector(0)",
                steps=NEUTRAL,
                width=3,
            ),
            stat(
                "Not answering",
                "Agents that Prometheus has found and could not scrape once in the last five minutes. Of all jobs.",
                SILENT,
                steps=((None, GREEN), (1, ORANGE)),
                no_value="nobody is scraped",
                width=3,
            ),
            stat(
                "Short of CPU",
                "Agents that were too slow to say anything of the network (`prober_starved`): give them more CPU.",
                f"sum({STARVED}) or {NONE}",
                steps=ANY_IS_BAD,
                no_value="no agent",
                width=3,
            ),
            stat(
                "Bad configuration",
                "Agents that run with nothing, or with an old configuration, because the one they were given cannot "
                "be read.",
                UNUSABLE,
                steps=ANY_IS_BAD,
                no_value="no agent",
                width=3,
            ),
            stat(
                "Cannot ask",
                "Agents with a target that they cannot probe for a reason of their own (`probe_misconfigured`).",
                f"sum({MISCONFIGURED}) or {NONE}",
                steps=ANY_IS_BAD,
                no_value="no agent",
                width=3,
            ),
            stat(
                "Rounds skipped",
                "Rounds given up within the time range, because the one before was still running or had no slot.",
                f"sum({grown('netprobe_runs_skipped_total', '$__range')}) or {NONE}",
                steps=((None, GREEN), (1, ORANGE)),
                no_value="no agent",
                decimals=0,
                width=3,
            ),
            stat(
                "Failed pushes",
                "Requests to push results that failed within the time range. Most are tried again: what was lost is "
                "beside.",
                "sum(" + grown("netprobe_push_requests_total", "$__range", ', result="failure"') + f") or {NONE}",
                steps=((None, GREEN), (1, ORANGE)),
                no_value="no agent",
                decimals=0,
                width=3,
            ),
            stat(
                "Samples lost",
                "Samples within the time range that no receiver will ever get.",
                "sum(" + grown("netprobe_push_samples_total", "$__range", ', result="dropped"') + f") or {NONE}",
                steps=ANY_IS_BAD,
                no_value="no agent",
                decimals=0,
                width=3,
            ),
        ),
    )


def _agents() -> Row:
    return Row(
        title="Agents",
        panels=(
            lines(
                "Agents over time",
                "How many report at all, how many Prometheus has found to scrape, and how many of these have not "
                "answered it once in five minutes. The last two are of all jobs.",
                Ask(expr=f"{REPORTING} or vector(0)", legend="reporting"),
                Ask(expr=f"{FOUND} or vector(0)", legend="to be scraped"),
                Ask(expr=SILENT, legend="not answering"),
                overrides=coloured({"reporting": GREEN, "to be scraped": "blue", "not answering": RED}),
                decimals=0,
                width=8,
            ),
            lines(
                "Agents by version",
                "Of those that are scraped. A pod keeps the version it began with, so that both show during a "
                "roll-out.",
                Ask(
                    expr=f"count by (version) (last_over_time(netprobe_build_info{{{WHERE}}}[$__interval]))",
                    legend="{{version}}",
                ),
                stacked=True,
                decimals=0,
                width=8,
            ),
            lines(
                "Agents that cannot do their work",
                "Short of CPU, without a usable configuration, or with a target that they cannot probe.",
                Ask(expr=f"sum({STARVED}) or {NONE}", legend="short of CPU"),
                Ask(expr=UNUSABLE, legend="unusable configuration"),
                Ask(expr=f"sum({MISCONFIGURED}) or {NONE}", legend="cannot ask"),
                decimals=0,
                step=HALF_MINUTE,
                width=8,
            ),
        ),
    )


def _lag() -> Row:
    return Row(
        title="Is it too slow to judge others?",
        panels=(
            lines(
                "Lag of event loops",
                "The longest each agent's event loop was late within a minute. Above a tenth of a second an agent "
                "takes its own slowness for the network's, and marks its runs as starved.",
                *spread(f"max_over_time(netprobe_event_loop_lag_seconds{{{WHERE}}}[$__interval])"),
                unit="s",
                steps=((None, GREEN), (0.1, RED)),
                width=8,
            ),
            lines(
                "Runs that began late",
                "Share of runs that began later than this after they were due, waiting for the CPU or for a slot.",
                late("0.1"),
                late("1.0"),
                unit="percentunit",
                width=8,
            ),
            lines(
                "Kept off the CPU, and rounds skipped",
                "Seconds in a minute that quotas kept all agents off the CPU, and rounds given up in a minute. The "
                "first is 0 as well where the kernel does not tell.",
                Ask(
                    expr=f"{grown_a_minute('netprobe_cpu_throttled_seconds_total', '')} or {NONE}",
                    legend="seconds throttled",
                ),
                Ask(expr=grown_a_minute("netprobe_runs_skipped_total", ""), legend="rounds skipped"),
                width=8,
            ),
        ),
    )


def _cost() -> Row:
    cpu = f"rate(process_cpu_seconds_total{{{WHERE}}}[$__rate_interval])"
    memory = f"process_resident_memory_bytes{{{WHERE}}}"
    return Row(
        title="What does it cost?",
        panels=(
            lines(
                "CPU of an agent",
                "Of those that were scraped twice within the last minutes: once it runs. What a start takes, and "
                "pods that were scraped once, are in what all take together.",
                *spread(cpu),
                unit=CORES,
                decimals=4,
                width=8,
                no_value="nobody was scraped twice",
            ),
            lines(
                "Memory of an agent",
                "Resident, of those that are scraped.",
                *spread(memory),
                unit="bytes",
                width=8,
            ),
            lines(
                "All agents together",
                "CPU of all agents that are scraped, with what the short ones take to start.",
                Ask(
                    expr=f"sum({grown('process_cpu_seconds_total', '$__interval')}) * 1000 / $__interval_ms",
                    legend="cores",
                ),
                unit=CORES,
                decimals=3,
                width=8,
            ),
            lines(
                "Series",
                "What Prometheus takes from all agents, and from the largest. Of a pod with more than "
                f"{SAMPLE_LIMIT} it takes none (`sample_limit`).",
                Ask(expr=f"sum(scrape_samples_post_metric_relabeling{{{WHERE}}})", legend="all agents"),
                Ask(expr=f"max(scrape_samples_post_metric_relabeling{{{WHERE}}})", legend="the largest"),
                decimals=0,
                width=8,
            ),
            table(
                "Most CPU",
                "The ten agents that take most, within the last minutes of the time range.",
                Column(expr=f"topk(10, sum by (namespace, pod) ({cpu}))", name="CPU", unit=CORES, decimals=4),
                labels={"namespace": (), "pod": ()},
                sort="CPU",
                width=8,
            ),
            table(
                "Most memory",
                "The ten agents that hold most at the end of the time range.",
                Column(expr=f"topk(10, sum by (namespace, pod) ({memory}))", name="memory", unit="bytes"),
                labels={"namespace": (), "pod": ()},
                sort="memory",
                width=8,
            ),
        ),
    )


def _outside() -> Row:
    pushed = f"last_over_time(netprobe_push_requests_total{{{WHERE}}}[$__interval])"
    nothing = f'label_replace(vector(0) unless on () {pushed}, "kind", "nobody pushes", "", "")'
    return Row(
        title="Pushes and rules",
        panels=(
            lines(
                "Requests to push, a minute",
                "By receiver and result.",
                Ask(
                    expr=f"{results('netprobe_push_requests_total')} or {nothing}",
                    legend="{{kind}}",
                ),
                width=12,
            ),
            lines(
                "Samples pushed, a minute",
                "Those that receivers have taken, and those they will never get.",
                Ask(
                    expr=f"{results('netprobe_push_samples_total')} or {nothing}",
                    legend="{{kind}}",
                ),
                width=12,
            ),
            lines(
                "Rules, share of their interval",
                "How much of the time between two evaluations one takes. At 1 rules fall behind, and with them every "
                "other dashboard. Known where Prometheus scrapes itself.",
                Ask(
                    expr="label_replace("
                    f"max by (rule_group) (prometheus_rule_group_last_duration_seconds{{{GROUPS}}})"
                    f" / max by (rule_group) (prometheus_rule_group_interval_seconds{{{GROUPS}}}),"
                    ' "group", "$1", "rule_group", ".*;(.*)")',
                    legend="{{group}}",
                ),
                unit="percentunit",
                steps=((None, GREEN), (0.5, ORANGE), (1, RED)),
                ranked=True,
                no_value="this Prometheus does not scrape itself",
                width=12,
            ),
            stat(
                "Age of the recorded series",
                "How long ago the rules last recorded anything: half a minute at most.",
                "time() - max(timestamp(netprobe:pods:count2m))",
                unit="s",
                steps=((None, GREEN), (60, ORANGE), (120, RED)),
                decimals=0,
                no_value="nothing is recorded",
                width=4,
            ),
            stat(
                "Failed rule evaluations",
                "Of netprobe's rules, within the time range. Known where Prometheus scrapes itself.",
                f"sum(increase(prometheus_rule_evaluation_failures_total{{{GROUPS}}}[$__range]))",
                steps=ANY_IS_BAD,
                decimals=0,
                no_value="this Prometheus does not scrape itself",
                width=4,
            ),
            stat(
                "Slowest scrape",
                "Of an agent, at the end of the time range.",
                f"max(scrape_duration_seconds{{{WHERE}}})",
                unit="s",
                steps=((None, GREEN), (1, ORANGE), (5, RED)),
                no_value="nobody is scraped",
                width=4,
            ),
        ),
    )


def make() -> dashboard.Dashboard:
    return page(
        "netprobe-self",
        "The agents, their pushes and the rules over them: whether what the other dashboards show can be relied on, "
        "and what it takes.",
        _well(),
        _agents(),
        _lag(),
        _cost(),
        _outside(),
        variables=[
            chosen("namespace", "Namespace", "netprobe_event_loop_lag_seconds", "Where the agents run."),
            chosen(
                "job",
                "Job",
                f"netprobe_event_loop_lag_seconds{{{NAMESPACE}}}",
                "As the scrape configuration calls it, or the push.",
                listed=True,
            ),
        ],
        annotations=[changes("Versions", _versions, what="version", text="a roll-out begins, or is over")],
        since="6h",
        refresh="1m",
    )
