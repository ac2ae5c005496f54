"""Why the network fails: pure rules from what was seen to a cause, a confidence and the next thing to try.

Nothing here asks, waits or looks at a clock. `diagnose` turns a snapshot into a diagnosis, `plan` into the questions
whose answers would tell its causes apart; agent.experiments asks them.
"""

from agent.diagnosis.rules import diagnose, diagnosing, plan, planning
from agent.diagnosis.snapshot import History, Pod, Resolver, Snapshot
from agent.diagnosis.verdict import Cause, Confidence, Diagnosis, Past, Verdict

__all__ = [
    "Cause",
    "Confidence",
    "Diagnosis",
    "History",
    "Past",
    "Pod",
    "Resolver",
    "Snapshot",
    "Verdict",
    "diagnose",
    "diagnosing",
    "plan",
    "planning",
]
