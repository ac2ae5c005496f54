"""Podman as the tests use it: images and containers of the checkout's own, none of the machine's, and no network.

Everything lies in `.containers`, which git ignores: a base image is made once a checkout. The machine's own images and
containers are never seen. Containers have no network but the one a test gives them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tests.lab.agents import events_of
from tests.lab.world.hosts import until

REPOSITORY = Path(__file__).resolve().parents[2]
HOME = (REPOSITORY / ".containers").resolve()
PATIENCE_SECONDS = 120.0

# crun does not run where cgroups are of the first version, and containers of containers have no journal.
_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[network]
network_backend = "netavark"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""

_number = itertools.count()


def podman(*arguments: str | Path, seconds: float = PATIENCE_SECONDS, stdin: bytes | None = None) -> str:
    """Run podman and return what it wrote. AssertionError with what it complained about where it fails."""
    done = attempt(*arguments, seconds=seconds, stdin=stdin)
    assert done.returncode == 0, f"podman {' '.join(map(str, arguments))}: {done.stderr}{done.stdout}"
    return done.stdout.strip()


def attempt(
    *arguments: str | Path, seconds: float = PATIENCE_SECONDS, stdin: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    """Run podman, which may fail."""
    done = subprocess.run(
        [*command(), *map(str, arguments)],
        capture_output=True,
        check=False,
        input=stdin,
        timeout=seconds,
        env={**os.environ, "CONTAINERS_CONF": str(_configuration())},
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def command() -> tuple[str, ...]:
    """How podman is called: with a store of the checkout's own, and locks and mounts where a reboot forgets them.

    Podman insists on the place where it made a store: a checkout that has moved gets another one.
    """
    place = hashlib.sha256(str(HOME).encode()).hexdigest()[:12]
    return ("podman", "--root", str(HOME / f"store-{place}"), "--runroot", f"/run/netprobe-containers-{place}")


def _configuration() -> Path:
    path = HOME / "containers.conf"
    if not path.exists() or path.read_text() != _CONFIGURATION:
        HOME.mkdir(exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(_CONFIGURATION)
        draft.rename(path)
    return path


def new_name() -> str:
    """A name for a container or pod of this process's own."""
    return f"netprobe-{os.getpid()}-{next(_number)}"


def sweep() -> None:
    """Remove the containers of processes that are no more: who was killed could not remove its own."""
    for name in podman("ps", "--all", "--format={{.Names}}").split():
        _, pid, _ = name.split("-")
        if not alive(int(pid)):
            podman("rm", "--force", "--time=0", "--ignore", name)


@dataclass(frozen=True)
class Limits:
    """What Kubernetes calls `resources.limits`. None: without."""

    cpu: float | None = None
    memory_mib: int | None = None

    def options(self) -> Sequence[str]:
        memory = f"{self.memory_mib}m"
        return (
            *((f"--cpus={self.cpu:g}",) if self.cpu is not None else ()),
            # Without swap, as nodes of a cluster are.
            *((f"--memory={memory}", f"--memory-swap={memory}") if self.memory_mib is not None else ()),
        )


HARDENED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
"""The sidecar's securityContext: readOnlyRootFilesystem, no capability, no escalation. Seccomp is podman's own."""


class Container:
    """A container that runs, or has ended. A context manager that removes it."""

    def __init__(
        self,
        image: str,
        *arguments: str,
        options: Sequence[str] = (),
        limits: Limits | None = None,
        network: str = "none",
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
    ) -> None:
        """Start it. `mounts`: what of this machine is to be seen there, read-only unless `:rw` is added."""
        self.name = new_name()
        variables = (f"--env={name}={value}" for name, value in (environment or {}).items())
        volumes = (
            f"--volume={source}:{target.removesuffix(':rw')}:{'rw' if target.endswith(':rw') else 'ro'}"
            for source, target in (mounts or {}).items()
        )
        podman(
            *(
                "run",
                "--detach",
                f"--name={self.name}",
                f"--network={network}",
                "--pull=never",
                "--log-driver=k8s-file",
            ),
            *(limits or Limits()).options(),
            *variables,
            *volumes,
            *options,
            image,
            *arguments,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Kill it if it runs, and remove it."""
        podman("rm", "--force", "--time=0", "--ignore", self.name)

    def inspect(self) -> dict[str, Any]:
        """What podman knows of it."""
        found: dict[str, Any] = json.loads(podman("container", "inspect", self.name))[0]
        return found

    @cached_property
    def pid(self) -> int:
        """Its first process, as this machine counts."""
        return int(self.inspect()["State"]["Pid"])

    @property
    def running(self) -> bool:
        return bool(self.inspect()["State"]["Running"])

    @property
    def log(self) -> str:
        """What it wrote to both streams."""
        done = attempt("logs", self.name)
        return done.stdout + done.stderr

    def events(self) -> list[dict[str, Any]]:
        """What it has logged as JSON."""
        return events_of(self.log)

    def execute(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as `kubectl exec` does."""
        return attempt("exec", self.name, *arguments)

    def signal(self, name: str) -> None:
        """Send a signal to its first process."""
        podman("kill", f"--signal={name}", self.name)

    def limit_cpu(self, cpu: float) -> None:
        """Give it another share of a CPU while it runs."""
        podman("update", f"--cpus={cpu:g}", self.name)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait until it has ended by itself, and return its exit code."""
        return int(podman("wait", "--interval=20ms", self.name, seconds=seconds))

    def terminate(self, grace_seconds: float = 30) -> Stopped:
        """End it as the kubelet does: SIGTERM, and SIGKILL when the grace period is over."""
        pid, begun = self.pid, time.monotonic()
        self.signal("TERM")
        with suppress(AssertionError):
            until(lambda: not alive(pid), f"{self.name} to end", grace_seconds)
        took = time.monotonic() - begun
        if alive(pid):
            self.signal("KILL")
        return Stopped(seconds=took, code=self.wait())


@dataclass(frozen=True)
class Stopped:
    """How a container ended after a SIGTERM."""

    seconds: float
    code: int


def alive(pid: int) -> bool:
    """Whether a process runs: a dead one whose parent has not looked yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
