"""The alerts there are, as Alertmanager gets them: read from the rules that are shipped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.diagnosis import Cause
from tests.rules.promtool import alerts as rules

_OWN_LABELS: Mapping[str, tuple[str, ...]] = {
    "fleet": ("namespace",),
    "target": ("namespace", "target"),
    "dag": ("namespace", "dag_id"),
    "self": ("namespace",),
}
"""What an alert of a level is about, beside its cause."""

EXAMPLES: Mapping[str, str] = {"namespace": "airflow", "target": "ledger", "dag_id": "customers"}


@dataclass(frozen=True)
class Alert:
    """One alert with one of its causes, or without any."""

    labels: Mapping[str, str]

    def __str__(self) -> str:
        return " ".join(filter(None, (self.labels["alertname"], self.labels.get("cause", ""))))

    def at(self, **labels: str) -> Alert:
        """The same alert about something else."""
        return Alert({**self.labels, **labels})


def alerts() -> Iterator[Alert]:
    """Every alert of the rules with each cause it can have."""
    for name, (_, rule) in rules().items():
        static: dict[str, str] = rule["labels"]
        own = {label: EXAMPLES[label] for label in _OWN_LABELS[static["level"]]}
        for cause in _causes(rule):
            yield Alert({"alertname": name, **own, **({"cause": cause} if cause else {}), **static})


def _causes(rule: Mapping[str, Any]) -> list[str]:
    """Those of a rule's own labels or those that its expression selects; one empty one where it has none."""
    if "cause" in rule["labels"]:
        return [""]
    selected = re.findall(r'cause(=~?|!~?)"([^"]*)"', rule["expr"])
    if not selected:
        return [""]
    operator, value = selected[0]
    named = value.split("|")
    return [cause for cause in Cause if cause not in named] if operator.startswith("!") else named
