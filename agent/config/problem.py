"""What is wrong with a configuration, and where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file, lines and columns from 1 as editors show them; or, with line 0, an argument as a whole."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: `FILE:LINE:COLUMN: path.to.key: expected …, got …`."""

    mark: Mark
    path: str
    """The key, `targets[2].expect.status[0]`; empty for the file as a whole."""
    message: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.path}: {self.message}" if self.path else f"{self.mark}: {self.message}"


class ConfigError(Exception):
    """A configuration that cannot be used: everything that is wrong with it, in the order of its files and lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=_in_order))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def _in_order(problem: Problem) -> tuple[str, int, int, str]:
    return (problem.mark.file, problem.mark.line, problem.mark.column, problem.path)


_PLAIN_NAME = re.compile(r"[^\s.\[\]'\"]+")


def dotted(path: Sequence[object]) -> str:
    """A path of names and indexes as people write it: `targets[2].headers['X.Y']`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_NAME.fullmatch(str(part)):
            text += f".{part}" if text else str(part)
        else:
            text += f"[{str(part)!r}]"
    return text
