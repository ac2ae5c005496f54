"""What is remembered of each target."""

from __future__ import annotations

import json

from agent.model import Fact, Phase, Reason
from agent.sinks.status import EXPIRED_FAILURES, RECENT, StatusSink, entry
from tests.lab.outcomes import named, outcome

REFUSED = (Phase.CONNECT, Reason.REFUSED)


def test_before_the_first_run_nothing_is_known() -> None:
    target = named("t")
    status = StatusSink([target]).status("t")
    assert (status.last, status.since, status.recent, status.failures) == (None, None, (), ())
    assert entry(status, {})["state"] == "unknown"


def test_who_still_waits_for_a_first_result_is_named() -> None:
    first, second = named("a"), named("b")
    sink = StatusSink([first, second])
    assert sink.waiting == ["a", "b"]
    sink.write(outcome(second, REFUSED))
    assert sink.waiting == ["a"]


def test_failures_are_kept_longer_than_successes() -> None:
    """A night of successes does not wash away what happened before it."""
    target = named("t")
    sink = StatusSink([target])
    for number in range(3):
        sink.write(outcome(target, REFUSED, at=float(number)))
    for number in range(1000):
        sink.write(outcome(target, at=100.0 + number))
    status = sink.status("t")
    assert len(status.recent) == RECENT
    assert all(seen.success for seen in status.recent)
    assert [seen.started_at for seen in status.failures] == [2.0, 1.0, 0.0]


def test_the_memory_is_bounded_and_newest_first() -> None:
    target = named("t")
    sink = StatusSink([target])
    for number in range(1000):
        sink.write(outcome(target, REFUSED, at=float(number)))
    status = sink.status("t")
    assert [seen.started_at for seen in status.recent] == [999.0 - number for number in range(RECENT)]
    assert [seen.started_at for seen in status.failures] == [
        999.0 - number for number in range(RECENT + EXPIRED_FAILURES)
    ]
    assert status.last is status.recent[0]


def test_since_is_when_the_present_state_began() -> None:
    target = named("t")
    sink = StatusSink([target])
    for at, failed in ((1.0, None), (2.0, None), (3.0, REFUSED), (4.0, (Phase.RESOLVE, Reason.TIMEOUT)), (5.0, None)):
        sink.write(outcome(target, failed, at=at))
        since = sink.status("t").since
        assert since == {1.0: 1.0, 2.0: 1.0, 3.0: 3.0, 4.0: 3.0, 5.0: 5.0}[at]


def test_the_entry_is_plain_json() -> None:
    target = named("t")
    sink = StatusSink([target])
    sink.write(outcome(target, REFUSED, at=0.0, phases=[Phase.CONNECT], facts={Fact.ADDRESS: "192.0.2.1:1"}))
    sink.write(outcome(target, at=60.0))
    shown = json.loads(json.dumps(entry(sink.status("t"), {"name": "t"})))
    assert shown["state"] == "success"
    assert shown["since"] == "1970-01-01T00:01:00.000Z"
    assert shown["configuration"] == {"name": "t"}
    assert shown["last"]["success"] is True
    assert [brief["success"] for brief in shown["recent"]] == [True, False]
    assert shown["failures"] == [
        {
            "target": "t",
            "type": "tcp",
            "success": False,
            "phase": "connect",
            "reason": "refused",
            "detail": "expected x, got refused",
            "started_at": "1970-01-01T00:00:00.000Z",
            "duration_seconds": 0.01,
            "phases": {"connect": 0.001},
            "facts": {"address": "192.0.2.1:1"},
        }
    ]
