"""Postgres messages: the same are found however the bytes arrive, and nothing that cannot be one is waited for."""

from __future__ import annotations

import contextlib
import itertools
import struct

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.net.postgres_wire import (
    SSL_REQUEST,
    TERMINATE,
    Message,
    Messages,
    authentication,
    needs_more_than_a_password,
    parameter,
    server_error,
    startup_message,
)
from agent.prober import ProbeFailure
from tests.lab.fake_postgres import ASK_SCRAM, error, logged_in, message


def test_requests_are_the_bytes_of_the_documentation() -> None:
    assert SSL_REQUEST.hex() == "0000000804d2162f"
    assert TERMINATE.hex() == "5800000004"
    startup = startup_message(user="probe", database="app")
    assert startup == struct.pack("!II", len(startup), 196608) + b"user\0probe\0database\0app\0\0"


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(marks)]


LATER = message("T", b"x" * 40) + message("D", b"") + message("C", b"SELECT 1\0") + message("Z", b"I")


@given(st.lists(st.integers(0, 10_000)), st.sampled_from([logged_in(), error("3D000", "no such database")]))
def test_messages_are_found_however_they_are_cut(places: list[int], login: bytes) -> None:
    data = login + LATER
    whole = list(Messages().feed(data))
    pieces = Messages()
    assert [found for piece in _cut(data, places) for found in pieces.feed(piece)] == whole
    assert b"".join(message(found.kind.decode(), found.body) for found in whole) == login


def test_what_comes_after_the_login_is_measured_only() -> None:
    messages = Messages(100)
    assert [found.kind for found in messages.feed(logged_in() + message("D", b"x" * 90))][-1] == b"Z"
    assert list(messages.feed(LATER)) == []
    with pytest.raises(ProbeFailure, match="at most 100 bytes"):
        list(messages.feed(struct.pack("!cI", b"D", 101)))


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example.test ESMTP\r\n",
        b"-ERR unknown command\r\n",
        b"ERROR\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",  # a TLS alert
        b"\0\0\0\0\4",
        struct.pack("!cI", b"R", 3),
        struct.pack("!cI", b"R", 30_001),
        struct.pack("!cI", b"R", 0xFFFFFFFF),
        struct.pack("!cI", b"T", 4),
    ],
)
def test_another_protocol_is_told_from_the_first_bytes(data: bytes) -> None:
    with pytest.raises(ProbeFailure) as raised:
        list(Messages().feed(data))
    assert raised.value.reason == "protocol_error"


@pytest.mark.parametrize(
    "data", [struct.pack("!cI", b"D", 3), struct.pack("!cI", b"\0", 4), struct.pack("!cI", b"x", 4)]
)
def test_a_message_that_cannot_be_is_refused_after_the_login_as_well(data: bytes) -> None:
    messages = Messages()
    list(messages.feed(logged_in()))
    with pytest.raises(ProbeFailure) as raised:
        list(messages.feed(data))
    assert raised.value.reason == "protocol_error"


@given(st.binary())
def test_no_bytes_break_the_reader(data: bytes) -> None:
    for head in (b"", logged_in()):
        messages = Messages()
        try:
            list(messages.feed(head))
            found: list[Message] = list(messages.feed(data))
        except ProbeFailure:
            continue
        assert sum(5 + len(one.body) for one in found) <= len(data)


@given(st.binary())
def test_no_body_breaks_a_parser(body: bytes) -> None:
    for parse in (server_error, authentication, parameter):
        with contextlib.suppress(ProbeFailure):
            parse(body)


def test_an_error_is_the_exception_asyncpg_would_raise() -> None:
    raised = server_error(error("28P01", "password authentication failed")[5:])
    assert isinstance(raised, asyncpg.InvalidPasswordError)
    assert str(raised) == "password authentication failed"
    assert raised.severity == "FATAL"


@pytest.mark.parametrize(
    ("body", "name", "is_enough"),
    [
        (struct.pack("!I", 0), "none", "no"),
        (struct.pack("!I", 3), "password", "yes"),
        (struct.pack("!I", 5) + b"salt", "md5", "yes"),
        (struct.pack("!I", 7), "gss", "no"),
        (struct.pack("!I", 77), "method 77", "no"),
        (ASK_SCRAM, "SCRAM-SHA-256", "yes"),
        (struct.pack("!I", 10) + b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", "SCRAM-SHA-256-PLUS, SCRAM-SHA-256", "yes"),
        (struct.pack("!I", 10) + b"OAUTHBEARER\0\0", "OAUTHBEARER", "no"),
    ],
)
def test_what_a_server_asks_for(body: bytes, name: str, is_enough: str) -> None:
    """And whether a password is enough for it."""
    assert authentication(body)[1] == name
    assert needs_more_than_a_password(name) is (is_enough == "no")
