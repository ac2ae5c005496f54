"""What a world keeps outside its processes, whose it is, and the sweeping of what a dead owner has left.

Everything is called `netprobe-lab-<pid>-<start time>-…`: namespaces in /run/netns, directories in /etc/netns and in the
directory for temporary files. Whoever was killed could not remove its own; the next one does.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab.world.hosts import remove

PREFIX = "netprobe-lab-"
NAMESPACES, ETC = Path("/run/netns"), Path("/etc/netns")

_number = itertools.count()


def new_name() -> str:
    """A name for something of this process's own."""
    return f"{PREFIX}{os.getpid()}-{_start_time(os.getpid())}-{next(_number)}"


def mine() -> list[Path]:
    """What there is of this process."""
    return [path for path in _everything() if path.name.startswith(f"{PREFIX}{os.getpid()}-")]


def of(pid: int) -> list[Path]:
    """What there is of another process, alive or dead."""
    return [path for path in _everything() if path.name.startswith(f"{PREFIX}{pid}-")]


def sweep() -> list[Path]:
    """Remove what belongs to processes that are no more, processes in their namespaces included; say what it was."""
    dead = [path for path in _everything() if not _owner_lives(path.name)]
    for path in dead:
        if path.parent == NAMESPACES:
            remove(path.name)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return dead


def _everything() -> Iterator[Path]:
    for directory in (NAMESPACES, ETC, Path(tempfile.gettempdir())):
        yield from directory.glob(f"{PREFIX}*")


def _owner_lives(name: str) -> bool:
    pid, start_time, *_ = name.removeprefix(PREFIX).split("-")
    return _start_time(int(pid)) == start_time


def _start_time(pid: int) -> str | None:
    """When a process began, in ticks since boot: a pid alone is used again. None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]
