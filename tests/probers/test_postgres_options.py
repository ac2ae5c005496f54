"""The configuration keys of postgres targets: what is read, what is refused and how it is said, what is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import voluptuous as vol
from hypothesis import given
from hypothesis import strategies as st

from agent.keys import keys_of, section, show_section
from agent.probers import PROBERS
from agent.probers.postgres_options import DSN, Mode, PostgresOptions, SslMode, Verification, from_url


def read(**keys: Any) -> PostgresOptions:
    return section(PostgresOptions)(keys)


def problems(**keys: Any) -> list[str]:
    with pytest.raises(vol.MultipleInvalid) as raised:
        read(**keys)
    return sorted(f"{'.'.join(map(str, error.path))}: {error.msg}" for error in raised.value.errors)


URL = "postgresql://probe@db.example.com/app"


def test_the_example_of_the_documentation() -> None:
    options = read(dsn="postgresql://probe@internal-database:5432/app", mode="query", password_file="/run/secrets/db")
    assert options.printable_address == "internal-database:5432/app"
    assert options.host == "internal-database"
    assert options.mode is Mode.QUERY
    assert options.query == "select 1"
    assert options.effective_sslmode is SslMode.PREFER


@pytest.mark.parametrize(
    ("url", "address", "user", "database"),
    [
        ("postgresql://db.example.com", "db.example.com:5432", None, None),
        ("postgres://db.example.com/", "db.example.com:5432", None, None),
        ("postgres://probe@db:6432/app", "db:6432/app", "probe", "app"),
        ("postgresql://pro%40be@db/my%2Fapp", "db:5432/my/app", "pro@be", "my/app"),
        ("postgresql://probe:secret@[2001:db8::1]:5433/app", "[2001:db8::1]:5433/app", "probe", "app"),
        ("postgresql://10.0.0.1/app?sslmode=require", "10.0.0.1:5432/app", None, "app"),
    ],
)
def test_urls(url: str, address: str, user: str | None, database: str | None) -> None:
    options = read(dsn=url)
    assert options.printable_address == address
    assert (options.dsn.user, options.dsn.database) == (user, database)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        (5, ""),
        ("", ""),
        ("db.example.com:5432/app", ""),
        ("mysql://db/app", ""),
        ("postgresql+psycopg2://db/app", ""),
        ("postgresql://", "one host (and port) is expected after // or @, not ''"),
        ("postgresql:///app", "one host (and port) is expected after // or @, not ''"),
        ("postgresql://one,two/app", "one host (and port) is expected after // or @, not 'one,two'"),
        (
            "postgresql://%2Frun%2Fpostgresql/app",
            "one host (and port) is expected after // or @, not '%2Frun%2Fpostgresql'",
        ),
        ("postgresql://db:0/app", "one host (and port) is expected after // or @, not 'db:0'"),
        ("postgresql://db:65536/app", "one host (and port) is expected after // or @, not 'db:65536'"),
        ("postgresql://u:se#cret@db/app", "a # is written as %23, and control characters have no place in it"),
        ("postgresql://u@db/a%00pp", "a # is written as %23, and control characters have no place in it"),
        (
            "postgresql://db/app?connect_timeout=5",
            "its parameters are sslmode, sslrootcert, sslcert, sslkey, application_name; 'connect_timeout' is unknown",
        ),
        (
            "postgresql://db/app?sslmode=sometimes",
            "sslmode is one of disable, allow, prefer, require, verify-ca, verify-full, not 'sometimes'",
        ),
        ("postgresql://db/app?sslmode=", "sslmode is expected once, with a value"),
        ("postgresql://db/app?sslmode=allow&sslmode=allow", "sslmode is expected once, with a value"),
        ("postgresql://db/app?sslkey=/k", "sslcert is expected beside sslkey"),
    ],
)
def test_urls_that_are_refused(url: Any, hint: str) -> None:
    """The URL itself is never shown: it may hold a password."""
    (problem,) = problems(dsn=url)
    assert problem.startswith("dsn: expected a URL such as postgresql://user@db.example.com:5432/database, got a")
    assert problem.endswith(hint)
    assert "secret" not in problem
    assert "se#cret" not in problem


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"dsn": "postgresql://db/app", "mode": "login"}, "mode: expected a user in dsn for mode login, got none"),
        ({"dsn": "postgresql://db/app", "mode": "query"}, "mode: expected a user in dsn for mode query, got none"),
        (
            {"dsn": URL, "query": "select 2"},
            "query: expected mode query beside query and expect, got mode handshake",
        ),
        (
            {"dsn": URL, "mode": "login", "expect": {"rows": 1}},
            "mode: expected mode query beside query and expect, got mode login",
        ),
        (
            {"dsn": "postgresql://u:p@db/app", "password": "x"},
            "dsn: expected the password in one of dsn, password and password_file, got more than one",
        ),
        (
            {"dsn": URL, "password": "x", "password_file": "/x"},
            "password_file: expected the password in one of dsn, password and password_file, got more than one",
        ),
        (
            {"dsn": f"{URL}?sslmode=require", "sslmode": "require"},
            "sslmode: expected sslmode in one place, got it in dsn as well",
        ),
        (
            {"dsn": URL, "sslmode": "verify-ca"},
            "sslmode: expected a CA file (tls.ca_file or sslrootcert) beside sslmode verify-ca, got none",
        ),
        (
            {"dsn": URL, "sslmode": "verify-full", "tls": {"verify": False}},
            "sslmode: expected no verify: false beside sslmode verify-full",
        ),
        (
            {"dsn": f"{URL}?sslmode=disable", "tls": {}},
            "dsn: expected an sslmode that allows TLS beside options of TLS, got disable",
        ),
        (
            {"dsn": f"{URL}?sslrootcert=/ca", "tls": {"ca_file": "/ca"}},
            "tls: expected tls.ca_file in one place, got it in dsn as well",
        ),
        (
            {"dsn": f"{URL}?sslcert=/c", "tls": {"certificate_file": "/c"}},
            "tls: expected tls.certificate_file in one place, got it in dsn as well",
        ),
        ({"dsn": URL, "mode": "ask"}, "mode: expected one of handshake, login, query, got 'ask'"),
        (
            {"dsn": URL, "mode": "query", "expect": {"value": [1]}},
            "expect.value: expected a string, a number or a boolean, got a list",
        ),
        (
            {"dsn": URL, "mode": "query", "expect": {"rows": -1}},
            "expect.rows: expected a whole number from 0 to 1000000, got -1",
        ),
    ],
)
def test_keys_that_do_not_go_together(keys: dict[str, Any], problem: str) -> None:
    assert problem in problems(**keys)


@pytest.mark.parametrize(
    ("keys", "verification", "ca_file"),
    [
        ({}, Verification.NOTHING, None),
        ({"sslmode": "require"}, Verification.NOTHING, None),
        ({"sslmode": "require", "tls": {"ca_file": "/ca"}}, Verification.CHAIN, "/ca"),
        ({"sslmode": "require", "tls": {"ca_file": "/ca", "verify": False}}, Verification.NOTHING, "/ca"),
        ({"dsn": f"{URL}?sslrootcert=/ca"}, Verification.CHAIN, "/ca"),
        ({"dsn": f"{URL}?sslmode=verify-ca&sslrootcert=/ca"}, Verification.CHAIN, "/ca"),
        ({"dsn": f"{URL}?sslmode=verify-full&sslrootcert=/ca"}, Verification.CHAIN_AND_NAME, "/ca"),
        ({"dsn": f"{URL}?sslmode=verify-full&sslrootcert=system"}, Verification.CHAIN_AND_NAME, None),
        ({"sslmode": "verify-full"}, Verification.CHAIN_AND_NAME, None),
    ],
)
def test_what_is_verified(keys: dict[str, Any], verification: Verification, ca_file: str | None) -> None:
    options = read(**({"dsn": URL} | keys))
    assert options.verification is verification
    assert options.tls_options.verify is (verification is not Verification.NOTHING)
    assert options.tls_options.ca_file == (Path(ca_file) if ca_file else None)


def test_a_password_is_found_wherever_it_is(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from a file\n")
    assert read(dsn="postgresql://u:p%40ss%2Fw@db/app").reveal_password() == "p@ss/w"
    assert read(dsn=URL, password="given").reveal_password() == "given"
    assert read(dsn=URL, password_file=str(file)).reveal_password() == "from a file"
    assert read(dsn=URL).reveal_password() == ""


def test_no_password_is_shown() -> None:
    for options in (read(dsn="postgresql://u:s3cret@db/app"), read(dsn=URL, password="s3cret")):
        shown = show_section(options, keys_of(PostgresOptions))
        assert "s3cret" not in f"{shown} {options!r} {options.dsn} {options.printable_address}"
        assert [secret.reveal() for secret in options.secrets] == ["s3cret"]


def test_what_is_shown_can_be_read_again() -> None:
    url = (
        "postgresql://pro%40be@[2001:db8::1]:5433/my%2Fapp?sslmode=verify-ca&sslrootcert=/a%20b&application_name=x%26y"
    )
    dsn = DSN(url)
    assert DSN(DSN.show(dsn)) == dsn


@given(st.text())
def test_no_text_is_a_url_that_breaks_the_reader(text: str) -> None:
    for url in (text, f"postgresql://{text}", f"postgresql://db/{text}", f"postgresql://db/app?{text}"):
        try:
            dsn = DSN(url)
        except vol.Invalid:
            continue
        assert DSN(DSN.show(dsn)).endpoint == dsn.endpoint


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgres://user@internal-database/app", "handshake"),
        ("postgresql://internal-database", "handshake"),
        ("postgres://user:secret@internal-database/app", "query"),
    ],
)
def test_a_url_of_the_command_line(url: str, mode: str) -> None:
    """With a password there is something to log in with, and so the whole way is gone."""
    assert from_url(url) == {"dsn": url, "mode": mode}
    section(PROBERS["postgres"].options)(from_url(url))


@pytest.mark.parametrize("url", ["postgres://", "postgres://user:secret@db/app?nonsense=1"])
def test_a_url_of_the_command_line_that_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected|unknown") as raised:
        from_url(url)
    assert "secret" not in str(raised.value)
