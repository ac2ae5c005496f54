"""A snapshot under examination: what is still unexplained, and the verdicts so far."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

from agent.diagnosis.experiment import Question
from agent.diagnosis.rules.nameservers import Nameservers
from agent.diagnosis.rules.reading import lookup_failed
from agent.diagnosis.rules.standing import Standings
from agent.diagnosis.rules.texts import presentable
from agent.diagnosis.snapshot import History, Snapshot
from agent.diagnosis.verdict import Cause, Confidence, Verdict

_FIRST_SECONDS = 5.0
"""How long the network of a new pod may take: its policies and routes are programmed while it runs already."""
_OF_THE_NETWORK = frozenset(
    {
        Cause.POLICY_NOT_ENFORCED,
        Cause.NETWORK_DOWN,
        Cause.EGRESS_BLOCKED,
        Cause.CLUSTER_BLOCKED,
        Cause.PRIVATE_NETWORK_UNREACHABLE,
        Cause.TARGET_BLOCKED,
        Cause.DNS_UNREACHABLE,
    }
)
"""What a network that is not ready yet looks like."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question worth asking, and the names of the targets whose failure it is to explain."""

    question: Question
    targets: tuple[str, ...]


class Case:
    """What the rules look at, one after the other."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._failures = snapshot.failing
        self._successes = snapshot.working
        self._failing = {history.name for history in self._failures}
        self._explained: set[str] = set()
        self._verdicts: list[Verdict] = []

    @property
    def unexplained(self) -> tuple[History, ...]:
        """Failing targets without a verdict, in the order of the configuration."""
        self._failures = tuple(h for h in self._failures if h.name not in self._explained)
        return self._failures

    def is_open(self, name: str) -> bool:
        """Whether a target fails and has no verdict yet."""
        return name in self._failing and name not in self._explained

    @property
    def unremarked(self) -> tuple[History, ...]:
        """Working targets that no verdict names."""
        self._successes = tuple(h for h in self._successes if h.name not in self._explained)
        return self._successes

    @cached_property
    def nameservers(self) -> Nameservers:
        """What each nameserver did when it was asked last."""
        return Nameservers(self.snapshot)

    @cached_property
    def standings(self) -> Standings:
        """Who answers now. Nobody is compared where nothing fails."""
        return Standings(self.snapshot)

    def lookup_failed(self, history: History) -> bool:
        """Whether a target failed to look a name up by the nameservers of resolv.conf, be it the name of its proxy."""
        return lookup_failed(history, self.snapshot.pod.resolver.nameservers)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """So far, those over failing targets first."""
        return tuple(sorted(self._verdicts, key=lambda verdict: self._failing.isdisjoint(verdict.targets)))

    def settle(self, verdict: Verdict) -> None:
        """Take a verdict. Targets explained already stay with their first; a verdict they leave empty is dropped."""
        left = tuple(name for name in verdict.targets if name not in self._explained)
        if verdict.targets and not left:
            return
        self._explained.update(left)
        self._verdicts.append(presentable(self._early(dataclasses.replace(verdict, targets=left))))

    def _early(self, verdict: Verdict) -> Verdict:
        """The same, less sure where it rests on the first seconds alone."""
        began = self.snapshot.pod.started_at
        runs = (h.last.started_at for h in self.snapshot.histories if h.last is not None and h.name in verdict.targets)
        if verdict.cause not in _OF_THE_NETWORK or max(runs, default=began) >= began + _FIRST_SECONDS:
            return verdict
        early = f"all of it within {_FIRST_SECONDS:g} s of netprobe's start: a new pod's network may not be ready yet"
        sure = Confidence.MEDIUM if verdict.confidence is Confidence.HIGH else verdict.confidence
        return dataclasses.replace(verdict, confidence=sure, evidence=(early, *verdict.evidence))

    def settle_the_rest(self) -> None:
        """Explain what no rule has explained: by `unknown`, which says what was seen."""
        left = self.unexplained
        if left:
            self.settle(
                Verdict(
                    cause=Cause.UNKNOWN,
                    confidence=Confidence.LOW,
                    targets=tuple(history.name for history in left),
                    summary=f"{len(left)} of {len(self.snapshot.histories)} targets fail in a way that fits no known "
                    "cause.",
                    evidence=tuple(f"{h.name}: {f.phase}/{f.reason}: {f.detail}" for h in left if (f := h.failure)),
                    advice="`netprobe check --output json` shows every phase and fact of each target; "
                    "docs/failures.md says what each failure is evidence of.",
                )
            )
