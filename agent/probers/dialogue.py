"""A dialogue with a TCP server, in bytes: what is sent, what is waited for, and where TLS begins."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.keys import NON_EMPTY, Kind, Unexpected, compile_regex, integer, key, keys_of, section
from agent.model import Fact, Phase, Reason
from agent.net.connect import Stream
from agent.net.tls import TLS_ALERT
from agent.prober import ProbeFailure, Recorder, excerpt

T = TypeVar("T")

STEPS_LIMIT = 32
"""More steps than any greeting needs; a run keeps its order and its sentence readable."""

_LENGTH_LIMIT = 64 * 1024
_MASKED_WORD_BYTES = 4
"""Shorter words of what was sent are no secrets, and hiding them would make every reply unreadable."""
_MASKED_PART_BYTES = 3
"""Shorter parts of a word tell too little of it."""
_EXCERPT_BYTES = 240
"""More than an excerpt shows, be it in characters of four bytes."""


class Payload(bytes):
    """Bytes to send. They may hold a password, so that they show themselves to nobody."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Payload(***)"

    __str__ = __repr__


def _hex(raw: Any) -> bytes:
    try:
        data = bytes.fromhex(raw) if isinstance(raw, str) else b""
    except ValueError:
        data = b""
    if not data:
        raise Unexpected
    return data


def _text(raw: Any) -> Payload:
    text = NON_EMPTY.read(raw)
    if r"\r" in text or r"\n" in text:
        # Nobody means these two characters: bytes that hold them can be written as send_hex.
        raise Unexpected("it holds a backslash and a letter where YAML makes a line end only within double quotes")
    return Payload(text.encode())


def _pattern(raw: Any) -> re.Pattern[bytes]:
    if not isinstance(raw, str):
        raise Unexpected
    return compile_regex(raw.encode())


def _true(raw: Any) -> bool:
    if raw is not True:
        raise Unexpected
    return True


_SENT_TEXT: Kind[Payload] = Kind(
    expected=NON_EMPTY.expected,
    read=_text,
    show=lambda _: "***",
    schema=NON_EMPTY.schema,
    secret=True,
)
_HEX_SCHEMA = {"type": "string", "pattern": r"^\s*([0-9A-Fa-f]{2}\s*)+$"}
_SENT_HEX: Kind[Payload] = Kind(
    expected="bytes in hexadecimal such as 0d0a",
    read=lambda raw: Payload(_hex(raw)),
    show=lambda _: "***",
    schema=_HEX_SCHEMA,
    secret=True,
)
_HEX: Kind[bytes] = Kind(
    expected="bytes in hexadecimal such as 0d0a", read=_hex, show=lambda data: data.hex(), schema=_HEX_SCHEMA
)
_BYTES_OF_TEXT: Kind[bytes] = Kind(
    expected=NON_EMPTY.expected,
    read=lambda raw: NON_EMPTY.read(raw).encode(),
    show=lambda data: data.decode(),
    schema=NON_EMPTY.schema,
)
_BYTES_REGEX: Kind[re.Pattern[bytes]] = Kind(
    expected="a regular expression",
    read=_pattern,
    show=lambda pattern: pattern.pattern.decode(),
    schema={"type": "string", "format": "regex"},
)
_ONLY_TRUE: Kind[bool] = Kind(expected="true", read=_true, schema={"const": True})


def exactly_one(cls: type[T]) -> Kind[T]:
    """A mapping that becomes a dataclass of optional keys, with exactly one of them given."""
    whole = section(cls)
    names = [k.name for k in keys_of(cls).values()]

    def read(raw: Any) -> T:
        value = whole.read(raw)
        given = [name for name in names if name in raw]
        if len(given) != 1:
            raise Unexpected(" and ".join(given) or "none of them")
        return value

    return Kind(
        expected=f"a mapping with exactly one of {', '.join(names)}",
        read=read,
        show=whole.show,
        schema={**whole.schema, "minProperties": 1, "maxProperties": 1},
        keys=whole.keys,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """A reply known to the byte, by its length or by its value."""

    length: int | None = key(integer(1, _LENGTH_LIMIT), default=None, doc="So many bytes, whatever they are.")
    hex: bytes | None = key(_HEX, default=None, doc="These bytes, in hexadecimal.")
    text: bytes | None = key(_BYTES_OF_TEXT, default=None, doc="This text, in UTF-8.")

    @property
    def value(self) -> bytes | None:
        return self.hex if self.hex is not None else self.text

    @property
    def size(self) -> int:
        return len(self.value) if self.value is not None else self.length or 0

    def __str__(self) -> str:
        if self.text is not None:
            return f"the bytes {excerpt(self.text)}"
        return f"the bytes {self.hex.hex()[:60]}" if self.hex is not None else f"{self.length} bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    send: Payload | None = key(
        _SENT_TEXT, default=None, doc="Send this text in UTF-8, as it is: no line end is added. Shown nowhere."
    )
    send_hex: Payload | None = key(_SENT_HEX, default=None, doc="Send these bytes, in hexadecimal. Shown nowhere.")
    expect: re.Pattern[bytes] | None = key(
        _BYTES_REGEX,
        default=None,
        doc=(
            "Read until this pattern is found in what has arrived since the last step; no line end is needed. It is "
            "a pattern of bytes: `\\xNN` is one byte, `^` and `$` are the ends of what has arrived so far."
        ),
    )
    expect_bytes: Exact | None = key(
        exactly_one(Exact), default=None, doc="Read an exact number of bytes, or an exact value."
    )
    starttls: bool | None = key(
        _ONLY_TRUE, default=None, doc="Make a TLS handshake now, with the target's tls options."
    )

    @property
    def payload(self) -> Payload | None:
        return self.send if self.send is not None else self.send_hex


