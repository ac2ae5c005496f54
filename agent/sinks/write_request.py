"""The message of Prometheus remote write 1.0, in Protocol Buffers, as pieces of bytes for the packer.

    message WriteRequest { repeated TimeSeries timeseries = 1; }
    message TimeSeries { repeated Label labels = 1; repeated Sample samples = 2; }
    message Label { string name = 1; string value = 2; }
    message Sample { double value = 1; int64 timestamp = 2; }

Four messages, all of whose fields are always written in this order. The library would cost every pod that pushes 6 MB
and a tenth of a second of CPU (docs/decisions.md has the measurement).

https://prometheus.io/docs/specs/prw/remote_write_spec/
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from agent.sinks.snappy import Packer, varint

CONTENT_HEADERS = (
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
    ("X-Prometheus-Remote-Write-Version", "0.1.0"),
)

# Field numbers with their wire types: 2 is a length and so many bytes, 1 is eight bytes, 0 is a varint.
_TIMESERIES = _LABELS = _NAME = b"\x0a"
_SAMPLES = _TEXT = b"\x12"
_VALUE = b"\x09"
_TIMESTAMP = b"\x10"

_STALE = bytes.fromhex("020000000000f07f")
"""The NaN that says a series has ended: 0x7ff0000000000002, which is not the usual one."""


def label(name: str, value: str) -> bytes:
    """One label of a series."""
    key, text = name.encode(), value.encode("utf-8", "replace")
    inner = _NAME + varint(len(key)) + key + _TEXT + varint(len(text)) + text
    return _LABELS + varint(len(inner)) + inner


def sample(value: float, timestamp_ms: int) -> tuple[bytes, bytes]:
    """One sample, cut where many samples are alike: values differ, times do not."""
    return _sample(struct.pack("<d", value), timestamp_ms)


def end(timestamp_ms: int) -> tuple[bytes, bytes]:
    """The sample that says that a series has ended."""
    return _sample(_STALE, timestamp_ms)


def zeros(number: int, until_ms: int) -> bytes:
    """So many samples of zero, a millisecond apart, the last one at a time. A zero need not be written."""
    times = (_TIMESTAMP + varint(at) for at in range(until_ms - number + 1, until_ms + 1))
    return b"".join(_SAMPLES + varint(len(time)) + time for time in times)


def _sample(value: bytes, timestamp_ms: int) -> tuple[bytes, bytes]:
    time = _TIMESTAMP + varint(timestamp_ms)
    return _SAMPLES + varint(len(_VALUE) + len(value) + len(time)) + _VALUE + value, time


def add_series(request: Packer, labels: Sequence[bytes], samples: Sequence[bytes]) -> None:
    """Append a series: its labels in the order of their names, its samples in the order of their times."""
    request.add(_TIMESERIES + varint(sum(map(len, labels)) + sum(map(len, samples))))
    for piece in labels:
        request.add(piece)
    for piece in samples:
        request.add(piece)
