"""Writes the reference of the configuration from the keys themselves: `python -m tests.reference`.

docs/configuration.md is written as a whole. In config/reference.yaml the values are written by hand, and the comment
right above the first use of each key is replaced; a comment that is followed by an empty line, or stands above a key
that was explained further up, is left alone.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from agent.config.load import SECTION_KEYS, SECTIONS, TARGETS
from agent.config.targets import COMMON_KEYS
from agent.config.tree import Node, parse
from agent.keys import Key, key_schema, keys_of
from agent.probers import PROBERS

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "configuration.md"
ANNOTATED = ROOT / "config" / "reference.yaml"
WIDTH = 120

ALTERNATIVES = frozenset(
    {("remote_write", path) for path in ("basic_auth.password", "bearer_token", "bearer_token_file")}
    | {("pushgateway", f"basic_auth{path}") for path in ("", ".username", ".password", ".password_file")}
    | {("pushgateway", "bearer_token")}
)
"""Keys that exclude one that is shown. A section is there once, and can show one of them only."""

Place = tuple[str, str]
"""A key of the configuration: its section or the type of its target (`target` for the common keys), and its path."""


def every_key() -> dict[Place, Key[Any]]:
    """Every key that a configuration file can hold."""
    groups: dict[str, Mapping[str, Key[Any]]] = {
        **SECTION_KEYS,
        "target": COMMON_KEYS,
        **{kind: keys_of(spec.options) for kind, spec in sorted(PROBERS.items())},
    }
    return {(group, path): key for group, keys in groups.items() for path, key in nested(keys)}


def nested(keys: Mapping[str, Key[Any]], prefix: str = "") -> Iterator[tuple[str, Key[Any]]]:
    """(path, key) of a mapping's keys and of those inside them."""
    for key in keys.values():
        path = f"{prefix}{key.name}"
        yield path, key
        if key.kind.keys is not None:
            several = "[]" if key.kind.schema.get("type") == "array" else ""
            yield from nested(key.kind.keys, f"{path}{several}.")


def default_of(key: Key[Any]) -> str:
    """The default as it would be written."""
    if key.required:
        return "required"
    schema = key_schema(key)
    if "default" not in schema or isinstance(schema["default"], dict):
        return "none"
    return str(yaml.safe_dump(schema["default"], default_flow_style=True, width=WIDTH)).removesuffix("...\n").strip()


# --- docs/configuration.md ------------------------------------------------------------------------------------------

INTRODUCTION = """\
# Configuration

<!-- Written by `python -m tests.reference` from the keys in the code. Do not edit. -->

netprobe reads one YAML file, or every `*.yaml` and `*.yml` file of a directory in the order of their names:
`--config PATH`, or the environment variable `NETPROBE_CONFIG`. [minimal.yaml](../config/minimal.yaml) is the least that
works, [reference.yaml](../config/reference.yaml) shows every key in its place.

- `netprobe config validate` reports **every** problem at once, one a line, as
  `FILE:LINE:COLUMN: path.to.key: expected …, got …`, on standard error, and ends with 2. Patterns
  are compiled; ranges, rcodes, networks, record types, URLs and status ranges are checked. Files that a key
  names are read by the runs, which are where the files are: a validation elsewhere does not look for them.
- `netprobe config show` prints what was understood, with every default filled in and secrets as `***`.
- `netprobe config schema` prints a JSON Schema for editors: begin a file with
  `# yaml-language-server: $schema=netprobe.schema.json`.

**Units.** A duration is a number with `ms`, `s`, `m`, `h` or `d`; a size one with `B`, `KiB`, `MiB` or `GiB`. A bare
number is refused.

**YAML.** Plain scalars have the types of YAML 1.2, as editors read them: `yes`, `on`, `12:30` and `2020-01-01` are
text. Anchors, aliases and merge keys (`<<`) work; tags do not. A key is written once. A file has one document, at most
4MiB, and at most 200000 values with its aliases unfolded.

**Variables.** `${VAR}` and `${VAR:-default}` are replaced in values, never in keys; the default also stands for an
empty variable, and a variable without one must be set. What is put in is not looked at again. `$${` is a literal `${`;
a `$` before anything else is itself. An unquoted value is typed after it was expanded, so that `concurrency: ${N}`
works; a quoted one is text.

**Secrets** come from a variable or, with the key that ends in `_file`, from a file that is read anew at each run: a
rotated secret needs no restart. They are never part of a message, a log line, a metric or a page.

**Regular expressions** are those of Python's `re`, and match anywhere unless they are anchored. It cannot be
interrupted: a pattern with one repetition inside another, such as `(a+)+$`, can take hours on an answer that nearly
matches, and stalls the whole agent meanwhile. Repeat one thing at a time.

**Directories.** `targets` add up. The keys of the other sections may be spread over files as long as each is given
once. Names of targets are unique over all files.

**Defaults.** `defaults` gives a value to each target that has none of its own, where its type has the key. Whatever is
left out everywhere has the default in the tables below, and there is no other place that knows one.
"""


