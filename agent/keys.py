"""Configuration keys: what kinds of value there are, and how a dataclass declares the keys it is read from.

A key is declared once, as a dataclass field made by `key()`. Reading, error messages, `config show`, the JSON Schema
and the reference are all derived from that declaration. voluptuous walks the mappings and collects every problem.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

import voluptuous as vol

from agent.model import Secret

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

NOTHING = object()
"""What a key that was left out got."""


class Unexpected(Exception):  # noqa: N818 - the word of the message it becomes
    """A value is not what a kind reads. The text, if any, says what is wrong with it."""


def shown(value: object, limit: int = 60) -> str:
    """A value as it appears in a message after `got`."""
    if value is NOTHING:
        return "nothing"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[T]):
    """One kind of value: how it is read, shown, described to people and to editors."""

    expected: str
    """Completes `expected …` in a message."""
    read: Callable[[Any], T]
    """From the plain YAML value; raises Unexpected (or vol.Invalid with a path inside the value)."""
    show: Callable[[T], Any] = lambda value: value
    """Back to a plain value, secrets masked."""
    schema: Mapping[str, Any]
    """JSON Schema, draft 2020-12."""
    secret: bool = False
    """The value seen is never part of a message."""

    def __call__(self, raw: Any) -> T:
        """Read one value: the form in which voluptuous uses a kind."""
        try:
            return self.read(raw)
        except Unexpected as error:
            seen = f"a {type(raw).__name__}" if self.secret and raw is not NOTHING else shown(raw)
            reason = f": {error}" if str(error) else ""
            raise vol.Invalid(f"expected {self.expected}, got {seen}{reason}") from None


@dataclass(frozen=True, kw_only=True)
class Key(Generic[T]):
    """One key of a mapping."""

    name: str
    kind: Kind[T]
    doc: str
    default: Any
    """A value of the kind's own type, or NOTHING where the key is required."""

    @property
    def required(self) -> bool:
        return self.default is NOTHING


@dataclass(frozen=True, kw_only=True)
class Check:
    """A rule over several keys of one mapping, asked only where each of them could be read."""

    at: str
    """The key a problem is reported at."""
    needs: tuple[str, ...]
    problem: Callable[..., str | None]
    """Gets the needed values in order; returns `expected …, got …` or None."""


def key(kind: Kind[Any], *, doc: str, default: Any = NOTHING, name: str | None = None) -> Any:
    """Declare a dataclass field that is read from the key of its own name (or `name`)."""
    metadata = {"kind": kind, "doc": doc, "name": name}
    if default is NOTHING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def keys_of(cls: type) -> dict[str, Key[Any]]:
    """The keys a dataclass declares, by field name."""
    return {
        field.name: Key(
            name=field.metadata["name"] or field.name,
            kind=field.metadata["kind"],
            doc=field.metadata["doc"],
            default=NOTHING if field.default is dataclasses.MISSING else field.default,
        )
        for field in dataclasses.fields(cls)
        if "kind" in field.metadata
    }


def checks_of(cls: type) -> tuple[Check, ...]:
    """The rules a dataclass declares over its keys: its attribute CHECKS."""
    checks: tuple[Check, ...] = getattr(cls, "CHECKS", ())
    return checks


