"""`netprobe check`: every target once, now, and what came out, for a person or for a program."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, TextIO

from agent.check.running import Run, probe_all
from agent.exit_codes import A_TARGET_FAILED, FINE, NOT_STARTED
from agent.model import Outcome, Target


class Output(StrEnum):
    """What standard output gets."""

    TABLE = "table"
    JSON = "json"


async def check(targets: Sequence[Target[Any]], *, output: Output, concurrency: int) -> int:
    """Probe every target once, so many at the same time, write the result to standard output and return the exit code.

    0: every target is as it should be. 1: one is not. 3: the result could not be written. 128 plus the number of the
    signal: SIGINT or SIGTERM came first; what was known by then is written.
    """
    runs = tuple(Run(target) for target in targets)
    signalled = await (_watched if _somebody_watches(sys.stderr) else _until_done)(runs, concurrency)
    text = as_json([run.outcome for run in runs if run.outcome]) if output is Output.JSON else _as_table(runs)
    try:
        _write(text, sys.stdout)
    except OSError as error:
        sys.stderr.write(f"netprobe: expected to write the result to standard output, got: {error.strerror}\n")
        return NOT_STARTED
    if signalled is not None:
        return 128 + signalled
    return FINE if all(run.outcome is not None and run.outcome.success for run in runs) else A_TARGET_FAILED


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Version 1 of the JSON form, ASCII whatever the locale. Its keys are a contract."""
    document = {"version": 1, "outcomes": [outcome.as_dict() for outcome in outcomes]}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


async def _until_done(runs: Sequence[Run], concurrency: int) -> int | None:
    """Wait for the runs, or for the signal that ends them: its number."""
    loop = asyncio.get_running_loop()
    probing = loop.create_task(probe_all(runs, concurrency=concurrency))
    signalled: list[int] = []

    def stop(number: int) -> None:
        signalled.append(number)
        probing.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        await asyncio.wait([probing])
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
    if not probing.cancelled():
        probing.result()
    return signalled[0] if signalled else None


async def _watched(runs: Sequence[Run], concurrency: int) -> int | None:
    from agent.check.progress import shown  # noqa: PLC0415 - 65 ms of CPU that nobody pays who does not look

    async with shown(runs):
        return await _until_done(runs, concurrency)


def _somebody_watches(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def _as_table(runs: Sequence[Run]) -> str:
    from agent.check.table import as_table  # noqa: PLC0415 - see above

    return as_table(runs, sys.stdout)


def _write(text: str, stream: TextIO) -> None:
    """Write all of it, in whatever encoding the stream has. Raises OSError, unless the reader has merely gone away."""
    encoding = stream.encoding
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        # The interpreter flushes once more as it ends, and must not complain then (Python's documentation of SIGPIPE).
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise
