"""Prometheus and Alertmanager in two versions: Debian stable's, which `make packages` installs, and current ones.

The current ones come from a newer suite of the Debian mirror that this machine already uses, as packages that are
unpacked beside the checkout and never installed. They are fetched where a test first asks for them (a few seconds), by
one process while the others wait, and kept until `make clean`. apt checks their signatures and checksums, as it does
for whatever it installs.

    @pytest.mark.parametrize("version", VERSIONS)
    def test_rules(version: str) -> None:
        subprocess.run([programs_of(version).promtool, "check", "rules", file], check=True)

`programs_of` is called in the test and not when tests are collected, so that only who needs the current ones waits.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

HOME = Path(__file__).resolve().parents[2] / ".prometheus"
SUITES = ("forky", "trixie")
"""Where current ones are looked for, the newest first. The first moves, and may one day not run on this machine."""

PACKAGES = ("prometheus", "promtool", "prometheus-alertmanager")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
VERSIONS = ("stable", "current")


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one version: what to start, by name or by path."""

    prometheus: str
    promtool: str
    alertmanager: str
    amtool: str


STABLE = Programs("prometheus", "promtool", "prometheus-alertmanager", "amtool")


def programs_of(version: str) -> Programs:
    """Those of one of VERSIONS."""
    return _current() if version == "current" else STABLE


@cache
def _current() -> Programs:
    """Fetched where this checkout has none yet."""
    stamp = HOME / "programs.json"
    HOME.mkdir(exist_ok=True)
    with (HOME / "guard").open("w") as guard:
        # Several tests may ask at once.
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not stamp.exists():
            stamp.write_text(json.dumps(asdict(_fetched())))
    return Programs(**json.loads(stamp.read_text()))


def _fetched() -> Programs:
    problems = []
    for suite in SUITES:
        home = HOME / suite
        shutil.rmtree(home, ignore_errors=True)
        try:
            _fetch(suite, home)
            found = Programs(*(str(home / "root/usr/bin" / name) for name in asdict(STABLE).values()))
            for program in asdict(found).values():
                _run(program, "--version")
        except (OSError, subprocess.CalledProcessError) as problem:
            said = problem.stderr if isinstance(problem, subprocess.CalledProcessError) else str(problem)
            problems.append(f"{suite}: {said}")
            shutil.rmtree(home, ignore_errors=True)
        else:
            return found
    raise AssertionError("\n".join(["No current Prometheus can be had.", *problems]))


def _fetch(suite: str, home: Path) -> None:
    """Unpack the packages of a suite, by an apt that knows nothing but that suite and changes nothing of the system."""
    for directory in ("lists/partial", "cache/archives/partial", "debs"):
        (home / directory).mkdir(parents=True)
    (home / "status").touch()
    (home / "parts").mkdir()
    (home / "parts/suite.sources").write_text(
        f"Types: deb\nURIs: {_mirror()}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n"
    )
    settings = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": f"{home}/parts",
        "Dir::State::Lists": f"{home}/lists",
        "Dir::State::Status": f"{home}/status",
        "Dir::Cache": f"{home}/cache",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        # What is downloaded goes into this checkout, where apt's own user may not write.
        "APT::Sandbox::User": "",
        # A suite that cannot be had is an error, and not a warning.
        "APT::Update::Error-Mode": "any",
    }
    apt = ("apt-get", *(f"--option={key}={value}" for key, value in settings.items()))
    _run(*apt, "update")
    _run(*apt, "download", *PACKAGES, cwd=home / "debs")
    for package in (home / "debs").iterdir():
        _run("dpkg", "--extract", str(package), str(home / "root"))
    for directory in ("lists", "cache", "debs"):
        shutil.rmtree(home / directory)


def _mirror() -> str:
    """Where this machine gets its own Debian packages from."""
    codename = re.findall(r"^VERSION_CODENAME=(.+)$", Path("/etc/os-release").read_text("utf-8"), re.MULTILINE)
    said = _run("apt-get", "update", "--print-uris")
    found = re.findall(r"^'(\S+)/dists/([\w-]+)/InRelease'", said, re.MULTILINE)
    mirrors: list[str] = [mirror for mirror, suite in found if suite in {*codename, "stable"}]
    assert mirrors, f"apt has no source of Debian's own packages, only {found}"
    return mirrors[0]


def _run(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=600).stdout