def read_mapping(  # noqa: C901 - one problem after the other, in one place
    raw: Any, keys: Mapping[str, Key[Any]], checks: Iterable[Check] = ()
) -> dict[str, Any]:
    """Read a mapping by its keys: {field name: value}, defaults filled in.

    Raises vol.MultipleInvalid with every problem: unknown keys (with the nearest known one), missing ones, values of
    the wrong kind at any depth, and broken checks among the values that could be read.
    """
    if not isinstance(raw, Mapping):
        raise vol.MultipleInvalid([vol.Invalid(f"expected a mapping, got {shown(raw)}")])
    values: dict[str, Any] = {name: k.default for name, k in keys.items() if not k.required}
    unread = {name for name, k in keys.items() if k.required}

    def reader(name: str, kind: Kind[Any]) -> Callable[[Any], Any]:
        def read(value: Any) -> Any:
            unread.add(name)
            values[name] = kind(value)
            unread.discard(name)
            return values[name]

        return read

    errors: list[vol.Invalid] = []
    known = {k.name: vol.Optional(k.name) for k in keys.values()}
    for unknown in [k for k in raw if k not in known]:
        errors.append(vol.Invalid(unknown_key(unknown, known), path=[unknown, UNKNOWN_KEY]))
    for k in keys.values():
        if k.required and k.name not in raw:
            errors.append(vol.Invalid(f"expected {k.kind.expected}, got nothing", path=[k.name]))
    schema = vol.Schema({known[k.name]: reader(name, k.kind) for name, k in keys.items()}, extra=vol.REMOVE_EXTRA)
    try:
        schema(dict(raw))
    except vol.MultipleInvalid as several:
        errors.extend(several.errors)
    for check in checks:
        if unread.isdisjoint(check.needs):
            problem = check.problem(*(values[name] for name in check.needs))
            if problem is not None:
                errors.append(vol.Invalid(problem, path=[keys[check.at].name]))
    if errors:
        raise vol.MultipleInvalid(errors)
    return values


UNKNOWN_KEY = "<key>"
"""Ends the path of a problem that is about a key itself, not about its value."""


