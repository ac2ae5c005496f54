"""TLS: certificates, who opens it on the way, versions, plain text on its ports, and wrong clocks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from email.utils import formatdate

from agent.diagnosis import Cause
from tests.lab.certificates import DAY
from tests.lab.http_servers import Received, response
from tests.lab.scenarios.base import HIGH, MEDIUM, NOT_HIGH, Expected, Scenario
from tests.lab.world import Change, World, target

_TLS = {"ca_file": "${CA_FILE}"}


def expired_intermediate(world: World) -> None:
    old = world.certificates.intermediate("an old intermediate", begins=-60 * DAY, ends=-DAY)
    world.site("api", certificate=world.certificate("api", issuer=old))


def missing_intermediate(world: World) -> None:
    signer = world.certificates.intermediate("an intermediate that stays at home")
    world.site("shop", certificate=world.certificate("shop", issuer=dataclasses.replace(signer, chain=())))


def wants_client_certificate(world: World) -> None:
    context = world.certificate("api").server_context(client_ca=world.certificates.ca_file)
    world.site("api", tls=context)


def firewall_opens_tls(world: World, *sites: str) -> None:
    """Each site shows a good copy of its certificate, signed by the firewall."""
    firewall = world.certificates.stranger("Corporate Firewall CA")
    for name in sites:
        world.site(name, certificate=world.certificate(name, issuer=firewall))


def openssl_in_place_of(world: World, name: str, *versions: str) -> Change:
    """OpenSSL's own server at a site's address: it says why it refuses a handshake, as every server but asyncio's."""
    (ip,) = world.sites[name].place.ips
    shown = world.certificate(name)
    world.stop(name)
    options = ("-cert", shown.chain_file, "-key", shown.key_file, "-cipher", "ALL:@SECLEVEL=0", "-www", "-quiet")
    return world.process("internet", "openssl", "s_server", "-accept", f"{ip}:443", *options, *versions, port=443)


def another_time(world: World, sites: tuple[str, ...], ahead_seconds: float, pages: Mapping[str, bytes]) -> None:
    """As seen from a node whose clock is wrong: it is so much later (or earlier) everywhere else."""

    def answer(received: Received) -> bytes:
        date = formatdate(time.time() + ahead_seconds, usegmt=True)
        return response(body=pages.get(received.target, b"hello"), headers={"Date": date})

    ahead = DAY * (ahead_seconds / DAY.total_seconds())
    for name in sites:
        site = world.sites[name]
        if site.place.names:
            world.site(name, certificate=world.certificate(name, begins=ahead - DAY / 2, ends=ahead + DAY / 2))
        world.site(name, reply=answer)


def insist_on_tls(world: World) -> None:
    database = world.postgres("internal-database")
    world.undo(database.hba)
    database.hba("hostssl all all 10.244.1.0/24 scram-sha-256")


HEALTH = {"/health": b'{"status": "ok"}'}
TWO_DAYS = 2 * DAY.total_seconds()
PLAIN_API = target("api", name="api-in-plain-text", url="http://api.example.com:443/health")
USUAL = ("cluster-dns", "kubernetes-api", "database", "web", "api", "shop", "hooks")

