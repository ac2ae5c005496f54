"""Whatever the snapshot, the rules explain it, contradict nothing, and ask only those who may be asked."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.diagnosis import Cause, Confidence, Diagnosis, History, Snapshot, Verdict, diagnose, plan
from agent.diagnosis.experiment import (
    Connect,
    Experiment,
    LocalNetwork,
    Looked,
    Lookup,
    MeshProxy,
    ServerClock,
    SmallSegments,
)
from agent.diagnosis.rules.case import Wanted
from agent.diagnosis.rules.texts import ADVICE_LIMIT, EVIDENCE_ITEMS, EVIDENCE_LIMIT, SUMMARY_LIMIT
from agent.model import Fact, Outcome, Phase, Reason, Scope, Target
from agent.net.proxy import ProxyServer
from agent.networks import is_on_node, is_private
from tests.diagnosis.strategies import FACTS, NOW, SECRET, alone, answers, histories, outcomes, pods, snapshots, targets

EXAMPLES = int(os.environ.get("NETPROBE_FUZZ_EXAMPLES", "200"))
"""Of each property. Many more, now and then: `NETPROBE_FUZZ_EXAMPLES=20000 pytest tests/diagnosis/test_fuzz.py`."""

# One example is one world of up to eight targets: large, and as slow to make as it is to judge.
# The suite says the same of the same code every time; worlds that nobody has seen are looked for by the variable.
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="NETPROBE_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)

# --- what holds of every diagnosis -----------------------------------------------------------------------------------

Check = Callable[[Snapshot, Diagnosis], None]


def every_failing_target_has_one_verdict(snapshot: Snapshot, diagnosis: Diagnosis) -> None:
    named = Counter(name for verdict in diagnosis.verdicts for name in verdict.targets)
    assert set(named.values()) <= {1}, named
    assert {history.name for history in snapshot.failing} <= named.keys()


def verdicts_name_targets_that_were_probed(snapshot: Snapshot, diagnosis: Diagnosis) -> None:
    probed = [history.name for history in snapshot.histories if history.outcomes]
    for verdict in diagnosis.verdicts:
        assert set(verdict.targets) <= set(probed)
        assert list(verdict.targets) == [name for name in probed if name in verdict.targets], "another order"


def healthy_means_no_verdict(snapshot: Snapshot, diagnosis: Diagnosis) -> None:
    assert diagnosis.healthy == (not diagnosis.verdicts)
    assert diagnosis.causes == (Cause.HEALTHY,) or Cause.HEALTHY not in diagnosis.causes
    assert not snapshot.failing or not diagnosis.healthy


def those_over_failing_targets_come_first(snapshot: Snapshot, diagnosis: Diagnosis) -> None:
    failing = {history.name for history in snapshot.failing}
    over_failing = [not failing.isdisjoint(verdict.targets) for verdict in diagnosis.verdicts]
    assert over_failing == sorted(over_failing, reverse=True)


def texts_are_fit_to_print(_: Snapshot, diagnosis: Diagnosis) -> None:
    for verdict in diagnosis.verdicts:
        assert 1 <= len(verdict.evidence) <= EVIDENCE_ITEMS, verdict.evidence
        assert len(verdict.summary) <= SUMMARY_LIMIT, verdict.summary
        assert len(verdict.advice) <= ADVICE_LIMIT, verdict.advice
        for text in (verdict.summary, verdict.advice, *verdict.evidence):
            assert text.strip(), verdict
            assert not _unprintable(text), text
        assert all(len(item) <= EVIDENCE_LIMIT for item in verdict.evidence)


def no_text_shows_a_secret(_: Snapshot, diagnosis: Diagnosis) -> None:
    assert SECRET not in repr(diagnosis)
    assert SECRET not in repr(diagnosis.as_dict())


POLICY = frozenset({Cause.EGRESS_BLOCKED, Cause.CLUSTER_BLOCKED, Cause.TARGET_BLOCKED, Cause.DNS_UNREACHABLE})


def policy_is_only_consistent_with_what_was_seen(_: Snapshot, diagnosis: Diagnosis) -> None:
    for verdict in diagnosis.verdicts:
        assert verdict.cause not in POLICY or "consistent with" in _all_text(verdict), verdict


ANSWERED = frozenset(
    {
        Cause.EGRESS_BLOCKED,
        Cause.CLUSTER_BLOCKED,
        Cause.PRIVATE_NETWORK_UNREACHABLE,
        Cause.TARGET_BLOCKED,
        Cause.POLICY_NOT_ENFORCED,
        Cause.NETWORK_NOT_READY,
        Cause.IPV6_BROKEN,
        Cause.ONE_ADDRESS_DEAD,
        Cause.DNS_NAMESERVER_DOWN,
        Cause.DNS_FAILING,
        Cause.DNS_SLOW,
        Cause.NAME_NOT_FOUND,
        Cause.NOTHING_LISTENING,
        Cause.WRONG_PORT,
        Cause.PACKET_LOSS,
        Cause.SLOW,
        Cause.STALLED_AFTER_CONNECT,
        Cause.TLS_CERTIFICATE,
        Cause.TLS_INTERCEPTION,
        Cause.TLS_PROTOCOL,
        Cause.CLOCK_SKEW,
        Cause.PLAIN_TEXT_ON_TLS_PORT,
        Cause.TLS_ON_PLAIN_TEXT_PORT,
        Cause.PROXY_DENIED,
        Cause.PROXY_AUTH,
        Cause.CREDENTIALS_REJECTED,
        Cause.ACCESS_DENIED,
        Cause.DATABASE_MISSING,
        Cause.DATABASE_FULL,
        Cause.DATABASE_STARTING,
        Cause.SERVER_ERROR,
        Cause.WRONG_CONTENT,
    }
)
"""Causes that rest on somebody having answered."""


def nothing_answers_where_the_network_is_down(snapshot: Snapshot, diagnosis: Diagnosis) -> None:
    if Cause.NETWORK_DOWN not in diagnosis.causes:
        return
    down = {name for verdict in diagnosis.verdicts if verdict.cause is Cause.NETWORK_DOWN for name in verdict.targets}
    for verdict in diagnosis.verdicts:
        own = all(_stays_in_the_pod(history) for history in _named(snapshot, verdict))
        assert own or verdict.cause not in ANSWERED, verdict
    answering = [h.name for h in snapshot.working if not h.target.negative and not _stays_in_the_pod(h)]
    assert not answering, answering
    for history in snapshot.failing:
        if history.name in down:
            assert history.failure is not None
            assert history.failure.phase in _UNANSWERED_PHASES


_UNANSWERED_PHASES = frozenset({Phase.RESOLVE, Phase.CONNECT})


def no_scope_is_blocked_that_works(snapshot: Snapshot, diagnosis: Diagnosis) -> None:
    for cause, scope in ((Cause.EGRESS_BLOCKED, Scope.PUBLIC), (Cause.CLUSTER_BLOCKED, Scope.CLUSTER)):
        if cause in diagnosis.causes:
            working = [
                h.name
                for h in snapshot.working
                if _scope(h) is scope and _was_reached(h) and not _failed_since(h, snapshot)
            ]
            working += [
                h.name
                for h in snapshot.failing
                if h.target.negative
                and h.failure is not None
                and h.failure.reason is Reason.UNEXPECTED_SUCCESS
                and _scope(h) is scope
                and h.target.type != "dns"
                and Fact.PROXY not in h.outcomes[0].facts
                and not _stays_in_the_pod(h)
                and not _failed_since(h, snapshot)
            ]
            assert not working, f"{cause}, and {working} work"


def no_lookup_succeeds_where_no_nameserver_answers(snapshot: Snapshot, diagnosis: Diagnosis) -> None:
    explained = [h for v in diagnosis.verdicts if v.cause is Cause.DNS_UNREACHABLE for h in _named(snapshot, v)]
    if not explained:
        return
    since = max(history.outcomes[0].started_at for history in explained)
    answered = [
        history.name
        for history in snapshot.working
        if not history.target.negative
        and _asks_the_pods_nameservers(history.target)
        and Fact.DNS_SERVER in history.outcomes[0].facts
        and Fact.HOSTS_FILE not in history.outcomes[0].facts
        and history.outcomes[0].started_at >= since
    ]
    assert not answered, answered
    asked = [
        experiment
        for experiment in snapshot.experiments
        if isinstance(experiment.question, Lookup)
        and isinstance(experiment.answer, Looked)
        and experiment.question.transport == "udp"  # a policy may forget one of the two
        and experiment.answer.rcode is not None
        and experiment.started_at >= since
    ]
    assert not asked, asked


def only_negative_targets_show_a_policy_that_is_not_enforced(snapshot: Snapshot, diagnosis: Diagnosis) -> None:
    for verdict in diagnosis.verdicts:
        if verdict.cause is Cause.POLICY_NOT_ENFORCED:
            assert all(history.target.negative for history in _named(snapshot, verdict))


FAILS_IN = {
    Cause.NAME_NOT_FOUND: {Phase.RESOLVE},
    Cause.DNS_FAILING: {Phase.RESOLVE},
    Cause.DNS_UNREACHABLE: {Phase.RESOLVE},
    # In verify: a proxy's own page in the place of the target's. In resolve: a nameserver that is the target itself.
    Cause.NOTHING_LISTENING: {Phase.CONNECT, Phase.PROXY, Phase.VERIFY, Phase.RESOLVE},
    Cause.WRONG_PORT: {Phase.CONNECT, Phase.PROXY},
    Cause.HARDCODED_ADDRESS: {Phase.CONNECT},
    Cause.CLUSTER_BLOCKED: {Phase.CONNECT, Phase.RESOLVE},
    # In the last two: of a proxy that has no way out itself.
    Cause.EGRESS_BLOCKED: {Phase.CONNECT, Phase.RESOLVE, Phase.PROXY, Phase.VERIFY},
    # A proxy was reached, and could not reach the target.
    Cause.TARGET_BLOCKED: {Phase.CONNECT, Phase.RESOLVE, Phase.PROXY, Phase.VERIFY},
    Cause.PRIVATE_NETWORK_UNREACHABLE: {Phase.CONNECT, Phase.RESOLVE},
    Cause.NETWORK_DOWN: {Phase.CONNECT, Phase.RESOLVE},
    Cause.TLS_CERTIFICATE: {Phase.TLS},
    Cause.TLS_INTERCEPTION: {Phase.TLS},
    Cause.DATABASE_MISSING: {Phase.LOGIN},
    Cause.DATABASE_FULL: {Phase.LOGIN},
}
"""Causes that are seen in certain phases only."""


def causes_fit_the_phase_that_failed(snapshot: Snapshot, diagnosis: Diagnosis) -> None:
    for verdict in diagnosis.verdicts:
        for history in _named(snapshot, verdict):
            phases = FAILS_IN.get(verdict.cause)
            if phases is not None and history.failure is not None:
                assert history.failure.phase in phases, verdict


CHECKS: tuple[Check, ...] = (
    every_failing_target_has_one_verdict,
    verdicts_name_targets_that_were_probed,
    healthy_means_no_verdict,
    those_over_failing_targets_come_first,
    texts_are_fit_to_print,
    no_text_shows_a_secret,
    policy_is_only_consistent_with_what_was_seen,
    nothing_answers_where_the_network_is_down,
    no_scope_is_blocked_that_works,
    no_lookup_succeeds_where_no_nameserver_answers,
    only_negative_targets_show_a_policy_that_is_not_enforced,
    causes_fit_the_phase_that_failed,
)


@fuzz
@given(snapshots())
def test_every_snapshot_is_explained(snapshot: Snapshot) -> None:
    """Each failing target by one verdict, without contradiction, in texts that can be shown; twice the same."""
    diagnosis = diagnose(snapshot)

    for check in CHECKS:
        check(snapshot, diagnosis)
    assert diagnose(snapshot) == diagnosis


def test_every_fact_has_random_values() -> None:
    """A fact that the model gains has values in the strategies."""
    assert set(FACTS) == set(Fact)


# --- order -----------------------------------------------------------------------------------------------------------


@fuzz
@given(st.data())
def test_order_does_not_matter(data: st.DataObject) -> None:
    """The order of experiments changes nothing; that of targets changes nothing but orders."""
    snapshot = data.draw(snapshots(contradictory=False))
    experiments = tuple(data.draw(st.permutations(snapshot.experiments)))
    found = tuple(data.draw(st.permutations(snapshot.histories)))
    expected = _essence(diagnose(snapshot))

    assert _essence(diagnose(dataclasses.replace(snapshot, experiments=experiments))) == expected
    assert _essence(diagnose(dataclasses.replace(snapshot, histories=found))) == expected


def _essence(diagnosis: Diagnosis) -> set[tuple[Cause, Confidence, frozenset[str]]]:
    return {(verdict.cause, verdict.confidence, frozenset(verdict.targets)) for verdict in diagnosis.verdicts}


# --- little evidence, and much ---------------------------------------------------------------------------------------


@fuzz
@given(st.data())
def test_one_failed_run_alone_is_not_certain(data: st.DataObject) -> None:
    """A verdict that rests on a single run of a single target has no high confidence."""
    target = data.draw(targets("alone"))
    outcome: Outcome = data.draw(outcomes(target, NOW))
    snapshot = alone(target, outcome, data.draw(pods()))

    for verdict in diagnose(snapshot).verdicts:
        assert verdict.confidence is not Confidence.HIGH, verdict


@settings(fuzz, max_examples=max(1, EXAMPLES // 20))
@given(st.data())
def test_many_targets_do_not_make_long_texts(data: st.DataObject) -> None:
    """Sixty targets that fail alike are as easy to read about as three."""
    some = [data.draw(histories(f"target-{n}", None)) for n in range(3)]
    found = [_called(f"target-with-a-rather-long-name-{n:02}", some[n % len(some)]) for n in range(60)]
    snapshot = Snapshot(at=NOW, pod=data.draw(pods()), histories=tuple(found))
    diagnosis = diagnose(snapshot)

    for check in CHECKS:
        check(snapshot, diagnosis)
    assert len(plan(snapshot)) <= _PLAN_LIMIT


def _called(name: str, history: History) -> History:
    target = dataclasses.replace(history.target, name=name)
    return History(target, tuple(dataclasses.replace(outcome, target=target) for outcome in history.outcomes))


# --- what is asked ---------------------------------------------------------------------------------------------------

_PLAN_LIMIT = 100
_ROUNDS = 8


@fuzz
@given(st.data())
def test_questions_are_allowed_and_come_to_an_end(data: st.DataObject) -> None:
    """Nobody is asked but those who may be; no question twice; and whatever the answers, the questions end."""
    snapshot = data.draw(snapshots(contradictory=False))
    for rounds in itertools.count():
        wanted = plan(snapshot)
        assert plan(snapshot) == wanted
        _check_plan(snapshot, wanted)
        if not wanted:
            break
        assert rounds < _ROUNDS, wanted
        known = {experiment.question: experiment for experiment in snapshot.experiments}
        for one in wanted:
            # What was asked is not asked again; its answer counts for more targets then.
            before = known.pop(one.question, None)
            known[one.question] = Experiment(
                question=one.question,
                answer=before.answer if before is not None else data.draw(answers(one.question)),
                targets=tuple(dict.fromkeys((*(before.targets if before is not None else ()), *one.targets))),
                started_at=before.started_at if before is not None else NOW,
            )
        snapshot = dataclasses.replace(snapshot, experiments=tuple(reversed(known.values())))
    diagnosis = diagnose(snapshot)
    for check in CHECKS:
        check(snapshot, diagnosis)


def _check_plan(snapshot: Snapshot, wanted: tuple[Wanted, ...]) -> None:
    names = {history.name for history in snapshot.histories}
    asked = [one.question for one in wanted]
    assert len(asked) <= _PLAN_LIMIT
    assert len(set(asked)) == len(asked)
    answered = {experiment.question: set(experiment.targets) for experiment in snapshot.experiments}
    assert not [one for one in wanted if answered.get(one.question, set()) >= set(one.targets)]
    assert SECRET not in repr(wanted)
    ips = set(_allowed_ips(snapshot))
    first_labels = set(_first_labels(snapshot))
    for one in wanted:
        assert one.targets, one
        assert set(one.targets) <= names, one
        match one.question:
            case Lookup(name=name, server=server, record=record, transport=transport):
                assert server in snapshot.pod.resolver.nameservers, one
                assert name.partition(".")[0] in first_labels, one
                assert not name.endswith("."), one
                assert record in {"A", "AAAA"}, one
                assert transport in {"udp", "tcp"}, one
            case Connect(ip=ip, port=port, hops=hops):
                assert ip in ips, one
                assert 1 <= port <= 65535, one
                assert hops in {None, 1}, one
            case SmallSegments(target=target) | ServerClock(target=target):
                assert target in names, one
            case MeshProxy() | LocalNetwork():
                pass
            case _:
                pytest.fail(f"nobody said whom this asks: {one}")


def _allowed_ips(snapshot: Snapshot) -> Iterator[str]:
    """The addresses of targets' hosts and proxies as runs used them, the nameservers, the Kubernetes API."""
    yield from snapshot.pod.resolver.nameservers
    if snapshot.pod.kubernetes_api is not None:
        yield snapshot.pod.kubernetes_api[0]
    hosts = set()
    for history in snapshot.histories:
        host = history.target.options.host
        hosts.add(host.removesuffix("."))
        if _is_address(host):
            yield host
        for outcome in history.outcomes:
            yield from outcome.facts.get(Fact.ADDRESSES, ())
            sockets = [outcome.facts.get(Fact.ADDRESS), *(a["address"] for a in outcome.facts.get(Fact.ATTEMPTS, ()))]
            yield from (_ip_of(socket) for socket in sockets if socket)
    for experiment in snapshot.experiments:
        if isinstance(experiment.question, Lookup) and isinstance(experiment.answer, Looked):
            completed = {host for host in hosts if experiment.question.name in _completions(host, snapshot)}
            if completed:
                yield from experiment.answer.records


