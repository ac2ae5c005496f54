"""Every error of the system, of asyncio and of TLS has its phase and reason; nothing known is `internal`.

What aiohttp, asyncpg and getaddrinfo raise is enumerated beside their probers.
"""

from __future__ import annotations

import asyncio
import asyncio.exceptions
import errno
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg
import pytest

import agent
from agent.failures import CLASSIFIERS, PROOF_OF_ABSENCE, classify, redact, redact_facts, timed_out
from agent.model import DETAIL_LIMIT, REASONS, Fact, Failure, Phase, Reason, Secret
from agent.prober import ProbeFailure, Recorder, excerpt
from tests.lab.targets import target

TARGET = target("tcp", address="db.test:5432", timeout_seconds=3.0)


def recorder_in(phase: Phase, **facts: object) -> Recorder:
    recorder = Recorder()
    recorder.facts[Fact.ADDRESS] = "192.0.2.1:5432"
    recorder.facts.update({Fact(name): value for name, value in facts.items()})
    with recorder.phase(phase):
        pass
    return recorder


def failure(error: BaseException, phase: Phase, **facts: object) -> Failure:
    found = classify(error, TARGET, recorder_in(phase, **facts))
    assert found.detail
    assert len(found.detail) <= DETAIL_LIMIT
    assert found.reason is Reason.INTERNAL or found.detail.startswith("expected "), found.detail
    return found


def verdict(error: BaseException, phase: Phase, **facts: object) -> str:
    found = failure(error, phase, **facts)
    return f"{found.phase}/{found.reason}"


# --- the system -------------------------------------------------------------------------------------------------------

FROM_THE_NETWORK: Mapping[str, Reason] = {
    "ECONNREFUSED": Reason.REFUSED,
    "EHOSTUNREACH": Reason.UNREACHABLE,
    "ENETUNREACH": Reason.UNREACHABLE,
    "EHOSTDOWN": Reason.UNREACHABLE,
    "ENETDOWN": Reason.UNREACHABLE,
    "EADDRNOTAVAIL": Reason.UNREACHABLE,
    "EAFNOSUPPORT": Reason.UNREACHABLE,
    "ENONET": Reason.UNREACHABLE,
    "ENOPROTOOPT": Reason.UNREACHABLE,
    "EPROTO": Reason.UNREACHABLE,
    "EINVAL": Reason.UNREACHABLE,
    "EACCES": Reason.DENIED,
    "EPERM": Reason.DENIED,
    "ETIMEDOUT": Reason.TIMEOUT,
    "ECONNRESET": Reason.RESET,
    "ECONNABORTED": Reason.RESET,
    "ENETRESET": Reason.RESET,
    "EPIPE": Reason.CLOSED,
    "ESHUTDOWN": Reason.CLOSED,
    "ENOTCONN": Reason.CLOSED,
}
"""What connecting can meet (connect(2), ip(7), tcp(7), ipv6(7), ip-route(8)). The rest is ours: descriptors, memory."""

LATER = [Phase.TLS, Phase.LOGIN, Phase.REQUEST, Phase.TRANSFER]


@pytest.mark.parametrize("phase", [Phase.CONNECT, Phase.PROXY])
def test_every_errno_while_connecting(phase: Phase) -> None:
    for code, name in errno.errorcode.items():
        expected = FROM_THE_NETWORK.get(name, Reason.INTERNAL)
        assert verdict(OSError(code, "text"), phase) == f"{phase}/{expected}", name


@pytest.mark.parametrize("phase", LATER)
def test_every_errno_on_a_connection_that_stands(phase: Phase) -> None:
    """Refused, unreachable and denied exist only before a connection: on one that stood they mean that it was cut."""
    for code, name in errno.errorcode.items():
        expected = FROM_THE_NETWORK.get(name, Reason.INTERNAL)
        if name == "EINVAL":
            expected = Reason.INTERNAL  # from connect(2) alone it is the network's
        elif expected not in REASONS[phase]:
            expected = Reason.RESET
        assert verdict(OSError(code, "text"), phase) == f"{phase}/{expected}", name


