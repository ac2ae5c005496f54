"""Lookups that take long: messages that get lost, walks through the search list, slow nameservers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.diagnosis.rules.case import Case
from agent.diagnosis.rules.nameservers import Message, messages_of, stuck
from agent.diagnosis.rules.reading import moments, names, settled, some
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Outcome, Phase, Reason
from agent.wording import count, seconds

_REMEMBERED_SECONDS = 60.0
_MOMENTS = 2
"""How many separate moments must show a lost message."""
_MANY_QUESTIONS = 6
_MUCH_SECONDS = 0.4


def retried(case: Case) -> Iterator[Verdict]:
    """Lookups that got their answer at a second try, or whose time ran out over it."""
    since = case.snapshot.at - _REMEMBERED_SECONDS
    candidates = {h.name for h in case.unexplained if _timed_out(h, case)} | {h.name for h in case.unremarked}
    found: list[History] = []
    lost: list[Message] = []
    for history in case.snapshot.histories:
        if history.name not in candidates:
            continue
        messages = [m for o in history.outcomes if o.started_at > since for m in _lost(o, case)]
        if messages:
            found.append(history)
            lost += messages
    rounds = {(m.sent_at, m.server, m.name) for m in lost}
    patience = case.snapshot.pod.resolver.timeout_seconds
    late = [o for h in found for o in h.outcomes if o.started_at > since and any(_lost(o, case))]
    # The end of an outage lets many lookups have their second try, all within the resolver's patience.
    times = moments((o.started_at + o.phases.get(Phase.RESOLVE, 0.0) for o in late), 1.2 * patience)
    if times < _MOMENTS:
        return
    alone = {record: sum(m.record == record for m in lost) for record in ("A", "AAAA")}
    pair = sum(alone.values()) == len(rounds)
    took = [
        o.phases.get(Phase.RESOLVE, 0.0)
        for h in found
        for o in h.outcomes
        if o.started_at > since and any(_lost(o, case))
    ]
    patience = case.snapshot.pod.resolver.timeout_seconds
    yield Verdict(
        cause=Cause.DNS_SLOW,
        confidence=Confidence.HIGH if times > _MOMENTS else Confidence.MEDIUM,
        targets=names(found),
        summary=f"Lookups lose messages and wait {seconds(patience)} for the resolver's next try: "
        f"{count(len(rounds), 'question')} of {some(names(found))} went unanswered within a minute, and were answered "
        "when asked again.",
        evidence=(
            f"lookups took up to {seconds(max(took, default=0.0))}; resolv.conf waits {seconds(patience)} a try",
            *(f"{_lost_by(server, lost)}" for server in sorted({m.server for m in lost})),
            *(
                ("always one of A and AAAA is lost, not both: a known race in the node's connection tracking",)
                if pair
                else ()
            ),
        ),
        advice="Run a node-local DNS cache (NodeLocal DNSCache), or have lookups go over TCP: dnsConfig options "
        "`use-vc`; where "
        "only one of A and AAAA is lost, `single-request-reopen` helps. `conntrack -S` on the node counts "
        "insert_failed.",
    )


def _lost(outcome: Outcome, case: Case) -> Iterator[Message]:
    """Questions left without an answer, and answered when asked again, by nameservers that answer others."""
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
    return _timed_out(history, case) and any(m.answered for m in messages_of(last)) and not stuck(last)


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
        else f"nameservers that take {seconds(mean)} to answer"
    )
    yield Verdict(
        cause=Cause.DNS_SLOW,
        confidence=settled(found),
        targets=names(found),
        summary=f"Looking up {some(names(found))} takes {what}: "
        f"{seconds(worst.phases.get(Phase.RESOLVE, 0.0))} of {seconds(worst.target.timeout_seconds)}.",
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
        + "A node-local DNS cache makes each answer quick; see how loaded the cluster's DNS is: "
        "`kubectl -n kube-system top pod -l k8s-app=kube-dns`.",
    )


def _stormy(outcome: Outcome) -> bool:
    took = outcome.phases.get(Phase.RESOLVE, 0.0)
    if outcome.failure is not None or took < _MUCH_SECONDS or 2 * took < outcome.duration_seconds:
        return False
    if Fact.STARVED in outcome.facts:
        return False
    return len(outcome.facts.get(Fact.DNS_ATTEMPTS, ())) >= _MANY_QUESTIONS
