"""Databases: what a server says at the login."""

from __future__ import annotations

import pytest

from agent.diagnosis import Snapshot
from agent.model import Fact
from tests.diagnosis.seen import Said, failing, postgres, said, snapshot, tcp, texts, working

APP = postgres("app", "postgresql://airflow@internal-database:5432/app")
REPORTS = postgres("reports", "postgresql://airflow@internal-database:5432/reports")
LEDGER = postgres("ledger", "postgresql://airflow@ledger:5432/app")
PORT = tcp("port", "internal-database:5432")

TABLE: dict[str, tuple[Snapshot, Said]] = {
    "a wrong password": (
        snapshot(failing(APP, "login/credentials_rejected", {Fact.SQLSTATE: "28P01"}), working(PORT)),
        {("credentials_rejected", "high", ("app",))},
    ),
    "a wrong password, seen once": (
        snapshot(failing(APP, "login/credentials_rejected", times=1)),
        {("credentials_rejected", "medium", ("app",))},
    ),
    "no line of pg_hba.conf": (
        snapshot(failing(APP, "login/access_denied", {Fact.SQLSTATE: "28000"}), working(LEDGER)),
        {("access_denied", "high", ("app",))},
    ),
    "no such database": (
        snapshot(failing(APP, "login/database_not_found", {Fact.SQLSTATE: "3D000"}), working(REPORTS)),
        {("database_missing", "high", ("app",))},
    ),
    "two databases that are not there": (
        snapshot(failing(APP, "login/database_not_found"), failing(REPORTS, "login/database_not_found")),
        {("database_missing", "high", ("app",)), ("database_missing", "high", ("reports",))},
    ),
    "a server without room is full for all": (
        snapshot(
            failing(APP, "login/too_many_connections", {Fact.SQLSTATE: "53300"}, times=1),
            failing(REPORTS, "login/too_many_connections", {Fact.SQLSTATE: "53300"}, times=1),
        ),
        {("database_full", "high", ("app", "reports"))},
    ),
    "two servers without room": (
        snapshot(failing(APP, "login/too_many_connections"), failing(LEDGER, "login/too_many_connections")),
        {("database_full", "high", ("app",)), ("database_full", "high", ("ledger",))},
    ),
    "no disk": (
        snapshot(failing(APP, "login/too_many_connections", {Fact.SQLSTATE: "53100"})),
        {("database_full", "high", ("app",))},
    ),
    "it starts": (
        snapshot(failing(APP, "login/server_starting", {Fact.SQLSTATE: "57P03"})),
        {("database_starting", "high", ("app",))},
    ),
    "no line of pg_hba.conf, or none without TLS": (
        snapshot(failing(APP, "login/tls_required", detail="expected x, got: no pg_hba.conf entry, no encryption")),
        {("plain_text_on_tls_port", "medium", ("app",))},
    ),
    "no line of pg_hba.conf, or none without TLS, seen once": (
        snapshot(
            failing(APP, "login/tls_required", detail="expected x, got: no pg_hba.conf entry, no encryption", times=1)
        ),
        {("plain_text_on_tls_port", "low", ("app",))},
    ),
    "it says nothing": (
        snapshot(failing(APP, "login/timeout"), working(LEDGER)),
        {("stalled_after_connect", "medium", ("app",))},
    ),
    "it hangs up": (
        snapshot(failing(APP, "login/closed"), working(LEDGER)),
        {("server_error", "medium", ("app",))},
    ),
    "it is no Postgres": (
        snapshot(failing(APP, "login/protocol_error"), working(LEDGER)),
        {("wrong_content", "high", ("app",))},
    ),
    "a query fails": (
        snapshot(failing(APP, "verify/query_failed", {Fact.SQLSTATE: "42P01"})),
        {("server_error", "high", ("app",))},
    ),
    "a query without the right to what it reads": (
        snapshot(failing(APP, "verify/query_failed", {Fact.SQLSTATE: "42501"})),
        {("access_denied", "high", ("app",))},
    ),
    "other rows than expected": (
        snapshot(failing(APP, "verify/unexpected_answer")),
        {("wrong_content", "high", ("app",))},
    ),
}


@pytest.mark.parametrize("row", TABLE)
def test_verdicts(row: str) -> None:
    seen, expected = TABLE[row]
    assert said(seen) == expected


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a wrong password", ("internal-database:5432", "SQLSTATE 28P01", "internal-database:5432/app`")),
        ("a wrong password", ("base64 -d | sha256sum`", 'printf %s "$PASSWORD" | sha256sum', r"`\password ROLE`")),
        ("no line of pg_hba.conf", ("hostssl app airflow", "pg_reload_conf")),
        ("no line of pg_hba.conf, or none without TLS", ("sslmode: require", "Or its pg_hba.conf has no line at all")),
        ("no such database", ("createdb",)),
        ("a server without room is full for all", ("pg_stat_activity", "pgbouncer.enabled=true")),
        ("no disk", ("no disk space", "pg_replication_slots")),
        ("it starts", ("starts, recovers or shuts down", "retries")),
    ],
)
def test_words(row: str, words: tuple[str, ...]) -> None:
    seen = texts(TABLE[row][0])
    assert [word for word in words if word not in seen] == []


def test_braces_in_advice_are_those_of_commands() -> None:
    """Summaries and advice are filled in; what is left in braces must be meant so."""
    seen = texts(snapshot(failing(APP, "login/tls_required"))) + texts(TABLE["a wrong password"][0])
    assert '{"sslmode": "require"}' in seen
    assert "'{.data.password}'" in seen
    assert "{where}" not in seen