@pytest.mark.parametrize("name", ["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EPERM"])
def test_a_nameserver_that_cannot_be_reached(name: str) -> None:
    assert verdict(OSError(getattr(errno, name), "text"), Phase.RESOLVE) == "resolve/unreachable"


def subclasses(cls: type) -> Iterator[type]:
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield child
        yield from subclasses(child)


BUILTIN_OS_ERRORS = sorted({c for c in subclasses(OSError) if c.__module__ == "builtins"}, key=lambda c: c.__name__)


@pytest.mark.parametrize("cls", BUILTIN_OS_ERRORS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("phase", [Phase.CONNECT, *LATER])
def test_every_os_error_without_a_number(cls: type[OSError], phase: Phase) -> None:
    """Asyncio raises some itself: a connection it has lost, a limit that has passed."""
    if issubclass(cls, ConnectionError):
        expected = Reason.CLOSED
    elif issubclass(cls, TimeoutError):
        expected = Reason.TIMEOUT
    else:
        expected = Reason.INTERNAL
    assert verdict(cls(), phase) == f"{phase}/{expected}"


def test_a_file_that_cannot_be_read_is_not_taken_for_the_network() -> None:
    """Its errno, EACCES, would mean a packet filter."""
    found = failure(PermissionError(errno.EACCES, "Permission denied", "/run/secrets/db"), Phase.LOGIN)
    assert found.reason is Reason.INTERNAL
    assert found.detail == "expected to read the file /run/secrets/db, got: Permission denied"


ASYNCIO_ERRORS = {
    "BrokenBarrierError": (asyncio.BrokenBarrierError(), Reason.INTERNAL),
    "CancelledError": (asyncio.CancelledError(), Reason.INTERNAL),
    "IncompleteReadError": (asyncio.IncompleteReadError(b"ab", 4), Reason.CLOSED),
    "InvalidStateError": (asyncio.InvalidStateError(), Reason.INTERNAL),
    "LimitOverrunError": (asyncio.LimitOverrunError("too much", 65536), Reason.PROTOCOL_ERROR),
    "SendfileNotAvailableError": (asyncio.SendfileNotAvailableError(), Reason.INTERNAL),
    "TimeoutError": (TimeoutError(), Reason.TIMEOUT),
}


def test_every_error_of_asyncio_is_listed() -> None:
    assert set(ASYNCIO_ERRORS) == set(asyncio.exceptions.__all__)


@pytest.mark.parametrize("name", ASYNCIO_ERRORS)
@pytest.mark.parametrize("phase", [Phase.CONNECT, *LATER])
def test_every_error_of_asyncio(name: str, phase: Phase) -> None:
    error, expected = ASYNCIO_ERRORS[name]
    assert verdict(error, phase) == f"{phase}/{expected}"


# --- TLS --------------------------------------------------------------------------------------------------------------


def ssl_error(reason: str | None, cls: type[ssl.SSLError] = ssl.SSLError) -> ssl.SSLError:
    error = cls(1, f"[SSL: {reason}] some text (_ssl.c:1006)")
    error.reason = reason  # type: ignore[assignment]
    error.library = "SSL"
    return error


SSL_LIBRARY = 20  # ERR_LIB_SSL
NAMES: Mapping[str, tuple[int, int]] = getattr(ssl._ssl, "err_names_to_codes", {})  # type: ignore[attr-defined]
"""What CPython can call an error of OpenSSL's. From 3.12 on it keeps the table to itself."""

CLIENT_CERTIFICATE_ALERTS = {
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_NO_CERTIFICATE",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_ACCESS_DENIED",
    "TLSV1_ALERT_DECRYPT_ERROR",
    "TLSV1_ALERT_UNKNOWN_CA",
    "TLSV1_BAD_CERTIFICATE_HASH_VALUE",
    "TLSV1_CERTIFICATE_UNOBTAINABLE",
}
"""RFC 8446, section 6.2, and older: what a server can say about a client's certificate."""
NOT_TLS = {
    "HTTPS_PROXY_REQUEST",
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
    "WRONG_SSL_VERSION",
    "WRONG_VERSION_NUMBER",
}


OTHER_ALERTS = {
    "SSLV3_ALERT_BAD_RECORD_MAC",
    "SSLV3_ALERT_DECOMPRESSION_FAILURE",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "SSLV3_ALERT_ILLEGAL_PARAMETER",
    "SSLV3_ALERT_UNEXPECTED_MESSAGE",
    "TLSV13_ALERT_MISSING_EXTENSION",
    "TLSV1_ALERT_DECODE_ERROR",
    "TLSV1_ALERT_DECRYPTION_FAILED",
    "TLSV1_ALERT_EXPORT_RESTRICTION",
    "TLSV1_ALERT_INAPPROPRIATE_FALLBACK",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY",
    "TLSV1_ALERT_INTERNAL_ERROR",
    "TLSV1_ALERT_NO_RENEGOTIATION",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "TLSV1_ALERT_RECORD_OVERFLOW",
    "TLSV1_ALERT_USER_CANCELLED",
    "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE",
    "TLSV1_UNRECOGNIZED_NAME",
    "TLSV1_UNSUPPORTED_EXTENSION",
}
ALERTS = CLIENT_CERTIFICATE_ALERTS | OTHER_ALERTS
SSL_REASONS = sorted(
    {name for name, (library, _) in NAMES.items() if library == SSL_LIBRARY}
    | ALERTS
    | NOT_TLS
    | {"UNEXPECTED_EOF_WHILE_READING", "A_NAME_OF_TOMORROW"}
)


@pytest.mark.skipif(not NAMES, reason="this Python keeps the table to itself")
def test_every_alert_openssl_knows_is_listed() -> None:
    """From ERR reason 1000 on (SSL_AD_REASON_OFFSET) a reason is an alert that was received."""
    known = {name for name, (library, code) in NAMES.items() if library == SSL_LIBRARY and code >= 1000}
    assert known == ALERTS


@pytest.mark.parametrize("phase", [Phase.TLS, Phase.LOGIN, Phase.REQUEST, Phase.TRANSFER])
def test_every_reason_openssl_knows(phase: Phase) -> None:
    """All of them are failures of TLS, whenever they show; none is internal."""
    for name in SSL_REASONS:
        if name == "UNEXPECTED_EOF_WHILE_READING":
            expected = f"{phase}/closed"
        elif name in CLIENT_CERTIFICATE_ALERTS:
            expected = "tls/client_certificate_required"
        elif name in NOT_TLS:
            expected = "tls/not_tls"
        else:
            expected = "tls/protocol_error"
        assert verdict(ssl_error(name), phase) == expected, name


@pytest.mark.parametrize("name", ["SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV1_ALERT_INSUFFICIENT_SECURITY"])
def test_a_handshake_that_fails_after_a_certificate_was_asked_for(name: str) -> None:
    """Up to TLS 1.2 there is no alert for a client certificate that is missing."""
    asked = verdict(ssl_error(name), Phase.TLS, client_certificate_requested=True)
    assert (asked, verdict(ssl_error(name), Phase.TLS)) == ("tls/client_certificate_required", "tls/protocol_error")


@pytest.mark.parametrize("name", sorted(NOT_TLS))
def test_a_broken_record_inside_tls_is_not_a_lack_of_tls(name: str) -> None:
    assert verdict(ssl_error(name), Phase.TRANSFER, tls_version="TLSv1.3") == "tls/protocol_error"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EOFError(), "closed"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "reset"),
        (ConnectionResetError(), "closed"),
    ],
)
def test_a_server_that_hangs_up_after_it_asked_for_a_certificate(error: Exception, expected: str) -> None:
    """Where it got none, that is why; where it got one, who knows."""
    asked = {"client_certificate_requested": True}
    assert verdict(error, Phase.TLS, **asked) == "tls/client_certificate_required"
    assert verdict(error, Phase.TLS, **asked, client_certificate_expires_at=2e9) == f"tls/{expected}"
    assert verdict(error, Phase.REQUEST, **asked) == f"request/{expected}"


