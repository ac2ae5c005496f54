"""DNS messages: one question out, its answer in (RFC 1035, EDNS of RFC 6891). Bytes and values, no I/O.

Written here because it is small: the libraries that do it cost a worker pod 3.5 MB and 60 ms of CPU at start
(dnslib) or 9 MB and 200 ms (dnspython), and neither bounds the work a hostile message can ask for. The tests compare
it with dnslib, knot and unbound.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

EDNS_PAYLOAD_BYTES = 1232
"""The largest UDP answer asked for: fits every path without fragments (DNS flag day 2020)."""

_NAME_LIMIT, _LABEL_LIMIT = 255, 63  # RFC 1035 section 2.3.4
_POINTER_LIMIT = 127  # one before each label of the longest name
_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_QR, _AA, _TC, _RD, _RA, _AD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020
_OPCODE, _RCODE = 0x7800, 0x000F
_IN, _OPT = 1, 41


class RecordType(StrEnum):
    A = "A"
    AAAA = "AAAA"
    CNAME = "CNAME"
    TXT = "TXT"
    SRV = "SRV"
    MX = "MX"
    NS = "NS"
    SOA = "SOA"
    PTR = "PTR"


_NUMBERS = {
    RecordType.A: 1,
    RecordType.NS: 2,
    RecordType.CNAME: 5,
    RecordType.SOA: 6,
    RecordType.PTR: 12,
    RecordType.MX: 15,
    RecordType.TXT: 16,
    RecordType.AAAA: 28,
    RecordType.SRV: 33,
}
_TYPES = {number: record for record, number in _NUMBERS.items()}


class Rcode(StrEnum):
    """Response codes, as the IANA registry names them."""

    NOERROR = "NOERROR"
    FORMERR = "FORMERR"
    SERVFAIL = "SERVFAIL"
    NXDOMAIN = "NXDOMAIN"
    NOTIMP = "NOTIMP"
    REFUSED = "REFUSED"
    YXDOMAIN = "YXDOMAIN"
    YXRRSET = "YXRRSET"
    NXRRSET = "NXRRSET"
    NOTAUTH = "NOTAUTH"
    NOTZONE = "NOTZONE"
    DSOTYPENI = "DSOTYPENI"
    BADVERS = "BADVERS"
    BADCOOKIE = "BADCOOKIE"


_RCODES = {**dict(enumerate(list(Rcode)[:12])), 16: Rcode.BADVERS, 23: Rcode.BADCOOKIE}

_WITHOUT_QUESTION = frozenset({Rcode.FORMERR, Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED})
"""What a server may answer that did not read the question, and so cannot repeat it."""


class MalformedError(Exception):
    """Bytes that answer the question, by their id, but are not a DNS answer. The text says why."""


class UnrelatedError(Exception):
    """A message that answers something else."""


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    """Absolute, without the trailing dot; empty for the root."""
    record: RecordType

    def message(self, message_id: int, *, edns: bool) -> bytes:
        """The question as a message. RD is set, and AD to hear whether the server validated (RFC 6840 section 5.7)."""
        header = _HEADER.pack(message_id, _RD | _AD, 1, 0, 0, int(edns))
        question = encode_name(self.name) + _QUESTION.pack(_NUMBERS[self.record], _IN)
        opt = b"\0" + _RECORD.pack(_OPT, EDNS_PAYLOAD_BYTES, 0, 0) if edns else b""
        return header + question + opt


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an answer says about its question."""

    rcode: str
    """A member of Rcode, or `RCODE13` for a number without a name."""
    truncated: bool
    authenticated: bool
    edns: bool
    referral: bool
    """Neither an answer nor authority nor recursion: the server knows nothing about the name."""
    empty: bool
    """No record in the answer section, not even a CNAME: what libc calls no data."""
    records: tuple[str, ...]
    """Data of the records that were asked for, at the end of the CNAME chain, in the order of the message.

    Names without the trailing dot, TXT strings joined and without quotes, otherwise as in a zone file.
    """
    ttl_seconds: int | None
    """The smallest TTL of those records and of the chain."""
    dead_end: str | None
    """Why a CNAME chain leads to no records."""


