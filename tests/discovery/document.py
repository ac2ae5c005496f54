"""Writes the table of usual ports in docs/discovery.md: `python -m tests.discovery.document`."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.airflow.discovery.by_type import USUAL

DOCUMENT = Path(__file__).parents[2] / "docs" / "discovery.md"
BEGIN, END = "from the code. -->\n", "<!-- end -->\n"


def renewed(text: str) -> str:
    """The document with the table as the code has it."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    rows = [
        f"| `{name}` | {usual.ask} | {usual.port} | {f'`{usual.host}`' if usual.host else ''} |"
        for name, usual in USUAL.items()
    ]
    table = "\n".join(["", "| type | asked by | port | host |", "| --- | --- | --- | --- |", *rows, "", ""])
    return f"{before}{begin}{table}{end}{after}"


def main() -> int:
    """Write the document."""
    DOCUMENT.write_text(renewed(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
