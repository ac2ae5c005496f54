"""What a prober is: code that asks one question and raises; and the notebook one run writes into."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from agent.model import DETAIL_LIMIT, Fact, Failure, Phase, Reason, Secret, Target


class ProbeFailure(Exception):  # noqa: N818 - the vocabulary's word for it
    """A prober saw something wrong that no library raises for: the reason and a sentence.

    The phase is the one open in the recorder, unless one is given.
    """

    def __init__(self, reason: Reason, detail: str, *, phase: Phase | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.phase = phase


class Recorder:
    """One run's notebook: times per phase and facts. It outlives the exception and the cancellation."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[Phase, float] = {}
        self._open: Phase | None = None
        self._opened_at = 0.0
        self._last: Phase | None = None
        self.facts: dict[Fact, Any] = {}
        self.at: str | None = None
        """Where the run stands, finer than a phase: `step 2 of 3`. Every failure's sentence begins with it."""
        self.awaited: Callable[[], str] | None = None
        """Says what is waited for and what has come so far, `expected …, got …`: the sentence of a timeout."""
        self.nameserver_is_target = False
        """The nameservers themselves are what is probed, so that they can show that they cannot be reached."""
        self.secrets: list[Secret] = []
        """Those the run uses beside the target's own, such as a password the environment holds for a proxy."""
        self.attempts: list[tuple[Recorder, Failure | None]] = []
        """Where a run makes several attempts: the notebook and the result of each."""
        self.segment_bytes: int | None = None
        """The largest TCP segment its connections may carry, either way; None leaves that to the kernel, as usual."""

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Time what happens inside. A phase entered again adds up; phases do not nest."""
        if self._open is not None:
            raise RuntimeError(f"{phase} begun inside {self._open}")
        self._open = self._last = phase
        self._opened_at = self._clock()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + self._clock() - self._opened_at
            self._open = None

    @property
    def phases(self) -> dict[Phase, float]:
        """Seconds of each phase that was reached, the open one up to now included."""
        seconds = dict(self._seconds)
        if self._open is not None:
            seconds[self._open] = seconds.get(self._open, 0.0) + self._clock() - self._opened_at
        return {phase: seconds[phase] for phase in Phase if phase in seconds}

    @property
    def current(self) -> Phase:
        """The phase that is open, or was last: where an exception belongs."""
        return self._last if self._last is not None else Phase.RESOLVE

    def child(self) -> Recorder:
        """A notebook of its own for one of several attempts, on the same clock."""
        child = Recorder(self._clock)
        child.segment_bytes = self.segment_bytes
        return child

    def adopt(self, child: Recorder) -> None:
        """Add a finished child's times, facts and secrets to this notebook."""
        for phase, seconds in child.phases.items():
            self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds
            self._last = phase
        self.facts.update(child.facts)
        self.secrets += child.secrets


class Prober(Protocol):
    """Code for one type of target. It asks and raises; it never times, retries, logs or judges."""

    def prepare(self, target: Target[Any]) -> None:
        """Do beforehand what the first run would do on the CPU of its neighbours: build what runs of a target share.

        A TLS context takes 20 to 40 ms of CPU. Raises what a run would raise.
        """

    async def probe(self, target: Target[Any], recorder: Recorder) -> None:
        """Ask once. Returns if the answer is as expected; raises otherwise."""

    async def aclose(self) -> None:
        """Release what outlives a run."""


LISTED = 32
"""How many items of a list that a peer made a fact holds at most."""


def listed(items: Iterable[str]) -> list[str]:
    """What a peer sent as a list, as a fact holds it: a message has room for thousands, and for one of 64 KiB."""
    return [item[:DETAIL_LIMIT] + "…" * (len(item) > DETAIL_LIMIT) for item in itertools.islice(items, LISTED)]


def excerpt(data: bytes | str, limit: int = 60) -> str:
    """Something received, as a short printable quotation for a failure's sentence."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    cut = text if len(text) <= limit else text[:limit] + "…"
    return repr(cut)


def shorten(sentence: str, limit: int = DETAIL_LIMIT) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(sentence.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