def unknown_key(unknown: object, known: Iterable[str]) -> str:
    """The message for a key nobody declared."""
    names = sorted(known)
    near = difflib.get_close_matches(str(unknown), names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"expected one of {', '.join(names)}, got the unknown key {shown(unknown)}{hint}"


# --- kinds of plain values ------------------------------------------------------------------------------------------


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise Unexpected
    return raw


def _non_empty(raw: Any) -> str:
    if not _text(raw):
        raise Unexpected
    return str(raw)


TEXT: Kind[str] = Kind(expected="a string", read=_text, schema={"type": "string"})
NON_EMPTY: Kind[str] = Kind(expected="a non-empty string", read=_non_empty, schema={"type": "string", "minLength": 1})


def _boolean(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise Unexpected
    return raw


BOOLEAN: Kind[bool] = Kind(expected="true or false", read=_boolean, schema={"type": "boolean"})


def integer(minimum: int, maximum: int) -> Kind[int]:
    """A whole number within a range, both ends included."""

    def read(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not minimum <= raw <= maximum:
            raise Unexpected
        return raw

    return Kind(
        expected=f"a whole number from {minimum} to {maximum}",
        read=read,
        schema={"type": "integer", "minimum": minimum, "maximum": maximum},
    )


_DURATION = re.compile(r"(?P<amount>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def show_duration(seconds: float) -> str:
    """A number of seconds with the largest unit that keeps it whole: 90.0 is `90s`, 120.0 is `2m`."""
    for unit in ("d", "h", "m", "s"):
        amount = seconds / _DURATION_UNITS[unit]
        if amount >= 1 and math.isclose(amount, round(amount)):
            return f"{round(amount)}{unit}"
    return f"{seconds * 1000:g}ms"


def duration(minimum: str, maximum: str) -> Kind[float]:
    """A time span with its unit (ms, s, m, h, d), as seconds; within a range, both ends included."""

    def seconds_of(text: str) -> float:
        match = _DURATION.fullmatch(text)
        if match is None:
            raise Unexpected
        return float(match["amount"]) * _DURATION_UNITS[match["unit"]]

    low, high = seconds_of(minimum), seconds_of(maximum)

    def read(raw: Any) -> float:
        seconds = seconds_of(_text(raw))
        if not low <= seconds <= high:
            raise Unexpected
        return seconds

    return Kind(
        expected=f"a duration such as 15s, from {minimum} to {maximum}",
        read=read,
        show=show_duration,
        schema={
            "type": "string",
            "pattern": f"^{_DURATION.pattern.replace('?P<amount>', '').replace('?P<unit>', '')}$",
        },
    )


_SIZE = re.compile(r"(?P<amount>\d+)(?P<unit>B|KiB|MiB|GiB)")
_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def show_size(size_bytes: int) -> str:
    """A number of bytes with the largest unit that keeps it whole."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit}"
    return f"{size_bytes}B"


def size(minimum: str, maximum: str) -> Kind[int]:
    """An amount of bytes with its unit (B, KiB, MiB, GiB); within a range, both ends included."""

    def bytes_of(text: str) -> int:
        match = _SIZE.fullmatch(text)
        if match is None:
            raise Unexpected
        return int(match["amount"]) * _SIZE_UNITS[match["unit"]]

    low, high = bytes_of(minimum), bytes_of(maximum)

    def read(raw: Any) -> int:
        amount = bytes_of(_text(raw))
        if not low <= amount <= high:
            raise Unexpected
        return amount

    return Kind(
        expected=f"a size such as 64KiB, from {minimum} to {maximum}",
        read=read,
        show=show_size,
        schema={"type": "string", "pattern": r"^\d+(B|KiB|MiB|GiB)$"},
    )


def choice(values: type[E]) -> Kind[E]:
    """One member of an enum, by its value."""
    names = [str(member) for member in values]

    def read(raw: Any) -> E:
        # YAML reads `family: 4` as a number.
        text = str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else _text(raw)
        if text not in names:
            raise Unexpected
        return values(text)

    digits = [int(name) for name in names if name.isdigit()]
    return Kind(
        expected=f"one of {', '.join(names)}",
        read=read,
        show=str,
        schema={"enum": [*names, *digits]},
    )


def _regex(raw: Any) -> re.Pattern[str]:
    try:
        return re.compile(_text(raw))
    except re.error as error:
        raise Unexpected(str(error)) from None


REGEX: Kind[re.Pattern[str]] = Kind(
    expected="a regular expression",
    read=_regex,
    show=lambda pattern: pattern.pattern,
    schema={"type": "string", "format": "regex"},
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _cidr(raw: Any) -> Network:
    try:
        return ipaddress.ip_network(_text(raw))
    except ValueError as error:
        raise Unexpected(str(error)) from None


CIDR: Kind[Network] = Kind(expected="a network such as 10.0.0.0/8", read=_cidr, show=str, schema={"type": "string"})

PATH: Kind[Path] = Kind(
    expected="a file path", read=lambda raw: Path(_non_empty(raw)), show=str, schema={"type": "string", "minLength": 1}
)

SECRET: Kind[Secret] = Kind(
    expected="a non-empty string",
    read=lambda raw: Secret(_non_empty(raw)),
    show=lambda _: "***",
    schema={"type": "string", "minLength": 1},
    secret=True,
)
SECRET_FILE: Kind[Secret] = Kind(
    expected="the path of a file that holds the secret",
    read=lambda raw: Secret(path=Path(_non_empty(raw))),
    show=lambda secret: str(secret.path),
    schema={"type": "string", "minLength": 1},
)


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host name or IP address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_HOST_LIMIT = 253  # RFC 1035 section 2.3.4, without the trailing dot
_PORT_LIMIT = 65535


def valid_host(host: str) -> bool:
    """Whether a string is an IP address or a host name (underscores allowed, as Kubernetes and Docker use them)."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.removesuffix(".")
        return 0 < len(name) <= _HOST_LIMIT and all(_HOST_LABEL.fullmatch(label) for label in name.split("."))
    return True


def split_host_port(text: str, default_port: int | None = None) -> HostPort:
    """Split `host:port`, `[2001:db8::1]:port` or, where there is a default port, a bare host. Raises Unexpected."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port_text = rest.removeprefix(":") if rest else ""
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise Unexpected
    elif text.count(":") > 1:
        host, port_text = text, ""
    else:
        host, _, port_text = text.partition(":")
    if not valid_host(host):
        raise Unexpected
    if not port_text and default_port is not None:
        return HostPort(host, default_port)
    if not (port_text.isascii() and port_text.isdigit()) or not 0 < int(port_text) <= _PORT_LIMIT:
        raise Unexpected
    return HostPort(host, int(port_text))


def host_port(default_port: int | None = None) -> Kind[HostPort]:
    """A host and port; the port may be left out where there is a default."""
    optional = "" if default_port is None else f" (port {default_port} where left out)"
    return Kind(
        expected=f"an address such as db.example.com:5432 or [2001:db8::1]:5432{optional}",
        read=lambda raw: split_host_port(_text(raw), default_port),
        show=str,
        schema={"type": "string", "minLength": 1},
    )


HOST: Kind[str] = Kind(
    expected="a host name or an IP address",
    read=lambda raw: raw if valid_host(_text(raw)) else _refuse(),
    schema={"type": "string", "minLength": 1},
)


def _refuse() -> Any:
    raise Unexpected


# --- kinds made of other kinds --------------------------------------------------------------------------------------


def list_of(kind: Kind[T], *, minimum: int = 0) -> Kind[tuple[T, ...]]:
    """A list of one kind, as a tuple."""
    expected = f"a list, each item {kind.expected}" if minimum == 0 else f"a non-empty list, each item {kind.expected}"

    def read(raw: Any) -> tuple[T, ...]:
        if not isinstance(raw, list) or len(raw) < minimum:
            raise Unexpected
        return tuple(collect((index, item, kind) for index, item in enumerate(raw)))

    return Kind(
        expected=expected,
        read=read,
        show=lambda items: [kind.show(item) for item in items],
        schema={"type": "array", "items": kind.schema, **({"minItems": minimum} if minimum else {})},
        secret=kind.secret,
    )


def mapping_of(kind: Kind[T], *, names: Kind[str] = NON_EMPTY) -> Kind[Mapping[str, T]]:
    """A mapping with free names and one kind of value."""

    def read(raw: Any) -> Mapping[str, T]:
        if not isinstance(raw, Mapping):
            raise Unexpected
        read_names = collect((name, name, names) for name in raw)
        return dict(zip(read_names, collect((name, item, kind) for name, item in raw.items()), strict=True))

    return Kind(
        expected=f"a mapping, each value {kind.expected}",
        read=read,
        show=lambda items: {name: kind.show(item) for name, item in items.items()},
        schema={"type": "object", "additionalProperties": kind.schema},
        secret=kind.secret,
    )


def collect(parts: Iterable[tuple[Hashable, Any, Kind[T]]]) -> list[T]:
    """Read the parts of a value, (place, raw value, kind) each, and raise the problems of all of them at once."""
    values: list[T] = []
    errors: list[vol.Invalid] = []
    for place, raw, kind in parts:
        try:
            values.append(kind(raw))
        except vol.Invalid as error:
            error.prepend([place])
            errors.extend(error.errors if isinstance(error, vol.MultipleInvalid) else [error])
    if errors:
        raise vol.MultipleInvalid(errors)
    return values


def section(cls: type[T]) -> Kind[T]:
    """A mapping that becomes a dataclass whose fields were declared with `key()`."""
    keys = keys_of(cls)
    return Kind(
        expected="a mapping",
        read=lambda raw: cls(**read_mapping(raw, keys, checks_of(cls))),
        show=lambda value: show_section(value, keys),
        schema=section_schema(keys),
    )


def show_section(value: object, keys: Mapping[str, Key[Any]]) -> dict[str, Any]:
    """A dataclass as the mapping it could have been read from; keys without a value are left out."""
    return {
        k.name: k.kind.show(getattr(value, field)) for field, k in keys.items() if getattr(value, field) is not None
    }


def section_schema(keys: Mapping[str, Key[Any]]) -> dict[str, Any]:
    """JSON Schema of a mapping with these keys."""
    return {
        "type": "object",
        "properties": {k.name: key_schema(k) for k in keys.values()},
        "required": sorted(k.name for k in keys.values() if k.required),
        "additionalProperties": False,
    }


def key_schema(k: Key[Any]) -> dict[str, Any]:
    """JSON Schema of one key: its kind, what it is for, and its default."""
    schema: dict[str, Any] = {"description": k.doc, **k.kind.schema}
    if not k.required and k.default is not None:
        schema["default"] = k.kind.show(k.default)
    return schema