class Dialogue:
    """One dialogue on one connection. What a step leaves unread is there for the next one."""

    def __init__(
        self,
        stream: Stream,
        recorder: Recorder,
        steps: Sequence[Step],
        *,
        read_limit: int,
        start_tls: Callable[[], Awaitable[None]],
    ) -> None:
        """`read_limit`: bytes that may wait for a pattern; `start_tls` makes the handshake of a starttls step."""
        self._stream = stream
        self._recorder = recorder
        self._steps = steps
        self._read_limit = read_limit
        self._start_tls = start_tls
        self._said = _words(steps)
        self._received = bytearray()
        self.heard = False
        """The peer has said something since the connection, or TLS on it, began."""

    async def hold(self) -> None:
        """Take one step after the other.

        Raises ProbeFailure for a reply that is not the expected one, OSError, EOFError, ssl.SSLError.
        """
        for number, step in enumerate(self._steps, start=1):
            self._recorder.at = f"step {number} of {len(self._steps)}"
            await self._take(step)
        self._recorder.at = None

    async def _take(self, step: Step) -> None:
        if step.payload is not None:
            with self._recorder.phase(Phase.REQUEST):
                self._stream.writer.write(step.payload)
                await self._stream.writer.drain()
        elif step.expect is not None:
            await self._find(step.expect)
        elif step.expect_bytes is not None:
            await self._read_exactly(step.expect_bytes)
        else:
            early = bytes(self._received) + self._stream.unread
            if early:
                detail = f"expected nothing more before the TLS handshake, got {self._seen(early)}"
                raise ProbeFailure(Reason.NOT_TLS, detail, phase=Phase.TLS)
            await self._start_tls()
            self.heard = False

    async def _find(self, pattern: re.Pattern[bytes]) -> None:
        wanted = f"a reply that matches {excerpt(pattern.pattern)}"

        def find(received: bytearray) -> int | None:
            match = pattern.search(received)
            if match is not None:
                return match.end()
            if len(received) >= self._read_limit:
                raise self._unexpected(wanted, f"{len(received)} bytes that do not: {self._seen(received)}")
            return None

        await self._read_until(find, wanted, self._read_limit)

    async def _read_exactly(self, exact: Exact) -> None:
        wanted = str(exact)

        def compare(received: bytearray) -> int | None:
            # The first byte that differs decides: nobody waits for the others.
            if exact.value is not None and exact.value[: len(received)] != received[: exact.size]:
                raise self._unexpected(wanted, self._seen(received[: exact.size]))
            return exact.size if len(received) >= exact.size else None

        await self._read_until(compare, wanted, exact.size)

    async def _read_until(self, judge: Callable[[bytearray], int | None], wanted: str, limit: int) -> None:
        """Read until `judge` says how many bytes the reply takes, holding at most `limit` bytes."""
        received = self._received
        self._recorder.awaited = lambda: f"expected {wanted}, got {self._seen(received) if received else 'no answer'}"
        while True:
            if received:
                with self._recorder.phase(Phase.VERIFY):
                    taken = judge(received)
                if taken is not None:
                    del received[:taken]
                    self._recorder.awaited = None
                    return
            with self._recorder.phase(Phase.REQUEST):
                data = await self._stream.read(limit - len(received))
                if not data and not received:
                    raise EOFError
            if not data:
                raise self._unexpected(wanted, f"{self._seen(received)} and then the end of the connection")
            self.heard = True
            received += data
            if Fact.SERVER_SIGNATURE not in self._recorder.facts:
                self._recorder.facts[Fact.SERVER_SIGNATURE] = self._seen(data)[1:-1]
                if data.startswith(TLS_ALERT) and Fact.TLS_VERSION not in self._recorder.facts:
                    self._recorder.facts[Fact.TLS_WANTED] = True

    def _unexpected(self, wanted: str, got: str) -> ProbeFailure:
        return ProbeFailure(Reason.UNEXPECTED_REPLY, f"expected {wanted}, got {got}", phase=Phase.VERIFY)

    def _seen(self, data: bytes | bytearray) -> str:
        """An excerpt of what the peer said, without what it repeats of what we said.

        A step, a segment or a limit may have cut words off at both ends: their parts are left out as well.
        """
        shown = bytes(data)
        for word in self._said:
            shown = shown.replace(word, b"***")
        if len(shown) >= _MASKED_PART_BYTES and any(shown[:_EXCERPT_BYTES] in word for word in self._said):
            return excerpt(b"***")
        ends = max((n for word in self._said for n in _parts(word) if shown.endswith(word[:n])), default=0)
        shown = shown[: len(shown) - ends] + b"***" * (ends > 0)
        begins = max((n for word in self._said for n in _parts(word) if shown.startswith(word[-n:])), default=0)
        return excerpt(b"***" * (begins > 0) + shown[begins:])


def _parts(word: bytes) -> range:
    """The lengths of the parts of a word that would tell something."""
    return range(_MASKED_PART_BYTES, min(len(word), _EXCERPT_BYTES))


def _words(steps: Sequence[Step]) -> tuple[bytes, ...]:
    """Whatever was sent, and each word of it that is long enough to be a secret; the longest first."""
    said = {payload.strip() for step in steps if (payload := step.payload) is not None}
    said |= {word for payload in said for word in _BETWEEN_WORDS.split(payload)}
    return tuple(sorted((word for word in said if len(word) >= _MASKED_WORD_BYTES), key=len, reverse=True))


_BETWEEN_WORDS = re.compile(rb"[\x00-\x20\"':=,;&]+")
