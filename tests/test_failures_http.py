"""Nothing that aiohttp, its parser or zlib can raise is a defect of ours: every exception class, in every phase."""

from __future__ import annotations

import inspect
import ssl
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from agent.failures import classify
from agent.model import DETAIL_LIMIT, Phase, Reason
from agent.prober import Recorder
from tests.lab.targets import target

PHASES = (Phase.CONNECT, Phase.PROXY, Phase.TLS, Phase.REQUEST, Phase.TRANSFER, Phase.VERIFY)
_KEY = ConnectionKey(
    "api.example.test", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)
_REFUSED = OSError(111, "Connection refused")
_CERTIFICATE = ssl.SSLCertVerificationError(1, "self-signed certificate")
_INFO: Any = aiohttp.RequestInfo(URL("https://api.example.test/"), "GET", None)  # type: ignore[arg-type]

_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "ClientResponseError": (_INFO, ()),
    "ContentTypeError": (_INFO, ()),
    "WSServerHandshakeError": (_INFO, ()),
    "ClientHttpProxyError": (_INFO, ()),
    "TooManyRedirects": (_INFO, ()),
    "ClientConnectorError": (_KEY, _REFUSED),
    "ClientConnectorDNSError": (_KEY, OSError(None, "Temporary failure in name resolution")),
    "ClientProxyConnectionError": (_KEY, _REFUSED),
    "UnixClientConnectorError": ("/run/socket", _KEY, _REFUSED),
    "ServerFingerprintMismatch": (b"a", b"b", "api.example.test", 443),
    "ClientSSLError": (_KEY, _REFUSED),
    "ClientConnectorSSLError": (_KEY, ssl.SSLError(1, "wrong version number")),
    "ClientConnectorCertificateError": (_KEY, _CERTIFICATE),
    "InvalidURL": ("http://[",),
    "InvalidUrlClientError": ("http://[",),
    "InvalidUrlRedirectClientError": ("http://[",),
    "NonHttpUrlRedirectClientError": ("ftp://x",),
    "BadHttpMessage": ("nonsense",),
    "HttpBadRequest": ("nonsense",),
    "PayloadEncodingError": ("nonsense",),
    "ContentEncodingError": ("nonsense",),
    "TransferEncodingError": ("nonsense",),
    "ContentLengthError": ("nonsense",),
    "DecompressSizeError": ("nonsense",),
    "LineTooLong": (b"nonsense", 8190),
    "InvalidHeader": (b"X: \0",),
    "InvalidURLError": ("nonsense",),
}


def _raised_by(module: ModuleType) -> Iterator[Exception]:
    """One of every exception class of a module."""
    for name, kind in inspect.getmembers(module, inspect.isclass):
        if issubclass(kind, Exception) and not issubclass(kind, Warning) and kind.__module__ == module.__name__:
            yield kind(*_ARGUMENTS.get(name, ()))


KNOWN = [
    *_raised_by(client_exceptions),
    *_raised_by(http_exceptions),
    client_exceptions.ClientOSError(104, "Connection reset by peer"),
    zlib.error("Error -3 while decompressing data: incorrect header check"),
]


def test_the_modules_were_enumerated() -> None:
    kinds = {type(error) for error in KNOWN}
    assert {aiohttp.ServerDisconnectedError, http_exceptions.BadStatusLine, aiohttp.ClientOSError} <= kinds
    assert len(kinds) > 40


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("error", KNOWN, ids=lambda error: type(error).__name__)
def test_nothing_known_is_internal(error: Exception, phase: Phase) -> None:
    recorder = Recorder()
    with recorder.phase(phase):
        pass
    failure = classify(error, target("http", url="https://api.example.test/"), recorder)
    assert failure.reason is not Reason.INTERNAL
    assert failure.detail.startswith("expected ")
    assert len(failure.detail) <= DETAIL_LIMIT


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (client_exceptions.ServerDisconnectedError(), Reason.CLOSED),
        (client_exceptions.ClientPayloadError("not completed"), Reason.CLOSED),
        (client_exceptions.ClientOSError(104, "Connection reset by peer"), Reason.RESET),
        (client_exceptions.ClientOSError(), Reason.CLOSED),
        (client_exceptions.ClientConnectionResetError(), Reason.CLOSED),
        (client_exceptions.SocketTimeoutError(), Reason.TIMEOUT),
        (http_exceptions.BadStatusLine("x"), Reason.PROTOCOL_ERROR),
        (zlib.error("bad"), Reason.PROTOCOL_ERROR),
    ],
)
def test_what_they_mean(error: Exception, reason: Reason) -> None:
    recorder = Recorder()
    with recorder.phase(Phase.TRANSFER):
        pass
    assert classify(error, target("http", url="https://api.example.test/"), recorder).reason is reason
