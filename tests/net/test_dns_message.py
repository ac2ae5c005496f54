"""Messages, compared with dnslib, and taken apart by chance."""

from __future__ import annotations

import struct
import time

import dnslib
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.net.dns_message import (
    EDNS_PAYLOAD_BYTES,
    MalformedError,
    Question,
    Rcode,
    RecordType,
    Reply,
    UnrelatedError,
    encode_name,
    read_reply,
)

LABEL = st.text("abcxyz019-_*", min_size=1, max_size=63)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join).filter(lambda name: len(name) <= 253)
MESSAGE_ID = 4711
ZONE = """
db.test. 60 IN A 10.0.0.1
db.test. 60 IN AAAA 2001:db8::1
db.test. 60 IN TXT "one" "two"
db.test. 60 IN SRV 1 2 3 web.db.test.
db.test. 60 IN MX 10 mail.db.test.
db.test. 60 IN NS ns.db.test.
db.test. 60 IN SOA ns.db.test. admin.db.test. 1 2 3 4 5
db.test. 60 IN PTR host.db.test.
db.test. 60 IN CNAME www.db.test.
"""


def answer(record: RecordType) -> bytes:
    """A well-formed answer with one record of every type, as another implementation writes it."""
    question = dnslib.DNSRecord(
        dnslib.DNSHeader(id=MESSAGE_ID), q=dnslib.DNSQuestion("db.test", getattr(dnslib.QTYPE, record))
    )
    reply = question.replyZone(ZONE)
    reply.add_auth(*dnslib.RR.fromZone("test. 60 IN NS ns.test."))
    reply.add_ar(dnslib.EDNS0(udp_len=1232))
    return bytes(reply.pack())


@given(name=NAME, record=st.sampled_from(RecordType), message_id=st.integers(0, 65535), edns=st.booleans())
def test_a_question_is_what_another_implementation_reads(
    name: str,
    record: RecordType,
    message_id: int,
    edns: bool,  # noqa: FBT001
) -> None:
    message = dnslib.DNSRecord.parse(Question(name, record).message(message_id, edns=edns))
    assert (message.header.id, message.header.qr, message.header.rd) == (message_id, 0, 1)
    assert message.questions == [dnslib.DNSQuestion(name, getattr(dnslib.QTYPE, record))]
    assert [(opt.rtype, opt.edns_len, opt.edns_ver) for opt in message.ar] == [
        (dnslib.QTYPE.OPT, EDNS_PAYLOAD_BYTES, 0)
    ] * edns


@pytest.mark.parametrize(
    ("record", "data"),
    [
        (RecordType.A, "10.0.0.1"),
        (RecordType.AAAA, "2001:db8::1"),
        (RecordType.CNAME, "www.db.test"),
        (RecordType.TXT, "onetwo"),
        (RecordType.SRV, "1 2 3 web.db.test"),
        (RecordType.MX, "10 mail.db.test"),
        (RecordType.NS, "ns.db.test"),
        (RecordType.SOA, "ns.db.test admin.db.test 1 2 3 4 5"),
        (RecordType.PTR, "host.db.test"),
    ],
)
def test_an_answer_of_another_implementation_is_read(record: RecordType, data: str) -> None:
    reply = read_reply(answer(record), MESSAGE_ID, Question("DB.test", record))
    assert (reply.rcode, reply.records, reply.ttl_seconds, reply.edns) == (Rcode.NOERROR, (data,), 60, True)


def test_every_rcode_of_the_registry_has_its_number() -> None:
    def seen(number: int) -> str:
        reply = dnslib.DNSRecord(dnslib.DNSHeader(id=MESSAGE_ID, qr=1), q=dnslib.DNSQuestion("db.test"))
        reply.header.rcode = number & 15
        reply.add_ar(dnslib.EDNS0(ext_rcode=number >> 4))
        return read_reply(bytes(reply.pack()), MESSAGE_ID, Question("db.test", RecordType.A)).rcode

    known = {number: seen(number) for number in range(24) if not seen(number).startswith("RCODE")}
    assert known == {
        0: "NOERROR",
        1: "FORMERR",
        2: "SERVFAIL",
        3: "NXDOMAIN",
        4: "NOTIMP",
        5: "REFUSED",
        6: "YXDOMAIN",
        7: "YXRRSET",
        8: "NXRRSET",
        9: "NOTAUTH",
        10: "NOTZONE",
        11: "DSOTYPENI",
        16: "BADVERS",
        23: "BADCOOKIE",
    }
    assert set(known.values()) == set(Rcode)


