"""A PID namespace of a test's own, as a pod with `shareProcessNamespace: true` has one.

Process 1 does nothing. Each process started inside is nobody's child there, as the first process of a container is.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE_SECONDS = 60.0

_READY = "import os, sys, signal; sys.stdout.write('x'); sys.stdout.close(); signal.pause()"


@dataclass
class PidNamespace:
    """The namespace, by its process 1 as the machine numbers it."""

    pid: int
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *command: str, user: int | None = None) -> Sequence[str]:
        """A command line that runs a command inside, as a container's first process and without any privilege."""
        enter = ("nsenter", f"--target={self.pid}", "--pid", "--mount")
        return (*enter, "setpriv", "--bounding-set=-all", "--inh-caps=-all", *_become(user), *command)

    def start(self, *command: str, user: int | None = None) -> subprocess.Popen[bytes]:
        """Start a container's first process. What is returned is the process outside that waits for it."""
        process = subprocess.Popen(
            self.command(*command, user=user), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def _become(user: int | None) -> Sequence[str]:
    return () if user is None else (f"--reuid={user}", f"--regid={user}", "--clear-groups")


@contextmanager
def pid_namespace() -> Iterator[PidNamespace]:
    """Everything inside is killed at the end."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", _READY]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.read(1) == b"x"
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()
            namespace = PidNamespace(int(child))
            try:
                yield namespace
            finally:
                namespace.close()
        finally:
            process.kill()
