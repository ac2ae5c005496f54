"""What a process holds: open file descriptors, sockets, threads, asyncio tasks. Counted before and after N runs."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

SETTLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Held:
    """A count of what this process holds. Threads are the kernel's: those of C libraries count as well."""

    descriptors: int
    sockets: int
    threads: int
    python_threads: int
    tasks: int


def held() -> Held:
    """Count now. The caller's event loop is running."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except FileNotFoundError:  # the directory's own descriptor, closed since
            continue
    return Held(
        descriptors=len(links),
        sockets=sum(link.startswith("socket:") for link in links),
        threads=len(list(Path("/proc/self/task").iterdir())),
        python_threads=threading.active_count(),
        tasks=len(asyncio.all_tasks()),
    )


@asynccontextmanager
async def nothing_leaks() -> AsyncIterator[None]:
    """Fail unless, once things have settled, the process holds no more than before.

    What is loaded or started once for all (an executor's threads) must have been used before.
    """
    gc.collect()
    before = held()
    yield
    deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
    while not _no_more_than(before, after := held()):
        gc.collect()
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"expected to hold no more than before, {before}, but it is {after}")
        await asyncio.sleep(0.01)


def _no_more_than(before: Held, after: Held) -> bool:
    return all(now <= then for now, then in zip(astuple(after), astuple(before), strict=True))


async def repeat(times: int, one: Callable[[], Awaitable[object]], *, at_once: int = 20) -> None:
    """Run something so many times, a few side by side."""
    left = iter(range(times))

    async def some() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(some() for _ in range(at_once)))
