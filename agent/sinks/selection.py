"""Which of the metrics are pushed: what tells of a pod that is gone, and nothing that is only true while it lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

_PREFIX, _PUSHES = "netprobe_", "netprobe_push_"
_PUSHED_PUSHES = frozenset({"netprobe_push_requests", "netprobe_push_samples"})
"""So that what got lost can be told afterwards: of a pod that is gone there is nobody left to ask."""
_DIAGNOSIS = "netprobe_diagnosis"

HasBegun = Callable[[str, Mapping[str, str]], bool]
"""Whether a series, by its name and labels, was pushed before."""


def never(_name: str, _labels: Mapping[str, str]) -> bool:
    """For a receiver that is given the whole state each time."""
    return False


def pushed(metric: Metric, has_begun: HasBegun) -> Iterator[Sample]:
    """The samples of a metric that are worth a series each in every pod.

    Left out are the process_* metrics; what is known about pushing beyond requests and samples, which whoever reads it
    is told by those; everything of the type info, whose labels are there to be joined with while the pod lives (and one
    of which names the run); histograms and summaries that have counted nothing; and causes that never were the
    diagnosis, which are all but a few of forty-five.
    """
    if not metric.name.startswith(_PREFIX) or metric.type == "info":
        return
    if metric.name.startswith(_PUSHES) and metric.name not in _PUSHED_PUSHES:
        return
    if metric.type in {"histogram", "summary"}:
        counted = {tuple(one.labels.items()) for one in metric.samples if one.name.endswith("_count") and one.value}
        for one in metric.samples:
            if tuple(item for item in one.labels.items() if item[0] != "le") in counted:
                yield one
    elif metric.name == _DIAGNOSIS:
        yield from (one for one in metric.samples if one.value or has_begun(one.name, one.labels))
    else:
        yield from metric.samples
