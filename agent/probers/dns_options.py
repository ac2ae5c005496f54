"""What a dns target is configured with."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from agent.keys import (
    CIDR,
    NON_EMPTY,
    PATH,
    REGEX,
    Check,
    HostPort,
    Kind,
    Network,
    Unexpected,
    choice,
    integer,
    key,
    list_of,
    section,
    split_host_port,
)
from agent.model import Secret
from agent.net.addressing import RESOLV_CONF
from agent.net.dns_exchange import Transport
from agent.net.dns_message import Rcode, RecordType, encode_name
from agent.net.dns_walk import DNS_PORT

URL_SCHEMES = ("dns",)

ADDRESS_RECORDS = {RecordType.A: 4, RecordType.AAAA: 6}
"""The record types whose data is an address, and its IP version."""
_NAME_RECORDS = frozenset({RecordType.CNAME, RecordType.NS, RecordType.PTR})


class Resolver(StrEnum):
    """Who is asked, where it is not one nameserver."""

    POD = "pod"
    """The nameservers of resolv.conf, as libc walks them."""
    SYSTEM = "system"
    """libc."""


def _read_name(raw: Any) -> str:
    if not isinstance(raw, str):
        raise Unexpected
    try:
        encode_name(raw)
    except UnicodeEncodeError:
        raise Unexpected("write an international name in its xn-- form") from None
    except ValueError as error:
        raise Unexpected(str(error)) from None
    if not re.fullmatch(r"[!-\[\]-~]+", raw):
        raise Unexpected
    return raw


NAME: Kind[str] = Kind(
    expected="a DNS name such as db.example.com", read=_read_name, schema={"type": "string", "minLength": 1}
)


def _read_server(raw: Any) -> Resolver | HostPort:
    if not isinstance(raw, str):
        raise Unexpected
    return Resolver(raw) if raw in set(Resolver) else split_host_port(raw, DNS_PORT)


SERVER: Kind[Resolver | HostPort] = Kind(
    expected=f"pod, system, or a nameserver such as 10.0.0.10 or [2001:db8::1]:5353 (port {DNS_PORT} where left out)",
    read=_read_server,
    show=str,
    schema={"type": "string", "minLength": 1},
)


def _one_of(exact: str | None, matches: re.Pattern[str] | None, within: Network | None) -> str | None:
    given = [name for name, value in (("exact", exact), ("matches", matches), ("within", within)) if value is not None]
    if len(given) == 1:
        return None
    return f"expected one of exact, matches and within, got {' and '.join(given) or 'none'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPattern:
    """What one answer may look like."""

    CHECKS = (Check(at="exact", needs=("exact", "matches", "within"), problem=_one_of),)

    exact: str | None = key(
        NON_EMPTY,
        default=None,
        doc="The data of the record: an address, a name (letter case and the last dot do not matter), "
        "`10 mail.example.com` for MX, the text without quotes for TXT.",
    )
    matches: re.Pattern[str] | None = key(
        REGEX, default=None, doc="A regular expression found anywhere in the data; names have no last dot."
    )
    within: Network | None = key(CIDR, default=None, doc="A network the address belongs to (A and AAAA).")

    def problem(self, record: RecordType) -> str | None:
        """Why no answer of this type can ever be like that."""
        version = ADDRESS_RECORDS.get(record)
        if self.within is not None and self.within.version != version:
            return f"expected networks of {record} records, got within {str(self.within)!r}"
        if self.exact is not None and version is not None:
            try:
                if ipaddress.ip_address(self.exact).version == version:
                    return None
            except ValueError:
                pass
            return f"expected addresses as {record} records hold them, got exact {self.exact!r}"
        return None

    def fits(self, answer: str, record: RecordType) -> bool:
        if self.within is not None:
            return ipaddress.ip_address(answer) in self.within
        if self.matches is not None:
            return self.matches.search(answer) is not None
        return self.exact is not None and _plain(self.exact, record) == _plain(answer, record)

    def __str__(self) -> str:
        """Completes `an answer that …`."""
        if self.within is not None:
            return f"is within {self.within}"
        return f"matches {self.matches.pattern!r}" if self.matches is not None else f"is {self.exact}"


def _plain(data: str, record: RecordType) -> str:
    """The data of a record in a form that can be compared."""
    if record in ADDRESS_RECORDS:
        return str(ipaddress.ip_address(data))
    if record is RecordType.TXT:
        return data
    return " ".join(word if word == "." else word.removesuffix(".") for word in data.lower().split())


def _some_pattern(*groups: tuple[AnswerPattern, ...] | None) -> str | None:
    return None if any(groups) else "expected at least one of any, all and none, got an empty mapping"


_PATTERNS = list_of(section(AnswerPattern), minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedAnswers:
    """What the answers must be like. Each key quantifies over the answers; the patterns in its list are alternatives.

    Without answers `all` and `none` hold; `min_answers` says whether there may be none.
    """

    CHECKS = (Check(at="some", needs=("some", "every", "no"), problem=_some_pattern),)

    some: tuple[AnswerPattern, ...] | None = key(
        _PATTERNS, name="any", default=None, doc="At least one answer fits at least one of these."
    )
    every: tuple[AnswerPattern, ...] | None = key(
        _PATTERNS, name="all", default=None, doc="Each answer fits at least one of these."
    )
    no: tuple[AnswerPattern, ...] | None = key(_PATTERNS, name="none", default=None, doc="No answer fits any of these.")

    def patterns(self) -> tuple[AnswerPattern, ...]:
        return (*(self.some or ()), *(self.every or ()), *(self.no or ()))


def _answers_need_success(rcodes: tuple[Rcode, ...], answers: ExpectedAnswers | None) -> str | None:
    if answers is not None and Rcode.NOERROR not in rcodes:
        return f"expected NOERROR among the rcodes, since answers are expected, got {', '.join(rcodes)}"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsExpect:
    """What makes an answer the right one."""

    CHECKS = (Check(at="rcodes", needs=("rcodes", "answers"), problem=_answers_need_success),)

    rcodes: tuple[Rcode, ...] = key(
        list_of(choice(Rcode), minimum=1),
        default=(Rcode.NOERROR,),
        doc="Response codes that are right. NXDOMAIN may be: a name that must not exist.",
    )
    answers: ExpectedAnswers | None = key(
        section(ExpectedAnswers), default=None, doc="What the records must be like, where the response code is NOERROR."
    )
    min_answers: int = key(
        integer(0, 1000),
        default=1,
        doc="Fewest records of the type that was asked for, where the response code is NOERROR.",
    )


def _name_or_address(record: RecordType, query: str) -> str | None:
    if record is not RecordType.PTR and is_address(query):
        return f"expected a name, since the record is {record}, got the IP address {query!r} (for record: PTR)"
    return None


def _system_knows_addresses(server: Resolver | HostPort, record: RecordType) -> str | None:
    if server is Resolver.SYSTEM and record not in ADDRESS_RECORDS:
        return f"expected A or AAAA, since getaddrinfo (server: system) looks up nothing else, got {record}"
    return None


def _system_has_its_own_transport(server: Resolver | HostPort, transport: Transport) -> str | None:
    if server is Resolver.SYSTEM and transport is not Transport.UDP:
        return f"expected nothing, since getaddrinfo (server: system) decides that itself, got {transport}"
    return None


def _system_tells_two_rcodes(server: Resolver | HostPort, expect: DnsExpect) -> str | None:
    if server is Resolver.SYSTEM and not {Rcode.NOERROR, Rcode.NXDOMAIN}.issuperset(expect.rcodes):
        known = "NOERROR and NXDOMAIN"
        return (
            f"expected {known} only, since getaddrinfo (server: system) tells no other, got {', '.join(expect.rcodes)}"
        )
    return None


def _patterns_fit_the_record(record: RecordType, expect: DnsExpect) -> str | None:
    patterns = expect.answers.patterns() if expect.answers is not None else ()
    return next((problem for pattern in patterns if (problem := pattern.problem(record)) is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsOptions:
    CHECKS = (
        Check(at="query", needs=("record", "query"), problem=_name_or_address),
        Check(at="record", needs=("server", "record"), problem=_system_knows_addresses),
        Check(at="transport", needs=("server", "transport"), problem=_system_has_its_own_transport),
        Check(at="expect", needs=("server", "expect"), problem=_system_tells_two_rcodes),
        Check(at="expect", needs=("record", "expect"), problem=_patterns_fit_the_record),
    )

    query: str = key(
        NAME, doc="Name to ask for, or with record: PTR an IP address. A trailing dot keeps it from being searched."
    )
    record: RecordType = key(choice(RecordType), default=RecordType.A, doc="Type of the records to ask for.")
    server: Resolver | HostPort = key(
        SERVER,
        default=Resolver.POD,
        doc="Whom to ask. pod: the nameservers of resolv.conf, through search and ndots, as libc does. system: "
        "getaddrinfo, so that /etc/hosts and nsswitch.conf count. Or one nameserver, asked once for the name as it is.",
    )
    transport: Transport = key(
        choice(Transport),
        default=Transport.UDP,
        doc="udp (with EDNS; a truncated answer is fetched over TCP as well) or tcp.",
    )
    resolv_conf: Path = key(
        PATH,
        default=RESOLV_CONF,
        doc="Resolver configuration to read, anew at each run; with server: system, it is always /etc/resolv.conf.",
    )
    expect: DnsExpect = key(section(DnsExpect), default=DnsExpect(), doc="What makes the answer right.")

    @property
    def name(self) -> str:
        """The name the question is about, as it is typed: an address as its name in the reverse tree."""
        if is_address(self.query):
            return ipaddress.ip_address(self.query).reverse_pointer + "."
        return self.query

    @property
    def printable_address(self) -> str:
        return f"{self.query} {self.record} @{self.server}"

    @property
    def host(self) -> str:
        """The nameserver, or the name where the pod's own nameservers are asked."""
        return self.server.host if isinstance(self.server, HostPort) else self.query

    @property
    def port(self) -> int | None:
        return self.server.port if isinstance(self.server, HostPort) else None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return ()


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def from_url(url: str) -> dict[str, Any]:
    """`dns:name`, `dns://server/name?type=AAAA` (RFC 4501) as the configuration it stands for."""
    parts = urlsplit(url)
    name = unquote(parts.path.removeprefix("/"))
    if not name:
        raise ValueError(f"expected a name to ask for, as in dns:db.example.com, got {url!r}")
    keys: dict[str, Any] = {"query": name}
    if parts.netloc:
        keys["server"] = parts.netloc
    for key_, value in parse_qsl(parts.query.replace(";", "&"), keep_blank_values=True):
        if key_.lower() == "type":
            keys["record"] = value.upper()
        elif key_.lower() != "class" or value.upper() != "IN":
            raise ValueError(f"expected type= (and class=IN) after the question mark, got {key_}={value}")
    return keys
