"""The metrics contract: names, types, labels, what is zero, what is absent, and how many series there are."""

from __future__ import annotations

import re
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from agent.config import Detail
from agent.diagnosis import Cause, Diagnosis
from agent.model import REASONS, Fact, Phase, Reason, Target
from agent.probers import PROBERS
from agent.sinks.metrics import FAMILIES, SELF_FAMILIES, SERIES_LIMIT, Described, Metrics
from agent.starvation import Starvation
from tests.lab.outcomes import EXAMPLES, diagnosis, named, outcome

REFUSED = (Phase.CONNECT, Reason.REFUSED)

PHASES_OF: dict[str, list[Phase]] = {
    "dns": [Phase.RESOLVE, Phase.VERIFY],
    "tcp": [Phase.RESOLVE, Phase.CONNECT, Phase.TLS, Phase.REQUEST, Phase.TRANSFER, Phase.VERIFY],
    "http": [
        Phase.RESOLVE,
        Phase.CONNECT,
        Phase.PROXY,
        Phase.TLS,
        Phase.REQUEST,
        Phase.TRANSFER,
        Phase.VERIFY,
    ],
    "postgres": [
        Phase.RESOLVE,
        Phase.CONNECT,
        Phase.TLS,
        Phase.LOGIN,
        Phase.REQUEST,
        Phase.TRANSFER,
        Phase.VERIFY,
    ],
}
"""Every phase a run of a type can reach."""
FACTS_OF: dict[str, dict[Fact, Any]] = {
    "dns": {Fact.DNS_QUERIES: 4},
    "tcp": {Fact.CERTIFICATE_EXPIRES_AT: 1.8e9},
    "http": {Fact.HTTP_STATUS_CODE: 200, Fact.CERTIFICATE_EXPIRES_AT: 1.8e9},
    "postgres": {Fact.CERTIFICATE_EXPIRES_AT: 1.8e9},
}
"""Every fact of a type that becomes a series."""


