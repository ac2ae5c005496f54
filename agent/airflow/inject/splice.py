"""Adds values to a document, and takes them out again, by editing its text alone."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Self

from agent.airflow.inject.document import Document, Node, Source
from agent.airflow.inject.edits import Edits, Rank
from agent.airflow.inject.layout import Layout, layout_of
from agent.config.problem import Problem

Path = tuple[str, ...]

# Helm renders what is empty on a line of its own.
_EMPTY_LIST = re.compile(r"\s+\[[ ]*\]")
_EMPTY_MAPPING = re.compile(r"\s+\{[ ]*\}")
_NULL = re.compile(r"(?:\s+(?:~|null|Null|NULL))?")
_NULL_WORD = re.compile(r"~|null|Null|NULL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """One value for a mapping of the document: an item of the list at a path, or the value of the key there."""

    path: Path
    value: Any
    item: bool = True
    first: bool = False
    before: str | None = None
    """The key that a new key is put before, where it is there; otherwise it comes last."""


@dataclass(slots=True)
class Note:
    """What was done to a document beside the items: which keys are new, and what stood at those that were empty."""

    new: list[str] = field(default_factory=list)
    was: dict[str, str] = field(default_factory=dict)

    def written(self, version: str) -> str:
        """The note as text, with the version that made it."""
        empty_or_not = {"new": self.new, "was": self.was}
        return json.dumps({"version": version, **{key: value for key, value in empty_or_not.items() if value}})

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The note that was written so; None where it is none."""
        try:
            read = json.loads(text)
        except ValueError:
            return None
        if not isinstance(read, dict):
            return None
        new, was = read.get("new", []), read.get("was", {})
        if not isinstance(new, list) or not isinstance(was, dict):
            return None
        return cls([str(name) for name in new], {str(name): str(text) for name, text in was.items()})


class Misfit(Exception):  # noqa: N818 - not an error of the program
    """A document into which nothing can be put; its arguments are the problems."""


