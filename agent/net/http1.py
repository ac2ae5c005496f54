"""HTTP/1.1 on a connected stream: one request, one answer, every part of it bounded.

aiohttp's parser does the reading. Its client is left out: it would connect, resolve, pool, redirect and decompress in
ways of its own, which the prober must see and bound, and it costs more CPU than the rest of a probe.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, PayloadEncodingError
from aiohttp.streams import StreamReader as Payload
from multidict import CIMultiDictProxy

from agent.model import Fact, Reason
from agent.net.connect import Stream
from agent.net.tls import TLS_ALERT
from agent.prober import ProbeFailure, Recorder, excerpt

LINE_LIMIT_BYTES = 8190
"""The longest status line or header, as in Apache's httpd."""
HEADERS_LIMIT = 128
HEAD_LINES_LIMIT = 8 * HEADERS_LIMIT
"""Lines up to the end of the final head: empty ones before it and informational answers count."""
_READ_BYTES = 64 * 1024
# What one read can hold never reaches this, so that the parser never has to pause.
_PAYLOAD_LIMIT_BYTES = 16 * _READ_BYTES
_SWITCHING_PROTOCOLS = 101
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What a header's value never holds, RFC 9110, section 5.5."""


@dataclass(frozen=True, slots=True)
class Head:
    """The status line and headers of an answer."""

    status: int
    reason: str
    version: str
    """`1.1`"""
    headers: CIMultiDictProxy[str]

    @property
    def status_line(self) -> str:
        """`404 Not Found`, for a sentence."""
        return f"{self.status} {self.reason}" if self.reason and self.reason.isprintable() else str(self.status)


def request_bytes(method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """A request as it goes over the wire.

    Raises ProbeFailure where a value would be more than the header it belongs to: a secret's file can hold anything.
    """
    lines = ""
    for name, value in headers:
        if _CONTROL.search(value) is not None:
            detail = f"expected the value configured for the header {name} on one line, got control characters in it"
            raise ProbeFailure(Reason.INTERNAL, detail)
        lines += f"{name}: {value}\r\n"
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body


class Answer:
    """The answer to one request, read as it comes."""

    def __init__(self, stream: Stream, notes: Recorder, *, to_head: bool = False) -> None:
        """Read what a stream brings; the answer to a HEAD request has no body, whatever its headers say."""
        loop = asyncio.get_running_loop()
        self._stream = stream
        self._notes = notes
        self._to_head = to_head
        self._parser = HttpResponseParser(
            BaseProtocol(loop),
            loop,
            _PAYLOAD_LIMIT_BYTES,
            max_line_size=LINE_LIMIT_BYTES,
            max_field_size=LINE_LIMIT_BYTES,
            max_headers=HEADERS_LIMIT,
            response_with_body=not to_head,
            read_until_eof=True,
            auto_decompress=False,
        )
        self._payload: Payload | None = None
        self._rest = b""
        """What came with the head and is not part of it."""

    async def head(self) -> Head:
        """The final status line and headers; informational answers (1xx) before it are skipped.

        Raises aiohttp.http_exceptions.HttpProcessingError, ProbeFailure, EOFError, OSError.
        """
        lines = 0
        while True:
            data = await self._stream.read(_READ_BYTES)
            if not data:
                raise EOFError
            if not lines and data.startswith(TLS_ALERT):
                self._notes.facts[Fact.TLS_WANTED] = True
                peer = self._notes.facts.get(Fact.ADDRESS, "the peer")
                detail = f"expected HTTP/1.1 from {peer}, got {excerpt(data)}, an alert of TLS: the port wants TLS"
                raise ProbeFailure(Reason.PROTOCOL_ERROR, detail)
            begin = 0
            # A line at a time: what follows the head must not be read as a part of it, see read().
            while begin < len(data):
                end = data.find(b"\n", begin) + 1 or len(data)
                lines += 1
                if lines > HEAD_LINES_LIMIT:
                    raise BadHttpMessage(f"more than {HEAD_LINES_LIMIT} lines before the end of its head")
                messages, _, _ = self._parser.feed_data(data[begin:end])
                begin = end
                for message, payload in messages:
                    if 100 <= message.code < 200 and message.code != _SWITCHING_PROTOCOLS:  # noqa: PLR2004 - 1xx
                        continue
                    self._payload, self._rest = payload, data[begin:]
                    version = f"{message.version.major}.{message.version.minor}"
                    return Head(message.code, message.reason, version, message.headers)

    @property
    def rest(self) -> bytes:
        """What came behind the head in the same read."""
        return self._rest

    async def read(self) -> bytes:
        """The next piece of the body, without its framing; empty at its end. Bytes behind the end are not looked at.

        Raises aiohttp.http_exceptions.HttpProcessingError, EOFError (it ended too early), OSError.
        """
        payload = self._payload
        if payload is None or self._to_head:
            return b""
        while True:
            if self._rest:
                data, self._rest = self._rest, b""
                try:
                    self._parser.feed_data(data)
                except HttpProcessingError:
                    if not payload.is_eof():
                        raise
            if piece := payload.read_nowait():
                return piece
            if payload.is_eof():
                return b""
            await asyncio.sleep(0)  # what has arrived is read without waiting, and unpacking it takes its time
            self._rest = await self._stream.read(_READ_BYTES)
            if not self._rest:
                self._end()

    def _end(self) -> None:
        """The connection has ended; so has a body without a length of its own."""
        try:
            self._parser.feed_eof()
        except PayloadEncodingError:
            raise EOFError from None
