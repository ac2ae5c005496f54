"""Agents to look at: in this process, or as the command in one of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from agent.config import Config, ServerOptions
from agent.keys import HostPort
from agent.model import Target
from tests.lab.command import PATIENCE_SECONDS, started

ANYWHERE = ServerOptions(listen=HostPort("127.0.0.1", 0))


def config(*targets: Target[Any], **sections: Any) -> Config:
    """A configuration of an agent that listens on a free port of loopback."""
    return Config(targets=targets, server=ANYWHERE, **sections)


async def eventually(holds: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Ask until the answer is true, and return it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while not (answer := await holds()):
        if loop.time() > deadline:
            raise AssertionError(f"expected {what} within {PATIENCE_SECONDS:g} s")
        await asyncio.sleep(0.02)
    return answer


def events_of(log: str) -> list[dict[str, Any]]:
    """The events in a log whose lines are JSON, and those of others between them."""
    events = []
    for line in log.splitlines():
        with suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events


class Running:
    """`netprobe run` in a process of its own, and what it has logged so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.text = ""
        self.url = ""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.text += line.decode()
            try:
                self.events.append(json.loads(line))
            except json.JSONDecodeError:
                continue

    async def event(self, name: str, **fields: Any) -> dict[str, Any]:
        """Wait until this has been logged."""

        async def seen() -> dict[str, Any] | None:
            return next(
                (e for e in self.events if e["event"] == name and fields.items() <= e.items()),
                None,
            )

        event: dict[str, Any] = await eventually(seen, f"the event {name} {fields}, got {self.text}")
        return event

    async def ended(self) -> int:
        """The exit code, once everything it wrote has been read."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            code = await self.process.wait()
            await self._reading
        return code

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait({self._reading})


@asynccontextmanager
async def running(
    directory: Path, configuration: str, *, env: dict[str, str] | None = None, port: int = 0
) -> AsyncIterator[Running]:
    """`netprobe run` with this configuration (YAML), once it serves; on a free port of loopback, or on this one."""
    file = directory / "netprobe.yaml"
    file.write_text(configuration, "utf-8")
    async with started("run", "--config", str(file), "--listen", f"127.0.0.1:{port}", env=env) as process:
        agent = Running(process)
        try:
            agent.url = (await agent.event("agent_started"))["url"]
            yield agent
        finally:
            await agent.close()
