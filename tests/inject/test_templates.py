"""Templates as they are found in the wild: the sidecar goes in, and out again without a trace."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from agent.airflow.inject.sidecar import Mode, Options, Position
from tests.inject.files import FILES, expected, injected, loaded, problems, removed, without_note

VERSIONS = ("1.29", kubernetes_validate.latest_version())
OPTIONS = {
    "native": Options(),
    "last": Options(position=Position.LAST, image="registry.example.com/netprobe:2", startup_probe=False),
    "legacy": Options(mode=Mode.LEGACY),
    "shared": Options(share_env=("*",), share_env_from=True),
}
SPECS = {"Pod": ("spec",), "Deployment": ("spec", "template", "spec"), "StatefulSet": ("spec", "template", "spec")}
WORKERS = {"base", "worker", "airflow-worker"}

# Its chart says false, and the two do not go together.
REFUSED = {("community-chart.yaml", "legacy")}
CASES = [
    pytest.param(path, name, id=f"{path.name}-{name}")
    for path, name in itertools.product(FILES, OPTIONS)
    if (path.name, name) not in REFUSED
]
every = pytest.mark.parametrize(("path", "name"), CASES)


@cache
def result(path: Path, name: str) -> bytes:
    return injected(path.read_bytes(), OPTIONS[name])


def specs(documents: list[Any]) -> Iterator[tuple[str, Any]]:
    """The pods of a file that run tasks."""
    for document in documents:
        if document["kind"] in SPECS:
            spec = document
            for key in SPECS[document["kind"]]:
                spec = spec[key]
            if spec["containers"][0]["name"] in WORKERS:
                yield document["kind"], spec


@every
def test_the_sidecar_comes_in_and_nothing_else(path: Path, name: str) -> None:
    """Every pod that runs tasks has it, and all else is as it was, documents that are no pods included."""
    before = loaded(path.read_bytes())
    after = loaded(result(path, name))
    options = OPTIONS[name]

    found = 0
    for (kind, spec), (_, changed) in zip(specs(before), specs(after), strict=True):
        wanted = expected(spec, options, ends_with_task=kind == "Pod")
        if options.share_env:
            base = spec["containers"][0]
            wanted["initContainers"][0]["env"] += base.get("env", [])
            if base.get("envFrom"):
                wanted["initContainers"][0]["envFrom"] = base["envFrom"]
        assert without_note(changed) == wanted
        changed.clear()
        changed.update(spec)
        found += 1
    assert found > 0
    assert after == before


BRACES = {"flow.yaml", "flow-lists.yaml", "pod.json", "compact.json", "tabs.json"}
"""Between braces and brackets, what is new comes into lines that are there; and what stood for nothing goes."""


@pytest.mark.parametrize("path", [path for path in FILES if path.name not in BRACES], ids=lambda path: path.name)
@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "legacy"])
def test_every_line_of_the_file_is_there(path: Path, name: str) -> None:
    """In its order, with its comments, quotes, anchors and spaces."""
    after = iter(re.split(rb"\r?\n", result(path, name)))

    for line in re.split(rb"\r?\n", path.read_bytes()):
        assert line in after  # which goes on from there


@every
def test_twice_is_once(path: Path, name: str) -> None:
    assert injected(result(path, name), OPTIONS[name]) == result(path, name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize(("before", "after"), list(itertools.pairwise([*OPTIONS, "native"])))
def test_other_options_replace(path: Path, before: str, after: str) -> None:
    """Whatever was injected before leaves nothing behind."""
    if {(path.name, before), (path.name, after)} & REFUSED:
        before, after = "last", "shared"

    assert injected(result(path, before), OPTIONS[after]) == result(path, after)


@every
def test_remove_gives_back_every_byte(path: Path, name: str) -> None:
    assert removed(result(path, name)) == path.read_bytes()
    assert removed(path.read_bytes()) == path.read_bytes()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_kubernetes_takes_what_comes_out(path: Path, version: str) -> None:
    """What is found in the wild fits the schemas, and what becomes of it does."""
    results = [result(path, name) for name in OPTIONS if (path.name, name) not in REFUSED]
    for data in (path.read_bytes(), *results):
        for document in loaded(data):
            if path.name == "official-chart.yaml":
                # Helm renders an empty command so; an API server takes null for nothing.
                document["spec"]["containers"][0].pop("command")
            kubernetes_validate.validate(document, version, strict=True)


def test_what_does_not_go_together_is_said() -> None:
    (path,) = [path for path in FILES if path.name == "community-chart.yaml"]
    message = (
        "expected shareProcessNamespace to be true or left out, got false (--no-share-process-namespace does without)"
    )

    assert problems(path.read_bytes(), OPTIONS["legacy"]) == [f"pod.yaml:10:26: {message}"]


def test_line_ends_stay_what_they_were() -> None:
    """No line of a file from Windows ends as on Unix, and the other way round."""
    for path in FILES:
        data = result(path, "native")
        assert data.count(b"\r\n") == (data.count(b"\n") if path.name == "windows.yaml" else 0)
        assert data.endswith(b"\n") == path.read_bytes().endswith(b"\n")
