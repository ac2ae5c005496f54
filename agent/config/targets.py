"""One target: the keys every type has, those of its own type, and the defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import voluptuous as vol

from agent.config.scope import scope_of
from agent.keys import (
    BOOLEAN,
    Check,
    Key,
    Kind,
    MappingReader,
    Unexpected,
    checks_of,
    choice,
    duration,
    integer,
    key,
    keys_of,
    show_duration,
    show_section,
    shown,
)
from agent.model import Role, Scope, Target
from agent.net.addressing import Addressing
from agent.probers import PROBERS

NAME_LIMIT = 100
_NAME = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._:/-]{{0,{NAME_LIMIT - 2}}}[A-Za-z0-9])?")


def _name(raw: Any) -> str:
    if not isinstance(raw, str) or _NAME.fullmatch(raw) is None:
        raise Unexpected
    return raw


NAME: Kind[str] = Kind(
    expected=f"a name such as orders-api (letters, digits and . _ : / - inside, at most {NAME_LIMIT})",
    read=_name,
    schema={"type": "string", "pattern": f"^{_NAME.pattern}$"},
)


def _type(raw: Any) -> str:
    if not isinstance(raw, str) or raw not in PROBERS:
        raise Unexpected
    return raw


TYPE: Kind[str] = Kind(expected=f"one of {', '.join(PROBERS)}", read=_type, schema={"enum": list(PROBERS)})


def _timeout_within_interval(interval: float, timeout: float) -> str | None:
    if timeout <= interval:
        return None
    return f"expected timeout <= interval, got timeout {show_duration(timeout)} and interval {show_duration(interval)}"


def _confirmation_within_interval(interval: float, confirm_interval: float | None) -> str | None:
    if confirm_interval is None or confirm_interval <= interval:
        return None
    return (
        "expected confirm_interval <= interval, "
        f"got confirm_interval {show_duration(confirm_interval)} and interval {show_duration(interval)}"
    )


CONFIRM_INTERVAL_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """When a target is probed."""

    CHECKS = (
        Check(at="timeout", needs=("interval", "timeout"), problem=_timeout_within_interval),
        Check(at="confirm_interval", needs=("interval", "confirm_interval"), problem=_confirmation_within_interval),
    )

    interval: float = key(duration("1s", "1d"), default=15.0, doc="Time from the start of one run to the next.")
    timeout: float = key(
        duration("100ms", "5m"),
        default=6.0,
        doc="Deadline over a whole run, at most the interval. More than 5s, so that a lookup that is answered at the "
        "resolver's second attempt, 5s late, shows as slow and not as failed.",
    )
    confirm_interval: float | None = key(
        duration("1s", "1d"),
        default=None,
        doc="Time between runs after a failure, at most the interval. "
        f"{show_duration(CONFIRM_INTERVAL_SECONDS)}, or the interval where that is shorter, where left out.",
    )
    confirm_runs: int = key(
        integer(0, 100), default=3, doc="Runs at confirm_interval after a failure, before the interval counts again."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Common(Rhythm):
    """The keys that every type has."""

    CHECKS = Rhythm.CHECKS

    name: str = key(NAME, doc="What the target is called in metrics, logs and messages; unique.")
    type: str = key(TYPE, doc="Which prober asks.")
    negative: bool = key(
        BOOLEAN, default=False, doc="The target must not be reachable: a run succeeds where it is shown to be blocked."
    )
    gate: bool = key(
        BOOLEAN,
        default=False,
        doc="The pod's other containers start once this target has answered; the section gate says how long they wait.",
    )
    role: Role = key(choice(Role), default=Role.CUSTOM, doc="What the target is to the pod.")
    scope: Scope | None = key(
        choice(Scope),
        default=None,
        doc="Where the target lives. Where left out, derived from the host in its address (for a dns target without a "
        "server of its own, from the name it asks for): cluster for loopback and link-local addresses, single-label "
        "names, `*.svc`, `*.svc.*` and `*.cluster.local`; private for RFC 1918, RFC 6598 and unique local addresses "
        "and for `*.internal`, `*.local` and `*.home.arpa`; else public.",
    )


COMMON_KEYS: Mapping[str, Key[Any]] = keys_of(Common)
DEFAULTS_KEYS: Mapping[str, Key[Any]] = {**keys_of(Rhythm), **keys_of(Addressing)}
"""The keys of `defaults`: each applies to the targets that do not have it themselves, where their type has the key."""


def keys_of_type(kind: str) -> dict[str, Key[Any]]:
    """Every key a target of a type has, by field name: the common ones first."""
    return {**COMMON_KEYS, **keys_of(PROBERS[kind].options)}


class TargetReader:
    """Reads targets of every type, the values of `defaults` filled in."""

    def __init__(self, defaults: Mapping[str, Any] | None) -> None:
        """`defaults`: values, already read, by key name; None where they could not be read.

        Without them, no rule over several keys is asked: a default that was meant might have kept it.
        """
        self._defaults = defaults or {}
        self._checked = defaults is not None
        self._readers: dict[str | None, MappingReader] = {}

    def __call__(self, raw: Any) -> Target[Any]:
        """Read one target. Raises vol.Invalid with every problem."""
        if not isinstance(raw, Mapping):
            raise vol.Invalid(f"expected a mapping, got {shown(raw)}")
        try:
            kind = TYPE(raw.get("type"))
        except vol.Invalid:
            # Without a type, only the keys that every type has can be checked.
            known = {k.name for k in COMMON_KEYS.values()}
            self._reader(None)({name: value for name, value in raw.items() if name in known})
            raise
        return target_of(kind, self._reader(kind)(raw))

    def _reader(self, kind: str | None) -> MappingReader:
        if kind not in self._readers:
            keys = COMMON_KEYS if kind is None else keys_of_type(kind)
            checks = (*checks_of(Common), *(checks_of(PROBERS[kind].options) if kind else ()))
            self._readers[kind] = MappingReader(
                {field: self._with_default(k) for field, k in keys.items()}, checks if self._checked else ()
            )
        return self._readers[kind]

    def _with_default(self, k: Key[Any]) -> Key[Any]:
        return dataclasses.replace(k, default=self._defaults[k.name]) if k.name in self._defaults else k


def target_of(kind: str, values: Mapping[str, Any]) -> Target[Any]:
    """Make a target of values by field name; what depends on other values is derived here."""
    options_class: Any = PROBERS[kind].options
    options = options_class(**{field: values[field] for field in keys_of(options_class)})
    confirm_interval = values["confirm_interval"]
    if confirm_interval is None:
        confirm_interval = min(CONFIRM_INTERVAL_SECONDS, values["interval"])
    return Target(
        name=values["name"],
        type=kind,
        interval_seconds=values["interval"],
        timeout_seconds=values["timeout"],
        confirm_interval_seconds=confirm_interval,
        confirm_runs=values["confirm_runs"],
        negative=values["negative"],
        gate=values["gate"],
        role=values["role"],
        scope=values["scope"] or scope_of(options.host),
        options=options,
    )


def show_target(target: Target[Any]) -> dict[str, Any]:
    """A target as the mapping it could have been read from, complete, secrets masked."""
    common = Common(
        name=target.name,
        type=target.type,
        interval=target.interval_seconds,
        timeout=target.timeout_seconds,
        confirm_interval=target.confirm_interval_seconds,
        confirm_runs=target.confirm_runs,
        negative=target.negative,
        gate=target.gate,
        role=target.role,
        scope=target.scope,
    )
    names: Sequence[str] = ("name", "type")
    shown_common = show_section(common, COMMON_KEYS)
    return {
        **{name: shown_common.pop(name) for name in names},
        **show_section(target.options, keys_of(type(target.options))),
        **shown_common,
    }
