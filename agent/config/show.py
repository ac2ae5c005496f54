"""A configuration as it was understood, for people."""

from __future__ import annotations

from typing import Any

from agent.config.load import SECTION_KEYS, SECTIONS
from agent.config.sections import Config
from agent.config.targets import show_target
from agent.keys import show_section


def show(config: Config) -> dict[str, Any]:
    """The resolved configuration as plain values: every default filled in, secrets as `***` or as their file."""
    return {
        "targets": [show_target(target) for target in config.targets],
        **{
            name: show_section(section, SECTION_KEYS[name])
            for name in SECTIONS
            if (section := getattr(config, name)) is not None
        },
    }
