"""A private certificate authority and certificates in every state a server or a client can show.

`Certificates(directory)` makes each on first use; the fixture `certificates` keeps one for the whole test run.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "localhost"
"""The name good certificates are for; 127.0.0.1 and ::1 stand beside it."""
EVERYWHERE = (HOST, "127.0.0.1", "::1")
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, on disk."""

    chain_file: Path
    """PEM: the leaf, then the intermediates a server sends with it."""
    key_file: Path
    leaf: x509.Certificate
    sent: tuple[x509.Certificate, ...]
    """What is in chain_file, leaf first."""

    @property
    def expires_at(self) -> float:
        """Unix time of the earliest expiry among the certificates sent."""
        return min(certificate.not_valid_after_utc.timestamp() for certificate in self.sent)

    def server_context(
        self,
        *,
        client_ca: Path | None = None,
        minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> ssl.SSLContext:
        """A server's context; with `client_ca` it wants a client certificate of that authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain_file, self.key_file)
        context.minimum_version, context.maximum_version = minimum, maximum
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        return context


@dataclass(frozen=True)
class Issuer:
    """A certificate that may sign others."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()
    """What a server sends after a leaf of this issuer: nothing for a root."""


class Certificates:
    """A root authority that clients trust (`ca_file`), another that they do not, and what both have signed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._root = _root("netprobe test root")
        self._other_root = _root("some other root")
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(_pem(self._root.certificate))
        self.other_ca_file = directory / "other-ca.pem"
        self.other_ca_file.write_bytes(_pem(self._other_root.certificate))

    # --- servers ---

    @cached_property
    def good(self) -> Certificate:
        """For localhost, 127.0.0.1 and ::1, signed by the root."""
        return self.issue("good", EVERYWHERE)

    @cached_property
    def expired(self) -> Certificate:
        return self.issue("expired", EVERYWHERE, begins=-30 * DAY, ends=-DAY)

    @cached_property
    def not_yet_valid(self) -> Certificate:
        return self.issue("not-yet-valid", EVERYWHERE, begins=DAY, ends=30 * DAY)

    @cached_property
    def wrong_name(self) -> Certificate:
        """For other.example.test and 192.0.2.1."""
        return self.issue("wrong-name", ("other.example.test", "192.0.2.1"))

    @cached_property
    def dns_name_only(self) -> Certificate:
        """For localhost, without an IP address."""
        return self.issue("dns-name-only", (HOST,))

    @cached_property
    def ip_address_only(self) -> Certificate:
        """For 127.0.0.1 and ::1, without a name."""
        return self.issue("ip-address-only", ("127.0.0.1", "::1"))

    @cached_property
    def unknown_issuer(self) -> Certificate:
        """Signed by the other root."""
        return self.issue("unknown-issuer", EVERYWHERE, issuer=self._other_root)

    @cached_property
    def self_signed(self) -> Certificate:
        return self.issue("self-signed", EVERYWHERE, self_signed=True)

    @cached_property
    def with_intermediate(self) -> Certificate:
        """Signed by an intermediate, which is sent with it."""
        return self.issue("with-intermediate", EVERYWHERE, issuer=self.intermediate("an intermediate"))

    @cached_property
    def missing_intermediate(self) -> Certificate:
        """Signed by an intermediate that is not sent: the server's most common mistake."""
        signer = self.intermediate("an intermediate that stays at home")
        return self.issue("missing-intermediate", EVERYWHERE, issuer=replace(signer, chain=()))

    @cached_property
    def expired_intermediate(self) -> Certificate:
        """Valid itself, signed by an intermediate that has expired and is sent with it."""
        signer = self.intermediate("an expired intermediate", begins=-60 * DAY, ends=-2 * DAY)
        return self.issue("expired-intermediate", EVERYWHERE, issuer=signer)

    # --- clients ---

    @cached_property
    def client(self) -> Certificate:
        return self.issue("client", (), common_name="probe", client=True)

    @cached_property
    def client_expired(self) -> Certificate:
        return self.issue("client-expired", (), common_name="probe", client=True, begins=-30 * DAY, ends=-DAY)

    @cached_property
    def client_of_other_ca(self) -> Certificate:
        return self.issue("client-of-other-ca", (), common_name="probe", client=True, issuer=self._other_root)

    # --- any other state ---

    def issue(
        self,
        file_name: str,
        names: Sequence[str],
        *,
        common_name: str | None = None,
        issuer: Issuer | None = None,
        self_signed: bool = False,
        begins: timedelta = -DAY,
        ends: timedelta = 30 * DAY,
        client: bool = False,
    ) -> Certificate:
        """Make a leaf certificate in files of this name (over those that are there: a replaced certificate).

        The root signs it where no issuer is given. Dates are counted from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(common_name or (names[0] if names else file_name))
        signer = None if self_signed else issuer or self._root
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.ExtendedKeyUsage([usage]), False),
        ]
        if names:
            extensions.append((x509.SubjectAlternativeName([_alternative(name) for name in names]), False))
        leaf = _sign(subject, key, issuer=signer, begins=begins, ends=ends, extensions=extensions)
        sent = (leaf, *(signer.chain if signer else ()))
        chain_file, key_file = self.directory / f"{file_name}.pem", self.directory / f"{file_name}.key"
        chain_file.write_bytes(b"".join(_pem(certificate) for certificate in sent))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        key_file.chmod(0o600)
        return Certificate(chain_file=chain_file, key_file=key_file, leaf=leaf, sent=sent)

    def stranger(self, common_name: str) -> Issuer:
        """An authority that nobody trusts."""
        return _root(common_name)

    def intermediate(self, common_name: str, *, begins: timedelta = -DAY, ends: timedelta = 30 * DAY) -> Issuer:
        """An authority that the root signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(_name(common_name), key, issuer=self._root, begins=begins, ends=ends, extensions=_AUTHORITY)
        return Issuer(certificate=certificate, key=key, chain=(certificate,))


_AUTHORITY: list[tuple[x509.ExtensionType, bool]] = [
    (x509.BasicConstraints(ca=True, path_length=None), True),
    (
        x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        ),
        True,
    ),
]


def _root(common_name: str) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(_name(common_name), key, issuer=None, begins=-DAY, ends=365 * DAY, extensions=_AUTHORITY)
    return Issuer(certificate=certificate, key=key)


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: Issuer | None,
    begins: timedelta,
    ends: timedelta,
    extensions: list[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    """A certificate for a key; self-signed without an issuer. With the key identifiers that Python 3.13 insists on."""
    now = datetime.now(UTC)
    signing_key = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signing_key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
