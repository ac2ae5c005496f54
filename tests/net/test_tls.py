"""The TLS handshake: certificate facts in every state, the server's verdict on ours, files that change or break."""

from __future__ import annotations

import asyncio.constants
import os
import shlex
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.keys import section
from agent.model import Fact, Outcome, Phase
from agent.net.connect import connect
from agent.net.resolve import Address
from agent.net.tls import Contexts, TlsOptions, confirm, start_tls
from agent.prober import ProbeFailure, Recorder
from tests.lab.certificates import DAY, EVERYWHERE, HOST, Certificate, Certificates
from tests.lab.command import REPOSITORY
from tests.lab.misbehaving import Server, closing, greeting, http_only, resetting, silent
from tests.lab.openssl import OpenSslServer, deaf
from tests.lab.targets import probe, verdict

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [V12, V13], ids=["tls1.2", "tls1.3"])


async def meet(certificates: Certificates, address: str, *, timeout_seconds: float = 5.0, **tls: Any) -> Outcome:
    """One run against a TLS server, asking for localhost and trusting the test's authority."""
    options = {"ca_file": str(certificates.ca_file), "server_name": HOST, **tls}
    return await probe("tcp", address=address, tls=options, timeout_seconds=timeout_seconds)


def detail(outcome: Outcome) -> str:
    assert outcome.failure is not None
    return outcome.failure.detail


# --- the server's certificate -----------------------------------------------------------------------------------------

STATES = [
    ("good", "success", None),
    ("with_intermediate", "success", None),
    ("dns_name_only", "success", None),
    ("expired", "tls/certificate_expired", "certificate has expired"),
    ("expired_intermediate", "tls/certificate_expired", "certificate has expired"),
    ("not_yet_valid", "tls/certificate_not_yet_valid", "certificate is not yet valid"),
    ("wrong_name", "tls/certificate_name_mismatch", "certificate is not valid for 'localhost'"),
    ("ip_address_only", "tls/certificate_name_mismatch", "certificate is not valid for 'localhost'"),
    ("unknown_issuer", "tls/certificate_untrusted", "unable to get local issuer certificate"),
    ("missing_intermediate", "tls/certificate_untrusted", "unable to get local issuer certificate"),
    ("self_signed", "tls/certificate_untrusted", "self-signed certificate"),
]


def shown(certificate: x509.Certificate) -> dict[str, Any]:
    """A certificate as `Fact.CERTIFICATE_CHAIN` shows it."""
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "expires_at": certificate.not_valid_after_utc.timestamp(),
    }


def assert_shows(outcome: Outcome, certificate: Certificate) -> None:
    chain = [shown(each) for each in certificate.sent]
    names = certificate.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert outcome.facts[Fact.CERTIFICATE_CHAIN] == chain
    assert outcome.facts[Fact.CERTIFICATE_SUBJECT] == chain[0]["subject"]
    assert outcome.facts[Fact.CERTIFICATE_ISSUER] == chain[0]["issuer"]
    assert outcome.facts[Fact.CERTIFICATE_NAMES] == [str(name.value) for name in names]
    assert outcome.facts[Fact.CERTIFICATE_NOT_BEFORE] == certificate.leaf.not_valid_before_utc.timestamp()
    assert outcome.facts[Fact.CERTIFICATE_EXPIRES_AT] == certificate.expires_at


