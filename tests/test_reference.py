"""The reference of the configuration says what the code does."""

from __future__ import annotations

from agent.config import load
from agent.probers import PROBERS
from tests.reference import ANNOTATED, DOCUMENT, annotated, default_of, document, every_key

HOW = "python -m tests.reference"


def test_the_document_is_what_the_keys_say() -> None:
    """docs/configuration.md is not edited: whoever changes a key runs the generator."""
    assert DOCUMENT.read_text(encoding="utf-8") == document(), HOW


def test_the_annotated_file_explains_every_key_as_the_code_does() -> None:
    """config/reference.yaml has every key of every section and type, each with its unit, range and default."""
    text = ANNOTATED.read_text(encoding="utf-8")

    renewed, missing = annotated(text)

    assert missing == []
    assert text == renewed, HOW


def test_the_annotated_file_loads() -> None:
    """Every example in it is a value that works."""
    assert {target.type for target in load(ANNOTATED, {}).targets} == set(PROBERS)


def test_defaults_are_written_as_a_file_would_have_them() -> None:
    """`15s`, not 15.0."""
    keys = every_key()

    assert default_of(keys["defaults", "interval"]) == "15s"
    assert default_of(keys["server", "listen"]) == "'[::]:9733'"
    assert default_of(keys["target", "name"]) == "required"
    assert default_of(keys["target", "negative"]) == "false"
    assert default_of(keys["target", "scope"]) == "none"
    assert default_of(keys["http", "expect.status"]) == "[2xx]"
