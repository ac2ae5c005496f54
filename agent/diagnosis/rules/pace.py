"""Failures and delays that come and go: lost packets, flapping, slow answers, a network that was not ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.diagnosis.rules.case import Case
from agent.diagnosis.rules.nameservers import messages_of
from agent.diagnosis.rules.reading import (
    OF_THE_NETWORK,
    ended_at,
    moments,
    names,
    seen,
    some,
    within_pod,
)
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Outcome, Phase, Reason
from agent.wording import count, seconds

_REMEMBERED_SECONDS = 60.0

# --- lost packets ----------------------------------------------------------------------------------------------------

_RUNS = 6
"""How many intervals of a target are looked back at, if that is more than a minute."""
_LATE, _LATE_SHARE = 2, 0.2
"""How many runs of a target, and which part of them, must have lost something: now and then any network does."""
_RESENT_SHARE = 1 / 3
"""Which part of these must have lost segments of TCP: the kernel sends one in vain now and then."""
_MOMENTS = 3
"""How many separate moments must show a loss. The end of an outage lets late connections stand for up to 4 s."""
_APART_SECONDS = 2.5
_ROW = 2
"""How many failures in a row may be chance; more have a cause of their own."""
_SYN_SECONDS = 0.95
"""Linux sends a lost SYN again after 1 s (RFC 6298 section 2.1)."""


def packet_loss(case: Case) -> Iterator[Verdict]:
    """Runs that succeed after segments or questions were sent again, and timeouts here and there."""
    late: dict[str, list[Outcome]] = {}
    for history in case.snapshot.histories:
        recent = _recent(history, case)
        found = [o for o in recent if _lost_something(o)]
        if len(found) >= _LATE and len(found) >= _LATE_SHARE * len(recent) and not within_pod(history):
            late[history.name] = found
    runs = [outcome for found in late.values() for outcome in found]
    resent = [o for o in runs if Fact.RETRANSMITTED_SEGMENTS in o.facts]
    if len(resent) < _LATE or len(resent) < _RESENT_SHARE * len(runs):
        return  # lookups alone lose something: agent.diagnosis.rules.lookups
    if moments((_established_at(o) for o in runs), _APART_SECONDS) < _MOMENTS:
        return
    if len(late) == 1 and any(_flaps(h) for h in case.snapshot.histories if h.name in late):
        return  # its connections are late where each silence ends
    failing = [h for h in case.unexplained if _by_chance(h)]
    shown = {h.name for h in failing} | {h.name for h in case.unremarked if h.name in late}
    affected = [h for h in case.snapshot.histories if h.name in shown]
    if affected:
        yield _loss(affected, failing, runs, resent, case)


def _loss(
    affected: Sequence[History],
    failing: Sequence[History],
    late: Sequence[Outcome],
    resent: Sequence[Outcome],
    case: Case,
) -> Verdict:
    names_of_late = {o.target.name for o in late}
    looked_at = sum(len(_recent(h, case)) for h in case.snapshot.histories if h.name in names_of_late)
    segments = sum(o.facts[Fact.RETRANSMITTED_SEGMENTS] for o in resent)
    evidence = [
        (
            f"{len(late)} of the last {looked_at} runs of {some(sorted(names_of_late))} succeeded only after something "
            f"was sent again: {count(segments, 'TCP segment')}"
        )
    ]
    worst = max(resent, key=lambda o: (o.phases.get(Phase.CONNECT, 0.0), o.started_at))
    if (took := worst.phases.get(Phase.CONNECT, 0.0)) > _SYN_SECONDS:
        evidence.append(f"{worst.target.name} connected after {seconds(took)}: Linux sends a lost SYN again after 1 s")
    if retried := sum(_second_try(o) for o in late):
        evidence.append(f"{count(retried, 'lookup')} got an answer at a later try only")
    tables = case.standings.tables
    if tables is not None and tables.retransmitted_segments:
        sent = f"{tables.retransmitted_segments} of {tables.sent_segments}"
        evidence.append(f"this pod sent {sent} TCP segments again lately, those of the task included")
    certain = len(late) >= 2 * _MOMENTS
    return Verdict(
        cause=Cause.PACKET_LOSS,
        confidence=Confidence.HIGH if certain else Confidence.MEDIUM,
        targets=names(affected),
        summary=f"Packets get lost on the way to {some(names(affected))}: runs succeed only after retransmissions"
        + (", and some time out." if failing else "."),
        evidence=tuple(evidence + [seen(h) for h in failing[:3]]),
        advice="See whether it is this node or everywhere: compare netprobe on other nodes "
        "(`netprobe_phase_duration_seconds` of connect). On the node: `ip -s link`, `ethtool -S`, `conntrack -S` "
        "(drop, insert_failed), and the CPU of softirq; with a VPN in between, its own losses.",
    )


def _recent(history: History, case: Case) -> list[Outcome]:
    if history.target.negative:
        return []
    since = case.snapshot.at - max(_REMEMBERED_SECONDS, _RUNS * history.target.interval_seconds)
    return [outcome for outcome in history.outcomes if outcome.started_at > since]


def _lost_something(outcome: Outcome) -> bool:
    """Whether it succeeded, and took a second try of TCP or of a lookup."""
    if outcome.failure is not None or Fact.STARVED in outcome.facts:
        return False
    return Fact.RETRANSMITTED_SEGMENTS in outcome.facts or _second_try(outcome)


def _established_at(outcome: Outcome) -> float:
    return outcome.started_at + outcome.phases.get(Phase.RESOLVE, 0.0) + outcome.phases.get(Phase.CONNECT, 0.0)


def _second_try(outcome: Outcome) -> bool:
    if Fact.DNS_ATTEMPTS not in outcome.facts:
        return False
    messages = list(messages_of(outcome))
    answered = {m.server for m in messages if m.answered}
    return any(not m.answered and not m.rejected and m.server in answered for m in messages)


def _by_chance(history: History) -> bool:
    """A timeout among successes."""
    failure = history.failure
    if failure is None or failure.reason is not Reason.TIMEOUT or history.target.negative or within_pod(history):
        return False
    return history.failures_in_a_row <= _ROW and len(history.outcomes) > history.failures_in_a_row


# --- by turns --------------------------------------------------------------------------------------------------------

_CHANGES = 3


def flapping(case: Case) -> Iterator[Verdict]:
    """Targets that fail in the network and answer by turns."""
    failing = [h for h in case.unexplained if _flaps(h)]
    working = [h for h in case.unremarked if _flaps(h)]
    shown = {h.name for h in (*failing, *working)}
    found = [h for h in case.snapshot.histories if h.name in shown]
    if not found:
        return
    most = max(found, key=lambda h: (h.changes, h.name))
    failures = [o for o in most.outcomes if o.failure is not None]
    how = sorted({f"{o.failure.phase}/{o.failure.reason}" for o in failures if o.failure is not None})
    yield Verdict(
        cause=Cause.FLAPPING,
        confidence=Confidence.HIGH if most.changes > _CHANGES else Confidence.MEDIUM,
        targets=names(found),
        summary=f"{some(names(found))} {'fails' if len(found) == 1 else 'fail'} and "
        f"{'answers' if len(found) == 1 else 'answer'} by turns: {most.name} changed {most.changes} times within its "
        f"last {len(most.outcomes)} runs.",
        evidence=(
            *(_turns(h) for h in found[:4]),
            f"{most.name} failed with {some(how)}",
            *(seen(h) for h in failing[:2]),
        ),
        advice="One of several pods or hosts behind the address may be bad: `kubectl get endpointslices` and the "
        "readiness of each pod; a server that restarts again and again: `kubectl get pods` (RESTARTS); a limit on "
        "connections that is met at times.",
    )


def _flaps(history: History) -> bool:
    if history.changes < _CHANGES or history.target.negative:
        return False
    failures = [o for o in history.outcomes if o.failure is not None]
    ours = [o for o in failures if Fact.STARVED in o.facts]
    return len(ours) < len(failures) and all(
        o.failure.reason in OF_THE_NETWORK for o in failures if o.failure is not None
    )


def _turns(history: History) -> str:
    """The remembered outcomes, the oldest first."""
    signs = " ".join("ok" if o.success else "failed" for o in reversed(history.outcomes))
    return f"{history.name}: {signs}"


# --- slow ------------------------------------------------------------------------------------------------------------


def slow(case: Case) -> Iterator[Verdict]:
    """Targets whose last two runs took more than half of the time they have."""
    found = [h for h in case.unremarked if len(h.outcomes) > 1 and all(_took_long(o) for o in h.outcomes[:2])]
    if not found:
        return
    yield Verdict(
        cause=Cause.SLOW,
        confidence=Confidence.HIGH,
        targets=names(found),
        summary=f"{some(names(found))} {'answers' if len(found) == 1 else 'answer'} within the timeout, and "
        f"{'needs' if len(found) == 1 else 'need'} more than half of it.",
        evidence=tuple(_where(h.outcomes[0]) for h in found[:5]),
        advice="The phase that takes the time says where to look: connect or resolve is the network, tls, login, "
        "request and transfer are mostly the server. If that is how it is, raise the target's timeout.",
    )


def _took_long(outcome: Outcome) -> bool:
    target = outcome.target
    if outcome.failure is not None or target.negative or outcome.facts.get(Fact.STARVED):
        return False
    return 2 * outcome.duration_seconds > target.timeout_seconds


def _where(outcome: Outcome) -> str:
    whole = f"{seconds(outcome.duration_seconds)} of {seconds(outcome.target.timeout_seconds)}"
    if not outcome.phases:
        return f"{outcome.target.name} took {whole}"
    phase, took = max(outcome.phases.items(), key=lambda item: item[1])
    return f"{outcome.target.name} took {whole}, most of it in {phase} ({seconds(took)})"


# --- not ready -------------------------------------------------------------------------------------------------------

_YOUNG_SECONDS = 300.0
_FIRST_SECONDS = 60.0
_NEARLY_ALL = 0.8
_SEVERAL = 2


def network_not_ready(case: Case) -> Iterator[Verdict]:
    """The pod's first runs failed in the network, all together, and none since."""
    snapshot = case.snapshot
    if snapshot.pod_age_seconds > _YOUNG_SECONDS:
        return
    outside = [h for h in snapshot.histories if h.outcomes and not h.target.negative and not within_pod(h)]
    groups = [
        outside,
        *([h for h in outside if h.target.scope is scope] for scope in sorted({h.target.scope for h in outside})),
    ]
    for group in groups:
        found = _late_start(group, case)
        if found is not None:
            yield found
            return


