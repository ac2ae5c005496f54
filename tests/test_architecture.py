"""The layers of the package hold, for every module, and the tool that says so would notice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def lint_imports(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    return subprocess.run(
        command, cwd=checkout, env={"PYTHONPATH": str(checkout)}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package and its contracts."""
    shutil.copytree(ROOT / "agent", tmp_path / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_hold(checkout: Path) -> None:
    """Dependencies point one way."""
    report = lint_imports(checkout)

    assert report.returncode == 0, report.stdout
    assert " 0 broken" in report.stdout


@pytest.mark.parametrize(
    ("module", "stray", "contract"),
    [
        ("model.py", "import agent.config", "Dependencies point one way"),
        ("probers/tcp.py", "import agent.sinks", "Dependencies point one way"),
        ("sinks/__init__.py", "import agent.server", "Dependencies point one way"),
        ("probers/tcp.py", "import rich", "What the pod pays for is what it runs"),
        ("config/load.py", "import trustme", "What the pod pays for is what it runs"),
        ("model.py", "import aiohttp", "The core knows no library"),
    ],
)
def test_a_stray_import_is_noticed(checkout: Path, module: str, stray: str, contract: str) -> None:
    """Every contract breaks when a module reaches where it must not."""
    path = checkout / "agent" / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n{stray}  # noqa\n", encoding="utf-8")

    report = lint_imports(checkout)

    assert report.returncode == 1, report.stdout
    assert f"{contract} BROKEN" in report.stdout


def test_a_module_without_a_layer_is_noticed(checkout: Path) -> None:
    """A new module of the package has to be given its place."""
    (checkout / "agent" / "newcomer.py").write_text('"""New."""\n', encoding="utf-8")

    report = lint_imports(checkout)

    assert report.returncode == 1, report.stdout
    assert "newcomer" in report.stdout