def document() -> str:
    """The text of docs/configuration.md."""
    parts = [INTRODUCTION]
    titles: dict[str, tuple[str, str]] = {
        "defaults": ("`defaults`", "Keys for every target that does not have them itself."),
        **{name: (f"`{name}`", cls.__doc__ or "") for name, cls in SECTIONS.items()},
        "target": (
            "`targets`: keys of every type",
            "Empty only beside a section `discover`. These keys are for every target.",
        ),
        **{
            kind: (f"`targets`: keys of type `{kind}`", f"{spec.doc}{_urls(spec.url_schemes)}")
            for kind, spec in sorted(PROBERS.items())
        },
    }
    for group, (title, about) in titles.items():
        rows = [(path, key) for (of, path), key in every_key().items() if of == group]
        parts.append(f"\n## {title}\n\n{about}\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n")
        parts.extend(_row(path, key) for path, key in rows)
    return "".join(parts)


def _urls(schemes: tuple[str, ...]) -> str:
    return f" `netprobe check` takes a URL that begins with {' or '.join(f'`{scheme}:`' for scheme in schemes)}."


def _row(path: str, key: Key[Any]) -> str:
    default = default_of(key)
    cells = (
        f"`{path}`",
        _cell(key.kind.expected),
        default if default in {"required", "none"} else f"`{default}`",
        _cell(key.doc),
    )
    return f"| {' | '.join(cells)} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*.", "\\*.").replace("`\\*.", "`*.")


# --- config/reference.yaml ------------------------------------------------------------------------------------------


def annotated(text: str) -> tuple[str, list[str]]:
    """The text with the comment above each key's first use renewed, and the keys that it lacks."""
    root, problems = parse(str(ANNOTATED), text.encode(), {})
    if root is None or problems:
        raise SystemExit("\n".join(map(str, problems)))
    known = every_key()
    # Sections that are alike, such as any, all and none of a dns target's answers, are explained once.
    missing = {(group, id(key)): f"{group}: {path}" for (group, path), key in reversed(known.items())}
    for place in ALTERNATIVES:
        missing.pop((place[0], id(known[place])), None)
    places = {
        row: place
        for place, row in _uses(root)
        if place in known and missing.pop((place[0], id(known[place])), "") != ""
    }
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if number in places:
            indent = line[: len(line) - len(line.lstrip())]
            while lines and re.fullmatch(rf"{indent}#.*", lines[-1]):
                lines.pop()
            lines.extend(_comment(known[places[number]], indent))
        lines.append(line)
    return "\n".join(lines) + "\n", sorted(missing.values())


def _comment(key: Key[Any], indent: str) -> Iterator[str]:
    default = default_of(key)
    state = {"required": "required", "none": "optional"}.get(default, f"default {default}")
    for text in (key.doc, f"Value: {key.kind.expected}; {state}"):
        yield from textwrap.wrap(
            text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
        )


def _uses(root: Node) -> Iterator[tuple[Place, int]]:
    for section, node in root.value.items():
        if section != TARGETS:
            yield from (((section, path), line) for path, line in _paths(node))
            continue
        for target in node.value:
            kind = target.value["type"].value
            for path, line in _paths(target):
                common = any(path == key.name for key in COMMON_KEYS.values())
                yield ("target" if common else kind, path), line


def _paths(node: Node, prefix: str = "") -> Iterator[tuple[str, int]]:
    for name, mark in node.key_marks.items():
        child = node.value[name]
        yield f"{prefix}{name}", mark.line
        if isinstance(child.value, dict):
            yield from _paths(child, f"{prefix}{name}.")
        elif isinstance(child.value, list):
            for item in child.value:
                if isinstance(item.value, dict):
                    yield from _paths(item, f"{prefix}{name}[].")


def main() -> int:
    """Write both files."""
    DOCUMENT.write_text(document(), encoding="utf-8")
    text, _ = annotated(ANNOTATED.read_text(encoding="utf-8"))
    ANNOTATED.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
