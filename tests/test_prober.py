"""The recorder of a run, and the texts that end up in sentences."""

from __future__ import annotations

import pytest

from agent.model import DETAIL_LIMIT, Fact, Phase
from agent.prober import Recorder, excerpt, shorten


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_phase_takes_the_time_between_its_begin_and_its_end() -> None:
    clock = Clock()
    recorder = Recorder(clock)
    with recorder.phase(Phase.CONNECT):
        clock.now += 1.5
    clock.now += 10
    with recorder.phase(Phase.TLS):
        clock.now += 0.25
    assert recorder.phases == {Phase.CONNECT: 1.5, Phase.TLS: 0.25}


def test_a_phase_that_was_not_reached_is_absent() -> None:
    assert Recorder().phases == {}


def test_a_phase_that_is_entered_again_adds_up() -> None:
    clock = Clock()
    recorder = Recorder(clock)
    for _ in range(3):
        with recorder.phase(Phase.REQUEST):
            clock.now += 1
        with recorder.phase(Phase.VERIFY):
            clock.now += 0.5
    assert recorder.phases == {Phase.REQUEST: 3.0, Phase.VERIFY: 1.5}


def test_the_open_phase_counts_up_to_now() -> None:
    clock = Clock()
    recorder = Recorder(clock)
    with recorder.phase(Phase.TLS):
        clock.now += 2
        assert recorder.phases == {Phase.TLS: 2.0}
        assert recorder.current is Phase.TLS


def test_the_time_survives_the_exception_and_the_phase_stays_known() -> None:
    clock = Clock()
    recorder = Recorder(clock)

    def asking() -> None:
        with recorder.phase(Phase.REQUEST):
            clock.now += 3
            raise OSError("reset")

    with pytest.raises(OSError, match="reset"):
        asking()
    assert recorder.phases == {Phase.REQUEST: 3.0}
    assert recorder.current is Phase.REQUEST


def test_phases_are_in_the_order_in_which_a_run_can_reach_them() -> None:
    recorder = Recorder()
    for phase in reversed(Phase):
        with recorder.phase(phase):
            pass
    assert list(recorder.phases) == list(Phase)


def test_phases_do_not_nest() -> None:
    """Two open phases would count the same second twice."""
    recorder = Recorder()
    with (
        recorder.phase(Phase.CONNECT),
        pytest.raises(RuntimeError, match="tls begun inside connect"),
        recorder.phase(Phase.TLS),
    ):
        pass


def test_a_run_that_reached_nothing_is_in_its_first_phase() -> None:
    assert Recorder().current is Phase.RESOLVE


def test_a_childs_times_and_facts_are_added() -> None:
    clock = Clock()
    recorder = Recorder(clock)
    with recorder.phase(Phase.RESOLVE):
        clock.now += 1
    child = recorder.child()
    with child.phase(Phase.RESOLVE):
        clock.now += 1
    child.facts[Fact.ADDRESS] = "192.0.2.1:80"
    with child.phase(Phase.CONNECT):
        clock.now += 1
    recorder.adopt(child)
    assert recorder.phases == {Phase.RESOLVE: 2.0, Phase.CONNECT: 1.0}
    assert recorder.facts == {Fact.ADDRESS: "192.0.2.1:80"}
    assert recorder.current is Phase.CONNECT


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"-ERR\r\n", r"'-ERR\r\n'"),
        (b"\x1b[2J", r"'\x1b[2J'"),
        (b"\xff\xfe", "'��'"),
        ("ü", "'ü'"),
        (b"x" * 61, "'" + "x" * 60 + "…'"),
        (b"", "''"),
    ],
)
def test_an_excerpt_is_short_and_printable(data: bytes | str, shown: str) -> None:
    """What a peer sends must not move the cursor of who reads it."""
    assert excerpt(data) == shown


@pytest.mark.parametrize("length", [0, 1, DETAIL_LIMIT, DETAIL_LIMIT + 1, 10_000])
def test_a_sentence_is_one_line_within_the_limit(length: int) -> None:
    sentence = shorten("x" * length)
    assert len(sentence) <= DETAIL_LIMIT
    assert sentence.endswith("…") == (length > DETAIL_LIMIT)
    assert shorten("one\n  two\r\nthree") == "one two three"
