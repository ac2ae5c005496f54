"""One log event per change of verdict: which changes count, when it is told, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import structlog

from agent.diagnosis import Cause, Confidence, Diagnosis, Verdict
from agent.sinks.diagnosis_log import PATIENCE_SECONDS, SETTLE_SECONDS, DiagnosisLog

VIRTUAL_TIME = pytest.mark.looptime(noop_cycles=0)
HEALTHY = Diagnosis()


@pytest.fixture
def events() -> Iterator[Sequence[Mapping[str, Any]]]:
    with structlog.testing.capture_logs() as logs:
        yield logs


def diagnosis(*causes: Cause, targets: Sequence[str] = ("a",), confidence: Confidence = Confidence.LOW) -> Diagnosis:
    return Diagnosis(
        tuple(
            Verdict(
                cause=cause,
                confidence=confidence,
                targets=tuple(targets),
                summary=f"why {cause}",
                evidence=("seen",),
                advice="do this",
            )
            for cause in causes
        )
    )


@VIRTUAL_TIME
async def test_a_change_is_told_with_its_verdicts_and_how_long_the_last_one_held(events: Any) -> None:
    log = DiagnosisLog("https://runbooks.example.com/runbook.md")
    log.diagnosed(HEALTHY)
    await asyncio.sleep(100.0)
    log.diagnosed(diagnosis(Cause.DNS_UNREACHABLE, targets=("a", "b"), confidence=Confidence.MEDIUM))
    await asyncio.sleep(30.0)
    log.diagnosed(HEALTHY)
    await asyncio.sleep(30.0)
    began, ended = events
    assert began == {
        "event": "diagnosis_changed",
        "log_level": "warning",
        "causes": ["dns_unreachable"],
        "before": ["healthy"],
        "before_held_seconds": 100.0,
        "verdicts": [
            {
                "cause": "dns_unreachable",
                "confidence": "medium",
                "targets": ["a", "b"],
                "summary": "why dns_unreachable",
                "advice": "do this",
                "runbook": "https://runbooks.example.com/runbook.md#dns_unreachable",
            }
        ],
    }
    assert ended == {
        "event": "diagnosis_changed",
        "log_level": "info",
        "causes": ["healthy"],
        "before": ["dns_unreachable"],
        "before_held_seconds": 30.0,
        "verdicts": [],
    }


@VIRTUAL_TIME
async def test_well_from_the_start_is_no_event(events: Any) -> None:
    log = DiagnosisLog()
    for _ in range(10):
        log.diagnosed(HEALTHY)
        await asyncio.sleep(5.0)
    assert events == []


@VIRTUAL_TIME
async def test_broken_from_the_start_is_one_and_nothing_held_before(events: Any) -> None:
    log = DiagnosisLog()
    log.diagnosed(diagnosis(Cause.SLOW))
    await asyncio.sleep(10.0)
    (event,) = events
    assert (event["before"], event["before_held_seconds"]) == ([], None)


@VIRTUAL_TIME
async def test_another_confidence_and_other_targets_are_no_event(events: Any) -> None:
    log = DiagnosisLog()
    for targets in (("a",), ("a", "b"), ("b",)):
        for confidence in Confidence:
            log.diagnosed(diagnosis(Cause.SLOW, Cause.TLS_PROTOCOL, targets=targets, confidence=confidence))
            await asyncio.sleep(5.0)
    # Nor is another order of the same causes.
    log.diagnosed(diagnosis(Cause.TLS_PROTOCOL, Cause.SLOW))
    await asyncio.sleep(5.0)
    assert len(events) == 1


@VIRTUAL_TIME
async def test_what_experiments_put_right_at_once_is_one_event_with_the_last_word(events: Any) -> None:
    log = DiagnosisLog()
    log.diagnosed(HEALTHY)
    await asyncio.sleep(50.0)
    log.diagnosed(diagnosis(Cause.UNKNOWN))
    await asyncio.sleep(SETTLE_SECONDS / 2)
    log.diagnosed(diagnosis(Cause.NOTHING_LISTENING))
    await asyncio.sleep(SETTLE_SECONDS / 2)
    log.diagnosed(diagnosis(Cause.NOTHING_LISTENING, confidence=Confidence.HIGH))
    assert events == []
    await asyncio.sleep(SETTLE_SECONDS)
    (event,) = events
    assert event["causes"] == ["nothing_listening"]
    assert event["verdicts"][0]["confidence"] == "high"
    assert event["before_held_seconds"] == 50.0 + SETTLE_SECONDS / 2


@VIRTUAL_TIME
async def test_a_blip_shorter_than_that_is_no_event(events: Any) -> None:
    log = DiagnosisLog()
    for _ in range(20):
        log.diagnosed(HEALTHY)
        await asyncio.sleep(10.0)
        log.diagnosed(diagnosis(Cause.SLOW))
        await asyncio.sleep(SETTLE_SECONDS / 2)
    log.diagnosed(HEALTHY)
    await asyncio.sleep(60.0)
    assert events == []


@VIRTUAL_TIME
async def test_causes_that_never_settle_are_told_all_the_same(events: Any) -> None:
    """And not more often than every ten seconds."""
    log = DiagnosisLog()
    log.diagnosed(HEALTHY)
    causes = [cause for cause in Cause if cause is not Cause.HEALTHY]
    for number in range(round(10 * PATIENCE_SECONDS)):
        log.diagnosed(diagnosis(causes[number % len(causes)]))
        await asyncio.sleep(1.0)
    assert len(events) in {9, 10}


@VIRTUAL_TIME
async def test_the_end_does_not_wait(events: Any) -> None:
    """A pod that dies within a second says why; and says it once."""
    log = DiagnosisLog()
    log.diagnosed(diagnosis(Cause.NETWORK_DOWN))
    log.flush()
    log.flush()
    await asyncio.sleep(60.0)
    assert [event["causes"] for event in events] == [["network_down"]]
