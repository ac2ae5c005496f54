"""Kinds of values and keys: what is read, what is refused, and with which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import voluptuous as vol
from hypothesis import given
from hypothesis import strategies as st

from agent.keys import (
    BOOLEAN,
    CIDR,
    HOST,
    NON_EMPTY,
    PATH,
    REGEX,
    SECRET,
    SECRET_FILE,
    TEXT,
    Check,
    HostPort,
    Kind,
    Untyped,
    choice,
    duration,
    host_port,
    integer,
    key,
    key_schema,
    keys_of,
    list_of,
    mapping_of,
    section,
    show_duration,
    show_section,
    show_size,
    shown,
    size,
    typed,
    valid_host,
    without_password,
)
from agent.model import Secret


class Colour(StrEnum):
    RED = "red"
    ONE = "1"
    HALF = "0.5"


@dataclass(frozen=True, kw_only=True)
class Inner:
    limit: int = key(integer(1, 9), default=3, doc="Limit.")
    token: Secret | None = key(SECRET, default=None, doc="Token.")


def _ordered(low: int, high: int) -> str | None:
    return f"expected low <= high, got {low} and {high}" if low > high else None


@dataclass(frozen=True, kw_only=True)
class Outer:
    CHECKS = (Check(at="high", needs=("low", "high"), problem=_ordered),)

    label: str = key(TEXT, doc="Label.", name="name")
    low: int = key(integer(0, 9), default=1, doc="Low.")
    high: int = key(integer(0, 9), default=5, doc="High.")
    inner: Inner = key(section(Inner), default=Inner(), doc="Inner.")
    several: tuple[Inner, ...] = key(list_of(section(Inner)), default=(), doc="Several.")
    named: Mapping[str, int] | None = key(mapping_of(integer(0, 9), names=HOST), default=None, doc="Named.")


def problems(kind: Kind[Any], raw: Any) -> list[tuple[list[Any], str]]:
    """(path, message) of everything that is wrong with a value."""
    with pytest.raises(vol.Invalid) as caught:
        kind(raw)
    error = caught.value
    errors = error.errors if isinstance(error, vol.MultipleInvalid) else [error]
    return [([p if isinstance(p, int) else str(p) for p in e.path], e.msg) for e in errors]


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (TEXT, "", ""),
        (NON_EMPTY, "x", "x"),
        (BOOLEAN, False, False),
        (integer(1, 5), 5, 5),
        (duration("1s", "1d"), "1s", 1.0),
        (duration("1s", "1d"), "24h", 86400.0),
        (duration("1ms", "1d"), "1.5ms", 0.0015),
        (duration("1s", "1d"), "2m", 120.0),
        (size("1B", "1GiB"), "64KiB", 65536),
        (size("0B", "1GiB"), "0B", 0),
        (choice(Colour), "red", Colour.RED),
        (choice(Colour), 1, Colour.ONE),
        (choice(Colour), 0.5, Colour.HALF),
        (PATH, "/etc/hosts", Path("/etc/hosts")),
        (SECRET, "hunter2", Secret("hunter2")),
        (SECRET_FILE, "/run/secrets/db", Secret(path=Path("/run/secrets/db"))),
        (HOST, "db_1.example.com.", "db_1.example.com."),
        (HOST, "fe80::1%eth0", "fe80::1%eth0"),
        (host_port(), "db:5432", HostPort("db", 5432)),
        (host_port(), "[2001:db8::1]:5432", HostPort("2001:db8::1", 5432)),
        (host_port(53), "192.0.2.1", HostPort("192.0.2.1", 53)),
        (host_port(53), "2001:db8::1", HostPort("2001:db8::1", 53)),
        (host_port(53), "[2001:db8::1]", HostPort("2001:db8::1", 53)),
        (host_port(lowest=0), "127.0.0.1:0", HostPort("127.0.0.1", 0)),
        (list_of(TEXT), ["a", "b"], ("a", "b")),
        (mapping_of(TEXT), {"a": "b"}, {"a": "b"}),
    ],
)
def test_a_value_is_read(kind: Kind[Any], raw: Any, value: Any) -> None:
    """What stands in YAML becomes the value the agent works with; the schema for editors takes it as well."""
    assert kind(raw) == value
    assert jsonschema_rs.is_valid(dict(kind.schema), raw)


@pytest.mark.parametrize(
    ("kind", "raw", "message"),
    [
        (TEXT, 5, "expected a string, got 5"),
        (TEXT, None, "expected a string, got null"),
        (NON_EMPTY, "", "expected a non-empty string, got ''"),
        (BOOLEAN, "no", "expected true or false, got 'no'"),
        (BOOLEAN, 0, "expected true or false, got 0"),
        (integer(1, 5), 6, "expected a whole number from 1 to 5, got 6"),
        (integer(0, 5), True, "expected a whole number from 0 to 5, got true"),
        (integer(1, 5), 2.0, "expected a whole number from 1 to 5, got 2.0"),
        (duration("1s", "1d"), 15, "expected a duration such as 15s, from 1s to 1d, got 15"),
        (duration("1s", "1d"), "0.999s", "expected a duration such as 15s, from 1s to 1d, got '0.999s'"),
        (duration("1s", "1d"), "1d1h", "expected a duration such as 15s, from 1s to 1d, got '1d1h'"),
        (duration("1s", "1d"), "\u0661\u0665s", "expected a duration such as 15s, from 1s to 1d, got '\u0661\u0665s'"),
        (duration("1s", "1d"), "1e3s", "expected a duration such as 15s, from 1s to 1d, got '1e3s'"),
        (size("1B", "1MiB"), "2MiB", "expected a size such as 64KiB, from 1B to 1MiB, got '2MiB'"),
        (size("1B", "1MiB"), "64KB", "expected a size such as 64KiB, from 1B to 1MiB, got '64KB'"),
        (size("1B", "1MiB"), 64, "expected a size such as 64KiB, from 1B to 1MiB, got 64"),
        (choice(Colour), "blue", "expected one of red, 1, 0.5, got 'blue'"),
        (choice(Colour), True, "expected one of red, 1, 0.5, got true"),
        (REGEX, "(", "expected a regular expression, got '(': missing ), unterminated subpattern at position 0"),
        (CIDR, "10.9.9.9/8", "expected a network such as 10.0.0.0/8, got '10.9.9.9/8': the network is 10.0.0.0/8"),
        (CIDR, "10.0.0.0/33", "expected a network such as 10.0.0.0/8, got '10.0.0.0/33'"),
        (REGEX, "[[:alpha:]]", "expected a regular expression, got '[[:alpha:]]': Possible nested set at position 1"),
        (REGEX, "(" * 5000, "expected a regular expression, got '" + "(" * 59 + "…: it is nested too deeply"),
        (PATH, "/etc/\0", "expected a file path, got '/etc/\\x00'"),
        (HOST, "*.example.com", "expected a host name or an IP address, got '*.example.com'"),
        (HOST, "", "expected a host name or an IP address, got ''"),
        (SECRET, 12345, "expected a non-empty string, got a number"),
        (SECRET, ["hunter2"], "expected a non-empty string, got a list"),
        (SECRET, "", "expected a non-empty string, got an empty string"),
        (list_of(TEXT, minimum=1), [], "expected a non-empty list, each item a string, got a list"),
        (list_of(TEXT), "a", "expected a list, each item a string, got 'a'"),
        (mapping_of(TEXT), [], "expected a mapping, each value a string, got a list"),
        (section(Inner), None, "expected a mapping, got null"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_with_what_was_expected_and_what_was_seen(
    kind: Kind[Any], raw: Any, message: str
) -> None:
    """A message is enough to put the value right."""
    assert problems(kind, raw) == [([], message)]


@pytest.mark.parametrize(
    "text",
    ["db", "db:", ":5432", "db:0", "db:65536", "db:5432x", "db:+1", "db:\u0665", "2001:db8::1:5432x", "[db]:5432",
     "[2001:db8::1]5432", "[2001:db8::1", "a b:1", "-db:1", "db..x:1", "http://db:1", "d" * 64 + ":1", "db:1:2"],
)  # fmt: skip
def test_an_address_is_a_host_and_a_port(text: str) -> None:
    """What cannot be connected to is refused at load, not at the first run."""
    [(path, message)] = problems(host_port(), text)

    assert path == []
    assert message.startswith("expected an address such as db.example.com:5432 or [2001:db8::1]:5432, got ")


def test_every_problem_of_a_mapping_is_reported_at_its_own_path() -> None:
    """Unknown keys, missing keys and bad values at any depth come in one go."""
    raw = {
        "low": 99,
        "inner": {"limit": 0, "tokn": "x"},
        "several": [{"limit": 5}, {"limit": "many"}, 7],
        "named": {"a b": 1, "c": 10},
        "nmae": "x",
    }

    assert problems(section(Outer), raw) == [
        (["low"], "expected a whole number from 0 to 9, got 99"),
        (["inner", "limit"], "expected a whole number from 1 to 9, got 0"),
        (["inner", "tokn"], "expected a known key, perhaps token, got the unknown key 'tokn'"),
        (["several", 1, "limit"], "expected a whole number from 1 to 9, got 'many'"),
        (["several", 2], "expected a mapping, got 7"),
        (["named", "a b"], "expected a host name or an IP address, got 'a b'"),
        (["named", "c"], "expected a whole number from 0 to 9, got 10"),
        (["nmae"], "expected a known key, perhaps name or named, got the unknown key 'nmae'"),
        (["name"], "expected a string, got nothing"),
    ]


def test_an_unknown_key_that_resembles_none_is_answered_with_all() -> None:
    """Whoever guesses sees what there is."""
    assert problems(section(Inner), {"zzz": 1}) == [
        (["zzz"], "expected one of limit, token, got the unknown key 'zzz'"),
    ]


@pytest.mark.parametrize(
    ("raw", "path", "message"),
    [
        ({"low": 4, "high": 2}, ["high"], "expected low <= high, got 4 and 2"),
        ({"low": 6}, ["low"], "expected low <= high, got 6 and 5"),
        ({"high": 0}, ["high"], "expected low <= high, got 1 and 0"),
    ],
)
def test_a_rule_over_several_keys_is_reported_at_a_key_that_was_written(
    raw: dict[str, Any], path: list[str], message: str
) -> None:
    """A default takes part in the rule, but a problem needs a place in the file."""
    assert problems(section(Outer), {"name": "x", **raw}) == [(path, message)]


def test_a_rule_is_not_asked_where_one_of_its_values_could_not_be_read() -> None:
    """One mistake gives one message."""
    assert problems(section(Outer), {"name": "x", "low": "x", "high": 0}) == [
        (["low"], "expected a whole number from 0 to 9, got 'x'"),
    ]


def test_a_rule_is_asked_beside_other_problems() -> None:
    """An unknown key does not hide that timeout and interval contradict each other."""
    assert problems(section(Outer), {"name": "x", "low": 6, "zzz": 0})[1:] == [
        (["low"], "expected low <= high, got 6 and 5"),
    ]


def test_what_is_left_out_gets_its_default() -> None:
    """There is one source of defaults: the declaration."""
    assert section(Outer)({"name": "x"}) == Outer(label="x")


@pytest.mark.parametrize(
    ("kind", "untyped", "value"),
    [
        (integer(1, 9000), Untyped("8080", 8080), 8080),
        (BOOLEAN, Untyped("true", True), True),
        (SECRET, Untyped("12345", 12345), Secret("12345")),
        (TEXT, Untyped("", None), ""),
        (list_of(TEXT), [Untyped("1.50", 1.5)], ("1.50",)),
    ],
)
def test_unquoted_text_from_the_environment_is_what_its_key_takes(kind: Kind[Any], untyped: Any, value: Any) -> None:
    """A password may consist of digits, and a port comes as text."""
    assert kind(untyped) == value


def test_unquoted_text_from_the_environment_is_refused_as_what_it_looks_like() -> None:
    """The message shows the number, and never a secret."""
    assert problems(integer(1, 9), Untyped("70000", 70000)) == [([], "expected a whole number from 1 to 9, got 70000")]
    assert problems(section(Inner), {"token": Untyped("", None)}) == [
        (["token"], "expected a non-empty string, got null")
    ]


def test_free_form_values_get_numbers_from_the_environment() -> None:
    """`equals: {port: ${PORT}}` compares with a number."""
    assert typed({"port": Untyped("80", 80), "all": [Untyped("true", True), "x"]}) == {"port": 80, "all": [True, "x"]}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("postgresql://probe:hunter2@db:5432/app", "postgresql://probe:***@db:5432/app"),
        ("https://u:p@ss:w@rd@h/", "https://u:***@h/"),
        ("probe:hunter2@db", "probe:***@db"),
        ("http://db:8080/a", "http://db:8080/a"),
        ("mailto@example.com", "mailto@example.com"),
    ],
)
def test_a_password_in_a_url_is_never_shown(text: str, seen: str) -> None:
    """A key that holds no secret may still be given one."""
    assert without_password(text) == seen
    assert shown(text) == repr(seen)
    [(_, message)] = problems(integer(0, 1), text)
    assert message.endswith(f"got {seen!r}")


@pytest.mark.parametrize(
    "raw", [{"password": "hunter2"}, ["hunter2"], {"token": ["hunter2"]}, {"token": {"value": "hunter2"}}, "x" * 500]
)
def test_no_message_holds_a_secret_or_much_text(raw: Any) -> None:
    """Wherever a secret is put by mistake, it is not repeated; nor is a page of text."""
    for _, message in problems(section(Inner), raw):
        assert "hunter2" not in message
        assert len(message) < 200


@given(st.integers(min_value=1, max_value=10**9))
def test_a_duration_is_shown_as_it_can_be_read(milliseconds: int) -> None:
    """`config show` prints what a file may hold."""
    seconds = milliseconds / 1000

    assert duration("1ms", "99999d")(show_duration(seconds)) == pytest.approx(seconds)


@given(st.integers(min_value=0, max_value=1 << 40))
def test_a_size_is_shown_as_it_can_be_read(amount: int) -> None:
    """`config show` prints what a file may hold."""
    assert size("0B", "9999GiB")(show_size(amount)) == amount


@given(st.text(max_size=30))
def test_no_text_breaks_the_reading_of_a_host(text: str) -> None:
    """Whatever is written, the answer is yes or no."""
    assert isinstance(valid_host(text), bool)


def test_a_section_is_shown_with_defaults_and_without_secrets() -> None:
    """Shown are the names of the file, not those of the code."""
    value = Outer(label="x", inner=Inner(token=Secret("hunter2")), several=(Inner(limit=1),), named={"a": 1})

    assert show_section(value, keys_of(Outer)) == {
        "name": "x",
        "low": 1,
        "high": 5,
        "inner": {"limit": 3, "token": "***"},
        "several": [{"limit": 1}],
        "named": {"a": 1},
    }


def test_a_schema_says_what_a_key_is_for_and_what_it_is_by_default() -> None:
    """Editors show both."""
    schema = key_schema(keys_of(Inner)["limit"])

    assert schema == {"description": "Limit.", "type": "integer", "minimum": 1, "maximum": 9, "default": 3}
