"""The fleet as a whole: a world, the pods in it, and what watches them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.lab.alertmanager import Document, Notification
from tests.lab.fleet.dags import DAGS
from tests.lab.fleet.monitoring import PORT, Monitoring, monitoring
from tests.lab.fleet.pods import Pods, cpu_seconds
from tests.lab.pace import Pace
from tests.lab.world import Change, World, leftovers, places, servers
from tests.lab.world.hosts import Host

MONITORING_IP: Final = "10.244.2.99"
"""The address of the pod that Prometheus has."""


class Fleet:
    """Everything runs. Use from the thread that made it."""

    def __init__(self, world: World, pods: Pods, monitoring: Monitoring) -> None:
        self.pods = pods
        self._world = world
        self._host: Host = world.hosts["cluster"]
        self._monitoring = monitoring

    def query(self, expression: str) -> list[Document]:
        """The instant vector an expression has now: `metric` (labels) and `value` of each series."""
        return self._host.call(self._monitoring.prometheus.query(expression))

    def prometheus(self, path: str, **parameters: str) -> Any:
        """What a path of Prometheus' HTTP API answers: its `data`."""
        return self._host.call(self._monitoring.prometheus.api(path, **parameters))

    def alerts(self) -> list[Document]:
        """What Alertmanager has: `labels`, and in `status` the `state` and the fingerprints it is `inhibitedBy`."""
        return self._host.call(self._monitoring.alertmanager.alerts())

    @property
    def notifications(self) -> list[Notification]:
        """All that Alertmanager has sent so far, in order."""
        return list(self._monitoring.inbox.received)

    def silence_nameservers(self) -> Change:
        """No pod gets an answer from a nameserver any more: a policy drops what they send to port 53."""
        return self._world.drop(places.NAMESERVER_SERVICES, port=53)

    def cpu_seconds(self) -> dict[str, float]:
        """CPU that the agents, Prometheus and Alertmanager, and the process of the test have used."""
        return {
            "agents": self.pods.cpu_seconds,
            "Prometheus": cpu_seconds(self._monitoring.prometheus.pid),
            "Alertmanager": cpu_seconds(self._monitoring.alertmanager.pid),
            "servers": cpu_seconds(os.getpid()),
        }


@contextmanager
def fleet(pace: Pace) -> Iterator[Fleet]:
    """Thirty pods that run, and what watches them. Its end removes everything."""
    leftovers.sweep()
    with ExitStack() as undo:
        directory = Path(tempfile.gettempdir(), leftovers.new_name())
        directory.mkdir(mode=0o711)
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        world = undo.enter_context(World(servers.template(directory)))
        world.records({name: ips for dag in DAGS for name, ips in dag.names.items()})
        world.site("api", certificate=world.certificate_for(*(dag.certificate_name for dag in DAGS)))
        discovery = world.directory / "pods.json"
        receiver = f"http://{MONITORING_IP}:{PORT}/api/v1/write"
        pods = Pods(world, pace, receiver=receiver, discovery=discovery)
        undo.callback(pods.kill)
        watching = undo.enter_context(_entered(world.hosts["cluster"], world.directory, pace, discovery))
        pods.start()
        yield Fleet(world, pods, watching)


@contextmanager
def _entered(host: Host, directory: Path, pace: Pace, discovery: Path) -> Iterator[Monitoring]:
    """What watches, in the network and the event loop of a host."""
    running: list[Monitoring] = []

    @asynccontextmanager
    async def keeping() -> AsyncIterator[None]:
        async with monitoring(directory, pace, discovery) as one:
            running.append(one)
            yield

    change = host.enter(keeping)
    try:
        yield running[0]
    finally:
        with suppress(TimeoutError):
            change.undo()
