"""No result ever comes from a cache, a kept connection or a kept session.

A server that dies, a record that changes, a certificate that is replaced is seen by the very next run, for every type;
one prober makes all the runs of a test, as in the agent.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.model import Fact, Outcome
from agent.probers import PROBERS
from agent.runner import run
from tests.lab.certificates import Certificate, Certificates
from tests.lab.http_servers import HttpServer, response
from tests.lab.misbehaving import Server, echoing
from tests.lab.nameservers import Nameserver, Script, loopback_ip, resolv_conf, zone
from tests.lab.postgres import PASSWORD, Postgres, directory
from tests.lab.targets import target, verdict

NAME = "service.test"
DEAD = "connect/refused"
HERE, NOWHERE = "127.0.0.1", "127.0.0.2"
"""The service listens on one address of loopback; nobody listens on the other."""


@dataclass(frozen=True, slots=True)
class Lab:
    """What services of any type are made of."""

    certificates: Certificates
    ca_file: Path
    resolv_conf: str
    nameserver: Nameserver
    postgres: Callable[[], Postgres]

    @property
    def keys(self) -> dict[str, Any]:
        return {"tls": {"ca_file": str(self.ca_file)}, "resolv_conf": self.resolv_conf}

    def certificate(self, days: int) -> Certificate:
        """For NAME, and so many days from now until it expires."""
        return self.certificates.issue(f"service-{days}", (NAME,), ends=timedelta(days=days))


@dataclass(frozen=True, slots=True)
class Service:
    """A real server of one type, called NAME, and what can happen to it."""

    keys: Mapping[str, Any]
    stop: Callable[[], Awaitable[object]]
    start: Callable[[], Awaitable[object]]
    visits: Callable[[], int]
    """How many connections have been made to it so far; for a nameserver, how many queries."""
    dead: str
    """The verdict while it does not run."""
    install: Callable[[Certificate], Awaitable[object]] | None = None
    """Put another certificate in the place of the one it has; None where the type has no TLS."""
    resumed: list[bool] = field(default_factory=list)
    """Of each TLS handshake a server of ours made: whether it resumed an earlier session."""


@asynccontextmanager
async def dns(lab: Lab) -> AsyncIterator[Service]:
    yield Service(
        keys={"query": NAME, "resolv_conf": lab.resolv_conf},
        stop=lambda: lab.nameserver.__aexit__(None, None, None),
        start=lab.nameserver.__aenter__,
        visits=lambda: len(lab.nameserver.asked),
        dead="resolve/unreachable",
    )


@asynccontextmanager
async def tcp(lab: Lab) -> AsyncIterator[Service]:
    context = lab.certificate(20).server_context()
    async with echoing(tls=context) as server:
        keys = lab.keys | {"address": f"{NAME}:{server.port}", "dialogue": [{"send": "PING"}, {"expect": "PING"}]}
        yield in_process(server, context, keys)


@asynccontextmanager
async def http(lab: Lab) -> AsyncIterator[Service]:
    """Its answers may be cached for ever, its connections kept, and it hands out a cookie and a validator."""
    context = lab.certificate(20).server_context()
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "Connection": "keep-alive",
        "Keep-Alive": "timeout=600",
        "Set-Cookie": "session=1; Max-Age=31536000",
        "ETag": '"1"',
        "Strict-Transport-Security": "max-age=31536000",
    }
    async with HttpServer(response(body=b"ok", headers=headers), tls=context, close=False) as server:
        yield in_process(server, context, lab.keys | {"url": server.url(host=NAME)})
        assert server.requests
        for request in server.requests:
            assert not {"cookie", "if-none-match", "if-modified-since"} & set(request.headers)


def in_process(server: Server, context: ssl.SSLContext, keys: Mapping[str, Any]) -> Service:
    async def stop() -> None:
        await server.__aexit__(None, None, None)

    async def start() -> None:
        server._server = await asyncio.start_server(server._meet, server.host, server.port, ssl=context)

    async def install(certificate: Certificate) -> None:
        context.load_cert_chain(certificate.chain_file, certificate.key_file)

    resumed: list[bool] = []

    class Watched(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            resumed.append(bool(self.session_reused))

    context.sslobject_class = Watched
    return Service(keys, stop, start, lambda: server.connections, DEAD, install, resumed)


@asynccontextmanager
async def postgres(lab: Lab) -> AsyncIterator[Service]:
    server = lab.postgres()

    async def install(certificate: Certificate) -> None:
        server.install(certificate)
        server.reload()

    async def stop() -> None:
        server.stop()

    async def start() -> None:
        server.start()
        server.wait_until_ready()

    await install(lab.certificate(20))
    keys = lab.keys | {
        "dsn": f"postgresql://probe@{NAME}:{server.port}/app",
        "password": PASSWORD,
        "sslmode": "verify-full",
        "mode": "query",
    }
    yield Service(keys, stop, start, lambda: server.log.count(f"connection received: host={HERE}"), DEAD, install)
    await server.no_sessions()


SERVICES: Mapping[str, Callable[[Lab], AbstractAsyncContextManager[Service]]] = {
    "dns": dns,
    "http": http,
    "postgres": postgres,
    "tcp": tcp,
}


def test_every_type_is_shown_to_be_fresh() -> None:
    """A new type has a row here, or this fails."""
    assert set(SERVICES) == set(PROBERS)


@pytest.fixture(scope="module")
def mortal_postgres(certificates: Certificates) -> Iterator[Callable[[], Postgres]]:
    """A Postgres server that may be stopped; made when it is first needed."""
    with directory() as home:
        made: list[Postgres] = []

        def make() -> Postgres:
            if not made:
                made.append(Postgres.create(home, certificate=certificates.good))
                made[0].start()
                made[0].wait_until_ready()
            return made[0]

        yield make
        for server in made:
            server.stop()


@pytest.fixture
async def lab(
    certificates: Certificates, tmp_path: Path, mortal_postgres: Callable[[], Postgres]
) -> AsyncIterator[Lab]:
    ca_file = tmp_path / "ca.pem"
    shutil.copy(certificates.ca_file, ca_file)
    async with Nameserver(known_at(HERE), ip=loopback_ip(), port=53) as nameserver:
        yield Lab(certificates, ca_file, resolv_conf(tmp_path, nameserver), nameserver, mortal_postgres)


def known_at(ip: str) -> Script:
    """NAME has this address, for an hour."""
    return zone(f"{NAME}. 3600 A {ip}")


Probe = Callable[[], Awaitable[Outcome]]


@asynccontextmanager
async def under_test(kind: str, lab: Lab) -> AsyncIterator[tuple[Service, Probe]]:
    """A service, and the one prober that asks it again and again."""
    async with SERVICES[kind](lab) as service:
        prober = PROBERS[kind].prober()
        asked = target(kind, timeout_seconds=30, **service.keys)
        try:
            yield service, lambda: run(prober, asked)
        finally:
            await prober.aclose()


@pytest.mark.parametrize("kind", PROBERS)
async def test_every_run_asks_anew(kind: str, lab: Lab) -> None:
    """Each run looks the name up and makes one connection of its own, however often it is repeated."""
    async with under_test(kind, lab) as (service, probe):
        for _ in range(5):
            visits, lookups = service.visits(), len(lab.nameserver.asked)
            assert verdict(await probe()) == "success"
            assert service.visits() == visits + 1
            assert len(lab.nameserver.asked) > lookups


@pytest.mark.parametrize("kind", PROBERS)
async def test_a_server_that_dies_and_comes_back_is_seen_by_the_next_run(kind: str, lab: Lab) -> None:
    async with under_test(kind, lab) as (service, probe):
        for _ in range(2):
            assert verdict(await probe()) == "success"
            await service.stop()
            assert verdict(await probe()) == service.dead
            await service.start()
        assert verdict(await probe()) == "success"


@pytest.mark.parametrize("kind", PROBERS)
async def test_a_record_that_changes_is_seen_by_the_next_run(kind: str, lab: Lab) -> None:
    """Although its TTL is an hour; and a name that did not exist a moment ago is no more kept than one that did."""
    async with under_test(kind, lab) as (_, probe):
        for ip in (HERE, NOWHERE, HERE):
            lab.nameserver.script = known_at(ip)
            outcome = await probe()
            assert outcome.facts[Fact.DNS_ANSWERS if kind == "dns" else Fact.ADDRESSES] == [ip]
            assert verdict(outcome) == ("success" if kind == "dns" or ip == HERE else "connect/refused")
        lab.nameserver.script = zone("")
        assert verdict(await probe()) == "resolve/name_not_found"
        lab.nameserver.script = known_at(HERE)
        assert verdict(await probe()) == "success"


WITH_TLS = [kind for kind in PROBERS if kind != "dns"]


@pytest.mark.parametrize("kind", WITH_TLS)
async def test_a_certificate_that_is_replaced_is_seen_by_the_next_run(kind: str, lab: Lab) -> None:
    async with under_test(kind, lab) as (service, probe):
        assert service.install is not None
        for days in (20, 10, 30):
            certificate = lab.certificate(days)
            await service.install(certificate)
            outcome = await probe()
            assert verdict(outcome) == "success"
            assert outcome.facts[Fact.CERTIFICATE_EXPIRES_AT] == certificate.expires_at
        await service.install(lab.certificates.issue("service-expired", (NAME,), ends=timedelta(hours=-1)))
        assert verdict(await probe()) == "tls/certificate_expired"


@pytest.mark.parametrize("kind", WITH_TLS)
async def test_an_authority_that_is_replaced_is_seen_by_the_next_run(kind: str, lab: Lab) -> None:
    """Authorities rotate in their file, under a prober that keeps what it made of it."""
    async with under_test(kind, lab) as (_, probe):
        assert verdict(await probe()) == "success"
        shutil.copy(lab.certificates.other_ca_file, lab.ca_file)
        assert verdict(await probe()) == "tls/certificate_untrusted"
        shutil.copy(lab.certificates.ca_file, lab.ca_file)
        assert verdict(await probe()) == "success"


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_no_tls_session_is_resumed(kind: str, lab: Lab) -> None:
    """A resumed session would show neither the certificate of today nor what its handshake costs.

    Postgres servers keep no sessions.
    """
    async with under_test(kind, lab) as (service, probe):
        for _ in range(3):
            assert verdict(await probe()) == "success"
    assert service.resumed == [False, False, False]
