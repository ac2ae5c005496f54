"""What is known of the pod before anything is probed: its resolver, its namespace, its Kubernetes API server."""

from __future__ import annotations

import ipaddress
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.diagnosis.snapshot import Pod, Resolver
from agent.model import Target
from agent.net.addressing import RESOLV_CONF
from agent.net.resolvconf import ResolvConf

_SEARCHED = re.compile(r"(?P<namespace>[a-z0-9]([-a-z0-9]*[a-z0-9])?)\.svc\.(?P<domain>.+)", re.IGNORECASE)
"""The first domain a kubelet puts into the search list of a pod."""
_HIGHEST_PORT = 65_535


def resolv_confs(targets: Iterable[Target[Any]]) -> tuple[Path, ...]:
    """The resolver configurations that targets use, the most used first; the system's where none uses any."""
    used = Counter(path for target in targets if (path := getattr(target.options, "resolv_conf", None)) is not None)
    return tuple(path for path, _ in used.most_common()) or (RESOLV_CONF,)


def read_pod(targets: Iterable[Target[Any]], started_at: float, environment: Mapping[str, str] = os.environ) -> Pod:
    """Describe the pod. `started_at` is Unix time in seconds; files that are missing mean libc's defaults."""
    conf = ResolvConf.read(resolv_confs(targets)[0])
    searched = next(filter(None, map(_SEARCHED.fullmatch, conf.search)), None)
    return Pod(
        started_at=started_at,
        resolver=Resolver(
            nameservers=conf.nameservers,
            search=conf.search,
            ndots=conf.ndots,
            timeout_seconds=float(conf.timeout_seconds),
        ),
        namespace=searched["namespace"] if searched else None,
        cluster_domain=searched["domain"] if searched else None,
        kubernetes_api=_kubernetes_api(environment),
    )


def _kubernetes_api(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """The address every container gets; None outside a cluster, and where it is none."""
    port = environment.get("KUBERNETES_SERVICE_PORT", "")
    try:
        ip = ipaddress.ip_address(environment.get("KUBERNETES_SERVICE_HOST", "").strip("[]"))
    except ValueError:
        return None
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _HIGHEST_PORT):
        return None
    return str(ip), int(port)
