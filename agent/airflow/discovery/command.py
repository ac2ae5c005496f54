"""`netprobe discover` itself: what would be probed, and what not, and why."""

from __future__ import annotations

import argparse


def main(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    raise NotImplementedError(arguments.output)
