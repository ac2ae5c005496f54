"""What the repository promises outside its code: documents, configuration, locks, commands."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import agent
from agent.config import load

ROOT = Path(__file__).resolve().parent.parent
TRAPS = [f"T{number}" for number in range(1, 22)]


def tracked() -> list[Path]:
    """Every file of the repository, or of what was checked out of it."""
    # The tests may run as root in a checkout that is somebody else's.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def documents() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- the traps of blackbox_exporter ---------------------------------------------------------------------------------


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_has_a_row_and_a_test_or_a_sentence(trap: str) -> None:
    """A trap is avoided on purpose: docs/traps.md names the test that shows it, or says why it cannot be built."""
    name = f"def test_trap_t{int(trap[1:]):02d}_"
    tests = [relative(path) for path in (ROOT / "tests").rglob("test_*.py") if name in text_of(path)]
    rows = [row for row in trap_rows() if row[0] == trap]

    assert len(rows) == 1, f"docs/traps.md has {len(rows)} rows for {trap}"
    assert tests or "`test_" not in rows[0][2], f"no test is called {name.removeprefix('def ')}…"
    assert all(all(row) for row in rows), f"an empty cell in the row of {trap}"


def test_rows_of_traps_name_tests_that_exist() -> None:
    """A test that docs/traps.md refers to is there, and every row is about a trap that is known."""
    everything = "\n".join(text_of(path) for path in (ROOT / "tests").rglob("test_*.py"))
    for trap, _, answer in trap_rows():
        assert trap in TRAPS
        for name in re.findall(r"\btest_\w+", answer):
            assert f"def {name}(" in everything, f"{trap} refers to {name}"


def trap_rows() -> list[list[str]]:
    """The cells of every row in docs/traps.md."""
    lines = text_of(ROOT / "docs" / "traps.md").splitlines()
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line.startswith("| T")]
    assert all(len(row) == 3 for row in rows), "a row has three cells; a | inside a cell is written &#124;"
    return rows


# --- nothing of the machine it was written on -----------------------------------------------------------------------


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the machine's own configuration, never the repository's."""
    registry = re.compile(r"\b(?:pypi|pythonhosted|npmjs)[.](?:org|com|io)\b")
    found = [relative(path) for path in tracked() if registry.search(text_of(path))]

    assert not found


def test_no_file_holds_a_path_of_this_machine() -> None:
    """The checkout may lie anywhere, and nobody's home directory is part of it."""
    here = [str(place) for place in (ROOT, Path.home()) if len(place.parts) > 1]
    inside = re.compile("|".join(rf"(?<![\w.-]){re.escape(place)}(?![\w-])" for place in here))
    found = [relative(path) for path in tracked() if inside.search(text_of(path))]

    assert not found


# --- documents ------------------------------------------------------------------------------------------------------

_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors that headings get."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text_of(path), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", documents(), ids=relative)
def test_links_resolve(document: Path) -> None:
    """Every link to a file of the repository leads to one, and to a heading that it has."""
    for match in _LINK.finditer(_CODE.sub("", text_of(document))):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (document.parent / target).resolve() if target else document
        assert path.exists(), f"{relative(document)} links to {target}"
        assert not anchor or anchor in anchors(path), f"{relative(document)} links to {target}#{anchor}"


def test_the_index_lists_every_document() -> None:
    """docs/README.md leads to everything in docs/."""
    index = text_of(ROOT / "docs" / "README.md")
    missing = [path.name for path in documents() if path.parent.name == "docs" and f"({path.name})" not in index]

    assert [name for name in missing if name != "README.md"] == []


