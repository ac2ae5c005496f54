"""Something a source found that could be a target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.airflow.discovery.endpoint import Endpoint
from agent.model import Role, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something that could be a target."""

    source: str
    """Where it was named: the variable, less its value."""
    name: str
    role: Role
    endpoint: Endpoint
    scope: Scope | None = None
    negative: bool = False
    keys: Mapping[str, Any] | None = None
    """The keys of its target where the endpoint's own way of asking is not meant."""
    unwanted: str = ""
    """Why it is not probed after all, nor anything else that is the same; empty where it is."""

    def raw(self) -> dict[str, Any]:
        """The mapping its target is read from."""
        keys = dict(self.keys) if self.keys is not None else self.endpoint.keys()
        raw = {"name": self.name, "role": str(self.role), **keys}
        if self.scope is not None:
            raw["scope"] = str(self.scope)
        if self.negative:
            raw["negative"] = True
        return raw


_NAME_LIMIT = 80
"""Characters of a name: what is left of those that a target may have is for numbers."""


def plain_name(*parts: str) -> str:
    """A name for a target: letters, digits, dots and hyphens."""
    name = re.sub(r"[^a-z0-9.]+", "-", "-".join(parts).lower(), flags=re.ASCII)[:_NAME_LIMIT].strip("-.")
    return name or "target"


def numbered(name: str, index: int) -> str:
    """The name of one of several: the first has none."""
    return name if index == 0 else f"{name}-{index + 1}"
