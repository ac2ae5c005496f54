"""The block format of Snappy, written from pieces: a piece that was there before becomes a reference to it.

What is packed here is made of the same few labels and timestamps again and again, and who makes it knows which: looking
for repetitions would find what is known already. A library would be 4.4 MB of the image and 3 MB of the memory of every
pod that pushes (docs/decisions.md has the measurement).

https://github.com/google/snappy/blob/main/format_description.txt
"""

from __future__ import annotations

_FARTHEST = 0xFFFF
"""How far back a reference of two bytes reaches."""
_LONGEST_COPY = 64
_SHORTEST = 4
"""A reference takes three bytes."""
_LITERAL, _COPY = 0b00, 0b10
_LITERAL_INLINE = 60
"""Literals up to this long have their length in the tag."""


def varint(number: int) -> bytes:
    """A number that is not negative, seven bits a byte, least significant first: as Protocol Buffers write it too."""
    octets = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


class Packer:
    """One block in the making."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._literal = bytearray()
        self._distance = self._length = 0
        """A reference that may go on with the next piece."""
        self._seen: dict[bytes, int] = {}
        self.size = 0
        """Bytes so far, unpacked."""

    def add(self, piece: bytes) -> None:
        """Append a piece."""
        distance = 0
        if len(piece) >= _SHORTEST:
            distance = self.size - self._seen.get(piece, self.size)
            self._seen[piece] = self.size
        self.size += len(piece)
        if not 0 < distance <= _FARTHEST:
            self._end_reference()
            self._literal += piece
        elif distance == self._distance:
            self._length += len(piece)
        else:
            self._end_reference()
            self._end_literal()
            self._distance, self._length = distance, len(piece)

    def finish(self) -> bytes:
        """The block. Nothing can be added any more."""
        self._end_reference()
        self._end_literal()
        return varint(self.size) + self._out

    def _end_reference(self) -> None:
        offset = self._distance.to_bytes(2, "little")
        while self._length:
            copied = min(self._length, _LONGEST_COPY)
            self._out.append((copied - 1) << 2 | _COPY)
            self._out += offset
            self._length -= copied
        self._distance = 0

    def _end_literal(self) -> None:
        last = len(self._literal) - 1
        if last < 0:
            return
        if last < _LITERAL_INLINE:
            self._out.append(last << 2 | _LITERAL)
        else:
            octets = (last.bit_length() + 7) // 8
            self._out.append((_LITERAL_INLINE - 1 + octets) << 2 | _LITERAL)
            self._out += last.to_bytes(octets, "little")
        self._out += self._literal
        self._literal.clear()
