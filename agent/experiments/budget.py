"""How many questions a pod may ask: so many a minute, and so many in its life. Pure, told the time."""

from __future__ import annotations

from collections import deque

_MINUTE_SECONDS = 60.0


class Budget:
    """Counts questions."""

    def __init__(self, *, per_minute: int, per_pod: int) -> None:
        self._per_minute = per_minute
        self._left = per_pod
        self._spent: deque[float] = deque()

    def take(self, at: float) -> bool:
        """Whether one more question may be asked at a moment, in seconds of a clock that only goes forward."""
        while self._spent and self._spent[0] <= at - _MINUTE_SECONDS:
            self._spent.popleft()
        if self._left <= 0 or len(self._spent) >= self._per_minute:
            return False
        self._left -= 1
        self._spent.append(at)
        return True
