"""getaddrinfo in threads nobody waits for."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from agent.net.system_lookup import THREAD_LIMIT, SystemLookups

PATIENCE_SECONDS = 30.0


@pytest.fixture
def _no_room_for_threads() -> Iterator[None]:
    """Stacks larger than any address space: the system refuses each new thread."""
    before = threading.stack_size(1 << 60)
    yield
    threading.stack_size(before)


@pytest.mark.usefixtures("_no_room_for_threads")
async def test_a_thread_that_cannot_be_had_holds_no_slot() -> None:
    """Where the number of processes is limited lookups fail, and go on once there is room again."""
    lookups = SystemLookups()
    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(THREAD_LIMIT + 1):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await lookups.addresses("127.0.0.1", socket.AF_INET)
        threading.stack_size(0)
        assert await lookups.addresses("127.0.0.1", socket.AF_INET) == ["127.0.0.1"]
