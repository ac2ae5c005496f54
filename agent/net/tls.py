"""The tls phase: contexts built once, the handshake, and what the peer's certificates say even when it fails."""

from __future__ import annotations

import _ssl
import asyncio
import ipaddress
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from agent.keys import BOOLEAN, HOST, PATH, Check, choice, key
from agent.model import Fact, Phase, Reason
from agent.net.connect import Stream
from agent.prober import ProbeFailure, Recorder, excerpt, listed

# asyncio gives up a handshake after 60 s on its own; the run's deadline is the only one that counts.
_NO_HANDSHAKE_LIMIT_SECONDS = 86_400.0

_VERDICT_SECONDS = 0.1
_VERDICT_HANDSHAKES = 3
"""How long `confirm` waits, at least, for a server that says nothing about our certificate: a rejection takes one round
trip and the time to verify, about as long as the handshake before it."""


class TlsVersion(StrEnum):
    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


def _pair(certificate: Path | None, private_key: Path | None) -> str | None:
    if private_key is not None and certificate is None:
        return "expected certificate_file beside key_file, got nothing"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """How a TLS connection is made and what is expected of the peer's certificate."""

    CHECKS = (Check(at="key_file", needs=("certificate_file", "key_file"), problem=_pair),)

    ca_file: Path | None = key(
        PATH, default=None, doc="Certificate authorities to trust, PEM; the system's where left out."
    )
    certificate_file: Path | None = key(PATH, default=None, doc="Client certificate chain to present, PEM.")
    key_file: Path | None = key(
        PATH, default=None, doc="Private key of the client certificate, PEM; in certificate_file where left out."
    )
    server_name: str | None = key(
        HOST, default=None, doc="Name to ask for (SNI) and to verify; the target's host where left out."
    )
    min_version: TlsVersion = key(choice(TlsVersion), default=TlsVersion.TLS_1_2, doc="Oldest TLS version to accept.")
    verify: bool = key(BOOLEAN, default=True, doc="Verify the certificate chain, its dates and its name.")


def context_of(options: TlsOptions) -> ssl.SSLContext:
    """Build a client context. Costs 18 ms of CPU with the system's authorities: `Contexts` keeps it.

    Raises ProbeFailure where a file cannot be read or used. That is no defect of ours, and nothing was asked yet: the
    phase is tls, and the run has no time in it.
    """
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ValueError) as error:
        raise _unusable("certificate authorities", options.ca_file, error, Reason.CERTIFICATE_UNTRUSTED) from error
    context.minimum_version = {
        TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2,
        TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3,
    }[options.min_version]
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.certificate_file is not None:
        try:
            # With the password that is missing, OpenSSL would ask for one on the terminal, and wait.
            context.load_cert_chain(options.certificate_file, options.key_file, password="")
        except (OSError, ValueError) as error:
            files = " and ".join(str(file) for file in (options.certificate_file, options.key_file) if file)
            raise _unusable("client certificate", files, error, Reason.CLIENT_CERTIFICATE_REQUIRED) from error
        setattr(context, _CLIENT_EXPIRY, _expiry_of_first(options.certificate_file))
    context.sslobject_class = _Observed
    # The property of ssl.SSLContext makes three enum members of every message; this is its C original.
    _ssl._SSLContext._msg_callback.__set__(context, _observe)  # type: ignore[attr-defined]  # noqa: SLF001
    return context


_CLIENT_EXPIRY = "netprobe_client_certificate_expires_at"


def _expiry_of_first(file: Path) -> float | None:
    """When the first certificate of a PEM file, the leaf, expires: Unix time in seconds."""
    info: Mapping[str, Any] = _ssl._test_decode_cert(str(file))  # type: ignore[attr-defined]  # noqa: SLF001
    return _seconds(info["notAfter"])


def _unusable(what: str, file: object, error: Exception, reason: Reason) -> ProbeFailure:
    why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return ProbeFailure(reason, f"expected a usable {what} file in PEM, {file}, got: {_words(why)}", phase=Phase.TLS)


def _words(text: str) -> str:
    return text.replace("_", " ").lower() if text.isupper() else text


class Contexts:
    """Client contexts, built once and again where one of their files has changed."""

    def __init__(self) -> None:
        self._held: dict[TlsOptions, tuple[tuple[Any, ...], ssl.SSLContext]] = {}

    def get(self, options: TlsOptions) -> ssl.SSLContext:
        """The context for these options. Raises ProbeFailure, as `context_of` does."""
        stamp = tuple(_stamp(file) for file in (options.ca_file, options.certificate_file, options.key_file))
        held = self._held.get(options)
        if held is None or held[0] != stamp:
            held = self._held[options] = (stamp, context_of(options))
        return held[1]


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    """Changes with the file: written anew, replaced, or a link (as in a mounted secret) that leads elsewhere."""
    if file is None:
        return None
    try:
        stat = file.stat()
    except OSError:
        return None  # building the context says what is wrong with it
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


