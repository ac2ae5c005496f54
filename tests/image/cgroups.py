"""What the kernel charges a container with: control groups of the first version and of the second."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    working_set: int
    """What the kubelet reports and evicts by: everything but file pages that have not been used for long."""
    anonymous: int
    """What no file stands behind: the process's own."""


def memory(pid: int) -> Memory:
    """Of the control group that a process is in."""
    place = _place(pid, "memory")
    stat = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
    if (place / "memory.current").exists():
        used, inactive, anonymous = (place / "memory.current").read_text(), stat["inactive_file"], stat["anon"]
    else:
        used, inactive = (place / "memory.usage_in_bytes").read_text(), stat["total_inactive_file"]
        anonymous = stat["total_rss"]
    return Memory(working_set=int(used) - int(inactive), anonymous=int(anonymous))


def cpu_seconds(pid: int) -> float:
    """User and system time of the control group that a process is in."""
    place = _place(pid, "cpuacct")
    if (place / "cpuacct.usage").exists():
        return int((place / "cpuacct.usage").read_text()) / 1e9
    stat = dict(line.split() for line in (place / "cpu.stat").read_text().splitlines())
    return int(stat["usage_usec"]) / 1e6


def age_seconds(pid: int) -> float:
    """How long ago a process began, to a hundredth."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _place(pid: int, controller: str) -> Path:
    unified = _MOUNT
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return _MOUNT / controller / path.lstrip("/")
        if not controllers:
            unified = _MOUNT / path.lstrip("/")
    return unified
