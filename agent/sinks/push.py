"""What brings results out of a pod that nobody scrapes: remote write, and the Pushgateway."""

from __future__ import annotations

from typing import Protocol


class Pusher(Protocol):
    """Sends what the metrics are at its own times, in the background. No method raises."""

    def start(self) -> None:
        """Begin, within a running event loop. Nothing is waited for."""

    async def aclose(self, within_seconds: float) -> None:
        """Send what the metrics are now for the last time, within this time, and end."""