def test_what_is_not_printable_is_escaped() -> None:
    """Neither a name nor a text of a stranger's writes to somebody's terminal."""
    question = Question("db.test", RecordType.CNAME)
    head = struct.pack("!HHHHHH", MESSAGE_ID, 0x8180, 1, 1, 0, 0) + question.message(0, edns=False)[12:]
    target = b"\x06a.\x1b\\\xff \x04test\0"
    record = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c" + len(target).to_bytes(2, "big") + target
    assert read_reply(head + record, MESSAGE_ID, question).records == (r"a\046\027\092\255\032.test",)
    text = dnslib.DNSRecord(dnslib.DNSHeader(id=MESSAGE_ID), q=dnslib.DNSQuestion("db.test", dnslib.QTYPE.TXT)).reply()
    text.add_answer(dnslib.RR("db.test", dnslib.QTYPE.TXT, rdata=dnslib.TXT(["\u00fc\x1b[2J".encode(), b"\xff"])))
    assert read_reply(bytes(text.pack()), MESSAGE_ID, Question("db.test", RecordType.TXT)).records == (
        "ü\\027[2J\\xff",
    )


@pytest.mark.parametrize("name", ["a..b", ".a", "x" * 64, ".".join(["x" * 63] * 4), ".."])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="DNS name"):
        encode_name(name)


@pytest.mark.parametrize("name", ["", ".", "a", "a.", ".".join(["x" * 63] * 3 + ["x" * 61])])
def test_names_that_are_some(name: str) -> None:
    wire = encode_name(name)
    assert wire[-1] == 0
    assert len(wire) <= 255


def reads_or_says_why(data: bytes, record: RecordType) -> None:
    """Whatever the bytes are, nothing but the three ends of read_reply."""
    try:
        reply = read_reply(data, MESSAGE_ID, Question("db.test", record))
    except (MalformedError, UnrelatedError):
        return
    assert isinstance(reply, Reply)
    assert all(data.isprintable() for data in reply.records)


@settings(max_examples=600, deadline=None)
@given(data=st.data(), record=st.sampled_from(RecordType))
def test_mutated_answers_are_answers_or_malformed(data: st.DataObject, record: RecordType) -> None:
    message = bytearray(answer(record))
    for _ in range(data.draw(st.integers(1, 12))):
        message[data.draw(st.integers(2, len(message) - 1))] = data.draw(st.integers(0, 255))
    reads_or_says_why(bytes(message[: data.draw(st.integers(0, len(message)))]), record)
    reads_or_says_why(bytes(message), record)


@settings(max_examples=500, deadline=None)
@given(tail=st.binary(max_size=600), counts=st.tuples(*[st.integers(0, 65535)] * 3), record=st.sampled_from(RecordType))
@example(tail=b"\xc0\x19" * 40, counts=(1, 0, 0), record=RecordType.A)
def test_garbage_behind_a_good_question_is_malformed(
    tail: bytes, counts: tuple[int, int, int], record: RecordType
) -> None:
    question = Question("db.test", record).message(0, edns=False)[12:]
    reads_or_says_why(struct.pack("!HHHHHH", MESSAGE_ID, 0x8180, 1, *counts) + question + tail, record)


def test_the_worst_names_cost_no_more_than_the_length_of_the_message() -> None:
    """64 KiB of pointers to the longest name there is, against 64 KiB of records that point at the question."""
    question = Question("db.test", RecordType.A)
    asked = question.message(0, edns=False)[12:]
    data = b"\0\x01\0\x01\0\0\0\0\0\x04\x0a\0\0\x01"
    longest = b"\1x" * 126 + b"\0" + data
    owners = {"plain": (b"", 12), "hostile": (longest, 12 + len(asked))}

    def cost(first: bytes, offset: int) -> float:
        more = (0xC000 | offset).to_bytes(2, "big") + data
        count = (65_000 - len(first)) // len(more)
        header = struct.pack("!HHHHHH", MESSAGE_ID, 0x8180, 1, count + bool(first), 0, 0)
        message = header + asked + first + more * count
        began = time.process_time()
        for _ in range(3):
            assert len(read_reply(message, MESSAGE_ID, question).records) == (0 if first else count)
        return time.process_time() - began

    spent = {kind: cost(*owner) for kind, owner in owners.items()}
    assert spent["hostile"] < 10 * spent["plain"]


@pytest.mark.parametrize("pointers", [100, 8000])
def test_a_chain_of_pointers_ends(pointers: int) -> None:
    """Each leads to the one before it: all lawful by themselves."""
    question = Question("db.test", RecordType.A)
    asked = question.message(0, edns=False)[12:]
    first = 12 + len(asked) + 11
    chain = b"".join((0xC000 | (first - 2 + 2 * n if n else 12)).to_bytes(2, "big") for n in range(pointers))
    blob = b"\0\0\x0a\0\x01\0\0\0\0" + len(chain).to_bytes(2, "big") + chain  # type 10: not looked into
    last = (0xC000 | (first + len(chain) - 2)).to_bytes(2, "big") + b"\0\x01\0\x01\0\0\0\0\0\x04\x0a\0\0\x01"
    message = struct.pack("!HHHHHH", MESSAGE_ID, 0x8180, 1, 2, 0, 0) + asked + blob + last
    if pointers == 100:
        assert read_reply(message, MESSAGE_ID, question).records == ("10.0.0.1",)
    else:
        with pytest.raises(MalformedError, match="points astray"):
            read_reply(message, MESSAGE_ID, question)
