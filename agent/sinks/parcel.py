"""What is handed over to a receiver in one request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from yarl import URL

from agent.probers.http_options import Method


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One request, and whom to tell what became of it."""

    method: Method
    url: URL
    headers: tuple[tuple[str, str], ...]
    body: bytes
    samples: int
    begins: bool = False
    """It holds samples that are older than others may be: the receiver may refuse it for them alone."""
    taken: Callable[[], None] = _nothing
    refused: Callable[[], None] = _nothing
    """It will not be taken, and neither will anything as old as it."""


class Contents(Protocol):
    """What a pusher sends."""

    async def compose(self, *, last: bool) -> Sequence[Parcel]:
        """What the metrics are now, to be sent in this order; `last` where nothing will come after it."""
