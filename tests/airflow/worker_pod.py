"""A worker pod without Kubernetes: containers of podman that share a network and processes, and Airflow's own command.

The order is the kubelet's: what holds the namespaces, then the sidecar until its start-up endpoint answers, then
`base`; when `base` has ended the sidecar gets a SIGTERM. The network is the pod's in a world of the fault lab.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.airflow.installed import airflow_python
from tests.image.containers import HARDENED, REPOSITORY, Container, Limits, Stopped, alive
from tests.image.images import base_image
from tests.lab.http_client import request
from tests.lab.world import World
from tests.lab.world.hosts import until
from tests.lab.world.places import POD_IP

DAGS = REPOSITORY / "deploy/airflow/dags"
PLUGINS = REPOSITORY / "deploy/airflow/plugins"
SEED = Path(__file__).with_name("seed.py")
PATIENCE_SECONDS = 180.0
"""For anything of Airflow's: it imports for seconds, and the machine may have other things to do."""

EXECUTION_API_SERVICE, EXECUTION_API_IP, EXECUTION_API_PORT = "10.96.1.99", "10.244.2.99", 8080
AIRFLOW_USER_ID, SIDECAR_USER_ID = 50000, 65532
SIDECAR = Limits(cpu=0.1, memory_mib=64)
SIDECAR_URL = "http://127.0.0.1:9733"
KUBELET = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
"""What the kubelet puts into the environment of every container."""


@dataclass(frozen=True)
class Job:
    """A task instance that is queued."""

    dag: str
    run: str
    task: str
    args: Sequence[str]
    """What KubernetesExecutor makes the arguments of `base`."""


@dataclass(frozen=True)
class Result:
    """What Airflow and the kubelet would know of a task."""

    state: str
    tries: int
    exit_code: int


class Airflow:
    """One version of Airflow: its metadata database, its logs, and a queued run of each example DAG for each name."""

    def __init__(self, version: str, home: Path, variables: Mapping[str, str], runs: Sequence[str]) -> None:
        self.version = version
        environment = airflow_python(version).parents[1].resolve()
        self.python = environment / "bin/python"
        self.home = home
        home.mkdir()
        self.variables = {
            "PATH": f"{self.python.parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
            "AIRFLOW__CORE__EXECUTOR": "KubernetesExecutor",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": (
                f"http://{EXECUTION_API_SERVICE}:{EXECUTION_API_PORT}/execution/"
            ),
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test alone, as long as its algorithm wants: sixty-four",
            "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": "86400",
            "AIRFLOW_IS_K8S_EXECUTOR_POD": "True",
            **variables,
        }
        seeded = subprocess.run(
            [self.python, SEED],
            env=self.variables,
            cwd=home,
            input=json.dumps(list(runs)),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert seeded.returncode == 0, seeded.stderr
        made = json.loads(seeded.stdout.splitlines()[-1])
        self._jobs = {(dag, run): Job(dag, run, **job) for run, dags in made.items() for dag, job in dags.items()}
        (home / "logs").mkdir(exist_ok=True)
        # The worker is another user than whoever made this, as it is in a pod.
        for path in (home, *home.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)

    @contextmanager
    def serving(self, world: World) -> Iterator[None]:
        """Have what a worker of this version talks to: the execution API of Airflow 3 in the cluster."""
        if self.version.startswith("2."):
            yield  # its workers use the database itself
            return
        cluster = world.hosts["cluster"]
        where = ("--host", EXECUTION_API_IP, "--port", str(EXECUTION_API_PORT))
        command = (self.python, "-m", "airflow", "api-server", "--apps", "execution", "--workers", "1", *where)
        # Of one run of tests, as of others: it must not wait for a worker's import longer than this does.
        process = cluster.start(*command, log=self.home / "api-server.log", cwd=self.home, env=self.variables)
        try:

            def listens() -> object:
                assert alive(process.pid), process.log
                return cluster.run("ss", "-Hlnt", f"sport = :{EXECUTION_API_PORT}")

            until(listens, "the execution API to listen", PATIENCE_SECONDS)
            endpoint = f"{EXECUTION_API_IP}:{EXECUTION_API_PORT}"
            change = world.add_service("airflow-api-server", f"{EXECUTION_API_SERVICE}:{EXECUTION_API_PORT}", endpoint)
            yield
            change.undo()
        finally:
            process.stop()

    def job(self, dag: str, run: str) -> Job:
        return self._jobs[dag, run]

    def result(self, job: Job, exit_code: int) -> Result:
        """What the database says became of it."""
        question = "SELECT state, try_number FROM task_instance WHERE dag_id = ? AND run_id = ? AND task_id = ?"
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=PATIENCE_SECONDS)) as database:
            ((state, tries),) = database.execute(question, (job.dag, job.run, job.task)).fetchall()
        return Result(state=state, tries=tries, exit_code=exit_code)

    def log(self, job: Job) -> str:
        """The log of a task as it lies in the file: of its first try."""
        path = f"logs/dag_id={job.dag}/run_id={job.run}/task_id={job.task}/attempt=1.log"
        return (self.home / path).read_text()


