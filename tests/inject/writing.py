"""Writes data as YAML in one of the many ways in which people do, each drawn at random."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True, slots=True)
class Hand:
    """Whose writing it is: the habits of one file."""

    random: Random
    step: int
    dash: int
    gap: int
    """Columns from the `-` of a list to what it lists."""
    noise: float
    """How often a comment, an empty line or a pair of braces comes in."""

    def chance(self, amount: float = 1.0) -> bool:
        return self.random.random() < self.noise * amount

    def write(self, document: Any) -> list[str]:
        """The lines of a document."""
        return [*self._aside(0), *self._mapping(document, 0), *self._aside(0)]

    def _mapping(self, value: dict[str, Any], column: int) -> list[str]:
        lines: list[str] = []
        for key, inner in value.items():
            lines += self._aside(column)
            lines += self._entry(key, inner, column)
        return lines

    def _entry(self, key: str, value: Any, column: int) -> list[str]:
        name = self.random.choice([key, key, f'"{key}"', f"'{key}'"]) if self.chance() else key
        start = f"{' ' * column}{name}{' ' if self.chance(0.2) else ''}:"
        if isinstance(value, dict) and value and not self.chance(0.3):
            return [self._ended(start), *self._mapping(value, column + self.step)]
        if isinstance(value, list) and value and not self.chance(0.3):
            return [self._ended(start), *self._list(value, column + self.dash)]
        if isinstance(value, str) and self.chance(0.4):
            return self._block(start, value, column)
        if value is None and self.chance():
            return [self._ended(start)]
        gap = " " * self.random.choice([1, 1, 1, 3])
        if value in (None, [], {}) and self.chance(0.5):
            gap = f"\n{' ' * (column + self.step)}"
        return self._ended(f"{start}{gap}{self._flow(value, column)}").split("\n")

    def _list(self, values: list[Any], column: int) -> list[str]:
        lines: list[str] = []
        for value in values:
            lines += self._aside(column)
            pad = " " * column
            if isinstance(value, dict) and value and not self.chance(0.3):
                first, *others = self._mapping_from_key(value, column + 1 + self.gap)
                lines += [f"{pad}-{' ' * self.gap}{first.lstrip(' ')}", *others]
            else:
                lines += self._ended(f"{pad}- {self._flow(value, column)}").split("\n")
        return lines

    def _mapping_from_key(self, value: dict[str, Any], column: int) -> list[str]:
        """A mapping whose first line is a key: it stands behind a dash."""
        (key, inner), *others = value.items()
        return [*self._entry(key, inner, column), *self._mapping(dict(others), column)]

    def _block(self, start: str, value: str, column: int) -> list[str]:
        """A block of text that ends in one line end, or, kept, in as many as there are."""
        lines = value.split("\n")
        if any(line != line.strip() or not line.isprintable() for line in lines) or not lines[0]:
            return [f"{start} {json.dumps(value)}"]
        end = "" if lines[-1] == "" else "-"
        body = lines[:-1] if lines[-1] == "" else lines
        if not body[-1]:
            return [f"{start} {json.dumps(value)}"]
        after = [""] * self.random.choice([0, 0, 1, 2])
        return [f"{start} |{end}", *((" " * (column + self.step) + line) if line else "" for line in body), *after]

    def _flow(self, value: Any, column: int) -> str:
        if isinstance(value, dict) and value:
            inner = [f"{self._key(key)}: {self._flow(each, column)}" for key, each in value.items()]
            return self._between("{", inner, "}", column)
        if isinstance(value, list) and value:
            return self._between("[", [self._flow(each, column) for each in value], "]", column)
        if value is None:
            return self.random.choice(["null", "~"])
        if isinstance(value, dict | list):
            return self.random.choice(["{}", "{ }"] if isinstance(value, dict) else ["[]", "[ ]"])
        return self._scalar(value)

    def _between(self, opening: str, inner: list[str], closing: str, column: int) -> str:
        if self.chance():
            pad = " " * (column + self.step + 1)
            comma = "," if self.chance() else ""
            return f"{opening}\n{pad}" + f",\n{pad}".join(inner) + f"{comma}\n{pad}{closing}"
        space = " " if self.chance() else ""
        return f"{opening}{space}{', '.join(inner)}{space}{closing}"

    def _key(self, key: str) -> str:
        return f'"{key}"' if self.chance() else key

    def _scalar(self, value: Any) -> str:
        if isinstance(value, str):
            plain = value.isidentifier() and value.lower() not in {"true", "false", "yes", "no", "on", "off", "null"}
            quoted = value.isprintable()
            ways: list[Callable[[], str]] = [lambda: json.dumps(value)]
            ways += [lambda: value] if plain else []
            ways += [lambda: "'" + value.replace("'", "''") + "'"] if quoted else []
            return self.random.choice(ways)()
        return json.dumps(value)

    def _ended(self, line: str) -> str:
        return f"{line}{self.random.choice(['', '  # ' + self._words(), '   '])}" if self.chance() else line

    def _aside(self, column: int) -> list[str]:
        """Lines between others, which mean nothing."""
        if not self.chance():
            return []
        comment = " " * self.random.choice([column, column, 0, column + self.step - 1]) + "# " + self._words()
        return self.random.choice([[""], [comment], ["", comment, comment], [comment, ""]])

    def _words(self) -> str:
        return self.random.choice(["why", "- name: base", "initContainers:", "a: [b", '"', "{{ x }}", "é\tü", "---"])
