"""A target's own probe once more, over connections whose segments are small enough for any path."""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.diagnosis.experiment import Exchanged
from agent.model import Target
from agent.prober import Prober, Recorder
from agent.probers.dns_options import DnsOptions
from agent.probers.http_options import HttpOptions
from agent.runner import run

SEGMENT_BYTES = 536
"""What every path carries: the default of RFC 9293, section 3.7.1."""


def may_run_again(target: Target[Any]) -> bool:
    """Whether a target's probe speaks TCP of its own, and changes nothing at the server by being repeated.

    A request with a body may have been carried out although its answer got lost.
    """
    options = target.options
    return not isinstance(options, DnsOptions) and not (isinstance(options, HttpOptions) and options.sends_body)


async def with_small_segments(target: Target[Any], prober: Prober, patience_seconds: float) -> Exchanged:
    """Run it, within the target's timeout and so much time at most. What it finds is no outcome of the target."""
    hurried = dataclasses.replace(target, timeout_seconds=min(target.timeout_seconds, patience_seconds))
    recorder = Recorder()
    recorder.segment_bytes = SEGMENT_BYTES
    outcome = await run(prober, hurried, recorder=recorder)
    return Exchanged(outcome.failure, outcome.duration_seconds)
