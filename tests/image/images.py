"""The image of netprobe, built as its Dockerfile says, on a base made here: no registry of images is asked for one.

The base is Debian with Python, and like the official Python images it has no compiled module of the standard library.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.image.containers import HOME, REPOSITORY, attempt, podman, sweep

SUITE = "trixie"
PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv")
MIRROR = "http://deb.debian.org/debian"
BASE = f"localhost/netprobe/base:{hashlib.sha256(repr((SUITE, PACKAGES, 1)).encode()).hexdigest()[:12]}"
IMAGE = "localhost/netprobe/netprobe:test"
BUILD_SECONDS = 600.0

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@cache
def base_image() -> str:
    """The name of the base image. Made, in the better part of a minute, where this checkout has none yet."""
    with _alone():
        if attempt("image", "exists", BASE).returncode:
            with tempfile.TemporaryDirectory(dir=HOME) as directory:
                _make_base(Path(directory))
    return BASE


@cache
def netprobe_image() -> str:
    """The name of netprobe's image, built anew where what it is made of has changed."""
    build(REPOSITORY, IMAGE)
    with _alone():
        # What earlier builds left behind. The last ones' spare the next one work.
        podman("image", "prune", "--force", "--filter=until=24h")
        sweep()
    return IMAGE


def build(checkout: Path, tag: str) -> None:
    """Build the image of a checkout."""
    base = base_image()
    with _alone(), tempfile.TemporaryDirectory() as directory:
        podman(
            *("build", "--network=host", "--pull=never"),
            *(f"--volume={volume}:ro" for volume in _index_configuration(Path(directory))),
            *(f"--build-arg=BASE={base}", "--build-arg=REVISION=of-the-test", f"--tag={tag}"),
            checkout,
            seconds=BUILD_SECONDS,
        )


def bytes_of(image: str) -> int:
    """How large an image is, unpacked."""
    return int(podman("image", "inspect", "--format={{.Size}}", image))


def _make_base(directory: Path) -> None:
    root, archive = directory / "root", directory / "root.tar"
    _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root), MIRROR)
    for compiled in root.glob("usr/lib/python3*/**/__pycache__"):
        shutil.rmtree(compiled)
    _run("tar", "--create", f"--directory={root}", "--exclude=./var/cache/apt", f"--file={archive}", ".")
    podman("import", archive, BASE, seconds=BUILD_SECONDS)


def _index_configuration(directory: Path) -> Iterator[str]:
    """What pip is configured with here, for pip in the build: where packages come from is the machine's affair."""
    settings: dict[str, str] = {}
    for line in _run(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        # `global.index-url`, `install.…`, and `:env:.find-links`, which counts most and comes last.
        settings[key.rpartition(".")[2]] = str(ast.literal_eval(value))
    certificates = Path(settings.pop("cert", os.environ.get("SSL_CERT_FILE", str(_CERTIFICATES))))
    if certificates.is_file():
        yield f"{certificates.resolve()}:{_CERTIFICATES}"
        settings["cert"] = str(_CERTIFICATES)
    for words in settings.values():
        for word in words.split():
            path = Path(unquote(urlsplit(word).path)) if word.startswith(("file:", "/")) else None
            if path is not None and path.is_dir():
                # An index of this machine's own leads to files beside its pages (PEP 503 names those `simple`).
                place = path.parent if path.name == "simple" else path
                yield f"{place}:{place}"
    configuration = directory / "pip.conf"
    lines = (f"{key} = {value.replace(chr(10), chr(10) + '    ')}\n" for key, value in settings.items())
    configuration.write_text("[global]\n" + "".join(lines))
    yield f"{configuration}:/etc/pip.conf"


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time makes images."""
    HOME.mkdir(exist_ok=True)
    with (HOME / "images.guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout
