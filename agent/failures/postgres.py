"""What a Postgres server says, by SQLSTATE, and what asyncpg raises.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from agent.failures import network, tls
from agent.failures.cause import Cause, peer
from agent.model import Fact, Phase, Reason
from agent.prober import ProbeFailure

_PROTOCOL_VIOLATION = "08P01"

LOGIN_BY_SQLSTATE: Mapping[str, Reason] = {
    "08P01": Reason.PROTOCOL_ERROR,
    "08004": Reason.ACCESS_DENIED,  # the server rejected the establishment of the connection
    "0A000": Reason.PROTOCOL_ERROR,  # a version of the protocol, or a parameter, it does not know
    "28P01": Reason.CREDENTIALS_REJECTED,
    "57014": Reason.TIMEOUT,  # authentication_timeout
    "57P03": Reason.SERVER_STARTING,
}
LOGIN_BY_CLASS: Mapping[str, Reason] = {
    "08": Reason.CLOSED,
    "3D": Reason.DATABASE_NOT_FOUND,
    "53": Reason.TOO_MANY_CONNECTIONS,  # no room for one more session: connections, memory, disk
    "57": Reason.CLOSED,  # shut down, crashed, dropped or idle for too long
}
"""Whatever is not here is a server that does not let us in: `access_denied`."""

REQUEST_BY_SQLSTATE: Mapping[str, Reason] = {
    "25P03": Reason.CLOSED,  # idle_in_transaction_session_timeout
    "25P04": Reason.TIMEOUT,  # transaction_timeout
    "57014": Reason.TIMEOUT,  # statement_timeout
}
REQUEST_BY_CLASS: Mapping[str, Reason] = {
    "08": Reason.CLOSED,
    "57": Reason.CLOSED,
}
"""Whatever is not here is a query that failed: `verify/query_failed`."""

POOLER_IN_LOGIN: Sequence[tuple[str, Reason]] = (
    ("authentication failed", Reason.CREDENTIALS_REJECTED),
    ("no such user", Reason.CREDENTIALS_REJECTED),
    ("no such database", Reason.DATABASE_NOT_FOUND),
    ("SSL required", Reason.TLS_REQUIRED),
    ("no more connections", Reason.TOO_MANY_CONNECTIONS),
    ("too many", Reason.TOO_MANY_CONNECTIONS),
    ("connection slots", Reason.TOO_MANY_CONNECTIONS),
    ("does not exist", Reason.DATABASE_NOT_FOUND),
    ("pg_hba.conf", Reason.ACCESS_DENIED),
    ("not allowed", Reason.ACCESS_DENIED),
    ("permission denied", Reason.ACCESS_DENIED),
    ("login failed", Reason.ACCESS_DENIED),
    ("server down", Reason.SERVER_STARTING),
    ("starting up", Reason.SERVER_STARTING),
    ("shutting down", Reason.SERVER_STARTING),
    ("connect", Reason.SERVER_STARTING),
    ("crashed", Reason.SERVER_STARTING),
    ("timeout", Reason.SERVER_STARTING),
)
"""pgbouncer says everything with SQLSTATE 08P01, what the server behind it said included: the text decides, the first
that it contains. It is there, the server behind it is not: that is `server_starting`, the server cannot serve now."""


def classify(error: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause | None:
    """asyncpg.PostgresError by SQLSTATE, asyncpg's own errors, and what a lost connection was lost by."""
    said = error_of_server(error)
    if said is not None:
        return _said(said, phase, facts)
    if isinstance(error, asyncpg.PostgresError):
        return _lost(error.__cause__ or EOFError(), phase, facts)
    if isinstance(error, OSError | EOFError) and phase is Phase.LOGIN:
        return _ended_login(error, phase, facts)
    if isinstance(error, asyncpg.InterfaceError) and phase is Phase.REQUEST:
        return Cause(Reason.QUERY_FAILED, f"expected a query that can be sent, got: {error}", Phase.VERIFY)
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return Cause(Reason.PROTOCOL_ERROR, f"expected the Postgres protocol from {peer(facts)}, got: {error}")
    return None


