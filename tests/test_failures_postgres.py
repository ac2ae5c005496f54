"""Every exception asyncpg can raise, and every SQLSTATE it knows, has a verdict in every phase of a postgres run."""

from __future__ import annotations

import asyncpg
import asyncpg.exceptions
import pytest
from asyncpg.exceptions import _base

from agent.failures import classify
from agent.failures.postgres import (
    LOGIN_BY_CLASS,
    LOGIN_BY_SQLSTATE,
    POOLER_IN_LOGIN,
    REQUEST_BY_CLASS,
    REQUEST_BY_SQLSTATE,
    error_of_server,
)
from agent.model import REASONS, Fact, Phase, Reason
from agent.prober import ProbeFailure, Recorder
from tests.lab.targets import target

PHASES = (Phase.LOGIN, Phase.REQUEST, Phase.VERIFY)

EXCEPTIONS = sorted(
    {
        value
        for module in (asyncpg.exceptions, _base)
        for value in vars(module).values()
        # Warnings are logged by asyncpg, not raised.
        if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning)
        if value.__module__.startswith("asyncpg")
    },
    key=lambda cls: cls.__name__,
)
STATES = sorted({str(state) for cls in EXCEPTIONS if (state := getattr(cls, "sqlstate", None))})


def verdict(error: BaseException, phase: Phase, **facts: object) -> str:
    notes = Recorder()
    notes.facts[Fact.ADDRESS] = "192.0.2.1:5432"
    notes.facts.update({Fact(name): value for name, value in facts.items()})
    with notes.phase(phase):
        failure = classify(error, target("postgres", dsn="postgresql://probe@192.0.2.1/app"), notes)
    assert failure.reason in REASONS[failure.phase]
    return f"{failure.phase}/{failure.reason}"


def said(sqlstate: str, message: str = "something", severity: str = "FATAL") -> asyncpg.PostgresError:
    """An ErrorResponse as asyncpg makes an exception of it."""
    error: asyncpg.PostgresError = asyncpg.PostgresError.new({"S": severity, "C": sqlstate, "M": message})
    return error


def test_the_enumeration_is_not_empty() -> None:
    assert len(EXCEPTIONS) > 200
    assert len(STATES) > 200


@pytest.mark.parametrize("phase", PHASES)
def test_no_exception_of_asyncpg_is_a_defect_of_ours(phase: Phase) -> None:
    internal = [cls.__name__ for cls in EXCEPTIONS if verdict(cls("something"), phase).endswith("/internal")]
    assert internal == []


@pytest.mark.parametrize("phase", PHASES)
def test_no_answer_of_a_server_is_a_defect_of_ours(phase: Phase) -> None:
    """Those nobody has heard of included."""
    for sqlstate in (*STATES, "ZZ999", "", "x"):
        for severity in ("FATAL", "ERROR", "PANIC"):
            assert not verdict(said(sqlstate, severity=severity), phase).endswith("/internal"), sqlstate


@pytest.mark.parametrize("phase", PHASES)
def test_the_end_of_a_connection_is_seen_through_asyncpgs_own_error(phase: Phase) -> None:
    for cause, expected in (
        (None, f"{phase}/closed"),
        (ConnectionResetError(104, "Connection reset by peer"), f"{phase}/reset"),
        (BrokenPipeError(32, "Broken pipe"), f"{phase}/closed"),
        (TimeoutError(110, "Connection timed out"), f"{phase}/timeout"),
        (EOFError(), f"{phase}/closed"),
        (RuntimeError("anything"), f"{phase}/closed"),
        (ProbeFailure(Reason.TOO_LARGE, "much", phase=Phase.TRANSFER), "transfer/too_large"),
    ):
        error = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        error.__cause__ = cause
        assert verdict(error, phase) == expected


