"""What comes and goes, what is slow, what was not ready; and netprobe's own troubles."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from agent.diagnosis import Cause
from tests.lab.scenarios.base import ANY, Expected, Scenario
from tests.lab.world import World, places, target


def repeatedly(world: World, work: Callable[[], None]) -> None:
    """Do something again and again beside the scenario, until the world heals; it is done in the end."""
    ending = threading.Event()

    def loop() -> None:
        while not ending.is_set():
            work()

    thread = threading.Thread(target=loop, name="repeatedly")

    def end() -> None:
        ending.set()
        thread.join()

    world.undo(end)
    thread.start()


def come_and_go(world: World, ip: str, seconds: float) -> None:
    """An address is silent for a while, and there for as long, by turns."""

    def once() -> None:
        change = world.drop(ip)
        time.sleep(seconds)
        change.undo()
        time.sleep(seconds)

    repeatedly(world, once)


def keep_off_the_cpu(world: World) -> None:
    """The agent runs for a few milliseconds at a time, as under a CPU limit that is far too low."""
    pid = world.agent.pid

    def once() -> None:
        try:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(1.0)
        finally:
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.015)

    repeatedly(world, once)


def nothing_goes_out(world: World) -> None:
    """As before the CNI has programmed the policies of a new pod."""
    world.execute(
        "node",
        "nft",
        "-f",
        "-",
        stdin="table inet late {\n"
        "  chain forward {\n"
        "    type filter hook forward priority filter\n"
        '    iifname "pod" drop\n'
        "  }\n"
        "}\n",
    )
    world.undo(lambda: world.execute("node", "nft", "-f", "-", stdin=_LET_OUT))


_LET_OUT = "add table inet late\ndelete table inet late\n"


def let_out_later(world: World) -> None:
    time.sleep(5.0)
    world.execute("node", "nft", "-f", "-", stdin=_LET_OUT)


TOKEN = "token"


def write_token(world: World) -> None:
    (world.directory / TOKEN).write_text("s3cret")


def lose_token(world: World) -> None:
    (world.directory / TOKEN).unlink()


SCENARIOS = (
    Scenario(
        name="packet-loss",
        title="A fifth of the packets to the internet gets lost",
        targets=("cluster-dns", "kubernetes-api", "database", "api", "shop", "hooks"),
        settings={"defaults": {"timeout": "2s"}},
        break_=lambda world: world.lose(20, places.PUBLIC_NETWORKS),
        expected=(Expected(Cause.PACKET_LOSS, ("api", "shop", "hooks"), ANY, says=("sent again",)),),
        patience_seconds=60.0,
    ),
    Scenario(
        name="flapping",
        title="A public host is silent for 3 s and there for 3 s, by turns",
        targets=("cluster-dns", "kubernetes-api", "database", "api", "shop", "hooks"),
        break_=lambda world: come_and_go(world, places.HOOKS_IP, 3.0),
        expected=(Expected(Cause.FLAPPING, ("hooks",), ANY, says=("by turns",)),),
        patience_seconds=60.0,
    ),
    Scenario(
        name="slow",
        title="A site takes 1 s of the 1.5 s it has",
        break_=lambda world: world.site("shop", seconds=1.0),
        expected=(Expected(Cause.SLOW, ("shop",), says=("most of it in request",)),),
        recovers=True,
    ),
    Scenario(
        name="slow-link",
        title="The internet is 400 ms away, one way: each exchange takes its time",
        targets=("cluster-dns", "kubernetes-api", "database", "api", "shop"),
        settings={"defaults": {"timeout": "2s"}},
        break_=lambda world: world.slow_link(places.PUBLIC_NETWORKS[:2], 0.4),
        expected=(Expected(Cause.SLOW, ("api", "shop")),),
    ),
    Scenario(
        name="network-not-ready",
        title="The pod's network is programmed 5 s after its start",
        prepare=nothing_goes_out,
        break_=let_out_later,
        from_start=True,
        expected=(
            Expected(
                Cause.NETWORK_NOT_READY,
                (
                    *("cluster-dns", "kubernetes-api", "database", "broker", "web"),
                    *("warehouse", "wiki", "api", "shop", "hooks"),
                ),
                says=("all is well since",),
            ),
        ),
    ),
    Scenario(
        name="prober-starved",
        title="The agent is kept off the CPU for a second again and again",
        targets=("kubernetes-api", "database", "api", "shop"),
        break_=keep_off_the_cpu,
        expected=(
            Expected(
                Cause.PROBER_STARVED, ("kubernetes-api", "database", "api", "shop"), ANY, says=("say little about the",)
            ),
        ),
        patience_seconds=90.0,
    ),
    Scenario(
        name="probe-misconfigured",
        title="A file that holds a target's token is deleted",
        targets=("cluster-dns", "kubernetes-api", target("api", bearer_token_file=TOKEN), "shop"),
        prepare=write_token,
        break_=lose_token,
        expected=(Expected(Cause.PROBE_MISCONFIGURED, ("api",), says=("bearer_token_file",)),),
    ),
)
