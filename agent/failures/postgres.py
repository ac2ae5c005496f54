"""What a Postgres server says, by SQLSTATE, and what asyncpg raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from agent.failures.cause import Cause, peer
from agent.model import Fact, Phase, Reason

LOGIN_BY_SQLSTATE: Mapping[str, Reason] = {
    "28P01": Reason.CREDENTIALS_REJECTED,
    "28000": Reason.ACCESS_DENIED,
    "3D000": Reason.DATABASE_NOT_FOUND,
    "42501": Reason.ACCESS_DENIED,
    "53300": Reason.TOO_MANY_CONNECTIONS,
    "57P03": Reason.SERVER_STARTING,
}


def classify(error: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause | None:
    """asyncpg.PostgresError by SQLSTATE, asyncpg's own errors."""
    if isinstance(error, asyncpg.PostgresError):
        return by_sqlstate(error.sqlstate or "", str(error.args[0] if error.args else ""), phase, facts)
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return Cause(Reason.PROTOCOL_ERROR, f"expected the Postgres protocol from {peer(facts)}, got: {error}")
    return None


def by_sqlstate(sqlstate: str, message: str, phase: Phase, facts: Mapping[Fact, Any]) -> Cause:
    """The cause behind an ErrorResponse."""
    said = f"{message} (SQLSTATE {sqlstate})"
    if phase is Phase.LOGIN:
        reason = LOGIN_BY_SQLSTATE.get(sqlstate, Reason.ACCESS_DENIED)
        return Cause(reason, f"expected {peer(facts)} to accept the login, got: {said}")
    return Cause(Reason.QUERY_FAILED, f"expected the query to succeed, got: {said}", Phase.VERIFY)
