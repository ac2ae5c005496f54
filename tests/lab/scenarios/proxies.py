"""squid is the only way to the internet: it cannot be reached, forbids, wants credentials, or is stuck itself."""

from __future__ import annotations

import shutil

from agent.diagnosis import Cause
from tests.lab.scenarios.base import MEDIUM, Expected, Scenario
from tests.lab.world import Change, World, places
from tests.lab.world.forward_proxy import PROXY_IP, PROXY_PORT, PROXY_URL, squid

NAMED = f"http://proxy.corp.internal:{PROXY_PORT}"
TARGETS = ("cluster-dns", "kubernetes-api", "database", "wiki", "api", "shop", "hooks", "website")
BEHIND = ("api", "shop", "hooks", "website")
"""What can only be reached through it."""


def through(proxy: str) -> dict[str, str]:
    """As a container's environment names it."""
    bypassed = ".svc,.cluster.local,wiki.corp.internal,warehouse.corp.internal"
    return {"HTTP_PROXY": proxy, "http_proxy": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": bypassed}


def only_way(world: World, *rules: str) -> None:
    squid(world, rules)
    world.drop(places.PUBLIC_NETWORKS)


def named(world: World) -> None:
    world.records({"proxy.corp.internal": [PROXY_IP]})
    only_way(world)


def stopped(world: World) -> None:
    listening = world.execute("cluster", "ss", "-Hlntp", f"src {PROXY_IP} and sport = :{PROXY_PORT}")
    world.execute("cluster", "kill", "-KILL", listening.rpartition("pid=")[2].partition(",")[0])


def wants_password(world: World) -> None:
    users = world.directory / "proxy-users"
    digest = world.execute("cluster", "openssl", "passwd", "-apr1", "secret").strip()
    users.write_text(f"probe:{digest}\n")
    shutil.chown(users, "proxy")
    only_way(
        world,
        f"auth_param basic program /usr/lib/squid/basic_ncsa_auth {users}",
        "auth_param basic children 1 startup=1 idle=1",
        "acl known proxy_auth REQUIRED",
        "http_access deny !known",
    )


def no_way_out(world: World) -> Change:
    """The proxy's own network loses its way to the internet."""
    return world.add_route("cluster", "unreachable", "203.0.113.0/24")


SCENARIOS = (
    Scenario(
        name="proxy-stopped",
        title="The only way out is an HTTP proxy, and it is killed",
        targets=TARGETS,
        prepare=only_way,
        environment=through(PROXY_URL),
        break_=stopped,
        expected=(Expected(Cause.PROXY_UNREACHABLE, BEHIND, says=("refuses connections",)),),
    ),
    Scenario(
        name="proxy-dropped",
        title="A policy drops what goes to the HTTP proxy",
        targets=TARGETS,
        prepare=only_way,
        environment=through(PROXY_URL),
        break_=lambda world: world.drop(PROXY_IP),
        expected=(Expected(Cause.PROXY_UNREACHABLE, BEHIND, says=("does not answer",)),),
        recovers=True,
    ),
    Scenario(
        name="proxy-name-gone",
        title="The HTTP proxy's name is gone",
        targets=TARGETS,
        prepare=named,
        environment=through(NAMED),
        break_=lambda world: world.records({"proxy.corp.internal": ()}),
        expected=(Expected(Cause.PROXY_UNREACHABLE, BEHIND, says=("no nameserver knows",)),),
        recovers=True,
    ),
    Scenario(
        name="proxy-denies",
        title="The HTTP proxy forbids two of the names",
        targets=TARGETS,
        prepare=lambda world: only_way(
            world, "acl forbidden dstdomain api.example.com www.example.com", "http_access deny forbidden"
        ),
        environment=through(PROXY_URL),
        from_start=True,
        expected=(Expected(Cause.PROXY_DENIED, ("api", "website"), says=("ERR_ACCESS_DENIED",)),),
    ),
    Scenario(
        name="proxy-wants-credentials",
        title="The HTTP proxy wants credentials, and its URL has none",
        targets=TARGETS,
        prepare=wants_password,
        environment=through(PROXY_URL),
        from_start=True,
        expected=(Expected(Cause.PROXY_AUTH, BEHIND),),
    ),
    Scenario(
        name="proxy-takes-credentials",
        title="Nothing: the HTTP proxy wants credentials, and has them",
        targets=TARGETS,
        prepare=wants_password,
        environment=through(PROXY_URL.replace("://", "://probe:secret@")),
        from_start=True,
    ),
    Scenario(
        name="proxy-target-stopped",
        title="Behind the HTTP proxy, one server is stopped",
        targets=TARGETS,
        prepare=only_way,
        environment=through(PROXY_URL),
        break_=lambda world: world.stop("shop"),
        expected=(Expected(Cause.NOTHING_LISTENING, ("shop",), MEDIUM, says=("says that shop.example.net",)),),
        recovers=True,
    ),
    Scenario(
        name="proxy-without-way-out",
        title="The HTTP proxy's own network has no way to what lies beyond it",
        targets=("cluster-dns", "kubernetes-api", "database", "wiki", "api", "shop"),
        prepare=only_way,
        environment=through(PROXY_URL),
        break_=no_way_out,
        expected=(Expected(Cause.EGRESS_BLOCKED, ("api", "shop"), MEDIUM, says=("its own way out",)),),
        recovers=True,
    ),
)
