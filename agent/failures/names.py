"""Errors of name resolution: c-ares' codes through aiodns, and getaddrinfo's."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import aiodns.error as ares

from agent.failures.cause import Cause
from agent.model import Fact, Phase, Reason

BY_ARES_CODE: Mapping[int, Reason] = {
    ares.ARES_ENODATA: Reason.NO_RECORDS,
    ares.ARES_EFORMERR: Reason.PROTOCOL_ERROR,
    ares.ARES_ESERVFAIL: Reason.SERVER_FAILURE,
    ares.ARES_ENOTFOUND: Reason.NAME_NOT_FOUND,
    ares.ARES_ENOTIMP: Reason.SERVER_FAILURE,
    ares.ARES_EREFUSED: Reason.QUERY_REFUSED,
    ares.ARES_EBADNAME: Reason.NAME_NOT_FOUND,
    ares.ARES_EBADRESP: Reason.PROTOCOL_ERROR,
    ares.ARES_ECONNREFUSED: Reason.UNREACHABLE,
    ares.ARES_ETIMEOUT: Reason.TIMEOUT,
    ares.ARES_EOF: Reason.CLOSED,
}
"""Codes of the network and of nameservers. The others (no memory, bad flags, cancelled …) are ours."""

BY_GAI_CODE: Mapping[int, Reason] = {
    socket.EAI_NONAME: Reason.NAME_NOT_FOUND,
    socket.EAI_NODATA: Reason.NO_RECORDS,
    socket.EAI_ADDRFAMILY: Reason.NO_RECORDS,
    socket.EAI_AGAIN: Reason.SERVER_FAILURE,  # also glibc's word for nameservers that are silent or refuse
    socket.EAI_FAIL: Reason.SERVER_FAILURE,
    socket.EAI_SYSTEM: Reason.UNREACHABLE,
}
"""getaddrinfo(3), glibc 2.36. The others (bad flags, no memory …) are ours."""


def classify(error: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause | None:
    """aiodns.DNSError by its ARES_* code, socket.gaierror by its EAI_* code."""
    if isinstance(error, ares.DNSError):
        code, text = error.args[0], str(error.args[-1])
        reason = BY_ARES_CODE.get(code, Reason.INTERNAL)
    elif isinstance(error, socket.gaierror):
        reason, text = BY_GAI_CODE.get(error.args[0], Reason.INTERNAL), str(error.args[-1])
    else:
        return None
    return Cause(reason, f"expected addresses, got: {text}", Phase.RESOLVE)
