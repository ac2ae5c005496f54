"""`netprobe inject` itself: reads, injects or removes, prints."""

from __future__ import annotations

import argparse


def main(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    raise NotImplementedError(arguments.file)
