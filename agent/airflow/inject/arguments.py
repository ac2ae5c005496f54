"""The options of `netprobe inject`. Light to import: every command reads them."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="what to read (default: standard input)")