@VERSIONS
@pytest.mark.parametrize(("state", "expected", "seen"), STATES, ids=[state for state, _, _ in STATES])
async def test_trap_t12_certificate_facts_are_there_also_when_verification_fails(
    certificates: Certificates, state: str, expected: str, seen: str | None, version: ssl.TLSVersion
) -> None:
    """blackbox_exporter loses the expiry at the moment of expiry, and with it the alert."""
    certificate: Certificate = getattr(certificates, state)
    async with silent(tls=certificate.server_context(maximum=version)) as server:
        outcome = await meet(certificates, server.address)
    assert verdict(outcome) == expected
    assert_shows(outcome, certificate)
    assert outcome.facts[Fact.CERTIFICATE_VERIFIED] is (seen is None)
    if seen is None:
        assert Fact.CERTIFICATE_ERROR not in outcome.facts
    else:
        assert seen in outcome.facts[Fact.CERTIFICATE_ERROR]
        assert detail(outcome).startswith(f"expected a valid certificate from {server.address}, got: ")
        assert seen in detail(outcome)
    assert set(outcome.phases) == {Phase.CONNECT, Phase.TLS}


@VERSIONS
@pytest.mark.parametrize("state", [state for state, _, _ in STATES])
async def test_trap_t13_without_verification_nothing_bogus_is_shown(
    certificates: Certificates, state: str, version: ssl.TLSVersion
) -> None:
    """blackbox_exporter shows an expiry of -62135596800 there. Ours is the server's; nothing claims a verdict."""
    certificate: Certificate = getattr(certificates, state)
    async with silent(tls=certificate.server_context(maximum=version)) as server:
        outcome = await meet(certificates, server.address, verify=False)
    assert verdict(outcome) == "success"
    assert_shows(outcome, certificate)
    assert Fact.CERTIFICATE_VERIFIED not in outcome.facts
    assert Fact.CERTIFICATE_ERROR not in outcome.facts


async def test_version_and_cipher_are_facts(certificates: Certificates) -> None:
    async with silent(tls=certificates.good.server_context(maximum=V12)) as server:
        outcome = await meet(certificates, server.address)
    assert outcome.facts[Fact.TLS_VERSION] == "TLSv1.2"
    assert "AES" in outcome.facts[Fact.TLS_CIPHER] or "CHACHA" in outcome.facts[Fact.TLS_CIPHER]


async def test_names_are_escaped_as_rfc_4514_does(certificates: Certificates) -> None:
    """A certificate is the peer's text: it cannot fake another field, nor move a terminal's cursor."""
    strange = certificates.issue("strange", EVERYWHERE, common_name='evil, O=Good+"\\ \x1b[2J ü')
    async with silent(tls=strange.server_context()) as server:
        outcome = await meet(certificates, server.address)
    assert outcome.facts[Fact.CERTIFICATE_SUBJECT] == 'CN=evil\\, O=Good\\+\\"\\\\ \\1B[2J ü,O=Example'


async def test_dates_that_are_no_dates_are_left_out(certificates: Certificates, tmp_path: Path) -> None:
    """What a server sends may be nonsense: that is no defect of ours."""
    good = certificates.issue("nonsense", EVERYWHERE)
    der = good.leaf.public_bytes(serialization.Encoding.DER)
    date = good.leaf.not_valid_after_utc.strftime("%y%m%d%H%M%SZ").encode()
    assert der.count(date) == 1
    broken = ssl.DER_cert_to_PEM_cert(der.replace(date, b"269999999999Z"))
    good.chain_file.write_text(broken)
    async with silent(tls=good.server_context()) as server:
        outcome = await meet(certificates, server.address, verify=False)
        refused = await meet(certificates, server.address)
    assert verdict(outcome) == "success"
    assert Fact.CERTIFICATE_EXPIRES_AT not in outcome.facts
    assert outcome.facts[Fact.CERTIFICATE_SUBJECT] == "CN=localhost,O=Example"
    assert verdict(refused) == "tls/certificate_untrusted"


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "server_name", "asked_for"),
    [
        ("127.0.0.1", None, None),  # an IP address is not a name to ask for (RFC 6066, section 3)
        ("localhost", None, "localhost"),
        ("localhost", "other.example.test", "other.example.test"),
        ("127.0.0.1", "localhost", "localhost"),
        ("127.0.0.1", "localhost.", "localhost"),
        ("localhost.", None, "localhost"),
    ],
)
async def test_the_name_that_is_asked_for(
    certificates: Certificates, host: str, server_name: str | None, asked_for: str | None
) -> None:
    """server_name where it is given, the target's host otherwise; without the dot at its end."""
    names = {} if server_name is None else {"server_name": server_name}
    certificate = certificates.wrong_name if server_name == "other.example.test" else certificates.good
    with OpenSslServer(certificate.server_context()) as server:
        outcome = await probe(
            "tcp",
            address=f"{host}:{server.port}",
            family="4",
            tls={"ca_file": str(certificates.ca_file), **names},
        )
    assert verdict(outcome) == "success", outcome.failure
    assert server.server_names == [asked_for]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("ip_address_only", "success"),
        ("good", "success"),
        ("dns_name_only", "tls/certificate_name_mismatch"),
        ("wrong_name", "tls/certificate_name_mismatch"),
    ],
)
async def test_an_ip_address_needs_an_ip_address_in_the_certificate(
    certificates: Certificates, state: str, expected: str
) -> None:
    async with silent(tls=getattr(certificates, state).server_context()) as server:
        outcome = await probe("tcp", address=server.address, tls={"ca_file": str(certificates.ca_file)})
    assert verdict(outcome) == expected
    if expected != "success":
        assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in detail(outcome)