SSL_CLASSES = {
    ssl.SSLError: "tls/protocol_error",
    ssl.SSLZeroReturnError: "tls/closed",
    ssl.SSLEOFError: "tls/closed",
    ssl.SSLSyscallError: "tls/protocol_error",
    ssl.SSLCertVerificationError: "tls/certificate_untrusted",
    ssl.SSLWantReadError: "tls/internal",  # asyncio's to handle
    ssl.SSLWantWriteError: "tls/internal",
}


def test_every_class_of_ssl_is_listed() -> None:
    ours = {cls for cls in subclasses(ssl.SSLError) if cls.__module__ == "ssl"}
    assert set(SSL_CLASSES) == {ssl.SSLError, *ours}


@pytest.mark.parametrize(("cls", "expected"), SSL_CLASSES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_every_class_of_ssl(cls: type[ssl.SSLError], expected: str) -> None:
    """Also where it carries nothing but a text."""
    assert verdict(cls(1, "some text"), Phase.TLS) == expected


VERIFY_CODES = {
    9: "certificate_not_yet_valid",
    10: "certificate_expired",
    62: "certificate_name_mismatch",
    63: "certificate_name_mismatch",
    64: "certificate_name_mismatch",
}
"""x509_vfy.h; the others are reasons not to trust a chain."""


@pytest.mark.parametrize("code", range(1, 101))
def test_every_verify_code(code: int) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    error.verify_message = "why"
    found = failure(error, Phase.TLS)
    assert f"{found.phase}/{found.reason}" == f"tls/{VERIFY_CODES.get(code, 'certificate_untrusted')}"
    assert found.detail == "expected a valid certificate from 192.0.2.1:5432, got: why"


# --- the table of pairs -----------------------------------------------------------------------------------------------


def certificate_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    error.verify_message = "why"
    return error


ANYWHERE: Mapping[Reason, BaseException] = {
    Reason.CLOSED: EOFError(),
    Reason.RESET: ConnectionResetError(errno.ECONNRESET, "reset"),
    Reason.PROTOCOL_ERROR: asyncio.LimitOverrunError("too much", 65536),
    Reason.INTERNAL: ZeroDivisionError("ours"),
    Reason.TIMEOUT: TimeoutError(),
}
"""Where they come from a library: a phase that is open when the connection ends, or when our own code breaks."""

WAYS: Mapping[tuple[Phase, Reason], BaseException] = {
    **{(phase, reason): error for phase in Phase for reason, error in ANYWHERE.items()},
    (Phase.RESOLVE, Reason.NAME_NOT_FOUND): socket.gaierror(socket.EAI_NONAME, "not known"),
    (Phase.RESOLVE, Reason.NO_RECORDS): socket.gaierror(socket.EAI_NODATA, "no address"),
    (Phase.RESOLVE, Reason.SERVER_FAILURE): socket.gaierror(socket.EAI_FAIL, "failure"),
    (Phase.RESOLVE, Reason.UNREACHABLE): ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    **{
        (phase, reason): OSError(code, "text")
        for phase in (Phase.CONNECT, Phase.PROXY)
        for reason, code in (
            (Reason.REFUSED, errno.ECONNREFUSED),
            (Reason.UNREACHABLE, errno.EHOSTUNREACH),
            (Reason.DENIED, errno.EACCES),
        )
    },
    (Phase.TLS, Reason.CERTIFICATE_EXPIRED): certificate_error(10),
    (Phase.TLS, Reason.CERTIFICATE_NOT_YET_VALID): certificate_error(9),
    (Phase.TLS, Reason.CERTIFICATE_NAME_MISMATCH): certificate_error(62),
    (Phase.TLS, Reason.CERTIFICATE_UNTRUSTED): certificate_error(20),
    (Phase.TLS, Reason.CLIENT_CERTIFICATE_REQUIRED): ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"),
    (Phase.TLS, Reason.NOT_TLS): ssl_error("WRONG_VERSION_NUMBER"),
    (Phase.LOGIN, Reason.CREDENTIALS_REJECTED): asyncpg.InvalidPasswordError("no"),
    (Phase.LOGIN, Reason.ACCESS_DENIED): asyncpg.InvalidAuthorizationSpecificationError("no"),
    (Phase.LOGIN, Reason.DATABASE_NOT_FOUND): asyncpg.InvalidCatalogNameError("no"),
    (Phase.LOGIN, Reason.TOO_MANY_CONNECTIONS): asyncpg.TooManyConnectionsError("no"),
    (Phase.LOGIN, Reason.SERVER_STARTING): asyncpg.CannotConnectNowError("no"),
    (Phase.VERIFY, Reason.QUERY_FAILED): asyncpg.UndefinedTableError("no"),
}
"""An exception that leads to the pair, raised in its phase."""

JUDGED = {
    (Phase.RESOLVE, Reason.QUERY_REFUSED),
    (Phase.PROXY, Reason.AUTH_REQUIRED),
    (Phase.LOGIN, Reason.TLS_REQUIRED),
    (Phase.LOGIN, Reason.TLS_UNSUPPORTED),
    (Phase.TRANSFER, Reason.TOO_LARGE),
    (Phase.VERIFY, Reason.UNEXPECTED_STATUS),
    (Phase.VERIFY, Reason.UNEXPECTED_HEADER),
    (Phase.VERIFY, Reason.UNEXPECTED_BODY),
    (Phase.VERIFY, Reason.UNEXPECTED_ANSWER),
    (Phase.VERIFY, Reason.UNEXPECTED_REPLY),
    (Phase.VERIFY, Reason.TOO_MANY_REDIRECTS),
    (Phase.VERIFY, Reason.UNEXPECTED_SUCCESS),
}
"""Pairs that no library raises for: a prober, or the runner, looks at an answer and says so."""


def test_every_pair_has_a_way_to_occur() -> None:
    pairs = {(phase, reason) for phase, reasons in REASONS.items() for reason in reasons}
    assert set(WAYS) | JUDGED == pairs
    assert set(WAYS) & JUDGED == set()
    assert {reason for _, reason in pairs} == set(Reason)


@pytest.mark.parametrize(("phase", "reason"), WAYS)
def test_a_pair_that_a_library_raises_for(phase: Phase, reason: Reason) -> None:
    assert verdict(WAYS[phase, reason], phase) == f"{phase}/{reason}"


@pytest.mark.parametrize("reason", sorted({reason for _, reason in JUDGED}))
def test_a_reason_that_is_judged_is_given_somewhere(reason: Reason) -> None:
    """A member of the enum that nothing gives would be a promise nobody keeps."""
    package = Path(agent.__file__).parent
    sources = [path for path in package.rglob("*.py") if path.name != "model.py"]
    giving = [path for path in sources if re.search(rf"Reason\.{reason.name}\b", path.read_text(encoding="utf-8"))]
    assert giving


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_can_time_out(phase: Phase) -> None:
    found = timed_out(TARGET, recorder_in(phase))
    assert (found.phase, found.reason) == (phase, Reason.TIMEOUT)
    assert found.detail.startswith("expected ")
    assert found.detail.endswith(" within 3s")


def test_every_proof_of_absence_is_a_pair() -> None:
    assert all(reasons <= REASONS[phase] for phase, reasons in PROOF_OF_ABSENCE.items())
    assert all(Reason.INTERNAL not in reasons for reasons in PROOF_OF_ABSENCE.values())


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("reason", Reason)
def test_a_prober_that_gives_a_pair_that_does_not_exist_has_a_defect(phase: Phase, reason: Reason) -> None:
    """It is reported, and not lost, and no label is made up."""
    found = classify(ProbeFailure(reason, "expected a, got b", phase=phase), TARGET, recorder_in(Phase.CONNECT))
    if reason in REASONS[phase]:
        assert (found.phase, found.reason, found.detail) == (phase, reason, "expected a, got b")
    else:
        assert (found.phase, found.reason) == (phase, Reason.INTERNAL)


class Unheard(Exception):  # noqa: N818 - unheard of, by design
    """What no library raises."""


@pytest.mark.parametrize("error", [Unheard("x"), KeyError("x"), RecursionError(), MemoryError(), Unheard()])
def test_what_nobody_knows_is_internal(error: Exception) -> None:
    found = failure(error, Phase.REQUEST)
    assert (found.phase, found.reason) == (Phase.REQUEST, Reason.INTERNAL)
    assert type(error).__name__ in found.detail


@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda classifier: classifier.__module__)
@pytest.mark.parametrize("phase", Phase)
def test_a_classifier_leaves_alone_what_is_not_its_own(classifier: object, phase: Phase) -> None:
    assert callable(classifier)
    assert classifier(Unheard(), phase, {}) is None


