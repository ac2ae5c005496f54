"""The termination message: what it says first, how long it is, and that nothing about its file can do harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.diagnosis import Cause, Confidence, Diagnosis, Verdict
from agent.diagnosis.document import document
from agent.diagnosis.verdict import Past
from agent.termination import MESSAGE_LIMIT_BYTES, TERMINATION_LOG, leave, message
from tests.lab.command import environment

BROKEN = Verdict(
    cause=Cause.DNS_UNREACHABLE,
    confidence=Confidence.HIGH,
    targets=("api", "db"),
    summary="No nameserver answers.",
    evidence=("10.96.0.10: 4 of 4 questions went unanswered",),
    advice="Look at CoreDNS.",
)
SLOW = Verdict(
    cause=Cause.SLOW, confidence=Confidence.LOW, targets=("x",), summary="x is slow.", evidence=(), advice="Wait."
)


def said(*verdicts: Verdict, waiting: tuple[str, ...] = (), since: float | None = 0.0, **more: Any) -> str:
    shown = document(
        Diagnosis(verdicts), since=since, held_seconds=1.0, waiting=waiting, experiments=(), budget=None, **more
    )
    return message(shown)


def test_every_verdict_comes_first_and_what_backs_it_after() -> None:
    lines = said(BROKEN, SLOW).splitlines()
    assert lines[:2] == [
        "netprobe: dns_unreachable (high confidence): No nameserver answers.",
        "netprobe: slow (low confidence): x is slow.",
    ]
    rest = "\n".join(lines[2:])
    for text in ("api, db", "4 of 4 questions", "Look at CoreDNS.", "docs/runbook.md#dns_unreachable"):
        assert text in rest
    assert "No nameserver answers." not in rest


def test_the_runbook_is_where_the_configuration_says() -> None:
    text = said(BROKEN, runbook="https://runbooks.example.com/runbook.md")
    assert text.splitlines()[-1].split() == ["runbook", "https://runbooks.example.com/runbook.md#dns_unreachable"]


def test_what_is_over_is_said_to_be() -> None:
    """A task may have failed for it all the same."""
    text = said(recent=[Past(verdict=BROKEN, began_at=1_700_000_000.0, ended_at=1_700_000_060.0)])
    assert text.splitlines() == [
        "netprobe: until 2023-11-14T22:14:20.000Z: dns_unreachable (high confidence): No nameserver answers.",
        "netprobe: no target fails now, and nothing stands out.",
    ]


def test_a_network_that_was_well_is_said_to_have_been() -> None:
    """Who looks at a task that failed wants to know that, too."""
    assert said() == "netprobe: no target fails, and nothing stands out.\n"


def test_what_is_not_known_is_not_said_to_be_well() -> None:
    assert said(since=None, waiting=("a", "b")).splitlines() == [
        "netprobe: nothing is known, as no target has a result.",
        "netprobe: 2 targets without a result: a, b",
    ]


@given(st.lists(st.text(min_size=1, max_size=3000), min_size=1, max_size=4))
def test_it_fits_whatever_is_said(summaries: list[str]) -> None:
    """At most 4096 bytes of UTF-8, cut between characters; the kubelet would cut anywhere."""
    text = said(*(Verdict(cause=Cause.SLOW, confidence=Confidence.LOW, targets=("t",), summary=summary,
                          evidence=(), advice="") for summary in summaries))  # fmt: skip
    data = text.encode("utf-8")
    assert len(data) <= MESSAGE_LIMIT_BYTES
    assert data.decode("utf-8") == text
    assert text.startswith("netprobe: slow (low confidence): ")


@pytest.mark.parametrize("character", ["x", "é", "網", "🌐"])
def test_as_much_as_there_is_room_for(character: str) -> None:
    text = said(Verdict(cause=Cause.SLOW, confidence=Confidence.LOW, targets=(), summary=character * 5000,
                        evidence=(), advice=""))  # fmt: skip
    size = len(character.encode())
    assert MESSAGE_LIMIT_BYTES - size < len(text.encode()) <= MESSAGE_LIMIT_BYTES


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_is_kubernetes_own() -> None:
    assert Path("/dev/termination-log") == TERMINATION_LOG


def test_what_the_file_held_before_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("a longer text of another container's life\n")
    assert leave("short\n", file)
    assert file.read_text() == "short\n"


def test_nothing_is_made_that_is_not_there(tmp_path: Path) -> None:
    """Outside of Kubernetes /dev is nobody's to write to."""
    assert not leave("text", tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_no_link_is_followed(tmp_path: Path) -> None:
    file, link = tmp_path / "somebody's", tmp_path / "log"
    file.write_text("mine")
    link.symlink_to(file)
    assert not leave("text", link)
    assert file.read_text() == "mine"


def test_what_is_no_file_is_left_alone_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert not leave("text", pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert not leave("text", pipe)
    finally:
        os.close(reader)
    assert not leave("text", tmp_path)
    assert not leave("text", Path("/dev/full"))


LEAVE = """
import sys
from pathlib import Path
from agent.termination import leave
print(leave("x" * 100, Path(sys.argv[1])))
"""


def test_a_file_that_may_not_be_written_is_no_trouble() -> None:
    unprivileged = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    with TemporaryDirectory() as directory:
        file = Path(directory, "log")
        file.write_text("")
        said_of = {}
        for mode in (0o666, 0o444):
            file.chmod(mode)
            done = subprocess.run([*unprivileged, sys.executable, "-c", LEAVE, file], env=environment(), cwd="/",
                                  capture_output=True, text=True, check=True)  # fmt: skip
            said_of[mode] = done.stdout
    assert said_of == {0o666: "True\n", 0o444: "False\n"}


def test_a_full_disk_is_no_trouble(tmp_path: Path) -> None:
    """A file system without a block to spare."""
    script = """
set -e
mount -t tmpfs -o size=4k tmpfs "$1"
: > "$1/log"
dd if=/dev/zero of="$1/full" bs=4k count=1 status=none || true
exec "$2" -c "$3" "$1/log"
"""
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable, LEAVE]
    done = subprocess.run(command, env=environment(), cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