def test_the_last_words_of_a_server_that_hangs_up_count() -> None:
    error = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
    error.__cause__ = said("57P01")
    assert error_of_server(error) is error.__cause__
    assert verdict(error, Phase.REQUEST) == "request/closed"
    assert error_of_server(said("08003")) is not None
    assert error_of_server(asyncpg.ConnectionDoesNotExistError("lost")) is None
    assert error_of_server(ValueError()) is None


@pytest.mark.parametrize(
    ("sqlstate", "login", "request_"),
    [
        ("28P01", "login/credentials_rejected", "verify/query_failed"),
        ("28000", "login/access_denied", "verify/query_failed"),
        ("42501", "login/access_denied", "verify/query_failed"),
        ("3D000", "login/database_not_found", "verify/query_failed"),
        ("53300", "login/too_many_connections", "verify/query_failed"),
        ("53100", "login/too_many_connections", "verify/query_failed"),
        ("57P03", "login/server_starting", "request/closed"),
        ("57P01", "login/closed", "request/closed"),
        ("57P02", "login/closed", "request/closed"),
        ("57014", "login/timeout", "request/timeout"),
        ("08006", "login/closed", "request/closed"),
        ("08004", "login/access_denied", "request/closed"),
        ("08P01", "login/protocol_error", "request/closed"),
        ("0A000", "login/protocol_error", "verify/query_failed"),
        ("42P01", "login/access_denied", "verify/query_failed"),
        ("25006", "login/access_denied", "verify/query_failed"),
        ("40001", "login/access_denied", "verify/query_failed"),
        ("XX000", "login/access_denied", "verify/query_failed"),
    ],
)
def test_what_a_sqlstate_means(sqlstate: str, login: str, request_: str) -> None:
    assert verdict(said(sqlstate), Phase.LOGIN) == login
    assert verdict(said(sqlstate), Phase.REQUEST) == request_


NO_ENCRYPTION = 'no pg_hba.conf entry for host "10.0.0.1", user "u", database "d", no encryption'


@pytest.mark.parametrize(
    ("message", "facts", "expected"),
    [
        (NO_ENCRYPTION, {}, "login/tls_required"),
        (NO_ENCRYPTION, {"tls_declined": True}, "login/access_denied"),
        (NO_ENCRYPTION.replace("no encryption", "SSL off"), {}, "login/tls_required"),
        ("SSL connection is required. Please specify SSL options and retry.", {}, "login/tls_required"),
        (NO_ENCRYPTION.replace("no", "SSL", 2), {"tls_version": "TLSv1.3"}, "login/access_denied"),
        (
            "connection requires a valid client certificate",
            {"tls_version": "TLSv1.3"},
            "tls/client_certificate_required",
        ),
        ("connection requires a valid client certificate", {}, "login/access_denied"),
    ],
)
def test_what_a_refusal_means_beside_what_is_known(message: str, facts: dict[str, object], expected: str) -> None:
    assert verdict(said("28000", message), Phase.LOGIN, **facts) == expected


def test_no_row_is_dead() -> None:
    """A row nobody can reach, or that says what the rule behind it says anyway, is a mistake."""
    for by_state, by_class in ((LOGIN_BY_SQLSTATE, LOGIN_BY_CLASS), (REQUEST_BY_SQLSTATE, REQUEST_BY_CLASS)):
        for sqlstate, reason in by_state.items():
            assert by_class.get(sqlstate[:2]) is not reason, sqlstate
    texts = [text for text, _ in POOLER_IN_LOGIN]
    for number, text in enumerate(texts):
        assert not any(earlier in text for earlier in texts[:number]), text


def test_every_reason_of_a_login_can_be_given() -> None:
    given = {*LOGIN_BY_SQLSTATE.values(), *LOGIN_BY_CLASS.values(), *(reason for _, reason in POOLER_IN_LOGIN)}
    elsewhere = {Reason.RESET, Reason.INTERNAL, Reason.TLS_UNSUPPORTED, Reason.PROTOCOL_ERROR}
    assert REASONS[Phase.LOGIN] - elsewhere <= given
