"""The configuration keys of postgres targets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from agent.keys import (
    NON_EMPTY,
    SECRET,
    SECRET_FILE,
    Check,
    HostPort,
    Kind,
    Unexpected,
    choice,
    integer,
    key,
    section,
    split_host_port,
)
from agent.model import Secret, secrets_of
from agent.net.addressing import Addressing
from agent.net.tls import TlsOptions

DEFAULT_PORT = 5432
DEFAULT_QUERY = "select 1"
DEFAULT_USER = "netprobe"
"""Whom a handshake asks for where the DSN names nobody. It never gets far enough to matter."""


class Mode(StrEnum):
    HANDSHAKE = "handshake"
    LOGIN = "login"
    QUERY = "query"


class SslMode(StrEnum):
    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class Verification(StrEnum):
    """How much of a server's certificate is verified."""

    NOTHING = "nothing"
    CHAIN = "chain"
    CHAIN_AND_NAME = "chain and name"


_VERIFYING = frozenset({SslMode.VERIFY_CA, SslMode.VERIFY_FULL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dsn:
    """What a connection URL says."""

    endpoint: HostPort
    user: str | None = None
    password: Secret | None = None
    database: str | None = None
    sslmode: SslMode | None = None
    sslrootcert: Path | None = None
    sslcert: Path | None = None
    sslkey: Path | None = None
    application_name: str = "netprobe"

    def __str__(self) -> str:
        """The URL again, its password masked."""
        mask = ":***" if self.password is not None else ""
        who = f"{quote(self.user, safe='')}{mask}@" if self.user is not None else ""
        where = f"/{quote(self.database, safe='')}" if self.database is not None else ""
        given = {name: getattr(self, name) for name in _PARAMETERS}
        pairs = [f"{name}={quote(str(value))}" for name, value in given.items() if value not in (None, "netprobe")]
        return f"postgresql://{who}{self.endpoint}{where}{'?' if pairs else ''}{'&'.join(pairs)}"


def _sslmode(text: str) -> SslMode:
    try:
        return SslMode(text)
    except ValueError:
        raise Unexpected(f"sslmode is one of {', '.join(SslMode)}, not {text!r}") from None


_PARAMETERS: Mapping[str, Callable[[str], Any]] = {
    "sslmode": _sslmode,
    "sslrootcert": Path,
    "sslcert": Path,
    "sslkey": Path,
    "application_name": str,
}
"""What may stand after the question mark, and how it is read. libpq's others are not, so that none is ignored."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def _read_dsn(raw: Any) -> Dsn:
    if not isinstance(raw, str):
        raise Unexpected
    scheme, separator, rest = raw.partition("://")
    if scheme not in {"postgres", "postgresql"} or not separator:
        raise Unexpected
    if "#" in raw or _UNPRINTABLE.search(unquote(raw)):
        raise Unexpected("a # is written as %23, and control characters have no place in it")
    parts = urlsplit(f"postgresql://{rest}")
    who, _, where = parts.netloc.rpartition("@")
    user, colon, password = who.partition(":")
    try:
        endpoint = split_host_port(where, DEFAULT_PORT)
    except Unexpected:
        raise Unexpected(f"one host (and port) is expected after // or @, not {where!r}") from None
    return Dsn(
        endpoint=endpoint,
        user=unquote(user) or None,
        password=Secret(unquote(password)) if colon and password else None,
        database=unquote(parts.path.removeprefix("/")) or None,
        **_parameters(parts.query),
    )


def _parameters(query: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in _PARAMETERS:
            raise Unexpected(f"its parameters are {', '.join(_PARAMETERS)}; {name!r} is unknown")
        if name in values or not text:
            raise Unexpected(f"{name} is expected once, with a value")
        values[name] = _PARAMETERS[name](text)
    if values.get("sslrootcert") == Path("system"):  # libpq's name for what is meant here where it is left out
        del values["sslrootcert"]
    if "sslkey" in values and "sslcert" not in values:
        raise Unexpected("sslcert is expected beside sslkey")
    return values


DSN: Kind[Dsn] = Kind(
    expected="a URL such as postgresql://user@db.example.com:5432/database",
    read=_read_dsn,
    show=str,
    schema={"type": "string", "pattern": "^postgres(ql)?://"},
    secret=True,
)


def _read_value(raw: Any) -> str:
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if not isinstance(raw, str | int | float):
        raise Unexpected
    return str(raw)


VALUE: Kind[str] = Kind(
    expected="a string, a number or a boolean", read=_read_value, schema={"type": ["string", "number", "boolean"]}
)

_ROWS = integer(0, 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresExpectation:
    """What the answer to the query should be. All that is given must hold."""

    rows: int | None = key(_ROWS, default=None, doc="Exact number of rows.")
    min_rows: int | None = key(_ROWS, default=None, doc="Smallest number of rows.")
    value: str | None = key(
        VALUE,
        default=None,
        doc="First column of the first row, compared as text: numbers as printed, booleans as true and false.",
    )


def _once(dsn: Dsn, password: Secret | None, password_file: Secret | None) -> str | None:
    if sum(secret is not None for secret in (dsn.password, password, password_file)) > 1:
        return "expected the password in one of dsn, password and password_file, got more than one"
    return None


def _user(dsn: Dsn, mode: Mode) -> str | None:
    if mode is not Mode.HANDSHAKE and dsn.user is None:
        return f"expected a user in dsn for mode {mode}, got none"
    return None


def _asked(mode: Mode, query: str, expect: PostgresExpectation | None) -> str | None:
    if mode is not Mode.QUERY and (query != DEFAULT_QUERY or expect is not None):
        return f"expected mode query beside query and expect, got mode {mode}"
    return None


def _one_sslmode(dsn: Dsn, sslmode: SslMode | None) -> str | None:
    if dsn.sslmode is not None and sslmode is not None:
        return "expected sslmode in one place, got it in dsn as well"
    return None


def _verified(dsn: Dsn, sslmode: SslMode | None, tls: TlsOptions | None) -> str | None:
    mode = sslmode or dsn.sslmode
    if mode in _VERIFYING and tls is not None and not tls.verify:
        return f"expected no verify: false beside sslmode {mode}"
    if mode is SslMode.VERIFY_CA and dsn.sslrootcert is None and (tls is None or tls.ca_file is None):
        return "expected a CA file (tls.ca_file or sslrootcert) beside sslmode verify-ca, got none"
    return None


def _wanted(dsn: Dsn, sslmode: SslMode | None, tls: TlsOptions | None) -> str | None:
    if (sslmode or dsn.sslmode) is SslMode.DISABLE and (tls is not None or dsn.sslrootcert or dsn.sslcert):
        return "expected an sslmode that allows TLS beside options of TLS, got disable"
    return None


def _one_file(dsn: Dsn, tls: TlsOptions | None) -> str | None:
    if tls is None:
        return None
    for name, there, here in (
        ("ca_file", dsn.sslrootcert, tls.ca_file),
        ("certificate_file", dsn.sslcert, tls.certificate_file),
    ):
        if there is not None and here is not None:
            return f"expected tls.{name} in one place, got it in dsn as well"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresOptions(Addressing):
    CHECKS = (
        Check(at="password_file", needs=("dsn", "password", "password_file"), problem=_once),
        Check(at="mode", needs=("dsn", "mode"), problem=_user),
        Check(at="mode", needs=("mode", "query", "expect"), problem=_asked),
        Check(at="sslmode", needs=("dsn", "sslmode"), problem=_one_sslmode),
        Check(at="sslmode", needs=("dsn", "sslmode", "tls"), problem=_verified),
        Check(at="sslmode", needs=("dsn", "sslmode", "tls"), problem=_wanted),
        Check(at="tls", needs=("dsn", "tls"), problem=_one_file),
    )

    dsn: Dsn = key(
        DSN,
        doc="Server, user and database as a URL (port 5432 where left out), with the parameters "
        f"{', '.join(_PARAMETERS)} of libpq. A password in it is used and never shown.",
    )
    mode: Mode = key(
        choice(Mode),
        default=Mode.HANDSHAKE,
        doc="How far to go: handshake, until the server asks for credentials, without a login; login; or query.",
    )
    password: Secret | None = key(SECRET, default=None, doc="Password of the user in dsn.")
    password_file: Secret | None = key(
        SECRET_FILE,
        default=None,
        doc="File that holds the password, read at every run; trailing line ends are cut off.",
    )
    sslmode: SslMode | None = key(
        choice(SslMode),
        default=None,
        doc="TLS as libpq names it, prefer where left out here and in dsn. With a CA file the chain is verified in "
        "every mode; verify-full verifies the name as well, by the system's authorities where there is no CA file. "
        "allow makes a second connection, with TLS, where the server refuses one without; no other mode tries twice.",
    )
    tls: TlsOptions | None = key(
        section(TlsOptions), default=None, doc="Files, name and oldest version of TLS. sslmode says what is verified."
    )
    query: str = key(
        NON_EMPTY,
        default=DEFAULT_QUERY,
        doc="What mode query asks, one statement in a read-only transaction; at most 1 MiB of answer is read.",
    )
    expect: PostgresExpectation | None = key(
        section(PostgresExpectation), default=None, doc="What mode query expects beside an answer."
    )

    @property
    def printable_address(self) -> str:
        return f"{self.dsn.endpoint}/{self.dsn.database}" if self.dsn.database else str(self.dsn.endpoint)

    @property
    def host(self) -> str:
        return self.dsn.endpoint.host

    @property
    def port(self) -> int:
        return self.dsn.endpoint.port

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return secrets_of(self)

    @property
    def effective_sslmode(self) -> SslMode:
        return self.sslmode or self.dsn.sslmode or SslMode.PREFER

    @property
    def tls_options(self) -> TlsOptions:
        """The section tls, with the files dsn names, and verification as the sslmode has it."""
        tls = self.tls or TlsOptions()
        return dataclasses.replace(
            tls,
            ca_file=self.dsn.sslrootcert or tls.ca_file,
            certificate_file=self.dsn.sslcert or tls.certificate_file,
            key_file=self.dsn.sslkey or tls.key_file,
            verify=self.verification is not Verification.NOTHING,
        )

    @property
    def verification(self) -> Verification:
        if self.effective_sslmode is SslMode.VERIFY_FULL:
            return Verification.CHAIN_AND_NAME
        if self.tls is not None and not self.tls.verify:
            return Verification.NOTHING
        has_ca = self.dsn.sslrootcert is not None or (self.tls is not None and self.tls.ca_file is not None)
        return Verification.CHAIN if has_ca else Verification.NOTHING

    def reveal_password(self) -> str:
        """The password, or an empty string where there is none. Raises OSError, UnicodeDecodeError."""
        secret = self.password or self.password_file or self.dsn.password
        return secret.reveal() if secret is not None else ""


def from_url(url: str) -> dict[str, Any]:
    """`postgres://user@host/database` as the configuration it stands for: with a password in it, a query as well."""
    try:
        dsn = _read_dsn(url)
    except Unexpected as error:
        raise ValueError(str(error) or f"expected {DSN.expected}") from None
    return {"dsn": url, "mode": str(Mode.QUERY if dsn.password is not None else Mode.HANDSHAKE)}