def encode_name(name: str) -> bytes:
    """A name in wire form. Raises ValueError where it is none: an empty or long label, more than 255 bytes."""
    labels = [label.encode("ascii") for label in name.removesuffix(".").split(".")] if name not in {"", "."} else []
    if any(not 0 < len(label) <= _LABEL_LIMIT for label in labels):
        raise ValueError(f"each label of a DNS name has 1 to {_LABEL_LIMIT} characters")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(wire) > _NAME_LIMIT:
        raise ValueError(f"a DNS name has at most {_NAME_LIMIT - 2} characters")
    return wire


def read_reply(data: bytes, message_id: int, question: Question) -> Reply:
    """Read the answer to a question. Raises UnrelatedError, MalformedError."""
    reader = _Reader(data)
    received_id, flags, questions, answers, authorities, additionals = reader.take(_HEADER)
    if received_id != message_id:
        raise UnrelatedError
    if not flags & _QR or flags & _OPCODE:
        raise MalformedError("a message that is not an answer")
    rcode = _rcode(flags & _RCODE)
    if not (questions == 0 and answers == 0 and rcode in _WITHOUT_QUESTION):
        _match(reader, questions, question)
    records: list[Record] = []
    others = 0
    extended, edns = 0, False
    truncated = bool(flags & _TC)
    # The sections of a truncated message are cut anywhere; nobody needs them.
    for index in range(0 if truncated else answers + authorities + additionals):
        owner, kind, class_, ttl, size = reader.record()
        end = reader.offset + size
        if index < answers and class_ == _IN and _TYPES.get(kind) in {question.record, RecordType.CNAME}:
            records.append(Record(owner.lower(), _TYPES[kind], ttl, _data(reader, _TYPES[kind], size)))
            if reader.offset != end:
                raise MalformedError(f"a {_TYPES[kind]} record of the wrong length")
        elif kind == _OPT and index >= answers + authorities:
            extended, edns = ttl >> 24, True
        elif index >= answers + authorities:
            others += 1
        reader.skip_to(end)
    found, dead_end = follow(question, records)
    return Reply(
        rcode=_rcode(extended << 4 | flags & _RCODE),
        truncated=truncated,
        authenticated=bool(flags & _AD),
        edns=edns,
        referral=rcode == Rcode.NOERROR and answers == 0 and not flags & (_AA | _RA | _TC) and others == 0,
        empty=answers == 0,
        records=tuple(record.data for record in found if record.type is question.record),
        ttl_seconds=min((record.ttl for record in found), default=None),
        dead_end=dead_end,
    )


def _rcode(number: int) -> str:
    return _RCODES.get(number, f"RCODE{number}")


def _match(reader: _Reader, count: int, question: Question) -> None:
    """Refuse an answer to another question."""
    if count != 1:
        raise UnrelatedError
    name = reader.name()
    kind, class_ = reader.take(_QUESTION)
    if (name.lower(), kind, class_) != (question.name.lower(), _NUMBERS[question.record], _IN):
        raise UnrelatedError


@dataclass(frozen=True, slots=True)
class Record:
    owner: str
    """In lower case."""
    type: RecordType
    ttl: int
    data: str


def follow(question: Question, records: Iterable[Record]) -> tuple[list[Record], str | None]:
    """The CNAME chain from the question and the records at its end; or why there are none at its end."""
    held: dict[tuple[str, RecordType], list[Record]] = {}
    for record in records:
        held.setdefault((record.owner, record.type), []).append(record)
    chain: list[Record] = []
    passed: set[str] = set()
    owner, shown = question.name.lower(), question.name
    while (owner, question.record) not in held:
        passed.add(owner)
        aliases = held.get((owner, RecordType.CNAME))
        if aliases is None:
            return [], f"a CNAME chain that ends at {shown}" if chain else None
        chain.append(aliases[0])
        shown = aliases[0].data
        owner = shown.lower()
        if owner in passed:
            return [], f"a CNAME chain that returns to {shown}"
    return [*chain, *held[owner, question.record]], None


