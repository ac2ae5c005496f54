"""What an environment leads to, in a form that is easy to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.airflow.discovery.complete import Discovery, complete
from agent.config import Config, DiscoverOptions
from agent.config.sections import Source

CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def discovered(environ: dict[str, str], config: Config | None = None, **options: Any) -> Discovery:
    """What `discover: airflow` finds, unless `options` ask for something else."""
    asked = DiscoverOptions(**{"sources": (Source.AIRFLOW,), **options})
    return complete(Config(targets=(), discover=asked) if config is None else config, environ)[1]


def addresses(environ: dict[str, str], **options: Any) -> dict[str, str]:
    """{name: `type address`} of the targets."""
    found = discovered(environ, **options)
    return {target.name: f"{target.type} {target.address}" for target in found.targets}


def reasons(environ: dict[str, str], **options: Any) -> dict[str, str]:
    """{source: why} of what is skipped."""
    return {item.source: item.why for item in discovered(environ, **options).skipped}


def resolv_conf(directory: Path, search: str = "airflow.svc.cluster.local svc.cluster.local cluster.local") -> Path:
    """A resolver configuration as a kubelet writes it."""
    path = directory / "resolv.conf"
    path.write_text(f"nameserver 10.96.0.10\nsearch {search}\noptions ndots:5\n", encoding="utf-8")
    return path
