"""The rules, in order, and what they make of a snapshot.

A rule looks at a case and yields verdicts over failing targets nobody has explained yet, or over working ones that show
something. Whatever an earlier rule has explained, a later one does not see: the order is the precedence. What no rule
explains is `unknown`, so that every failing target has exactly one verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TypeVar

from agent.diagnosis.experiment import Question
from agent.diagnosis.rules import (
    addresses,
    certificates,
    clocks,
    content,
    database,
    hosts,
    lookups,
    mesh,
    missing,
    names,
    own,
    pace,
    ports,
    proxies,
    scopes,
    stall,
    tls,
)
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnosis.snapshot import Snapshot
from agent.diagnosis.verdict import Diagnosis, Verdict

T = TypeVar("T")
Steps = Generator[None, None, T]
Rule = Callable[[Case], Iterable[Verdict]]
Planner = Callable[[Case], Iterable[Wanted]]

RULES: Sequence[Rule] = (
    # netprobe itself, and what stands between it and everything else.
    own.misconfigured,
    own.starved,
    mesh.not_ready,
    # Losses that come and go would pass for a fault of whatever they hit last.
    pace.packet_loss,
    # Nothing at all.
    scopes.network_down,
    # Names.
    lookups.retried,
    names.unreachable,
    names.nameserver_down,
    names.failing,
    missing.not_found,
    lookups.ran_out_over_a_retry,
    lookups.long_walk,
    names.silent_for_some,
    # What can be reached, and fails by itself.
    proxies.unknown_proxy,
    proxies.unreachable_proxy,
    proxies.denied,
    proxies.wants_credentials,
    proxies.no_way_onwards,
    proxies.hangs_up,
    database.says_no,
    clocks.clock_skew,
    certificates.interception,
    certificates.certificates,
    tls.plain_text_on_tls_port,
    tls.tls_on_plain_text_port,
    tls.protocol,
    mesh.no_upstream,
    mesh.connect_alone,
    tls.tls_on_plain_text_port_suspected,
    tls.ended_handshakes,
    content.captive_portal,
    content.login_page,
    content.credentials,
    content.denied,
    content.server_error,
    tls.plain_text_on_tls_port_suspected,
    content.broken_off,
    content.another_language,
    content.unexpected,
    stall.large_packets_lost,
    # What comes and goes. An address that is dead among others makes a target come and go.
    addresses.ipv6_broken,
    addresses.one_address_dead,
    pace.flapping,
    stall.silence,
    # What cannot be reached, the broader cause before the narrower.
    hosts.policy_not_enforced,
    addresses.no_route_here,
    scopes.egress_blocked,
    scopes.cluster_blocked,
    scopes.private_unreachable,
    ports.wrong_port,
    ports.service_without_endpoints,
    hosts.hardcoded_address,
    addresses.no_route,
    ports.nothing_listening,
    hosts.target_blocked,
    hosts.momentary,
    # What works, and is not as it should be.
    clocks.wrong_clock,
    pace.slow,
    pace.network_not_ready,
)
"""The first has precedence."""
PLANNERS: Sequence[Planner] = (
    mesh.look_for_proxy,
    scopes.planner,
    names.planner,
    clocks.ask_for_the_time,
    stall.try_small_segments,
    hosts.planner,
    addresses.planner,
    missing.planner,
)
"""What tells causes apart, the most telling first: the budget may not suffice for all."""


def diagnose(snapshot: Snapshot) -> Diagnosis:
    """Explain every failing target by exactly one verdict, and name what stands out where none fails."""
    return _whole(diagnosing(snapshot))


def diagnosing(snapshot: Snapshot) -> Steps[Diagnosis]:
    """The same, rule by rule, for whoever has other things to do in between."""
    case = Case(snapshot)
    for rule in RULES:
        for verdict in rule(case):
            case.settle(verdict)
        yield
    case.settle_the_rest()
    return Diagnosis(case.verdicts)


def plan(snapshot: Snapshot) -> tuple[Wanted, ...]:
    """The questions whose answers would tell more, the most telling first, without those answered for these targets."""
    return _whole(planning(snapshot))


def planning(snapshot: Snapshot) -> Steps[tuple[Wanted, ...]]:
    """The same, planner by planner."""
    case = Case(snapshot)
    answered: dict[Question, set[str]] = {}
    for experiment in snapshot.experiments:
        answered.setdefault(experiment.question, set()).update(experiment.targets)
    wanted: dict[Question, dict[str, None]] = {}
    for planner in PLANNERS:
        for one in planner(case):
            wanted.setdefault(one.question, {}).update(dict.fromkeys(one.targets))
        yield
    return tuple(
        Wanted(question, tuple(targets))
        for question, targets in wanted.items()
        if not targets.keys() <= answered.get(question, set())
    )


def _whole(steps: Steps[T]) -> T:
    """Take every step at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