def _late_start(group: Sequence[History], case: Case) -> Verdict | None:
    started = case.snapshot.pod.started_at
    unremarked = set(names(case.unremarked))
    found = [h for h in group if h.name in unremarked and _began_badly(h, started)]
    if len(found) < _SEVERAL:
        return None
    failures = [o for h in found for o in (*h.outcomes, *h.earlier_failures) if o.failure is not None]
    last = max(o.started_at for o in failures)
    asked = [h for h in group if _first(h).started_at <= last]
    if len(found) < _NEARLY_ALL * len(asked):
        return None
    until = max(ended_at(o) for o in failures) - started
    how = sorted({f"{o.failure.phase}/{o.failure.reason}" for o in failures if o.failure is not None})
    return Verdict(
        cause=Cause.NETWORK_NOT_READY,
        confidence=Confidence.HIGH if len(found) > _SEVERAL else Confidence.MEDIUM,
        targets=names(found),
        summary=f"The network was not ready when this pod started: for the first {seconds(until)} "
        f"{count(len(found), 'target')} failed together, and all is well since.",
        evidence=(
            (
                f"{count(len(failures), 'run')} failed with {some(how)}, the last of them {seconds(last - started)} "
                "after the start"
            ),
            f"of {count(len(asked), 'target')} asked by then, {len(found)} failed from the first run on",
        ),
        advice="A task that connects at once fails though nothing is wrong: give it retries, or start it once "
        "netprobe is ready (as a native sidecar with a startupProbe on /startupz). Network policies and routes of new "
        "pods are programmed late on busy nodes: the CNI's logs show how late.",
    )


def _first(history: History) -> Outcome:
    return history.first or history.outcomes[-1]


def _began_badly(history: History, started_at: float) -> bool:
    """Whether it failed in the network from its first run on, for a while, and never since."""
    failures = [o for o in (*history.outcomes, *history.earlier_failures) if o.failure is not None]
    return (
        not _first(history).success
        and history.changes <= 1
        and all(_in_network(o) and started_at <= o.started_at < started_at + _FIRST_SECONDS for o in failures)
    )


def _in_network(outcome: Outcome) -> bool:
    failure = outcome.failure
    if failure is None or Fact.STARVED in outcome.facts:
        return False
    return failure.phase in {Phase.RESOLVE, Phase.CONNECT, Phase.PROXY} or failure.reason in OF_THE_NETWORK
