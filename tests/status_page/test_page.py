"""The status page as text: what it says, in which order, within which bounds, and that nothing foreign is markup."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import html
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.targets import NAME_LIMIT
from agent.diagnosis import Cause, Confidence, Diagnosis, Verdict
from agent.diagnosis.document import document
from agent.diagnosis.verdict import Past
from agent.explanation import CONFIGURATION_UNUSABLE, EXPERIMENTS_OFF, NOTHING_KNOWN, NOTHING_PROBED
from agent.model import Fact, Failure, Outcome, Phase, Reason
from agent.sinks.status import RECENT, Status, StatusSink
from agent.status_page import HEADERS, render
from agent.status_page.markup import prose, text
from agent.status_page.page import PAGE_BYTES
from agent.status_page.targets import STEP_TARGETS
from agent.wording import Wording
from tests.lab.command import REPOSITORY
from tests.lab.outcomes import named, outcome

LIMIT_BYTES = 50_000
"""What the page promises."""
LINKS = [("GET", "/targets", "all of them"), ("POST", "/task", "which <one>")]
REFUSED = (Phase.CONNECT, Reason.REFUSED)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`&amp;\x1b[2J\u202eevil\u2066\u200f\0\n</style>"


def says(diagnosis: Diagnosis = Diagnosis(), **changes: Any) -> dict[str, Any]:  # noqa: B008 - frozen
    """What an agent says: healthy for two minutes, or these verdicts."""
    now = time.time()
    whole = document(
        diagnosis, since=now - 120.0, held_seconds=120.0, waiting=(), experiments=(), budget={}, began_at=None
    )
    return whole | {"targets": 3, "configuration_usable": True, "task": None, "tasks": [], "place": {}} | changes


def verdict(cause: Cause = Cause.NOTHING_LISTENING, *targets: str, **fields: Any) -> Verdict:
    known = {"summary": f"{cause} it is.", "evidence": ("seen",), "advice": "Look at `kubectl get pods`."}
    return Verdict(cause=cause, confidence=Confidence.HIGH, targets=targets, **(known | fields))


def known(*outcomes: Sequence[Outcome]) -> list[Status]:
    """Targets with these outcomes, the oldest first."""
    sink = StatusSink([several[0].target for several in outcomes])
    for several in outcomes:
        for one in several:
            sink.write(one)
    return list(sink.statuses())


def failed(name: str, detail: str = "expected x, got y", **fields: Any) -> Outcome:
    plain = outcome(named(name, **fields), REFUSED, at=time.time() - 60.0, phases=[Phase.RESOLVE, Phase.CONNECT])
    return dataclasses.replace(plain, failure=Failure(phase=REFUSED[0], reason=REFUSED[1], detail=detail))


def worked(name: str, seconds: float = 0.01, **fields: Any) -> Outcome:
    return outcome(named(name, **fields), at=time.time() - 60.0, seconds=seconds, phases=[Phase.CONNECT])


async def page(diagnosis: dict[str, Any] | None = None, statuses: Sequence[Status] = ()) -> str:
    made = await render(diagnosis or says(), statuses, LINKS)
    return b"".join(made.chunks).decode()


class Reader(HTMLParser):
    """The elements of a page with their attributes, and all its text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " " if tag in {"li", "p", "h1", "h2"} else ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, _: str) -> None:
        self.text += " "


def visible(markup: str) -> str:
    """The text of the body, less its script."""
    body = markup.partition("<body>")[2].partition("<script>")[0]
    return re.sub(r" (?=[,.])", "", " ".join(Reader(body).text.split()))


# --- what it says ---------------------------------------------------------------------------------------------------


async def test_the_verdict_comes_first_then_targets_experiments_and_endpoints() -> None:
    statuses = known([failed("api")], [worked("web")])
    markup = await page(says(Diagnosis((verdict(Cause.NOTHING_LISTENING, "api"),))) | {"budget": None}, statuses)
    places = [markup.index(part) for part in ("<h1", "<h2 id=targets", "<h2 id=asked", "<h2 id=endpoints")]
    assert places == sorted(places)
    assert [tag for tag, _ in Reader(markup).elements].count("h1") == 1


