"""The messages of the Postgres protocol that come before a session: what is asked, and what a server may answer.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import asyncpg

from agent.model import Reason
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


class LoginMessages:
    """Cuts what a server sends until ReadyForQuery or ErrorResponse into messages. Nothing after that is looked at."""

    def __init__(self) -> None:
        self._buffer = b""
        self._over = False

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete now.

        Raises ProbeFailure (protocol_error) at the first byte that cannot be Postgres: another protocol's greeting,
        read as a message, would promise a gigabyte that never comes.
        """
        if self._over:
            return
        self._buffer += data
        while not self._over and len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if kind == b"E" and _too_long(length):
                raise old_style_error(self._buffer)
            if kind not in _DURING_LOGIN or length < _LENGTH_BYTES or _too_long(length):
                raise not_postgres(self._buffer)
            end = 1 + length
            if len(self._buffer) < end:
                return
            body, self._buffer = self._buffer[_HEADER.size : end], self._buffer[end:]
            self._over = kind in {b"Z", b"E"}
            yield Message(kind, body)


def _too_long(length: int) -> bool:
    return length > LOGIN_MESSAGE_LIMIT_BYTES


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
