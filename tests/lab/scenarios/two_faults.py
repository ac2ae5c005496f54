"""Two independent faults at once: two verdicts, side by side, neither of which hides the other."""

from __future__ import annotations

from agent.diagnosis import Cause
from tests.lab.http_servers import response
from tests.lab.misbehaving import until_closed
from tests.lab.postgres import PASSWORD
from tests.lab.scenarios.base import ANY, Expected, Scenario
from tests.lab.scenarios.first_dags import BY_ADDRESS, the_database_moves
from tests.lab.world import Change, World, places


def another_password(world: World) -> Change:
    database = world.postgres("internal-database")
    database.psql("alter role probe password 'another'")
    return world.undo(lambda: database.psql(f"alter role probe password '{PASSWORD}'"))


def no_connection_left(world: World) -> Change:
    database = world.postgres("warehouse")
    database.psql("alter database app connection limit 0")
    return world.undo(lambda: database.psql("alter database app connection limit -1"))


def silent_after_connect(world: World) -> Change:
    world.stop("wiki")
    return world.serve("private", places.WIKI_IP, 80, lambda reader, writer: until_closed(reader))


def no_such_name(world: World, name: str) -> Change:
    return world.records({name: ()})


def both(*faults: object) -> None:
    """Do several things in one expression."""


SCENARIOS = (
    Scenario(
        name="egress-and-empty-service",
        title="A policy drops what goes to the internet; the database's Service is empty",
        break_=lambda world: both(world.drop(places.PUBLIC_NETWORKS), world.endpoints("internal-database")),
        expected=(
            Expected(Cause.EGRESS_BLOCKED, ("api", "shop", "hooks")),
            Expected(Cause.SERVICE_WITHOUT_ENDPOINTS, ("database",), ANY),
        ),
    ),
    Scenario(
        name="vpn-and-certificate",
        title="Everything behind the VPN is silent; one certificate has expired",
        break_=lambda world: both(
            world.drop(places.PRIVATE_NETWORK), world.site("api", certificate=world.expired_certificate("api"))
        ),
        expected=(
            Expected(Cause.PRIVATE_NETWORK_UNREACHABLE, ("warehouse", "wiki"), ANY),
            Expected(Cause.TLS_CERTIFICATE, ("api",)),
        ),
    ),
    Scenario(
        name="password-and-server-error",
        title="One database has a new password; one API answers 503",
        break_=lambda world: both(
            another_password(world), world.site("shop", reply=response("503 Service Unavailable", b"later"))
        ),
        expected=(
            Expected(Cause.CREDENTIALS_REJECTED, ("database",)),
            Expected(Cause.SERVER_ERROR, ("shop",)),
        ),
    ),
    Scenario(
        name="name-and-broker",
        title="One name is gone; the broker is stopped",
        break_=lambda world: both(no_such_name(world, "hooks.example.org"), world.stop("broker")),
        expected=(
            Expected(Cause.NAME_NOT_FOUND, ("hooks",), ANY),
            Expected(Cause.NOTHING_LISTENING, ("broker",)),
        ),
    ),
    Scenario(
        name="login-page-and-full-database",
        title="A login page stands before one API; one database has no connection left",
        break_=lambda world: both(
            world.site(
                "api", reply=response(body=b"<html>Please log in</html>", headers={"Content-Type": "text/html"})
            ),
            no_connection_left(world),
        ),
        expected=(
            Expected(Cause.WRONG_CONTENT, ("api",), ANY),
            Expected(Cause.DATABASE_FULL, ("warehouse",)),
        ),
    ),
    Scenario(
        name="one-silent-host-and-plain-text",
        title="One public host is silent; another one's port 443 speaks plain text",
        break_=lambda world: both(world.drop(places.HOOKS_IP), world.site("shop", tls=False)),
        expected=(
            Expected(Cause.TARGET_BLOCKED, ("hooks",), ANY),
            Expected(Cause.TLS_ON_PLAIN_TEXT_PORT, ("shop",)),
        ),
    ),
    Scenario(
        name="no-route-and-certificate-name",
        title="A router has no way to one public host; another one's certificate is for another name",
        break_=lambda world: both(
            world.add_route("node", "unreachable", places.HOOKS_IP),
            world.site("shop", certificate=world.certificate_for("other.example.com")),
        ),
        expected=(
            Expected(Cause.NO_ROUTE, ("hooks",), ANY),
            Expected(Cause.TLS_CERTIFICATE, ("shop",)),
        ),
    ),
    Scenario(
        name="open-metadata-and-missing-name",
        title="The metadata database can be reached and must not be; one name is gone",
        targets=("cluster-dns", "kubernetes-api", "database", "metadata", "wiki", "api", "shop"),
        break_=lambda world: both(
            world.endpoints("metadata", f"{places.DATABASE_IP_AFTER_MOVE}:5432"),
            no_such_name(world, "wiki.corp.internal"),
        ),
        expected=(
            Expected(Cause.POLICY_NOT_ENFORCED, ("metadata",)),
            Expected(Cause.NAME_NOT_FOUND, ("wiki",), ANY),
        ),
    ),
    Scenario(
        name="moved-address-and-slow-api",
        title="A pod that is addressed by number is replaced; one API takes a second for its answer",
        targets=("cluster-dns", "kubernetes-api", "database", BY_ADDRESS, "api", "shop", "hooks"),
        break_=lambda world: both(the_database_moves(world), world.site("shop", seconds=1.0)),
        expected=(
            Expected(Cause.HARDCODED_ADDRESS, ("database-by-address",), ANY),
            Expected(Cause.SLOW, ("shop",), ANY),
        ),
    ),
    Scenario(
        name="dead-address-and-forbidden",
        title="One of two addresses of a mirror is silent; the Kubernetes API forbids what it allowed",
        targets=("cluster-dns", "kubernetes-api", "database", "web", "api", "shop", "mirror"),
        break_=lambda world: both(
            world.drop(places.MIRROR_IPS[1]), world.site("kubernetes", reply=response("403 Forbidden", b"no"))
        ),
        expected=(
            Expected(Cause.ONE_ADDRESS_DEAD, ("mirror",), ANY),
            Expected(Cause.ACCESS_DENIED, ("kubernetes-api",)),
        ),
    ),
    Scenario(
        name="ipv6-and-stall",
        title="IPv6 packets get lost beyond the node; one server accepts connections and then says nothing",
        targets=("cluster-dns", "kubernetes-api", "database", "wiki", "warehouse", "api", "shop", "dual", "six"),
        break_=lambda world: both(world.drop("2001:db8:113::/48"), silent_after_connect(world)),
        expected=(
            Expected(Cause.IPV6_BROKEN, ("dual", "six"), ANY),
            Expected(Cause.STALLED_AFTER_CONNECT, ("wiki",), ANY),
        ),
    ),
    Scenario(
        name="stopped-workers-and-rejected-egress",
        title="The log servers of other workers are stopped; a policy rejects what goes to the internet",
        targets=("cluster-dns", "kubernetes-api", "database", "workers", "api", "shop", "hooks"),
        break_=lambda world: both(world.stop("workers"), world.reject(places.PUBLIC_NETWORKS)),
        expected=(
            Expected(Cause.NOTHING_LISTENING, ("workers",), ANY),
            Expected(Cause.EGRESS_BLOCKED, ("api", "shop", "hooks"), ANY),
        ),
    ),
)
