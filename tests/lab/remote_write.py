"""A receiver of remote write that answers as a test wants, and reads what it gets with libraries that are not ours."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.lab.http_servers import HttpServer, Received, response

STALE = 0x7FF0000000000002


@dataclass(frozen=True)
class Sample:
    value: float
    timestamp_ms: int

    @property
    def stale(self) -> bool:
        """Whether it says that its series has ended."""
        (bits,) = struct.unpack("<Q", struct.pack("<d", self.value))
        return bool(bits == STALE)


Written = Mapping[tuple[tuple[str, str], ...], list[Sample]]
"""The samples of each series, by its labels in the order they came in."""


def decoded(body: bytes) -> Written:
    """The series of a request, as Protocol Buffers and Snappy by others read them."""
    request = _message()()
    request.ParseFromString(bytes(cramjam.snappy.decompress_raw(body)))
    found: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for series in request.timeseries:
        labels = tuple((label.name, label.value) for label in series.labels)
        assert labels not in found, f"twice: {labels}"
        found[labels] = [Sample(sample.value, sample.timestamp) for sample in series.samples]
    return found


@cache
def _message() -> Any:
    """prometheus.WriteRequest, from its definition."""
    file = descriptor_pb2.FileDescriptorProto(name="remote.proto", package="prometheus", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    shapes: dict[str, list[tuple[str, Any, str | None]]] = {
        "Label": [("name", field.TYPE_STRING, None), ("value", field.TYPE_STRING, None)],
        "Sample": [("value", field.TYPE_DOUBLE, None), ("timestamp", field.TYPE_INT64, None)],
        "TimeSeries": [("labels", field.TYPE_MESSAGE, "Label"), ("samples", field.TYPE_MESSAGE, "Sample")],
        "WriteRequest": [("timeseries", field.TYPE_MESSAGE, "TimeSeries")],
    }
    for name, members in shapes.items():
        message = file.message_type.add(name=name)
        for number, (member, kind, of) in enumerate(members, start=1):
            added = message.field.add(name=member, number=number, type=kind)
            added.label = field.LABEL_REPEATED if of else field.LABEL_OPTIONAL
            if of:
                added.type_name = f".prometheus.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.WriteRequest"))


class Scripted(HttpServer):
    """Answers each request with the next of some answers, and with the last one for ever."""

    def __init__(self, *answers: bytes | Callable[[], bytes], **options: Any) -> None:
        super().__init__(self._next, **options)
        self._answers = list(answers)
        self.taken: list[Written] = []
        """What was answered with 2xx."""
        self.arrived = asyncio.Event()

    def _next(self, request: Received) -> bytes:
        answer = self._answers[0]
        if len(self._answers) > 1:
            del self._answers[0]
        answer = answer if isinstance(answer, bytes) else answer()
        if answer.startswith(b"HTTP/1.1 2"):
            self.taken.append(decoded(request.body))
        self.arrived.set()
        return answer


TAKEN = response("204 No Content")
LOST = b""
"""Closed without a word, after the whole request has been read."""


def series(written: Written, name: str, **labels: str) -> list[Sample]:
    """The samples of the one series with this name and these labels."""
    wanted = {("__name__", name), *labels.items()}
    found = [samples for its, samples in written.items() if wanted <= set(its)]
    assert len(found) == 1, f"{len(found)} series {name} {labels} in {sorted(map(dict_of, written), key=str)}"
    return found[0]


def names(written: Written) -> set[str]:
    return {dict_of(labels)["__name__"] for labels in written}


def dict_of(labels: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return dict(labels)


def values(samples: list[Sample]) -> list[float | str]:
    """What the samples say, a repeated value once: `0`, `3`, `stale`."""
    said: list[float | str] = []
    for sample in samples:
        value: float | str = "stale" if sample.stale else "nan" if math.isnan(sample.value) else sample.value
        if not said or said[-1] != value:
            said.append(value)
    return said