def test_make_targets_in_documents_exist() -> None:
    """`make something` in a document is something make can do."""
    makefile = text_of(ROOT / "Makefile")
    for document in documents():
        for target in re.findall(r"(?:^|`|\bsudo )make ([a-z-]+)\b", text_of(document), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{relative(document)}: make {target}"


def test_make_help_lists_every_target() -> None:
    """What make can do, it says."""
    makefile = text_of(ROOT / "Makefile")
    offered = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in re.findall(r"^\.PHONY: ([a-z-]+)$", makefile, re.MULTILINE):
        described = re.search(rf"^{target}:.* ## ", makefile, re.MULTILINE)
        assert described is None or re.search(rf"^  {target} +\S", offered, re.MULTILINE), target
    assert "make TARGET" in offered


def test_the_changelog_knows_this_version() -> None:
    """The newest section of the changelog is the version of the package."""
    versions = re.findall(r"^## \[(\d[^\]]*)\]", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)

    assert versions[0] == agent.__version__


def test_the_configuration_in_the_readme_loads(tmp_path: Path) -> None:
    """What people copy out of the README works as it is."""
    (example,) = re.findall(r"```yaml\n(.*?)```", text_of(ROOT / "README.md"), re.DOTALL)
    path = tmp_path / "netprobe.yaml"
    path.write_text(example, encoding="utf-8")

    assert len(load(path, {}).targets) > 1


# --- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "config").iterdir()), ids=relative)
def test_every_shipped_configuration_loads(path: Path) -> None:
    """Each file in config/ is one netprobe takes, with nothing set in the environment."""
    config = load(path, {})

    assert config.targets or config.discover


# --- packages -------------------------------------------------------------------------------------------------------

PYPROJECT = tomllib.loads(text_of(ROOT / "pyproject.toml"))


def pins(lock: str) -> dict[str, Version]:
    """The version of every package in a lock file."""
    found = re.findall(r"^([\w.-]+)==([\w.+!-]+)", text_of(ROOT / lock), re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in found}


def requirements(*sources: list[object]) -> list[Requirement]:
    return [Requirement(item) for source in sources for item in source if isinstance(item, str)]


RUNTIME = PYPROJECT["project"]["dependencies"]
DEMO = PYPROJECT["project"]["optional-dependencies"]["demo"]
BUILD, DEV = PYPROJECT["dependency-groups"]["build"], PYPROJECT["dependency-groups"]["dev"]


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", requirements(RUNTIME)),
        ("requirements-demo.lock", requirements(RUNTIME, DEMO, BUILD)),
        ("requirements-dev.lock", requirements(RUNTIME, DEMO, BUILD, DEV)),
    ],
)
def test_locks_hold_what_the_project_asks_for(lock: str, wanted: list[Requirement]) -> None:
    """Every requirement is locked, to a version it allows. If not: make lock."""
    locked = pins(lock)
    for requirement in wanted:
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{lock} lacks {requirement.name}: make lock"
        assert version in requirement.specifier, f"{lock} has {requirement.name} {version}: make lock"


def test_locks_agree() -> None:
    """What is tested is what is run: the same versions in all locks, and no tool in the runtime's."""
    everything = pins("requirements-dev.lock")
    for lock in ("requirements.lock", "requirements-demo.lock"):
        assert pins(lock).items() <= everything.items()
    assert not pins("requirements.lock").keys() & {"trustme", "cryptography", "pytest", "hatchling", "uv"}


def test_every_locked_file_has_a_hash() -> None:
    """Nothing is installed that is not the very file that was locked."""
    for lock in ("requirements.lock", "requirements-demo.lock", "requirements-dev.lock"):
        entries = re.split(r"^(?=[\w.-]+==)", text_of(ROOT / lock), flags=re.MULTILINE)[1:]
        assert entries
        assert all("--hash=sha256:" in entry for entry in entries)


# --- scripts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / ".ci").iterdir()), ids=relative)
def test_scripts_can_be_run(path: Path) -> None:
    """Each is executable, and its shell can read it."""
    shell = text_of(path).splitlines()[0].removeprefix("#!").split()[-1]

    assert os.access(path, os.X_OK)
    assert subprocess.run([Path(shell).name, "-n", str(path)], capture_output=True, check=False).returncode == 0