# --- peers that do not finish -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "expected", "sentence"),
    [
        (silent, "tls/timeout", "expected {peer} to finish the TLS handshake, got no answer within 0.5s"),
        (closing, "tls/closed", "expected a TLS handshake with {peer}, got: the connection was closed"),
        (resetting, "tls/reset", "expected a TLS handshake with {peer}, got: the connection was reset"),
        (
            lambda: resetting(when_spoken_to=False),
            "tls/reset",
            "expected a TLS handshake with {peer}, got: the connection was reset",
        ),
        (
            greeting,
            "tls/not_tls",
            "expected TLS with {peer}, got something that is not TLS (wrong version number)",
        ),
        (
            http_only,
            "tls/not_tls",
            "expected TLS with {peer}, got something that is not TLS (wrong version number)",
        ),
    ],
    ids=["silent", "closing", "resetting", "resetting at once", "speaking first", "speaking HTTP"],
)
async def test_a_peer_without_tls(
    certificates: Certificates, server: Callable[[], Server], expected: str, sentence: str
) -> None:
    async with server() as peer:
        outcome = await meet(certificates, peer.address, timeout_seconds=0.5)
    assert verdict(outcome) == expected
    assert detail(outcome) == sentence.format(peer=peer.address)


@pytest.mark.parametrize(
    ("oldest", "newest", "minimum", "expected"),
    [
        (V12, V12, "1.3", "tls/protocol_error"),
        (V12, V13, "1.3", "success"),
        (V13, V13, "1.2", "success"),
        (V12, V12, "1.2", "success"),
    ],
)
async def test_the_oldest_version_that_is_accepted(
    certificates: Certificates, oldest: ssl.TLSVersion, newest: ssl.TLSVersion, minimum: str, expected: str
) -> None:
    with OpenSslServer(certificates.good.server_context(minimum=oldest, maximum=newest)) as server:
        outcome = await meet(certificates, server.address, min_version=minimum)
    assert verdict(outcome) == expected
    if expected != "success":
        assert detail(outcome) == "expected TLS 1.3 or newer, got: tlsv1 alert protocol version"


async def test_trap_t14_a_handshake_that_never_ends_has_the_time_and_nothing_after_it_has_any(
    certificates: Certificates,
) -> None:
    async with silent() as server:
        outcome = await meet(certificates, server.address, timeout_seconds=0.5)
    assert verdict(outcome) == "tls/timeout"
    assert outcome.phases[Phase.TLS] > 0.9 * outcome.duration_seconds
    assert set(outcome.phases) == {Phase.CONNECT, Phase.TLS}


