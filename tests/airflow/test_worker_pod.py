"""The example DAGs in a worker pod with the sidecar in it: what their owners read, and what becomes of their tasks.

Airflow's own command runs each task, as the pod of KubernetesExecutor does, in a container beside the real image with
its real limits. All tasks of a pod run at the same time: Airflow's import takes seconds, and this is about the sidecar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.airflow.installed import VERSIONS
from tests.airflow.worker_pod import Airflow, Job, Result, WorkerPod
from tests.image.images import netprobe_image
from tests.lab import postgres
from tests.lab.http_servers import response, routed
from tests.lab.nameservers import silent
from tests.lab.world import World, places
from tests.lab.world.servers import template

HTTP_API, POSTGRES, SERVICE = DAGS = tuple(f"netprobe_example_{name}" for name in ("http_api", "postgres", "service"))
RUNS = ("healthy", "healthy-alone", "broken", "broken-alone", "killed", "wedged", "starved", "misconfigured")
END_SECONDS = 2.0
CA_FILE = "/etc/netprobe/ca.pem"
WAREHOUSE = f"postgresql://probe:{postgres.PASSWORD}@internal-database:5432/app"

CONFIGURATION = {
    "defaults": {"interval": "2s", "timeout": "1500ms"},
    # At a tenth of a CPU the sidecar needs as long to be loaded as a task may need to fail.
    "gate": {"timeout": "2s"},
    "targets": [
        {"name": "orders-api", "type": "http", "url": "https://api.example.com/orders", "tls": {"ca_file": CA_FILE}},
        {"name": "warehouse", "type": "postgres", "dsn": "postgresql://probe@internal-database:5432/app"},
        {"name": "reports", "type": "http", "url": "http://web.airflow.svc.cluster.local/", "gate": True},
    ],
}

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Where the pods' network leads: a cluster, and an internet with the API of the first DAG."""
    with postgres.directory() as directory, World(template(directory)) as made:
        orders = response(body=b"[1, 2, 3]", headers={"Content-Type": "application/json"})
        made.site("api", reply=routed({"/orders": orders}))
        yield made


@pytest.fixture(scope="module", params=VERSIONS)
def airflow(
    request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    made = Airflow(
        request.param,
        tmp_path_factory.mktemp("airflow") / request.param,
        {
            "AIRFLOW_CONN_ORDERS_API": "https://api.example.com/orders",
            "AIRFLOW_CONN_WAREHOUSE": WAREHOUSE,
            "AIRFLOW_VAR_REPORTS_URL": "http://web.airflow.svc.cluster.local/",
            "SSL_CERT_FILE": str(world.certificates.ca_file),
        },
        RUNS,
    )
    with made.serving(world):
        yield made


@pytest.fixture
def configuration(world: World, tmp_path: Path) -> Path:
    directory = tmp_path / "configuration"
    directory.mkdir()
    (directory / "ca.pem").write_bytes(world.certificates.ca_file.read_bytes())
    (directory / "netprobe.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    return directory


@pytest.fixture
def faults(world: World) -> Iterator[World]:
    """A world to be broken; afterwards it is as before."""
    mark = world.mark()
    yield world
    world.undo_since(mark)


def jobs(airflow: Airflow, run: str, *dags: str) -> list[Job]:
    return [airflow.job(dag, run) for dag in dags or DAGS]


def verdicts(log: str) -> list[str]:
    """The causes that stand in a task's log."""
    return re.findall(r"netprobe: (\w+) \(\w+ confidence", log)


def test_a_healthy_network_is_not_mentioned(airflow: Airflow, world: World, configuration: Path) -> None:
    with WorkerPod(world, airflow) as pod:
        pod.start_sidecar(netprobe_image(), configuration)
        beside = pod.run(*jobs(airflow, "healthy"))
        ended = pod.end()
    with WorkerPod(world, airflow) as pod:
        alone = pod.run(*jobs(airflow, "healthy-alone"))

    assert beside == alone == dict.fromkeys(DAGS, Result(state="success", tries=1, exit_code=0))
    for job in jobs(airflow, "healthy"):
        assert "netprobe:" not in airflow.log(job)
    assert ended.code == 0
    assert ended.seconds < END_SECONDS


def test_the_log_of_a_failed_task_says_why(airflow: Airflow, faults: World, configuration: Path) -> None:
    faults.drop(places.API_IP)
    faults.endpoints("internal-database")
    faults.records({"web.airflow.svc.cluster.local": ()})

    with WorkerPod(faults, airflow) as pod:
        pod.start_sidecar(netprobe_image(), configuration)
        beside = pod.run(*jobs(airflow, "broken"))
        ended = pod.end()
    with WorkerPod(faults, airflow) as pod:
        alone = pod.run(*jobs(airflow, "broken-alone"))

    assert beside == alone == dict.fromkeys(DAGS, Result(state="up_for_retry", tries=1, exit_code=0))
    for job, cause in zip(
        jobs(airflow, "broken"), ("egress_blocked", "service_without_endpoints", "name_not_found"), strict=True
    ):
        assert cause in verdicts(airflow.log(job)), airflow.log(job)
    assert ended.code == 0
    assert ended.seconds < END_SECONDS


def kill(pod: WorkerPod) -> None:
    assert pod.sidecar is not None
    pod.sidecar.signal("KILL")
    assert pod.sidecar.wait() == 137


def wedge(pod: WorkerPod) -> None:
    assert pod.sidecar is not None
    pod.sidecar.signal("STOP")


def starve(pod: WorkerPod) -> None:
    assert pod.sidecar is not None
    pod.sidecar.limit_cpu(0.01)


@pytest.mark.parametrize(("run", "harm"), [("killed", kill), ("wedged", wedge), ("starved", starve)])
def test_a_task_does_not_notice_what_becomes_of_the_sidecar(
    airflow: Airflow, faults: World, configuration: Path, run: str, harm: Callable[[WorkerPod], None]
) -> None:
    """One task that fails and one that does not, beside a sidecar that cannot answer."""
    faults.endpoints("internal-database")

    with WorkerPod(faults, airflow) as pod:
        pod.start_sidecar(netprobe_image(), configuration)
        harm(pod)
        results = pod.run(*jobs(airflow, run, POSTGRES, SERVICE))

    good = Result(state="success", tries=1, exit_code=0)
    assert results == {POSTGRES: replace(good, state="up_for_retry"), SERVICE: good}


def test_a_broken_configuration_is_as_good_as_none(airflow: Airflow, faults: World, configuration: Path) -> None:
    """Nothing of it is used. What the environment names is probed instead, and the pod ends as any other."""
    faults.script_nameservers(silent)
    (configuration / "netprobe.yaml").write_text("targets: [{name: a, type: carrier-pigeon")

    with WorkerPod(faults, airflow) as pod:
        pod.start_sidecar(netprobe_image(), configuration, AIRFLOW_CONN_WAREHOUSE=WAREHOUSE)
        results = pod.run(*jobs(airflow, "misconfigured", POSTGRES, SERVICE))
        ended = pod.end()

    assert results == dict.fromkeys((POSTGRES, SERVICE), Result(state="up_for_retry", tries=1, exit_code=0))
    for job in jobs(airflow, "misconfigured", POSTGRES, SERVICE):
        assert "dns_unreachable" in verdicts(airflow.log(job)), airflow.log(job)
    assert ended.code == 0
    assert ended.seconds < END_SECONDS
