"""What is shipped, at another pace: every duration divided by one number, and nothing else changed.

Rules wait for minutes, as they must; a test cannot. Divided all alike, scrapes, windows, `for` and the pauses of
Alertmanager keep their proportions. What compares with the clock (a certificate's last three days) stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_RANGE = re.compile(rf"\[({_DURATION})(?:(:)({_DURATION})?)?\]")
_OFFSET = re.compile(rf"\b(offset\s+-?)({_DURATION})\b")
_RULE_KEYS = frozenset({"interval", "for", "keep_firing_for"})
_ALERTMANAGER_KEYS = frozenset({"group_wait", "group_interval", "repeat_interval", "resolve_timeout"})
_PROMETHEUS_KEYS = frozenset({"scrape_interval", "scrape_timeout", "evaluation_interval"})

Document = dict[str, Any]
"""Of YAML."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How many times as fast."""

    factor: float

    def seconds(self, seconds: float) -> float:
        return seconds / self.factor

    def duration(self, text: str) -> str:
        """`1m30s`, so much shorter; a millisecond at least."""
        if re.fullmatch(_DURATION, text) is None:
            raise ValueError(f"expected a duration such as 1m30s, got {text!r}")
        milliseconds = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))
        return f"{max(1, round(milliseconds / self.factor))}ms"

    def expression(self, promql: str) -> str:
        """Ranges, the steps of subqueries and offsets in PromQL, or in a text that has PromQL in it."""

        def ranged(found: re.Match[str]) -> str:
            window, colon, step = found.groups()
            return f"[{self.duration(window)}{colon or ''}{self.duration(step) if step else ''}]"

        return _OFFSET.sub(lambda found: found[1] + self.duration(found[2]), _RANGE.sub(ranged, promql))

    def rules(self, document: Document) -> Document:
        """A rule file."""
        return self._document(document, _RULE_KEYS)

    def alertmanager(self, document: Document) -> Document:
        """A configuration of Alertmanager."""
        return self._document(document, _ALERTMANAGER_KEYS)

    def prometheus(self, document: Document) -> Document:
        """A configuration of Prometheus."""
        return self._document(document, _PROMETHEUS_KEYS)

    def _document(self, document: Document, keys: frozenset[str]) -> Document:
        scaled: Document = self._scaled(document, keys)
        return scaled

    def _scaled(self, value: Any, keys: frozenset[str]) -> Any:
        if isinstance(value, Mapping):
            return {
                key: self.duration(inner) if key in keys else self._scaled(inner, keys) for key, inner in value.items()
            }
        if isinstance(value, list):
            return [self._scaled(inner, keys) for inner in value]
        return self.expression(value) if isinstance(value, str) else value