async def test_a_verdict_is_told_whole() -> None:
    told = verdict(Cause.NOTHING_LISTENING, "api", summary="Nobody listens.", evidence=("one", "two"))
    began = time.time() - 185.0
    diagnosis = Diagnosis((told,))
    whole = document(
        diagnosis,
        since=began,
        held_seconds=185.0,
        waiting=(),
        experiments=(),
        budget={},
        began_at={told: began},
        runbook="https://runbooks.example.com/runbook.md",
    )
    markup = await page(says() | whole, known([failed("api")]))
    shown = visible(markup)
    for part in ("nothing_listening high confidence", "Nobody listens.", "For 3 minutes · 1 target: api", "one", "two"):
        assert part in shown
    assert "<code>kubectl get pods</code>" in markup
    assert 'href="https://runbooks.example.com/runbook.md#nothing_listening"' in markup
    assert "<title>✕ nothing_listening · netprobe</title>" in markup


@pytest.mark.parametrize("runbook", ["docs/runbook.md#slow", "javascript:alert(1)", "//example.com/", "ftp://x/"])
async def test_a_runbook_that_is_no_url_is_no_link(runbook: str) -> None:
    whole = says(Diagnosis((verdict(),)))
    whole["verdicts"][0]["runbook"] = runbook
    markup = await page(whole)
    assert f"<code>{runbook}</code>" in markup
    assert f'href="{runbook}"' not in markup


@pytest.mark.parametrize(
    ("changes", "sentence", "title"),
    [
        ({}, "No target fails, and nothing stands out.", "✓ healthy"),
        ({"since": None, "held_seconds": None}, NOTHING_KNOWN, "… not known yet"),
        ({"targets": 0}, NOTHING_PROBED, "! nothing is probed"),
        ({"configuration_usable": False}, CONFIGURATION_UNUSABLE, "✓ healthy"),
        ({"budget": None}, EXPERIMENTS_OFF, "✓ healthy"),
    ],
)
async def test_every_state_is_said(changes: dict[str, Any], sentence: str, title: str) -> None:
    markup = await page(says(**changes))
    assert html.escape(sentence) in markup
    assert f"<title>{title}" in markup


async def test_what_stands_out_is_no_failure() -> None:
    """A verdict over targets that work has another colour, and another mark, than one over targets that fail."""
    slow = says(Diagnosis((verdict(Cause.SLOW, "api"),)))
    assert "<title>! slow" in await page(slow, known([worked("api")]))
    assert "<title>✕ slow" in await page(slow, known([failed("api")]))


async def test_verdicts_that_are_over_are_told() -> None:
    now = time.time()
    past = [Past(verdict=verdict(Cause.DNS_FAILING, "api"), began_at=now - 300.0, ended_at=now - 200.0)]
    whole = document(Diagnosis(), since=now, held_seconds=0.0, waiting=(), experiments=(), budget={}, recent=past)
    assert "dns_failing of api, from" in visible(await page(says() | whole))


async def test_whose_pod_it_is_stands_at_the_top() -> None:
    task = {"dag_id": "etl", "task_id": "load", "run_id": "r", "try_number": "2"}
    place = {"pod": "etl-load-x7", "namespace": "airflow", "node": "node-4"}
    markup = await page(says(task=task, place=place))
    assert "dag etl task load try 2 pod airflow/etl-load-x7 node node-4" in visible(markup)
    several = [{"dag_id": "etl", "task_id": f"t{number}"} for number in range(5)]
    assert "task etl / t2 and 2 more tasks" in visible(await page(says(tasks=several)))


async def test_what_fails_stands_before_what_works() -> None:
    unknown = StatusSink([named("new")])
    statuses = [*known([worked("web")], [failed("api")]), *unknown.statuses()]
    markup = await page(statuses=statuses)
    rows = re.findall(r"<tbody id=(t\d) class=(\w+)>", markup)
    assert rows == [("t1", "bad"), ("t2", "calm"), ("t0", "good")]
    assert "1 fails, 1 without a result yet, 1 works" in visible(markup)


