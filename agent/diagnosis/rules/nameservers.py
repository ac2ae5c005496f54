"""What each nameserver did when it was asked last: read off the lookups of targets, and off experiments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from agent.diagnosis.experiment import Looked, Lookup
from agent.diagnosis.rules.reading import endpoint, own_nameserver
from agent.diagnosis.snapshot import History, Snapshot
from agent.model import Fact, Outcome, Phase, Reason

_LOOKED_AT = 2
"""Of the outcomes of a target, the newest: enough to tell one lost message from a nameserver that is gone."""

_ROUNDS, _ROUNDS_IF_REJECTED = 3, 2
"""How many rounds of questions in a row without an answer make a nameserver one that is gone: a few get lost."""


@dataclass(frozen=True, slots=True, order=True)
class Message:
    """One question that was sent to one nameserver."""

    sent_at: float
    """Unix time in seconds: when its round of questions began."""
    server: str
    """IP address."""
    over_tcp: bool
    answered: bool
    rejected: bool
    """An ICMP message or a RST said that nobody takes it there."""
    rcode: str
    """Of the answer; empty where there was none."""
    name: str
    record: str
    seconds: float


class Nameservers:
    """Those of resolv.conf, as seen by everything that asked them lately."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._nameservers = snapshot.pod.resolver.nameservers
        self._messages: dict[str, list[Message]] = {}
        self._quick: dict[str, float] = {}
        self.resolved_at = float("-inf")
        """When the newest lookup began that found addresses, whoever gave them."""
        for history in snapshot.histories:
            for outcome in history.outcomes[:_LOOKED_AT]:
                self._read(history, outcome)
        for experiment in snapshot.experiments:
            if isinstance(experiment.question, Lookup) and isinstance(experiment.answer, Looked):
                self._take(_asked(experiment.started_at, experiment.question, experiment.answer))
        for server, at in self._quick.items():
            if (found := endpoint(server)) is not None:
                self._take(_quick_answer(found[0], at))
        self._asked: dict[str, tuple[Message, ...]] = {}
        for server, messages in self._messages.items():
            messages.sort()
            self._asked[server] = tuple(message for message in messages if not message.over_tcp) or tuple(messages)
        self.known = tuple(dict.fromkeys((*self._nameservers, *sorted(self._messages))))
        """IP addresses: those of resolv.conf, in its order, then those that targets with a resolv.conf of their own
        asked."""

    def _read(self, history: History, outcome: Outcome) -> None:
        if own_nameserver(history.target, self._nameservers) is not None:
            return
        messages = list(messages_of(outcome)) if Fact.DNS_ATTEMPTS in outcome.facts else []
        for message in messages:
            self._take(message)
        resolved = Phase.RESOLVE in outcome.phases and Fact.HOSTS_FILE not in outcome.facts
        if resolved and (outcome.failure is None or outcome.failure.phase is not Phase.RESOLVE):
            blocked_there = (outcome.facts.get(Fact.BLOCKED_BY) or "").startswith(Phase.RESOLVE.value)
            if not blocked_there:
                self.resolved_at = max(self.resolved_at, outcome.started_at)
                if not messages:
                    self._take_quick_answer(outcome)

    def _take(self, message: Message) -> None:
        self._messages.setdefault(message.server, []).append(message)

    def _take_quick_answer(self, outcome: Outcome) -> None:
        """Of a lookup without trouble the questions are not written down: only who answered. The newest does."""
        server = outcome.facts.get(Fact.DNS_SERVER)
        if server is not None and self._quick.get(server, float("-inf")) < outcome.started_at:
            self._quick[server] = outcome.started_at

    def messages(self, server: str) -> tuple[Message, ...]:
        """Over UDP, the oldest first; over TCP where nothing else was asked."""
        return self._asked.get(server, ())

    def answers_over_tcp(self, server: str) -> bool:
        """Whether it did, when last asked."""
        over_tcp = [message for message in self._messages.get(server, []) if message.over_tcp]
        return bool(over_tcp) and over_tcp[-1].answered

    def answers(self, server: str) -> bool | None:
        """Whether it answered when it was last asked; None where it was not."""
        found = self.messages(server)
        return found[-1].answered if found else None

    def rejects(self, server: str) -> bool:
        """Whether the last question was turned away, and not left without an answer."""
        found = self.messages(server)
        return bool(found) and found[-1].rejected

    def unanswered(self, server: str) -> int:
        """How many rounds of questions it has left without an answer since its last one."""
        rounds: set[float] = set()
        for message in reversed(self.messages(server)):
            if message.answered:
                break
            rounds.add(message.sent_at)
        return len(rounds)

    def gone(self, server: str) -> bool:
        """Whether it has left so many questions without an answer that chance is no explanation."""
        return self.unanswered(server) >= (_ROUNDS_IF_REJECTED if self.rejects(server) else _ROUNDS)

    @cached_property
    def dead(self) -> tuple[str, ...]:
        """Those that left the last question without an answer."""
        return tuple(server for server in self.known if self.answers(server) is False)

    @cached_property
    def alive(self) -> tuple[str, ...]:
        """Those that answered the last question, be it with a failure."""
        return tuple(server for server in self.known if self.answers(server))

    def rounds_since(self, at: float) -> tuple[int, int]:
        """How many rounds of questions, sent then or later, have been answered, and how many have not."""
        messages = [m for server in self.known for m in self.messages(server) if m.sent_at >= at]
        answered = {(m.server, m.sent_at) for m in messages if m.answered}
        return len(answered), len({(m.server, m.sent_at) for m in messages} - answered)

    def answered_since(self, at: float) -> bool:
        """Whether any has answered a question sent then or later."""
        return self.resolved_at >= at or any(
            message.answered and message.sent_at >= at for server in self.known for message in self.messages(server)
        )


