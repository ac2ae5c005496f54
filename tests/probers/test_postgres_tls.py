"""postgres and TLS: what each sslmode makes of each certificate, with a real server."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from agent.model import Fact, Phase
from agent.probers.postgres import PostgresProber
from agent.runner import run
from tests.lab.certificates import Certificate, Certificates
from tests.lab.fake_postgres import error, message, speaking
from tests.lab.misbehaving import upgrading
from tests.lab.postgres import PASSWORD, Postgres, directory
from tests.lab.targets import probe, target, verdict

STATES = (
    "good",
    "expired",
    "not_yet_valid",
    "wrong_name",
    "dns_name_only",
    "unknown_issuer",
    "self_signed",
    "with_intermediate",
    "missing_intermediate",
    "expired_intermediate",
)

CHAIN = {
    "good": "success",
    "expired": "tls/certificate_expired",
    "not_yet_valid": "tls/certificate_not_yet_valid",
    "wrong_name": "success",
    "dns_name_only": "success",
    "unknown_issuer": "tls/certificate_untrusted",
    "self_signed": "tls/certificate_untrusted",
    "with_intermediate": "success",
    "missing_intermediate": "tls/certificate_untrusted",
    "expired_intermediate": "tls/certificate_expired",
}
"""What a client says that verifies the chain, by the state of the certificate; the server is asked for as 127.0.0.1."""
CHAIN_AND_NAME = CHAIN | {
    "wrong_name": "tls/certificate_name_mismatch",
    "dns_name_only": "tls/certificate_name_mismatch",
}
NOTHING = dict.fromkeys(CHAIN, "success")


@pytest.fixture(scope="module", params=STATES)
def shown(request: pytest.FixtureRequest, server: Postgres, certificates: Certificates) -> str:
    """A state of certificate, which the server shows from now on."""
    state: str = request.param
    server.install(getattr(certificates, state))
    server.reload()
    return state


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[Postgres]:
    with (
        directory() as home,
        Postgres.create(home, certificate=certificates.good) as server,
    ):
        yield server


@pytest.mark.parametrize("mode", ["handshake", "query"])
@pytest.mark.parametrize(
    "asked",
    [
        (None, False, NOTHING),
        ("prefer", True, CHAIN),
        ("require", False, NOTHING),
        ("require", True, CHAIN),
        ("verify-ca", True, CHAIN),
        ("verify-full", True, CHAIN_AND_NAME),
    ],
)
async def test_certificates(
    server: Postgres, certificates: Certificates, shown: str, mode: str, asked: tuple[str | None, bool, dict[str, str]]
) -> None:
    """As libpq has it: a CA file makes every mode verify the chain, and verify-full verifies the name as well.

    What the server showed is known in any case.
    """
    sslmode, with_ca, expected = asked
    keys: dict[str, Any] = {"dsn": f"postgresql://probe@127.0.0.1:{server.port}/app", "mode": mode}
    if sslmode is not None:
        keys["sslmode"] = sslmode
    if with_ca:
        keys["tls"] = {"ca_file": str(certificates.ca_file)}
    if mode == "query":
        keys["password"] = PASSWORD
    outcome = await probe("postgres", **keys)
    assert verdict(outcome) == expected[shown]
    certificate: Certificate = getattr(certificates, shown)
    assert outcome.facts[Fact.CERTIFICATE_EXPIRES_AT] == certificate.expires_at
    assert len(outcome.facts[Fact.CERTIFICATE_CHAIN]) == len(certificate.sent)
    verified = outcome.facts.get(Fact.CERTIFICATE_VERIFIED)
    assert verified is (None if expected is NOTHING else outcome.success)


async def test_a_name_is_verified_by_its_host_or_by_the_name_that_is_configured(
    postgres: Postgres, certificates: Certificates
) -> None:
    files = {"ca_file": str(certificates.ca_file)}
    address = f"postgresql://probe@127.0.0.1:{postgres.port}/app?sslmode=verify-full"
    for tls, expected in (
        (files, "success"),
        (files | {"server_name": "localhost"}, "success"),
        (files | {"server_name": "db.example.test"}, "tls/certificate_name_mismatch"),
    ):
        assert verdict(await probe("postgres", dsn=address, tls=tls)) == expected


async def test_targets_of_one_prober_do_not_share_what_is_verified(
    postgres: Postgres, certificates: Certificates
) -> None:
    """Contexts are kept: one for verify-ca and one for verify-full, though their options are equal."""
    tls = {"ca_file": str(certificates.ca_file), "server_name": "db.example.test"}
    address = f"postgresql://probe@127.0.0.1:{postgres.port}/app"
    prober = PostgresProber()
    chain = target("postgres", dsn=address, sslmode="verify-ca", tls=tls)
    full = target("postgres", dsn=address, sslmode="verify-full", tls=tls)
    for asked, expected in ((chain, "success"), (full, "tls/certificate_name_mismatch")) * 2:
        assert verdict(await run(prober, asked)) == expected
    await prober.aclose()


@pytest.mark.parametrize("place", ["tls", "dsn"])
async def test_a_client_certificate_is_a_way_in(postgres: Postgres, certificates: Certificates, place: str) -> None:
    client = certificates.client
    address = f"postgresql://certified@127.0.0.1:{postgres.port}/app"
    keys: dict[str, Any] = {"mode": "query", "query": "select current_user", "expect": {"value": "certified"}}
    if place == "tls":
        keys |= {
            "dsn": address,
            "tls": {"certificate_file": str(client.chain_file), "key_file": str(client.key_file)},
        }
    else:
        keys["dsn"] = f"{address}?sslcert={client.chain_file}&sslkey={client.key_file}"
    outcome = await probe("postgres", **keys)
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.CLIENT_CERTIFICATE_EXPIRES_AT] == client.expires_at


@pytest.mark.parametrize("mode", ["handshake", "query"])
@pytest.mark.parametrize("state", ["client_expired", "client_of_other_ca"])
async def test_a_client_certificate_that_the_server_does_not_take(
    postgres: Postgres, certificates: Certificates, mode: str, state: str
) -> None:
    """With TLS 1.3 the server says so after the handshake, in the midst of the login; the phase is tls all the same."""
    client: Certificate = getattr(certificates, state)
    outcome = await probe(
        "postgres",
        dsn=f"postgresql://certified@127.0.0.1:{postgres.port}/app",
        mode=mode,
        tls={"certificate_file": str(client.chain_file), "key_file": str(client.key_file)},
    )
    assert verdict(outcome) == "tls/client_certificate_required"


@pytest.mark.parametrize("mode", ["handshake", "query"])
@pytest.mark.parametrize("newest", ["TLSv1_2", "TLSv1_3"])
async def test_a_client_certificate_that_is_missing_at_a_proxy_that_insists(
    certificates: Certificates, mode: str, newest: str
) -> None:
    """Postgres itself asks later, in words; a proxy in front of it may end the handshake."""
    context = certificates.good.server_context(client_ca=certificates.ca_file, maximum=ssl.TLSVersion[newest])
    async with upgrading(context) as proxy:
        outcome = await probe("postgres", dsn=f"postgresql://probe@{proxy.address}/app", mode=mode)
    assert verdict(outcome) == "tls/client_certificate_required"


async def test_files_that_are_missing_are_no_defect_of_ours(postgres: Postgres) -> None:
    outcome = await probe(
        "postgres", dsn=f"postgresql://probe@127.0.0.1:{postgres.port}/app?sslrootcert=/nowhere/ca.pem"
    )
    assert verdict(outcome) == "tls/certificate_untrusted"
    assert "/nowhere/ca.pem" in str(outcome.failure and outcome.failure.detail)


# --- a server that offers no TLS ---


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
@pytest.mark.parametrize("mode", ["handshake", "login"])
async def test_tls_that_is_required_and_not_offered(certificates: Certificates, mode: str, sslmode: str) -> None:
    async with speaking() as server:
        outcome = await probe(
            "postgres",
            dsn=f"postgresql://probe@{server.address}/app",
            mode=mode,
            sslmode=sslmode,
            tls={"ca_file": str(certificates.ca_file)},
        )
    assert verdict(outcome) == "login/tls_unsupported"
    assert outcome.facts[Fact.TLS_DECLINED] is True


async def test_tls_that_is_preferred_and_not_offered_is_done_without_and_shown() -> None:
    async with speaking(message("R", b"\0\0\0\3")) as server:
        outcome = await probe("postgres", dsn=f"postgresql://probe@{server.address}/app")
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.TLS_DECLINED] is True
    assert Phase.TLS not in outcome.phases


async def test_a_server_without_tls_does_not_mean_encryption_when_it_says_so() -> None:
    """Its words name the state of the connection, not the remedy: it cannot be had there."""
    refusal = error("28000", 'no pg_hba.conf entry for host "10.1.2.3", user "probe", database "app", no encryption')
    async with speaking(refusal) as server:
        outcome = await probe("postgres", dsn=f"postgresql://probe@{server.address}/app")
    assert verdict(outcome) == "login/access_denied"


async def test_tls_that_fails_is_not_tried_without(certificates: Certificates) -> None:
    """As libpq would, with sslmode prefer: and what was to be found out would be hidden."""
    context = certificates.expired.server_context()
    async with speaking(ssl_answer=b"S", tls=context) as server:
        outcome = await probe(
            "postgres",
            dsn=f"postgresql://probe@{server.address}/app",
            sslmode="prefer",
            tls={"ca_file": str(certificates.ca_file)},
        )
        assert verdict(outcome) == "tls/certificate_expired"
        assert server.connections == 1


async def test_a_proxy_that_is_silent_after_it_promised_tls() -> None:
    async with upgrading(None) as server:
        outcome = await probe("postgres", dsn=f"postgresql://probe@{server.address}/app", timeout_seconds=0.3)
    assert verdict(outcome) == "tls/timeout"
    assert outcome.phases[Phase.TLS] == max(outcome.phases.values())
