"""TLS errors: OpenSSL's verify codes, alerts and handshake errors."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from agent.failures.cause import Cause, peer
from agent.model import Fact, Phase, Reason

# x509_vfy.h, OpenSSL 3
_BY_VERIFY_CODE: Mapping[int, Reason] = {
    9: Reason.CERTIFICATE_NOT_YET_VALID,
    10: Reason.CERTIFICATE_EXPIRED,
    62: Reason.CERTIFICATE_NAME_MISMATCH,
    64: Reason.CERTIFICATE_NAME_MISMATCH,  # IP address
}

_BY_SSL_REASON: Mapping[str, Reason] = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": Reason.CLIENT_CERTIFICATE_REQUIRED,
    # The server's verdict on the certificate we presented.
    "SSLV3_ALERT_BAD_CERTIFICATE": Reason.CLIENT_CERTIFICATE_REQUIRED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": Reason.CLIENT_CERTIFICATE_REQUIRED,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": Reason.CLIENT_CERTIFICATE_REQUIRED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": Reason.CLIENT_CERTIFICATE_REQUIRED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": Reason.CLIENT_CERTIFICATE_REQUIRED,
    "TLSV1_ALERT_UNKNOWN_CA": Reason.CLIENT_CERTIFICATE_REQUIRED,
    # The first bytes of the answer are not a TLS record.
    "WRONG_VERSION_NUMBER": Reason.NOT_TLS,
    "UNKNOWN_PROTOCOL": Reason.NOT_TLS,
    "HTTP_REQUEST": Reason.NOT_TLS,
    "HTTPS_PROXY_REQUEST": Reason.NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": Reason.NOT_TLS,
    "RECORD_LAYER_FAILURE": Reason.NOT_TLS,
    "UNEXPECTED_EOF_WHILE_READING": Reason.CLOSED,
}


def classify(error: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause | None:
    """ssl.SSLError and its subclasses; always a failure of the tls phase, also where TLS 1.3 reports it later."""
    if not isinstance(error, ssl.SSLError):
        return None
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = _BY_VERIFY_CODE.get(error.verify_code, Reason.CERTIFICATE_UNTRUSTED)
        detail = f"expected a valid certificate from {peer(facts)}, got: {error.verify_message}"
        return Cause(reason, detail, Phase.TLS)
    if isinstance(error, ssl.SSLZeroReturnError | ssl.SSLEOFError):
        return Cause(Reason.CLOSED, f"expected TLS with {peer(facts)}, got: the connection was closed", _later(phase))
    name = error.reason or ""
    reason = _BY_SSL_REASON.get(name, Reason.PROTOCOL_ERROR)
    if name == "SSLV3_ALERT_HANDSHAKE_FAILURE" and Fact.CERTIFICATE_SUBJECT in facts:
        # Up to TLS 1.2 a missing client certificate is a plain handshake failure, but one that comes after the
        # server showed its own; a handshake that fails over versions or ciphers never gets that far.
        reason = Reason.CLIENT_CERTIFICATE_REQUIRED
    words = name.replace("_", " ").lower() or str(error)
    return Cause(reason, f"expected TLS with {peer(facts)}, got: {words}", Phase.TLS)


def _later(phase: Phase) -> Phase:
    return phase if phase in {Phase.LOGIN, Phase.REQUEST, Phase.TRANSFER} else Phase.TLS
