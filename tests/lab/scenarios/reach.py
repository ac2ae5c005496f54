"""What cannot be reached: everything, a part of the network, one host, one port, one address."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.diagnosis import Cause
from tests.lab.scenarios.base import ANY, NOT_HIGH, Expected, Scenario
from tests.lab.world import World, places, target

OUTSIDE = ("api", "shop", "hooks")
IN_CLUSTER = ("kubernetes-api", "database", "broker", "web")
EVERYTHING = ("cluster-dns", *IN_CLUSTER, "warehouse", "wiki", *OUTSIDE)


def only_names(world: World) -> None:
    """The usual first policy: egress to the nameservers, and nothing else."""
    world.drop(places.EVERYWHERE, protocol="tcp")


def gateway_leaves(world: World) -> None:
    """The pod's gateway answers no more who asks for it on the link."""
    switch = "/proc/sys/net/ipv4/conf/pod/arp_ignore"
    world.execute("node", "sh", "-c", f"echo 8 >{switch}")

    def forget() -> None:
        world.execute("pod", "ip", "neighbour", "flush", "dev", "eth0")

    def come_back() -> None:
        world.execute("node", "sh", "-c", f"echo 0 >{switch}")
        forget()

    world.undo(come_back)
    forget()


def no_port_left(world: World) -> None:
    """Something in the pod takes every connection to one server that it can get, and lets none of them go."""
    port_range = "/proc/sys/net/ipv4/ip_local_port_range"
    before = world.execute("pod", "cat", port_range).strip()
    world.execute("pod", "sh", "-c", f"echo 40000 40031 >{port_range}")
    world.undo(lambda: world.execute("pod", "sh", "-c", f"echo {before} >{port_range}"))
    world.run("pod", hoarding)


@asynccontextmanager
async def hoarding() -> AsyncIterator[None]:
    held: list[asyncio.StreamWriter] = []

    async def hoard() -> None:
        while True:
            try:
                held.append((await asyncio.open_connection(places.SHOP_IP, 443))[1])
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                await asyncio.sleep(0.02)  # until the agent lets one go

    task = asyncio.create_task(hoard())
    try:
        yield
    finally:
        task.cancel()
        for writer in held:
            writer.transport.abort()


