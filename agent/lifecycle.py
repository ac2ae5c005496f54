"""When the process has to end: SIGTERM from the kubelet, SIGINT from a terminal, and how little patience is left."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """The first signal asks for an orderly end, the second for an immediate one."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()

    def signalled(self) -> None:
        (self.forced if self.requested.is_set() else self.requested).set()


@contextmanager
def signals() -> Iterator[Shutdown]:
    """Take SIGTERM and SIGINT while inside, within a running event loop of the main thread.

    Afterwards they are ignored: a process that was told to end, and is about to, does not end with a signal's code.
    """
    shutdown = Shutdown()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, shutdown.signalled)
    try:
        yield shutdown
    finally:
        # Removing a handler makes the signal deadly, if only for a moment.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


async def first_of(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waiting = {asyncio.create_task(event.wait()) for event in events}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


async def unless(forced: asyncio.Event, closing: Awaitable[None]) -> None:
    """Wait for an orderly end; cancel it as soon as it is forced, and wait for what is left of it."""
    task = asyncio.ensure_future(closing)
    force = asyncio.create_task(forced.wait())
    try:
        await asyncio.wait({task, force}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
        await asyncio.wait({task})
    finally:
        force.cancel()
    if not task.cancelled():
        task.result()