# --- secrets and length -----------------------------------------------------------------------------------------------

SECRETIVE = target("postgres", dsn="postgresql://probe@db.test/app", password="correct horse", mode="login")


def test_a_secret_is_in_no_sentence() -> None:
    found = classify(ProbeFailure(Reason.PROTOCOL_ERROR, "got: correct horse"), SECRETIVE, recorder_in(Phase.LOGIN))
    assert found.detail == "got: ***"
    assert redact("a correct horse and a correct horse", SECRETIVE) == "a *** and a ***"


def test_a_secret_that_the_limit_would_cut_is_hidden_before() -> None:
    """Half a password is a password's half."""
    padding = "x" * (DETAIL_LIMIT - 8)
    found = classify(ProbeFailure(Reason.RESET, f"{padding}correct horse"), SECRETIVE, recorder_in(Phase.LOGIN))
    assert "corr" not in found.detail


@pytest.mark.parametrize("shown", ["'say: correct h…'", "'correct hors…' and more", "a 'corr…'"])
def test_half_a_secret_that_an_excerpt_has_cut_is_in_no_sentence(shown: str) -> None:
    found = classify(ProbeFailure(Reason.PROTOCOL_ERROR, f"got {shown}"), SECRETIVE, recorder_in(Phase.LOGIN))
    assert "corr" not in found.detail
    assert "***…" in found.detail