def _completions(host: str, snapshot: Snapshot) -> set[str]:
    return {host, *(f"{host}.{domain}" for domain in snapshot.pod.resolver.search)}


def _first_labels(snapshot: Snapshot) -> Iterator[str]:
    yield "kubernetes"
    for history in snapshot.histories:
        yield history.target.options.host.partition(".")[0]
        if history.target.type == "dns":
            yield history.target.options.name.partition(".")[0]
        proxy = getattr(history.target.options, "proxy", None)
        if isinstance(proxy, ProxyServer):
            yield proxy.endpoint.host.partition(".")[0]
        for outcome in history.outcomes:
            if Fact.PROXY in outcome.facts:
                yield outcome.facts[Fact.PROXY].partition("://")[2].partition(".")[0]


# --- helpers ---------------------------------------------------------------------------------------------------------


def _named(snapshot: Snapshot, verdict: Verdict) -> list[History]:
    return [history for history in snapshot.histories if history.name in verdict.targets]


def _all_text(verdict: Verdict) -> str:
    return " ".join((verdict.summary, *verdict.evidence, verdict.advice))


def _unprintable(text: str) -> list[str]:
    """Control characters, line ends, and what turns the direction of writing."""
    return [char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _ip_of(socket: str) -> str:
    return socket.rpartition(":")[0].strip("[]")


def _within_the_pod(target: Target[Any]) -> bool:
    host = target.options.host
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _stays_in_the_pod(history: History) -> bool:
    tried = _ip_of(history.outcomes[0].facts.get(Fact.ADDRESS, ""))
    return _within_the_pod(history.target) or (_is_address(tried) and ipaddress.ip_address(tried).is_loopback)


def _scope(history: History) -> Scope | None:
    """Where it lives, if what the configuration says of it and what the run saw agree."""
    scope, facts = history.target.scope, history.outcomes[0].facts
    host = history.target.options.host
    ip = _ip_of(facts[Fact.ADDRESS]) if Fact.ADDRESS in facts else host if _is_address(host) else None
    address = ipaddress.ip_address(ip) if ip is not None else None
    near = address is not None and (is_private(address) or is_on_node(address))
    elsewhere = ".svc" in facts.get(Fact.DNS_NAME, "") or near
    return None if scope is Scope.PUBLIC and elsewhere else scope


def _was_reached(history: History) -> bool:
    """Whether the target's own host answered this pod directly: no proxy, no nameserver in its place."""
    last = history.outcomes[0]
    return not (
        history.target.negative
        or history.target.type == "dns"
        or Fact.PROXY in last.facts
        or _within_the_pod(history.target)
    )


def _failed_since(history: History, snapshot: Snapshot) -> bool:
    """Whether an experiment tried the same address and got no connection."""
    tried = history.outcomes[0].facts.get(Fact.ADDRESS) or history.target.address
    return any(
        f"{question.ip}" in tried and answer.failure is not None
        for question, answer in snapshot.asked(Connect)
        if question.port == history.target.options.port
    )


def _asks_the_pods_nameservers(target: Target[Any]) -> bool:
    """A dns target that nothing but a nameserver of resolv.conf can answer."""
    return target.type == "dns" and getattr(target.options, "server", None) == "pod"
