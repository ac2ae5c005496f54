"""What becomes a target of all that the sources find."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import translate
from functools import partial
from pathlib import Path
from typing import Any

import voluptuous as vol

from agent.airflow.discovery import airflow
from agent.airflow.discovery.complete import Discovery, Skipped
from agent.airflow.discovery.endpoint import Ask, place
from agent.airflow.discovery.found import Found, numbered
from agent.airflow.discovery.kubernetes import kubernetes, namespace
from agent.config import Config, DiscoverOptions
from agent.config.sections import Source
from agent.config.targets import TargetReader
from agent.model import Role, Scope, Target
from agent.net.addressing import RESOLV_CONF
from agent.net.dns_walk import DNS_PORT
from agent.net.resolve import HOSTS
from agent.wording import Wording

CONNECTIONS_LIMIT = 1000
"""Connections that are looked at: reading one takes some 20 microseconds."""
SKIPPED_LIMIT = 100
"""Reasons that are told one by one: each is a line of the log."""
SOURCE_LIMIT = 300
"""Characters of a variable's name that are told. Airflow's ids have at most 250."""


def discover(config: Config, options: DiscoverOptions, environ: Mapping[str, str]) -> Discovery:
    """What is found for a configuration. Raises nothing, and contacts nothing."""
    resolv_conf = config.defaults.get("resolv_conf", RESOLV_CONF)
    choosing = _Choosing(config, options, namespace(environ, resolv_conf))
    for item in _everything(options, environ, resolv_conf):
        try:
            choosing.take(item)
        except Exception as error:  # noqa: BLE001 - its text may quote a value
            choosing.take(_failed(item.source, error))
    return choosing.result()


def _everything(options: DiscoverOptions, environ: Mapping[str, str], resolv_conf: Path) -> Iterator[Found | Skipped]:
    """All there is, the most particular first: what is found twice keeps the first role."""
    if Source.KUBERNETES in options.sources:
        yield from _guarded("kubernetes", partial(kubernetes, environ, resolv_conf))
    if Source.AIRFLOW not in options.sources:
        return
    yield from _guarded("AIRFLOW__*", partial(_settings, environ, options))
    variables = sorted(filter(airflow.is_connection, environ))
    for variable in variables[:CONNECTIONS_LIMIT]:
        yield from _guarded(variable, partial(_connection, variable, environ, options))
    more = len(variables) - CONNECTIONS_LIMIT
    if more > 0:
        yield Skipped(source=f"{airflow.CONNECTION_PREFIX}*", why=f"{more} more connections are not looked at")


def _settings(environ: Mapping[str, str], options: DiscoverOptions) -> Iterator[Found | Skipped]:
    for part in airflow.settings(environ, options):
        yield from _guarded("AIRFLOW__*", part)


def _connection(variable: str, environ: Mapping[str, str], options: DiscoverOptions) -> Iterator[Found | Skipped]:
    return airflow.connection(variable, environ[variable], options)


def _guarded(source: str, find: Callable[[], Iterable[Found | Skipped]]) -> Iterator[Found | Skipped]:
    """What a source finds, up to where it fails: a defect here ends no agent."""
    try:
        yield from find()
    except Exception as error:  # noqa: BLE001 - its text may quote a value
        yield _failed(source, error)


def _failed(source: str, error: Exception) -> Skipped:
    return Skipped(source=source, why=f"internal error: {type(error).__name__}")


class _Choosing:
    """Decides, one after the other, what becomes a target."""

    def __init__(self, config: Config, options: DiscoverOptions, namespace: str) -> None:
        self._options = options
        self._namespace = namespace
        self._read = TargetReader(config.defaults)
        self._allow = {text: re.compile(translate(text.lower())) for text in options.allow}
        self._deny = {text: re.compile(translate(text.lower())) for text in options.deny}
        self._names = {target.name for target in config.targets}
        self._given = frozenset(self._names)
        self._places: dict[tuple[str, int], str] = {}
        """The name of the target at each place."""
        self._unwanted: dict[tuple[str, int, str], str] = {}
        for target in config.targets:
            # Without a port of its own it is a dns target that asks the nameservers of the pod for the name.
            if target.options.host is not None:
                where = place(target.options.host, target.options.port or DNS_PORT)
                self._places.setdefault(where, target.name)
        self._targets: list[Target[Any]] = []
        self._sources: dict[str, str] = {}
        self._skipped: list[Skipped] = []
        self._left_out = 0

    def take(self, item: Found | Skipped) -> None:
        """Make a target of something, or a reason why it is none."""
        if isinstance(item, Skipped):
            self._skip(item.source, item.why)
        elif why := self._objection(item):
            self._skip(item.source, why)
        else:
            self._add(item)

    def result(self) -> Discovery:
        if self._left_out:
            self._skipped.append(Skipped(source="*", why=f"{self._left_out} more are left out"))
        return Discovery(targets=tuple(self._targets), skipped=tuple(self._skipped), sources=self._sources)

    def _objection(self, item: Found) -> str:
        """Why something is no target; empty where it is one."""
        where = item.endpoint.place
        key = (*where, item.endpoint.login.database)
        if item.unwanted:
            self._unwanted[key] = item.unwanted
            return item.unwanted
        if item.role is Role.CONNECTION and key in self._unwanted:
            return self._unwanted[key]
        if item.name in self._given:
            return f"a target of the configuration has its name, {item.name}"
        if where in self._places:
            return f"the target {self._places[where]} has its host and port"
        if item.endpoint.ask is Ask.NAME and _in_hosts_file(item.endpoint.host):
            return f"{HOSTS} has its address, and its server shuts out who connects without a login"
        texts = (item.name, item.endpoint.host)
        if denied := _matching(self._deny, texts):
            return f"the pattern {denied} of discover.deny matches"
        if self._allow and not _matching(self._allow, texts):
            return f"no pattern of discover.allow matches {' or '.join(texts)}"
        if len(self._targets) >= self._options.limit:
            return f"discover.limit: {self._options.limit} targets have been found before it"
        return ""

    def _add(self, item: Found) -> None:
        name, index = item.name, 0
        while name in self._names:
            index += 1
            name = numbered(item.name, index)
        scope = item.scope or (Scope.CLUSTER if self._is_service(item.endpoint.host) else None)
        try:
            target = self._read(dataclasses.replace(item, name=name, scope=scope).raw())
        except vol.Invalid as error:
            problems = error.errors if isinstance(error, vol.MultipleInvalid) else [error]
            keys = sorted({str(problem.path[0]) for problem in problems if problem.path}) or ["values"]
            self._skip(
                item.source, f"it makes no target of type {item.raw()['type']}: {', '.join(keys)} cannot be such"
            )
            return
        self._names.add(name)
        self._places[item.endpoint.place] = name
        self._targets.append(target)
        self._sources[name] = _said(item.source)

    def _is_service(self, host: str) -> bool:
        """Whether a host is a Service of the pod's own namespace, as `airflow-redis.airflow`."""
        labels = host.lower().removesuffix(".").split(".")
        return len(labels) == 2 and labels[1] == self._namespace  # noqa: PLR2004 - Service and namespace

    def _skip(self, source: str, why: str) -> None:
        if len(self._skipped) < SKIPPED_LIMIT:
            self._skipped.append(Skipped(source=_said(source), why=why))
        else:
            self._left_out += 1


def _in_hosts_file(host: str) -> bool:
    """Whether a name is looked up in no nameserver."""
    try:
        lines = HOSTS.read_text(encoding="utf-8", errors="replace").lower().splitlines()
    except OSError:
        return False
    return any(host.lower() in line.partition("#")[0].split()[1:] for line in lines)


def _said(source: str) -> str:
    """The name of a variable as it may be logged: whoever makes a pod may put any byte into it."""
    return Wording(ascii_only=True)(source[:SOURCE_LIMIT])


def _matching(patterns: Mapping[str, re.Pattern[str]], texts: Iterable[str]) -> str:
    """The first pattern that matches one of the texts as a whole; empty where none does."""
    lower = [text.lower() for text in texts]
    return next((name for name, pattern in patterns.items() if any(map(pattern.fullmatch, lower))), "")