def error_of_server(error: BaseException | None) -> asyncpg.PostgresError | None:
    """The ErrorResponse an exception stands for, if there was one.

    asyncpg hides the last words of a server that then closes the connection behind an error of its own.
    """
    while isinstance(error, asyncpg.PostgresError):
        if error.severity is not None or not isinstance(error, asyncpg.ConnectionDoesNotExistError):
            return error
        error = error.__cause__
    return None


def _lost(reason: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause:
    """The cause behind a connection asyncpg lost."""
    if isinstance(reason, ProbeFailure):
        return Cause(reason.reason, reason.detail, reason.phase)
    for classifier in (tls.classify, _ended_login, network.classify):
        cause = classifier(reason, phase, facts)
        if cause is not None:
            return cause
    return Cause(Reason.CLOSED, f"expected an answer from {peer(facts)}, got: the connection was closed")


def _ended_login(error: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause | None:
    """The end of a connection that is the server's verdict on the client certificate, or on there being none.

    With TLS 1.3 the verdict comes after the handshake. Who then hangs up has said why, in an alert, but its end of the
    connection may arrive with the alert, and be noticed first.
    """
    asked = facts.get(Fact.TLS_VERSION) == "TLSv1.3" and Fact.CLIENT_CERTIFICATE_REQUESTED in facts
    if phase is not Phase.LOGIN or not asked or Fact.AUTHENTICATION in facts:
        return None
    cause = network.classify(error, phase, facts)
    if cause is None or cause.reason not in {Reason.CLOSED, Reason.RESET}:
        return None
    return tls.client_certificate(f"the connection was {cause.reason} after it had asked for one", facts)


def _said(error: asyncpg.PostgresError, phase: Phase, facts: Mapping[Fact, Any]) -> Cause:
    """The cause behind an ErrorResponse."""
    sqlstate, message = error.sqlstate or "", str(error.args[0] if error.args else "")
    said = f"{message} (SQLSTATE {sqlstate})"
    if phase is Phase.LOGIN:
        detail = f"expected {peer(facts)} to accept the login, got: {said}"
        if sqlstate == "28000" and "client certificate" in message and Fact.TLS_VERSION in facts:
            return Cause(Reason.CLIENT_CERTIFICATE_REQUIRED, detail, Phase.TLS)
        return Cause(_in_login(sqlstate, message, facts), detail)
    reason = REQUEST_BY_SQLSTATE.get(sqlstate) or REQUEST_BY_CLASS.get(sqlstate[:2])
    if sqlstate == _PROTOCOL_VIOLATION:
        reason = _of_pooler(error.severity, message)
    if reason is None:
        return Cause(Reason.QUERY_FAILED, f"expected the query to succeed, got: {said}", Phase.VERIFY)
    return Cause(reason, f"expected {peer(facts)} to answer the query, got: {said}")


def _of_pooler(severity: str | None, message: str) -> Reason | None:
    if severity == "ERROR":
        return None
    return Reason.TIMEOUT if "timeout" in message else Reason.CLOSED


def _in_login(sqlstate: str, message: str, facts: Mapping[Fact, Any]) -> Reason:
    if sqlstate == _PROTOCOL_VIOLATION:
        for text, reason in POOLER_IN_LOGIN:
            if text in message:
                return reason
    if sqlstate == "28000" and _says_unencrypted(message):
        # A server that offers no TLS says so as well, but cannot mean it.
        return Reason.ACCESS_DENIED if facts.get(Fact.TLS_DECLINED) else Reason.TLS_REQUIRED
    return LOGIN_BY_SQLSTATE.get(sqlstate) or LOGIN_BY_CLASS.get(sqlstate[:2]) or Reason.ACCESS_DENIED


def _says_unencrypted(message: str) -> bool:
    # "SSL off" until Postgres 13; the third is Azure's.
    return any(text in message for text in ("no encryption", "SSL off", "SSL connection is required"))
