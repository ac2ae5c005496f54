"""What a run has learned, in words: the line below a target's times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.model import Fact, Outcome
from agent.starvation import LAG_THRESHOLD_SECONDS
from agent.wording import count, period, seconds, size

Facts = Mapping[Fact, Any]


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing worth knowing."""

    text: str
    warning: bool = False


def remarks(outcome: Outcome) -> Iterator[Remark]:
    """The useful facts of a run, in the order of its phases. The JSON form has them all."""
    for part in _PARTS:
        yield from part(outcome)


def starved(outcome: Outcome) -> str | None:
    """What to think of the times of a run that this process had too little CPU for."""
    facts = outcome.facts
    if not facts.get(Fact.STARVED):
        return None
    lag = facts[Fact.EVENT_LOOP_LAG_SECONDS]
    late = f" ({seconds(lag)} late)" if lag > LAG_THRESHOLD_SECONDS else ""
    return f"starved: this process was short of CPU{late}, its times say little about the network"


def _blocked(outcome: Outcome) -> Iterator[Remark]:
    if Fact.BLOCKED_BY in outcome.facts:
        yield Remark(f"cannot be reached, as it should be: {outcome.facts[Fact.BLOCKED_BY]}")


def _names(outcome: Outcome) -> Iterator[Remark]:
    facts = outcome.facts
    if Fact.DNS_RCODE in facts:
        name = f" for {facts[Fact.DNS_NAME]}" if Fact.DNS_NAME in facts else ""
        yield Remark(f"{facts[Fact.DNS_SERVER].removesuffix(':53')} answered {facts[Fact.DNS_RCODE]}{name}")
    if facts.get(Fact.HOSTS_FILE):
        yield Remark("addresses from the hosts file")
    if facts.get(Fact.DNS_ANSWERS):
        yield Remark(_some(facts[Fact.DNS_ANSWERS]))
    if Fact.DNS_TTL_SECONDS in facts:
        yield Remark(f"TTL {facts[Fact.DNS_TTL_SECONDS]} s")
    if facts.get(Fact.DNS_TRUNCATED):
        yield Remark("truncated over udp")
    if Fact.DNS_QUERIES in facts:
        yield Remark(count(facts[Fact.DNS_QUERIES], "query", "queries"))
    for nameserver in facts.get(Fact.DNS_NAMESERVERS, ()):
        server = nameserver["server"].removesuffix(":53")
        if "error" in nameserver:
            yield Remark(f"nameserver {server}: {nameserver['error']}", warning=True)
        elif not nameserver["same_answer"]:
            said = _some(nameserver["answers"]) or nameserver["rcode"]
            yield Remark(f"nameserver {server} says otherwise: {said}", warning=True)


def _peer(outcome: Outcome) -> Iterator[Remark]:
    facts = outcome.facts
    if Fact.PROXY in facts:
        yield Remark(f"through the proxy {facts[Fact.PROXY]}")
    if Fact.ADDRESS in facts and Fact.ATTEMPTS not in facts:
        address, of = facts[Fact.ADDRESS], len(facts.get(Fact.ADDRESSES, ()))
        if of > 1:
            yield Remark(f"address {address} (first of {of})")
        elif address not in outcome.target.name:
            yield Remark(f"address {address}")
    if facts.get(Fact.RETRANSMITTED_SEGMENTS):
        yield Remark(f"{count(facts[Fact.RETRANSMITTED_SEGMENTS], 'segment')} sent again", warning=True)


def _tls(outcome: Outcome) -> Iterator[Remark]:
    facts = outcome.facts
    if Fact.TLS_VERSION in facts:
        yield Remark(str(facts[Fact.TLS_VERSION]))
    if Fact.CERTIFICATE_EXPIRES_AT in facts:
        expiry = _expiry(facts[Fact.CERTIFICATE_EXPIRES_AT] - outcome.started_at)
        yield Remark(f"certificate {_verdict(facts)}, {expiry}", warning=expiry.startswith("expired"))
    if facts.get(Fact.TLS_DECLINED):
        yield Remark("offers no TLS", warning=True)
    if Fact.UNENCRYPTED_REFUSAL in facts:
        yield Remark(f"refused without TLS: {facts[Fact.UNENCRYPTED_REFUSAL]}")
    if facts.get(Fact.CLIENT_CERTIFICATE_REQUESTED):
        yield Remark("asks for a client certificate")
    if Fact.CLIENT_CERTIFICATE_EXPIRES_AT in facts:
        expiry = _expiry(facts[Fact.CLIENT_CERTIFICATE_EXPIRES_AT] - outcome.started_at)
        yield Remark(f"client certificate {expiry}", warning=expiry.startswith("expired"))


def _verdict(facts: Facts) -> str:
    if Fact.CERTIFICATE_VERIFIED not in facts:
        return "not checked"
    if facts[Fact.CERTIFICATE_VERIFIED]:
        return "verified"
    error = f" ({facts[Fact.CERTIFICATE_ERROR]})" if Fact.CERTIFICATE_ERROR in facts else ""
    return f"not verified{error}"


def _expiry(remaining_seconds: float) -> str:
    if remaining_seconds < 0:
        return f"expired {period(-remaining_seconds)} ago"
    return f"expires in {period(remaining_seconds)}"


