"""Styled text cut into lines that fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

NARROWEST = 20
"""Below this width lines are left to the terminal to break."""


def wrap(text: Text, width: int) -> list[Text]:
    """A sentence as lines, broken at spaces; a longer word is broken anywhere."""
    lines = text.wrap(Console(width=width), max(width, NARROWEST), overflow="fold")
    for line in lines:
        line.rstrip()
    return list(lines)


def flow(pieces: Sequence[Text], separator: Text, width: int) -> list[Text]:
    """Pieces side by side, as many as fit a line: a piece is broken only where it alone is too long."""
    lines: list[Text] = []
    for piece in pieces:
        if lines and lines[-1].cell_len + separator.cell_len + piece.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], separator, piece)
        else:
            lines.extend(wrap(piece, width))
    return lines


def aligned(rows: Sequence[Sequence[str]], width: int, style: str) -> Iterator[Text]:
    """Rows with their columns below each other, or one cell after the other where that is too wide."""
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if sum(widths) + 2 * len(widths) - 2 <= width:
        for row in rows:
            line = Text("  ", style).join(pad(Text(cell, style), room) for cell, room in zip(row, widths, strict=True))
            line.rstrip()
            yield line
    else:
        for row in rows:
            first, *others = flow([Text(cell, style) for cell in row], Text("  "), width - 2)
            yield first
            yield from (indented(line, 2) for line in others)


def pad(text: Text, width: int) -> Text:
    """The text with spaces after it up to a width."""
    return Text.assemble(text, " " * (width - text.cell_len))


def indented(line: Text, width: int) -> Text:
    """The text after as many spaces."""
    return Text.assemble(" " * width, line)
