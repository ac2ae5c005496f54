"""What rules about conversations have in common: what belongs together, and how it is put into words."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from agent.diagnosis.rules.reading import all_seen
from agent.diagnosis.snapshot import History
from agent.model import Fact, Failure, Outcome, Phase, Reason

KeyT = TypeVar("KeyT", bound=Hashable)


def grouped(histories: Iterable[History], key: Callable[[History], KeyT]) -> dict[KeyT, list[History]]:
    """Histories by what they have in common, in the order of the configuration."""
    groups: dict[KeyT, list[History]] = {}
    for history in histories:
        groups.setdefault(key(history), []).append(history)
    return groups


def failures(histories: Sequence[History]) -> tuple[str, ...]:
    """What the latest runs failed with, a few of them, as evidence."""
    return tuple(all_seen(histories))


def latest(history: History) -> tuple[Outcome, Failure]:
    """The latest run of a failing target, and its failure."""
    outcome = history.outcomes[0]
    assert outcome.failure is not None  # noqa: S101 - what failing means
    return outcome, outcome.failure


def fact(history: History, wanted: Fact) -> Any:
    """A fact of the latest run; None where there is none."""
    return history.outcomes[0].facts.get(wanted) if history.outcomes else None


def host(history: History) -> str:
    """The host the target's address names, in lower case and without a dot at its end."""
    return (history.target.options.host or "").lower().removesuffix(".")


def endpoint(history: History) -> str:
    """`host:port` as a command takes it."""
    name, port = history.target.options.host or history.name, history.target.options.port
    shown = f"[{name}]" if ":" in name else name
    return f"{shown}:{port}" if port else shown


def domain(name: str) -> str:
    """What unrelated names do not share: the last two labels, three below co.uk; an IP address is one of its own."""
    labels = name.rstrip(".").split(".")
    if ":" in name or labels[-1].isdecimal():
        return name
    return ".".join(labels[-3 if _BELOW_COUNTRY.fullmatch(".".join(labels[-2:])) else -2 :])


_BELOW_COUNTRY = re.compile(r"(?:ac|co|com|edu|gov|gob|go|ne|net|or|org)\.[a-z]{2}")


def failed_in_tls(history: History, reasons: Iterable[Reason]) -> bool:
    """Whether the latest run failed in the TLS handshake for one of these reasons."""
    _, failure = latest(history)
    return failure.phase is Phase.TLS and failure.reason in reasons


def validity(history: History) -> str:
    """From when to when the certificate that was shown is valid."""
    begins, ends = fact(history, Fact.CERTIFICATE_NOT_BEFORE), fact(history, Fact.CERTIFICATE_EXPIRES_AT)
    return f"{history.name}: the certificate is valid from {date(begins)} to {date(ends)}."


def date(unix_seconds: float | None) -> str:
    """Unix time as people write it; a certificate may hold any."""
    try:
        return datetime.fromtimestamp(unix_seconds or 0.0, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return "a date out of range"
