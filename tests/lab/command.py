"""The real command in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "agent")
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


def environment(**variables: str) -> dict[str, str]:
    """What a command sees: nothing of the environment the tests run in but the paths and what is asked for."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(REPOSITORY), **variables}


@asynccontextmanager
async def started(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`netprobe …`, killed at the end where it still runs."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env=environment(**(env or {})),
        cwd="/",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE if stderr is None else stderr,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def netprobe(*arguments: str, env: Mapping[str, str] | None = None) -> Finished:
    """`netprobe …` until it ends by itself."""
    async with started(*arguments, env=env) as process:
        return await finished(process)


async def finished(process: asyncio.subprocess.Process) -> Finished:
    """The end of a command that was started."""
    stdout, stderr = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode is not None
    return Finished(code=process.returncode, stdout=(stdout or b"").decode(), stderr=(stderr or b"").decode())