async def metrics_of(*targets: Target[Any], detail: Detail = Detail.NORMAL) -> Metrics:
    return Metrics(targets, detail=detail, starvation=Starvation(None))


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every series as Prometheus' text format shows it."""
    text = generate_latest(metrics.registry).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in found, f"twice: {series}"
            found[series] = sample.value
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The value of the one series with these labels, or None."""
    found = [
        seen for (series, its), seen in samples(metrics).items() if series == name and set(labels.items()) <= set(its)
    ]
    assert len(found) <= 1, found
    return found[0] if found else None


def of_target(metrics: Metrics, name: str) -> int:
    return sum(("target", name) in labels for _, labels in samples(metrics))


@pytest.mark.parametrize(("kind", "detail"), [*product(PROBERS, Detail)])
async def test_no_target_exceeds_its_budget_whatever_happens_to_it(kind: str, detail: Detail) -> None:
    """Successes, every failure and cause there is, every phase and fact of the type: never more than promised."""
    target = named("t", kind)
    metrics = await metrics_of(target, detail=detail)
    limit = SERIES_LIMIT[detail]
    assert limit == {Detail.NORMAL: 32, Detail.LOW: 12}[detail]
    metrics.write(outcome(target, phases=PHASES_OF[kind], facts=FACTS_OF[kind]))
    assert of_target(metrics, "t") <= limit
    pairs = [(phase, reason) for phase in PHASES_OF[kind] for reason in sorted(REASONS[phase])]
    for pair, cause in zip(pairs, cycle(Cause), strict=False):
        metrics.diagnosed(diagnosis((cause, "t")))
        metrics.write(outcome(target, pair, phases=PHASES_OF[kind], facts=FACTS_OF[kind]))
        assert of_target(metrics, "t") <= limit
        # What just happened is always among them.
        assert value(metrics, "netprobe_probe_failures_total", phase=pair[0].value, reason=pair[1].value) == 1
    # And nothing of the budget is wasted.
    assert of_target(metrics, "t") == limit


def test_every_type_has_its_worst_case_above() -> None:
    assert set(PHASES_OF) == set(FACTS_OF) == set(EXAMPLES) == set(PROBERS)


async def test_result_series_exist_at_zero_from_the_start() -> None:
    """So that the first failure is an increase, and a target that never ran is not missing."""
    metrics = await metrics_of(named("t"))
    assert value(metrics, "netprobe_probes_total", target="t", type="tcp", result="success") == 0
    assert value(metrics, "netprobe_probes_total", target="t", type="tcp", result="failure") == 0
    assert value(metrics, "netprobe_probe_duration_seconds_count", target="t") == 0
    assert value(metrics, "netprobe_probe_duration_seconds_bucket", target="t", le="4.5") == 0
    assert value(metrics, "netprobe_target_info", target="t") == 1


@pytest.mark.parametrize(
    "name",
    [
        "netprobe_probe_success",
        "netprobe_last_success_timestamp_seconds",
        "netprobe_phase_duration_seconds_sum",
        "netprobe_http_status_code",
        "netprobe_tls_certificate_expiry_timestamp_seconds",
        "netprobe_dns_queries_per_lookup",
        "netprobe_probe_failures_total",
        "netprobe_target_diagnosis",
    ],
)
async def test_what_is_not_known_is_absent(name: str) -> None:
    """No zero is made up for a run, a phase, a certificate or a status that never was."""
    assert value(await metrics_of(named("t")), name) is None


async def test_the_gate_is_absent_until_it_opens() -> None:
    metrics = await metrics_of(named("t"))
    for name in ("netprobe_startup_gate_seconds", "netprobe_startup_gate_timed_out"):
        assert value(metrics, name) is None
    metrics.gate_opened(1.25, timed_out=True)
    assert value(metrics, "netprobe_startup_gate_seconds") == 1.25
    assert value(metrics, "netprobe_startup_gate_timed_out") == 1


async def test_tasks_are_named_in_a_series_of_their_own_and_nowhere_else() -> None:
    """Identity multiplies no other series."""
    metrics = await metrics_of(named("t"))
    before = set(samples(metrics))
    metrics.tasks = lambda: [{"dag_id": "etl", "task_id": "load", "run_id": "manual__1"}, {"dag_id": 'x"\n\\'}]
    assert value(metrics, "netprobe_task_info", dag_id="etl", run_id="manual__1", try_number="", map_index="") == 1
    assert value(metrics, "netprobe_task_info", dag_id='x"\n\\', task_id="") == 1
    assert {name for name, _ in set(samples(metrics)) - before} == {"netprobe_task_info"}


async def test_a_failure_counts_where_and_why() -> None:
    target = named("t")
    metrics = await metrics_of(target)
    metrics.write(outcome(target))
    for _ in range(3):
        metrics.write(outcome(target, REFUSED))
    metrics.write(outcome(target, (Phase.RESOLVE, Reason.TIMEOUT)))
    assert value(metrics, "netprobe_probes_total", result="success") == 1
    assert value(metrics, "netprobe_probes_total", result="failure") == 4
    assert value(metrics, "netprobe_probe_failures_total", phase="connect", reason="refused") == 3
    assert value(metrics, "netprobe_probe_failures_total", phase="resolve", reason="timeout") == 1
    assert value(metrics, "netprobe_probe_success") == 0


async def test_a_failure_pushed_out_comes_back_with_its_whole_count() -> None:
    """Room is for the pairs seen last; a counter that returns has not been reset."""
    target = named("t", "http")
    metrics = await metrics_of(target)
    first = (Phase.CONNECT, Reason.TIMEOUT)
    labels = {"phase": "connect", "reason": "timeout"}
    for _ in range(5):
        metrics.write(outcome(target, first, phases=PHASES_OF["http"], facts=FACTS_OF["http"]))
    for reason in sorted(REASONS[Phase.TLS]):
        metrics.write(outcome(target, (Phase.TLS, reason), phases=PHASES_OF["http"], facts=FACTS_OF["http"]))
    assert value(metrics, "netprobe_probe_failures_total", **labels) is None
    metrics.write(outcome(target, first, phases=PHASES_OF["http"], facts=FACTS_OF["http"]))
    assert value(metrics, "netprobe_probe_failures_total", **labels) == 6


@pytest.mark.parametrize(
    ("seconds", "buckets"),
    [
        (0.005, {"0.005": 1, "0.025": 1, "5.5": 1, "+Inf": 1}),
        (0.0051, {"0.005": 0, "0.025": 1, "+Inf": 1}),
        (5.02, {"4.5": 0, "5.5": 1, "+Inf": 1}),
        (9.0, {"5.5": 0, "+Inf": 1}),
    ],
)
async def test_durations_of_successes_fall_into_their_buckets(seconds: float, buckets: dict[str, int]) -> None:
    """4.5 and 5.5 isolate the five seconds a resolver waits before it asks the next nameserver."""
    target = named("t")
    metrics = await metrics_of(target)
    metrics.write(outcome(target, seconds=seconds))
    metrics.write(outcome(target, REFUSED, seconds=seconds))  # failures have no place in it
    for edge, count in buckets.items():
        assert value(metrics, "netprobe_probe_duration_seconds_bucket", le=edge) == count
    assert value(metrics, "netprobe_probe_duration_seconds_count") == 1
    assert value(metrics, "netprobe_probe_duration_seconds_sum") == seconds


async def test_trap_t14_only_phases_that_ran_have_durations() -> None:
    """The phase that consumed the time has it; a phase that was not reached is absent, never 0."""
    target = named("t")
    metrics = await metrics_of(target)
    metrics.write(outcome(target, (Phase.CONNECT, Reason.TIMEOUT), phases=[Phase.RESOLVE, Phase.CONNECT]))
    assert value(metrics, "netprobe_phase_duration_seconds_count", phase="connect") == 1
    assert value(metrics, "netprobe_phase_duration_seconds_sum", phase="connect") == pytest.approx(0.001)
    assert value(metrics, "netprobe_phase_duration_seconds_count", phase="tls") is None


async def test_comparing_is_not_a_network_phase() -> None:
    target = named("t")
    metrics = await metrics_of(target)
    metrics.write(outcome(target, phases=[Phase.CONNECT, Phase.VERIFY]))
    assert value(metrics, "netprobe_phase_duration_seconds_count", phase="verify") is None


async def test_trap_t12_the_last_known_expiry_outlives_failed_runs_and_the_certificate() -> None:
    """An expiry alert must not resolve itself because the server is down, or because the certificate has expired."""
    target = named("t", "http")
    metrics = await metrics_of(target)
    expired = 1_600_000_000.0
    name = "netprobe_tls_certificate_expiry_timestamp_seconds"
    failed = (Phase.TLS, Reason.CERTIFICATE_EXPIRED)
    metrics.write(outcome(target, failed, facts={Fact.CERTIFICATE_EXPIRES_AT: expired}))
    assert value(metrics, name) == expired
    metrics.write(outcome(target, REFUSED))
    assert value(metrics, name) == expired
    metrics.write(outcome(target, facts={Fact.CERTIFICATE_EXPIRES_AT: expired + 9e7}))
    assert value(metrics, name) == expired + 9e7


async def test_a_status_is_shown_only_for_the_run_that_got_one() -> None:
    target = named("t", "http")
    metrics = await metrics_of(target)
    metrics.write(outcome(target, facts={Fact.HTTP_STATUS_CODE: 204}))
    assert value(metrics, "netprobe_http_status_code") == 204
    metrics.write(outcome(target, REFUSED))
    assert value(metrics, "netprobe_http_status_code") is None


async def test_the_last_success_is_when_it_ended() -> None:
    target = named("t")
    metrics = await metrics_of(target)
    metrics.write(outcome(target, at=1_700_000_000.0, seconds=0.5))
    metrics.write(outcome(target, REFUSED, at=1_700_000_060.0))
    assert value(metrics, "netprobe_last_success_timestamp_seconds") == 1_700_000_000.5


async def test_low_detail_keeps_what_alerts_need() -> None:
    target = named("t", "http")
    metrics = await metrics_of(target, detail=Detail.LOW)
    metrics.write(outcome(target, phases=PHASES_OF["http"], facts=FACTS_OF["http"], seconds=2.0))
    assert value(metrics, "netprobe_phase_duration_seconds_count") is None
    assert value(metrics, "netprobe_probe_duration_seconds_bucket", le="+Inf") == 1
    assert value(metrics, "netprobe_probe_duration_seconds_sum") == 2.0
    assert value(metrics, "netprobe_probe_success") == 1
    assert value(metrics, "netprobe_tls_certificate_expiry_timestamp_seconds") == 1.8e9


async def test_the_agent_tells_about_itself() -> None:
    metrics = await metrics_of(named("t"))
    for lag in (0.001, 0.05, 3.0):
        metrics.started(lag)
    metrics.skipped(2)
    assert value(metrics, "netprobe_schedule_lag_seconds_bucket", le="0.1") == 2
    assert value(metrics, "netprobe_schedule_lag_seconds_bucket", le="1.0") == 2
    assert value(metrics, "netprobe_schedule_lag_seconds_count") == 3
    assert value(metrics, "netprobe_runs_skipped_total") == 2
    assert value(metrics, "netprobe_event_loop_lag_seconds") == 0
    assert value(metrics, "netprobe_config_last_reload_successful") == 1
    assert value(metrics, "netprobe_build_info") == 1
    assert (value(metrics, "process_resident_memory_bytes") or 0) > 1e6
    # No quota was found, so nothing is claimed about it.
    assert value(metrics, "netprobe_cpu_throttled_seconds_total") is None


DIAGNOSIS = "netprobe_diagnosis"


def causes(metrics: Metrics) -> dict[str, float]:
    """Every series of the diagnosis."""
    return {dict(labels)["cause"]: seen for (name, labels), seen in samples(metrics).items() if name == DIAGNOSIS}


async def test_every_cause_has_a_series_from_the_start_and_none_holds_before_anything_is_known() -> None:
    assert causes(await metrics_of(named("t"))) == dict.fromkeys(Cause, 0.0)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ((), {Cause.HEALTHY}),
        ((Cause.DNS_UNREACHABLE,), {Cause.DNS_UNREACHABLE}),
        ((Cause.SLOW, Cause.TLS_PROTOCOL, Cause.SLOW), {Cause.SLOW, Cause.TLS_PROTOCOL}),
    ],
)
async def test_the_causes_that_hold_are_1_and_all_others_0(seen: tuple[Cause, ...], expected: set[Cause]) -> None:
    """`healthy` is one of them, so that either it or another is 1."""
    metrics = await metrics_of(named("t"))
    metrics.diagnosed(diagnosis((Cause.UNKNOWN, "t")))
    metrics.diagnosed(diagnosis(*((cause, "t") for cause in seen)))
    assert {cause for cause, holds in causes(metrics).items() if holds == 1.0} == expected
    assert set(causes(metrics)) == set(Cause)


def explained(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Every series that says why a target fails, by target and cause."""
    found = {}
    for (name, labels), seen in samples(metrics).items():
        if name == "netprobe_target_diagnosis":
            its = dict(labels)
            assert set(its) == {"target", "type", "cause"}
            found[its["target"], its["cause"]] = seen
    return found