SCENARIOS = (
    Scenario(
        name="tls-certificate-expired",
        title="The certificate of a public API expires",
        targets=USUAL,
        break_=lambda world: world.site("shop", certificate=world.expired_certificate("shop")),
        expected=(Expected(Cause.TLS_CERTIFICATE, ("shop",), says=("expired 24 hours ago",)),),
        recovers=True,
    ),
    Scenario(
        name="tls-intermediate-expired",
        title="The intermediate certificate that a server sends expires",
        targets=USUAL,
        break_=expired_intermediate,
        expected=(Expected(Cause.TLS_CERTIFICATE, ("api",), says=("intermediate certificate",)),),
    ),
    Scenario(
        name="tls-intermediate-missing",
        title="A server does not send its intermediate certificate",
        targets=USUAL,
        break_=missing_intermediate,
        expected=(Expected(Cause.TLS_CERTIFICATE, ("shop",), MEDIUM, says=("an intermediate is missing",)),),
    ),
    Scenario(
        name="tls-self-signed-in-cluster",
        title="The Kubernetes API shows a certificate that signed itself",
        targets=USUAL,
        break_=lambda world: world.site("kubernetes", certificate=world.certificate("kubernetes", self_signed=True)),
        expected=(Expected(Cause.TLS_CERTIFICATE, ("kubernetes-api",), says=("signed itself",)),),
        recovers=True,
    ),
    Scenario(
        name="tls-wrong-name",
        title="A server shows the certificate of another virtual host",
        targets=USUAL,
        break_=lambda world: world.site("hooks", certificate=world.certificate_for("*.cdn.example.net")),
        expected=(Expected(Cause.TLS_CERTIFICATE, ("hooks",), says=("*.cdn.example.net",)),),
        recovers=True,
    ),
    Scenario(
        name="tls-client-certificate",
        title="A server begins to want a client certificate",
        targets=USUAL,
        break_=wants_client_certificate,
        expected=(Expected(Cause.TLS_CERTIFICATE, ("api",), says=("wants a client certificate",)),),
    ),
    Scenario(
        name="tls-interception",
        title="A firewall opens the TLS of all public names and signs by itself",
        targets=USUAL,
        break_=lambda world: firewall_opens_tls(world, "api", "shop", "hooks"),
        expected=(Expected(Cause.TLS_INTERCEPTION, ("api", "shop", "hooks"), HIGH, says=("Corporate Firewall CA",)),),
        recovers=True,
    ),
    Scenario(
        name="tls-interception-of-two",
        title="A firewall opens the TLS of two public names, a third is exempt",
        targets=USUAL,
        break_=lambda world: firewall_opens_tls(world, "api", "shop"),
        expected=(Expected(Cause.TLS_INTERCEPTION, ("api", "shop"), MEDIUM),),
    ),
    Scenario(
        name="tls-old-versions",
        title="A server speaks TLS 1.0 and 1.1 only",
        targets=USUAL,
        break_=lambda world: openssl_in_place_of(world, "hooks", "-no_tls1_3", "-no_tls1_2"),
        expected=(Expected(Cause.TLS_PROTOCOL, ("hooks",)),),
        recovers=True,
    ),
    Scenario(
        name="tls-no-common-version",
        title="A server loses TLS 1.3, which the target demands",
        targets=("cluster-dns", "kubernetes-api", "api", target("shop", tls={**_TLS, "min_version": "1.3"})),
        break_=lambda world: openssl_in_place_of(world, "shop", "-no_tls1_3"),
        expected=(Expected(Cause.TLS_PROTOCOL, ("shop",)),),
    ),
    Scenario(
        name="plain-text-on-tls-port",
        title="http:// is written where https:// is meant: port 443 hangs up",
        targets=("cluster-dns", "kubernetes-api", "api", PLAIN_API),
        from_start=True,
        expected=(Expected(Cause.PLAIN_TEXT_ON_TLS_PORT, ("api-in-plain-text",), NOT_HIGH),),
    ),
    Scenario(
        name="plain-text-on-tls-port-named",
        title="http:// is written where https:// is meant: the server says so",
        targets=("cluster-dns", "kubernetes-api", "api", target("web", url="http://web/")),
        break_=lambda world: world.site(
            "web", reply=response("400 Bad Request", b"Client sent an HTTP request to an HTTPS server.\n")
        ),
        expected=(Expected(Cause.PLAIN_TEXT_ON_TLS_PORT, ("web",)),),
    ),
    Scenario(
        name="plain-text-database",
        title="A database begins to insist on TLS",
        targets=("cluster-dns", "kubernetes-api", "database", "warehouse", "api"),
        break_=insist_on_tls,
        expected=(Expected(Cause.PLAIN_TEXT_ON_TLS_PORT, ("database",), MEDIUM, says=("sslmode",)),),
    ),
    Scenario(
        name="tls-on-plain-text-port",
        title="A site speaks plain text on port 443",
        targets=USUAL,
        break_=lambda world: world.site("shop", tls=False),
        expected=(Expected(Cause.TLS_ON_PLAIN_TEXT_PORT, ("shop",)),),
        recovers=True,
    ),
    Scenario(
        name="tls-on-plain-text-broker",
        title="TLS is configured for a broker that speaks plain text",
        targets=(
            "cluster-dns",
            "kubernetes-api",
            "api",
            {"name": "broker", "type": "tcp", "address": "broker:6379", "tls": {}},
        ),
        from_start=True,
        expected=(Expected(Cause.TLS_ON_PLAIN_TEXT_PORT, ("broker",), MEDIUM, says=("Redis",)),),
    ),
    Scenario(
        name="tls-on-plain-text-database",
        title="TLS is configured for the port of a Postgres server, which begins in plain text",
        targets=(
            "cluster-dns",
            "kubernetes-api",
            "api",
            {"name": "database", "type": "tcp", "address": "internal-database:5432", "tls": {}},
        ),
        from_start=True,
        expected=(Expected(Cause.TLS_ON_PLAIN_TEXT_PORT, ("database",), MEDIUM, says=("type postgres",)),),
    ),
    Scenario(
        name="clock-behind",
        title="The node's clock is two days behind: valid certificates look too new",
        targets=("cluster-dns", "kubernetes-api", "database", "api", "shop", "website"),
        break_=lambda world: another_time(world, ("api", "shop", "website"), TWO_DAYS, HEALTH),
        expected=(Expected(Cause.CLOCK_SKEW, ("api", "shop"), says=("behind",)),),
        recovers=True,
    ),
    Scenario(
        name="clock-ahead",
        title="The node's clock is two days ahead: valid certificates look expired",
        targets=("cluster-dns", "kubernetes-api", "database", "api", "shop", "website"),
        break_=lambda world: another_time(world, ("api", "shop", "website"), -TWO_DAYS, HEALTH),
        expected=(Expected(Cause.CLOCK_SKEW, ("api", "shop"), says=("ahead of",)),),
        recovers=True,
    ),
    Scenario(
        name="clock-of-one-server",
        title="One server is two days ahead, its certificate is of its own time",
        targets=("cluster-dns", "kubernetes-api", "database", "api", "shop"),
        break_=lambda world: another_time(world, ("shop",), TWO_DAYS, HEALTH),
        expected=(Expected(Cause.CLOCK_SKEW, ("shop",), MEDIUM, says=("one of the two clocks is wrong",)),),
    ),
    Scenario(
        name="clock-behind-unnoticed",
        title="The node's clock is ten minutes behind, and nothing fails for it yet",
        targets=("cluster-dns", "kubernetes-api", "database", "web", "wiki", "website"),
        break_=lambda world: another_time(world, ("web", "wiki", "website"), 600, HEALTH),
        expected=(Expected(Cause.CLOCK_SKEW, ("web", "wiki", "website"), MEDIUM, says=("10 minutes behind",)),),
    ),
)
