"""The messages of the Postgres protocol that come before a session: what is asked, and what a server may answer.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import asyncpg

from agent.model import Phase, Reason
from agent.prober import ProbeFailure, excerpt

SSL_REQUEST = struct.pack("!II", 8, 80877103)
TERMINATE = struct.pack("!cI", b"X", 4)
_PROTOCOL_3_0 = 196608

LOGIN_MESSAGE_LIMIT_BYTES = 30_000
"""libpq's MAX_ERRLEN: a longer message before the login is over does not come from a Postgres server."""

_HEADER = struct.Struct("!cI")
_LENGTH_BYTES = 4
"""A message's length counts itself, but not its type."""

_DURING_LOGIN = frozenset({b"R", b"E", b"N", b"S", b"K", b"Z", b"v", b"A"})
"""Authentication, ErrorResponse, NoticeResponse, ParameterStatus, BackendKeyData, ReadyForQuery,
NegotiateProtocolVersion, NotificationResponse."""

_EVER = frozenset(kind.encode() for kind in "123ACDEGHIKNRSTVWZcdnstv")
"""Every message a server may send at all."""

AUTHENTICATION_OK = 0
_SASL = 10
_SASL_STEPS = frozenset({11, 12})
_AUTHENTICATION = {
    AUTHENTICATION_OK: "none",
    2: "kerberos",
    3: "password",
    5: "md5",
    6: "scm",
    7: "gss",
    9: "sspi",
}
_WITH_A_PASSWORD = frozenset({"password", "md5", "SCRAM-SHA-256"})


def startup_message(**parameters: str) -> bytes:
    """The first message of protocol 3.0: user, database, application_name."""
    pairs = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
    return struct.pack("!II", 2 * _LENGTH_BYTES + len(pairs) + 1, _PROTOCOL_3_0) + pairs + b"\0"


@dataclass(frozen=True, slots=True)
class Message:
    kind: bytes
    body: bytes


class Messages:
    """Cuts what a server sends into messages: gives out those until ReadyForQuery or ErrorResponse, measures the rest.

    A peer that is no Postgres server is found out by the first byte that cannot be: its greeting, read as a message,
    would promise a gigabyte that never comes.
    """

    def __init__(self, limit_bytes: int = LOGIN_MESSAGE_LIMIT_BYTES) -> None:
        """Refuse longer messages than this once the login is over."""
        self._limit_bytes = limit_bytes
        self._buffer = b""
        self._skip = 0
        self._over = False

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages of a login that are complete now. Raises ProbeFailure (protocol_error, too_large)."""
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        self._buffer += data[self._skip :]
        self._skip = 0
        start = 0
        try:
            while len(self._buffer) - start >= _HEADER.size:
                end = start + 1 + self._length_at(start)
                if self._over:
                    start = end
                    continue
                if len(self._buffer) < end:
                    return
                kind, body = self._buffer[start : start + 1], self._buffer[start + _HEADER.size : end]
                start = end
                self._over = kind in {b"Z", b"E"}
                yield Message(kind, body)
        finally:
            self._skip = max(0, start - len(self._buffer))
            self._buffer = self._buffer[start:]

    def _length_at(self, start: int) -> int:
        """The length of the message that begins here, which its type is not part of."""
        kind, length = _HEADER.unpack_from(self._buffer, start)
        if self._over:
            # asyncpg does not come back from some messages that cannot be, and the whole process with it.
            if kind not in _EVER or length < _LENGTH_BYTES:
                raise not_postgres(self._buffer[start:])
            if length > self._limit_bytes:
                raise too_large(self._limit_bytes)
            return int(length)
        if kind == b"E" and length > LOGIN_MESSAGE_LIMIT_BYTES:
            raise old_style_error(self._buffer[start:])
        if kind not in _DURING_LOGIN or not _LENGTH_BYTES <= length <= LOGIN_MESSAGE_LIMIT_BYTES:
            raise not_postgres(self._buffer[start:])
        return int(length)


def too_large(limit_bytes: int) -> ProbeFailure:
    """The failure of a server that answers more than we read."""
    detail = f"expected an answer of at most {limit_bytes} bytes, got more"
    return ProbeFailure(Reason.TOO_LARGE, detail, phase=Phase.TRANSFER)


def not_postgres(data: bytes) -> ProbeFailure:
    """The failure of a peer that speaks something else."""
    return ProbeFailure(Reason.PROTOCOL_ERROR, f"expected the Postgres protocol, got {excerpt(data)}")


def old_style_error(data: bytes) -> ProbeFailure:
    """The failure behind an error in the format of protocol 2: text after an E.

    A server that cannot fork a process for one more client sends it: it does not know the client's protocol yet.
    """
    text = data[1:].split(b"\0", 1)[0]
    if b"fork" not in text:
        return not_postgres(data)
    return ProbeFailure(
        Reason.TOO_MANY_CONNECTIONS, f"expected the server to take the connection, got: {excerpt(text, 160)}"
    )


def server_error(body: bytes) -> asyncpg.PostgresError:
    """An ErrorResponse as asyncpg would raise it. Raises ProbeFailure where it cannot be read."""
    fields: dict[str, str] = {}
    for part in body.rstrip(b"\0").split(b"\0"):
        fields[part[:1].decode("latin-1")] = part[1:].decode("utf-8", "replace")
    if "C" not in fields or "M" not in fields:
        raise not_postgres(b"E" + body)
    return asyncpg.PostgresError.new(fields)


def authentication(body: bytes) -> tuple[int, str]:
    """What an Authentication message asks for: its code, and a name for people. Raises ProbeFailure."""
    if len(body) < _LENGTH_BYTES:
        raise not_postgres(b"R" + body)
    (code,) = struct.unpack_from("!I", body)
    if code == _SASL:
        mechanisms = [name.decode("ascii", "replace") for name in body[_LENGTH_BYTES:].split(b"\0") if name]
        return code, ", ".join(mechanisms)
    return code, _AUTHENTICATION.get(code, f"method {code}")


def demand(message: Message) -> tuple[int, str]:
    """What a server's first word asks for, as `authentication`. Raises ProbeFailure, asyncpg.PostgresError."""
    if message.kind == b"E":
        raise server_error(message.body)
    return authentication(message.body)


def parameter(body: bytes) -> tuple[str, str]:
    """The name and the value of a ParameterStatus. Raises ProbeFailure."""
    name, end, value = body.partition(b"\0")
    if not end:
        raise not_postgres(b"S" + body)
    return name.decode("utf-8", "replace"), value.rstrip(b"\0").decode("utf-8", "replace")


def asks(code: int) -> bool:
    """Whether an Authentication message is the server's first demand, not a later step or its consent."""
    return code != AUTHENTICATION_OK and code not in _SASL_STEPS


def needs_more_than_a_password(name: str) -> bool:
    """Whether a login by password cannot satisfy what the server asks for (Kerberos, SSPI, OAuth …)."""
    return _WITH_A_PASSWORD.isdisjoint(name.split(", "))
