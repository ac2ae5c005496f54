"""`netprobe demo`: real servers on loopback, some of which break and heal, and the agent that watches them."""

from __future__ import annotations

import asyncio
import importlib.util
import sys

from agent.exit_codes import FINE, NOT_STARTED
from agent.keys import HostPort

EXTRA = ("dnslib", "trustme")
"""The packages of the extra `demo`."""


def main(listen: HostPort | None = None, duration_seconds: float | None = None) -> int:
    """Show the agent at work until a signal, or for a time, and return the exit code.

    `listen` is where the agent's pages are to be found; where left out, the usual port of loopback, or any other where
    that one is taken. 3 where the demo cannot start: something it needs is not installed, or the address is taken.
    """
    missing = [package for package in EXTRA if importlib.util.find_spec(package) is None]
    if missing:
        sys.stderr.write(
            f"netprobe: the demo needs {' and '.join(EXTRA)}, which nothing else needs; not installed:"
            f" {', '.join(missing)}.\nType: pip install {' '.join(missing)} (in a checkout: make run)\n"
        )
        return NOT_STARTED
    from agent.demo.show import show  # noqa: PLC0415 - with its packages, and not without
    from agent.server import CannotListen  # noqa: PLC0415

    try:
        asyncio.run(show(listen, duration_seconds))
    except CannotListen as error:
        sys.stderr.write(f"netprobe: {error}\n")
        return NOT_STARTED
    except OSError as error:
        sys.stderr.write(f"netprobe: the demo could not start: {error}\n")
        return NOT_STARTED
    return FINE
