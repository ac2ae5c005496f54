"""Configuration keys: what kinds of value there are, and how a dataclass declares the keys it is read from.

A key is declared once, as a dataclass field made by `key()`. Reading, error messages, `config show`, the JSON Schema
and the reference are all derived from that declaration. voluptuous walks the mappings and collects every problem;
docs/decisions.md has the measurement it was chosen by.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import re
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, AnyStr, Generic, Self, TypeVar

import voluptuous as vol

from agent.model import Secret

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

NOTHING = object()
"""The default of a key that may not be left out."""


class Unexpected(Exception):  # noqa: N818 - the word of the message it becomes
    """A value is not what a kind reads. The text, if any, says what is wrong with it."""


class Untyped(str):
    """Text that came out of the environment into an unquoted value, where `8080` may be meant as a number.

    A kind is offered the number (or boolean, or null) first and the text where it takes none: `port: ${PORT}` works,
    and so does `password: ${PASSWORD}` where the password happens to be digits.
    """

    __slots__ = ("typed",)
    typed: object

    def __new__(cls, text: str, typed: object) -> Self:
        self = super().__new__(cls, text)
        self.typed = typed
        return self


def typed(raw: Any) -> Any:
    """A value of free form, such as JSON, with numbers and booleans for what the environment gave unquoted."""
    if isinstance(raw, Untyped):
        return raw.typed
    if isinstance(raw, dict):
        return {name: typed(item) for name, item in raw.items()}
    return [typed(item) for item in raw] if isinstance(raw, list) else raw


def shown(value: object, limit: int = 60) -> str:
    """A value as it appears in a message after `got`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        text = repr(_masked(value) if isinstance(value, str) else value)
        return text if len(text) <= limit else text[:limit] + "…"
    return shown_kind(value)


def without_password(sentence: str) -> str:
    """A sentence as it may be shown: what could be a password in a URL is hidden, rather too much than too little."""
    return re.sub(r"\S+", lambda word: _masked(word[0]), sentence) if "@" in sentence else sentence


def _masked(url: str) -> str:
    at = url.rfind("@")
    scheme = url.find("://", 0, max(at, 0))
    colon = url.find(":", scheme + 3 if scheme >= 0 else 0, max(at, 0))
    return f"{url[:colon]}:***{url[at:]}" if colon >= 0 else url


def shown_kind(value: object) -> str:
    """What a value is, without the value: for messages about secrets."""
    if value is None:
        return "null"
    if value == "":
        return "an empty string"
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", dict: "a mapping", list: "a list"}
    return names.get(type(value), "something else")


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[T]):
    """One kind of value: how it is read, shown, described to people and to editors."""

    expected: str
    """Completes `expected …` in a message."""
    read: Callable[[Any], T]
    """From the plain YAML value; raises Unexpected, ValueError, or vol.Invalid with a path inside the value."""
    show: Callable[[T], Any] = lambda value: value
    """Back to a plain value, secrets masked."""
    schema: Mapping[str, Any]
    """JSON Schema, draft 2020-12."""
    secret: bool = False
    """The value seen is never part of a message."""
    keys: Mapping[str, Key[Any]] | None = None
    """What a mapping, or each item of a list of mappings, holds: for the reference."""

    def __call__(self, raw: Any) -> T:
        """Read one value: the form in which voluptuous uses a kind."""
        if isinstance(raw, Untyped):
            try:
                return self(raw.typed)
            except vol.Invalid as as_typed:
                try:
                    return self(str(raw))
                except vol.Invalid:
                    raise as_typed from None
        try:
            return self.read(raw)
        except (Unexpected, ValueError) as error:
            seen = shown_kind(raw) if self.secret else shown(raw)
            # What a library says may quote a secret.
            why = without_password(str(error)) if isinstance(error, Unexpected) else ""
            raise vol.Invalid(f"expected {self.expected}, got {seen}{f': {why}' if why else ''}") from None


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
    """The key a problem is reported at; where it was not written, the first that was of those needed."""
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


class KeyProblem(vol.Invalid):
    """A problem of a key itself, not of its value."""


