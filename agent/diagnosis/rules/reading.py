"""What one outcome tells about names and addresses, and how evidence is put in words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Confidence
from agent.model import Fact, Outcome, Phase, Reason, Target
from agent.networks import ip_address
from agent.wording import seconds

UNANSWERED = frozenset({Reason.TIMEOUT, Reason.UNREACHABLE, Reason.CLOSED, Reason.RESET})
"""Of a lookup: no nameserver gave an answer that can be used."""
OF_THE_NETWORK = UNANSWERED | {Reason.REFUSED, Reason.DENIED}
"""What the network, and not the target, may be the cause of."""

Endpoint = tuple[str, int]


def ended_at(outcome: Outcome) -> float:
    """Unix time in seconds."""
    return outcome.started_at + outcome.duration_seconds


def failing_since(history: History) -> float:
    """Unix time at which the first run of the present failures began."""
    return history.outcomes[history.failures_in_a_row - 1].started_at


def endpoint(text: str | None) -> Endpoint | None:
    """`192.0.2.1:443` or `[2001:db8::1]:443` as an IP address and a port; None where it is neither."""
    host, _, port = (text or "").rpartition(":")
    host = host.strip("[]")
    if not port.isdecimal() or ip_address(host) is None:
        return None
    return host, int(port)


def peer(history: History) -> Endpoint | None:
    """Whom the latest run spoke to, or tried to: the address it wrote down, or the one it is configured with."""
    last = history.last
    if last is not None and (tried := endpoint(last.facts.get(Fact.ADDRESS))) is not None:
        return tried
    host, port = literal(history.target), history.target.options.port
    return (host, port) if host is not None and port is not None else None


def literal(target: Target[Any]) -> str | None:
    """The host of a target, where it is an IP address."""
    host = target.options.host
    return host if host is not None and ip_address(host) is not None else None


def sought(target: Target[Any]) -> str | None:
    """The name that is looked up for a target, as it is configured."""
    name: str | None = target.options.query if target.type == "dns" else target.options.host
    return name


def own_nameserver(target: Target[Any], nameservers: Collection[str]) -> str | None:
    """The nameserver a dns target asks that is none of resolv.conf's: to the network, a host like any other."""
    if target.type != "dns" or target.options.port is None:
        return None
    ip = literal(target)
    return ip if ip not in nameservers else None


def direct(outcome: Outcome) -> bool:
    """Whether the target itself was spoken to, and not a proxy in its place."""
    return Fact.PROXY not in outcome.facts


def within_pod(history: History) -> bool:
    """Whether it never leaves the pod: what fails there says nothing about the network."""
    if history.target.options.host == "localhost":
        return True
    tried = peer(history)
    address = ip_address(tried[0]) if tried is not None else None
    return address is not None and address.is_loopback


def is_reached(history: History) -> bool:
    """Whether a target that must not be reachable is."""
    failure = history.failure
    return failure is not None and failure.reason is Reason.UNEXPECTED_SUCCESS


def lookup_failed(history: History, nameservers: Collection[str]) -> bool:
    """Whether it failed to look a name up by the nameservers of resolv.conf, be it the name of its proxy."""
    failure = history.failure
    if failure is None or failure.phase is not Phase.RESOLVE:
        return False
    return own_nameserver(history.target, nameservers) is None


def names(histories: Iterable[History]) -> tuple[str, ...]:
    """In the order given."""
    return tuple(history.name for history in histories)


_SHOWN_CHARACTERS = 64


def brief(name: str) -> str:
    """A host or a name that a sentence can hold: its beginning and its end where it is long."""
    half = _SHOWN_CHARACTERS // 2
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[: half - 1]}…{name[-half:]}"


def some(items: Iterable[str], limit: int = 3) -> str:
    """`a, b and c`; `a, b, c and 4 more`."""
    given = [brief(item) for item in dict.fromkeys(items)]
    if len(given) > limit:
        return f"{', '.join(given[:limit])} and {len(given) - limit} more"
    return " and ".join(filter(None, [", ".join(given[:-1]), *given[-1:]]))


def seen(history: History) -> str:
    """The latest failure of a target, as evidence."""
    last = history.last
    if last is None or last.failure is None:
        return f"{history.name} answers"
    failure = last.failure
    return f"{history.name}: {failure.phase}/{failure.reason} after {seconds(last.duration_seconds)}: {failure.detail}"


def all_seen(histories: Sequence[History], limit: int = 4) -> list[str]:
    """The latest failures, a few of them; how many more."""
    lines = [seen(history) for history in histories[:limit]]
    if len(histories) > limit:
        lines.append(f"{len(histories) - limit} more targets fail likewise: {some(names(histories[limit:]))}")
    return lines


def settled(histories: Sequence[History], *, agreed: bool = False) -> Confidence:
    """High where something agrees with what one run saw: another run, another target, an experiment."""
    twice = agreed or len(histories) > 1 or any(history.failures_in_a_row > 1 for history in histories)
    return Confidence.HIGH if twice else Confidence.MEDIUM


def unsettled(histories: Sequence[History], *, agreed: bool = False) -> Confidence:
    """The same where what was seen has two readings: never high."""
    return Confidence.MEDIUM if settled(histories, agreed=agreed) is Confidence.HIGH else Confidence.LOW


def moments(times: Iterable[float], apart_seconds: float) -> int:
    """How many of them are so far apart: what happens together counts once."""
    found, last = 0, float("-inf")
    for at in sorted(times):
        if at - last >= apart_seconds:
            found, last = found + 1, at
    return found
