"""The pods of a fleet: `netprobe run`, each in a process of its own, and Prometheus' view of what Kubernetes has."""

from __future__ import annotations

import itertools
import json
import os
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.lab.command import environment
from tests.lab.fleet.dags import DAGS, NAMESPACE, TASKS, Dag
from tests.lab.pace import Pace
from tests.lab.world import World, places
from tests.lab.world.hosts import Process

AT_ONCE: Final = 3
"""So many pods start at the same time: a start costs a third of a second of CPU."""
LEAST_INTERVAL_SECONDS: Final = 5.0
"""Between two runs of a target, at whatever pace: thirty agents share two cores with others."""
_FIRST_PORT: Final = 20_000
_RUN_ID: Final = "scheduled__2026-01-01T00:00:00+00:00"
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KUBERNETES: Final = places.SERVICES["kubernetes"][0]


class Pod:
    """One pod of a task."""

    def __init__(self, dag: Dag, task_id: str, port: int) -> None:
        self.dag = dag
        self.task_id = task_id
        self.name = f"{dag.dag_id}-{task_id}-{uuid.uuid4().hex[:8]}"
        self.address = f"{places.POD_IP}:{port}"
        self.phase = "Pending"
        """As Kubernetes calls it: Pending, Running, Succeeded."""
        self._process: Process | None = None
        self._cpu_seconds_at_the_end = 0.0

    def start(self, world: World, configuration: Path) -> None:
        """Start the agent; it needs a while."""
        host, port = _KUBERNETES.split(":")
        identity = {"DAG_ID": self.dag.dag_id, "TASK_ID": self.task_id, "RUN_ID": _RUN_ID, "TRY_NUMBER": "1"}
        env = environment(
            KUBERNETES_SERVICE_HOST=host,
            KUBERNETES_SERVICE_PORT=port,
            CA_FILE=str(world.certificates.ca_file),
            NETPROBE_POD_NAME=self.name,
            NETPROBE_POD_NAMESPACE=NAMESPACE,
            NETPROBE_POD_UID=str(uuid.uuid4()),
            NETPROBE_NODE_NAME="node-1",
            **{f"NETPROBE_ANNOTATION_{name}": value for name, value in identity.items()},
        )
        self._process = world.hosts["pod"].start(
            *(sys.executable, "-m", "agent", "run", "--config", configuration, "--listen", self.address),
            log=world.directory / f"{self.name}.log",
            cwd=world.directory,
            env=env,
            etc=True,
        )
        self.phase = "Running"

    def wait_until_it_serves(self) -> None:
        self._running.until(lambda: '"agent_started"' in self._running.log)

    def end(self) -> None:
        """End it as Kubernetes does."""
        self._cpu_seconds_at_the_end = self.cpu_seconds
        self._running.stop()
        self.phase = "Succeeded"

    def kill(self) -> None:
        """End it at once, whatever state it is in."""
        if self._process is not None:
            self._process.kill()

    @property
    def cpu_seconds(self) -> float:
        """CPU that it has used."""
        return cpu_seconds(self._running.pid) if self.phase == "Running" else self._cpu_seconds_at_the_end

    @property
    def log(self) -> str:
        return self._running.log

    @property
    def discovered(self) -> Mapping[str, Any]:
        """What the discovery of Kubernetes tells Prometheus of it, in the form of a file_sd entry."""
        task = {"dag_id": self.dag.dag_id, "task_id": self.task_id}
        meta = {
            "namespace": NAMESPACE,
            "pod_name": self.name,
            "pod_phase": self.phase,
            "pod_container_name": "netprobe",
            "pod_container_port_name": "netprobe",
            "pod_node_name": "node-1",
            **{f"pod_{kind}_{name}": value for kind in ("label", "annotation") for name, value in task.items()},
        }
        return {
            "targets": [self.address],
            "labels": {f"__meta_kubernetes_{name}": value for name, value in meta.items()},
        }

    @property
    def _running(self) -> Process:
        assert self._process is not None, f"{self.name} was not started"
        return self._process


class Pods:
    """All of them, those that have ended included. What Prometheus may discover stands in a file."""

    def __init__(self, world: World, pace: Pace, *, receiver: str, discovery: Path) -> None:
        """`receiver`: where the pods that nobody scrapes push to."""
        self._world = world
        self._discovery = discovery
        self._ports = itertools.count(_FIRST_PORT)
        self._configurations = {dag: self._write(dag, pace, receiver) for dag in DAGS}
        self._pods: list[Pod] = []
        self._tell()

    def start(self) -> None:
        """Start one pod of each task of each DAG."""
        for some in _batched([(dag, task_id) for task_id in TASKS for dag in DAGS]):
            self._start([Pod(dag, task_id, next(self._ports)) for dag, task_id in some])

    def replace(self, old: Sequence[Pod]) -> None:
        """These have done their work and end; then others of the same tasks start."""
        for pod in old:
            pod.end()
        self._tell()
        self._start([Pod(pod.dag, pod.task_id, next(self._ports)) for pod in old])

    def kill(self) -> None:
        """End them all at once."""
        for pod in self._pods:
            pod.kill()

    @property
    def cpu_seconds(self) -> float:
        """CPU that all have used, those that have ended included."""
        return sum(pod.cpu_seconds for pod in self._pods)

    @property
    def running(self) -> list[Pod]:
        return [pod for pod in self._pods if pod.phase == "Running"]

    def _start(self, pods: Sequence[Pod]) -> None:
        for pod in pods:
            self._pods.append(pod)
            pod.start(self._world, self._configurations[pod.dag])
        for pod in pods:
            pod.wait_until_it_serves()
        self._tell()

    def _tell(self) -> None:
        """Let Prometheus know, in one step."""
        new = self._discovery.with_suffix(".new")
        new.write_text(json.dumps([pod.discovered for pod in self._pods if not pod.dag.pushes]), "utf-8")
        new.replace(self._discovery)

    def _write(self, dag: Dag, pace: Pace, receiver: str) -> Path:
        """The configuration of a DAG's pods."""
        interval = max(LEAST_INTERVAL_SECONDS, pace.seconds(15))
        sections: dict[str, Any] = {
            # A run may not last longer than the interval, and the least interval of a push is five seconds.
            "defaults": {"interval": _milliseconds(interval), "timeout": _milliseconds(min(6.0, interval * 0.75))},
            "log": {"format": "json"},
            "targets": [dict(target) for target in dag.targets],
        }
        if dag.pushes:
            sections["remote_write"] = {"url": receiver, "interval": _milliseconds(max(5.0, pace.seconds(60)))}
        file = self._world.directory / f"{dag.dag_id}.yaml"
        file.write_text(yaml.safe_dump(sections, sort_keys=False))
        return file


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used, without its children's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"


def _batched(everything: Sequence[tuple[Dag, str]]) -> Iterator[Sequence[tuple[Dag, str]]]:
    for first in range(0, len(everything), AT_ONCE):
        yield everything[first : first + AT_ONCE]