@dataclass(slots=True)
class Splice:
    """Collects the changes of one document. The mapping `home` is where paths begin."""

    source: Source
    document: Document
    home: Node
    edits: Edits
    note: Note = field(default_factory=Note)
    layout: Layout = field(init=False)
    _filled: set[int] = field(default_factory=set)
    """Where the empty pairs of braces begin that are no longer empty."""

    def __post_init__(self) -> None:
        self.layout = layout_of(self.source, self.document.root, self.home)

    # --- adding ------------------------------------------------------------------------------------------------------

    def plan(self, additions: Sequence[Addition]) -> None:
        """Fill the note, which may be part of what is added. Raises Misfit."""
        problems = list(self._plan(self.home, (), additions))
        if problems:
            raise Misfit(*problems)

    def _plan(self, node: Node, prefix: Path, additions: Sequence[Addition]) -> Iterator[Problem]:
        for key, group in _by_key(additions, len(prefix)):
            path = (*prefix, key)
            name = "/".join(path)
            child = node.get(key)
            leaf = len(group[0].path) == len(path)
            if node.names().count(key) > 1:
                yield self.source.problem(node, f"expected the key {key} once, got it again")
            elif child is None:
                self.note.new.append(name)
            elif (was := self._emptiness(node, key, child)) is not None:
                self.note.was[name] = was
            elif not child.plain and child.items is None and child.entries is None:
                yield self.source.problem(child, f"expected {key} to be written here, got an alias or an anchor")
            elif leaf and group[0].item and child.items is None:
                yield self.source.problem(child, f"expected {key} to be a list, got something else")
            elif not leaf and child.entries is None:
                yield self.source.problem(child, f"expected {key} to be a mapping, got something else")
            elif not leaf:
                yield from self._plan(child, path, group)

    def add(self, additions: Sequence[Addition]) -> None:
        """Add values to a document that was planned with the same additions."""
        self._add(self.home, 0, additions)

    def _add(self, node: Node, depth: int, additions: Sequence[Addition]) -> None:
        for key, group in _by_key(additions, depth):
            child = node.get(key)
            value = _value_of(group, depth + 1)
            if child is None:
                self._add_key(node, key, value, group[0].before)
            elif self._emptiness(node, key, child) is not None:
                self._fill(node, key, child, value)
            elif child.items is not None:
                self._add_items(self._key(node, key), child, group)
            else:
                self._add(child, depth + 1, group)

    def _emptiness(self, node: Node, key: str, child: Node) -> str | None:
        """What is written for nothing at a key, and would have to be replaced; None where nothing has to be."""
        text = self.source.text
        if not child.plain:
            return None
        if node.flow:
            word = text[child.start : child.end]
            return word if _NULL_WORD.fullmatch(word) and child.text is not None else None
        written = text[self._colon(node, key) : child.end]
        if child.items is not None:
            empty = _EMPTY_LIST.fullmatch(written)
        elif child.entries is not None:
            empty = _EMPTY_MAPPING.fullmatch(written)
        else:
            empty = _NULL.fullmatch(written)
        return written if empty else None

    def _colon(self, node: Node, key: str) -> int:
        """Behind the colon of a key."""
        return self.source.text.index(":", self._key(node, key).end) + 1

    def _key(self, node: Node, key: str) -> Node:
        return next(found for found, _ in node.entries or () if found.text == key)

    def _add_key(self, node: Node, key: str, value: Any, before: str | None) -> None:
        if node.entries is None:  # an empty document
            self.edits.insert_lines(len(self.source.text), self.layout.entry(key, value, 0), self.layout, Rank.AFTER)
            return
        at = next((index for index, (found, _) in enumerate(node.entries) if found.text == before), None)
        if node.flow:
            self._insert_between_braces(node, at, value, name=f"{json.dumps(key)}: ")
            return
        lines = self.layout.entry(key, value, node.entries[0][0].column)
        if at is not None and self.edits.begins_line(node.entries[at][0].start):
            self.edits.insert_lines(self._above(node.entries[at][0]), lines, self.layout, Rank.BEFORE)
        else:
            self.edits.insert_lines(self.edits.after_line(node.end), lines, self.layout, Rank.AFTER)

    def _above(self, key: Node) -> int:
        """Where the line of a key begins, or that of the comments above it."""
        at = self.edits.line_start(key.start)
        while at > 0:
            above = self.edits.line_above(at)
            if not re.match(rf" {{{key.column}}}#", self.edits.text[above:at]):
                break
            at = above
        return at

    def _fill(self, node: Node, key: str, child: Node, value: Any) -> None:
        if node.flow:
            text = self.layout.inline(value, self.edits.margin(child.start))
            self.edits.replace(child.start, child.end, text)
            return
        self.edits.replace(self._colon(node, key), child.end)
        _, *lines = self.layout.entry(key, value, self._key(node, key).column)
        self.edits.insert_lines(self.edits.after_line(child.end), lines, self.layout, Rank.INSIDE)

    def _add_items(self, key: Node, node: Node, group: Sequence[Addition]) -> None:
        items = node.items or []
        for addition in group:
            if node.flow:
                self._insert_between_braces(node, 0 if items and addition.first else None, addition.value)
                continue
            dash = self.source.dash(items[0])
            lines = self.layout.item(addition.value, dash - self.edits.line_start(dash))
            at = self.edits.after_line(key.end if addition.first else node.end)
            self.edits.insert_lines(at, lines, self.layout, Rank.INSIDE)

    def _insert_between_braces(self, node: Node, before: int | None, value: Any, name: str = "") -> None:
        """Put a value before another one, or behind the last one, the separator with it."""
        places = _places(node)
        start, end = places[-1 if before is None else before] if places else (node.start, node.end)
        margin = self.edits.margin(start)
        own_line = self.edits.text[self.edits.line_start(start) : start] == margin
        separator = f",{self.layout.newline}{margin}" if self.layout.multiline and own_line else ", "
        text = f"{name}{self.layout.inline(value, margin)}"
        if before is not None:
            self.edits.insert(start, f"{text}{separator}")
        elif places:
            self.edits.insert(end, f"{separator}{text}")
        else:
            opening = "[" if node.entries is None else "{"
            comma = ", " if node.start in self._filled else ""
            self._filled.add(node.start)
            self.edits.insert(self.source.text.index(opening, node.start) + 1, f"{comma}{text}")

    # --- taking out --------------------------------------------------------------------------------------------------

    def take_out(self, items: Collection[int], keys: Collection[str]) -> None:
        """Take out the items that begin at these offsets and the keys at these paths, and undo what the note says."""
        self._prune(self.home, (), items, keys)

    def _prune(self, node: Node, prefix: Path, items: Collection[int], keys: Collection[str]) -> None:
        gone: list[int] = []
        for index, (key, child) in enumerate(node.entries or ()):
            path = (*prefix, str(key.text))
            name = "/".join(path)
            if self._is_gone(child, path, items, keys):
                gone.append(index)
            elif name in self.note.was and self._is_emptied(child, path, items, keys):
                self._restore(node, key, child, self.note.was[name])
            elif child.items is not None:
                self._drop(child, [at for at, item in enumerate(child.items) if item.start in items])
            else:
                self._prune(child, path, items, keys)
        self._drop(node, gone)

    def _is_gone(self, node: Node, path: Path, items: Collection[int], keys: Collection[str]) -> bool:
        name = "/".join(path)
        return name in keys or (self._is_new(path) and self._is_emptied(node, path, items, keys))

    def _is_new(self, path: Path) -> bool:
        """Whether a key came with the sidecar, by itself or inside another one."""
        around = ["/".join(path[:length]) for length in range(1, len(path))]
        return "/".join(path) in self.note.new or any(name in self.note.new or name in self.note.was for name in around)

    def _is_emptied(self, node: Node, path: Path, items: Collection[int], keys: Collection[str]) -> bool:
        """Whether a collection loses all it has."""
        if node.items:
            return all(item.start in items for item in node.items)
        inner = node.entries or ()
        return bool(inner) and all(self._is_gone(child, (*path, str(key.text)), items, keys) for key, child in inner)

    def _restore(self, node: Node, key: Node, child: Node, was: str) -> None:
        """Put back what stood for nothing."""
        if node.flow:
            self.edits.replace(child.start, child.end, was)
        elif child.flow:
            self.edits.replace(self._colon(node, str(key.text)), child.end, was)
        else:
            self.edits.insert(self._colon(node, str(key.text)), was)
            self.edits.remove_lines(self._first(child), child.end)

    def _first(self, node: Node) -> int:
        return self.source.dash(node.items[0]) if node.items else node.start

    def _drop(self, node: Node, indexes: Sequence[int]) -> None:
        """Take out some items of a list or some entries of a mapping."""
        places = _places(node)
        if not node.flow:
            for index in indexes:
                start = self.source.dash(node.items[index]) if node.items else places[index][0]
                self.edits.remove_lines(start, places[index][1])
            return
        for first, last in _runs(indexes):
            start, end = places[first][0], places[last][1]
            if last + 1 < len(places):
                comma = re.compile(r"\s*,\s*").match(self.source.text, end)
                end = comma.end() if comma else end
            elif first > 0:
                start = places[first - 1][1]
            self.edits.replace(start, end)


def _places(node: Node) -> list[tuple[int, int]]:
    """Where the items of a list or the entries of a mapping begin and end."""
    if node.items is not None:
        return [(item.start, item.end) for item in node.items]
    return [(key.start, value.end) for key, value in node.entries or ()]


def _runs(indexes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of indexes that follow each other."""
    for _, group in groupby(enumerate(indexes), key=lambda pair: pair[1] - pair[0]):
        run = [index for _, index in group]
        yield run[0], run[-1]


def _by_key(additions: Sequence[Addition], depth: int) -> list[tuple[str, list[Addition]]]:
    groups: dict[str, list[Addition]] = {}
    for addition in additions:
        groups.setdefault(addition.path[depth], []).append(addition)
    return list(groups.items())


def _value_of(group: Sequence[Addition], depth: int) -> Any:
    """What additions come to where nothing is yet; they agree on the first keys of their paths, `depth` in number."""
    if len(group[0].path) > depth:
        return {key: _value_of(inner, depth + 1) for key, inner in _by_key(group, depth)}
    return [addition.value for addition in group] if group[0].item else group[0].value