async def test_each_target_says_which_cause_explains_it() -> None:
    metrics = await metrics_of(named("a"), named("b"), named("c"))
    metrics.diagnosed(diagnosis((Cause.DNS_UNREACHABLE, "a", "c"), (Cause.WRONG_PORT, "b")))
    assert explained(metrics) == {
        ("a", "dns_unreachable"): 1,
        ("b", "wrong_port"): 1,
        ("c", "dns_unreachable"): 1,
    }


async def test_a_target_has_one_cause_at_a_time_and_keeps_the_last_at_0() -> None:
    """So that what is over can be told from what never was, with one series a target."""
    metrics = await metrics_of(named("t"))
    metrics.diagnosed(Diagnosis())
    assert explained(metrics) == {}
    metrics.diagnosed(diagnosis((Cause.UNKNOWN, "t")))
    assert explained(metrics) == {("t", "unknown"): 1}
    metrics.diagnosed(diagnosis((Cause.WRONG_PORT, "t")))
    assert explained(metrics) == {("t", "wrong_port"): 1}
    metrics.diagnosed(Diagnosis())
    assert explained(metrics) == {("t", "wrong_port"): 0}
    metrics.diagnosed(diagnosis((Cause.SLOW, "t")))
    assert explained(metrics) == {("t", "slow"): 1}