class _Observed(ssl.SSLObject):
    """A TLS connection that shows what the peer did, also while and after its handshake fails.

    OpenSSL 3 holds the peer's chain before it verifies it, and tells of every message. CPython gives both out through
    attributes that are not public (the chain is from 3.13 on, there as bytes only: parsing them would take
    `cryptography`, 7 MB and 120 ms in every worker pod).
    """

    asked_for_certificate = False
    """The server sent a CertificateRequest."""

    @cached_property
    def content(self) -> asyncio.Event:
        """The server sent a session ticket or a close_notify: both come after it took our side of the handshake."""
        return asyncio.Event()

    def do_handshake(self) -> None:
        seen = _SEEN.get(None)
        if seen is not None:
            seen.tls = self
        super().do_handshake()


class _Seen:
    """The TLS connection of one handshake: asyncio gives it out only after a handshake that succeeded."""

    tls: _Observed | None = None


_SEEN: ContextVar[_Seen] = ContextVar("_SEEN")
# asyncio makes the connection in a callback, which runs in a copy of the context of start_tls.

TLS_ALERT = b"\x15\x03"
"""How a record begins in which a server of TLS says what it thinks of plain text: an alert, of any version 3.x."""

# RFC 8446, sections 5.1 and 4 and 6
_HANDSHAKE, _ALERT = 22, 21
_NEW_SESSION_TICKET, _CERTIFICATE_REQUEST = 4, 13
_CLOSE_NOTIFY = 0


def _observe(tls: object, direction: str, _version: int, content: int, message: int, _data: bytes) -> None:
    """OpenSSL's message callback."""
    if direction != "read" or not isinstance(tls, _Observed):
        return
    if content == _HANDSHAKE and message == _CERTIFICATE_REQUEST:
        tls.asked_for_certificate = True
    elif (content, message) in {(_HANDSHAKE, _NEW_SESSION_TICKET), (_ALERT, _CLOSE_NOTIFY)}:
        tls.content.set()


async def start_tls(stream: Stream, context: ssl.SSLContext, server_name: str, recorder: Recorder) -> None:
    """Make the TLS handshake on a stream and write down what the peer showed, also where it fails or is cut short.

    Raises ssl.SSLError, OSError; ProbeFailure where the peer has sent something that is not TLS already. What a TLS 1.3
    server says to our certificate comes later: with the first read, or through `confirm`.
    """
    expires_at = getattr(context, _CLIENT_EXPIRY, None)
    if expires_at is not None:
        recorder.facts[Fact.CLIENT_CERTIFICATE_EXPIRES_AT] = expires_at
    seen = _Seen()
    token = _SEEN.set(seen)
    try:
        with recorder.phase(Phase.TLS):
            if early := stream.unread:
                raise ProbeFailure(Reason.NOT_TLS, f"expected nothing before the TLS handshake, got {excerpt(early)}")
            await stream.writer.start_tls(
                context, server_hostname=_bare(server_name), ssl_handshake_timeout=_NO_HANDSHAKE_LIMIT_SECONDS
            )
    except ssl.SSLError as error:
        if isinstance(error, ssl.SSLCertVerificationError):
            recorder.facts[Fact.CERTIFICATE_VERIFIED] = False
            recorder.facts[Fact.CERTIFICATE_ERROR] = error.verify_message
        elif error.reason in _VERSION_ERRORS:
            oldest = context.minimum_version.name.replace("v", " ").replace("_", ".")
            raise ProbeFailure(
                Reason.PROTOCOL_ERROR, f"expected {oldest} or newer, got: {_words(error.reason)}", phase=Phase.TLS
            ) from error
        raise
    finally:
        _SEEN.reset(token)
        if seen.tls is not None:
            if seen.tls.asked_for_certificate:
                recorder.facts[Fact.CLIENT_CERTIFICATE_REQUESTED] = True
            _record_chain(_chain(seen.tls), recorder)
            seen.tls = None  # a failure's traceback keeps this frame
    tls: ssl.SSLObject = stream.writer.get_extra_info("ssl_object")
    recorder.facts[Fact.TLS_VERSION] = tls.version()
    cipher = tls.cipher()
    recorder.facts[Fact.TLS_CIPHER] = cipher[0] if cipher else None
    if context.verify_mode is ssl.CERT_REQUIRED:
        recorder.facts[Fact.CERTIFICATE_VERIFIED] = True


