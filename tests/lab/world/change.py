"""What has been changed in a world, and can be undone."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self


class Change:
    """Something is different until `undo` (or until the `with` block ends, or the world heals)."""

    def __init__(self, undo: Callable[[], object]) -> None:
        self._undo: Callable[[], object] | None = undo

    def undo(self) -> None:
        """Put it back; a second time does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()
