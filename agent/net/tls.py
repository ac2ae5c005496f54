"""The tls phase: contexts built once, the handshake, and what the peer's certificates say even when it fails."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from agent.keys import BOOLEAN, HOST, PATH, Check, choice, key
from agent.model import Fact, Phase
from agent.net.connect import Stream
from agent.prober import Recorder

# asyncio gives up a handshake after 60 s on its own; the run's deadline is the only one that counts.
_NO_HANDSHAKE_LIMIT_SECONDS = 86_400.0


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
    """Build a client context. Costs 18 ms of CPU: `Contexts` keeps it. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(cafile=options.ca_file)
    context.minimum_version = {
        TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2,
        TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3,
    }[options.min_version]
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.certificate_file is not None:
        context.load_cert_chain(options.certificate_file, options.key_file)
    context.sslobject_class = _Observed
    return context


class Contexts:
    """Client contexts, built once and again where one of their files has changed."""

    def __init__(self) -> None:
        self._contexts: dict[TlsOptions, tuple[tuple[Any, ...], ssl.SSLContext]] = {}

    def get(self, options: TlsOptions) -> ssl.SSLContext:
        """The context for these options. Raises OSError, ssl.SSLError."""
        files = (options.ca_file, options.certificate_file, options.key_file)
        stamp = tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in (f.stat() for f in files if f))
        held = self._contexts.get(options)
        if held is None or held[0] != stamp:
            held = self._contexts[options] = (stamp, context_of(options))
        return held[1]


class _Observed(ssl.SSLObject):
    """A TLS connection that keeps the chain the peer showed when the handshake fails: as an attribute of the error.

    OpenSSL 3 holds the chain before it verifies it. CPython gives it out through `_sslobj` (public from 3.13 on, there
    as bytes only): parsing them would take `cryptography`, 7 MB and 120 ms in every worker pod.
    """

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            error.peer_chain = _chain(self)  # type: ignore[attr-defined]
            raise


def _chain(tls: ssl.SSLObject) -> list[Mapping[str, Any]]:
    """The certificates the peer sent, leaf first, each as ssl.SSLSocket.getpeercert() shows one."""
    chain = tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined]  # noqa: SLF001
    return [certificate.get_info() for certificate in chain or ()]


async def start_tls(stream: Stream, context: ssl.SSLContext, server_name: str, recorder: Recorder) -> None:
    """Make the TLS handshake on a stream and write down what the peer showed, also where it fails.

    Raises ssl.SSLError, OSError.
    """
    try:
        with recorder.phase(Phase.TLS):
            await stream.writer.start_tls(
                context, server_hostname=server_name, ssl_handshake_timeout=_NO_HANDSHAKE_LIMIT_SECONDS
            )
    except ssl.SSLError as error:
        _record_chain(getattr(error, "peer_chain", []), recorder)
        if isinstance(error, ssl.SSLCertVerificationError):
            recorder.facts[Fact.CERTIFICATE_VERIFIED] = False
            recorder.facts[Fact.CERTIFICATE_ERROR] = error.verify_message
        raise
    tls: ssl.SSLObject = stream.writer.get_extra_info("ssl_object")
    _record_chain(_chain(tls), recorder)
    recorder.facts[Fact.TLS_VERSION] = tls.version()
    cipher = tls.cipher()
    recorder.facts[Fact.TLS_CIPHER] = cipher[0] if cipher else None
    if context.verify_mode is ssl.CERT_REQUIRED:
        recorder.facts[Fact.CERTIFICATE_VERIFIED] = True


def _record_chain(chain: list[Mapping[str, Any]], recorder: Recorder) -> None:
    if not chain:
        return
    entries: list[dict[str, Any]] = [
        {
            "subject": _name(info.get("subject", ())),
            "issuer": _name(info.get("issuer", ())),
            "expires_at": float(ssl.cert_time_to_seconds(info["notAfter"])),
        }
        for info in chain
    ]
    leaf = chain[0]
    recorder.facts.update(
        {
            Fact.CERTIFICATE_SUBJECT: entries[0]["subject"],
            Fact.CERTIFICATE_ISSUER: entries[0]["issuer"],
            Fact.CERTIFICATE_NAMES: [value for _, value in leaf.get("subjectAltName", ())],
            Fact.CERTIFICATE_NOT_BEFORE: float(ssl.cert_time_to_seconds(leaf["notBefore"])),
            Fact.CERTIFICATE_EXPIRES_AT: min(entry["expires_at"] for entry in entries),
            Fact.CERTIFICATE_CHAIN: entries,
        }
    )


_SHORT = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C"}


def _name(rdns: Any) -> str:
    return ",".join(f"{_SHORT.get(key, key)}={value}" for rdn in reversed(rdns) for key, value in rdn)
