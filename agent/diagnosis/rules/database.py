"""What a database server says at the login: wrong credentials, no way in, no such database, no room, not yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.diagnosis.rules.case import Case
from agent.diagnosis.rules.reading import names, settled, unsettled
from agent.diagnosis.rules.saying import endpoint, fact, failures, grouped, latest
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Verdict
from agent.model import Fact, Phase, Reason


@dataclass(frozen=True, slots=True)
class _Saying:
    """What a reason means, and what to do. `{where}` is the server's address, `{psql}` a command that tries it."""

    cause: Cause
    summary: str
    advice: str


_SAYINGS = {
    Reason.CREDENTIALS_REJECTED: _Saying(
        Cause.CREDENTIALS_REJECTED,
        "The database at {where} does not accept this user and password.",
        "Was the password rotated on one side only? A pod keeps the environment it was started with. Compare the "
        "Secret with what a pod has without showing either: `kubectl get secret NAME -o jsonpath='{{.data.password}}' "
        "| base64 -d | sha256sum` and `kubectl exec POD -- sh -c 'printf %s \"$PASSWORD\" | sha256sum'`. To try it: "
        "{psql}, which asks for it. At the server, `\\password ROLE` in psql sets another.",
    ),
    Reason.ACCESS_DENIED: _Saying(
        Cause.ACCESS_DENIED,
        "The database at {where} does not let this user in, or not into this database, or not from this address.",
        "Its own words say what is missing: usually a line in the server's pg_hba.conf for this user, database and the "
        "pods' network, such as `hostssl app airflow 10.244.0.0/16 scram-sha-256`, then `SELECT pg_reload_conf()`; or "
        "`GRANT CONNECT ON DATABASE app TO airflow`. Traffic may come from a node's or a gateway's address.",
    ),
    Reason.DATABASE_NOT_FOUND: _Saying(
        Cause.DATABASE_MISSING,
        "The database server at {where} has no such database.",
        "Compare the name in the DSN with what is there: `psql -h HOST -U USER -l`; without a name, Postgres takes the "
        "user's. A pooler has a list of its own (pgbouncer: `[databases]`). To create it: `createdb -h HOST -O USER "
        "NAME`.",
    ),
    Reason.TOO_MANY_CONNECTIONS: _Saying(
        Cause.DATABASE_FULL,
        "The database server at {where} has no connection slot left.",
        "See who holds them: `SELECT usename, application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3 "
        "ORDER BY 4 DESC`. Pods times pool size has to stay below max_connections less the reserved ones: use a pooler "
        "(Airflow's chart: `pgbouncer.enabled=true`), smaller pools, fewer tasks at once; end what is idle in "
        "transaction (idle_in_transaction_session_timeout).",
    ),
    Reason.SERVER_STARTING: _Saying(
        Cause.DATABASE_STARTING,
        "The database server at {where} is there and not ready: it starts, recovers or shuts down, or the server "
        "behind a pooler does.",
        "Wait, and look at its log: `kubectl logs POD`; recovery after a crash can take minutes. After a failover the "
        "name may still lead to the old server or to a standby that takes no sessions. Tasks should try again: "
        "`retries` with exponential backoff.",
    ),
    Reason.TLS_REQUIRED: _Saying(
        Cause.PLAIN_TEXT_ON_TLS_PORT,
        "The database at {where} takes no unencrypted connection.",
        "Set `sslmode: require` (or verify-full with the server's authority) here and in the task's connection: "
        "`?sslmode=require` in the URI, or the connection's extra {{\"sslmode\": \"require\"}}.",
    ),
    Reason.TLS_UNSUPPORTED: _Saying(
        Cause.TLS_ON_PLAIN_TEXT_PORT,
        "The database at {where} offers no TLS, and sslmode demands it.",
        "Switch TLS on at the server (`ssl = on`, ssl_cert_file, ssl_key_file) or the pooler (client_tls_sslmode); or, "
        "where the network is trusted, set `sslmode: prefer` here and in the task's connection.",
    ),
}  # fmt: skip

_PG_HBA = "pg_hba.conf"
"""Postgres adds "no encryption" to whatever it says of a connection without TLS, be that the reason or not."""


def says_no(case: Case) -> Iterator[Verdict]:
    """A database server was reached, and decided."""
    refused = [
        history
        for history in case.unexplained
        if latest(history)[1].phase is Phase.LOGIN and latest(history)[1].reason in _SAYINGS
    ]
    for (reason, where, _), histories in grouped(refused, _same_saying).items():
        saying = _SAYINGS[reason]
        summary, advice = _no_room(histories[0]) or (saying.summary, saying.advice)
        two_readings = reason is Reason.TLS_REQUIRED and _PG_HBA in latest(histories[0])[1].detail
        if two_readings:
            summary += " Or its pg_hba.conf has no line at all for this user, database and address: it says the same."
        yield Verdict(
            cause=saying.cause,
            confidence=unsettled(histories) if two_readings else settled(histories),
            targets=names(histories),
            summary=summary.format(where=where),
            evidence=(*failures(histories), *_codes(histories)),
            advice=advice.format(psql=f"`psql postgresql://USER@{histories[0].target.address}`"),
        )


def _same_saying(history: History) -> tuple[Reason, str, str]:
    """Credentials and databases are each target's own; whether there is room, all of a server share."""
    reason = latest(history)[1].reason
    own = reason in {Reason.CREDENTIALS_REJECTED, Reason.ACCESS_DENIED, Reason.DATABASE_NOT_FOUND}
    return reason, endpoint(history), history.target.address if own else ""


def _no_room(history: History) -> tuple[str, str] | None:
    """Class 53 of the SQLSTATEs is about more than connections."""
    if latest(history)[1].reason is not Reason.TOO_MANY_CONNECTIONS:
        return None
    return _OTHER_ROOM.get(fact(history, Fact.SQLSTATE))


_OTHER_ROOM = {
    "53100": (
        "The database server at {where} has no disk space left for one more session.",
        "Make room on its volume: replication slots nobody reads (`SELECT * FROM pg_replication_slots`), old logs and "  # noqa: ISC004
        "temporary files; then enlarge the volume.",
    ),
    "53200": (
        "The database server at {where} has no memory left for one more session.",
        "Look at its memory limit and at work_mem times connections; a pooler makes do with fewer.",
    ),
}


def _codes(histories: Sequence[History]) -> tuple[str, ...]:
    codes = sorted({str(code) for history in histories if (code := fact(history, Fact.SQLSTATE))})
    return (f"SQLSTATE {', '.join(codes)}",) if codes else ()
