"""What is logged about outcomes, how it looks, and that it cannot hurt."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from agent import logs
from agent.config import LogFormat, LogLevel, LogOptions
from agent.model import Fact, Phase, Reason
from agent.sinks.log import LogSink
from tests.lab.outcomes import named, outcome

REFUSED = (Phase.CONNECT, Reason.REFUSED)

Configure = Callable[..., io.StringIO]


@pytest.fixture
def configured() -> Iterator[Configure]:
    """Configure logging into a buffer, and put everything back afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("agent").level)

    def configure(level: LogLevel = LogLevel.INFO, form: LogFormat = LogFormat.JSON) -> io.StringIO:
        stream = io.StringIO()
        logs.configure(LogOptions(level=level, format=form), stream)
        return stream

    yield configure
    structlog.reset_defaults()
    root.handlers[:], level, agent_level = before
    root.setLevel(level)
    logging.getLogger("agent").setLevel(agent_level)


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_event_per_change_and_none_in_between(configured: Configure) -> None:
    """At info, a target that stays as it is says nothing."""
    stream = configured()
    target = named("t")
    now = 0.0
    sink = LogSink([target], clock=lambda: now)
    story = [None, None, None, REFUSED, REFUSED, REFUSED, (Phase.RESOLVE, Reason.TIMEOUT), None, None]
    for failed in story:
        now += 10.0
        sink.write(outcome(target, failed))
    told = [(event["level"], event["event"]) for event in events(stream)]
    assert told == [
        ("info", "target_first_succeeded"),
        ("warning", "target_failed"),
        ("warning", "target_failure_changed"),
        ("info", "target_recovered"),
    ]
    _, failed_event, changed, recovered = events(stream)
    assert failed_event["succeeded_for_seconds"] == 30.0
    assert (changed["phase"], changed["reason"], changed["failing_for_seconds"]) == ("resolve", "timeout", 30.0)
    assert recovered["failed_for_seconds"] == 40.0


def test_how_long_it_failed_does_not_depend_on_the_time_of_day(configured: Configure) -> None:
    """From the first failure's begin to the first success's, though the clock was set back meanwhile."""
    stream = configured()
    target = named("t")
    now = 100.0
    sink = LogSink([target], clock=lambda: now)
    sink.write(outcome(target, REFUSED, at=1_700_000_000.0, seconds=5.0))
    now = 131.0
    sink.write(outcome(target, at=1_600_000_000.0, seconds=1.0))
    _, recovered = events(stream)
    assert recovered["failed_for_seconds"] == 35.0


def test_a_first_result_that_is_a_failure_is_one_event(configured: Configure) -> None:
    stream = configured()
    target = named("t")
    LogSink([target]).write(outcome(target, REFUSED))
    (event,) = events(stream)
    assert (event["level"], event["event"]) == ("warning", "target_failed")


def test_an_event_is_wide_and_names_its_units(configured: Configure) -> None:
    stream = configured()
    target = named("t")
    LogSink([target]).write(
        outcome(target, REFUSED, seconds=0.25, phases=[Phase.RESOLVE, Phase.CONNECT], facts={Fact.STARVED: True})
    )
    (event,) = events(stream)
    event.pop("timestamp")
    assert event == {
        "level": "warning",
        "event": "target_failed",
        "target": "t",
        "type": "tcp",
        "address": "broker.example.com:6379",
        "duration_seconds": 0.25,
        "phases_seconds": {"resolve": 0.001, "connect": 0.001},
        "phase": "connect",
        "reason": "refused",
        "detail": "expected x, got refused",
        "starved": True,
    }


def test_at_debug_every_outcome_is_an_event(configured: Configure) -> None:
    stream = configured(LogLevel.DEBUG)
    target = named("t")
    sink = LogSink([target])
    for _ in range(3):
        sink.write(outcome(target))
    assert [event["event"] for event in events(stream)].count("target_probed") == 3


@pytest.mark.parametrize(("level", "seen"), [(LogLevel.INFO, 2), (LogLevel.WARNING, 1), (LogLevel.ERROR, 0)], ids=str)
def test_the_level_hides_what_is_below_it(configured: Configure, level: LogLevel, seen: int) -> None:
    stream = configured(level)
    target = named("t")
    sink = LogSink([target])
    sink.write(outcome(target))
    sink.write(outcome(target, REFUSED))
    assert len(stream.getvalue().splitlines()) == seen


def test_auto_is_json_where_nobody_watches(configured: Configure) -> None:
    stream = configured(form=LogFormat.AUTO)
    target = named("t")
    LogSink([target]).write(outcome(target))
    assert events(stream)[0]["event"] == "target_first_succeeded"


def test_auto_is_pretty_on_a_terminal(configured: Configure) -> None:
    """On a real terminal the line is for people."""
    configured()
    leader, follower = os.openpty()
    with os.fdopen(follower, "w", buffering=1) as terminal:
        logs.configure(LogOptions(), terminal)
        target = named("t")
        LogSink([target]).write(outcome(target, REFUSED))
        shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert "target_failed" in shown
    assert "\x1b[" in shown
    with pytest.raises(json.JSONDecodeError):
        json.loads(shown.splitlines()[0])


