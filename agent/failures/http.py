"""What aiohttp's HTTP parser raises, what zlib raises on a body, and every other exception aiohttp's client knows."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import http_exceptions

from agent.failures.cause import Cause, peer
from agent.model import Fact, Phase, Reason


def classify(error: BaseException, phase: Phase, facts: Mapping[Fact, Any]) -> Cause | None:  # noqa: ARG001 - a Classifier
    """http_exceptions.HttpProcessingError, zlib.error, aiohttp.ClientError.

    An OSError that carries its number is left to the system's table, also where aiohttp wrapped it.
    """
    if isinstance(error, zlib.error):
        return Cause(Reason.PROTOCOL_ERROR, f"expected {peer(facts)} to compress the body as it says, got: {error}")
    if isinstance(error, http_exceptions.HttpProcessingError):
        return Cause(Reason.PROTOCOL_ERROR, f"expected HTTP/1.1 from {peer(facts)}, got: {_flaw(error)}")
    if isinstance(error, OSError) and error.errno is not None:
        return None
    if isinstance(error, aiohttp.ServerTimeoutError):
        return Cause(Reason.TIMEOUT, f"expected an answer from {peer(facts)}, got none")
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
        return Cause(Reason.CLOSED, f"expected the whole answer from {peer(facts)}, got: {_text(error)}")
    if isinstance(error, aiohttp.ClientError | aiohttp.WSMessageTypeError):
        return Cause(Reason.PROTOCOL_ERROR, f"expected HTTP/1.1 from {peer(facts)}, got: {_text(error)}")
    return None


def _flaw(error: http_exceptions.HttpProcessingError) -> str:
    """What the parser read and its verdict, without the drawing that points at the place."""
    if isinstance(error, http_exceptions.LineTooLong):
        return f"a line of more than {error.args[1]} bytes"
    verdict, _, rest = error.message.removeprefix("Bad status line:\n  ").partition(":\n\n")
    line = rest.strip().partition("\n")[0].removeprefix("b")
    return f"{line} ({verdict})" if line else verdict


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
