"""Whom a question may be put to: hosts of targets, their nameservers, the Kubernetes API server, this pod. Nobody else.

Pure. What a target's host is, its own runs say, or an earlier lookup of its own name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.diagnosis.experiment import (
    Connect,
    LocalNetwork,
    Looked,
    Lookup,
    MeshProxy,
    Question,
    ServerClock,
    SmallSegments,
)
from agent.diagnosis.snapshot import History, Snapshot
from agent.keys import HostPort
from agent.model import Fact, Outcome, Target
from agent.net.address import Address
from agent.net.dns_walk import DNS_PORT
from agent.probers.dns_options import DnsOptions

_PORTS = range(1, 65_536)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be asked, by one snapshot."""

    nameservers: Mapping[str, int]
    """IP addresses of nameservers, and the port each is asked at."""
    hosts: frozenset[str]
    """IP addresses that connections may be made to."""
    targets: Mapping[str, Target[Any]]

    @classmethod
    def of(cls, snapshot: Snapshot, nameservers: Iterable[str]) -> Bounds:
        """Read them off a snapshot; the nameservers are those of every resolv.conf that targets use."""
        servers: dict[str, int] = {}
        hosts = {snapshot.pod.kubernetes_api[0]} if snapshot.pod.kubernetes_api else set()
        names: set[str] = set()
        for history in snapshot.histories:
            options = history.target.options
            addresses = set(addresses_of(history))
            if isinstance(options, DnsOptions):
                # Its question's name is no host of ours; its nameserver is.
                if not isinstance(options.server, HostPort):
                    continue
                servers.update(dict.fromkeys(addresses, options.server.port))
            hosts |= addresses
            if options.host is not None:
                names |= _full_names(options.host, snapshot.pod.resolver.search)
        for question, answer in snapshot.asked(Lookup):
            if isinstance(answer, Looked) and _plain(question.name) in names:
                hosts.update(_ips(answer.records))
        servers.update(dict.fromkeys(_ips(nameservers), DNS_PORT))
        return cls(servers, frozenset(hosts), {history.name: history.target for history in snapshot.histories})

    def allow(self, question: Question) -> bool:
        """Whether a question leads to nobody else."""
        match question:
            case Lookup():
                return _ip(question.server) in self.nameservers
            case Connect():
                return question.port in _PORTS and _ip(question.ip) in self.hosts
            case SmallSegments() | ServerClock():
                return question.target in self.targets
            case MeshProxy() | LocalNetwork():
                return True

    def nameserver(self, question: Lookup) -> Address:
        """Where to send a lookup that is allowed."""
        ip = _ip(question.server) or ""
        return Address(ip, self.nameservers[ip])


def addresses_of(history: History) -> Iterator[str]:
    """The IP addresses of a target's host: the one it is configured with, or those its runs resolved and tried.

    A run that was redirected speaks of somebody else's.
    """
    yield from _ips([history.target.options.host or ""])
    for outcome in history.outcomes:
        if not outcome.facts.get(Fact.HTTP_REDIRECTS):
            yield from _ips(_seen_by(outcome))


def _seen_by(outcome: Outcome) -> Iterator[str]:
    yield from outcome.facts.get(Fact.ADDRESSES, ())
    if Fact.ADDRESS in outcome.facts:
        yield outcome.facts[Fact.ADDRESS].rpartition(":")[0].strip("[]")


def _full_names(host: str, search: Iterable[str]) -> set[str]:
    """What a host's name may be in full."""
    name = _plain(host)
    return {name} if host.endswith(".") else {name, *(f"{name}.{_plain(domain)}" for domain in search if domain)}


def _plain(name: str) -> str:
    return name.removesuffix(".").lower()


def _ips(texts: Iterable[str]) -> Iterator[str]:
    return filter(None, map(_ip, texts))


def _ip(text: str) -> str | None:
    """An IP address in its usual form; None where the text is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
