"""How many questions a pod may ask: so many a minute, and so many in its life. Pure, told the time."""

from __future__ import annotations

from collections import deque

PER_MINUTE = 30
"""Enough to tell the causes of one fault apart twice over; of ten thousand pods, no more than their probes ask anyway."""
PER_POD = 3000
"""An outage of hours, at the pace at which answers grow old; what fails longer than that is not explained by asking."""
_MINUTE_SECONDS = 60.0


class Budget:
    """Counts questions."""

    def __init__(self, per_minute: int = PER_MINUTE, per_pod: int = PER_POD) -> None:
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
