"""The rules, in order, and what they make of a snapshot.

A rule looks at a case and yields verdicts over failing targets nobody has explained yet, or over working ones that show
something. Whatever an earlier rule has explained, a later one does not see: the order is the precedence. What no rule
explains is `unknown`, so that every failing target has exactly one verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from agent.diagnosis.experiment import Question
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnosis.snapshot import Snapshot
from agent.diagnosis.verdict import Diagnosis, Verdict

Rule = Callable[[Case], Iterable[Verdict]]
Planner = Callable[[Case], Iterable[Wanted]]

RULES: Sequence[Rule] = ()
"""The first has precedence."""
PLANNERS: Sequence[Planner] = ()
"""What tells causes apart, the most telling first: the budget may not suffice for all."""


def diagnose(snapshot: Snapshot) -> Diagnosis:
    """Explain every failing target by exactly one verdict, and name what stands out where none fails."""
    case = Case(snapshot)
    for rule in RULES:
        for verdict in rule(case):
            case.settle(verdict)
    case.settle_the_rest()
    return Diagnosis(case.verdicts)


def plan(snapshot: Snapshot) -> tuple[Wanted, ...]:
    """The questions whose answers would tell more, the most telling first, without those already answered.

    What was answered for some targets only is among them, with all it is wanted for.
    """
    case = Case(snapshot)
    answered = {experiment.question: set(experiment.targets) for experiment in snapshot.experiments}
    wanted: dict[Question, dict[str, None]] = {}
    for planner in PLANNERS:
        for one in planner(case):
            wanted.setdefault(one.question, {}).update(dict.fromkeys(one.targets))
    return tuple(
        Wanted(question, tuple(targets))
        for question, targets in wanted.items()
        if question not in answered or not answered[question].issuperset(targets)
    )