async def test_trap_t21_no_limit_but_the_deadline(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asyncio gives a handshake up after a limit of its own (60 s, here a moment), whatever the deadline is."""
    monkeypatch.setattr(asyncio.constants, "SSL_HANDSHAKE_TIMEOUT", 0.01)
    async with silent() as server:
        outcome = await meet(certificates, server.address, timeout_seconds=0.5)
    assert verdict(outcome) == "tls/timeout"


async def test_no_session_is_resumed(certificates: Certificates) -> None:
    """A resumed session would skip the certificate, and the next expiry with it."""
    resumed: list[bool | None] = []

    def note(tls: ssl.SSLSocket) -> None:
        resumed.append(tls.session_reused)
        while tls.recv(65536):
            pass

    with OpenSslServer(certificates.good.server_context(), note) as server:
        for _ in range(3):
            assert verdict(await meet(certificates, server.address)) == "success"
    assert resumed == [False] * 3


# --- the client's certificate -----------------------------------------------------------------------------------------

CLIENTS = [
    (None, "without a certificate"),
    ("client_expired", "certificate expired"),
    ("client_of_other_ca", "unknown certificate authority"),
]


def presenting(certificates: Certificates, name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    certificate: Certificate = getattr(certificates, name)
    return {"certificate_file": str(certificate.chain_file), "key_file": str(certificate.key_file)}


@VERSIONS
@pytest.mark.parametrize(("client", "seen"), CLIENTS, ids=[str(client) for client, _ in CLIENTS])
async def test_a_server_that_does_not_take_our_certificate(
    certificates: Certificates, client: str | None, seen: str, version: ssl.TLSVersion
) -> None:
    """Also with TLS 1.3, whose servers say so only after our handshake has succeeded."""
    context = certificates.good.server_context(client_ca=certificates.ca_file, maximum=version)
    with OpenSslServer(context) as server:
        outcome = await meet(certificates, server.address, **presenting(certificates, client))
    assert verdict(outcome) == "tls/client_certificate_required"
    assert seen in detail(outcome)
    assert outcome.facts[Fact.CLIENT_CERTIFICATE_REQUESTED] is True
    assert outcome.facts[Fact.CERTIFICATE_CHAIN][0] == shown(certificates.good.leaf)
    assert set(outcome.phases) == {Phase.CONNECT, Phase.TLS}


@VERSIONS
async def test_a_server_that_hangs_up_instead_of_saying_that_it_wants_a_certificate(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """As asyncio's own server does, and with it every server on top of it."""
    context = certificates.good.server_context(client_ca=certificates.ca_file, maximum=version)
    async with silent(tls=context) as server:
        without = await meet(certificates, server.address)
        expired = await meet(certificates, server.address, **presenting(certificates, "client_expired"))
    assert verdict(without) == "tls/client_certificate_required"
    assert detail(without).endswith("the connection was closed after it had asked for a client certificate")
    assert verdict(expired) == "tls/closed"
    assert detail(expired).endswith("the connection was closed after it had asked for a client certificate")


@VERSIONS
@pytest.mark.parametrize("kind", ["talking", "deaf", "asyncio"])
async def test_a_server_that_takes_our_certificate(
    certificates: Certificates, version: ssl.TLSVersion, kind: str
) -> None:
    """Whatever it does next: one that never answers a goodbye is healthy too."""
    context = certificates.good.server_context(client_ca=certificates.ca_file, maximum=version)
    ours = presenting(certificates, "client")
    if kind == "asyncio":
        async with silent(tls=context) as mute:
            outcome = await meet(certificates, mute.address, **ours)
    else:
        server: AbstractContextManager[OpenSslServer]
        server = OpenSslServer(context, deaf) if kind == "deaf" else OpenSslServer(context)
        with server as peer:
            outcome = await meet(certificates, peer.address, **ours)
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.CLIENT_CERTIFICATE_EXPIRES_AT] == certificates.client.expires_at // 1


