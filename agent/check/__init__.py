"""`netprobe check`: every target once, now, what came out and why, for a person or for a program."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, TextIO

from agent.check.examining import Examination
from agent.config import DiagnosisOptions
from agent.diagnosis.document import experiment_document
from agent.exit_codes import A_TARGET_FAILED, FINE, NOT_STARTED
from agent.model import Target


class Output(StrEnum):
    """What standard output gets."""

    TABLE = "table"
    JSON = "json"


async def check(
    targets: Sequence[Target[Any]], *, output: Output, concurrency: int, diagnosis: DiagnosisOptions
) -> int:
    """Probe every target once, so many at the same time, write what was found and why, and return the exit code.

    0: every target is as it should be. 1: one is not. 3: the result could not be written. 128 plus the number of the
    signal: SIGINT or SIGTERM came first; what was known by then is written.
    """
    examination = Examination(targets, diagnosis)
    signalled = await (_watched if _somebody_watches(sys.stderr) else _until_done)(examination, concurrency)
    text = as_json(examination) if output is Output.JSON else _as_table(examination)
    try:
        _write(text, sys.stdout)
    except OSError as error:
        sys.stderr.write(f"netprobe: expected to write the result to standard output, got: {error.strerror}\n")
        return NOT_STARTED
    if signalled is not None:
        return 128 + signalled
    return FINE if all(run.outcome is not None and run.outcome.success for run in examination.runs) else A_TARGET_FAILED


def as_json(examination: Examination) -> str:
    """Version 1 of the JSON form, ASCII whatever the locale. Its keys are a contract."""
    document = {
        "version": 1,
        "outcomes": [run.outcome.as_dict() for run in examination.runs if run.outcome],
        "diagnosis": {
            **examination.diagnosis().as_dict(examination.runbook),
            "experiments": [experiment_document(experiment) for experiment in examination.experiments],
        },
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


async def _until_done(examination: Examination, concurrency: int) -> int | None:
    """Wait for the end, or for the signal that comes first: its number."""
    loop = asyncio.get_running_loop()
    performing = loop.create_task(examination.perform(concurrency))
    signalled: list[int] = []

    def stop(number: int) -> None:
        signalled.append(number)
        performing.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        await asyncio.wait([performing])
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
    if not performing.cancelled():
        performing.result()
    return signalled[0] if signalled else None


async def _watched(examination: Examination, concurrency: int) -> int | None:
    from agent.check.progress import shown  # noqa: PLC0415 - 65 ms of CPU that nobody pays who does not look

    async with shown(examination.runs):
        return await _until_done(examination, concurrency)


def _somebody_watches(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def _as_table(examination: Examination) -> str:
    from agent.check.table import as_table  # noqa: PLC0415 - see above

    verdicts = examination.diagnosis().as_dict(examination.runbook)["verdicts"]
    return as_table(examination.runs, verdicts, sys.stdout)


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
