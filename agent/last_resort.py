"""What is left to do where the agent itself cannot run: let the pod start, and end when told.

A native sidecar whose start-up probe fails keeps the task from starting, and one that ends is started again and again.
The standard library alone: whatever broke the agent is not needed here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress

from agent.listening import BACKLOG, answer, listening_on

PATIENCE_SECONDS = 1.0
"""For one client, while the others wait."""


def serve(host: str, port: int, why: str) -> None:
    """Answer `/startupz` with 200 and all else with why, until SIGTERM or SIGINT, which end the process with 0."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    _tell("agent_unable_to_run", why)
    body = f"netprobe cannot run, and keeps nobody waiting: {why}\n"
    try:
        listening = listening_on(host, port, backlog=BACKLOG)
    except OSError as error:
        _tell("agent_cannot_listen", str(error.strerror or error))
        while True:
            signal.pause()
    with listening:
        while True:
            with suppress(OSError), listening.accept()[0] as connection:
                connection.settimeout(PATIENCE_SECONDS)
                answer(connection, {b"/startupz": body}, body)


def _tell(event: str, detail: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(json.dumps({"level": "critical", "event": event, "detail": detail}) + "\n")
        sys.stderr.flush()