class MappingReader:
    """Reads a mapping by its keys: {field name: value}, defaults filled in."""

    def __init__(self, keys: Mapping[str, Key[Any]], checks: Iterable[Check] = ()) -> None:
        self._keys = keys
        self._checks = tuple(checks)
        self._fields = {k.name: field for field, k in keys.items()}
        self._defaults = {field: k.default for field, k in keys.items() if not k.required}
        schema: dict[Any, Any] = {_marker(k): k.kind for k in keys.values()}
        schema[self._unknown] = object
        self._schema = vol.Schema(schema)

    def _unknown(self, name: object) -> object:
        # voluptuous offers a key that none of the others took to a key that is a function.
        raise KeyProblem(unknown_key(name, self._fields))

    def __call__(self, raw: Any) -> dict[str, Any]:
        """Read a mapping.

        Raises vol.MultipleInvalid with every problem: unknown keys (with the nearest known ones), missing ones, values
        of the wrong kind at any depth, and broken checks among the values that could be read.
        """
        if not isinstance(raw, Mapping):
            raise vol.MultipleInvalid([vol.Invalid(f"expected a mapping, got {shown(raw)}")])
        errors: list[vol.Invalid] = []
        try:
            given = self._schema(dict(raw))
        except vol.MultipleInvalid as several:
            errors.extend(several.errors)
            unread = {str(error.path[0]) for error in errors}
            given = {k.name: k.kind(raw[k.name]) for k in self._keys.values() if k.name in raw and k.name not in unread}
            values = self._defaults | {self._fields[name]: value for name, value in given.items()}
            values = {field: value for field, value in values.items() if self._keys[field].name not in unread}
        else:
            values = self._defaults | {self._fields[name]: value for name, value in given.items()}
        errors.extend(self._broken(values, given))
        if errors:
            raise vol.MultipleInvalid(errors)
        return values

    def _broken(self, values: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[vol.Invalid]:
        for check in self._checks:
            if any(field not in values for field in check.needs):
                continue
            problem = check.problem(*(values[field] for field in check.needs))
            if problem is not None:
                names = [self._keys[field].name for field in (check.at, *check.needs)]
                written: list[Hashable] = [name for name in names if name in given]
                yield vol.Invalid(problem, path=written[:1])


def _marker(k: Key[Any]) -> vol.Marker:
    if k.required:
        return vol.Required(k.name, msg=f"expected {k.kind.expected}, got nothing")
    return vol.Optional(k.name)


def unknown_key(unknown: object, known: Iterable[str]) -> str:
    """The message for a key nobody declared."""
    names = sorted(known)
    near = difflib.get_close_matches(str(unknown), names, n=2)
    wanted = f"a known key, perhaps {' or '.join(near)}" if near else f"one of {', '.join(names)}"
    return f"expected {wanted}, got the unknown key {shown(unknown)}"


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


_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def show_duration(seconds: float) -> str:
    """A number of seconds with the largest unit that keeps it whole: 90.0 is `90s`, 120.0 is `2m`, 1.5 is `1.5s`."""
    for unit in ("d", "h", "m", "s"):
        amount = seconds / _DURATION_UNITS[unit]
        if amount >= 1 and math.isclose(amount, round(amount)):
            return f"{round(amount)}{unit}"
    return f"{seconds:.12g}s" if seconds >= 1 else f"{seconds * 1000:.9g}ms"


def duration(minimum: str, maximum: str) -> Kind[float]:
    """A time span with its unit (ms, s, m, h, d), as seconds; within a range, both ends included."""

    def seconds_of(text: str) -> float:
        match = _DURATION.fullmatch(text)
        if match is None:
            raise Unexpected
        return float(match[1]) * _DURATION_UNITS[match[2]]

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
        schema={"type": "string", "pattern": f"^{_DURATION.pattern}$"},
    )


_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)")
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
        return int(match[1]) * _SIZE_UNITS[match[2]]

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
        schema={"type": "string", "pattern": f"^{_SIZE.pattern}$"},
    )


_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def choice(values: type[E]) -> Kind[E]:
    """One member of an enum, by its value."""
    names = [str(member) for member in values]

    def read(raw: Any) -> E:
        # YAML reads `family: 4` and `min_version: 1.2` as numbers.
        text = str(raw) if isinstance(raw, int | float) and not isinstance(raw, bool) else _text(raw)
        if text not in names:
            raise Unexpected
        return values(text)

    numbers = [float(name) for name in names if _NUMBER.fullmatch(name)]
    return Kind(
        expected=f"one of {', '.join(names)}",
        read=read,
        show=str,
        schema={"enum": [*names, *(int(number) if number.is_integer() else number for number in numbers)]},
    )