@VERSIONS
async def test_a_server_that_would_like_a_certificate_and_does_without(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = certificates.good.server_context(client_ca=certificates.ca_file, maximum=version)
    context.verify_mode = ssl.CERT_OPTIONAL
    with OpenSslServer(context) as server:
        outcome = await meet(certificates, server.address)
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.CLIENT_CERTIFICATE_REQUESTED] is True
    assert Fact.CLIENT_CERTIFICATE_EXPIRES_AT not in outcome.facts


async def test_a_content_server_that_says_nothing_at_all_is_not_failed(certificates: Certificates) -> None:
    """Postgres asks for a certificate, sends no session ticket, and waits."""
    context = certificates.good.server_context(client_ca=certificates.ca_file)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    with OpenSslServer(context, deaf) as server:
        outcome = await meet(certificates, server.address)
    assert verdict(outcome) == "success"


async def test_what_a_server_says_with_its_verdict_can_still_be_read(certificates: Certificates) -> None:
    """A greeting may come before the session ticket does."""
    context = certificates.good.server_context(client_ca=certificates.ca_file)
    context.num_tickets = 0

    def greet(tls: ssl.SSLSocket) -> None:
        tls.send(b"220 ready")
        tls.recv(1)

    ours = options(ca_file=str(certificates.ca_file), **presenting(certificates, "client"))
    with OpenSslServer(context, greet) as server:
        recorder = Recorder()
        async with await connect(Address("127.0.0.1", server.port), recorder) as stream:
            await start_tls(stream, Contexts().get(ours), HOST, recorder)
            await confirm(stream, recorder)
            assert await stream.read(100) == b"220 ready"


# --- files ------------------------------------------------------------------------------------------------------------


def broken_file(directory: Path, how: str) -> Path:
    path = directory / f"{how}.pem"
    if how == "empty":
        path.write_text("")
    elif how == "garbage":
        path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    elif how == "directory":
        path.mkdir()
    return path


@pytest.mark.parametrize("how", ["missing", "empty", "garbage", "directory"])
async def test_trap_t16_authorities_that_cannot_be_read_are_a_clear_failure(
    certificates: Certificates, how: str, tmp_path: Path
) -> None:
    """A bad TLS configuration makes blackbox_exporter's unix prober panic."""
    path = broken_file(tmp_path, how)
    async with silent(tls=certificates.good.server_context()) as server:
        outcome = await meet(certificates, server.address, ca_file=str(path))
    assert verdict(outcome) == "tls/certificate_untrusted"
    assert detail(outcome).startswith(f"expected a usable certificate authorities file in PEM, {path}, got: ")
    assert Phase.TLS not in outcome.phases


@pytest.mark.parametrize("how", ["missing", "empty", "garbage", "directory", "other key", "encrypted key"])
async def test_trap_t16_a_client_certificate_that_cannot_be_read_is_a_clear_failure(
    certificates: Certificates, how: str, tmp_path: Path
) -> None:
    certificate, key = certificates.client.chain_file, certificates.client.key_file
    if how == "other key":
        key = certificates.client_expired.key_file
    elif how == "encrypted key":
        key = Path(encrypted(key, tmp_path))
    else:
        certificate = broken_file(tmp_path, how)
    async with silent(tls=certificates.good.server_context()) as server:
        outcome = await meet(certificates, server.address, certificate_file=str(certificate), key_file=str(key))
    assert verdict(outcome) == "tls/client_certificate_required"
    assert detail(outcome).startswith(
        f"expected a usable client certificate file in PEM, {certificate} and {key}, got: "
    )


