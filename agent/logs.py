"""How log events look and where they go. Configured once, by the command that runs.

Events go to standard error: standard output belongs to what a command was asked for (`netprobe check --output json`),
and Kubernetes collects both. Whoever collects them may stall; the event loop, and with it the answer to SIGTERM, does
not wait for that.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor

from agent.config.sections import LogFormat, LogLevel, LogOptions
from agent.explanation import verdict_lines
from agent.wording import Wording

PIECE_BYTES = select.PIPE_BUF
"""A pipe that has room at all has room for this much (pipe(7))."""
VERDICT_WIDTH = 100
"""Columns, where verdicts are written for people."""
PATIENCE_SECONDS = 0.05
"""How long an event may wait for a reader that was quick enough so far: less than what counts as starvation."""


class Unblocked(logging.Handler):
    """Writes to a file descriptor that may be a full pipe: what finds no room in time is dropped, and counted."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)
        self._dropped = 0
        self._begun = False
        """A line was cut off. Its rest must not run into the next one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one event, as much of it as there is room for."""
        try:
            lost = 0 if self._tell() and self._write(f"{self.format(record)}\n") else 1
        except OSError:  # a full disk, a reader that has gone: to complain there would change the exit code
            self._dropped += 1
        except Exception:  # noqa: BLE001 - whoever logs has other things to do
            self.handleError(record)
        else:
            self._dropped += lost

    def _tell(self) -> bool:
        """Say how much was dropped, if anything was."""
        if self._dropped:
            text = f"dropped {self._dropped} log events that nobody read in time"
            record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
            if not self._write(f"{self.format(record)}\n"):
                return False
            self._dropped = 0
        return True

    def _write(self, line: str) -> bool:
        data = ("\n" * self._begun + line).encode("utf-8", "backslashreplace")
        for start in range(0, len(data), PIECE_BYTES):
            # Who is known to be slow is not waited for.
            if not self._room.poll(0 if self._dropped else PATIENCE_SECONDS * 1000):
                return False
            os.write(self._descriptor, data[start : start + PIECE_BYTES])
            self._begun = start + PIECE_BYTES < len(data)
        return True


def configure(options: LogOptions, stream: TextIO | None = None) -> None:
    """Send the events of netprobe, and the warnings of the libraries it uses, to a stream in one format."""
    out = stream if stream is not None else sys.stderr
    pretty = options.format is LogFormat.PRETTY or (options.format is LogFormat.AUTO and out.isatty())
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    render: list[Processor]
    if pretty:
        console = structlog.dev.ConsoleRenderer(
            colors=out.isatty(),
            sort_keys=False,  # they come in the order of what matters
            pad_event_to=24,
            exception_formatter=structlog.dev.plain_traceback,
        )
        render = [_in_words, console]
    else:
        render = [
            _traceback,
            _what_first,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    handler = _handler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    level = _LEVELS[options.level]
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("agent").setLevel(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def bind(context: Mapping[str, str]) -> None:
    """Have every event from now on, of this thread and of the tasks it starts, say whose it is."""
    structlog.contextvars.bind_contextvars(**context)


def _handler(out: TextIO) -> logging.Handler:
    try:
        return Unblocked(out.fileno())
    except OSError:  # a buffer in memory
        return logging.StreamHandler(out)


# Less the local variables of each frame, which it would show by default: a frame that holds a password, too.
_traceback = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def _what_first(_: object, __: str, event: EventDict) -> EventDict:
    """When, how bad and what before the rest: lines are read by people, too."""
    first = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


def _in_words(_: object, __: str, event: EventDict) -> EventDict:
    """Verdicts below the line of their event, as people read them, and not as a long value in it."""
    verdicts = event.pop("verdicts", ())
    lines = verdict_lines(verdicts, width=VERDICT_WIDTH, wording=Wording(ascii_only=False))
    text = "\n".join(line.text for line in lines)
    return {**event, "stack": text} if text else event


_LEVELS = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
