"""The operating system's errors and the end of a stream."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Mapping
from typing import Any

from agent.failures.cause import Cause, peer
from agent.failures.tls import client_certificate
from agent.model import REASONS, Fact, Phase, Reason

_BY_ERRNO: Mapping[int, Reason] = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.EHOSTUNREACH: Reason.UNREACHABLE,
    errno.ENETUNREACH: Reason.UNREACHABLE,
    errno.EHOSTDOWN: Reason.UNREACHABLE,
    errno.ENETDOWN: Reason.UNREACHABLE,
    errno.EADDRNOTAVAIL: Reason.UNREACHABLE,
    errno.EAFNOSUPPORT: Reason.UNREACHABLE,
    errno.ENONET: Reason.UNREACHABLE,
    errno.ENOPROTOOPT: Reason.UNREACHABLE,  # ICMP protocol or port unreachable, see ip(7)
    errno.EPROTO: Reason.UNREACHABLE,  # ICMPv6 parameter problem
    errno.EACCES: Reason.DENIED,
    errno.EPERM: Reason.DENIED,  # a packet filter on the way out
    errno.ETIMEDOUT: Reason.TIMEOUT,
    errno.ECONNRESET: Reason.RESET,
    errno.ECONNABORTED: Reason.RESET,
    errno.ENETRESET: Reason.RESET,
    errno.EPIPE: Reason.CLOSED,
    errno.ESHUTDOWN: Reason.CLOSED,
    errno.ENOTCONN: Reason.CLOSED,
}

_SEEN: Mapping[Reason, str] = {
    Reason.REFUSED: "the connection was refused",
    Reason.UNREACHABLE: "there is no way to it",
    Reason.DENIED: "the local system forbade it",
    Reason.TIMEOUT: "no answer before the system gave up",
    Reason.RESET: "the connection was reset",
    Reason.CLOSED: "the connection was closed",
}


def classify(error: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause | None:
    """OSError by errno, ends of streams, and timeouts that are not the run's deadline."""
    expected = f"expected {_EXPECTED[phase].format(peer=peer(facts))}"
    if isinstance(error, asyncio.LimitOverrunError):
        return Cause(Reason.PROTOCOL_ERROR, f"{expected}, got more than {error.consumed} bytes without an end")
    if isinstance(error, OSError) and error.filename is not None:
        return Cause(Reason.INTERNAL, f"expected to read the file {error.filename}, got: {error.strerror}")
    reason = _reason(error, phase)
    if reason is None:
        return None
    seen = _SEEN[reason]
    if reason in _WORTH_THE_TEXT and isinstance(error, OSError) and error.errno:
        seen += f" ({os.strerror(error.errno)})"  # asyncio has `Connect call failed (…)` in its place
    if phase is Phase.TLS and reason in _ENDED and Fact.CLIENT_CERTIFICATE_REQUESTED in facts:
        seen += " after it had asked for a client certificate"
        if Fact.CLIENT_CERTIFICATE_EXPIRES_AT not in facts:
            return client_certificate(seen, facts)  # many servers go without an alert
    return Cause(_in_phase(reason, phase), f"{expected}, got: {seen}")


_WORTH_THE_TEXT = frozenset({Reason.UNREACHABLE, Reason.DENIED, Reason.TIMEOUT})
_ENDED = frozenset({Reason.CLOSED, Reason.RESET})


def _reason(error: BaseException, phase: Phase) -> Reason | None:
    if isinstance(error, EOFError):  # asyncio.IncompleteReadError among them
        return Reason.CLOSED
    if not isinstance(error, OSError):
        return None
    if error.errno is None:
        if isinstance(error, TimeoutError):
            return Reason.TIMEOUT
        # asyncio raises these without a number where the peer's end of the stream ended cleanly.
        return Reason.CLOSED if isinstance(error, ConnectionError) else None
    if error.errno == errno.EINVAL and phase in {Phase.CONNECT, Phase.PROXY}:
        return Reason.UNREACHABLE  # a name may resolve to a link-local address, which means nothing without a link
    return _BY_ERRNO.get(error.errno)


def _in_phase(reason: Reason, phase: Phase) -> Reason:
    """The reason as this phase calls it."""
    if reason in REASONS[phase]:
        return reason
    if phase is Phase.RESOLVE:
        return Reason.UNREACHABLE
    # An established connection that an ICMP error or a filter ended.
    return Reason.RESET


_EXPECTED: Mapping[Phase, str] = {
    Phase.RESOLVE: "an answer from a nameserver",
    Phase.CONNECT: "a connection to {peer}",
    Phase.PROXY: "a tunnel through the proxy at {peer}",
    Phase.TLS: "a TLS handshake with {peer}",
    Phase.LOGIN: "an answer to the login from {peer}",
    Phase.REQUEST: "an answer from {peer}",
    Phase.TRANSFER: "the rest of the answer from {peer}",
    Phase.VERIFY: "an answer that can be checked from {peer}",
}
