"""The three DAGs people write first: an API by name, a database behind a Service, the same one by its address."""

from __future__ import annotations

from agent.diagnosis import Cause
from tests.lab.scenarios.base import ANY, Expected, Scenario
from tests.lab.world import places

BY_ADDRESS = places.target(
    "database",
    name="database-by-address",
    dsn=f"postgresql://probe@{places.DATABASE_IP}:5432/app",
)

SCENARIOS = (
    Scenario(
        name="api-without-egress",
        title="An HTTPS API by name; a policy drops what goes to the internet",
        targets=("cluster-dns", "database", "api", "shop"),
        break_=lambda world: world.drop(places.PUBLIC_NETWORKS),
        expected=(Expected(Cause.EGRESS_BLOCKED, ("api", "shop"), ANY),),
        recovers=True,
    ),
)
