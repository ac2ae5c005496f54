"""From files to a configuration, or to everything that is wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import voluptuous as vol

from agent.config.problem import ConfigError, Mark, Problem, dotted
from agent.config.push import PushgatewayOptions, RemoteWriteOptions
from agent.config.sections import (
    Config,
    DiagnosisOptions,
    DiscoverOptions,
    GateOptions,
    LogOptions,
    MetricsOptions,
    SchedulerOptions,
    ServerOptions,
)
from agent.config.targets import DEFAULTS_KEYS, Rhythm, TargetReader
from agent.config.tree import SIZE_LIMIT_BYTES, UNREADABLE, Node, parse
from agent.keys import Key, KeyProblem, MappingReader, checks_of, keys_of, shown, unknown_key, without_password
from agent.model import Target
from agent.net.addressing import RESOLV_CONF
from agent.probers import PROBERS

SECTIONS: Mapping[str, type] = {
    "server": ServerOptions,
    "log": LogOptions,
    "metrics": MetricsOptions,
    "scheduler": SchedulerOptions,
    "diagnosis": DiagnosisOptions,
    "gate": GateOptions,
    "remote_write": RemoteWriteOptions,
    "pushgateway": PushgatewayOptions,
    "discover": DiscoverOptions,
}
"""The sections whose keys are the fields of a dataclass."""

TARGETS, DEFAULTS, DISCOVER = "targets", "defaults", "discover"
ON_REQUEST = frozenset({DISCOVER})
"""Sections that are None where they are left out: what they are about is then not done."""
SECTION_KEYS: Mapping[str, Mapping[str, Key[Any]]] = {
    DEFAULTS: DEFAULTS_KEYS,
    **{name: keys_of(cls) for name, cls in SECTIONS.items()},
}
"""The keys of every section that is a mapping, by name of the section."""

SUFFIXES = (".yaml", ".yml")


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Read a file, or every *.yaml and *.yml file of a directory in the order of their names.

    Raises ConfigError with every problem of every file.
    """
    loading = _Loading()
    files = loading.files(path)
    roots = [loading.root(file, environ) for file in files]
    defaults = loading.defaults(loading.merged(roots, DEFAULTS))
    found_later = any(root.child(DISCOVER) is not None for root in roots if root is not None)
    targets = loading.targets(roots, TargetReader(defaults), Mark(str(path)), may_be_empty=found_later)
    sections = {name: loading.section(name, cls, loading.merged(roots, name)) for name, cls in SECTIONS.items()}
    if loading.problems:
        raise ConfigError(loading.problems)
    return Config(targets=targets, defaults=defaults or {}, **sections)


