"""How short of CPU this process is: event-loop lag and cgroup throttling, measured beside every latency.

A slow prober must not look like a slow network. Both are sampled while the agent runs, and a run that saw either is
marked with `Fact.STARVED`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.model import Fact

LAG_THRESHOLD_SECONDS = 0.1
"""A run during which the loop was later than this is marked: longer than a round trip to any place a pod should ask,
and the length of one period of the kernel's CPU quota."""
BUSY_PERIOD_SECONDS = 0.02
"""Between two looks at the loop while a run is under way. A stall shows less this much at worst."""
IDLE_PERIOD_SECONDS = 0.5
"""Between two looks at the loop while nothing runs."""
WINDOW_SECONDS = 60.0
"""How far back the exported lag looks: longer than the usual scrape interval, so that no stall goes unseen."""
_WINDOW_PARTS = 6

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


class _Watch:
    """What one run saw."""

    __slots__ = ("began", "worst")

    def __init__(self, began: float) -> None:
        self.began = began
        self.worst = 0.0


class LoopLag:
    """Asks to be called at fixed times, and measures how late it is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watches: set[_Watch] = set()
        self._parts: deque[tuple[int, float]] = deque(maxlen=_WINDOW_PARTS)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        self._schedule()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def recent_seconds(self) -> float:
        """The longest the loop was late within the last WINDOW_SECONDS."""
        oldest = self._part(self._loop.time()) - _WINDOW_PARTS
        return max((worst for part, worst in self._parts if part > oldest), default=0.0)

    def begin(self) -> _Watch:
        """Measure for one run, until `end`."""
        watch = _Watch(self._loop.time())
        self._watches.add(watch)
        if self._timer is not None and self._due > watch.began + BUSY_PERIOD_SECONDS:
            self._schedule()  # sooner than when idle
        return watch

    def end(self, watch: _Watch) -> float:
        """The longest the loop was late since `begin`, in seconds."""
        self._watches.discard(watch)
        overdue = self._loop.time() - max(self._due, watch.began) if self._timer is not None else 0.0
        return max(watch.worst, overdue, 0.0)

    def _schedule(self) -> None:
        self.stop()
        period = BUSY_PERIOD_SECONDS if self._watches else IDLE_PERIOD_SECONDS
        self._due = self._loop.time() + period
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        late = max(0.0, now - self._due)
        part = self._part(now)
        if self._parts and self._parts[-1][0] == part:
            self._parts[-1] = (part, max(late, self._parts[-1][1]))
        else:
            self._parts.append((part, late))
        for watch in self._watches:
            watch.worst = max(watch.worst, now - max(self._due, watch.began))
        self._schedule()

    @staticmethod
    def _part(now: float) -> int:
        return int(now / (WINDOW_SECONDS / _WINDOW_PARTS))


class Throttling:
    """How long the kernel kept this process's cgroup off the CPU because its quota was used up."""

    def __init__(self, cpu_stat: Path) -> None:
        """Read a cgroup's cpu.stat. OSError where it cannot be read, ValueError where it does not count throttling."""
        self._path = cpu_stat
        self._last = self._read()

    @classmethod
    def find(cls, root: Path = CGROUP_ROOT, own: Path = OWN_CGROUP) -> Throttling | None:
        """Look at the cgroup of this process, version 2 before version 1; None where the kernel tells nothing."""
        for path in _candidates(root, own):
            try:
                return cls(path)
            except (OSError, ValueError):
                continue
        return None

    def seconds(self) -> float:
        """Throttled time of the cgroup since it was made."""
        with suppress(OSError, ValueError):  # the last known value stays true: the counter only grows
            self._last = self._read()
        return self._last

    def _read(self) -> float:
        fields = dict(line.split(" ", 1) for line in self._path.read_text("ascii").splitlines() if " " in line)
        if "throttled_usec" in fields:
            return int(fields["throttled_usec"]) / 1e6
        if "throttled_time" in fields:  # cgroup version 1, nanoseconds
            return int(fields["throttled_time"]) / 1e9
        raise ValueError(f"expected throttled_usec or throttled_time in {self._path}, got neither")


def _candidates(root: Path, own: Path) -> Iterator[Path]:
    """Where this process's cpu.stat may be.

    In a container the path that /proc/self/cgroup names often exists only outside it, and the container's own cgroup is
    mounted as the root.
    """
    try:
        # A cgroup's name may hold any byte.
        lines = own.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        lines = []
    version_1: list[Path] = []
    version_2: list[Path] = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if not separator:
            continue
        inner = path.lstrip("/")
        if number == "0" and not controllers:
            version_2 += [root / inner, root]
        elif "cpu" in controllers.split(","):
            mounts = dict.fromkeys((controllers, "cpu"))
            version_1 += [root / mount / place for mount in mounts for place in (inner, ".")]
    for directory in version_2 + version_1:
        yield directory / "cpu.stat"


class Starvation:
    """Both measures, and the mark on the runs that suffered."""

    def __init__(self, throttling: Throttling | None) -> None:
        """Use within a running event loop."""
        self.lag = LoopLag()
        self.throttling = throttling
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._throttled = 0.0
        self._read_at = float("-inf")
        self._readings: deque[tuple[float, float]] = deque(maxlen=_WINDOW_PARTS + 1)

    @contextmanager
    def watch(self, facts: dict[Fact, Any]) -> Iterator[None]:
        """Mark the facts of the run inside if this process was short of CPU meanwhile."""
        watch = self.lag.begin()
        throttled = self._throttled_seconds()
        try:
            yield
        finally:
            late = self.lag.end(watch)
            if late > LAG_THRESHOLD_SECONDS or self._throttled_seconds() > throttled:
                facts[Fact.STARVED] = True
                facts[Fact.EVENT_LOOP_LAG_SECONDS] = round(late, 6)

    def throttled_share(self) -> float:
        """How much of about the last WINDOW_SECONDS the kernel kept this process off the CPU: 0 to 1.

        It rests on the looks that runs, and calls of this, have taken at the kernel's counter.
        """
        throttled, now = self._throttled_seconds(), self._clock()
        while len(self._readings) > 1 and self._readings[1][0] <= now - WINDOW_SECONDS:
            self._readings.popleft()
        if not self._readings or self._readings[0][0] >= now:
            return 0.0
        began, before = self._readings[0]
        # The counter adds up what each CPU lost.
        return min(1.0, (throttled - before) / (now - began))

    def _throttled_seconds(self) -> float:
        """At most one look at the kernel's file in BUSY_PERIOD_SECONDS, however many runs begin and end."""
        if self.throttling is None:
            return 0.0
        now = self._clock()
        if now - self._read_at >= BUSY_PERIOD_SECONDS:
            self._throttled = self.throttling.seconds()
            self._read_at = now
            if not self._readings or now - self._readings[-1][0] >= WINDOW_SECONDS / _WINDOW_PARTS:
                self._readings.append((now, self._throttled))
        return self._throttled
