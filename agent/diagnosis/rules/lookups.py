"""Lookups that take long: messages that get lost, walks through the search list, slow nameservers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent.diagnosis.rules.case import Case
from agent.diagnosis.rules.nameservers import Message, messages_of, stuck
from agent.diagnosis.rules.reading import moments, names, settled, some
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Outcome, Phase, Reason
from agent.wording import count, seconds

_REMEMBERED_SECONDS = 60.0
_MOMENTS = 2
"""How many separate moments must show a lost message, unless a run failed by it."""
_BY_CHANCE = 2
"""How many failures in a row lost messages explain."""
_SURE = {1: Confidence.LOW, _MOMENTS: Confidence.MEDIUM}
_MANY_QUESTIONS = 6
_MUCH_SECONDS = 0.4


def retried(case: Case) -> Iterator[Verdict]:
    """Lookups that get their answer at a second try, now and again, or whose time runs out over it."""
    failing, late, times = _seen(case)
    if times < _MOMENTS:
        return
    shown = {*late, *(h.name for h in failing if h.failures_in_a_row <= _BY_CHANCE)}
    yield from _losing([h for h in case.snapshot.histories if h.name in shown], late, times, case)


def ran_out_over_a_retry(case: Case) -> Iterator[Verdict]:
    """The same, seen once, by a lookup that failed."""
    failing, late, times = _seen(case)
    yield from _losing([h for h in failing if any(_lost(h.outcomes[0], case))], late, times, case)


def _seen(case: Case) -> tuple[list[History], Mapping[str, list[Outcome]], int]:
    """Lookups that met the deadline; by target, runs that lost messages; at how many separate moments that was."""
    failing = [h for h in case.unexplained if _timed_out(h, case)]
    late = {h.name: found for h in (*failing, *case.unremarked) if (found := _late(h, case))}
    ended = (o.started_at + o.phases.get(Phase.RESOLVE, 0.0) for found in late.values() for o in found)
    # The end of an outage lets many lookups have their second try, all within the resolver's patience.
    return failing, late, moments(ended, 1.2 * case.snapshot.pod.resolver.timeout_seconds)


def _losing(
    affected: Sequence[History], late: Mapping[str, list[Outcome]], times: int, case: Case
) -> Iterator[Verdict]:
    if not affected:
        return
    runs = [outcome for found in late.values() for outcome in found]
    lost = [message for outcome in runs for message in _lost(outcome, case)]
    rounds = {(m.sent_at, m.server, m.name) for m in lost}
    patience = seconds(case.snapshot.pod.resolver.timeout_seconds)
    took = max((o.phases.get(Phase.RESOLVE, 0.0) for o in runs), default=0.0)
    evidence = [
        f"lookups took up to {seconds(took)}; resolv.conf waits {patience} a try",
        *(_lost_by(server, lost) for server in sorted({m.server for m in lost})),
    ]
    if len(lost) == len(rounds):
        evidence.append("one of A and AAAA is lost at a time, never both: the mark of a race in connection tracking")
    yield Verdict(
        cause=Cause.DNS_SLOW,
        confidence=_SURE.get(times, Confidence.HIGH),
        targets=names(affected),
        summary=f"Lookups lose messages and wait {patience} for the resolver's next try: "
        f"{count(len(rounds), 'question')} of {some(names(affected))} went unanswered within a minute, and were "
        "answered when asked again.",
        evidence=tuple(evidence),
        advice="Run a node-local DNS cache (NodeLocal DNSCache), or have lookups go over TCP: dnsConfig options "
        "`use-vc`; where only one of A and AAAA is lost, `single-request-reopen` helps. `conntrack -S` on the node "
        "counts insert_failed.",
    )


def _late(history: History, case: Case) -> list[Outcome]:
    since = case.snapshot.at - _REMEMBERED_SECONDS
    return [o for o in history.outcomes if o.started_at > since and any(_lost(o, case))]


def _lost(outcome: Outcome, case: Case) -> Iterator[Message]:
    """Questions left without an answer, and answered when asked again, by nameservers that answer others."""
    if Fact.DNS_ATTEMPTS not in outcome.facts:
        return
    messages = list(messages_of(outcome))
    answering = {*case.nameservers.alive, *(m.server for m in messages if m.answered)}
    answered = {(m.name, m.record) for m in messages if m.answered}
    for message in messages:
        lost = not message.answered and not message.rejected and message.server in answering
        if lost and (message.name, message.record) in answered:
            yield message


def _lost_by(server: str, lost: Sequence[Message]) -> str:
    questions = count(sum(m.server == server for m in lost), "question")
    return f"nameserver {server} left {questions} unanswered, and answers others"


def _timed_out(history: History, case: Case) -> bool:
    failure = history.failure
    return failure is not None and case.lookup_failed(history) and failure.reason is Reason.TIMEOUT


def _out_of_time(history: History, case: Case) -> bool:
    """Its lookup met the deadline although nameservers answered its questions."""
    last = history.outcomes[0]
    if not _timed_out(history, case) or not any(message.answered for message in messages_of(last)):
        return False
    return not stuck(last) and not any(_lost(last, case))


def long_walk(case: Case) -> Iterator[Verdict]:
    """Lookups that take their time although every question is answered: many questions, or slow answers."""
    found = [h for h in case.unexplained if _out_of_time(h, case)]
    found += [h for h in case.unremarked if len(h.outcomes) > 1 and all(_stormy(o) for o in h.outcomes[:2])]
    shown = set(names(found))
    found = [h for h in case.snapshot.histories if h.name in shown]
    if not found:
        return
    worst = max(found, key=lambda h: (h.outcomes[0].phases.get(Phase.RESOLVE, 0.0), h.name)).outcomes[0]
    questions = [*messages_of(worst)]
    asked = list(dict.fromkeys(m.name for m in questions))
    mean = sum(m.seconds for m in questions) / max(1, len(questions))
    resolver = case.snapshot.pod.resolver
    many = len(asked) > 2  # noqa: PLR2004 - the name itself, and one more
    what = (
        f"{count(len(questions), 'question')} for {count(len(asked), 'name')}, one after the other"
        if many
        else f"an answer takes {seconds(mean)}"
    )
    yield Verdict(
        cause=Cause.DNS_SLOW,
        confidence=settled(found, agreed=any(h.failure is None for h in found)),
        targets=names(found),
        summary=f"Looking up {some(names(found))} takes {seconds(worst.phases.get(Phase.RESOLVE, 0.0))} of "
        f"{seconds(worst.target.timeout_seconds)}: {what}.",
        evidence=(
            f"{worst.target.name} asked for {some(asked, 5)}",
            (
                f"an answer took {seconds(mean)} in the mean; resolv.conf has ndots:{resolver.ndots} and "
                f"{count(len(resolver.search), 'search domain')}"
            ),
            *(f"{h.name}: its lookup took {seconds(h.outcomes[0].phases.get(Phase.RESOLVE, 0.0))}" for h in found[:3]),
        ),
        advice=(
            'Spare names with a dot the search list: `dnsConfig: {options: [{name: ndots, value: "1"}]}` in the pod '
            "template, or a trailing dot in the address (`api.example.com.`). "
            if many
            else ""
        )
        + "A node-local DNS cache makes each answer quick; see how loaded the cluster's DNS is: `kubectl -n "
        "kube-system top pod -l k8s-app=kube-dns`.",
    )


def _stormy(outcome: Outcome) -> bool:
    took = outcome.phases.get(Phase.RESOLVE, 0.0)
    if outcome.failure is not None or took < _MUCH_SECONDS or 2 * took < outcome.duration_seconds:
        return False
    if Fact.STARVED in outcome.facts:
        return False
    return len(outcome.facts.get(Fact.DNS_ATTEMPTS, ())) >= _MANY_QUESTIONS
