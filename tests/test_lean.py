"""The daemon imports what it uses."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import sys
from agent.lean import lean_imports
if sys.argv[1] == "lean":
    lean_imports()
import agent.app
import aiohttp.connector
print("rich.console" in sys.modules, aiohttp.connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"] > 0)
import ssl
print(ssl.create_default_context().verify_mode.name, ssl.create_default_context().cert_store_stats()["x509"] > 0)
"""


def test_what_nobody_uses_is_not_imported() -> None:
    """Neither a library for terminals nor the certificates of the system; and afterwards contexts have them again."""

    def looked(how: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", LOOK, how], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert looked("as-they-come") == ["True True", "CERT_REQUIRED True"]
    assert looked("lean") == ["False False", "CERT_REQUIRED True"]
