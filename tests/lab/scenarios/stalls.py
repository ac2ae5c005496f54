"""Connections that stand, and then silence."""

from __future__ import annotations

from agent.diagnosis import Cause
from tests.lab.misbehaving import until_closed
from tests.lab.scenarios.base import MEDIUM, Expected, Scenario
from tests.lab.world import Change, World, places, target

TARGETS = ("cluster-dns", "kubernetes-api", "database", "broker", "web", "api", "shop")
PAGE = target("api", name="page", url="https://api.example.com/large", expect={"status": ["2xx"]})


def broker_hangs(world: World) -> Change:
    listening = world.execute("cluster", "ss", "-Hlntp", "sport = :6379")
    pid = listening.rpartition("pid=")[2].partition(",")[0]
    world.execute("cluster", "kill", "-STOP", pid)
    return world.undo(lambda: world.execute("cluster", "kill", "-CONT", pid))


def silent(world: World) -> Change:
    world.stop("shop")
    return world.serve("internet", places.SHOP_IP, 443, lambda reader, writer: until_closed(reader))


SCENARIOS = (
    Scenario(
        name="mtu-large-page",
        title="Packets of more than 1000 bytes get lost on the way to an API: large pages stall, small ones do not",
        targets=("cluster-dns", "kubernetes-api", "web", "api", PAGE, "shop"),
        break_=lambda world: world.block_large_packets(places.API_IP),
        expected=(Expected(Cause.STALLED_AFTER_CONNECT, ("page",), says=("536 bytes", "path MTU")),),
        recovers=True,
    ),
    Scenario(
        name="mtu-handshakes",
        title="Packets of more than 600 bytes get lost on the way to the internet: TLS handshakes stall",
        targets=("cluster-dns", "kubernetes-api", "web", "api", "shop", "hooks"),
        break_=lambda world: world.block_large_packets(places.PUBLIC_NETWORKS, above=600),
        expected=(Expected(Cause.STALLED_AFTER_CONNECT, ("api", "shop", "hooks"), says=("536 bytes",)),),
        recovers=True,
    ),
    Scenario(
        name="silent-server",
        title="A server accepts connections and then says nothing",
        targets=TARGETS,
        break_=silent,
        expected=(Expected(Cause.STALLED_AFTER_CONNECT, ("shop",), MEDIUM, says=("path MTU is no suspect",)),),
        recovers=True,
    ),
    Scenario(
        name="broker-hangs",
        title="The broker hangs: its kernel accepts connections",
        targets=TARGETS,
        break_=broker_hangs,
        expected=(Expected(Cause.STALLED_AFTER_CONNECT, ("broker",), MEDIUM),),
        recovers=True,
    ),
    Scenario(
        name="too-slow-api",
        title="An API takes longer for its answers than it has",
        targets=TARGETS,
        break_=lambda world: world.site("api", seconds=30.0),
        expected=(Expected(Cause.STALLED_AFTER_CONNECT, ("api",), MEDIUM, says=("to the request",)),),
    ),
)
