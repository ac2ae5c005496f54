"""One request to a receiver, over a fresh connection that is not kept: asked, timed and judged like a probe.

Name, connection, proxy, TLS and credentials are those of an http target, so that no second client is loaded, no
inotify instance and no thread is taken, and a name that nobody answers for cannot outlive the deadline.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto

from aiohttp.http_exceptions import HttpProcessingError

from agent.config.push import PushOptions
from agent.failures import redact
from agent.model import Addresses, Fact, Failure, Phase, Reason, Role, Scope, Target
from agent.net.connect import connect
from agent.net.http1 import Answer, Head
from agent.net.proxy import demand_credentials
from agent.net.resolve import resolve_endpoint
from agent.prober import ProbeFailure, Recorder, excerpt
from agent.probers.http import HttpProber, Request
from agent.probers.http_options import HttpOptions
from agent.runner import run
from agent.sinks.parcel import Parcel

_EXCERPT_BYTES = 300
_EXCERPT_SECONDS = 0.5
"""How long the explanation of an answer that is no good is waited for: the answer itself counts without it."""
_TOO_MANY_REQUESTS, _REQUEST_TIMEOUT = 429, 408
_BAD = frozenset({400, 409, 422})
"""Statuses that speak of the samples, and not of who may send them where."""


class Verdict(Enum):
    """What became of a parcel."""

    TAKEN = auto()
    REFUSED = auto()
    """For good, because of what is in it."""
    TURNED_AWAY = auto()
    """For good, whatever is in it: nobody may send this there."""
    NOT_NOW = auto()
    """The receiver says that it did not take it and that it may later."""
    LOST = auto()
    """It was sent, and what became of it is unknown."""
    NOT_SENT = auto()
    """It never got as far as the receiver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """How one request went."""

    verdict: Verdict
    failure: Failure | None = None
    """None where it was taken."""
    retry_after_seconds: float | None = None
    """When the receiver wants to be asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shipment(HttpOptions):
    """An http target whose body is bytes, and not text from a configuration."""

    payload: bytes

    @property
    def sends_body(self) -> bool:
        return True

    @property
    def request_body(self) -> bytes:
        return self.payload


class _Sender(HttpProber):
    """Sends a shipment, and keeps what the answer asks for."""

    status: int | None = None
    retry_after_seconds: float | None = None

    async def probe(self, target: Target[_Shipment], recorder: Recorder) -> None:  # type: ignore[override]
        self.status = self.retry_after_seconds = None
        options = target.options
        proxy, endpoint = self._way(options.url, options, recorder)
        (address,) = await resolve_endpoint(endpoint, options, recorder, addresses=Addresses.FIRST)
        async with await connect(address, recorder) as stream:
            await self._secure(stream, options.url, proxy, options, recorder)
            wire = Request(options.url, options.method, with_body=True).wire(options, proxy, None)
            with recorder.phase(Phase.REQUEST):
                stream.writer.write(wire)
                answer = Answer(stream, recorder)
                head = await answer.head()
            if proxy is not None and options.url.scheme == "http":
                demand_credentials(proxy, head, recorder)
            self.status = head.status
            self.retry_after_seconds = _seconds_of(head.headers.get("Retry-After", ""))
            if not _is_success(head.status):
                await self._reject(target, head, answer)

    async def _reject(self, target: Target[_Shipment], head: Head, answer: Answer) -> None:
        said = await _beginning(answer)
        quoted = f": {redact(excerpt(said, _EXCERPT_BYTES), target)}" if said.strip() else ""
        detail = f"expected 2xx from {target.address}, got {head.status_line}{quoted}"
        raise ProbeFailure(Reason.UNEXPECTED_STATUS, detail, phase=Phase.VERIFY)


class Delivery:
    """Hands parcels over to one receiver."""

    def __init__(self, options: PushOptions, name: str) -> None:
        self._options = options
        self._name = name
        self._sender = _Sender()

    async def send(self, parcel: Parcel, timeout_seconds: float) -> Receipt:
        """Send once. Raises nothing but cancellation: then nothing is known."""
        recorder = Recorder()
        target = self._target(parcel, timeout_seconds)
        outcome = await run(self._sender, target, recorder=recorder)
        if outcome.failure is None or _is_success(self._sender.status):  # however late this process saw it
            return Receipt(verdict=Verdict.TAKEN)
        asked = Phase.REQUEST in recorder.phases
        verdict = _verdict(self._sender.status) if asked else Verdict.NOT_SENT
        if Fact.PROXY in recorder.facts and outcome.failure.phase is Phase.PROXY:
            verdict = Verdict.NOT_SENT
        return Receipt(
            verdict=verdict,
            failure=outcome.failure,
            retry_after_seconds=self._sender.retry_after_seconds if asked else None,
        )

    def _target(self, parcel: Parcel, timeout_seconds: float) -> Target[_Shipment]:
        options = self._options
        return Target(
            name=self._name,
            type=self._name,
            interval_seconds=options.interval,
            timeout_seconds=timeout_seconds,
            confirm_interval_seconds=options.interval,
            confirm_runs=0,
            negative=False,
            gate=False,
            role=Role.CUSTOM,
            scope=Scope.CLUSTER,
            options=_Shipment(
                url=parcel.url,
                method=parcel.method,
                headers=(*options.headers, *parcel.headers, ("Accept-Encoding", "identity")),
                basic_auth=options.basic_auth,
                bearer_token=options.bearer_token,
                bearer_token_file=options.bearer_token_file,
                tls=options.tls,
                resolv_conf=options.resolv_conf,
                proxy=options.proxy,
                payload=parcel.body,
            ),
        )


def _is_success(status: int | None) -> bool:
    return status is not None and 200 <= status <= 299  # noqa: PLR2004 - RFC 9110, section 15.3


def _verdict(status: int | None) -> Verdict:
    if status is None:
        return Verdict.LOST
    if status in {_TOO_MANY_REQUESTS, _REQUEST_TIMEOUT}:
        return Verdict.NOT_NOW
    if status in _BAD:
        return Verdict.REFUSED
    # A receiver made of several, or a proxy in front of one, may say 5xx of what it has stored all the same.
    return Verdict.LOST if status >= 500 else Verdict.TURNED_AWAY  # noqa: PLR2004


async def _beginning(answer: Answer) -> bytes:
    """The first bytes of a body, as many as come soon."""
    said = b""
    with suppress(TimeoutError, OSError, EOFError, HttpProcessingError):
        async with asyncio.timeout(_EXCERPT_SECONDS):
            while len(said) < _EXCERPT_BYTES and (piece := await answer.read()):
                said += piece
    return said[:_EXCERPT_BYTES]


def _seconds_of(retry_after: str) -> float | None:
    """What a Retry-After asks for, RFC 9110, section 10.2.3: so many seconds, or a date."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
