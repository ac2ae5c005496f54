"""So many questions a minute, and so many in a pod's life."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.experiments import Budget


def test_a_minute_has_its_number() -> None:
    budget = Budget(per_minute=2, per_pod=100)
    assert [budget.take(at) for at in (0.0, 30.0, 59.9, 60.0, 89.9, 90.0)] == [True, True, False, True, False, True]


def test_a_pod_has_its_number() -> None:
    budget = Budget(per_minute=100, per_pod=3)
    assert [budget.take(at * 1000.0) for at in range(5)] == [True, True, True, False, False]


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 20), max_size=200),
    st.integers(1, 10),
    st.integers(1, 60),
)
def test_no_minute_and_no_pod_has_more(gaps: list[float], per_minute: int, per_pod: int) -> None:
    budget = Budget(per_minute=per_minute, per_pod=per_pod)
    now = 0.0
    taken: list[float] = []
    for gap in gaps:
        now += gap
        fits = len([at for at in taken if at > now - 60]) < per_minute and len(taken) < per_pod
        assert budget.take(now) is fits
        if fits:
            taken.append(now)
