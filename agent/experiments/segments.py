"""A target's own probe once more, over connections whose segments are small enough for any path."""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.diagnosis.experiment import Exchanged
from agent.model import Target
from agent.prober import Prober, Recorder
from agent.probers.dns_options import DnsOptions
from agent.runner import run

SEGMENT_BYTES = 536
"""What every path carries: the default of RFC 9293, section 3.7.1."""


def has_segments(target: Target[Any]) -> bool:
    """Whether a target's probe speaks TCP of its own."""
    return not isinstance(target.options, DnsOptions)


async def with_small_segments(target: Target[Any], prober: Prober, patience_seconds: float) -> Exchanged:
    """Run it, within the target's timeout and so much time at most. What it finds is no outcome of the target."""
    hurried = dataclasses.replace(target, timeout_seconds=min(target.timeout_seconds, patience_seconds))
    recorder = Recorder()
    recorder.segment_bytes = SEGMENT_BYTES
    outcome = await run(prober, hurried, recorder=recorder)
    return Exchanged(outcome.failure, outcome.duration_seconds)
