"""docs/run.md says what `netprobe run` does: no more, and no less."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from agent.airflow.identity import downward_variables
from agent.airflow.task_container import PATIENCE_SECONDS
from agent.airflow.tasks import TASKS_LIMIT
from agent.app import DRAIN_SECONDS, FLUSH_SECONDS, LAST_ROUND_SECONDS, READY_SECONDS, Agent
from agent.cli import CONFIG_VARIABLE
from agent.config import GateOptions
from agent.diagnosis import Cause, Confidence, Diagnosis, Verdict
from agent.diagnosis.document import document
from agent.diagnosis.experiment import Experiment, Mesh, MeshProxy
from agent.gate import EAGER_INTERVAL_SECONDS, EAGER_TIMEOUT_SECONDS
from agent.scheduler import FIRST_RUNS_SECONDS, GRACE, JITTER
from agent.server import BODY_LIMIT_BYTES, Pages, Server
from agent.sinks.status import EXPIRED_FAILURES, RECENT, StatusSink, entry
from tests.lab.agents import config
from tests.lab.targets import target

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "run.md").read_text("utf-8")


def rows(first_heading: str) -> dict[str, list[str]]:
    """The further cells of each row of the table with this first heading, by each of the words in its first cell."""
    table = re.split(rf"^\| {first_heading} \|.*$", TEXT, maxsplit=1, flags=re.MULTILINE)[1].split("\n\n")[0]
    found: dict[str, list[str]] = {}
    for line in table.strip().splitlines()[1:]:
        first, *others = (cell.strip() for cell in line.strip().strip("|").split("|"))
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", first), others)
    return found


def test_every_event_of_the_agent_is_listed_with_its_level() -> None:
    call = re.compile(r'_log\.(debug|info|warning|error|exception|critical)\(\s*"(\w+)"')
    sources = (path.read_text("utf-8") for path in (ROOT / "agent").rglob("*.py"))
    logged = {
        name: {"exception": "error"}.get(level, level) for source in sources for level, name in call.findall(source)
    }
    # Those are raised through one line, by name.
    logged |= {"target_run_raised": "error", "target_run_cancelled_itself": "error"}
    logged |= {"experiment_failed": "error", "experiment_refused": "error"}
    # And these have either.
    logged |= {"diagnosis_changed": "warning, info", "startup_gate_opened": "warning, info"}
    assert {event: cells[0] for event, cells in rows("event").items()} == logged


async def test_every_page_is_listed() -> None:
    async def nothing(_accept: str, _encoding: str) -> object:
        raise AssertionError

    pages = Pages(
        metrics=nothing,  # type: ignore[arg-type]
        targets=list,
        statuses=list,
        diagnosis=dict,
        broken=lambda: None,
        unready=lambda: None,
        unstarted=lambda: None,
        refresh=lambda: asyncio.sleep(0),
        told=lambda _: None,
        leave=lambda: None,
    )
    server = Server(pages)
    assert set(rows("path")) == set(server._endpoints)
    assert set(rows("action")) == set(server._actions)


def test_every_key_of_a_target_is_listed() -> None:
    (status,) = StatusSink([target("tcp", address="127.0.0.1:1")]).statuses()
    assert set(rows("key")) == set(entry(status, {}))


async def test_every_key_of_the_diagnosis_is_listed() -> None:
    verdict = Verdict(cause=Cause.SLOW, confidence=Confidence.LOW, targets=(), summary="", evidence=(), advice="")
    asked = Experiment(question=MeshProxy(), answer=Mesh(None, None, ""), targets=(), started_at=0.0)
    shown = document(Diagnosis((verdict,)), since=0.0, held_seconds=0.0, waiting=(), experiments=(asked,), budget=None)
    page = Agent(config())._diagnosis()
    assert list(page)[: len(shown)] == list(shown)
    assert list(rows("in the diagnosis")) == list(page)
    assert list(rows("in a verdict")) == list(shown["verdicts"][0])
    assert list(rows("in an experiment")) == list(shown["experiments"][0])
    promised = re.findall(r"`(\w+)`", rows("in the diagnosis")["budget"][0])
    assert promised == ["asked", "left_out", "refused", "per_minute", "per_pod"]


def test_the_variables_are_those_that_are_read() -> None:
    assert set(rows("variable")) == {CONFIG_VARIABLE, *downward_variables()}


def test_numbers_are_those_of_the_code() -> None:
    """Each of them stands in a sentence: whoever changes one has to read it."""
    assert (FIRST_RUNS_SECONDS, JITTER / 2, GRACE) == (1.0, 1 / 20, 1 / 2)
    assert (READY_SECONDS, DRAIN_SECONDS, FLUSH_SECONDS, LAST_ROUND_SECONDS) == (10.0, 1.0, 3.0, 5.0)
    assert (EAGER_INTERVAL_SECONDS, EAGER_TIMEOUT_SECONDS, GateOptions().timeout) == (0.5, 1.0, 10.0)
    assert (TASKS_LIMIT, BODY_LIMIT_BYTES, PATIENCE_SECONDS) == (64, 4096, 60.0)
    assert (RECENT, EXPIRED_FAILURES) == (10, 10)
