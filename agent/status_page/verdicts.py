"""The verdict, in large letters: the sentence first, then what it rests on and what to do; then what is over."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.explanation import CONFIGURATION_UNUSABLE, HEALTHY, NOTHING_KNOWN, NOTHING_PROBED
from agent.status_page.markup import clock, fitting, lasting, listed, prose, size, text, unix_seconds
from agent.wording import count

VERDICTS_BYTES = 13_000
"""What all verdicts may take together: the page has more to show."""
PAST_BYTES = 2_500
NAMES = 12
"""Targets that a verdict names; the table has them all."""
ALL_VERDICTS = '<a href="diagnosis?format=text">diagnosis</a> has them all'
_SCHEMES = ("https://", "http://")


@dataclass(frozen=True, slots=True)
class State:
    """How things stand, for the page's title and colours. The marks tell it without the colours."""

    tone: str
    mark: str
    word: str


FINE = State("good", "✓", "healthy")
UNSURE = State("calm", "…", "not known yet")


def state_of(document: Mapping[str, Any], failing: Collection[str]) -> State:
    """What the page as a whole says."""
    verdicts = document["verdicts"]
    if document.get("targets") == 0:
        return State("warn", "!", "nothing is probed")
    if document["since"] is None:
        return UNSURE
    return _state(verdicts[0], failing) if verdicts else FINE


def _state(verdict: Mapping[str, Any], failing: Collection[str]) -> State:
    """Something that fails is one thing, something that merely stands out another."""
    fails = any(name in failing for name in verdict["targets"])
    return State("bad", "✕", verdict["cause"]) if fails else State("warn", "!", verdict["cause"])


def verdict_section(document: Mapping[str, Any], failing: Collection[str], now: float) -> str:
    """All that holds now."""
    state = state_of(document, failing)
    verdicts: Sequence[Mapping[str, Any]] = () if state is UNSURE else document["verdicts"]
    others = verdicts[1:]
    room = VERDICTS_BYTES
    first = ""
    if verdicts:
        eyebrow, sentence = _eyebrow(verdicts[0], state), text(verdicts[0]["summary"])
        first = fitting(room, _bodies(verdicts[0], now, is_open=True)) or ""
        room -= size(first)
    else:
        eyebrow, sentence, first = _without_verdict(document, state, now)
    shown = []
    for verdict in others:
        article = fitting(room, (_article(verdict, failing, body) for body in _bodies(verdict, now, is_open=False)))
        if article is None:
            break
        room -= size(article)
        shown.append(article)
    left_out = len(others) - len(shown)
    more = f"<p class=more>And {count(left_out, 'more verdict')}: {ALL_VERDICTS}.</p>" if left_out else ""
    also = f"<p class=also>The first of {len(verdicts)} verdicts.</p>" if others else ""
    return (
        f'{_warning(document)}<section class="verdict {state.tone}" aria-labelledby=now>'
        f"<div aria-live=polite aria-atomic=true>{eyebrow}<h1 id=now>{sentence}</h1>{also}"
        f"<p id=gone data-keep hidden></p></div>{first}</section>{''.join(shown)}{more}"
    )


def _warning(document: Mapping[str, Any]) -> str:
    if document.get("configuration_usable", True):
        return ""
    return f"<p class=warning id=unusable><b aria-hidden=true>!</b> {text(CONFIGURATION_UNUSABLE)}</p>"


def _without_verdict(document: Mapping[str, Any], state: State, now: float) -> tuple[str, str, str]:
    """What stands above the sentence, the sentence, and what stands below."""
    eyebrow = f"<p class=eyebrow>{_mark(state)} {text(state.word)}</p>"
    if state is FINE:
        held = f"<p class=held>For {lasting(now - document['held_seconds'], now)}.</p>"
        return eyebrow, f"{text(HEALTHY[0].upper() + HEALTHY[1:])}.", held
    return eyebrow, text(NOTHING_KNOWN if state is UNSURE else NOTHING_PROBED), ""


