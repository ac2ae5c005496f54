"""A configuration whatever there is, and what is said about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from agent.config import load_or_default, without_configuration
from tests.lab.command import environment

GOOD = "targets: [{name: t, type: tcp, address: 'db:5432'}]\n"


def test_what_is_there_is_used(tmp_path: Path) -> None:
    """As a ConfigMap is mounted: links to a directory of the day, and hidden names beside them."""
    day = tmp_path / "..2026_01_01"
    day.mkdir()
    (day / "netprobe.yaml").write_text(GOOD)
    (tmp_path / "..data").symlink_to(day)
    (tmp_path / "netprobe.yaml").symlink_to(Path("..data", "netprobe.yaml"))
    config, problems = load_or_default(tmp_path, {})
    assert [target.name for target in config.targets] == ["t"]
    assert config.discover is None
    assert problems == ()


@pytest.mark.parametrize("names", [[], [".hidden.yaml"], ["README.md"]])
def test_a_directory_without_files_is_no_configuration(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("not: read")
    assert load_or_default(tmp_path, {}) == (without_configuration(), ())


def test_nor_is_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    for path in (None, tmp_path / "absent", tmp_path / "absent" / "deeper"):
        assert load_or_default(path, {}) == (without_configuration(), ())


def test_without_a_configuration_the_environment_names_the_targets() -> None:
    config = without_configuration()
    assert config.targets == ()
    assert config.discover is not None
    assert {source.value for source in config.discover.sources} == {"airflow", "kubernetes"}


def test_of_a_bad_one_nothing_is_used_and_everything_said(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("log: {level: loud}\n" + GOOD)
    (tmp_path / "b.yaml").write_text("targets: 5\n")
    config, problems = load_or_default(tmp_path, {})
    assert config == without_configuration()
    assert [problem.path for problem in problems] == ["log.level", "targets"]


@pytest.mark.parametrize("file", [True, False], ids=["file", "directory"])
def test_one_that_may_not_be_read_is_a_bad_one(file: bool) -> None:  # noqa: FBT001
    code = """
import sys
from pathlib import Path
from agent.config import load_or_default
for problem in load_or_default(Path(sys.argv[1]), {})[1]:
    print(problem)
"""
    with TemporaryDirectory() as directory:
        path = Path(directory, "netprobe.yaml") if file else Path(directory, "closed")
        path.write_text(GOOD) if file else path.mkdir()
        path.chmod(0o000)
        done = subprocess.run(
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", code, path],
            env=environment(), cwd="/", capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert done.stdout.endswith("got an error: Permission denied\n")
    assert done.stdout.startswith(f"{path}")
    assert done.stdout.count("\n") == 1
