"""The options of `netprobe discover`. Light to import: every command reads them."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--output", choices=("table", "json"), default="table", help="what to print (default: table)")
