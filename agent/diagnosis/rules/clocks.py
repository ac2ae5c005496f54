"""The clock of this node: a wrong one makes valid certificates look expired, or not valid yet."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from agent.diagnosis.experiment import Clock, ServerClock
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnosis.rules.reading import names, some
from agent.diagnosis.rules.saying import domain, fact, failed_in_tls, failures, host, latest, validity
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Reason
from agent.wording import period

_DATES = frozenset({Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_NOT_YET_VALID})

SKEW_SECONDS = 60
"""Clocks of nodes that keep time are apart by much less."""
HARMFUL_SKEW_SECONDS = 300
"""From here on a wrong clock breaks what is signed with the time: requests to AWS, Kerberos tickets, tokens."""
_AGREE_SECONDS = 60
"""Servers that tell the right time agree to this much."""
_SEVERAL = 2
_ASKED = 3


def clock_skew(case: Case) -> Iterator[Verdict]:
    """Certificates that are out of date by this node's clock, and in date by the servers'."""
    dated = [history for history in case.unexplained if failed_in_tls(history, _DATES)]
    if not dated:
        return
    opinions = _opinions(case)
    agreed = _agreed(opinions.values())
    if agreed is not None:
        cured = [history for history in dated if _valid_at(history, case.snapshot.at - agreed)]
        if cured:
            asked = [name for name, ahead in opinions.items() if abs(ahead - agreed) <= _AGREE_SECONDS]
            yield _skewed(cured, agreed, asked, opinions)
        return
    if not opinions:
        early = [history for history in dated if latest(history)[1].reason is Reason.CERTIFICATE_NOT_YET_VALID]
        if len({domain(host(history)) for history in early}) >= _SEVERAL:
            yield Verdict(
                cause=Cause.CLOCK_SKEW,
                confidence=Confidence.MEDIUM,
                targets=names(early),
                summary=f"The certificates of {some(map(host, early))} are all not valid yet, which unrelated "
                "servers do not get wrong at once: the clock of this node is probably behind.",
                evidence=(*failures(early), *(validity(history) for history in early)),
                advice=_CLOCK_ADVICE,
            )
        return
    own = {host(history): opinions[host(history)] for history in dated if host(history) in opinions}
    if set(own) == set(opinions) and len(own) == 1:
        ((name, ahead),) = own.items()
        alone = [history for history in dated if host(history) == name]
        if abs(ahead) >= SKEW_SECONDS and all(_valid_at(history, case.snapshot.at - ahead) for history in alone):
            yield Verdict(
                cause=Cause.CLOCK_SKEW,
                confidence=Confidence.MEDIUM,
                targets=names(alone),
                summary=f"The clock of this node is {_apart(ahead)} that of {name}, by which its certificate is "
                "valid: one of the two clocks is wrong, and no other server has told the time.",
                evidence=(*failures(alone), *(validity(history) for history in alone), _told(name, ahead)),
                advice=_CLOCK_ADVICE,
            )


_CLOCK_ADVICE = (
    "Compare the node's clock with a server you trust: `date -u; curl -sI https://SERVER/ | grep -i ^date` (with -k "
    "while its certificate is refused). If the node is wrong, repair its time synchronisation there: `chronyc "
    "tracking; chronyc makestep`, or `timedatectl status`; a pod cannot set the clock, cordon the node meanwhile."
)


def _skewed(
    histories: Sequence[History], ahead: float, agreeing: Sequence[str], opinions: Mapping[str, float]
) -> Verdict:
    certificates = "certificates look" if len(histories) > 1 else "a certificate looks"
    verb = "expired" if latest(histories[0])[1].reason is Reason.CERTIFICATE_EXPIRED else "not yet valid"
    return Verdict(
        cause=Cause.CLOCK_SKEW,
        confidence=Confidence.HIGH,
        targets=names(histories),
        summary=f"The clock of this node is wrong: it is {_apart(ahead)} those of {some(agreeing)}, so that "
        f"{certificates} {verb}.",
        evidence=(*(_told(name, opinions[name]) for name in agreeing), *failures(histories), *map(validity, histories)),
        advice=_CLOCK_ADVICE,
    )


def wrong_clock(case: Case) -> Iterator[Verdict]:
    """A clock that is wrong while nothing fails for it yet."""
    told = {
        host(history): (history, float(ahead))
        for history in case.unremarked
        if (ahead := fact(history, Fact.CLOCK_AHEAD_SECONDS)) is not None
    }
    agreed = _agreed([ahead for _, ahead in told.values()])
    if agreed is None or abs(agreed) < HARMFUL_SKEW_SECONDS:
        return
    showing = [history for history, ahead in told.values() if abs(ahead - agreed) <= _AGREE_SECONDS]
    yield Verdict(
        cause=Cause.CLOCK_SKEW,
        confidence=Confidence.MEDIUM,
        targets=names(showing),
        summary=f"The clock of this node is {_apart(agreed)} those of {some(map(host, showing))}; nothing fails for "
        "it yet, but signed requests, tokens and young certificates will.",
        evidence=tuple(_told(name, ahead) for name, (_, ahead) in told.items()),
        advice=_CLOCK_ADVICE,
    )


def _opinions(case: Case) -> dict[str, float]:
    """By how many seconds this node's clock is ahead of each server's that has told the time."""
    told: dict[str, list[tuple[bool, float, float]]] = {}
    for history in case.snapshot.histories:
        said = told.setdefault(host(history), [])
        ahead = fact(history, Fact.CLOCK_AHEAD_SECONDS)
        if ahead is not None:
            said.append((True, history.outcomes[0].started_at, float(ahead)))
        for experiment in case.snapshot.experiments:
            answer = experiment.answer
            about = isinstance(experiment.question, ServerClock) and history.name in experiment.targets
            if about and isinstance(answer, Clock) and answer.ahead_seconds is not None:
                said.append((False, experiment.started_at, answer.ahead_seconds))
    # A run's own word before that of an experiment, and the newest of either.
    return {name: max(said)[2] for name, said in told.items() if said}


def _agreed(opinions: Iterable[float]) -> float | None:
    """What most servers say, where at least two agree that this node's clock is off; None where they do not."""
    several = list(opinions)
    off = [ahead for ahead in several if abs(ahead) >= SKEW_SECONDS]
    if not off:
        return None
    middle = statistics.median(off)
    agreeing = sum(abs(ahead - middle) <= _AGREE_SECONDS for ahead in off)
    return middle if agreeing >= _SEVERAL and agreeing * 2 > len(several) else None


def _valid_at(history: History, moment: float) -> bool:
    """Whether the certificate that was shown is valid at a moment, as far as it is known."""
    begins, ends = fact(history, Fact.CERTIFICATE_NOT_BEFORE), fact(history, Fact.CERTIFICATE_EXPIRES_AT)
    if latest(history)[1].reason is Reason.CERTIFICATE_EXPIRED:
        return ends is not None and moment < ends
    return begins is not None and moment >= begins


def _apart(ahead: float) -> str:
    return f"{period(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'}"


def _told(name: str, ahead: float) -> str:
    return f"By the Date of {name}, this node's clock is {_apart(ahead)} the server's."


def ask_for_the_time(case: Case) -> Iterator[Wanted]:
    """The time at servers whose certificates are out of date, and at others to compare with."""
    dated = [history for history in case.unexplained if failed_in_tls(history, _DATES)]
    for history in dated[:_ASKED]:
        yield Wanted(ServerClock(history.name), names(dated))
