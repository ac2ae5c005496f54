"""When results are pushed, and what happens when that fails: the same for every receiver.

Counters only grow, so that the latest state says all that an earlier one said: what could not be delivered is not
queued, but made anew. The one exception is a request whose fate is unknown. It is sent again as it was, since a
receiver takes no sample that is older than one it has.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque

import structlog

from agent.config.push import PushOptions
from agent.model import Phase, Reason
from agent.scheduler import fraction
from agent.sinks.delivery import Delivery, Receipt, Verdict
from agent.sinks.metrics import Pushes
from agent.sinks.parcel import Contents, Parcel

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
"""Between two tries, doubled each time. The true pause is anything from half of it to the whole: those whose receiver
went away together do not come back together."""
LONGEST_RETRY_AFTER_SECONDS = 300.0
_MARGIN_SECONDS = 0.1
"""Left of the time for the last push, so that what became of it can still be told."""
_UNDELIVERED = frozenset({Verdict.NOT_NOW, Verdict.LOST, Verdict.NOT_SENT})
DOUBT_SECONDS = 300.0
"""How long a request whose fate is unknown is sent again before its samples are given up."""

_log = structlog.get_logger(__name__)


class PeriodicPusher:
    """Pushes once in a while, and once more at the end. Implements Pusher."""

    def __init__(self, name: str, contents: Contents, options: PushOptions, pushes: Pushes, pod: str) -> None:
        """`name` is the section of the configuration, `pod` tells this agent from others of its fleet."""
        self._name = name
        self._contents = contents
        self._interval = options.interval
        self._timeout = options.timeout
        self._address = options.printable_address
        self._delivery = Delivery(options, name)
        self._pushes = pushes
        # Not at once: a pod that is over within half an interval pushes once, at its end.
        self._first_seconds = self._interval * (0.5 + fraction(pod, name))
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[Parcel] = deque()
        """What is left of one state; the first may have been sent already."""
        self._owed = 0
        """Samples of the state that was made last which nobody has taken or refused."""
        self._doubtful_since: float | None = None
        self._not_before = 0.0
        """When the receiver wants to be asked again, as the loop's time. The last push does not wait for it in vain."""
        self._trouble: tuple[Phase, Reason, str] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"push {self._name}")

    async def aclose(self, within_seconds: float) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + within_seconds
        self._closing.set()
        try:
            # A request under way is worth more finished than cut off, but the last one counts.
            await asyncio.wait({task}, timeout=within_seconds / 2)
        finally:
            task.cancel()
        await asyncio.wait({task}, timeout=max(0.0, until - loop.time()))
        try:
            async with asyncio.timeout_at(until):
                await self._push(until, last=True)
        except TimeoutError:
            pass
        except Exception:  # noqa: BLE001 - a defect here must not keep the pod from ending well
            _log.exception("push_broken", sink=self._name)
        self._give_up("the pod has ended")

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._first_seconds
        while not await self._closed_within(max(due, self._not_before) - loop.time()):
            try:
                await self._push(due + self._interval, last=False)
            except Exception:  # noqa: BLE001 - nor end all pushes to come
                _log.exception("push_broken", sink=self._name)
            while due <= loop.time():
                due += self._interval

    async def _closed_within(self, seconds: float) -> bool:
        """Wait; say whether the end has come meanwhile."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await self._closing.wait()
        except TimeoutError:
            return self._closing.is_set()

    async def _push(self, until: float, *, last: bool) -> None:
        """Send what is in doubt and then what the metrics are now, as often as it takes, until a time of the loop."""
        loop = asyncio.get_running_loop()
        composed = refused = False
        tries = 0
        while True:
            if not self._waiting:
                if composed:
                    return
                self._waiting.extend(await self._contents.compose(last=last))
                self._owed = sum(parcel.samples for parcel in self._waiting)
                composed = True
                continue
            parcel = self._waiting[0]
            left = until - loop.time() - (_MARGIN_SECONDS if last else 0.0)
            if left <= 0:
                if self._doubtful_since is None:
                    self._waiting.clear()
                return
            receipt = await self._send(parcel, min(self._timeout, left))
            if receipt.verdict in {Verdict.TAKEN, Verdict.REFUSED, Verdict.TURNED_AWAY}:
                self._settle(parcel, receipt)
                # Without what is too old, the latest values are taken by the same receiver.
                if receipt.verdict is Verdict.REFUSED and parcel.begins and not refused:
                    composed, refused = False, True
                continue
            tries += 1
            composed = composed and bool(self._waiting)
            pause = _pause(tries, receipt.retry_after_seconds)
            self._not_before = loop.time() + pause
            if loop.time() + pause >= until or (not last and await self._closed_within(pause)):
                return
            if last:
                await asyncio.sleep(pause)

    async def _send(self, parcel: Parcel, timeout_seconds: float) -> Receipt:
        loop = asyncio.get_running_loop()
        first = self._doubtful_since is None
        # From here on: also where this is cut off.
        self._doubtful_since = doubtful_since = self._doubtful_since or loop.time()
        receipt = await self._delivery.send(parcel, timeout_seconds)
        if receipt.verdict is Verdict.REFUSED and not first:
            # Its samples are older than what the receiver has: it had come through.
            receipt = Receipt(verdict=Verdict.TAKEN)
        self._note(receipt)
        undelivered = receipt.verdict in _UNDELIVERED
        doubtful = undelivered and not (first and receipt.verdict is not Verdict.LOST)
        if doubtful and loop.time() - doubtful_since < DOUBT_SECONDS:
            return receipt
        self._doubtful_since = None
        if doubtful:
            self._give_up(f"nobody has said what became of them for {DOUBT_SECONDS:g} s")
        elif undelivered:
            self._waiting.clear()  # made anew, with newer values
        return receipt

    def _settle(self, parcel: Parcel, receipt: Receipt) -> None:
        self._waiting.popleft()
        self._owed -= parcel.samples
        if receipt.verdict is Verdict.TAKEN:
            self._pushes.taken += parcel.samples
            self._pushes.last_success_at = time.time()
            parcel.taken()
            return
        self._pushes.dropped += parcel.samples
        if receipt.verdict is Verdict.REFUSED:
            parcel.refused()

    def _give_up(self, why: str) -> None:
        self._waiting.clear()
        self._doubtful_since = None
        if self._owed:
            self._pushes.dropped += self._owed
            _log.warning("push_given_up", sink=self._name, receiver=self._address, samples=self._owed, why=why)
            self._owed = 0

    def _note(self, receipt: Receipt) -> None:
        failure = receipt.failure
        if failure is None:
            self._pushes.succeeded += 1
            if self._trouble is not None:
                self._trouble = None
                _log.info("push_recovered", sink=self._name, receiver=self._address)
            return
        pair = (failure.phase, failure.reason)
        self._pushes.failures[pair] = self._pushes.failures.get(pair, 0) + 1
        # The sentence may hold a time or an address that is another at each try: the verdict tells statuses apart.
        trouble = (*pair, receipt.verdict.name)
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning(
                "push_failed",
                sink=self._name,
                receiver=self._address,
                phase=failure.phase.value,
                reason=failure.reason.value,
                detail=failure.detail,
            )


def _pause(tries: int, retry_after_seconds: float | None) -> float:
    pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 16), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    return max(pause, min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS))
