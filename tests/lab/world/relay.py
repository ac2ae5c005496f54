"""Delay on a link, in user space: the kernel gives a TUN device packets, and gets them back later."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_LONGEST_PACKET = 65536


@asynccontextmanager
async def delaying(device: str, seconds: float) -> AsyncIterator[None]:
    """A TUN device in the network namespace of the running event loop, that returns each packet so much later."""
    loop = asyncio.get_running_loop()
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    waiting: deque[bytes] = deque()
    due: deque[asyncio.TimerHandle] = deque()

    def take() -> None:
        try:
            packet = os.read(descriptor, _LONGEST_PACKET)
        except BlockingIOError:
            return
        waiting.append(packet)
        due.append(loop.call_later(seconds, give))

    def give() -> None:
        due.popleft()
        os.write(descriptor, waiting.popleft())  # all wait equally long, so that the first is due first

    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI))
        loop.add_reader(descriptor, take)
        yield
    finally:
        loop.remove_reader(descriptor)
        for handle in due:
            handle.cancel()
        os.close(descriptor)
