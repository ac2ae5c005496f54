"""What a check is waiting for, on a terminal, while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.check.running import Run
from agent.wording import Wording, count

PATIENCE_SECONDS = 0.3
"""How long nothing is shown: most checks are done by then, and drawing takes CPU from the runs that are being timed."""
INTERVAL_SECONDS = 0.25
LINES = 12
"""The longest list of running targets: what fits beside other things, and takes milliseconds to draw."""


@asynccontextmanager
async def shown(runs: Sequence[Run]) -> AsyncIterator[None]:
    """Show the runs on standard error until they are done, and leave no trace."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    drawing = asyncio.create_task(_draw(runs, console))
    try:
        yield
    finally:
        drawing.cancel()
        await asyncio.wait([drawing])
        if not drawing.cancelled():
            drawing.result()


async def _draw(runs: Sequence[Run], console: Console) -> None:
    wording = Wording(ascii_only=not console.encoding.startswith("utf"))
    await asyncio.sleep(PATIENCE_SECONDS)
    # Drawn from the event loop and not by Live's own thread: a recorder is read between two steps of its run.
    live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
    with live:
        while True:
            live.update(_picture(runs, wording, min(LINES, console.height - 3)), refresh=True)
            await asyncio.sleep(INTERVAL_SECONDS)


def _picture(runs: Sequence[Run], wording: Wording, lines: int) -> RenderableType:
    done = sum(run.outcome is not None for run in runs)
    running = [(run, run.seconds) for run in runs if run.outcome is None]
    begun = [(run, elapsed) for run, elapsed in running if elapsed is not None]
    picture = Table.grid(padding=(0, 2, 0, 0), expand=True)
    picture.add_column(no_wrap=True, style="cyan")
    picture.add_column(no_wrap=True, justify="right")
    picture.add_column(no_wrap=True, ratio=1)
    for run, elapsed in begun[:lines]:
        waited = f"{elapsed:.1f} of {run.target.timeout_seconds:g} s"
        picture.add_row(run.recorder.current.value, waited, Text(wording(run.target.name), overflow="ellipsis"))
    rest = len(running) - len(begun[:lines])
    if rest:
        picture.add_row("", "", Text(f"and {rest} more", "dim"))
    outer = Table.grid()
    asking = ", asking why" if done == len(runs) else ""
    outer.add_row(Text(f"{done} of {count(len(runs), 'target')} done{asking}", "bold"))
    outer.add_row(picture)
    return outer
