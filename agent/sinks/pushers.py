"""The pushers that a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.config.sections import Config
from agent.sinks.metrics import Metrics, Pushes
from agent.sinks.push import Pusher

REMOTE_WRITE, PUSHGATEWAY = "remote_write", "pushgateway"


def pushers(config: Config, metrics: Metrics, labels: Mapping[str, str]) -> tuple[Pusher, ...]:
    """One pusher for each receiver that has a URL. `labels` say whose pod it is: namespace, pod, node, dag_id, task_id.

    From now on everything that was counted before counts as zero: call it before the first run.
    """
    return tuple(_pushers(config, metrics, labels))


def _pushers(config: Config, metrics: Metrics, known: Mapping[str, str]) -> Iterator[Pusher]:
    # Imported by those who push: every other pod does without.
    if (url := config.remote_write.url) is not None:
        from agent.sinks.periodic import PeriodicPusher  # noqa: PLC0415
        from agent.sinks.pod_labels import pod_labels  # noqa: PLC0415
        from agent.sinks.remote_write import RemoteWrite  # noqa: PLC0415

        options = config.remote_write
        labels = {**dict(options.labels), **pod_labels(options, known)}
        contents = RemoteWrite(options, url, metrics.slices, labels)
        pushes = metrics.pushes[REMOTE_WRITE] = Pushes()
        yield PeriodicPusher(REMOTE_WRITE, contents, options, pushes, labels["pod"])
    if (url := config.pushgateway.url) is not None:
        from agent.sinks.periodic import PeriodicPusher  # noqa: PLC0415
        from agent.sinks.pod_labels import pod_labels, task_labels  # noqa: PLC0415
        from agent.sinks.pushgateway import Pushgateway  # noqa: PLC0415

        gateway = config.pushgateway
        namespace = {"namespace": known["namespace"]} if known.get("namespace") else {}
        grouping = {"job": gateway.job, **namespace, **task_labels(gateway, known)}
        pushes = metrics.pushes[PUSHGATEWAY] = Pushes()
        pod = pod_labels(gateway, known)["pod"]
        yield PeriodicPusher(
            PUSHGATEWAY, Pushgateway(url, metrics.slices, tuple(grouping.items())), gateway, pushes, pod
        )
