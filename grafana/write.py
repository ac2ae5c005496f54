"""From dashboards in Python to the JSON files that are committed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import fleet, itself, target, task

FOLDER = Path(__file__).parent / "dashboards"
MADE = (fleet.make, target.make, task.make, itself.make)
"""Each makes one dashboard."""


def documents() -> Iterator[tuple[Path, str]]:
    """The file of each dashboard, and what is to stand in it."""
    for make in MADE:
        made = make()
        yield FOLDER / f"{made.uid}.json", json.dumps(made, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def write() -> None:
    FOLDER.mkdir(exist_ok=True)
    for file, text in documents():
        file.write_text(text, "utf-8")
