"""What every pod of a cluster has: nameservers and the Kubernetes API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.airflow.discovery.complete import Skipped
from agent.airflow.discovery.endpoint import Ask, Endpoint, endpoint
from agent.airflow.discovery.found import Found
from agent.airflow.discovery.parts import Unreadable
from agent.airflow.identity import read_place
from agent.model import Role, Scope
from agent.net.dns_walk import DNS_PORT
from agent.net.resolvconf import ResolvConf

NAME = "kubernetes.default.svc"
"""A name that every cluster has, whatever its domain: the search list completes it."""


def kubernetes(environ: Mapping[str, str], resolv_conf: Path) -> Iterator[Found | Skipped]:
    """One lookup through the resolver of the pod, and a connection to the Kubernetes API.

    A dns target asks the nameservers as libc does and tells each of them apart: one target is enough.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host:
        yield Skipped(source="KUBERNETES_SERVICE_HOST", why="it is not set: this is no pod of a cluster")
        return
    yield _nameservers(resolv_conf)
    try:
        number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0  # noqa: PLR2004 - 65535
        api = endpoint(Ask.TCP, host.strip("[]"), number)
    except Unreadable as problem:
        yield Skipped(source="KUBERNETES_SERVICE_HOST", why=str(problem))
        return
    # No TLS: the API server would have to sign a handshake for each question of each pod.
    yield Found(
        source="KUBERNETES_SERVICE_HOST",
        name="kubernetes-api",
        role=Role.KUBERNETES_API,
        endpoint=api,
        scope=Scope.CLUSTER,
    )


def _nameservers(resolv_conf: Path) -> Found | Skipped:
    source = str(resolv_conf)
    search = ResolvConf.read(resolv_conf).search
    if not any(domain.lower().startswith("svc.") for domain in search):
        why = "its search list has no domain of a cluster (dnsPolicy Default or None): no name is known that must exist"
        return Skipped(source=source, why=why)
    return Found(
        source=source,
        name="nameservers",
        role=Role.NAMESERVER,
        endpoint=Endpoint(ask=Ask.TCP, host=NAME, port=DNS_PORT),
        scope=Scope.CLUSTER,
        keys={"type": "dns", "query": NAME},
    )


def namespace(environ: Mapping[str, str], resolv_conf: Path) -> str:
    """The namespace of this pod, by the downward API or by the search list; empty where neither says it."""
    searched = (domain.lower().split(".") for domain in ResolvConf.read(resolv_conf).search)
    by_search = next((labels[0] for labels in searched if labels[1:2] == ["svc"]), "")
    return read_place(environ).namespace.lower() or by_search