SCENARIOS = (
    # --- everything ---
    Scenario(
        name="network-down-by-policy",
        title="A policy denies all egress",
        break_=lambda world: world.drop(places.EVERYWHERE),
        expected=(Expected(Cause.NETWORK_DOWN, EVERYTHING, says=("consistent with a policy that denies all egress",)),),
        recovers=True,
    ),
    Scenario(
        name="network-down-without-gateway",
        title="The pod's gateway has gone from the link",
        break_=gateway_leaves,
        expected=(Expected(Cause.NETWORK_DOWN, EVERYTHING, says=("does not answer on the link",)),),
    ),
    Scenario(
        name="network-down-without-route",
        title="The pod has lost its default route",
        break_=lambda world: world.remove_route("pod", "default"),
        expected=(Expected(Cause.NETWORK_DOWN, EVERYTHING, says=("no default route",)),),
    ),
    Scenario(
        name="egress-but-names",
        title="A policy allows DNS and denies all other egress",
        break_=only_names,
        expected=(
            Expected(
                Cause.EGRESS_BLOCKED,
                (*IN_CLUSTER, "warehouse", "wiki", *OUTSIDE),
                says=("allows DNS and nothing more",),
            ),
        ),
    ),
    # --- the internet ---
    Scenario(
        name="egress-dropped",
        title="A policy drops what goes to the internet",
        break_=lambda world: world.drop(places.PUBLIC_NETWORKS),
        expected=(Expected(Cause.EGRESS_BLOCKED, OUTSIDE, says=("consistent with",)),),
        recovers=True,
    ),
    Scenario(
        name="egress-rejected",
        title="A firewall rejects what goes to the internet, by ICMP",
        break_=lambda world: world.reject(places.PUBLIC_NETWORKS, how="admin-prohibited"),
        expected=(Expected(Cause.EGRESS_BLOCKED, OUTSIDE, says=("prohibited",)),),
    ),
    Scenario(
        name="egress-reset",
        title="A firewall answers for the whole internet with resets",
        break_=lambda world: world.reject(places.PUBLIC_NETWORKS, protocol="tcp", how="tcp-reset"),
        expected=(Expected(Cause.EGRESS_BLOCKED, OUTSIDE, NOT_HIGH),),
    ),
    Scenario(
        name="egress-one-target",
        title="A policy drops what goes to the internet, where one target only is public",
        targets=("cluster-dns", "kubernetes-api", "database", "api"),
        break_=lambda world: world.drop(places.PUBLIC_NETWORKS),
        expected=(Expected(Cause.EGRESS_BLOCKED, ("api",), NOT_HIGH, says=("this one host being down",)),),
    ),
    # --- the cluster ---
    Scenario(
        name="cluster-dropped",
        title="A policy allows DNS and the internet, and drops what goes to the cluster",
        break_=lambda world: world.drop(places.CLUSTER, protocol="tcp"),
        expected=(Expected(Cause.CLUSTER_BLOCKED, IN_CLUSTER, says=("consistent with",)),),
        recovers=True,
    ),
    Scenario(
        name="cluster-dropped-but-api",
        title="A policy allows DNS, the Kubernetes API and the internet, and drops the rest of the cluster",
        targets=("cluster-dns", "database", "broker", "web", "api", "shop"),
        break_=lambda world: world.drop(("10.96.1.0/24", "10.244.2.30/31", "10.244.2.40/29", "10.244.2.48/28")),
        expected=(Expected(Cause.CLUSTER_BLOCKED, ("database", "broker", "web"), NOT_HIGH),),
    ),
    # --- a private network ---
    Scenario(
        name="private-dropped",
        title="The VPN's router drops what goes into the private network",
        break_=lambda world: world.drop(places.PRIVATE_NETWORK),
        expected=(Expected(Cause.PRIVATE_NETWORK_UNREACHABLE, ("warehouse", "wiki"), says=("10.50.0.0/16",)),),
        recovers=True,
    ),
    Scenario(
        name="private-without-route",
        title="The node has lost its route into the private network",
        break_=lambda world: world.add_route("node", "unreachable", "10.50.0.0/24"),
        expected=(Expected(Cause.PRIVATE_NETWORK_UNREACHABLE, ("warehouse", "wiki"), says=("a router says",)),),
    ),
    Scenario(
        name="private-one-target",
        title="The VPN drops everything, where one target only lies behind it",
        targets=("cluster-dns", "kubernetes-api", "warehouse", "api", "shop"),
        break_=lambda world: world.drop(places.PRIVATE_NETWORK),
        expected=(
            Expected(Cause.PRIVATE_NETWORK_UNREACHABLE, ("warehouse",), NOT_HIGH, says=("this one host is down",)),
        ),
    ),
    # --- one host ---
    Scenario(
        name="target-dropped",
        title="A policy drops what goes to one of three public hosts",
        break_=lambda world: world.drop(places.HOOKS_IP),
        expected=(Expected(Cause.TARGET_BLOCKED, ("hooks",), NOT_HIGH, says=("consistent with", "host being down")),),
        recovers=True,
    ),
    Scenario(
        name="target-rejected",
        title="A firewall rejects what goes to one of three public hosts",
        break_=lambda world: world.reject(places.HOOKS_IP),
        expected=(Expected(Cause.TARGET_BLOCKED, ("hooks",), says=("prohibited", "consistent with")),),
    ),
    Scenario(
        name="target-in-cluster-dropped",
        title="A policy of the database's namespace drops what comes from this pod",
        break_=lambda world: world.drop(places.DATABASE_IP),
        expected=(Expected(Cause.TARGET_BLOCKED, ("database",), NOT_HIGH, says=("consistent with",)),),
    ),
    Scenario(
        name="no-route-at-router",
        title="A router on the way has no route to one host, and says so",
        break_=lambda world: world.add_route("node", "unreachable", places.HOOKS_IP),
        expected=(Expected(Cause.NO_ROUTE, ("hooks",), ANY),),
    ),
    Scenario(
        name="no-route-in-pod",
        title="The pod's own routing table forbids one host",
        break_=lambda world: world.add_route("pod", "unreachable", places.HOOKS_IP),
        expected=(Expected(Cause.NO_ROUTE, ("hooks",), says=("This pod has no route",)),),
        recovers=True,
    ),
    Scenario(
        name="no-port-left",
        title="The pod holds all the connections to one host that its local ports allow",
        break_=no_port_left,
        expected=(Expected(Cause.UNKNOWN, ("shop",), ANY, says=("Cannot assign requested address",)),),
    ),
    Scenario(
        name="address-written-down",
        title="A database behind the VPN is addressed by number, and its host has moved",
        targets=(
            "cluster-dns",
            "kubernetes-api",
            "wiki",
            "api",
            target("warehouse", name="by-address", dsn="postgresql://probe@10.50.0.99:5432/app"),
        ),
        from_start=True,
        expected=(Expected(Cause.HARDCODED_ADDRESS, ("by-address",), NOT_HIGH, says=("10.50.0.99:5432", "Service")),),
    ),
    # --- one port ---
    Scenario(
        name="service-without-endpoints",
        title="A Service has no ready pod behind it",
        break_=lambda world: world.endpoints("web"),
        expected=(Expected(Cause.SERVICE_WITHOUT_ENDPOINTS, ("web",), NOT_HIGH, says=("endpointslices",)),),
        recovers=True,
    ),
    Scenario(
        name="nothing-listening",
        title="A server is stopped, its host is up",
        break_=lambda world: world.stop("broker"),
        expected=(Expected(Cause.NOTHING_LISTENING, ("broker",), says=("RST",)),),
        recovers=True,
    ),
    Scenario(
        name="nothing-listening-in-public",
        title="A public server is stopped, its host is up",
        break_=lambda world: world.stop("hooks"),
        expected=(Expected(Cause.NOTHING_LISTENING, ("hooks",), NOT_HIGH, says=("RST", "or a firewall")),),
    ),
    Scenario(
        name="wrong-port",
        title="A database is asked on port 5433, and listens on 5432",
        targets=(
            "cluster-dns",
            "kubernetes-api",
            "wiki",
            "api",
            target("warehouse", dsn="postgresql://probe@warehouse.corp.internal:5433/app"),
        ),
        from_start=True,
        expected=(Expected(Cause.WRONG_PORT, ("warehouse",), NOT_HIGH, says=("5432",)),),
    ),
    Scenario(
        name="wrong-port-of-service",
        title="A Service is asked on a port it does not declare",
        targets=("cluster-dns", "kubernetes-api", "database", "api", target("web", url="http://web:8080/")),
        from_start=True,
        expected=(Expected(Cause.WRONG_PORT, ("web",), NOT_HIGH, says=("80",)),),
    ),
    # --- one address ---
    Scenario(
        name="one-address-dead",
        title="One of two addresses of a name is silent",
        targets=("cluster-dns", "kubernetes-api", "database", "api", "mirror"),
        break_=lambda world: world.drop(places.MIRROR_IPS[0]),
        expected=(Expected(Cause.ONE_ADDRESS_DEAD, ("mirror",), says=(places.MIRROR_IPS[0],)),),
        recovers=True,
    ),
    Scenario(
        name="one-address-dead-first-only",
        title="One of two addresses of a name is stopped, and targets take the first they get",
        targets=("cluster-dns", "kubernetes-api", "database", "api", target("mirror", addresses="first")),
        break_=lambda world: world.site("mirror", ip=places.MIRROR_IPS[0], port=8443),
        expected=(Expected(Cause.ONE_ADDRESS_DEAD, ("mirror",), says=(places.MIRROR_IPS[1],)),),
    ),
    Scenario(
        name="ipv6-dropped",
        title="IPv6 packets get lost beyond the node",
        targets=("cluster-dns", "kubernetes-api", "database", "api", "dual", "six"),
        break_=lambda world: world.drop("2001:db8:113::/48"),
        expected=(Expected(Cause.IPV6_BROKEN, ("dual", "six"), says=("IPv4 answers",)),),
        recovers=True,
    ),
    Scenario(
        name="ipv6-missing",
        title="The pod has no IPv6, and a target insists on it",
        targets=("cluster-dns", "kubernetes-api", "database", "api", "dual", "six"),
        prepare=World.pod_without_ipv6,
        from_start=True,
        expected=(Expected(Cause.IPV6_BROKEN, ("dual", "six"), says=("no IPv6 address",)),),
    ),
    # --- must not be reachable ---
    Scenario(
        name="policy-not-enforced",
        title="A policy that keeps the pod from the metadata database is gone",
        targets=("cluster-dns", "kubernetes-api", "database", "metadata", "api"),
        break_=lambda world: world.endpoints("metadata", f"{places.DATABASE_IP_AFTER_MOVE}:5432"),
        expected=(Expected(Cause.POLICY_NOT_ENFORCED, ("metadata",), says=("consistent with",)),),
        recovers=True,
    ),
)
