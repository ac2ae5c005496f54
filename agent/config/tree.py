"""YAML as a tree that knows where everything was written.

PyYAML's own loader takes the last of two equal keys without a word, reads `12:30` as 750 and `no` as false, and has no
bound on what aliases unfold to. So this reads the parser's events, which carry every position, and types plain scalars
by the core schema of YAML 1.2, as editors do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from agent.config.environment import expand
from agent.config.problem import Mark, Problem, dotted
from agent.keys import Unexpected, Untyped, shown

SIZE_LIMIT_BYTES = 4 * 1024 * 1024
DEPTH_LIMIT = 50
NODE_LIMIT = 200_000
"""Values in one file, each use of an alias counted in full: ten thousand targets have fewer."""

# The C parser is an optional part of PyYAML; its wheels have it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Node:
    """A value and where it was written."""

    mark: Mark
    value: Any = None
    """A scalar as Python has it, or the children of a collection: {key: Node} or [Node]."""
    key_marks: dict[str, Mark] = field(default_factory=dict)
    weight: int = 1
    """How many values it holds, itself counted."""
    height: int = 1
    """How many levels it holds, its own counted."""

    def plain(self) -> Any:
        """The value without positions."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, part: object) -> Node | None:
        """The value at a key or an index."""
        if isinstance(self.value, dict):
            found: Node | None = self.value.get(str(part))
            return found
        if isinstance(self.value, list) and isinstance(part, int) and part < len(self.value):
            item: Node = self.value[part]
            return item
        return None

    def locate(self, path: Sequence[object], *, key: bool = False) -> tuple[Mark, Any]:
        """Where the value at a path was written, and the value; of the nearest one around it, if it is missing.

        With `key`, where its key was written.
        """
        node = self
        for depth, part in enumerate(path):
            if key and depth == len(path) - 1 and str(part) in node.key_marks:
                return node.key_marks[str(part)], None
            found = node.child(part)
            if found is None:
                break
            node = found
        return node.mark, node.value


class _Stop(Exception):  # noqa: N818 - not an error: the end of reading
    """Nothing after this can be read."""


def parse(file: str, data: bytes, environ: Mapping[str, str]) -> tuple[Node | None, list[Problem]]:
    """Read one file: its tree, None where there is no sense in one, and what is wrong with it as YAML."""
    composer = _Composer(file, environ)
    try:
        return composer.document(_decode(file, data)), composer.problems
    except _Stop as stop:
        return None, [*composer.problems, *stop.args]


def _decode(file: str, data: bytes) -> str:
    if len(data) > SIZE_LIMIT_BYTES:
        raise _Stop(_whole(Mark(file), f"expected at most {SIZE_LIMIT_BYTES >> 20}MiB, got more"))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = _after(file, error.object[: error.start].decode("utf-8", "replace"))
        raise _Stop(_whole(where, f"expected UTF-8 text, got the byte 0x{error.object[error.start]:02x}")) from None
    control = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if control is not None:
        # Said here, because the C parser counts bytes where it refuses one.
        where = _after(file, text[: control.start()])
        raise _Stop(_whole(where, f"expected YAML, got the character {control.group()!r}"))
    return text


def _after(file: str, text: str) -> Mark:
    return Mark(file, text.count("\n") + 1, len(text) - text.rfind("\n"))


def _whole(mark: Mark, message: str) -> Problem:
    return Problem(mark=mark, path="", message=message)


