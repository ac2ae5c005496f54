"""A file of YAML as a tree that knows where each value begins and ends, so that text can be put between them.

Writing the file anew through a YAML library would lose its comments, quotes, anchors, indentation and line ends. So
nothing is ever written anew: text is inserted at the marks of PyYAML's events, and every other character stays.
Airflow reads its template with PyYAML, too.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

from agent.config.problem import Mark, Problem

SIZE_LIMIT_BYTES = 4 * 1024 * 1024
NODE_LIMIT = 200_000
"""Values in one file, each use of an alias counted in full."""


@dataclass(slots=True, kw_only=True)
class Node:
    """A value where it stands. Offsets count characters of the text."""

    start: int
    end: int
    """Behind its last character; of a collection without braces, behind that of the last value in it."""
    column: int
    """Of its first character, from 0."""
    flow: bool = False
    """Written with braces or brackets, or inside some."""
    plain: bool = True
    """Without an anchor or a tag, and no alias."""
    text: str | None = None
    """Of a scalar."""
    literal: bool = False
    """A block of text (`|` or `>`)."""
    items: list[Node] | None = None
    entries: list[tuple[Node, Node]] | None = None

    def names(self) -> list[str | None]:
        """The keys of a mapping; None for one that is no text."""
        return [key.text for key, _ in self.entries or ()]

    def get(self, name: str) -> Node | None:
        """The value at a key, where it is written here and not merged in."""
        return next((value for key, value in self.entries or () if key.text == name), None)


@dataclass(slots=True, eq=False)
class Document:
    """One document of a file: where everything stands, and what Airflow would read."""

    root: Node
    data: Any


@dataclass(slots=True)
class Source:
    """A whole file."""

    name: str
    text: str
    documents: list[Document] = field(default_factory=list)
    dashes: list[int] = field(default_factory=list)
    """Where the `-` of the items of lists stand."""

    def mark(self, offset: int) -> Mark:
        """A place as editors show it."""
        before = self.text[:offset]
        return Mark(self.name, before.count("\n") + 1, offset - before.rfind("\n"))

    def problem(self, node: Node | int, message: str) -> Problem:
        """Something is wrong at a value."""
        return Problem(mark=self.mark(node if isinstance(node, int) else node.start), path="", message=message)

    def dash(self, item: Node) -> int:
        """Where the `-` of an item stands, of a list without brackets."""
        return self.dashes[bisect.bisect_left(self.dashes, item.start + 1) - 1]


class Unreadable(Exception):  # noqa: N818 - not an error of the program
    """A file that is no YAML; its argument is the problem."""


class _Parser(Reader, Scanner, Parser):
    """PyYAML's in Python, whose marks count characters. Remembers where the items of lists begin."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        self.dashes: list[int] = []

    def fetch_block_entry(self) -> None:
        self.dashes.append(self.index)
        super().fetch_block_entry()


class _Constructor(Composer, SafeConstructor, Resolver):
    """Data from events that were read before. Dates stay text, as Kubernetes reads them."""

    def __init__(self, events: Sequence[Any]) -> None:
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._events = iter(events)
        self._next = next(self._events)

    def check_event(self, *kinds: type) -> bool:
        return isinstance(self._next, kinds)

    def peek_event(self) -> Any:
        return self._next

    def get_event(self) -> Any:
        event, self._next = self._next, next(self._events, None)
        return event


_Constructor.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in Resolver.yaml_implicit_resolvers.items()
}


