"""A diagnosis for people, made of its JSON form: the verdict first, then what it rests on and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from agent.wording import Wording, count, period

NARROWEST = 40
"""Below this width lines are left to the terminal to break."""
_INDENT = 2
_HEADING = 10
"""From the indent to the text behind a heading."""
_PAST = 5
"""Verdicts that are over, at most; the JSON form has more."""


CONFIGURATION_UNUSABLE = (
    "The configuration cannot be used: none of its targets is probed, those found in the environment are. "
    "The log says what is wrong with it (configuration_unusable)."
)
NOTHING_PROBED = "Nothing is probed: there is no target, neither configured nor found in the environment."
NOTHING_KNOWN = "Nothing is known yet: no target has a result."
HEALTHY = "no target fails, and nothing stands out"
EXPERIMENTS_OFF = "Experiments are switched off (diagnosis.experiments)."


class Tone(Enum):
    """What a line is, for whoever has colours."""

    PLAIN = auto()
    GOOD = auto()
    BAD = auto()
    DIM = auto()


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    tone: Tone = Tone.PLAIN


def as_text(document: Mapping[str, Any], *, width: int, wording: Wording) -> str:
    """All of `/diagnosis`. KeyError, TypeError or AttributeError where the document is none."""
    lines = [
        *_heading(document, width, wording),
        *verdict_lines(document["verdicts"], width=width, wording=wording),
        *_foot(document, width, wording),
    ]
    return "".join(f"{line.text}\n" for line in lines)


def verdict_lines(verdicts: Iterable[Mapping[str, Any]], *, width: int, wording: Wording) -> Iterator[Line]:
    """Every verdict, an empty line before each: cause, confidence and sentence first. A log has no evidence."""
    for verdict in verdicts:
        yield Line("")
        yield from _verdict(verdict, max(width, NARROWEST), wording)


def title(verdict: Mapping[str, Any]) -> str:
    """A verdict in one sentence."""
    return f"{verdict['cause']} ({verdict['confidence']} confidence): {verdict['summary']}"


def _verdict(verdict: Mapping[str, Any], width: int, wording: Wording) -> Iterator[Line]:
    for text in _wrapped(wording(title(verdict)), width):
        yield Line(text, Tone.BAD)
    yield from _part("targets", [wording(", ".join(verdict["targets"]))], width)
    evidence = [wording(f"- {sentence}") for sentence in verdict.get("evidence", ())]
    yield from _part("evidence", evidence, width, hanging=2)
    paragraphs = [wording(paragraph) for paragraph in verdict["advice"].splitlines()]
    yield from _part("next", paragraphs, width)
    yield from _part("runbook", [wording(verdict["runbook"])], width)


def _part(heading: str, paragraphs: Sequence[str], width: int, *, hanging: int = 0) -> Iterator[Line]:
    """Paragraphs behind a heading. One that begins with a space is set as it is: a manifest."""
    first = f"{'':{_INDENT}}{heading:<{_HEADING}}"
    for paragraph in paragraphs:
        verbatim = paragraph.startswith(" ")
        for text in [paragraph] if verbatim else _wrapped(paragraph, width - len(first), hanging):
            yield Line(f"{first}{text}".rstrip())
            first = " " * len(first)


def _wrapped(paragraph: str, width: int, hanging: int = 0) -> list[str]:
    """A paragraph as lines.

    What stands between backticks is a command: a line end inside would spoil it for pasting, so that one too long for
    any line sticks out. A longer word is broken anywhere.
    """
    lines: list[str] = []
    line = ""
    for word in _words(paragraph, width - hanging):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = " " * hanging + word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line else lines


def _words(paragraph: str, width: int) -> Iterator[str]:
    for word in re.findall(r"(?:`[^`]*`|[^\s`]|`)+", paragraph):
        if "`" in word:
            yield word
        else:
            yield from (word[start : start + width] for start in range(0, len(word), width))


def _heading(document: Mapping[str, Any], width: int, wording: Wording) -> Iterator[Line]:
    if not document.get("configuration_usable", True):
        for line in _wrapped(CONFIGURATION_UNUSABLE, width):
            yield Line(line, Tone.BAD)
    if document.get("targets") == 0:
        yield Line(NOTHING_PROBED)
        return
    if document["since"] is None:
        yield Line(NOTHING_KNOWN)
        return
    held = f"{period(document['held_seconds'])}, since {document['since']}"
    if document["healthy"]:
        text = f"healthy for {held}: {HEALTHY}"
        tone = Tone.GOOD
    else:
        verdicts = document["verdicts"]
        text = f"{count(len(verdicts), 'verdict')} for {held}"
        tone = Tone.PLAIN
    for line in _wrapped(wording(text), width):
        yield Line(line, tone)


def _foot(document: Mapping[str, Any], width: int, wording: Wording) -> Iterator[Line]:
    notes = []
    if document["waiting"] and document["since"] is not None:
        notes.append(f"No result yet: {', '.join(document['waiting'])}")
    notes += [
        f"Over: {past['cause']} of {', '.join(past['targets'])}, from {past['began_at']} to {past['ended_at']}"
        for past in document.get("recent", ())[:_PAST]
    ]
    experiments = document["experiments"]
    budget = document["budget"]
    if budget is None:
        notes.append(EXPERIMENTS_OFF)
    elif experiments:
        notes.append(
            f"It rests on {count(len(experiments), 'experiment')} beside the outcomes; the JSON form has them."
        )
    if notes:
        yield Line("")
    for note in notes:
        for line in _wrapped(wording(note), width):
            yield Line(line, Tone.DIM)
