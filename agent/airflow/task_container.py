"""When the container of the task has ended, told from its processes: for clusters without native sidecars.

The containers of a pod see each other's processes where it has `shareProcessNamespace: true`. Process 1 is then the
pod's own, and the first process of each container is nobody's child. Of foreign processes only `stat` and `cmdline` are
read, which any user may; command lines are looked at and never kept, since those of Airflow 3 hold the task's token.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import structlog

SEARCH_SECONDS = 1.0
"""Between two looks for the container."""
LOOK_SECONDS = 0.25
"""Between two looks at its first process, once that is known: one small file."""
PATIENCE_SECONDS = 60.0
"""How long it may take to see another container at all. The kubelet starts the first container before this one: where
none is seen by then, it has ended already, or was never able to start."""
COMMAND_LIMIT_BYTES = 4096

# `airflow tasks run …` of Airflow 2, the module of Airflow 3, and the titles that both give their processes later:
# `airflow supervisor: …`, `airflow worker -- …`, `airflow task runner: …` (2.11 and 3.3).
_AIRFLOWS = re.compile(
    rb"\Aairflow (?:supervisor|worker|task)\b"
    rb"|airflow\.sdk\.execution_time\.execute_workload"
    rb"|(?:\A|[\0 /])airflow[\0 ]+tasks[\0 ]+run(?:[\0 ]|\Z)"
)
_GONE = frozenset("ZXx")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Process:
    """What the kernel tells of a process (proc(5))."""

    pid: int
    state: str
    parent: int
    started: int
    """In ticks since the boot: with the number, it tells a process from a later one with the same number."""


class Sight(Enum):
    """What is to be seen of the task's container."""

    INVISIBLE = auto()
    """The containers do not see each other's processes."""
    AWAITED = auto()
    RUNNING = auto()
    ENDED = auto()


class TaskContainer:
    """The container in which Airflow runs the task; the one that started first, where no process is Airflow's."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._first: Process | None = None
        """Its first process, as far as is known."""
        self._certain = False
        """It has been seen to be Airflow's."""

    def look(self) -> Sight:
        """Look once. Raises nothing."""
        if self._first is not None and self._certain:
            return Sight.RUNNING if self._runs(self._first) else Sight.ENDED
        everyone = self._everyone()
        own = _first_of(os.getpid(), everyone)
        if own is None or own.pid == 1:
            return Sight.INVISIBLE
        firsts = {pid: _first_of(pid, everyone) for pid in everyone}
        others = {pid: first for pid, first in firsts.items() if first is not None and first.pid not in {1, own.pid}}
        airflows = {first for pid, first in others.items() if self._is_airflows(pid)}
        if airflows:
            self._first, self._certain = min(airflows, key=_age), True
        elif self._first is None and others:
            self._first = min(others.values(), key=_age)
        if self._first is None:
            return Sight.AWAITED
        return Sight.RUNNING if self._runs(self._first) else Sight.ENDED

    @property
    def certain(self) -> bool:
        """Whether a process of it has been seen to be Airflow's."""
        return self._certain

    def _everyone(self) -> Mapping[int, Process]:
        try:
            numbers = [int(entry.name) for entry in self._proc.iterdir() if entry.name.isdigit()]
        except OSError:
            numbers = []
        return {pid: process for pid in numbers if (process := self._read(pid)) is not None}

    def _read(self, pid: int) -> Process | None:
        try:
            text = (self._proc / str(pid) / "stat").read_text("utf-8", "replace")
            # The name before may hold anything, parentheses and spaces included.
            fields = text.rpartition(")")[2].split()
            return Process(pid=pid, state=fields[0], parent=int(fields[1]), started=int(fields[19]))
        except (OSError, ValueError, IndexError):
            return None  # it has ended meanwhile

    def _runs(self, process: Process) -> bool:
        now = self._read(process.pid)
        return now is not None and now.started == process.started and now.state not in _GONE

    def _is_airflows(self, pid: int) -> bool:
        with suppress(OSError), (self._proc / str(pid) / "cmdline").open("rb", buffering=0) as stream:
            return _AIRFLOWS.search(stream.read(COMMAND_LIMIT_BYTES) or b"") is not None
        return False


def _first_of(pid: int, everyone: Mapping[int, Process]) -> Process | None:
    """The first process of a process's container: its oldest ancestor, which is nobody's child.

    That of a process whose parent has ended is process 1. None where an ancestor ended while we looked.
    """
    process = everyone.get(pid)
    while process is not None and process.parent != 0:
        process = everyone.get(process.parent)
    return process


def _age(process: Process) -> tuple[int, int]:
    return process.started, process.pid


async def ended(container: TaskContainer, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until the task's container has ended. For ever, where that cannot be seen."""
    began, told = time.monotonic(), None
    while True:
        sight = container.look()
        if sight is Sight.INVISIBLE:
            detail = "expected shareProcessNamespace: true, got a pod without: POST /quitquitquit or SIGTERM ends it"
            _log.warning("task_container_invisible", detail=detail)
            await asyncio.Future()
        if sight is Sight.ENDED:
            _log.info("task_container_ended")
            return
        if sight is Sight.AWAITED and time.monotonic() - began > patience_seconds:
            _log.warning("task_container_missing", waited_seconds=round(time.monotonic() - began, 3))
            return
        if sight is Sight.RUNNING and told is not container.certain:
            told = container.certain
            _log.info("task_container_found", airflows=told)
        await asyncio.sleep(LOOK_SECONDS if container.certain else SEARCH_SECONDS)
