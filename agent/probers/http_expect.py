"""What is expected of an HTTP answer, and the verdict on one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.keys import NOTHING, REGEX, Check, Kind, Unexpected, key, list_of, mapping_of, section, typed
from agent.model import Phase, Reason
from agent.net.http1 import Head
from agent.prober import ProbeFailure, excerpt

Mask = Callable[[str], str]
"""Takes every secret of the target out of a text."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_LOWEST_STATUS, _HIGHEST_STATUS = 100, 599


# --- kinds of values ------------------------------------------------------------------------------------------------


def _header_name(raw: Any) -> str:
    if not isinstance(raw, str) or _TOKEN.fullmatch(raw) is None:
        raise Unexpected
    return raw


HEADER_NAME: Kind[str] = Kind(
    expected="the name of a header", read=_header_name, schema={"type": "string", "minLength": 1}
)


_HEADER_PATTERNS = mapping_of(REGEX, names=HEADER_NAME)
EXPECTED_HEADERS: Kind[tuple[tuple[str, re.Pattern[str]], ...]] = Kind(
    expected="a mapping of header names to regular expressions",
    read=lambda raw: tuple(_HEADER_PATTERNS.read(raw).items()),
    show=lambda headers: _HEADER_PATTERNS.show(dict(headers)),
    schema=_HEADER_PATTERNS.schema,
)


@dataclass(frozen=True, slots=True)
class StatusRange:
    """Status codes from `low` to `high`, both included."""

    low: int
    high: int

    def __contains__(self, status: int) -> bool:
        return self.low <= status <= self.high

    def __str__(self) -> str:
        if self.low == self.high:
            return str(self.low)
        if self.low % 100 == 0 and self.high == self.low + 99:
            return f"{self.low // 100}xx"
        return f"{self.low}-{self.high}"


_STATUS = re.compile(r"(?P<hundred>[1-5])xx|(?P<low>\d{3})(?:-(?P<high>\d{3}))?")


def _status(raw: Any) -> StatusRange:
    # YAML reads `304` as a number.
    text = str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else raw
    match = _STATUS.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise Unexpected
    if match["hundred"]:
        return StatusRange(int(match["hundred"]) * 100, int(match["hundred"]) * 100 + 99)
    low, high = int(match["low"]), int(match["high"] or match["low"])
    if not _LOWEST_STATUS <= low <= high <= _HIGHEST_STATUS:
        raise Unexpected
    return StatusRange(low, high)


STATUS: Kind[StatusRange] = Kind(
    expected="a status code or range such as 200, 2xx or 200-399, within 100 to 599",
    read=_status,
    show=str,
    schema={
        "oneOf": [
            {"type": "string", "pattern": r"^([1-5]xx|[1-5]\d\d(-[1-5]\d\d)?)$"},
            {"type": "integer", "minimum": _LOWEST_STATUS, "maximum": _HIGHEST_STATUS},
        ]
    },
)


def _patterns(raw: Any) -> tuple[re.Pattern[str], ...]:
    return (REGEX(raw),) if isinstance(raw, str) else _PATTERN_LIST.read(raw)


_PATTERN_LIST = list_of(REGEX, minimum=1)
PATTERNS: Kind[tuple[re.Pattern[str], ...]] = Kind(
    expected="a regular expression or a non-empty list of them",
    read=_patterns,
    show=lambda patterns: [pattern.pattern for pattern in patterns],
    schema={"oneOf": [REGEX.schema, _PATTERN_LIST.schema]},
)


def _pointer(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, str) or (raw and not raw.startswith("/")) or re.search("~(?![01])", raw):
        raise Unexpected
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in raw.split("/")[1:])


def _show_pointer(parts: tuple[str, ...]) -> str:
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in parts)


