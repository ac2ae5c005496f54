"""Content codings: a body is decompressed by ourselves, so that no bomb is ever unpacked."""

from __future__ import annotations

import zlib

from agent.model import Phase, Reason
from agent.prober import ProbeFailure, excerpt

ACCEPTED = "gzip, deflate"
"""For Accept-Encoding."""

_GZIP, _ZLIB, _RAW_DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS  # zlib's window bits
_ZLIB_HEADER_BYTES = 2


class Content:
    """A body as it comes in: decompressed, counted, and never held beyond a limit."""

    def __init__(self, coding: str, limit_bytes: int) -> None:
        """`coding` is the value of Content-Encoding. Raises ProbeFailure for one that was not asked for."""
        self._window = _window_of(coding)
        self._limit = limit_bytes
        self._inflater: zlib._Decompress | None = None
        self._undecided = b""
        self._members = 0
        self.data = bytearray()
        """What has come so far, up to the limit."""
        self.overflowed = False
        """There was more than the limit."""

    def feed(self, piece: bytes) -> None:
        """Take the next piece. Raises zlib.error."""
        if not self._window:
            self._keep(piece)
            return
        if self._inflater is None:
            piece = self._undecided = self._undecided + piece
            if len(piece) < _ZLIB_HEADER_BYTES:
                return
            if self._window == _ZLIB and not _has_zlib_header(piece):
                self._window = _RAW_DEFLATE  # what some servers, and RFC 9110, know about
            self._inflater = zlib.decompressobj(self._window)
        try:
            while piece and not self.overflowed:
                if self._inflater.eof:  # gzip allows several members, one behind the other
                    self._members += 1
                    self._inflater = zlib.decompressobj(self._window)
                self._keep(self._inflater.decompress(piece, self._limit - len(self.data) + 1))
                piece = self._inflater.unconsumed_tail or self._inflater.unused_data
        except zlib.error:
            if not self._members:
                raise  # behind a complete member it is padding, which every client ignores

    def finish(self) -> None:
        """The body has ended, or is too large. Raises zlib.error where it ended before what was compressed has."""
        complete = self._inflater.eof or self._members if self._inflater else not self._undecided
        if not complete and not self.overflowed:
            raise zlib.error("the compressed data ended too early")

    def _keep(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > self._limit:
            del self.data[self._limit :]
            self.overflowed = True


def _has_zlib_header(data: bytes) -> bool:
    """RFC 1950, section 2.2: method 8, and a check sum over both bytes."""
    return data[0] & 0x0F == zlib.DEFLATED and (data[0] << 8 | data[1]) % 31 == 0


def _window_of(coding: str) -> int:
    name = coding.strip().lower()
    if name in {"", "identity"}:
        return 0
    if name in {"gzip", "x-gzip"}:
        return _GZIP
    if name == "deflate":
        return _ZLIB
    raise ProbeFailure(
        Reason.PROTOCOL_ERROR,
        f"expected a body compressed with {ACCEPTED} or not at all, got {excerpt(coding)}",
        phase=Phase.TRANSFER,
    )
