"""The resolve phase: a host name becomes the addresses the pod's own libc would give a task.

As glibc does it: a number is an address, then /etc/hosts is read, then the nameservers of resolv.conf are asked for A
and AAAA together (agent.net.dns_walk, by agent.net.ares), then the addresses are ordered (agent.net.order). Nothing is
remembered between two lookups.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.keys import HostPort
from agent.model import Addresses, Fact, Family, Phase, Reason
from agent.net import ares
from agent.net.address import Address
from agent.net.addressing import Addressing
from agent.net.dns_exchange import Finding
from agent.net.dns_message import RecordType, Reply
from agent.net.dns_walk import Walk, decisive
from agent.net.order import ordered
from agent.net.resolvconf import ResolvConf
from agent.prober import ProbeFailure, Recorder, listed

__all__ = ["ADDRESS_LIMIT", "Address", "resolve", "resolve_endpoint"]

ADDRESS_LIMIT = 16
"""How many addresses one run tries at most with `addresses: all`."""

_MANY_QUESTIONS, _MUCH_SECONDS = 6, 0.2
"""A walk through a search list of Kubernetes' length that a person would notice; A and AAAA count each."""

HOSTS = Path("/etc/hosts")

_RECORDS = {
    Family.ANY: (RecordType.A, RecordType.AAAA),
    Family.V4: (RecordType.A,),
    Family.V6: (RecordType.AAAA,),
}
_VERSIONS = {Family.ANY: {4, 6}, Family.V4: {4}, Family.V6: {6}}


async def resolve(
    host: str,
    port: int,
    recorder: Recorder,
    *,
    family: Family,
    addresses: Addresses,
    resolv_conf: Path,
    hosts: Path = HOSTS,
) -> tuple[Address, ...]:
    """Look a name up, anew at each call, and return the address to try, or all of them, best first (RFC 6724).

    An IP address is returned as it is, without a resolve phase. Fact.DNS_ATTEMPTS is written down where no address was
    found, and where finding one took trouble: a question without an answer, or many questions and much time. Raises
    ProbeFailure.
    """
    number = _number(host)
    if number is not None and ipaddress.ip_address(number).version in _VERSIONS[family]:
        return (Address(number, port),)
    with recorder.phase(Phase.RESOLVE):
        if number is not None:
            raise ProbeFailure(Reason.NO_RECORDS, f"expected an IPv{family} address, got {number}")
        known = _in_hosts(hosts, host, family) or _loopback(host, family)
        if known:
            recorder.facts[Fact.HOSTS_FILE] = True
        found = ordered(known or await _ask_nameservers(host, family, resolv_conf, recorder))
    recorder.facts[Fact.ADDRESSES] = listed(found)
    wanted = found[:1] if addresses is Addresses.FIRST else found[:ADDRESS_LIMIT]
    return tuple(Address(ip, port) for ip in wanted)


async def resolve_endpoint(
    endpoint: HostPort, options: Addressing, recorder: Recorder, *, addresses: Addresses
) -> tuple[Address, ...]:
    """Look the host of an endpoint up as a target's options say. Raises what `resolve` raises."""
    return await resolve(
        endpoint.host,
        endpoint.port,
        recorder,
        family=options.family,
        addresses=addresses,
        resolv_conf=options.resolv_conf,
    )


def _number(host: str) -> str | None:
    """An address written as a number in any form libc takes, `127.1` and `fe80::1%eth0` among them."""
    try:
        (_, _, _, _, (ip, *_)), *_ = socket.getaddrinfo(
            host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        return None
    return str(ip)


def _in_hosts(path: Path, host: str, family: Family) -> list[str]:
    """The addresses /etc/hosts has for a name; none where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    name = host.lower()
    found: list[str] = []
    for line in text.splitlines():
        ip, *names = line.partition("#")[0].split() or [""]
        if name in (other.lower() for other in names):
            with contextlib.suppress(ValueError):
                address = ipaddress.ip_address(ip)
                if address.version in _VERSIONS[family]:
                    found.append(str(address))
    return list(dict.fromkeys(found))


def _loopback(host: str, family: Family) -> list[str]:
    """The address of `localhost` where /etc/hosts has none: no nameserver is asked for it (RFC 6761 section 6.3)."""
    if host.removesuffix(".").lower() != "localhost":
        return []
    return ["::1"] if family is Family.V6 else ["127.0.0.1"]


async def _ask_nameservers(host: str, family: Family, resolv_conf: Path, recorder: Recorder) -> list[str]:
    notes = recorder.child()
    recorder.awaited = lambda: f"expected the addresses of {host}" + (f": {notes.awaited()}" if notes.awaited else "")
    walk = Walk(ResolvConf.read(resolv_conf), _RECORDS[family], notes, ares.ask)
    try:
        findings = await walk.search(host)
        found = _addresses(host, findings)
    except BaseException:
        recorder.facts[Fact.DNS_ATTEMPTS] = notes.facts.get(Fact.DNS_ATTEMPTS, [])
        raise
    recorder.awaited = None
    recorder.facts[Fact.DNS_NAME] = findings[0].question.name or "."
    recorder.facts[Fact.DNS_SERVER] = str(findings[0].server)
    attempts = notes.facts[Fact.DNS_ATTEMPTS]
    if _took_trouble(attempts):
        recorder.facts[Fact.DNS_ATTEMPTS] = attempts
    return found


def _took_trouble(attempts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a lookup that succeeded has something to tell. Most have not, and are remembered by the hundred."""
    if any("error" in attempt for attempt in attempts):
        return True
    return len(attempts) >= _MANY_QUESTIONS and (
        sum(attempt["duration_seconds"] for attempt in attempts) >= _MUCH_SECONDS
    )


def _addresses(host: str, findings: Sequence[Finding]) -> list[str]:
    found = [ip for finding in findings if isinstance(finding.seen, Reply) for ip in finding.seen.records]
    if not found:
        finding = decisive(findings)
        raise ProbeFailure(finding.reason, f"expected the addresses of {host}, got {finding}")
    return found