def test_a_secret_is_found_in_a_quotation() -> None:
    quoted = target("postgres", dsn="postgresql://probe@db.test/app", password="back\\slash", mode="login")
    failed = ProbeFailure(Reason.PROTOCOL_ERROR, "got " + excerpt("say back\\slash"))
    assert classify(failed, quoted, recorder_in(Phase.LOGIN)).detail == "got 'say ***'"


def test_a_secret_that_the_run_itself_found_is_in_no_sentence_and_no_fact() -> None:
    recorder = recorder_in(Phase.PROXY)
    recorder.secrets.append(Secret("hunter22"))
    found = classify(ProbeFailure(Reason.AUTH_REQUIRED, "got: hunter22"), SECRETIVE, recorder)
    assert found.detail == "got: ***"
    facts: dict[Fact, object] = {Fact.HTTP_REDIRECTS: [{"url": "http://x/hunter22"}]}
    redact_facts(facts, SECRETIVE, recorder.secrets)
    assert facts == {Fact.HTTP_REDIRECTS: [{"url": "http://x/***"}]}


def test_a_secret_is_in_no_fact() -> None:
    facts: dict[Fact, object] = {
        Fact.SERVER_SIGNATURE: "correct horse?",
        Fact.HTTP_REDIRECTS: [{"url": "http://x/correct horse", "status": 302}],
        Fact.HTTP_STATUS_CODE: 200,
    }
    redact_facts(facts, SECRETIVE)
    assert facts == {
        Fact.SERVER_SIGNATURE: "***?",
        Fact.HTTP_REDIRECTS: [{"url": "http://x/***", "status": 302}],
        Fact.HTTP_STATUS_CODE: 200,
    }


def test_a_secret_file_that_cannot_be_read_hides_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    missing = target(
        "postgres", dsn="postgresql://probe@db.test/app", password_file=str(tmp_path / "gone"), mode="login"
    )
    assert redact("as it is", missing) == "as it is"
