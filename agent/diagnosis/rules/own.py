"""What is netprobe's own fault, and no news about the network."""

from __future__ import annotations

from collections.abc import Iterator

from agent.diagnosis.rules.case import Case
from agent.diagnosis.rules.reading import all_seen, ended_at, names, settled, some
from agent.diagnosis.snapshot import History, Snapshot
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Failure, Outcome, Phase, Reason
from agent.wording import count, seconds

_WORTH_BLAMING = 0.2
"""Of a run's timeout, how much this process must have been kept off the CPU for the timeout to be its own."""
_CERTAIN = 0.5
_REMEMBERED_SECONDS = 60.0


def misconfigured(case: Case) -> Iterator[Verdict]:
    """What could not even be asked: files of the configuration, defects."""
    found = [h for h in case.unexplained if (f := h.failure) is not None and _not_asked(f, h.outcomes[0])]
    if not found:
        return
    ours = any(h.failure is not None and h.failure.reason is Reason.INTERNAL for h in found)
    yield Verdict(
        cause=Cause.PROBE_MISCONFIGURED,
        confidence=settled(found),
        targets=names(found),
        summary=f"netprobe could not ask {some(names(found))}: this is about its configuration or a defect of its own, "
        "not about the network.",
        evidence=tuple(all_seen(found)),
        advice="Look at the file or the key the sentence names: `netprobe config validate` reads the configuration "
        "again"
        + (
            "; if it names none, it is a defect: please report it with `netprobe check --output json`." if ours else "."
        ),
    )


def _not_asked(failure: Failure, outcome: Outcome) -> bool:
    # A certificate file that cannot be used fails the tls phase before it begins.
    return failure.reason is Reason.INTERNAL or (failure.phase is Phase.TLS and Phase.TLS not in outcome.phases)


def starved(case: Case) -> Iterator[Verdict]:
    """Timeouts of runs during which this process had no CPU; also for a minute after the last of them."""
    snapshot = case.snapshot
    found = [h for h in case.unexplained if _blames_cpu(h, snapshot)]
    since = snapshot.at - _REMEMBERED_SECONDS
    lately = [h for h in case.unremarked if any(_is_starved(o, snapshot) for o in h.outcomes if o.started_at > since)]
    suffering = [h for h in case.snapshot.histories if h in found or h in lately] if found or lately else []
    if not suffering:
        return
    runs = [o for h in suffering for o in h.outcomes if _is_starved(o, snapshot)]
    worst = max(runs, key=lambda o: (_share(o, snapshot), o.started_at))
    certain = _share(worst, snapshot) >= _CERTAIN and len(runs) > 1
    lag = worst.facts.get(Fact.EVENT_LOOP_LAG_SECONDS, 0.0)
    evidence = [
        (
            f"{worst.target.name} had {seconds(worst.target.timeout_seconds)}, and this process was late by "
            f"{seconds(lag)} within that time"
        ),
        (
            f"within the last minute it was late by {seconds(snapshot.event_loop_lag_seconds)} at worst, and kept off "
            f"the CPU by its limit for {snapshot.throttled_share:.0%} of the time"
        ),
        f"{count(len(runs), 'run')} timed out so",
    ]
    yield Verdict(
        cause=Cause.PROBER_STARVED,
        confidence=Confidence.HIGH if certain else Confidence.MEDIUM,
        targets=names(suffering),
        summary=f"netprobe itself had too little CPU: the timeouts of {some(names(suffering))} say little about the "
        "network.",
        evidence=tuple(evidence + all_seen([h for h in suffering if h.failure is not None], 2)),
        advice="Raise or remove the CPU limit of the netprobe container (resources.limits.cpu), or free CPU on the "
        "node: `kubectl top node`, `kubectl top pod --containers`. Then see whether the timeouts stay.",
    )


def _blames_cpu(history: History, snapshot: Snapshot) -> bool:
    """Whether every failure in the present row is a timeout of a starved run: one with CPU enough is a real one."""
    row = history.outcomes[: history.failures_in_a_row]
    return bool(row) and all(_is_starved(outcome, snapshot) for outcome in row)


def _is_starved(outcome: Outcome, snapshot: Snapshot) -> bool:
    failure = outcome.failure
    if failure is None or failure.reason is not Reason.TIMEOUT or not outcome.facts.get(Fact.STARVED):
        return False
    return _share(outcome, snapshot) >= _WORTH_BLAMING


def _share(outcome: Outcome, snapshot: Snapshot) -> float:
    """How much of a run's time this process was kept from it. Throttling is known of the last minute only."""
    lag = float(outcome.facts.get(Fact.EVENT_LOOP_LAG_SECONDS, 0.0)) / outcome.target.timeout_seconds
    recent = ended_at(outcome) >= snapshot.at - _REMEMBERED_SECONDS
    return max(lag, snapshot.throttled_share if recent else 0.0)