def _mark(state: State) -> str:
    return f"<b class=mark aria-hidden=true>{state.mark}</b>"


def _eyebrow(verdict: Mapping[str, Any], state: State) -> str:
    confidence = f"<span class=quiet>{text(verdict['confidence'])} confidence</span>"
    return f"<p class=eyebrow>{_mark(state)} {text(verdict['cause'])} {confidence}</p>"


def _article(verdict: Mapping[str, Any], failing: Collection[str], body: str) -> str:
    state = _state(verdict, failing)
    names = verdict["targets"]
    key = text(f"{verdict['cause']}-{names[0] if names else ''}")
    return (
        f'<article class="verdict {state.tone}" id="v-{key}">{_eyebrow(verdict, state)}'
        f"<h2>{text(verdict['summary'])}</h2>{body}</article>"
    )


def _bodies(verdict: Mapping[str, Any], now: float, *, is_open: bool) -> Iterator[str]:
    """What stands below the sentence, with less and less of it."""
    most = _held(verdict, now) + _advice(verdict)
    yield most + _evidence(verdict, is_open=is_open)
    yield most
    yield ""


def _held(verdict: Mapping[str, Any], now: float) -> str:
    began = verdict.get("began_at")
    whom = (
        f"{count(len(verdict['targets']), 'target')}: {listed(verdict['targets'], NAMES)}" if verdict["targets"] else ""
    )
    if not began:
        return f"<p class=held>{whom}</p>" if whom else ""
    return f"<p class=held>For {lasting(unix_seconds(began), now)}{' · ' + whom if whom else ''}</p>"


def _advice(verdict: Mapping[str, Any]) -> str:
    runbook = verdict["runbook"]
    if runbook.startswith(_SCHEMES):
        shown = f'<a href="{text(runbook)}" rel="noreferrer noopener" target=_blank>{text(runbook)}</a>'
    else:
        shown = f"<code>{text(runbook)}</code>"
    advice = "".join(_paragraph(line) for line in verdict["advice"].splitlines())
    advice = f"<dt>Next</dt><dd>{advice}</dd>" if advice else ""
    return f"<dl>{advice}<dt>Runbook</dt><dd>{shown}</dd></dl>"


def _paragraph(line: str) -> str:
    """One that begins with a space is set as it is: a manifest."""
    return f"<pre>{text(line)}</pre>" if line.startswith(" ") else f"<p>{prose(line)}</p>"


def _evidence(verdict: Mapping[str, Any], *, is_open: bool) -> str:
    if not verdict["evidence"]:
        return ""
    items = "".join(f"<li>{prose(sentence)}</li>" for sentence in verdict["evidence"])
    return f"<details{' open' if is_open else ''}><summary>Evidence</summary><ul>{items}</ul></details>"


def past_section(document: Mapping[str, Any]) -> str:
    """Verdicts that ended a while ago."""
    room = PAST_BYTES
    items = []
    past: Sequence[Mapping[str, Any]] = document.get("recent", ())
    for verdict in past:
        item = fitting(room, (_over(verdict, summary) for summary in (verdict["summary"], "")))
        if item is None:
            break
        room -= size(item)
        items.append(item)
    if not past:
        return ""
    rest = len(past) - len(items)
    more = f"<p class=more>And {rest} more: {ALL_VERDICTS}.</p>" if rest else ""
    opening = "<section aria-labelledby=over id=past><h2 id=over>Over</h2>"
    return f"{opening}<ul class=past>{''.join(items)}</ul>{more}</section>"


def _over(verdict: Mapping[str, Any], summary: str) -> str:
    began, ended = (unix_seconds(verdict[key]) for key in ("began_at", "ended_at"))
    said = f" {text(summary)}" if summary else ""
    return (
        f"<li><b>{text(verdict['cause'])}</b> of {listed(verdict['targets'], 3)}, "
        f"from {clock(began)} to {clock(ended)}.{said}</li>"
    )
