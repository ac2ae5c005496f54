"""The matrix of the fault lab: what was broken, what the agent said, how sure it was and how soon."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.campaign import Result

BEGIN, END = "<!-- fault lab: begin -->", "<!-- fault lab: end -->"


def line(result: Result) -> str:
    """One result, for a terminal."""
    said = "; ".join(f"{verdict['cause']} ({verdict['confidence']})" for verdict in result.verdicts) or "healthy"
    return f"{result.scenario.name}: {said}" + ("" if result.seconds is None else f", {result.seconds:.1f} s")


def median_seconds(results: Iterable[Result]) -> float | None:
    """Of the time from a fault to the right verdict; None where nothing was broken."""
    seconds = [result.seconds for result in results if result.seconds is not None]
    return statistics.median(seconds) if seconds else None


def summary(results: Sequence[Result]) -> str:
    """How many scenarios of which kind, and the median."""
    broken = [result for result in results if result.seconds is not None]
    two = sum(len(result.scenario.expected) > 1 for result in broken)
    median = median_seconds(results)
    return (
        f"{len(broken)} worlds with a fault, {two} of them with two at once, were explained; "
        f"{len(results) - len(broken)} healthy ones were left alone. "
        f"From fault to right verdict: median {'-' if median is None else f'{median:.1f} s'}"
    )


def table(results: Sequence[Result]) -> str:
    """The matrix in Markdown."""
    rows = ["| what is broken | verdict | confidence | seconds |", "| --- | --- | --- | ---: |"]
    for result in results:
        causes = ", ".join(f"`{verdict['cause']}`" for verdict in result.verdicts) or "`healthy`"
        confidences = ", ".join(verdict["confidence"] for verdict in result.verdicts) or "-"
        seconds = "-" if result.seconds is None else f"{result.seconds:.1f}"
        rows.append(f"| {result.scenario.title} | {causes} | {confidences} | {seconds} |")
    return "\n".join(rows)


def read(file: Path) -> list[tuple[str, frozenset[str]]]:
    """What was broken and which causes the agent named, row by row, as the file has it."""
    _, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    rows = [row.split(" | ") for row in rest.partition(END)[0].splitlines() if row.startswith("| ")]
    return [(broken.removeprefix("| "), frozenset(re.findall(r"`(\w+)`", causes))) for broken, causes, *_ in rows[2:]]


def write(file: Path, results: Sequence[Result]) -> None:
    """Put the matrix between its marks."""
    before, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"expected {BEGIN} and {END} in {file}"
    folded = f"<details>\n<summary>All {len(results)} scenarios</summary>\n\n{table(results)}\n\n</details>"
    file.write_text(f"{before}{BEGIN}\n{summary(results)}.\n\n{folded}\n{END}{after}", encoding="utf-8")
