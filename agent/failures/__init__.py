"""From an exception to a failure: the one border where foreign exceptions become a phase, a reason and a sentence.

One module a library; `CLASSIFIERS` is asked in order and the first that knows the exception answers. What none of
them knows is `internal`: a defect of ours, and the tests enumerate the libraries' exceptions so that nothing known ends
there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.failures import http, names, network, postgres, tls
from agent.failures.cause import Cause, Classifier
from agent.model import REASONS, Fact, Failure, Phase, Reason, Secret, Target
from agent.prober import ProbeFailure, Recorder, shorten

CLASSIFIERS: tuple[Classifier, ...] = (tls.classify, names.classify, http.classify, postgres.classify, network.classify)


def classify(error: BaseException, target: Target[Any], recorder: Recorder) -> Failure:
    """Say where and why a run failed."""
    phase = recorder.current
    cause = _cause(error, phase, recorder.facts)
    phase = cause.phase or phase
    reason = cause.reason
    if reason not in REASONS[phase]:
        cause = Cause(Reason.INTERNAL, f"{reason} in phase {phase} is not a failure netprobe knows: {cause.detail}")
        reason = Reason.INTERNAL
    return Failure(phase=phase, reason=reason, detail=_sentence(cause.detail, target, recorder))


def _sentence(detail: str, target: Target[Any], recorder: Recorder) -> str:
    where = f"{recorder.at}: " if recorder.at else ""
    return shorten(redact(where + detail, target, recorder.secrets))


def _cause(error: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause:
    if isinstance(error, ProbeFailure):
        return Cause(error.reason, error.detail, error.phase)
    for classifier in CLASSIFIERS:
        cause = classifier(error, phase, facts)
        if cause is not None:
            return cause
    return Cause(Reason.INTERNAL, f"netprobe failed: {type(error).__name__}: {error}")


def timed_out(target: Target[Any], recorder: Recorder, *, cut_off_after: float | None = None) -> Failure:
    """The failure of a run that met its deadline: it belongs to the phase that consumed the time.

    So it does where the agent had to end before, `cut_off_after` so many seconds.
    """
    within = (
        f"{target.timeout_seconds:g}s" if cut_off_after is None else f"{cut_off_after:.1f}s, when netprobe had to end"
    )
    detail = f"{awaited(target, recorder)} within {within}"
    return Failure(phase=recorder.current, reason=Reason.TIMEOUT, detail=_sentence(detail, target, recorder))


def overran(target: Target[Any], recorder: Recorder, took_seconds: float) -> Failure:
    """The failure of a run that ended by itself, but after its deadline: nothing in this process could stop it.

    It has used up its CPU (a pattern that backtracks, for one), or was kept from it.
    """
    detail = (
        f"expected an end within {target.timeout_seconds:g}s, got one after {took_seconds:.3g}s: the agent was busy"
    )
    return Failure(phase=recorder.current, reason=Reason.TIMEOUT, detail=_sentence(detail, target, recorder))


def awaited(target: Target[Any], recorder: Recorder) -> str:
    """What a run that is under way is waiting for, and what it got so far."""
    if recorder.awaited is not None:
        return recorder.awaited()
    return _WAITED_FOR[recorder.current].format(peer=recorder.facts.get(Fact.ADDRESS, target.address))


_WAITED_FOR: Mapping[Phase, str] = {
    Phase.RESOLVE: "expected an answer from a nameserver, got none",
    Phase.CONNECT: "expected {peer} to accept a connection, got no answer",
    Phase.PROXY: "expected the proxy at {peer} to open a tunnel, got no answer",
    Phase.TLS: "expected {peer} to finish the TLS handshake, got no answer",
    Phase.LOGIN: "expected {peer} to answer the login, got no answer",
    Phase.REQUEST: "expected {peer} to answer the request, got no answer",
    Phase.TRANSFER: "expected {peer} to finish its answer, it did not",
    Phase.VERIFY: "expected the answer of {peer} to be checked, it was not",
}


def redact(text: str, target: Target[Any], more: Iterable[Secret] = ()) -> str:
    """The text without any secret of the target, nor any of some more."""
    return _without(text, _revealed(target, more))


_TELLING_CHARACTERS = 4
"""Fewer characters of a secret tell nothing."""


def _without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    *cut, rest = text.split("…")  # where an excerpt ends, half a secret may stand
    return "…".join([*(_without_beginning(piece, secrets) for piece in cut), rest])


def _without_beginning(text: str, secrets: tuple[str, ...]) -> str:
    """The text without the beginning of a secret that is its end."""
    for secret in secrets:
        for length in range(min(len(secret), len(text)), _TELLING_CHARACTERS - 1, -1):
            if text.endswith(secret[:length]):
                return f"{text[:-length]}***"
    return text


def _revealed(target: Target[Any], more: Iterable[Secret]) -> tuple[str, ...]:
    """Secrets, as they are and as a quotation shows them, those that contain another one first."""
    values = set()
    for secret in (*target.options.secrets, *more):
        try:
            value = secret.reveal()
        except (OSError, UnicodeDecodeError):
            continue
        values |= {value, repr(value)[1:-1]}
    return tuple(sorted(values - {""}, key=len, reverse=True))


def redact_facts(facts: dict[Fact, Any], target: Target[Any], more: Iterable[Secret] = ()) -> None:
    """Take every secret out of the facts, as `redact` does: a server may say back what it was told."""
    secrets = _revealed(target, more)
    if secrets:
        facts.update({fact: _redacted(value, secrets) for fact, value in facts.items()})


def _redacted(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return _without(value, secrets)
    if isinstance(value, list):
        return [_redacted(item, secrets) for item in value]
    if isinstance(value, dict):
        return {name: _redacted(item, secrets) for name, item in value.items()}
    return value


_RESOLVED: frozenset[Reason] = frozenset({Reason.NAME_NOT_FOUND, Reason.NO_RECORDS})
_SILENCE: frozenset[Reason] = frozenset({Reason.TIMEOUT, Reason.CLOSED, Reason.RESET})
_BARRED: frozenset[Reason] = frozenset({Reason.REFUSED, Reason.UNREACHABLE, Reason.DENIED})

PROOF_OF_ABSENCE: Mapping[Phase, frozenset[Reason]] = {
    Phase.RESOLVE: _RESOLVED,
    Phase.CONNECT: _SILENCE | _BARRED,
    Phase.PROXY: _SILENCE | _BARRED,
    # A mesh or a transparent proxy accepts every connection and then drops the forbidden ones: a peer that
    # never said a word was not reached.
    Phase.TLS: _SILENCE,
    Phase.LOGIN: _SILENCE,
    Phase.REQUEST: _SILENCE,
}
"""Which failures show that a negative target cannot be reached. Any answer of the target itself, however bad, shows the
opposite; a nameserver that does not answer shows nothing."""

_SPOKEN = frozenset(
    {
        Fact.TLS_VERSION,
        Fact.CERTIFICATE_SUBJECT,
        Fact.SERVER_SIGNATURE,
        Fact.TLS_DECLINED,
        Fact.AUTHENTICATION,
        Fact.SQLSTATE,
    }
)
"""Facts that only the target itself can have told."""


_UNANSWERED = _RESOLVED | _SILENCE | {Reason.UNREACHABLE, Reason.QUERY_REFUSED}
"""The same for the resolve phase of a target that is itself a nameserver."""


def proves_absence(failure: Failure, recorder: Recorder) -> bool:
    """Whether a failure shows that a target cannot be reached."""
    if recorder.nameserver_is_target and failure.phase is Phase.RESOLVE:
        return failure.reason in _UNANSWERED
    if _before_the_proxy_was_asked(failure, recorder):
        return False
    return failure.reason in PROOF_OF_ABSENCE.get(failure.phase, frozenset()) and _SPOKEN.isdisjoint(recorder.facts)


def proves_presence(failure: Failure, recorder: Recorder) -> bool:
    """Whether a failure shows that a target can be reached, since it answered. Some failures show neither."""
    if failure.phase is Phase.TLS and Phase.TLS not in recorder.phases:
        return False  # a file of ours that could not be used: nothing was asked
    # What a proxy says, one that wants credentials for example, is not said by the target.
    unknown = failure.reason is Reason.INTERNAL or failure.phase in {Phase.RESOLVE, Phase.PROXY}
    if unknown or _before_the_proxy_was_asked(failure, recorder):
        return False
    return not proves_absence(failure, recorder)


def _before_the_proxy_was_asked(failure: Failure, recorder: Recorder) -> bool:
    """Whether a failure is about the way to a proxy, and so says nothing about what lies behind it."""
    if Fact.PROXY not in recorder.facts:
        return False
    return failure.phase in {Phase.RESOLVE, Phase.CONNECT} or (
        failure.phase is Phase.TLS and Phase.PROXY not in recorder.phases
    )