def messages_of(outcome: Outcome) -> Iterator[Message]:
    """The questions one run put down, with the time each began: A and AAAA of a name leave together."""
    sent_at, took, group = outcome.started_at, 0.0, None
    for attempt in outcome.facts.get(Fact.DNS_ATTEMPTS, ()):
        server = endpoint(attempt["server"])
        if server is None:
            continue
        asked = (attempt["server"], attempt["name"], attempt["transport"])
        if group is None or group[:3] != asked or attempt["record"] in group[3]:
            sent_at, took, group = sent_at + took, 0.0, (*asked, {attempt["record"]})
        else:
            group[3].add(attempt["record"])
        took = max(took, attempt.get("duration_seconds", 0.0))
        yield Message(
            sent_at=sent_at,
            server=server[0],
            over_tcp=attempt["transport"] == "tcp",
            answered="rcode" in attempt,
            rejected=attempt.get("error") == Reason.UNREACHABLE,
            rcode=attempt.get("rcode", ""),
            name=attempt["name"],
            record=attempt["record"],
            seconds=attempt.get("duration_seconds", 0.0),
        )


def _quick_answer(server: str, at: float) -> Message:
    return Message(
        sent_at=at,
        server=server,
        over_tcp=False,
        answered=True,
        rejected=False,
        rcode="NOERROR",
        name="",
        record="A",
        seconds=0.0,
    )


def ended_unanswered(outcome: Outcome) -> bool:
    """Whether nobody answered for the last name a lookup asked for; or its questions are not known."""
    messages = list(messages_of(outcome))
    return not any(m.answered for m in messages if m.name == messages[-1].name)


def stuck(outcome: Outcome) -> bool:
    """Whether a lookup ended at a name that nobody answered for, and spent most of its time on it."""
    messages = list(messages_of(outcome))
    last = [m for m in messages if m.name == messages[-1].name] if messages else []
    if not last or any(m.answered for m in last):
        return False
    spent = sum({m.sent_at: m.seconds for m in last}.values())
    return 2 * spent >= sum({m.sent_at: m.seconds for m in messages}.values())


def _asked(at: float, question: Lookup, answer: Looked) -> Message:
    return Message(
        sent_at=at,
        server=question.server,
        over_tcp=question.transport == "tcp",
        answered=answer.rcode is not None,
        rejected=answer.error is Reason.UNREACHABLE,
        rcode=answer.rcode or "",
        name=question.name,
        record=question.record,
        seconds=0.0,
    )
