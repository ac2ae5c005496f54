"""The alerts there are, as Alertmanager gets them: with the labels they have when promtool plays the rules."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from agent.diagnosis import Cause
from tests.rules import promtool


@dataclass(frozen=True)
class Alert:
    """One alert with one of its causes, or without any."""

    labels: Mapping[str, str]

    def __str__(self) -> str:
        return " ".join(filter(None, (self.labels["alertname"], self.labels.get("cause", ""))))

    def at(self, **labels: str) -> Alert:
        """The same alert about something else."""
        return Alert({**self.labels, **labels})


@cache
def alerts() -> tuple[Alert, ...]:
    """Every alert of the rules with each cause it can have."""
    played = {alert.labels["alertname"]: alert for alert, _ in written()}
    return tuple(played[name].at(**cause) for name, (_, rule) in promtool.alerts().items() for cause in _causes(rule))


@cache
def one_of_each() -> tuple[Alert, ...]:
    """Every alert of the rules once."""
    return tuple({alert.labels["alertname"]: alert for alert in alerts()}.values())


@cache
def written() -> tuple[tuple[Alert, Mapping[str, str]], ...]:
    """Every alert of the rules once, with the annotations that promtool reads on it."""
    found = {
        case.alert: (Alert({"alertname": case.alert, **firing.labels}), firing.annotations)
        for module in sorted(Path(promtool.__file__).parent.glob("cases_*.py"))
        for case in importlib.import_module(f"tests.rules.{module.stem}").CASES
        for firings in case.firing.values()
        for firing in firings
        if firing.annotations is not None
    }
    return tuple(found.values())


def _causes(rule: Mapping[str, Any]) -> list[dict[str, str]]:
    """Those that a rule's expression selects, as labels; none where it has another one of its own, or none at all."""
    selected = re.findall(r'cause(=~?|!~?)"([^"]*)"', rule["expr"])
    if not selected or "cause" in rule["labels"]:
        return [{}]
    operator, value = selected[0]
    named = value.split("|")
    chosen = [cause for cause in Cause if cause not in named] if operator.startswith("!") else named
    return [{"cause": cause} for cause in chosen]