@dataclass(slots=True)
class _Loading:
    """One attempt to load, and what has been wrong so far."""

    problems: list[Problem] = field(default_factory=list)

    def files(self, path: Path) -> list[Path]:
        if not path.is_dir():
            return [path]
        try:
            found = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and not p.name.startswith("."))
        except OSError as error:
            self._refuse(Mark(str(path)), [], f"expected a readable directory, got an error: {error.strerror}")
            return []
        if not found:
            self._refuse(Mark(str(path)), [], f"expected a file that ends in {' or '.join(SUFFIXES)}, got none")
        return found

    def root(self, path: Path, environ: Mapping[str, str]) -> Node | None:
        """The tree of a file, None where it has no sections that could be read."""
        try:
            with path.open("rb") as stream:
                data = stream.read(SIZE_LIMIT_BYTES + 1)
        except OSError as error:
            self._refuse(Mark(str(path)), [], f"expected a readable file, got an error: {error.strerror}")
            return None
        root, problems = parse(str(path), data, environ)
        self.problems.extend(problems)
        if root is None:
            return None
        if not isinstance(root.value, dict):
            seen = "nothing" if root.value is None else shown(root.plain())
            self._refuse(root.mark, [], f"expected a mapping with the key targets, got {seen}")
            return None
        known = [TARGETS, *SECTION_KEYS]
        for name in root.value:
            if name not in known:
                self._refuse(root.key_marks[name], [name], unknown_key(name, known))
        return root

    def merged(self, roots: Iterable[Node | None], name: str) -> Node | None:
        """A section that several files may add keys to, each key in one of them only."""
        whole: Node | None = None
        for root in roots:
            part = root.child(name) if root is not None else None
            if part is None:
                continue
            part = _in_full(name, part)
            if whole is None or not isinstance(part.value, dict) or not isinstance(whole.value, dict):
                whole = part
                continue
            for key, mark in part.key_marks.items():
                if key in whole.key_marks:
                    first = whole.key_marks[key]
                    self._refuse(mark, [name, key], f"expected each key once, got it again after {first}")
            whole = Node(whole.mark, {**part.value, **whole.value}, key_marks={**part.key_marks, **whole.key_marks})
        return whole

    def defaults(self, node: Node | None) -> dict[str, Any] | None:
        """The values of `defaults` by key name, None where they could not be read."""
        if node is None:
            return {}
        raw = node.plain()
        try:
            values = MappingReader(DEFAULTS_KEYS, Rhythm.CHECKS)(raw)
        except vol.Invalid as error:
            self._collect(error, node, [DEFAULTS])
            return None
        return {k.name: values[name] for name, k in DEFAULTS_KEYS.items() if k.name in raw}

    def section(self, name: str, cls: type, node: Node | None) -> Any:
        """A section as its dataclass, None where it could not be read."""
        if node is None:
            return None if name in ON_REQUEST else cls()
        try:
            return cls(**MappingReader(keys_of(cls), checks_of(cls))(node.plain()))
        except vol.Invalid as error:
            self._collect(error, node, [name])
            return None

    def targets(
        self, roots: Sequence[Node | None], read: TargetReader, whole: Mark, *, may_be_empty: bool
    ) -> tuple[Target[Any], ...]:
        targets: list[Target[Any]] = []
        names: dict[str, Mark] = {}
        seen = 0
        for root in roots:
            node = root.child(TARGETS) if root is not None else None
            if node is None:
                continue
            if not isinstance(node.value, list):
                self._refuse(node.mark, [TARGETS], f"expected a non-empty list of targets, got {shown(node.plain())}")
                seen += 1
                continue
            for index, item in enumerate(node.value):
                seen += 1
                self._once(names, item, [TARGETS, index])
                try:
                    targets.append(read(item.plain()))
                except vol.Invalid as error:
                    self._collect(error, item, [TARGETS, index])
        if roots and not seen and not may_be_empty and all(root is not None for root in roots):
            lists = [root.child(TARGETS) for root in roots if root is not None]
            mark = next((node.mark for node in lists if node is not None), whole)
            given = "an empty list" if any(lists) else "nothing"
            self._refuse(mark, [TARGETS], f"expected a non-empty list of targets, got {given}")
        return tuple(targets)

    def _once(self, names: dict[str, Mark], item: Node, path: list[Any]) -> None:
        name = item.child("name")
        if name is None or not isinstance(name.value, str):
            return
        if name.value in names:
            message = f"expected a name no other target has, got {shown(name.value)} again after {names[name.value]}"
            self._refuse(name.mark, [*path, "name"], message)
        names.setdefault(name.value, name.mark)

    def _collect(self, error: vol.Invalid, node: Node, prefix: list[Any]) -> None:
        """Take over what a reader found, each problem at the place in the file where it can be put right."""
        for problem in error.errors if isinstance(error, vol.MultipleInvalid) else [error]:
            path = [part if isinstance(part, int) else str(part) for part in problem.path]
            mark, value = node.locate(path, key=isinstance(problem, KeyProblem))
            if value is not UNREADABLE:  # what is wrong with such a value has been said
                self._refuse(mark, [*prefix, *path], problem.msg)

    def _refuse(self, mark: Mark, path: Sequence[object], message: str) -> None:
        self.problems.append(Problem(mark=mark, path=dotted(path), message=message))


def _in_full(name: str, node: Node) -> Node:
    """A section as the mapping that its short form stands for."""
    short_for = getattr(SECTIONS.get(name), "SHORT_FOR", None)
    if short_for is None or isinstance(node.value, dict):
        return node
    return Node(node.mark, {short_for: node}, key_marks={short_for: node.mark})


def targets_from_urls(urls: Sequence[str], *, resolv_conf: Path = RESOLV_CONF) -> tuple[Target[Any], ...]:
    """Targets for `netprobe check URL…`, with defaults for what a URL does not say.

    Raises ConfigError, each problem with its URL, without a password and a query string, in the place of the file.
    """
    read = TargetReader({"resolv_conf": resolv_conf})
    schemes = {scheme: kind for kind, spec in PROBERS.items() for scheme in spec.url_schemes}
    targets: list[Target[Any]] = []
    problems: list[Problem] = []
    for url in urls:
        plain = without_password(url)
        path, _, query = plain.partition("?")
        mark = Mark(f"{path}?***" if query else plain, line=0)
        try:
            target = _target_of_url(url, schemes, read)
        except ValueError as error:
            problems.append(Problem(mark=mark, path="", message=without_password(str(error))))
        except vol.MultipleInvalid as several:
            problems.extend(Problem(mark=mark, path=dotted(e.path), message=e.msg) for e in several.errors)
        else:
            # The parameters of other types are known, and no secrets.
            targets.append(dataclasses.replace(target, name=mark.file if target.type == "http" else plain))
    if problems:
        raise ConfigError(problems)
    return tuple(targets)


def _target_of_url(url: str, schemes: Mapping[str, str], read: TargetReader) -> Target[Any]:
    """Read one URL. Raises ValueError, vol.MultipleInvalid."""
    scheme, colon, _ = url.partition(":")
    kind = schemes.get(scheme.lower()) if colon else None
    if kind is None:
        known = ", ".join(f"{known}:" for known in sorted(schemes))
        raise ValueError(f"expected a URL that begins with one of {known}, got another text")
    try:
        keys = PROBERS[kind].from_url(url)
    except ValueError as error:
        if str(error).startswith("expected "):
            raise
        raise ValueError(f"expected a URL of a target of type {kind}, got another: {error}") from None
    return read({"name": "url", "type": kind, **keys})