class _Reader:
    """Reads a message from front to back; whatever is beyond its end raises MalformedError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._names: dict[int, tuple[str, int]] = {}
        """What pointers lead to: name and size, by offset."""
        self.offset = 0

    def take(self, form: struct.Struct) -> tuple[int, ...]:
        return form.unpack(self.bytes(form.size))

    def bytes(self, count: int) -> bytes:
        end = self.offset + count
        self._within(end)
        taken = self._data[self.offset : end]
        self.offset = end
        return taken

    def skip_to(self, offset: int) -> None:
        self._within(offset)
        self.offset = offset

    def record(self) -> tuple[str, int, int, int, int]:
        """Owner, type, class, TTL and the size of the data of the record that begins here."""
        owner = self.name()
        kind, class_, ttl, size = self.take(_RECORD)
        return owner, kind, class_, ttl, size

    def name(self) -> str:
        """The name that begins here, without its trailing dot."""
        name, _, self.offset = self._name(self.offset, pointers=0)
        return name

    def _name(self, offset: int, pointers: int) -> tuple[str, int, int]:
        """The name at an offset, its size in wire form without pointers, and the offset behind it.

        A compression pointer must lead to before the part it continues, which every lawful one does, and what it leads
        to is read once: no message costs more than its length.
        """
        part, size, labels = offset, 1, []
        while length := self._byte(offset):
            if length >= 0xC0:  # noqa: PLR2004 - RFC 1035 section 4.1.4
                target = (length & 0x3F) << 8 | self._byte(offset + 1)
                if target >= part or pointers == _POINTER_LIMIT:
                    raise MalformedError("a name that points astray")
                if target not in self._names:
                    self._names[target] = self._name(target, pointers + 1)[:2]
                rest, rest_size = self._names[target]
                labels += [rest] if rest else []
                size += rest_size - 1
                offset += 1
                break
            if length > _LABEL_LIMIT:
                raise MalformedError("a name with a label that is too long")
            self._within(offset + 1 + length)
            labels.append(_printable(self._data[offset + 1 : offset + 1 + length]))
            size += 1 + length
            offset += 1 + length
        if size > _NAME_LIMIT:
            raise MalformedError("a name that is too long")
        return ".".join(labels), size, offset + 1

    def _byte(self, offset: int) -> int:
        self._within(offset + 1)
        return self._data[offset]

    def _within(self, end: int) -> None:
        if end > len(self._data):
            raise MalformedError(f"a message cut off after {len(self._data)} bytes")


_SPECIAL = re.compile(rb"[^!-\[\]-~]|[.]")


def _printable(label: bytes) -> str:
    """A label as a zone file shows it: what is no plain character as a decimal escape (RFC 1035 section 5.1)."""
    return _SPECIAL.sub(lambda found: b"\\%03d" % found[0][0], label).decode("ascii")


_MX = struct.Struct("!H")
_SRV = struct.Struct("!HHH")
_SOA = struct.Struct("!IIIII")


def _data(reader: _Reader, record: RecordType, size: int) -> str:
    """The data of a record, in the form Reply.records describes."""
    match record:
        case RecordType.A:
            return str(ipaddress.IPv4Address(reader.bytes(4)))
        case RecordType.AAAA:
            return str(ipaddress.IPv6Address(reader.bytes(16)))
        case RecordType.TXT:
            return _text(reader.bytes(size))
        case RecordType.MX | RecordType.SRV:
            numbers = reader.take(_MX if record is RecordType.MX else _SRV)
            return " ".join([*map(str, numbers), reader.name() or "."])
        case RecordType.SOA:
            names = [reader.name() or ".", reader.name() or "."]
            return " ".join([*names, *map(str, reader.take(_SOA))])
        case RecordType.CNAME | RecordType.NS | RecordType.PTR:
            return reader.name() or "."


def _text(data: bytes) -> str:
    strings = _Reader(data)
    joined = b""
    while strings.offset < len(data):
        joined += strings.bytes(strings.bytes(1)[0])
    text = joined.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\{ord(c):03d}" for c in text)