def compile_regex(source: AnyStr) -> re.Pattern[AnyStr]:
    """Compile a regular expression. Raises Unexpected; also for `[[:alpha:]]`, which means something else in Python.

    Nothing can stop one that backtracks for too long, and no rule finds all of those: the reference warns of them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            return re.compile(source)
    except (re.error, OverflowError, FutureWarning) as error:
        raise Unexpected(str(error)) from None
    except RecursionError:
        raise Unexpected("it is nested too deeply") from None


REGEX: Kind[re.Pattern[str]] = Kind(
    expected="a regular expression",
    read=lambda raw: compile_regex(_text(raw)),
    show=lambda pattern: pattern.pattern,
    schema={"type": "string", "format": "regex"},
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _cidr(raw: Any) -> Network:
    try:
        network = ipaddress.ip_network(_text(raw), strict=False)
    except ValueError:
        raise Unexpected from None
    if str(network.network_address) != raw.partition("/")[0].lower():
        raise Unexpected(f"the network is {network}")
    return network


CIDR: Kind[Network] = Kind(expected="a network such as 10.0.0.0/8", read=_cidr, show=str, schema={"type": "string"})


def _path(raw: Any) -> Path:
    if "\0" in _non_empty(raw):
        raise Unexpected
    return Path(raw)


PATH: Kind[Path] = Kind(expected="a file path", read=_path, show=str, schema={"type": "string", "minLength": 1})

SECRET: Kind[Secret] = Kind(
    expected="a non-empty string",
    read=lambda raw: Secret(_non_empty(raw)),
    show=lambda _: "***",
    schema={"type": "string", "minLength": 1},
    secret=True,
)
SECRET_FILE: Kind[Secret] = Kind(
    expected="the path of a file that holds the secret",
    read=lambda raw: Secret(path=_path(raw)),
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
_PORT = re.compile(r"[0-9]{1,5}")
_PORT_LIMIT = 65535


def valid_host(host: str) -> bool:
    """Whether a string is an IP address or a host name (underscores allowed, as Kubernetes and Docker use them)."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.removesuffix(".")
        return 0 < len(name) <= _HOST_LIMIT and all(_HOST_LABEL.fullmatch(label) for label in name.split("."))
    return True


def split_host_port(text: str, default_port: int | None = None, *, lowest: int = 1) -> HostPort:
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
    if _PORT.fullmatch(port_text) is None or not lowest <= int(port_text) <= _PORT_LIMIT:
        raise Unexpected
    return HostPort(host, int(port_text))


def host_port(default_port: int | None = None, *, lowest: int = 1) -> Kind[HostPort]:
    """A host and port; the port may be left out where there is a default."""
    optional = "" if default_port is None else f" (port {default_port} where left out)"
    return Kind(
        expected=f"an address such as db.example.com:5432 or [2001:db8::1]:5432{optional}",
        read=lambda raw: split_host_port(_text(raw), default_port, lowest=lowest),
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
        keys=kind.keys,
    )


def mapping_of(kind: Kind[T], *, names: Kind[str] = NON_EMPTY) -> Kind[Mapping[str, T]]:
    """A mapping with free names and one kind of value."""

    def read(raw: Any) -> Mapping[str, T]:
        if not isinstance(raw, Mapping):
            raise Unexpected
        errors: list[vol.Invalid] = []
        items: dict[str, T] = {}
        for name, item in raw.items():
            try:
                read_name = names(name)
            except vol.Invalid as error:
                errors.append(KeyProblem(error.msg, path=[name]))
                continue
            try:
                items[read_name] = kind(item)
            except vol.Invalid as error:
                error.prepend([name])
                errors.extend(error.errors if isinstance(error, vol.MultipleInvalid) else [error])
        if errors:
            raise vol.MultipleInvalid(errors)
        return items

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
    reader = MappingReader(keys, checks_of(cls))
    return Kind(
        expected="a mapping",
        read=lambda raw: cls(**reader(raw)),
        show=lambda value: show_section(value, keys),
        schema=section_schema(keys),
        keys=keys,
    )


def show_section(value: object, keys: Mapping[str, Key[Any]]) -> dict[str, Any]:
    """A dataclass as the mapping it could have been read from; keys without a value are left out."""
    return {
        k.name: k.kind.show(getattr(value, field)) for field, k in keys.items() if not _absent(getattr(value, field))
    }


def _absent(value: object) -> bool:
    return value is None or value == ()


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
    if not k.required and not _absent(k.default):
        schema["default"] = k.kind.show(k.default)
    return schema
