"""Leaves out what libraries do at import and the daemon has no use for: every worker pod would pay for it.

`python -m tests.benchmarks.start_cost` prints what that saves.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl


def lean_imports() -> None:
    """Import the expensive libraries without their extras. Has an effect only before anything else imports them."""
    # structlog imports it, if it is installed, for consoles that the daemon does not write to.
    modules: dict[str, Any] = sys.modules
    modules.setdefault("rich", None)
    # aiohttp's client reads all certificates of the system as it is imported. Only its server and its parser are used
    # here, and contexts that reach a server are made in net/tls.py. This one trusts nobody.
    import ssl  # noqa: PLC0415 - 13 ms that other commands need not spend

    complete = ssl.create_default_context
    ssl.create_default_context = _context_without_certificates
    try:
        import aiohttp  # noqa: F401, PLC0415 - imported for its effect
    finally:
        ssl.create_default_context = complete


def _context_without_certificates(*_: Any, **__: Any) -> ssl.SSLContext:
    import ssl  # noqa: PLC0415

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
