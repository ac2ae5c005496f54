"""The runbook has a section for every cause, and nothing in it is made up: links, manifests and commands hold."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from agent import cli
from agent.config import load
from agent.diagnosis import Cause, Confidence, Verdict
from agent.diagnosis.verdict import RUNBOOK

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / RUNBOOK).read_text(encoding="utf-8")
PARTS = ("Means", "Confirm", "Fix")

_FENCED = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[tuple[str, str]]:
    """The blocks of code in a language, each with the text before it."""
    return [(TEXT[: m.start()], m["body"]) for m in _FENCED.finditer(TEXT) if m["language"] == language]


def sections() -> dict[str, str]:
    """The text below each heading of the second level."""
    headings = list(re.finditer(r"^## (.+)$", _FENCED.sub(_blank, TEXT), re.MULTILINE))
    ends = [m.start() for m in headings[1:]] + [len(TEXT)]
    assert len({m[1] for m in headings}) == len(headings), "two sections have one heading"
    return {m[1]: TEXT[m.end() : end] for m, end in zip(headings, ends, strict=True)}


def _blank(match: re.Match[str]) -> str:
    """As many characters without a heading."""
    return " " * len(match[0])


SECTIONS = sections()
ALERTS = "Alerts"
"""The last section: of the alerts that name no cause, each below a heading of the third level."""
_SHELL = [body for _, body in blocks("shell")]


def test_every_cause_has_a_section_and_every_section_a_cause() -> None:
    """The heading is the cause's value, which is what makes the anchor of a verdict."""
    assert set(SECTIONS) - {"Where to type", ALERTS} == {cause.value for cause in Cause}


ALERT_SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", SECTIONS[ALERTS], re.DOTALL | re.MULTILINE))
EACH = {**{cause.value: SECTIONS[cause.value] for cause in Cause}, **ALERT_SECTIONS}


@pytest.mark.parametrize("section", EACH.values(), ids=EACH)
def test_a_section_says_what_it_means_how_to_confirm_and_how_to_fix(section: str) -> None:
    """Three parts, in this order, each with something in it; and one of them can be typed or looked at."""
    found = re.split(r"^\*\*(\w+)\.\*\*", section, flags=re.MULTILINE)

    assert found[0].strip() == ""
    assert tuple(found[1::2]) == PARTS
    assert all(len(part.split()) >= 8 for part in found[2::2]), "a part says too little"
    assert re.search(r"`[^`]+`", found[4]), "nothing to type or to look at"


@pytest.mark.parametrize("cause", Cause)
def test_the_way_from_a_verdict_leads_to_its_section(cause: Cause) -> None:
    """GitHub makes the anchor from the heading: lower case, spaces as dashes, punctuation gone, underscores kept."""
    verdict = Verdict(cause=cause, confidence=Confidence.LOW, targets=("x",), summary="x", evidence=("x",), advice="x")
    path, _, anchor = verdict.as_dict()["runbook"].partition("#")

    assert (ROOT / path).is_file()
    assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in SECTIONS}


@pytest.mark.parametrize(
    "url", ["https://runbooks.example.com/netprobe/runbook.md", "http://wiki.example.com/page?id=3&view=full"]
)
def test_a_verdict_leads_to_where_the_configuration_says_the_runbook_is(url: str, tmp_path: Path) -> None:
    path = tmp_path / "netprobe.yaml"
    path.write_text(
        f'diagnosis: {{runbook_url: "{url}#top"}}\ntargets: [{{name: x, type: tcp, address: "127.0.0.1:1"}}]\n'
    )
    base = load(path, {}).diagnosis.runbook
    verdict = Verdict(
        cause=Cause.SLOW, confidence=Confidence.LOW, targets=("x",), summary="x", evidence=("x",), advice="x"
    )

    assert verdict.as_dict(base)["runbook"] == f"{url}#slow"


def test_the_table_at_the_top_leads_to_every_cause() -> None:
    """Whoever has only a symptom finds each cause."""
    table = TEXT[: TEXT.index("\n## ")]

    assert set(re.findall(r"\(#(\w+)\)", table)) == {cause.value for cause in Cause}


def texts_of_the_code() -> list[str]:
    """Every string in the package, put together where it was written in pieces."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "agent").rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def commands() -> list[str]:
    """What documents and advice say to type of netprobe itself, less what stands for something else."""
    documents = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    found = [
        match for text in (*documents, *texts_of_the_code()) for match in re.findall(r"`(netprobe [^`\n]+)`", text)
    ]
    found += [match for body in _SHELL for match in re.findall(r" -- (netprobe [^\n|]+)", body)]
    return sorted({command.strip() for command in found if "…" not in command and "URL" not in command})


def test_what_the_code_refers_to_exists() -> None:
    """Advice names sections of the runbook and files of deploy/examples."""
    said = "\n".join(texts_of_the_code())
    anchors = set(re.findall(r"runbook\.md#(\w+)", said))
    files = set(re.findall(r"deploy/examples/[\w-]+\.yaml", said))

    assert anchors <= {cause.value for cause in Cause}
    assert [name for name in files if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(("before", "body"), blocks("yaml"))
def test_manifests_are_those_of_the_examples(before: str, body: str) -> None:
    """Each is some lines of the file that is linked last before it: one source, and that is the validated one."""
    name = re.findall(r"\.\./(deploy/examples/[\w-]+\.yaml)", before)[-1]
    source = (ROOT / name).read_text(encoding="utf-8")

    assert body.strip()
    assert f"\n{body}" in f"\n{source}", f"not in {name}"


_ASSIGNED = re.compile(r"(?:^|[\s;])([A-Z_]+)=")


@pytest.mark.parametrize("body", _SHELL)
def test_commands_can_be_read_by_a_shell(body: str) -> None:
    """What is copied into a terminal is at least a command."""
    checked = subprocess.run(["bash", "-n"], input=body, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stderr
    assert not checked.stderr


@pytest.mark.parametrize("body", _SHELL)
def test_variables_of_commands_are_introduced(body: str) -> None:
    """Those of "Where to type", or of the block itself; credentials are for the reader to set."""
    known = set(_ASSIGNED.findall(SECTIONS["Where to type"])) | {"TOKEN", "PROXY_USER", "PROXY_PASSWORD"}
    loops = set(re.findall(r"\bfor (\w+) in\b", body))

    assert set(re.findall(r"\$\{?([A-Za-z_]+)", body)) <= known | loops


@pytest.mark.parametrize("command", commands())
def test_commands_of_netprobe_are_those_it_has(command: str) -> None:
    """Nobody is sent to a command that is a usage error."""
    words = shlex.split(command)[1:]

    if words != ["--version"]:  # which ends the process
        assert callable(cli._parser().parse_args(words).run)


def test_every_example_is_part_of_the_runbook() -> None:
    """A manifest that no section leads to is found by nobody."""
    linked = set(re.findall(r"\.\./deploy/examples/([\w-]+\.yaml)", TEXT))

    assert linked == {path.name for path in (ROOT / "deploy" / "examples").glob("*.yaml")}
