"""A configuration with what its environment names beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.config import Config
from agent.model import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Something the environment names that is not probed."""

    source: str
    """Where it was named: the variable, less its value."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What was found."""

    targets: tuple[Target[Any], ...] = ()
    skipped: tuple[Skipped, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where each target was named, by its name: the variable or file."""


def complete(config: Config, environ: Mapping[str, str]) -> tuple[Config, Discovery]:
    """A configuration with the targets that its section `discover` asks for, after its own. Raises nothing.

    Nothing is contacted; beside the environment, only resolv.conf, the hosts file and airflow.cfg are read.
    """
    if config.discover is None:
        return config, Discovery()
    from agent.airflow.discovery.choosing import discover  # noqa: PLC0415 - 10 ms of CPU, only where it is asked for

    discovery = discover(config, config.discover, environ)
    return dataclasses.replace(config, targets=(*config.targets, *discovery.targets)), discovery
