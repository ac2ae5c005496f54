"""A real Envoy takes everything the pod sends: it does not run, is not ready, or has nowhere to send it."""

from __future__ import annotations

from agent.diagnosis import Cause
from tests.lab import envoy
from tests.lab.scenarios.base import MEDIUM, Expected, Scenario
from tests.lab.world import World, places, target

WEB = {"web": ("10.244.2.50:8080", "10.244.2.51:8080")}
OVER_TCP = tuple(name for name in places.STANDARD if name != "cluster-dns")
"""What a mesh takes: everything but questions by UDP."""


def envoy_is_killed(world: World) -> None:
    """As the kernel does it to a container that uses too much memory."""
    listening = world.execute("pod", "ss", "-Hlntp", f"sport = :{envoy.ADMIN_PORT}")
    world.execute("pod", "kill", "-KILL", listening.rpartition("pid=")[2].partition(",")[0])


def envoy_waits(world: World) -> None:
    envoy.agent(world)
    envoy.proxy(world, configured=False)
    envoy.redirect(world)


SCENARIOS = (
    Scenario(
        name="healthy-mesh",
        title="Nothing: everything goes through a ready Envoy, as in an Istio mesh",
        targets=(*places.STANDARD, "website", target("metadata", dialogue=[{"send": "hello"}, {"expect": "."}])),
        prepare=lambda world: envoy.sidecar(world, services=WEB),
        from_start=True,
    ),
    Scenario(
        name="mesh-without-proxy",
        title="Outbound traffic is redirected to a mesh's proxy that does not run",
        break_=envoy.redirect,
        expected=(Expected(Cause.MESH_NOT_READY, OVER_TCP, says=("by this pod itself",)),),
        recovers=True,
    ),
    Scenario(
        name="mesh-proxy-waits-for-configuration",
        title="Envoy runs and waits for its control plane",
        break_=envoy_waits,
        expected=(Expected(Cause.MESH_NOT_READY, OVER_TCP, says=("15020/healthz/ready: 503",)),),
        recovers=True,
    ),
    Scenario(
        name="mesh-proxy-killed",
        title="Envoy is killed in a pod that worked",
        prepare=lambda world: envoy.sidecar(world, services=WEB),
        break_=envoy_is_killed,
        expected=(Expected(Cause.MESH_NOT_READY, OVER_TCP),),
    ),
    Scenario(
        name="mesh-service-without-endpoints",
        title="Envoy knows the service and no endpoint of it",
        targets=("cluster-dns", "kubernetes-api", "database", "web", "api"),
        prepare=lambda world: envoy.sidecar(world, services={"web": ()}),
        from_start=True,
        expected=(Expected(Cause.MESH_NO_UPSTREAM, ("web",), says=("no healthy upstream",)),),
    ),
    Scenario(
        name="mesh-endpoints-stopped",
        title="Behind Envoy, the endpoints of a service are stopped",
        targets=("cluster-dns", "kubernetes-api", "database", "web", "api"),
        prepare=lambda world: envoy.sidecar(world, services=WEB),
        break_=lambda world: world.stop("web"),
        expected=(Expected(Cause.MESH_NO_UPSTREAM, ("web",), says=("upstream connect error",)),),
        recovers=True,
    ),
    Scenario(
        name="mesh-registry-only",
        title="Envoy sends nothing to hosts the mesh does not know",
        targets=("cluster-dns", "web", "website", "api", "shop"),
        prepare=lambda world: envoy.sidecar(world, services=WEB, registry_only=True),
        from_start=True,
        expected=(
            Expected(Cause.MESH_NO_UPSTREAM, ("website",), says=("ServiceEntry",)),
            Expected(Cause.MESH_NO_UPSTREAM, ("api", "shop"), MEDIUM, says=("proves nothing",)),
        ),
    ),
    Scenario(
        name="mesh-database-stopped",
        title="Behind Envoy, the database is stopped: connections stand all the same",
        targets=("cluster-dns", "kubernetes-api", "database", "web", "api"),
        prepare=lambda world: envoy.sidecar(world, services=WEB),
        break_=lambda world: world.stop("internal-database"),
        expected=(Expected(Cause.MESH_NO_UPSTREAM, ("database",), MEDIUM, says=("proves nothing",)),),
        recovers=True,
    ),
    Scenario(
        name="mesh-negative-target",
        title="Behind Envoy, a target that must not be reachable is tried by a connection alone",
        targets=("cluster-dns", "kubernetes-api", "database", "web", "metadata"),
        prepare=lambda world: envoy.sidecar(world, services=WEB),
        from_start=True,
        expected=(Expected(Cause.PROBE_MISCONFIGURED, ("metadata",), MEDIUM, says=("proves nothing",)),),
    ),
    Scenario(
        name="mesh-egress-dropped",
        title="Behind Envoy, a policy drops what goes to the internet",
        targets=("cluster-dns", "kubernetes-api", "database", "web", "api", "shop"),
        prepare=lambda world: envoy.sidecar(world, services=WEB),
        break_=lambda world: world.drop(places.PUBLIC_NETWORKS),
        expected=(Expected(Cause.MESH_NO_UPSTREAM, ("api", "shop"), MEDIUM, says=("proves nothing",)),),
        recovers=True,
    ),
)
