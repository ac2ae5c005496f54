"""Every pusher that the configuration asks for."""

from __future__ import annotations

from collections.abc import Mapping

from agent.config import Config
from agent.sinks.metrics import Metrics
from agent.sinks.push import Pusher


def pushers(_config: Config, _metrics: Metrics, _labels: Mapping[str, str]) -> tuple[Pusher, ...]:
    """One for each place to push to; `labels` say whose metrics these are: pod, namespace, node, dag_id, task_id."""
    return ()