POINTER: Kind[tuple[str, ...]] = Kind(
    expected='a JSON pointer such as /status/0/name (RFC 6901), or "" for the whole document',
    read=_pointer,
    show=_show_pointer,
    schema={"type": "string", "format": "json-pointer"},
)


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A value that JSON can hold; null among them, which is why it is wrapped."""

    value: Any


def _json(raw: Any) -> JsonValue:
    raw = typed(raw)
    try:
        json.dumps(raw, allow_nan=False)
    except (TypeError, ValueError):
        raise Unexpected from None
    return JsonValue(raw)


JSON: Kind[JsonValue] = Kind(
    expected="a value that JSON can hold", read=_json, show=lambda wrapped: wrapped.value, schema={}
)


# --- keys -----------------------------------------------------------------------------------------------------------


def _one_of(equals: JsonValue | None, matches: re.Pattern[str] | None) -> str | None:
    return "expected equals or matches, got both" if equals is not None and matches is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonExpectation:
    """What one place in a JSON body must hold."""

    CHECKS = (Check(at="matches", needs=("equals", "matches"), problem=_one_of),)

    pointer: tuple[str, ...] = key(POINTER, doc="Where in the document (RFC 6901). It must exist.")
    equals: JsonValue | None = key(JSON, default=None, doc="The value it must hold, of the same JSON type.")
    matches: re.Pattern[str] | None = key(
        REGEX, default=None, doc="What the text there must match anywhere; a value of another type as its JSON."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpExpectations:
    """What the final answer must be."""

    status: tuple[StatusRange, ...] = key(
        list_of(STATUS, minimum=1),
        default=(StatusRange(200, 299),),
        doc="Status codes that are right: 304, 2xx, 200-399.",
    )
    headers: tuple[tuple[str, re.Pattern[str]], ...] = key(
        EXPECTED_HEADERS,
        default=(),
        doc="Headers that must be there, and what one of their values must match anywhere.",
    )
    body_matches: tuple[re.Pattern[str], ...] = key(
        PATTERNS, default=(), doc="What the decompressed body must match anywhere: all of them, where it is a list."
    )
    body_not_matches: tuple[re.Pattern[str], ...] = key(
        PATTERNS, default=(), doc="What the decompressed body must not match: none of them, where it is a list."
    )
    json: tuple[JsonExpectation, ...] = key(
        list_of(section(JsonExpectation)), default=(), doc="What places of a JSON body must hold."
    )


# --- verdict --------------------------------------------------------------------------------------------------------


def judge_status(expected: HttpExpectations, head: Head, body: bytes | bytearray, mask: Mask) -> None:
    """Raise ProbeFailure where the status is not one that is expected."""
    if any(head.status in statuses for statuses in expected.status):
        return
    text = _text(head, body)
    title = _TITLE.search(text, 0, _QUOTED_FROM)
    said = f": {_quote(title[1] if title else text, mask)}" if text else ""
    detail = f"expected status {', '.join(map(str, expected.status))}, got {mask(head.status_line)}{said}"
    raise ProbeFailure(Reason.UNEXPECTED_STATUS, detail, phase=Phase.VERIFY)


def judge_headers(expected: HttpExpectations, head: Head, mask: Mask) -> None:
    """Raise ProbeFailure where a header is missing, or none of its values is as expected."""
    for name, pattern in expected.headers:
        values = head.headers.getall(name, [])
        if not any(pattern.search(value) for value in values):
            seen = ", ".join(_quote(value, mask) for value in values[:3]) or "no such header"
            detail = f"expected header {name} to match {pattern.pattern!r}, got {seen}"
            raise ProbeFailure(Reason.UNEXPECTED_HEADER, detail, phase=Phase.VERIFY)


def judge_body(expected: HttpExpectations, head: Head, body: bytes | bytearray, mask: Mask) -> None:
    """Raise ProbeFailure where the body is not as expected."""
    if not (expected.body_matches or expected.body_not_matches or expected.json):
        return
    text = _text(head, body)
    for pattern in expected.body_matches:
        if pattern.search(text) is None:
            seen = _quote(text, mask) if text else "an empty body"
            raise _unexpected_body(f"expected a body that matches {pattern.pattern!r}, got {seen}")
    for pattern in expected.body_not_matches:
        if (match := pattern.search(text)) is not None:
            seen = _quote(match[0], mask)
            raise _unexpected_body(f"expected a body that does not match {pattern.pattern!r}, got {seen}")
    if expected.json:
        _judge_json(expected.json, text, mask)


def _judge_json(expected: tuple[JsonExpectation, ...], text: str, mask: Mask) -> None:
    try:
        document = json.loads(text)
        for expectation in expected:
            _judge_place(expectation, document, text, mask)
    except (ValueError, RecursionError) as error:
        seen = _quote(text, mask) if text else "an empty body"
        flaw = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _unexpected_body(f"expected a body in JSON, got {seen}: {flaw}") from None


def _judge_place(expected: JsonExpectation, document: Any, text: str, mask: Mask) -> None:
    place = f"{_show_pointer(expected.pointer)!r} in the JSON body"
    value = _value_at(document, expected.pointer)
    if value is NOTHING:
        raise _unexpected_body(f"expected {place}, got {_quote(text, mask)}")
    if expected.equals is not None and not _same(value, expected.equals.value):
        wanted = excerpt(json.dumps(expected.equals.value))[1:-1]
        raise _unexpected_body(f"expected {place} to be {wanted}, got {_json_excerpt(value, mask)}")
    if expected.matches is not None:
        seen = value if isinstance(value, str) else json.dumps(value)
        if expected.matches.search(seen) is None:
            pattern = expected.matches.pattern
            raise _unexpected_body(f"expected {place} to match {pattern!r}, got {_json_excerpt(value, mask)}")


def _value_at(document: Any, pointer: tuple[str, ...]) -> Any:
    """The value a JSON pointer names, or NOTHING."""
    for part in pointer:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list) and re.fullmatch("0|[1-9][0-9]{0,8}", part) and int(part) < len(document):
            document = document[int(part)]
        else:
            return NOTHING
    return document


def _same(seen: Any, wanted: Any) -> bool:
    """Equal as JSON values: true is not 1, and 1 is 1.0."""
    if isinstance(seen, bool) or isinstance(wanted, bool):
        return seen is wanted
    if isinstance(seen, dict) and isinstance(wanted, dict):
        return seen.keys() == wanted.keys() and all(_same(seen[name], wanted[name]) for name in seen)
    if isinstance(seen, list) and isinstance(wanted, list):
        return len(seen) == len(wanted) and all(map(_same, seen, wanted))
    return bool(seen == wanted)


def _unexpected_body(detail: str) -> ProbeFailure:
    return ProbeFailure(Reason.UNEXPECTED_BODY, detail, phase=Phase.VERIFY)


_TITLE = re.compile(r"<title>\s*([^<]+)", re.IGNORECASE)
"""What an error page says before all its markup."""
# Charsets of the web. Python knows more: some are not text, and decoding punycode takes quadratic time.
_CHARSET = re.compile(
    r"charset=\"?(utf-(?:8|16|32)|(?:us-)?ascii|iso-8859-\d\d?|windows-125\d|koi8-[ru]|shift_jis|euc-(?:jp|kr)|gb(?:k|18030)|big5)"
    r"(?![\w-])",
    re.ASCII | re.IGNORECASE,
)


def _text(head: Head, body: bytes | bytearray) -> str:
    match = _CHARSET.search(head.headers.get("Content-Type", ""))
    try:
        return body.decode(match[1] if match else "utf-8", "replace")
    except LookupError:  # there is no iso-8859-12
        return body.decode("utf-8", "replace")


_QUOTED_FROM = 4096
"""Characters of a text of which an excerpt may be made: secrets are taken out before anything is cut off."""


def _quote(text: str, mask: Mask) -> str:
    return excerpt(mask(text[:_QUOTED_FROM]))


def _json_excerpt(value: Any, mask: Mask) -> str:
    return excerpt(mask(json.dumps(value, ensure_ascii=False)[:_QUOTED_FROM]))[1:-1]
