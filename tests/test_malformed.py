"""Every malformed configuration is refused with the promised messages, all at once, and exit code 2.

Each file (or directory) of tests/malformed has its messages beside it, with the suffix `.expected`. Where messages
change on purpose, `python -m tests.test_malformed` writes them anew: read the difference before it is committed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import main
from agent.exit_codes import USAGE
from agent.probers import PROBERS

MALFORMED = Path(__file__).parent / "malformed"
CASES = sorted(path.name for path in MALFORMED.iterdir() if path.suffix != ".expected")
ENVIRONMENT = {"NUMBER": "70000", "TEN": "10", "REFERENCE": "${TEN}s", "PASSWORD": "hunter2", "EMPTY": ""}
FORMAT = re.compile(r"[^:\n]+:[1-9][0-9]*:[1-9][0-9]*: (?:(?:\S|'[^']+')+: )?expected .+, got .+")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MALFORMED)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOT_SET", raising=False)


def expected(case: str) -> str:
    return (MALFORMED / f"{case}.expected").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_a_malformed_configuration_is_refused_with_its_exact_messages(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The messages are a promise: whoever changes one changes the file that holds it."""
    code = main(["config", "validate", "--config", case])

    seen = capsys.readouterr()
    assert (seen.err, seen.out, code) == (expected(case), "", USAGE)


@pytest.mark.parametrize("case", CASES)
def test_every_message_has_a_place_what_was_expected_and_what_was_seen(case: str) -> None:
    """Editors find their way by FILE:LINE:COLUMN, people by `expected …, got …`."""
    for line in expected(case).splitlines():
        assert FORMAT.fullmatch(line), line


@pytest.mark.parametrize("case", ["file-not-utf8.yaml", "many-problems.yaml", "directory-one-broken", "missing.yaml"])
def test_the_installed_command_says_the_same(case: str) -> None:
    """The process as users start it: messages on standard error, nothing else, exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "agent", "config", "validate", "--config", case],
        cwd=MALFORMED,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(MALFORMED.parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    promised = (
        "missing.yaml:1:1: expected a readable file, got an error: No such file or directory\n"
        if case == "missing.yaml"
        else expected(case)
    )
    assert (done.stderr, done.stdout, done.returncode) == (promised, "", USAGE)


@pytest.mark.parametrize("command", ["run", "check", "config show"])
def test_no_command_starts_on_a_malformed_configuration(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What `validate` refuses, every command refuses, with the same messages."""
    code = main([*command.split(), "--config", "many-problems.yaml"])

    assert (capsys.readouterr().err, code) == (expected("many-problems.yaml"), USAGE)


def test_there_are_at_least_sixty_and_every_type_has_some() -> None:
    """Every type's own keys are among the malformed ones, not only the common ones."""
    assert len(CASES) >= 60
    for kind in PROBERS:
        assert any(case.startswith(f"{kind}-") for case in CASES), kind


def renew() -> None:
    """Write every `.expected` as it is now."""
    os.chdir(MALFORMED)
    os.environ.update(ENVIRONMENT)
    for case in CASES:
        with contextlib.redirect_stderr(io.StringIO()) as seen, contextlib.redirect_stdout(io.StringIO()):
            main(["config", "validate", "--config", case])
        (MALFORMED / f"{case}.expected").write_text(seen.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    renew()
