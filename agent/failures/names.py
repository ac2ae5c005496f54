"""Errors of name resolution: what nameservers answer, and getaddrinfo's codes."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from agent.failures.cause import Cause
from agent.model import Fact, Phase, Reason

BY_RCODE: Mapping[str, Reason] = {
    "NOERROR": Reason.NO_RECORDS,
    "FORMERR": Reason.PROTOCOL_ERROR,
    "SERVFAIL": Reason.SERVER_FAILURE,
    "NXDOMAIN": Reason.NAME_NOT_FOUND,
    "NOTIMP": Reason.SERVER_FAILURE,
    "REFUSED": Reason.QUERY_REFUSED,
}
"""Response codes of DNS, where records were wanted and there are none. The others are failures of the server."""

BY_GAI_CODE: Mapping[int, Reason] = {
    socket.EAI_NONAME: Reason.NAME_NOT_FOUND,
    socket.EAI_NODATA: Reason.NO_RECORDS,
    socket.EAI_ADDRFAMILY: Reason.NO_RECORDS,
    socket.EAI_AGAIN: Reason.SERVER_FAILURE,  # also glibc's word for nameservers that are silent or refuse
    socket.EAI_FAIL: Reason.SERVER_FAILURE,
    socket.EAI_SYSTEM: Reason.UNREACHABLE,
}
"""getaddrinfo(3), glibc 2.36. The others (bad flags, no memory …) are ours."""


def classify(error: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause | None:  # noqa: ARG001 - a Classifier
    """socket.gaierror by its EAI_* code."""
    if not isinstance(error, socket.gaierror):
        return None
    reason = BY_GAI_CODE.get(error.args[0], Reason.INTERNAL)
    return Cause(reason, f"expected addresses, got: {error.args[-1]}", Phase.RESOLVE)
