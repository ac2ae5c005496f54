"""A verdict's texts, fit to be shown: one line each, bounded, nothing a peer can do mischief with on a terminal."""

from __future__ import annotations

import dataclasses
import re

from agent.diagnosis.verdict import Verdict

SUMMARY_LIMIT = 300
EVIDENCE_LIMIT = 400
"""Characters of one sentence: a failure's own has up to 256."""
EVIDENCE_ITEMS = 8
"""Sentences: a fault that hits sixty targets is shown by a few of them."""
ADVICE_LIMIT = 800


def presentable(verdict: Verdict) -> Verdict:
    """The same verdict with its texts cut to their limits: what peers and servers said may stand in them."""
    evidence = [_line(text, EVIDENCE_LIMIT) for text in verdict.evidence]
    if len(evidence) > EVIDENCE_ITEMS:
        kept = EVIDENCE_ITEMS - 1
        evidence[kept:] = [f"and {len(evidence) - kept} more like these"]
    return dataclasses.replace(
        verdict,
        summary=_line(verdict.summary, SUMMARY_LIMIT),
        evidence=tuple(evidence),
        advice=_line(verdict.advice, ADVICE_LIMIT),
    )


def _line(text: str, limit: int) -> str:
    """What cannot be printed becomes a space: escape sequences, line ends, marks that turn the direction of writing."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if len(line) > limit:
        # A name may have 253 characters. What a sentence says of it is worth more than its end.
        line = _LONG_WORD.sub(lambda word: f"{word[0][:_WORD_LIMIT]}…", line)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


_WORD_LIMIT = 32
_LONG_WORD = re.compile(rf"\S{{{_WORD_LIMIT + 2},}}")
