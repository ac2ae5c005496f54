"""What aiohttp's client raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import http_exceptions

from agent.failures.cause import Cause, peer
from agent.model import Fact, Phase, Reason


def classify(error: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause | None:
    """aiohttp.ClientError and its parser's errors. An OSError that aiohttp wrapped is left to the system's table."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Cause(Reason.CLOSED, f"expected an answer from {peer(facts)}, got: the connection was closed")
    if isinstance(error, aiohttp.ServerTimeoutError):
        return Cause(Reason.TIMEOUT, f"expected an answer from {peer(facts)}, got none")
    if isinstance(error, aiohttp.ClientPayloadError):
        return Cause(Reason.CLOSED, f"expected the whole answer from {peer(facts)}, got: {error}")
    if isinstance(error, OSError):
        return None
    if isinstance(error, aiohttp.ClientConnectionError):
        return Cause(Reason.CLOSED, f"expected an answer from {peer(facts)}, got: {error}")
    if isinstance(error, aiohttp.ClientError | http_exceptions.HttpProcessingError):
        return Cause(Reason.PROTOCOL_ERROR, f"expected HTTP from {peer(facts)}, got: {error}")
    return None