_VERSION_ERRORS = frozenset({"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"})


def _bare(server_name: str) -> str:
    """A name as SNI and certificates have it: no dot at the end (RFC 6066, section 3), no scope of an IPv6 address."""
    return server_name.partition("%")[0].removesuffix(".")


async def confirm(stream: Stream, recorder: Recorder) -> None:
    """Learn, on a TLS connection before it is read from, whether the server accepted our side of the handshake.

    With TLS 1.3 our handshake is finished before the server has seen our certificate, or that we have none. Only a
    server that asked for one has a verdict to give: an alert, or a session ticket if it is content, one round trip
    later. One that says nothing for several round trips is content too; asking it (with a close_notify) would be
    answered with a reset that can overtake the alert. Raises ssl.SSLError, OSError, EOFError.
    """
    tls = stream.writer.get_extra_info("ssl_object")
    if not isinstance(tls, _Observed) or not tls.asked_for_certificate or tls.version() != "TLSv1.3":
        return
    patience = max(_VERDICT_SECONDS, _VERDICT_HANDSHAKES * recorder.phases.get(Phase.TLS, 0.0))
    with recorder.phase(Phase.TLS):
        answer = asyncio.ensure_future(stream.reader.read(1))
        content = asyncio.ensure_future(tls.content.wait())
        try:
            await asyncio.wait({answer, content}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                if not answer.result() and not tls.content.is_set():
                    raise EOFError
                stream.put_back(answer.result())
        finally:
            answer.cancel()
            content.cancel()
            await asyncio.wait({answer, content})  # so that the stream can be read from again


def _chain(tls: ssl.SSLObject) -> list[Mapping[str, Any]]:
    """The certificates the peer sent, leaf first, each as ssl.SSLSocket.getpeercert() shows one."""
    chain = tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined]  # noqa: SLF001
    return [certificate.get_info() for certificate in chain or ()]


def _record_chain(chain: list[Mapping[str, Any]], recorder: Recorder) -> None:
    if not chain:
        return
    entries = [
        {
            "subject": _name(info.get("subject", ())),
            "issuer": _name(info.get("issuer", ())),
            "expires_at": _seconds(info.get("notAfter")),
        }
        for info in chain
    ]
    leaf = chain[0]
    recorder.facts.update(
        {
            Fact.CERTIFICATE_SUBJECT: entries[0]["subject"],
            Fact.CERTIFICATE_ISSUER: entries[0]["issuer"],
            Fact.CERTIFICATE_NAMES: listed(_alternative(value) for _, value in leaf.get("subjectAltName", ())),
            Fact.CERTIFICATE_CHAIN: entries,
        }
    )
    not_before = _seconds(leaf.get("notBefore"))
    if not_before is not None:
        recorder.facts[Fact.CERTIFICATE_NOT_BEFORE] = not_before
    expiries = [expiry for info in chain if (expiry := _seconds(info.get("notAfter"))) is not None]
    if expiries:
        recorder.facts[Fact.CERTIFICATE_EXPIRES_AT] = min(expiries)


# The same few certificates come at every run: what their texts mean is remembered, 0.1 ms a run.
_remembered = lru_cache(maxsize=256)


@_remembered
def _seconds(text: str | None) -> float | None:
    """Unix time of a date in a certificate; None for one that is no date, which a server may well send."""
    try:
        return float(ssl.cert_time_to_seconds(text)) if text is not None else None
    except ValueError:
        return None


@_remembered
def _alternative(value: Any) -> str:
    """A subject alternative name: a string, IPv6 addresses in OpenSSL's own long form, or a directory name."""
    if not isinstance(value, str):
        return _name(value)
    try:
        return str(ipaddress.ip_address(value.strip()))
    except ValueError:
        return _escaped(value)


_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "userId": "UID",
}


@_remembered
def _name(rdns: Any) -> str:
    return ",".join(f"{_SHORT.get(key, key)}={_escaped(value)}" for rdn in reversed(rdns) for key, value in rdn)


def _escaped(text: str) -> str:
    """As RFC 4514 writes it: separators behind a backslash, what cannot be printed in hexadecimal."""
    return "".join(
        f"\\{char}"
        if char in ',+"\\<>;'
        else char
        if char.isprintable()
        else "".join(f"\\{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in text
    )
