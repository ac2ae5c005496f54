"""Where everything is in the world of the fault lab: addresses, names, and the targets people write first."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

POD_IP: Final = "10.244.1.10"
POD_IP6: Final = "fd00:244:1::10"
NODE_IP: Final = "10.244.1.1"
"""The pod's default gateway."""
NODE_IP6: Final = "fd00:244:1::1"

NAMESERVER_SERVICES: Final = ("10.96.0.10", "10.96.0.11")
"""What the pod's resolv.conf names."""
NAMESERVER_PODS: Final = ("10.244.2.10", "10.244.2.11")

SERVICES_NETWORK: Final = "10.96.0.0/12"
CLUSTER_NETWORK: Final = "10.244.2.0/24"
PRIVATE_NETWORK: Final = "10.50.0.0/16"
PUBLIC_NETWORKS: Final = ("203.0.113.0/24", "198.51.100.0/24", "2001:db8:113::/48")
CLUSTER: Final = (SERVICES_NETWORK, CLUSTER_NETWORK)
PRIVATE: Final = (PRIVATE_NETWORK,)
EVERYWHERE: Final = (*CLUSTER, *PRIVATE, *PUBLIC_NETWORKS)

DATABASE_IP: Final = "10.244.2.30"
"""The pod behind the Service internal-database."""
DATABASE_IP_AFTER_MOVE: Final = "10.244.2.31"
"""The same database server listens here too: where it is after its pod has moved."""
METADATA_IP: Final = "10.244.2.90"
"""And here: the metadata database, which the pod may not reach (a policy drops it, also in a healthy world)."""
WAREHOUSE_IP: Final = "10.50.0.10"
WIKI_IP: Final = "10.50.0.20"

API_IP: Final = "203.0.113.10"
SHOP_IP: Final = "203.0.113.20"
HOOKS_IP: Final = "198.51.100.30"
WEBSITE_IP: Final = "203.0.113.40"
MIRROR_IPS: Final = ("203.0.113.50", "203.0.113.51")
DUAL_IP: Final = "203.0.113.60"
DUAL_IP6: Final = "2001:db8:113::60"
SIX_IP6: Final = "2001:db8:113::70"

NAMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "kubernetes.default.svc.cluster.local": ("10.96.0.1",),
        "internal-database.airflow.svc.cluster.local": ("10.96.1.30",),
        "broker.airflow.svc.cluster.local": ("10.96.1.40",),
        "web.airflow.svc.cluster.local": ("10.96.1.50",),
        "retired.airflow.svc.cluster.local": ("10.96.1.60",),
        "workers.airflow.svc.cluster.local": ("10.244.2.70", "10.244.2.71"),
        "ledger.finance.svc.cluster.local": ("10.96.1.80",),
        "metadata.airflow.svc.cluster.local": ("10.96.1.90",),
        "warehouse.corp.internal": (WAREHOUSE_IP,),
        "wiki.corp.internal": (WIKI_IP,),
        "api.example.com": (API_IP,),
        "shop.example.net": (SHOP_IP,),
        "hooks.example.org": (HOOKS_IP,),
        "www.example.com": (WEBSITE_IP,),
        "mirror.example.org": MIRROR_IPS,
        "dual.example.com": (DUAL_IP, DUAL_IP6),
        "six.example.net": (SIX_IP6,),
    }
)
"""What both nameservers say; NXDOMAIN for every other name."""

SERVICES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "nameserver-1": (f"{NAMESERVER_SERVICES[0]}:53", (f"{NAMESERVER_PODS[0]}:53",)),
        "nameserver-2": (f"{NAMESERVER_SERVICES[1]}:53", (f"{NAMESERVER_PODS[1]}:53",)),
        "kubernetes": ("10.96.0.1:443", ("10.244.2.20:6443",)),
        "internal-database": ("10.96.1.30:5432", (f"{DATABASE_IP}:5432",)),
        "broker": ("10.96.1.40:6379", ("10.244.2.40:6379",)),
        "web": ("10.96.1.50:80", ("10.244.2.50:8080", "10.244.2.51:8080")),
        "retired": ("10.96.1.60:80", ()),
        "ledger": ("10.96.1.80:80", ("10.244.2.80:8080",)),
        "metadata": ("10.96.1.90:5432", (f"{METADATA_IP}:5432",)),
    }
)
"""Services: ClusterIP and port, and the endpoints behind it. The node refuses any other port of a ClusterIP."""

_TLS: Final = {"ca_file": "${CA_FILE}"}
_LOGIN: Final = {"mode": "login", "password": "${DATABASE_PASSWORD}", "sslmode": "disable"}

TARGETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        str(target["name"]): MappingProxyType(target)
        for target in (
            # In the cluster.
            {"name": "cluster-dns", "type": "dns", "query": "kubernetes.default.svc", "record": "A"},
            {"name": "kubernetes-api", "type": "http", "url": "https://kubernetes.default.svc/readyz", "tls": _TLS},
            {"name": "database", "type": "postgres", "dsn": "postgresql://probe@internal-database:5432/app", **_LOGIN},
            {
                "name": "broker",
                "type": "tcp",
                "address": "broker:6379",
                "dialogue": [{"send": "PING\r\n"}, {"expect": "PONG"}],
            },
            {"name": "web", "type": "http", "url": "http://web/"},
            {"name": "ledger", "type": "http", "url": "http://ledger.finance/"},
            {"name": "workers", "type": "tcp", "address": "workers:8793", "addresses": "all"},
            {"name": "metadata", "type": "tcp", "address": "metadata:5432", "negative": True},
            # Behind the VPN.
            {
                "name": "warehouse",
                "type": "postgres",
                "dsn": "postgresql://probe@warehouse.corp.internal/app",
                **_LOGIN,
            },
            {"name": "wiki", "type": "http", "url": "http://wiki.corp.internal/"},
            # On the internet.
            {
                "name": "api",
                "type": "http",
                "url": "https://api.example.com/health",
                "tls": _TLS,
                "expect": {"status": ["2xx"], "json": [{"pointer": "/status", "equals": "ok"}]},
            },
            {"name": "shop", "type": "http", "url": "https://shop.example.net/", "tls": _TLS},
            {"name": "hooks", "type": "http", "url": "https://hooks.example.org/", "tls": _TLS},
            {"name": "website", "type": "http", "url": "http://www.example.com/"},
            {
                "name": "mirror",
                "type": "http",
                "url": "https://mirror.example.org/",
                "tls": _TLS,
                "addresses": "all",
            },
            {"name": "dual", "type": "http", "url": "https://dual.example.com/", "tls": _TLS, "addresses": "all"},
            {"name": "six", "type": "http", "url": "https://six.example.net/", "tls": _TLS, "family": "6"},
        )
    }
)
"""Targets that work in a healthy world, by name. `warehouse` and `wiki` are the private ones."""

STANDARD: Final = (
    "cluster-dns",
    "kubernetes-api",
    "database",
    "broker",
    "web",
    "warehouse",
    "wiki",
    "api",
    "shop",
    "hooks",
)
"""A DAG's usual neighbours: what a scenario watches unless it says otherwise."""


def target(name: str, /, **keys: Any) -> dict[str, Any]:
    """The target of that name with some keys replaced: `target("api", timeout="1s")`."""
    return {**TARGETS[name], **keys}