def read(name: str, data: bytes) -> Source:
    """Read a file. Raises Unreadable."""
    if len(data) > SIZE_LIMIT_BYTES:
        raise Unreadable(Problem(mark=Mark(name), path="", message=f"expected at most {SIZE_LIMIT_BYTES >> 20}MiB"))
    try:
        source = Source(name, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        before = Source(name, data[: error.start].decode("utf-8", "replace"))
        message = f"expected UTF-8 text, got the byte 0x{data[error.start]:02x}"
        raise Unreadable(before.problem(len(before.text), message)) from None
    return _parse(source)


def reread(source: Source, text: str) -> Source:
    """The same file with another text. Raises Unreadable."""
    return _parse(Source(source.name, text))


def _parse(source: Source) -> Source:
    # The C parser, which Airflow uses where it is there, takes tabs for space where the Python one takes offence; the
    # Python one counts in characters. JSON has tabs between values only.
    text = source.text.replace("\t", " ") if source.text.lstrip("\ufeff \t\r\n")[:1] == "{" else source.text
    while True:
        try:
            _build(source, text)
        except yaml.MarkedYAMLError as error:
            mark: Any = error.problem_mark or error.context_mark
            if mark is not None and _is_separating_tab(text, mark.index):
                text = f"{text[: mark.index]} {text[mark.index + 1 :]}"
                continue
            raise Unreadable(_syntax(source, error)) from None
        except yaml.reader.ReaderError as error:
            message = f"expected YAML, got the character {chr(int(error.character))!r}"
            raise Unreadable(source.problem(int(error.position), message)) from None
        except RecursionError:
            raise Unreadable(source.problem(0, "expected fewer levels")) from None
        return source


def _build(source: Source, text: str) -> None:
    parser: Any = _Parser(text)
    events: list[Any] = []
    while parser.check_event():
        events.append(parser.get_event())
    source.dashes = parser.dashes
    _bound(source, events)
    rest = iter(events)
    roots = [_node(text, next(rest), rest, flow=False) for event in rest if isinstance(event, yaml.DocumentStartEvent)]
    constructor: Any = _Constructor(events)
    source.documents = [Document(root, constructor.get_data()) for root in roots if constructor.check_data()]


def _bound(source: Source, events: Sequence[Any]) -> None:
    """Refuse a file whose aliases unfold to more than anybody means, or to themselves."""
    weights: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    total = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in weights:
                start: Any = event.start_mark
                message = f"expected an anchor above, got the alias *{event.anchor} without one, or inside it"
                raise Unreadable(source.problem(start.index, message))
            total += weights[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, total))
        elif isinstance(event, yaml.CollectionEndEvent | yaml.ScalarEvent):
            anchor, before = (event.anchor, total) if isinstance(event, yaml.ScalarEvent) else open_.pop()
            total += 1
            if anchor is not None:
                weights[anchor] = total - before
        if total > NODE_LIMIT:
            raise Unreadable(source.problem(0, f"expected at most {NODE_LIMIT} values with aliases unfolded, got more"))


def _is_separating_tab(text: str, index: int) -> bool:
    """Between a value and what follows it on its line: not indentation."""
    line = text[max(text.rfind("\n", 0, index), text.rfind("\r", 0, index)) + 1 : index]
    return text[index : index + 1] == "\t" and bool(line.strip(" \t-?"))


def _node(text: str, event: Any, events: Iterator[Any], *, flow: bool) -> Node:
    node = Node(
        start=event.start_mark.index,
        end=event.end_mark.index,
        column=event.start_mark.column,
        flow=flow,
        plain=not isinstance(event, yaml.AliasEvent) and event.anchor is None and event.tag is None,
    )
    if isinstance(event, yaml.ScalarEvent):
        node.text = event.value
        node.literal = event.style in {"|", ">"}
        if node.literal:
            node.end = _end_of_literal(text, node)
    elif isinstance(event, yaml.SequenceStartEvent):
        node.flow = flow or bool(event.flow_style)
        node.items = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            node.items.append(_node(text, event, events, flow=node.flow))
        node.end = _end_of(event) if node.flow else node.items[-1].end
    elif isinstance(event, yaml.MappingStartEvent):
        node.flow = flow or bool(event.flow_style)
        node.entries = []
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = _node(text, event, events, flow=node.flow)
            node.entries.append((key, _node(text, next(events), events, flow=node.flow)))
        node.end = _end_of(event) if node.flow else node.entries[-1][1].end
    return node


def _end_of(event: Any) -> int:
    end: int = event.end_mark.index
    return end


def _end_of_literal(text: str, node: Node) -> int:
    """Behind the last line that counts: empty lines at the end do where the header says `+`, and otherwise not."""
    block = text[node.start : node.end]
    header = re.match(r"[^\r\n#]*", block)
    if header is not None and "+" in header.group():
        return node.end
    return node.start + len(block.rstrip(" \r\n"))


def _syntax(source: Source, error: yaml.MarkedYAMLError) -> Problem:
    mark: Any = error.problem_mark or error.context_mark
    at = mark.index if mark is not None else 0
    # Not those between quotes: templates of Airflow stand in values.
    braces = re.search(r"^(?:[ \t]*|.*[:-][ \t]+)(?=\{\{)", source.text, re.MULTILINE)
    if braces is not None:
        message = "expected YAML, got a template with {{ }}: render it first, or inject into the values of the chart"
        return source.problem(braces.end(), f"{message} (--format chart-values)")
    seen = ", ".join(part for part in (error.problem, error.context) if part)
    return source.problem(at, f"expected YAML, got an error: {seen}")
