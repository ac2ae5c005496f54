"""Changes of a text, each at its place, and where whole lines begin and end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from agent.airflow.inject.layout import Layout

_BREAK = re.compile(r"\r\n|\r|\n")


class Rank(IntEnum):
    """To what the lines belong that are put between two: what stands above comes first, the innermost of it before."""

    INSIDE = 0
    """To a value above."""
    AFTER = 1
    """To the mapping that ends above."""
    BEFORE = 2
    """To what stands below."""


@dataclass(slots=True)
class Edits:
    """Changes of one text; those at one place come by rank, and then in the order in which they were asked for."""

    text: str
    _changes: list[tuple[int, int, Rank, str]] = field(default_factory=list)
    _lines: list[tuple[int, int]] = field(default_factory=list)

    def insert(self, at: int, text: str) -> None:
        """Put text between two characters."""
        self._changes.append((at, at, Rank.INSIDE, text))

    def replace(self, start: int, end: int, text: str = "") -> None:
        """Put text, or nothing, in the place of other text."""
        self._changes.append((start, end, Rank.INSIDE, text))

    def insert_lines(self, at: int, lines: Sequence[str], layout: Layout, rank: Rank) -> None:
        """Put whole lines where a line begins, or behind the last one, which keeps its missing line end."""
        if at == 0 or self.text[at - 1] in "\r\n":
            text = "".join(f"{line}{layout.newline}" for line in lines)
        else:
            text = "".join(f"{layout.newline}{line}" for line in lines)
        self._changes.append((at, at, rank, text))

    def remove_lines(self, start: int, end: int) -> None:
        """Take out the lines from that of the first character to that of the last one."""
        self._lines.append((self.line_start(start), self.after_line(end)))

    def applied(self) -> str:
        """The text with every change made."""
        regions: list[tuple[int, int]] = []
        for start, end in sorted(self._lines):
            if regions and start <= regions[-1][1]:
                regions[-1] = (regions[-1][0], max(end, regions[-1][1]))
            else:
                regions.append((start, end))
        changes = [*self._changes]
        for start, end in regions:
            # Behind a last line without an end: the line end before it came with it.
            unended = start > 0 and end == len(self.text) and self.text[end - 1] not in "\r\n"
            first = start - len(_last_break(self.text[:start])) if unended else start
            changes.append((first, end, Rank.INSIDE, ""))
        parts: list[str] = []
        done = 0
        for start, end, _, new in sorted(changes, key=lambda change: change[:3]):
            parts += [self.text[done:start], new]
            done = end
        return "".join([*parts, self.text[done:]])

    def line_start(self, offset: int) -> int:
        """Where the line of a character begins."""
        return max(self.text.rfind("\n", 0, offset), self.text.rfind("\r", 0, offset)) + 1

    def line_above(self, start: int) -> int:
        """Where the line before the one begins that begins at `start`."""
        return self.line_start(start - len(_last_break(self.text[:start])))

    def after_line(self, end: int) -> int:
        """Where the line after the one begins that holds the character before `end`; or the end of the text."""
        if end > 0 and self.text[end - 1] in "\r\n":
            return end
        found = _BREAK.search(self.text, end)
        return found.end() if found else len(self.text)

    def margin(self, offset: int) -> str:
        """The white space at the beginning of a character's line."""
        line = self.text[self.line_start(offset) : offset]
        return line[: len(line) - len(line.lstrip(" \t\ufeff"))]

    def begins_line(self, offset: int) -> bool:
        """Whether nothing but white space stands before a character on its line."""
        return not self.text[self.line_start(offset) : offset].strip(" \ufeff")


def _last_break(text: str) -> str:
    found = re.search(r"(?:\r\n|\r|\n)\Z", text)
    return found.group() if found else ""