def test_trap_t16_nobody_is_asked_for_the_password_of_a_key(certificates: Certificates, tmp_path: Path) -> None:
    """On a terminal OpenSSL asks for it, and the whole agent waits for an answer."""
    files = (str(certificates.client.chain_file), encrypted(certificates.client.key_file, tmp_path))
    load = (
        f"from pathlib import Path; from agent.net.tls import *; certificate, key = map(Path, {files!r}); "
        "context_of(TlsOptions(certificate_file=certificate, key_file=key))"
    )
    command = shlex.join([sys.executable, "-c", load])
    shown = subprocess.run(
        ["script", "--quiet", "--return", "--command", command, "/dev/null"],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=REPOSITORY,
        timeout=60,
    ).stdout
    assert "expected a usable client certificate file in PEM" in shown
    assert "pass phrase" not in shown


def encrypted(key_file: Path, directory: Path) -> str:
    """A private key behind a password: its path."""
    private = serialization.load_pem_private_key(key_file.read_bytes(), None)
    path = directory / "encrypted.key"
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"s3cret"),
        )
    )
    return str(path)


def options(**keys: Any) -> TlsOptions:
    return section(TlsOptions)(keys)


def test_a_context_is_built_once(certificates: Certificates) -> None:
    """Building one from the system's authorities costs 18 ms of CPU."""
    contexts = Contexts()
    assert contexts.get(options()) is contexts.get(options())
    mine = options(ca_file=str(certificates.ca_file))
    assert contexts.get(mine) is contexts.get(options(ca_file=str(certificates.ca_file)))
    assert contexts.get(mine) is not contexts.get(options())


@pytest.mark.parametrize("how", ["written again", "replaced", "linked elsewhere"])
def test_a_context_is_built_again_when_a_file_changes(tmp_path: Path, how: str) -> None:
    """As cert-manager, an editor, and a mounted Kubernetes secret change them."""
    first, second = Certificates(make(tmp_path / "1")), Certificates(make(tmp_path / "2"))
    file = tmp_path / "ca.pem"
    file.symlink_to(first.ca_file)
    contexts = Contexts()
    mine = options(ca_file=str(file))
    before = contexts.get(mine)
    if how == "written again":
        first.ca_file.write_bytes(second.ca_file.read_bytes() + b"\n")
    elif how == "replaced":
        os.replace(second.ca_file, first.ca_file)  # noqa: PTH105 - the system call that is meant
    else:
        (tmp_path / "new").symlink_to(second.ca_file)
        (tmp_path / "new").rename(file)
    after = contexts.get(mine)
    assert after is not before
    assert after.get_ca_certs() != before.get_ca_certs()
    assert contexts.get(mine) is after


def make(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_a_file_that_breaks_and_heals_is_noticed(tmp_path: Path) -> None:
    """No context outlives the file it was made from."""
    mine = Certificates(tmp_path)
    file = tmp_path / "mine.pem"
    contexts = Contexts()
    asked = options(ca_file=str(file))
    with pytest.raises(ProbeFailure, match="No such file or directory"):
        contexts.get(asked)
    file.write_bytes(mine.ca_file.read_bytes())
    assert contexts.get(asked) is contexts.get(asked)
    file.unlink()
    with pytest.raises(ProbeFailure, match="No such file or directory"):
        contexts.get(asked)


async def test_the_expiry_of_our_own_certificate_is_a_fact_even_where_nobody_asks_for_it(
    certificates: Certificates,
) -> None:
    soon = certificates.issue("client-soon", (), common_name="probe", client=True, ends=DAY)
    async with silent(tls=certificates.good.server_context()) as server:
        outcome = await meet(
            certificates, server.address, certificate_file=str(soon.chain_file), key_file=str(soon.key_file)
        )
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.CLIENT_CERTIFICATE_EXPIRES_AT] == soon.leaf.not_valid_after_utc.timestamp()
    assert Fact.CLIENT_CERTIFICATE_REQUESTED not in outcome.facts


def test_a_key_without_a_certificate_is_refused_at_load() -> None:
    with pytest.raises(Exception, match="expected certificate_file beside key_file, got nothing"):
        options(key_file="/key.pem")