class _Composer:
    """Builds the tree of one file from the parser's events."""

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self._anchors: dict[str, Node | None] = {}
        self._path: list[object] = []
        self.problems: list[Problem] = []

    def document(self, text: str) -> Node | None:
        events = self._events(text)
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _Stop(_whole(self._mark(event), "expected one document, got another after `---`"))
                root = self._node(next(events), events)
        return root or Node(Mark(self._file))

    def _events(self, text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = Mark(self._file, mark.line + 1, mark.column + 1) if mark else Mark(self._file)
            seen = ", ".join(part for part in (error.problem, error.context) if part)
            # Inside { } or [ ] the brace of an unquoted ${VAR} begins a mapping.
            line = "".join(text.splitlines()[where.line - 1 : where.line])
            if line[: where.column].endswith("${"):
                seen += "; inside { } or [ ], a value with ${VAR} must be quoted"
            raise _Stop(_whole(where, f"expected YAML, got an error: {seen}")) from None

    def _mark(self, event: yaml.Event) -> Mark:
        start: Any = event.start_mark
        return Mark(self._file, start.line + 1, start.column + 1)

    def _problem(self, mark: Mark, message: str) -> None:
        self.problems.append(Problem(mark=mark, path=dotted(self._path), message=message))

    def _node(self, event: Any, events: Iterator[yaml.Event]) -> Node:
        mark = self._mark(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, mark)
        self._bound_depth(mark, 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = None  # an alias inside its own anchor finds it unfinished
        if event.tag is not None:
            self._problem(mark, f"expected a value without a tag, got the tag {shown(event.tag)}")
        if isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(mark, events)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(mark, events)
        else:
            node = self._scalar(event, mark)
        if node.weight > NODE_LIMIT:
            raise _Stop(_whole(mark, f"expected at most {NODE_LIMIT} values with aliases unfolded, got more"))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent, mark: Mark) -> Node:
        if event.anchor not in self._anchors:
            raise _Stop(_whole(mark, f"expected an anchor above, got the alias *{event.anchor} without one"))
        node = self._anchors[event.anchor]
        if node is None:
            raise _Stop(_whole(mark, f"expected a value, got the alias *{event.anchor} inside its own anchor"))
        self._bound_depth(mark, node.height)
        return node

    def _bound_depth(self, mark: Mark, height: int) -> None:
        if len(self._path) + height > DEPTH_LIMIT:
            raise _Stop(_whole(mark, f"expected at most {DEPTH_LIMIT} levels, got more"))

    def _scalar(self, event: yaml.ScalarEvent, mark: Mark) -> Node:
        text = event.value
        try:
            text = expand(text, self._environ)
        except Unexpected as error:
            self._problem(mark, str(error))
            return Node(mark, UNREADABLE)
        if event.style not in PLAIN:
            return Node(mark, text)
        typed = _typed(text)
        if text == event.value or isinstance(typed, str):
            return Node(mark, typed)
        return Node(mark, Untyped(text, typed) if text else "")

    def _sequence(self, mark: Mark, events: Iterator[yaml.Event]) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            self._path.append(len(items))
            items.append(self._node(event, events))
            self._path.pop()
        return _sized(Node(mark, items), items)

    def _mapping(self, mark: Mark, events: Iterator[yaml.Event]) -> Node:
        node = Node(mark, {})
        merged: list[Node] = []
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key_mark = self._mark(event)
            key = self._key(event, events)
            self._path.append("?" if key is None else key)
            child = self._node(next(events), events)
            if key == MERGE and isinstance(event, yaml.ScalarEvent) and event.style in PLAIN:
                merged.extend(self._merged(child))
            elif key in node.key_marks:
                first = node.key_marks[key]
                self._problem(key_mark, f"expected each key once, got it again after {first}")
            elif key is not None:
                node.key_marks[key] = key_mark
                node.value[key] = child
            self._path.pop()
        for source in merged:
            for name, child in source.value.items():
                node.value.setdefault(name, child)
                node.key_marks.setdefault(name, source.key_marks[name])
        return _sized(node, node.value.values())

    def _key(self, event: Any, events: Iterator[yaml.Event]) -> str | None:
        node = self._anchors.get(str(event.anchor)) if isinstance(event, yaml.AliasEvent) else None
        if isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                self._anchors[event.anchor] = Node(self._mark(event), event.value)
            return str(event.value)
        if node is not None and isinstance(node.value, str):
            return node.value
        self._problem(self._mark(event), "expected a name as the key, got something else")
        self._node(event, events)
        return None

    def _merged(self, node: Node) -> list[Node]:
        """The mappings a merge key brings in, nearest first."""
        sources = node.value if isinstance(node.value, list) else [node]
        for source in sources:
            if not isinstance(source.value, dict):
                self._problem(source.mark, f"expected a mapping or a list of mappings, got {shown(source.value)}")
        return [source for source in sources if isinstance(source.value, dict)]


def _sized(node: Node, children: Collection[Node]) -> Node:
    node.weight += sum(child.weight for child in children)
    node.height += max((child.height for child in children), default=0)
    return node


MERGE = "<<"
PLAIN = {None, ""}
"""The style of a scalar without quotes, as the Python and the C parser name it."""


class _Unreadable:
    """Stands for a value whose problem has been reported: nothing more is said about it."""

    def __repr__(self) -> str:
        return "a value that could not be read"


UNREADABLE = _Unreadable()

# YAML 1.2.2 section 10.3.2, the core schema, with a bound on digits
_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE, _FALSE = {"true", "True", "TRUE"}, {"false", "False", "FALSE"}
_INTEGER = re.compile(r"[-+]?[0-9]{1,30}")
_BASED = re.compile(r"0(?:o[0-7]{1,30}|x[0-9a-fA-F]{1,30})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,30}|[0-9]{1,30}(?:\.[0-9]{0,30})?)(?:[eE][-+]?[0-9]{1,3})?")


def _typed(text: str) -> Any:
    """What a plain scalar means."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