class WorkerPod:
    """A pod. A context manager; its containers are removed at the end."""

    def __init__(self, world: World, airflow: Airflow) -> None:
        self._world = world
        self._airflow = airflow
        self._network = f"ns:/run/netns/{world.hosts['pod'].name}"
        hosts = world.directory / "etc-hosts"
        hosts.write_text(f"127.0.0.1 localhost\n::1 localhost\n{POD_IP} worker-pod\n")
        self._etc = {
            Path("/etc/netns", world.hosts["pod"].name, "resolv.conf"): "/etc/resolv.conf",
            hosts: "/etc/hosts",
        }
        # The interpreter of Airflow, and what it is linked to, are this machine's own.
        place = Path(sys.base_prefix)
        parts = {Path("/usr"), airflow.python.parents[1], REPOSITORY / "deploy"}
        self._machine = {part: str(part) for part in parts | ({place} if not place.is_relative_to("/usr") else set())}
        # That may be in the home of root, which nobody else enters.
        home = world.directory / "root"
        home.mkdir(exist_ok=True)
        self._machine[home] = f"{Path('/', 'root')}:rw"
        self.sidecar: Container | None = None
        self._containers: list[Container] = []
        self._pause = self._start(
            base_image(),
            *("catatonit", "-P"),
            options=("--hostname=worker-pod", "--entrypoint=/usr/bin/env"),
            mounts=self._machine,
        )

    def _start(self, image: str, *arguments: str, mounts: Mapping[Path, str], **keys: Any) -> Container:
        container = Container(image, *arguments, network=self._network, mounts={**self._etc, **mounts}, **keys)
        self._containers.append(container)
        return container

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for container in reversed(self._containers):
            container.remove()

    def _beside(self) -> tuple[str, ...]:
        """Options that put a container beside the first: `shareProcessNamespace: true`."""
        return tuple(f"--{kind}=container:{self._pause.name}" for kind in ("pid", "ipc", "uts"))

    def start_sidecar(self, image: str, configuration: Path, **variables: str) -> Container:
        """Start netprobe first, as a native sidecar, and wait until its start-up endpoint answers."""
        self.sidecar = sidecar = self._start(
            image,
            options=(*HARDENED, *self._beside(), f"--user={SIDECAR_USER_ID}:{SIDECAR_USER_ID}"),
            limits=SIDECAR,
            environment={**KUBELET, **variables},
            mounts={configuration: "/etc/netprobe"},
        )

        def started() -> bool:
            assert sidecar.running, sidecar.log
            return self.ask("/startupz") == 200

        until(started, f"the sidecar to have started: {sidecar.log}", PATIENCE_SECONDS)
        return sidecar

    def ask(self, path: str) -> int | None:
        """The status of the sidecar's answer, asked from within the pod. None where nobody listens."""
        try:
            return self._world.hosts["pod"].call(request(f"{SIDECAR_URL}{path}")).status
        except OSError:
            return None

    def run(self, *jobs: Job) -> dict[str, Result]:
        """Run the tasks, each in a `base` of its own, at the same time, to their end. By DAG."""
        bases = [self._start_base(job) for job in jobs]
        codes = [base.wait(PATIENCE_SECONDS) for base in bases]
        return {job.dag: self._airflow.result(job, code) for job, code in zip(jobs, codes, strict=True)}

    def _start_base(self, job: Job) -> Container:
        airflow = self._airflow
        return self._start(
            base_image(),
            *job.args,
            options=(*self._beside(), f"--user={AIRFLOW_USER_ID}:0", "--entrypoint=/usr/bin/env"),
            environment={**KUBELET, **airflow.variables},
            mounts={
                **self._machine,
                airflow.home: f"{airflow.home}:rw",
                self._world.certificates.ca_file: str(self._world.certificates.ca_file),
            },
        )

    def end(self) -> Stopped:
        """What the kubelet does when `base` has ended."""
        assert self.sidecar is not None
        return self.sidecar.terminate(grace_seconds=10)
