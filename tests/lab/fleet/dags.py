"""The DAGs of a fleet: their tasks, and the targets each has for itself, as connections are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.lab.world import places

NAMESPACE: Final = "airflow"
TASKS: Final = ("extract", "transform", "load")
"""One pod each."""


@dataclass(frozen=True, slots=True)
class Dag:
    """A DAG whose pods watch four targets that no other DAG has. Each is found by a name of its own."""

    dag_id: str
    fourth: str
    """Of which type the fourth target is: the first three are https, http and tcp."""
    pushes: bool = False
    """Whether its pods are not scraped, and push."""

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """What nameservers must hold for its targets."""
        services = places.SERVICES
        return {
            self._public: (places.API_IP,),
            self._cluster("web"): (_ip(services["web"][0]),),
            self._cluster("queue"): (_ip(services["broker"][0]),),
            self._cluster("database"): (_ip(services["internal-database"][0]),),
        }

    @property
    def targets(self) -> tuple[Mapping[str, Any], ...]:
        """As in YAML. The start of its pods waits for the first."""
        database = self._cluster("database")
        fourth: Mapping[str, Any] = {
            "postgres": {"dsn": f"postgresql://probe@{database}:5432/app", "sslmode": "disable"},
            "dns": {"query": f"{database}.", "record": "A"},
        }[self.fourth]
        return (
            {
                "name": f"{self.dag_id}-api",
                "type": "http",
                "url": f"https://{self._public}/health",
                "tls": {"ca_file": "${CA_FILE}"},
                "gate": True,
            },
            {"name": f"{self.dag_id}-web", "type": "http", "url": f"http://{self._cluster('web')}/"},
            {
                "name": f"{self.dag_id}-queue",
                "type": "tcp",
                "address": f"{self._cluster('queue')}:6379",
                "dialogue": [{"send": "PING\r\n"}, {"expect": "PONG"}],
            },
            {"name": f"{self.dag_id}-database", "type": self.fourth, **fourth},
        )

    @property
    def certificate_name(self) -> str:
        """What the certificate of its API has to be for."""
        return self._public

    @property
    def _public(self) -> str:
        return f"{self.dag_id}.example.com"

    def _cluster(self, what: str) -> str:
        return f"{self.dag_id}-{what}.{NAMESPACE}.svc.cluster.local"


def _ip(address: str) -> str:
    return address.partition(":")[0]


DAGS: Final = (
    *(Dag(dag_id, "postgres") for dag_id in ("orders", "billing", "payments")),
    *(Dag(dag_id, "dns") for dag_id in ("customers", "forecasts", "fraud", "inventory", "marketing", "shipping")),
    Dag("reporting", "dns", pushes=True),
)
