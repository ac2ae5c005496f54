"""Real Airflow, each version in a virtual environment of its own, made once and kept beside the checkout's own.

What goes into it stands in `airflow-VERSION.lock`, which `make lock` writes. It is installed where a test first asks
for it: a fresh machine needs nothing but the tools of `make setup`.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = HERE.parents[1] / ".airflow"
VERSIONS = ("2.11", "3.3")
"""The last of Airflow 2, and the newest of Airflow 3."""


@cache
def airflow_python(version: str) -> Path:
    """The interpreter of a virtual environment with this Airflow in it. Made where it is missing or out of date."""
    lock_file = HERE / f"airflow-{version}.lock"
    home = HOME / version
    wanted = hashlib.sha256(lock_file.read_bytes() + sys.base_prefix.encode()).hexdigest()
    stamp = home / "made-of"
    HOME.mkdir(exist_ok=True)
    with (HOME / f"{version}.guard").open("w") as guard:
        # Several tests may ask at once.
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(home, ignore_errors=True)
            _uv("venv", "--python", sys.executable, str(home))
            _uv("pip", "install", "--python", str(home / "bin/python"), "--require-hashes", "-r", str(lock_file))
            stamp.write_text(wanted)
    return home / "bin/python"


def _uv(*arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("uv")), "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