def _http(outcome: Outcome) -> Iterator[Remark]:
    facts = outcome.facts
    if Fact.HTTP_STATUS_CODE in facts:
        version = f"HTTP/{facts[Fact.HTTP_VERSION]} " if Fact.HTTP_VERSION in facts else ""
        yield Remark(f"{version}status {facts[Fact.HTTP_STATUS_CODE]}")
    if Fact.HTTP_BODY_BYTES in facts:
        yield Remark(size(facts[Fact.HTTP_BODY_BYTES]))
    if facts.get(Fact.HTTP_REDIRECTS):
        hops = facts[Fact.HTTP_REDIRECTS]
        way = " → ".join(f"{hop['url']} ({hop['status']})" for hop in hops[:_SHOWN])
        way += " → …" if len(hops) > _SHOWN else ""
        yield Remark(f"{count(len(hops), 'redirect')}: {way}")
    if facts.get(Fact.TLS_WANTED):
        yield Remark("the port wants TLS", warning=True)
    if Fact.PROXY_ERROR in facts:
        yield Remark(f"the proxy said {facts[Fact.PROXY_ERROR]}", warning=True)
    if Fact.MESH_ERROR in facts:
        yield Remark(f"a mesh's proxy said: {facts[Fact.MESH_ERROR]}", warning=True)
    elif Fact.MESH_PROXY in facts:
        yield Remark(f"came through {facts[Fact.MESH_PROXY]}")
    ahead = facts.get(Fact.CLOCK_AHEAD_SECONDS, 0)
    if abs(ahead) >= _CLOCKS_DIFFER_SECONDS:
        yield Remark(f"its clock is {period(abs(ahead))} {'behind' if ahead > 0 else 'ahead of'} ours", warning=True)


def _database(outcome: Outcome) -> Iterator[Remark]:
    facts = outcome.facts
    if Fact.AUTHENTICATION in facts and Fact.SERVER_VERSION not in facts:
        yield Remark(f"asks for {facts[Fact.AUTHENTICATION]}")
    if Fact.SERVER_VERSION in facts:
        yield Remark(f"server version {facts[Fact.SERVER_VERSION].partition(' ')[0]}")
    if Fact.IN_RECOVERY in facts:
        yield Remark("in recovery" if facts[Fact.IN_RECOVERY] else "not in recovery")
    if Fact.SQLSTATE in facts and (outcome.failure is None or facts[Fact.SQLSTATE] not in outcome.failure.detail):
        yield Remark(f"SQLSTATE {facts[Fact.SQLSTATE]}")


def _dialogue(outcome: Outcome) -> Iterator[Remark]:
    if Fact.SERVER_SIGNATURE in outcome.facts:
        yield Remark(f"said {outcome.facts[Fact.SERVER_SIGNATURE]}")


_PARTS: tuple[Callable[[Outcome], Iterator[Remark]], ...] = (
    _blocked,
    _names,
    _peer,
    _tls,
    _http,
    _database,
    _dialogue,
)

JSON_ONLY = frozenset(
    {
        Fact.NO_LOCAL_PORT,
        Fact.TLS_CIPHER,
        Fact.CERTIFICATE_SUBJECT,
        Fact.CERTIFICATE_ISSUER,
        Fact.CERTIFICATE_NAMES,
        Fact.CERTIFICATE_NOT_BEFORE,
        Fact.CERTIFICATE_CHAIN,
        Fact.DNS_AUTHENTICATED,
        Fact.HTTP_LOCATION,
        Fact.HTTP_SERVER,
        Fact.HTTP_CONTENT_TYPE,
        Fact.HTTP_TITLE,
    }
)
"""Facts that would take more of a screen than they are worth."""

_SHOWN = 4
_CLOCKS_DIFFER_SECONDS = 60


def _some(items: list[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def steps(outcome: Outcome) -> list[tuple[str, ...]]:
    """Rows of a small table for what one sentence cannot tell: each address tried, each DNS message of a failure."""
    facts = outcome.facts
    if Fact.ATTEMPTS in facts:
        return [_address_tried(attempt) for attempt in facts[Fact.ATTEMPTS]]
    if outcome.failure is not None:
        return _messages_sent(facts.get(Fact.DNS_ATTEMPTS, ()))
    return []


def _address_tried(attempt: Mapping[str, Any]) -> tuple[str, ...]:
    verdict = "OK" if attempt["success"] else f"{attempt['phase']}/{attempt['reason']}"
    times = " · ".join(f"{phase} {seconds(spent)}" for phase, spent in attempt["phases"].items())
    return attempt["address"], verdict, times


def _messages_sent(attempts: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    several = len({attempt["record"] for attempt in attempts}) > 1
    return [
        (
            attempt["server"].removesuffix(":53"),
            f"{attempt['name']} {attempt['record']}" if several else attempt["name"],
            _answer(attempt),
            seconds(attempt["duration_seconds"]),
        )
        for attempt in attempts
    ]


def _answer(attempt: Mapping[str, Any]) -> str:
    answer = str(attempt.get("rcode") or attempt["error"])
    if attempt["truncated"]:
        answer += ", truncated"
    if attempt["transport"] != "udp":
        answer += f" over {attempt['transport']}"
    return answer
