"""docs/failures.md names every pair of phase and reason, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from agent.model import REASONS, Phase, Reason

DOCUMENT = Path(__file__).parents[1] / "docs" / "failures.md"
EVERYWHERE = frozenset.intersection(*REASONS.values())


def documented() -> dict[str, set[str]]:
    """The reasons in the table of each section, by the words of its heading."""
    sections: dict[str, set[str]] = {}
    for text in DOCUMENT.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, _, body = text.partition("\n")
        for phase in heading.split(", "):
            sections[phase] = set(re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE))
    return sections


def test_every_pair_is_explained() -> None:
    """A reason that can stand in any phase is explained once; every other one in each phase that can give it."""
    sections = documented()

    assert sections.pop("In any phase") == EVERYWHERE
    assert set(sections) == set(Phase)
    for phase, reasons in sections.items():
        allowed = REASONS[Phase(phase)]
        # The two phases that share a section share its table.
        shared = REASONS[Phase.TRANSFER] if phase == Phase.REQUEST else allowed
        assert reasons <= shared, phase
        assert allowed - EVERYWHERE <= reasons, phase


def test_every_reason_is_one_of_the_enum() -> None:
    """No word that netprobe never says."""
    assert set.union(*documented().values()) == set(Reason)
