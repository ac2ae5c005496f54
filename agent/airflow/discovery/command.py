"""`netprobe discover` itself: what would be probed, and what not, and why."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from agent.airflow.discovery.choosing import discover
from agent.airflow.discovery.complete import Discovery
from agent.config import Config, DiscoverOptions
from agent.exit_codes import FINE
from agent.model import Target


def main(arguments: argparse.Namespace, config: Config | None) -> int:
    """Run the command and return its exit code. Without a configuration, everything is looked for."""
    if config is not None and config.discover is None:
        sys.stderr.write(
            "netprobe: the configuration has no section discover: this is what `discover: [airflow, kubernetes]` "
            "would add\n"
        )
    config = config or Config(targets=())
    discovery = discover(config, config.discover or DiscoverOptions(), os.environ)
    text = as_json(discovery) if arguments.output == "json" else as_table(discovery)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode())
    return FINE


def as_json(discovery: Discovery) -> str:
    """Version 1 of the JSON form. Its keys are a contract."""
    document = {
        "version": 1,
        "targets": [_row(target, discovery) for target in discovery.targets],
        "skipped": [{"source": item.source, "why": item.why} for item in discovery.skipped],
    }
    return json.dumps(document, indent=2) + "\n"


def _row(target: Target[Any], discovery: Discovery) -> dict[str, Any]:
    return {
        "name": target.name,
        "type": target.type,
        "address": target.address,
        "role": target.role.value,
        "scope": target.scope.value,
        "negative": target.negative,
        "source": discovery.sources[target.name],
    }


def as_table(discovery: Discovery) -> str:
    """For people: a line a target, and one for each thing that is none."""
    titles = ("name", "type", "address", "role", "scope", "source")
    rows = [_row(target, discovery) for target in discovery.targets]
    texts = [tuple(f"not {row[t]}" if t == "address" and row["negative"] else row[t] for t in titles) for row in rows]
    lines = list(_columns([titles, *texts])) if rows else ["The environment names nothing to probe."]
    if discovery.skipped:
        lines += ["", "Not probed:", *_columns([(f"  {item.source}", item.why) for item in discovery.skipped])]
    return "".join(f"{line}\n" for line in lines)


def _columns(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