async def test_a_row_tells_how_the_last_runs_went_in_words_too() -> None:
    slow, fast = worked("web", 0.25), worked("web", 0.0021)
    markup = await page(statuses=known([slow, fast, failed("web", "expected & got")]))
    assert "last 3 runs: 1 failed; 2 worked, 2.1 ms to 250 ms" in markup
    assert "connect/refused expected & got" in visible(markup)
    assert "resolve 1.0 ms" in visible(markup)
    assert "What it saw" not in visible(markup)
    seen = outcome(named("web"), facts={Fact.HTTP_STATUS_CODE: 200})
    assert "status 200" in visible(await page(statuses=known([seen])))


async def test_times_are_for_programs_as_well() -> None:
    markup = await page(statuses=known([worked("web")]))
    stamps = re.findall(r'<time datetime="([^"]+)">([^<]+)</time>', markup)
    assert {"60 seconds", "2 minutes"} & {words for _, words in stamps}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp) for stamp, _ in stamps)


# --- bounds ---------------------------------------------------------------------------------------------------------


def long_name(number: int) -> str:
    return f"t{number:03}-{'a' * (NAME_LIMIT - 5)}"


LONG = '<&"expected a connection' * 11
MANY: dict[str, list[Status]] = {
    "failing": known(*([failed(long_name(n), LONG)] * RECENT for n in range(200))),
    "working": known(*([worked(f"target-{n}")] * RECENT for n in range(200))),
    "a thousand": known(*([failed(long_name(n), LONG)] for n in range(1000))),
}


@pytest.mark.parametrize("statuses", MANY.values(), ids=MANY.keys())
async def test_the_page_keeps_to_its_bytes(statuses: list[Status]) -> None:
    """However much there is to say: what is left out is counted, and linked."""
    names = tuple(status.target.name for status in statuses)
    verdicts = [
        verdict(cause, *names, summary=LONG[:256], evidence=(LONG,) * 8, advice=LONG * 3) for cause in list(Cause)[1:]
    ]
    now = time.time()
    past = [Past(verdict=told, began_at=now, ended_at=now) for told in verdicts[:20]]
    whole = document(
        Diagnosis(tuple(verdicts)), since=1.0, held_seconds=1.0, waiting=(), experiments=(), budget={}, recent=past
    )
    task = {"dag_id": HOSTILE * 3, "task_id": HOSTILE * 3, "try_number": "1"}
    markup = await page(says(task=task, place={"pod": HOSTILE, "node": HOSTILE}) | whole, statuses)
    assert len(markup.encode()) <= PAGE_BYTES < LIMIT_BYTES
    rows = len(re.findall(r"<tbody id=t\d+ ", markup))
    left_out = re.search(r"And (\d+) more targets?(?: \((\d+) of them fail\))?", markup)
    assert rows + (int(left_out[1]) if left_out else 0) == len(statuses)
    assert rows >= 80
    articles = markup.count("<article ") + 1
    assert f"And {len(verdicts) - articles} more verdicts: " in markup
    assert html.escape(verdicts[0].summary) in markup


async def test_two_hundred_targets_that_fail_are_all_there() -> None:
    """With names of an ordinary length; the first ones are told in full."""
    markup = await page(statuses=known(*([failed(f"target-{n}", LONG)] * RECENT for n in range(200))))
    assert markup.count("<tbody id=t") == 200
    assert "more target" not in markup
    assert markup.count("class=runs") >= 5
    assert len(markup.encode()) <= PAGE_BYTES


async def test_a_few_targets_are_told_in_full() -> None:
    facts = {Fact.HTTP_STATUS_CODE: 200, Fact.TLS_VERSION: "TLSv1.3"}
    runs = [[outcome(named(f"t{n}"), at=time.time(), phases=list(Phase), facts=facts)] * RECENT for n in range(15)]
    markup = await page(statuses=known(*runs))
    assert markup.count("<details id=d") == 15
    assert markup.count("class=phases") == 15


