"""The three DAGs people write first: an API by name, a database behind a Service, the same one by its address."""

from __future__ import annotations

from agent.diagnosis import Cause
from tests.lab.scenarios.base import ANY, Expected, Scenario
from tests.lab.world import Change, World, places, target

BY_ADDRESS = target("database", name="database-by-address", dsn=f"postgresql://probe@{places.DATABASE_IP}:5432/app")
WAREHOUSE_BY_ADDRESS = target(
    "warehouse", name="warehouse-by-address", dsn=f"postgresql://probe@{places.WAREHOUSE_IP}:5432/app"
)


def the_database_moves(world: World) -> Change:
    """Its pod is replaced by one with another address; the Service follows, who wrote the address down does not."""
    world.endpoints("internal-database", f"{places.DATABASE_IP_AFTER_MOVE}:5432")
    return world.remove_address("cluster", places.DATABASE_IP)


SCENARIOS = (
    Scenario(
        name="dag-api-without-egress",
        title="DAG 1, an HTTPS API by name: a policy drops what goes to the internet",
        targets=("cluster-dns", "kubernetes-api", "api", "shop"),
        break_=lambda world: world.drop(places.PUBLIC_NETWORKS),
        expected=(Expected(Cause.EGRESS_BLOCKED, ("api", "shop"), says=("consistent with",)),),
        recovers=True,
    ),
    Scenario(
        name="dag-api-certificate-expires",
        title="DAG 1, an HTTPS API by name: its certificate expires",
        targets=("cluster-dns", "kubernetes-api", "api", "shop"),
        break_=lambda world: world.site("api", certificate=world.expired_certificate("api")),
        expected=(Expected(Cause.TLS_CERTIFICATE, ("api",)),),
        recovers=True,
    ),
    Scenario(
        name="dag-database-without-endpoints",
        title="DAG 2, a Postgres behind the Service `internal-database`: its pod is not ready, the Service is empty",
        targets=("cluster-dns", "kubernetes-api", "database", "api"),
        break_=lambda world: world.endpoints("internal-database"),
        expected=(Expected(Cause.SERVICE_WITHOUT_ENDPOINTS, ("database",), ANY),),
        recovers=True,
    ),
    Scenario(
        name="dag-database-stopped",
        title="DAG 2, a Postgres behind the Service `internal-database`: the server is stopped",
        targets=("cluster-dns", "kubernetes-api", "database", "api"),
        break_=lambda world: world.stop("internal-database"),
        expected=(Expected(Cause.NOTHING_LISTENING, ("database",)),),
        recovers=True,
    ),
    Scenario(
        name="dag-address-moves",
        title="DAG 3, the same Postgres by its pod's address: the pod is replaced, the Service follows it",
        targets=("cluster-dns", "kubernetes-api", "database", BY_ADDRESS, "api"),
        break_=the_database_moves,
        expected=(Expected(Cause.HARDCODED_ADDRESS, ("database-by-address",), ANY, says=("Service",)),),
        recovers=True,
    ),
    Scenario(
        name="dag-address-behind-vpn",
        title="DAG 3, a Postgres by its address behind a VPN: the VPN's router drops everything",
        targets=("cluster-dns", "kubernetes-api", WAREHOUSE_BY_ADDRESS, "wiki", "api"),
        break_=lambda world: world.drop(places.PRIVATE_NETWORK),
        expected=(Expected(Cause.PRIVATE_NETWORK_UNREACHABLE, ("warehouse-by-address", "wiki"), ANY),),
        recovers=True,
    ),
)
