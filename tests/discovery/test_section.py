"""The section `discover` of a configuration, in its short form and in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from agent.cli import main
from agent.config import Config, DiscoverOptions, json_schema, load, show
from agent.config.sections import MetadataDb, Source
from agent.exit_codes import FINE

BOTH = (Source.AIRFLOW, Source.KUBERNETES)


def read(directory: Path, section: object, environ: dict[str, str] | None = None) -> Config:
    path = directory / "netprobe.yaml"
    path.write_text(yaml.safe_dump({"discover": section}), encoding="utf-8")
    return load(path, environ or {})


@pytest.mark.parametrize(
    ("section", "options"),
    [
        (["airflow", "kubernetes"], DiscoverOptions(sources=BOTH)),
        ("kubernetes", DiscoverOptions(sources=(Source.KUBERNETES,))),
        (["airflow", "airflow"], DiscoverOptions(sources=(Source.AIRFLOW,))),
        ({}, DiscoverOptions(sources=BOTH)),
        ({"sources": "airflow", "limit": 5}, DiscoverOptions(sources=(Source.AIRFLOW,), limit=5)),
        (
            {"allow": ["conn-*"], "deny": ["*.example.org"], "credentials": True, "metadata_db": "negative"},
            DiscoverOptions(
                allow=("conn-*",), deny=("*.example.org",), credentials=True, metadata_db=MetadataDb.NEGATIVE
            ),
        ),
        ("${SOURCE}", DiscoverOptions(sources=(Source.AIRFLOW,))),
        (["${SOURCE}"], DiscoverOptions(sources=(Source.AIRFLOW,))),
    ],
)
def test_every_form_is_read_and_described_to_editors(tmp_path: Path, section: Any, options: DiscoverOptions) -> None:
    """A list, one source, a mapping; targets of the configuration's own are not needed."""
    config = read(tmp_path, section, {"SOURCE": "airflow"})

    assert (config.discover, config.targets) == (options, ())
    assert jsonschema_rs.is_valid(json_schema(), {"discover": section})


@pytest.mark.parametrize("section", [True, [], ["aws"], {"sources": []}, {"limit": 0}, {"unknown": 1}, 5])
def test_what_is_refused_is_refused_by_the_schema(section: object) -> None:
    """The messages stand in tests/malformed."""
    assert not jsonschema_rs.is_valid(json_schema(), {"discover": section})


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    """With the section and without it."""
    with_section = read(tmp_path, ["airflow"])

    shown = show(with_section)

    assert shown["discover"]["sources"] == ["airflow"]
    assert read(tmp_path, shown["discover"]).discover == with_section.discover
    assert "discover" not in show(Config(targets=()))


def test_the_short_form_is_one_key_among_files(tmp_path: Path) -> None:
    """One file may say where to look, and another how much."""
    (tmp_path / "a.yaml").write_text("discover: airflow\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("discover: {limit: 7}\n", encoding="utf-8")

    assert load(tmp_path, {}).discover == DiscoverOptions(sources=(Source.AIRFLOW,), limit=7)


def test_validate_says_that_there_may_be_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No targets of its own is no mistake then; how many there will be depends on the pod."""
    path = tmp_path / "netprobe.yaml"
    path.write_text("discover: airflow\n", encoding="utf-8")

    assert main(["config", "validate", "--config", str(path)]) == FINE

    assert capsys.readouterr().out == f"{path}: 0 targets, and what discovery finds where it runs\n"
