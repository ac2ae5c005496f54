"""How what is inserted looks: blocks indented as the file is, or JSON where the file has braces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from agent.airflow.inject.document import Node, Source

_WIDTH = 120
_SHORT = 90
_PLAIN = re.compile(r"(?:--)?[A-Za-z_/][\w./@-]*(?::[\w./@-]+)*|[1-9][0-9]*(?:m|Ki|Mi|Gi)")
_resolver = yaml.resolver.Resolver()


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is written."""

    step: int = 2
    """Columns from a key to those below it."""
    dash: int = 2
    """Columns from a key to the `-` of its list."""
    newline: str = "\n"
    indent: str = "  "
    """Of what stands between braces."""
    multiline: bool = True
    """Whether braces may hold several lines."""

    def entry(self, key: str, value: Any, column: int) -> list[str]:
        """A key and its value, as lines of a block."""
        pad = " " * column
        if _on_one_line(value) and len(line := f"{pad}{_scalar(key)}: {_flow(value)}") <= _WIDTH:
            return [line]
        if isinstance(value, dict) and value:
            return [f"{pad}{_scalar(key)}:", *self._entries(value, column + self.step)]
        if isinstance(value, list) and value:
            below = [line for item in value for line in self.item(item, column + self.dash)]
            return [f"{pad}{_scalar(key)}:", *below]
        return [f"{pad}{_scalar(key)}: {_flow(value)}"]

    def item(self, value: Any, column: int) -> list[str]:
        """An item of a list, as lines of a block."""
        pad = " " * column
        line = f"{pad}- {_flow(value)}"
        if len(line) <= _WIDTH or not (isinstance(value, dict) and value):
            return [line]
        first, *others = self._entries(value, column + 2)
        return [f"{pad}- {first[column + 2 :]}", *others]

    def _entries(self, values: Mapping[str, Any], column: int) -> list[str]:
        return [line for key, value in values.items() for line in self.entry(key, value, column)]

    def inline(self, value: Any, margin: str) -> str:
        """A value between braces: JSON, which is YAML, too. The margin is that of the line it begins in."""
        one_line = json.dumps(value, default=str)
        if not self.multiline or len(margin) + len(one_line) <= _SHORT:
            return one_line
        lines = json.dumps(value, indent=self.indent, default=str).split("\n")
        return f"{self.newline}{margin}".join(lines)


def _on_one_line(value: Any) -> bool:
    """Whether a value reads well between braces: text, a list of texts, or a mapping of such."""
    if isinstance(value, dict):
        return len(value) == 1 or not any(isinstance(inner, dict | list) for inner in value.values())
    return not isinstance(value, list) or not any(isinstance(inner, dict | list) for inner in value)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(inner) for inner in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """Without quotes where every reader takes it for the same text."""
    if isinstance(value, str) and len(value) > 1 and _PLAIN.fullmatch(value):
        tag = _resolver.resolve(yaml.ScalarNode, value, (True, False))  # type: ignore[no-untyped-call]
        if tag == "tag:yaml.org,2002:str":
            return value
    if isinstance(value, str) and '"' in value and "'" not in value and value.isprintable():
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=not (isinstance(value, str) and value.isprintable()), default=str)


def layout_of(source: Source, root: Node, near: Node) -> Layout:
    """How a document is written: by its first indented keys, and by the lists of one mapping or else its first list."""
    newline = re.search(r"\r\n|\n|\r", source.text)
    step = next(_steps(root), 2)
    dash = next(_dashes(near), next((found for node in _mappings(root) for found in _dashes(node)), step))
    braces = re.search(r"^([ \t]+)\S", source.text, re.MULTILINE) if root.flow else None
    return Layout(
        step=step,
        dash=dash,
        newline=newline.group() if newline else "\n",
        indent=braces.group(1) if braces else " " * step,
        multiline=newline is not None and not (root.flow and braces is None),
    )


def _mappings(node: Node) -> Iterator[Node]:
    """The mappings in a value that are written without braces, outermost first."""
    if node.entries is not None and not node.flow:
        yield node
    for inner in [*(node.items or ()), *(value for _, value in node.entries or ())]:
        yield from _mappings(inner)


def _steps(root: Node) -> Iterator[int]:
    for node in _mappings(root):
        for key, value in node.entries or ():
            if value.entries and value.plain and not value.flow:
                yield value.column - key.column


def _dashes(node: Node) -> Iterator[int]:
    for key, value in node.entries or ():
        if value.items and value.plain and not value.flow:
            yield value.column - key.column
