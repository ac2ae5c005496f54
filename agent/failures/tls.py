"""TLS errors: OpenSSL's verify codes, alerts and handshake errors."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from agent.failures.cause import Cause, peer
from agent.model import Fact, Phase, Reason

# x509_vfy.h, OpenSSL 3. Every other code means that the chain is not to be trusted.
_BY_VERIFY_CODE: Mapping[int, Reason] = {
    9: Reason.CERTIFICATE_NOT_YET_VALID,
    10: Reason.CERTIFICATE_EXPIRED,
    62: Reason.CERTIFICATE_NAME_MISMATCH,
    63: Reason.CERTIFICATE_NAME_MISMATCH,  # email address
    64: Reason.CERTIFICATE_NAME_MISMATCH,  # IP address
}

_VERDICTS: Mapping[str, str] = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate",
    "SSLV3_ALERT_NO_CERTIFICATE": "it wants a client certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "bad certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "certificate expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "certificate revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "certificate unknown",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "unsupported certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "unknown certificate authority",
    "TLSV1_ALERT_ACCESS_DENIED": "access denied",
    "TLSV1_ALERT_DECRYPT_ERROR": "it cannot verify our signature",
    "TLSV1_CERTIFICATE_UNOBTAINABLE": "certificate unobtainable",
    "TLSV1_BAD_CERTIFICATE_HASH_VALUE": "bad certificate hash value",
}
"""Alerts that are the server's verdict on the client certificate, or on there being none."""

_FAILED_FOR_WANT_OF_ONE = frozenset({"SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV1_ALERT_INSUFFICIENT_SECURITY"})
"""Alerts that mean the same from a server that has asked for a client certificate: up to TLS 1.2 there is no better."""

# What OpenSSL makes of a first answer that is not a TLS record.
_NOT_TLS = frozenset(
    {
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "WRONG_SSL_VERSION",
        "WRONG_VERSION_NUMBER",
    }
)


def classify(error: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause | None:
    """ssl.SSLError and its subclasses; always a failure of the tls phase, also where TLS 1.3 reports it later."""
    if isinstance(error, ssl.CertificateError):  # SSLCertVerificationError is its name for the same class
        reason = _BY_VERIFY_CODE.get(getattr(error, "verify_code", 0), Reason.CERTIFICATE_UNTRUSTED)
        seen = getattr(error, "verify_message", "") or str(error)
        return Cause(reason, f"expected a valid certificate from {peer(facts)}, got: {seen}", Phase.TLS)
    if not isinstance(error, ssl.SSLError):
        return None
    name = getattr(error, "reason", None) or ""  # aiohttp has an SSLError without one
    if isinstance(error, ssl.SSLZeroReturnError | ssl.SSLEOFError) or name == "UNEXPECTED_EOF_WHILE_READING":
        return Cause(Reason.CLOSED, f"expected TLS with {peer(facts)}, got: the connection was closed", _later(phase))
    if isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
        return Cause(Reason.INTERNAL, f"netprobe failed: {error}", Phase.TLS)  # asyncio's to handle
    if name in _VERDICTS or (name in _FAILED_FOR_WANT_OF_ONE and Fact.CLIENT_CERTIFICATE_REQUESTED in facts):
        return client_certificate(_VERDICTS.get(name, "handshake failure"), facts)
    words = name.replace("_", " ").lower() or str(error)
    if name in _NOT_TLS and Fact.TLS_VERSION not in facts:
        detail = f"expected TLS with {peer(facts)}, got something that is not TLS ({words})"
        return Cause(Reason.NOT_TLS, detail, Phase.TLS)
    return Cause(Reason.PROTOCOL_ERROR, f"expected TLS with {peer(facts)}, got: {words}", Phase.TLS)


def client_certificate(seen: str, facts: Mapping[Fact, Any]) -> Cause:
    """The server did not take the client certificate, or did not do without one."""
    shown = "our client certificate" if Fact.CLIENT_CERTIFICATE_EXPIRES_AT in facts else "us without a certificate"
    detail = f"expected {peer(facts)} to accept {shown}, got: {seen}"
    return Cause(Reason.CLIENT_CERTIFICATE_REQUIRED, detail, Phase.TLS)


def _later(phase: Phase) -> Phase:
    return phase if phase in {Phase.LOGIN, Phase.REQUEST, Phase.TRANSFER} else Phase.TLS
