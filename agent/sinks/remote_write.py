"""Prometheus remote write: every series of this pod, from a zero at its beginning to a mark at its end.

A receiver knows a counter only by its samples. A pod that was never scraped has none, and one sample alone has no
increase: so a counter begins with zeros, at the last moment at which it is known to have been zero, and increase() and
rate() count what happened in between. docs/push.md says how exactly, and why there is more than one zero.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric
from yarl import URL

from agent.config.push import RemoteWriteOptions
from agent.probers.http_options import Method
from agent.sinks.exposition import SLICE_TARGETS
from agent.sinks.parcel import Parcel
from agent.sinks.selection import pushed
from agent.sinks.snappy import Packer
from agent.sinks.write_request import CONTENT_HEADERS, add_series, end, label, sample, zeros

SERIES_LIMIT = 1000
"""Series in one request: with all of their zeros, a hundred thousand samples."""
OLDEST_ZERO_SECONDS = 1800.0
"""Receivers refuse what is older than half an hour to an hour than the newest sample they have of anybody."""

Series = tuple[bytes, ...]
"""The labels of a series, encoded, in the order of their names."""
_GROWING = frozenset({"counter", "histogram", "summary"})


@dataclass(slots=True)
class _Page:
    """One request in the making."""

    packer: Packer = field(default_factory=Packer)
    series: list[Series] = field(default_factory=list)
    samples: int = 0
    begins: bool = False


class RemoteWrite:
    """Composes the requests of one agent. Implements Contents."""

    def __init__(
        self,
        options: RemoteWriteOptions,
        url: URL,
        slices: Callable[[int], Iterator[Metric]],
        labels: Mapping[str, str],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`labels` stand on every series; `slices` gives the metrics, so many targets at a time."""
        self._url = url
        self._zeros = options.zeros
        self._slices = slices
        self._common = dict(labels)
        self._now = now
        self._encoded: dict[tuple[str, str], bytes] = {}
        self._begun: set[Series] = set()
        """Those the receiver has samples of, or will take no old ones of."""
        self._shown: set[Series] = set()
        """Those of the last state that was taken whole."""
        self._zero_at_ms = self._last_ms = self._moment_ms(0)
        """When everything that has not begun was known to be zero."""

    async def compose(self, *, last: bool) -> Sequence[Parcel]:
        at_ms = self._moment_ms(self._last_ms)
        old = at_ms - self._zero_at_ms > OLDEST_ZERO_SECONDS * 1000
        beginning = b"" if old else zeros(self._zeros, self._zero_at_ms)
        ending = end(at_ms + 1)
        present: set[Series] = set()
        pages = [_Page()]
        for metric in self._slices(SLICE_TARGETS):
            growing = metric.type in _GROWING
            for one in pushed(metric, self._has_begun):
                series = self._series(one.name, one.labels)
                present.add(series)
                page = _with_room(pages)
                samples = list(sample(one.value, at_ms))
                if growing and beginning and series not in self._begun:
                    page.begins = True
                    page.samples += self._zeros
                    samples.insert(0, beginning)
                if last:
                    page.samples += 1
                    samples += ending
                page.samples += 1
                page.series.append(series)
                add_series(page.packer, series, samples)
            await asyncio.sleep(0)
        # One that is gone has ended, and would go on at its last value for minutes.
        for series in self._shown - present:
            page = _with_room(pages)
            page.samples += 1
            add_series(page.packer, series, ending)
        self._last_ms = at_ms + 1
        return [self._parcel(page, present if page is pages[-1] else None, at_ms) for page in pages if page.samples]

    def _parcel(self, page: _Page, whole: set[Series] | None, at_ms: int) -> Parcel:
        """`whole` is every series of this state, for the last request of it."""

        def begin() -> None:
            self._begun.update(page.series)

        def taken() -> None:
            begin()
            if whole is not None:
                self._shown = whole
                self._zero_at_ms = at_ms

        return Parcel(
            method=Method.POST,
            url=self._url,
            headers=CONTENT_HEADERS,
            body=page.packer.finish(),
            samples=page.samples,
            begins=page.begins,
            taken=taken,
            refused=begin,
        )

    def _has_begun(self, name: str, labels: Mapping[str, str]) -> bool:
        return self._series(name, labels) in self._begun

    def _series(self, name: str, labels: Mapping[str, str]) -> Series:
        return tuple(self._labels(sorted({**self._common, **labels, "__name__": name}.items())))

    def _labels(self, pairs: Iterable[tuple[str, str]]) -> Iterator[bytes]:
        for pair in pairs:
            encoded = self._encoded.get(pair)
            if encoded is None:
                encoded = self._encoded[pair] = label(*pair)
            yield encoded

    def _moment_ms(self, after_ms: int) -> int:
        """Now, and later than what was sent before: clocks are set back."""
        return max(int(self._now() * 1000), after_ms + 1)


def _with_room(pages: list[_Page]) -> _Page:
    if len(pages[-1].series) >= SERIES_LIMIT:
        pages.append(_Page())
    return pages[-1]