async def test_rows_are_made_in_small_steps() -> None:
    """The loop has its turn after every few targets."""
    turn, done = 0, False
    turns_at: list[int] = []

    class Watched:
        """A target that notes when it is looked at."""

        def __init__(self, status: Status) -> None:
            self.target, self.since, self.recent, self._last = status.target, status.since, status.recent, status.last

        @property
        def last(self) -> Outcome | None:
            if not turns_at or turns_at[-1] != turn:
                turns_at.append(turn)
            looked[self.target.name].append(turn)
            return self._last

    looked: dict[str, list[int]] = {status.target.name: [] for status in MANY["working"]}

    async def bystander() -> None:
        nonlocal turn
        while not done:
            turn += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(bystander())
    await render(says(), [Watched(status) for status in MANY["working"]], LINKS)
    done = True
    await other
    rendered_at = [turns[-1] for turns in looked.values() if len(turns) > 3]
    assert len(rendered_at) == 200
    assert max(rendered_at.count(seen) for seen in set(rendered_at)) <= STEP_TARGETS


# --- nothing foreign is markup --------------------------------------------------------------------------------------


@given(st.text())
def test_text_stays_text(value: str) -> None:
    """For every text: no character that HTML gives a meaning to, nothing that turns or hides, and nothing is lost."""
    for shown in (text(value), prose(value.replace("`", ""))):
        assert not set(shown) & set("<>\"'")
        assert html.unescape(shown).isprintable()
    assert html.unescape(text(value)) == Wording(ascii_only=False)(value)


async def test_hostile_words_are_shown_and_not_obeyed() -> None:
    """In every place where something foreign stands: the page has the elements and attributes that it has without."""

    def everywhere(word: str) -> tuple[dict[str, Any], list[Status]]:
        told = verdict(Cause.WRONG_CONTENT, word, summary=word, evidence=(word,), advice=word.replace("\n", "\n "))
        now = time.time()
        whole = document(
            Diagnosis((told, told)),
            since=now,
            held_seconds=1.0,
            waiting=(word,),
            experiments=(),
            budget={},
            recent=[Past(verdict=told, began_at=now, ended_at=now)],
            runbook=f"https://runbooks.example.com/{word}",
        )
        task = dict.fromkeys(("dag_id", "task_id", "try_number", "map_index"), word)
        place = dict.fromkeys(("pod", "namespace", "node"), word)
        facts = {Fact.HTTP_SERVER: word, Fact.PROXY: word, Fact.SERVER_SIGNATURE: word}
        run = dataclasses.replace(failed(word, word), facts=facts)
        return says(task=task, place=place) | whole, known([run])

    hostile, harmless = [Reader(await page(*everywhere(word))) for word in (HOSTILE, "x\nx")]
    shape = [[(tag, sorted(attributes)) for tag, attributes in reader.elements] for reader in (hostile, harmless)]
    assert shape[0] == shape[1]
    assert HOSTILE[:54] in hostile.text
    assert r"\x1b[2J\u202eevil\u2066\u200f\x00\n</style>" in hostile.text
    assert not {"\x1b", "\u202e", "\u2066", "\0"} & set(hostile.text)


async def test_the_policy_allows_what_the_page_has_and_nothing_else() -> None:
    markup = await page()
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    for directive, tag in (("script-src", "script"), ("style-src", "style")):
        (source,) = re.findall(rf"<{tag}>(.*?)</{tag}>", markup, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert HEADERS["Referrer-Policy"] == "no-referrer"
    attributes = {name for _, held in Reader(markup).elements for name in held}
    assert not {name for name in attributes if name.startswith("on") or name == "style"}


async def test_nothing_is_loaded_from_elsewhere() -> None:
    for tag, attributes in Reader(await page()).elements:
        assert "src" not in attributes, tag
        if tag == "link":
            assert str(attributes["href"]).startswith("data:")
        elif "href" in attributes:
            assert not re.match(r"/|\w+:", str(attributes["href"])), attributes


# --- what it is made of ---------------------------------------------------------------------------------------------


def test_nothing_is_loaded_before_somebody_looks() -> None:
    """Every worker pod would pay for it."""
    look = (
        "import sys, agent.app; print([m for m in sys.modules if m.startswith(('agent.status_page', 'agent.remarks'))])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_wheel_carries_the_style_and_the_script(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {"agent/status_page/style.css", "agent/status_page/script.js"} <= set(archive.namelist())