async def test_the_documented_number_of_own_series_is_that_of_the_code() -> None:
    metrics = await metrics_of(named("t"))
    own = [name for name, labels in samples(metrics) if "target" not in dict(labels)]
    throttling = 1  # where the kernel tells
    found = re.search(r"^The agent itself adds (\d+) series, (\d+) of", DOCS.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    gate = 2  # once it is open
    assert int(found[1]) == len(own) + throttling + gate
    assert int(found[2]) == len(Cause)


async def test_no_series_carries_what_is_not_bounded() -> None:
    """Labels are names, types and closed enums; address, scope and role stand on the info series alone."""
    target = named("t", "http")
    metrics = await metrics_of(target)
    metrics.write(outcome(target, REFUSED, phases=PHASES_OF["http"], facts=FACTS_OF["http"]))
    metrics.write(outcome(target, phases=PHASES_OF["http"], facts=FACTS_OF["http"]))
    metrics.diagnosed(diagnosis((Cause.FLAPPING, "t")))
    for name, labels in samples(metrics):
        keys = {key for key, _ in labels}
        if name == "netprobe_target_info":
            assert keys == {"target", "type", "scope", "role", "address"}
        elif name == "netprobe_build_info":
            assert keys == {"version", "python"}
        elif name == "netprobe_diagnosis":
            assert keys == {"cause"}
        elif name == "netprobe_target_diagnosis":
            assert keys == {"target", "type", "cause"}
        elif "target" in keys:
            assert keys - {"target", "type"} <= {"result", "phase", "reason", "le"}
        else:
            assert keys <= {"le"}


async def test_no_series_is_called_created() -> None:
    """prometheus_client's own counters would add one to each of ours."""
    target = named("t")
    metrics = await metrics_of(target)
    metrics.write(outcome(target))
    assert not [name for name, _ in samples(metrics) if name.endswith("_created")]


async def test_nothing_is_registered_globally() -> None:
    """Two agents in one process have nothing in common."""
    before = {metric.name for metric in REGISTRY.collect()}
    first, second = await metrics_of(named("a")), await metrics_of(named("a"))
    first.skipped(1)
    assert value(second, "netprobe_runs_skipped_total") == 0
    assert {metric.name for metric in REGISTRY.collect()} == before


async def test_a_name_with_quotes_and_line_ends_stays_one_label() -> None:
    target = named('a "quoted"\\ name\nin two lines')
    metrics = await metrics_of(target)
    assert value(metrics, "netprobe_probes_total", target=target.name, result="success") == 0


# --- docs/metrics.md ------------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_documentation_lists_every_metric_as_the_code_has_it() -> None:
    """One row a metric, in the order of `/metrics`: name, type, labels, help."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", DOCS.read_text("utf-8"), re.MULTILINE)
    described: list[Described] = [*FAMILIES, *SELF_FAMILIES]
    promised = [
        (family.name, family.type, ", ".join(f"`{label}`" for label in family.labels), family.help)
        for family in described
    ]
    assert rows == promised, "expected docs/metrics.md to have:\n" + "\n".join(
        f"| `{name}` | {kind} | {labels} | {text} |" for name, kind, labels, text in promised
    )