def test_what_libraries_warn_about_looks_the_same(configured: Configure) -> None:
    """One format for a line, whoever wrote it; their chatter stays out."""
    stream = configured(LogLevel.DEBUG)
    logging.getLogger("asyncio").debug("Using selector: EpollSelector")
    logging.getLogger("asyncio").error("Task was destroyed but it is pending!")
    assert [(event["level"], event["event"]) for event in events(stream)] == [
        ("error", "Task was destroyed but it is pending!")
    ]


def test_an_exception_is_one_line(configured: Configure) -> None:
    """A traceback is part of its event, not lines that a collector takes for events."""
    stream = configured()
    try:
        int("a defect")
    except ValueError:
        structlog.get_logger("agent.test").exception("something_failed")
    (event,) = events(stream)
    assert event["exception"][0]["exc_type"] == "ValueError"


VERDICTS = [
    {
        "cause": "dns_failing",
        "confidence": "high",
        "targets": ["a", "b"],
        "summary": "10.96.0.10 answers SERVFAIL \x1b[31m",
        "advice": "Look: `kubectl -n kube-system logs -l k8s-app=kube-dns --all-containers --since=10m --tail=100`",
        "runbook": "docs/runbook.md#dns_failing",
    }
]


def test_verdicts_are_set_for_people_on_a_terminal_and_for_programs_elsewhere(configured: Configure) -> None:
    """Below their event, a command in one line, and nothing that a terminal would obey."""
    stream = configured(form=LogFormat.PRETTY)
    structlog.get_logger("agent.test").warning("diagnosis_changed", causes=["dns_failing"], verdicts=VERDICTS)
    first, empty, *below = stream.getvalue().splitlines()
    assert "diagnosis_changed" in first
    assert "causes=['dns_failing']" in first
    assert "verdicts" not in first
    assert empty == ""
    assert below == [
        r"dns_failing (high confidence): 10.96.0.10 answers SERVFAIL \x1b[31m",
        "  targets   a, b",
        "  next      Look:",
        f"            {VERDICTS[0]['advice'].removeprefix('Look: ')}",  # type: ignore[attr-defined]
        "  runbook   docs/runbook.md#dns_failing",
    ]
    stream = configured(form=LogFormat.JSON)
    structlog.get_logger("agent.test").warning("diagnosis_changed", causes=["dns_failing"], verdicts=VERDICTS)
    (event,) = events(stream)
    assert event["verdicts"] == VERDICTS


@pytest.mark.parametrize("form", [LogFormat.JSON, LogFormat.PRETTY])
@pytest.mark.parametrize("logger", ["agent.test", "asyncio"])
def test_a_traceback_shows_no_variables(configured: Configure, form: LogFormat, logger: str) -> None:
    """A frame may hold a secret that has been read from its file."""
    stream = configured(form=form)

    def ask(password: str) -> None:
        raise ValueError(len(password))

    try:
        ask("correct horse")
    except ValueError:
        (structlog.get_logger if logger.startswith("agent") else logging.getLogger)(logger).exception("failed")
    assert "ask" in stream.getvalue()
    # The call above is a line of the source, which the plain form quotes.
    assert "correct horse" not in stream.getvalue().replace('ask("correct horse")', "")


def test_a_reader_that_went_away_does_not_stop_probing(configured: Configure) -> None:
    """Standard error may be a pipe whose other end is closed."""
    configured()
    reading, writing = os.pipe()
    os.close(reading)
    target = named("t")
    sink = LogSink([target])
    pipe = os.fdopen(writing, "w", buffering=1)
    logs.configure(LogOptions(), pipe)
    sink.write(outcome(target))
    sink.write(outcome(target, REFUSED))
    pipe.close()


def test_a_reader_that_stalls_stops_nothing_and_learns_what_it_missed(configured: Configure) -> None:
    """Standard error may be a pipe that nobody empties: a write would wait, and with it every probe and SIGTERM."""
    configured()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as pipe:
        logs.configure(LogOptions(), pipe)
        log = structlog.get_logger("agent.test")
        written = 1000
        for number in range(written):
            log.info("event", number=number, padding="x" * 5000)
        os.set_blocking(reading, False)
        read = reader.read()
        log.info("again")
        read += reader.read()
    *lines, notice, last = [line for line in read.decode().splitlines() if line.endswith("}")]
    assert json.loads(last)["event"] == "again"
    assert [json.loads(line)["number"] for line in lines] == list(range(len(lines)))
    assert 0 < len(lines) < written
    assert json.loads(notice)["event"] == f"dropped {written - len(lines)} log events that nobody read in time"


def test_events_longer_than_a_pipe_arrive_whole_where_somebody_reads(configured: Configure) -> None:
    configured()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as pipe:
        logs.configure(LogOptions(), pipe)
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(reader.readline()))
        thread.start()
        structlog.get_logger("agent.test").info("event", text="é" * 200_000)
        thread.join(60.0)
    assert json.loads(got[0])["text"] == "é" * 200_000


def test_configuring_twice_says_everything_once(configured: Configure) -> None:
    configured()
    stream = configured()
    target = named("t")
    LogSink([target]).write(outcome(target))
    assert len(stream.getvalue().splitlines()) == 1
