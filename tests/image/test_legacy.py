"""The image as an ordinary container of a pod with `shareProcessNamespace: true`: clusters without native sidecars."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.containers import HARDENED, Container, Limits
from tests.image.images import netprobe_image
from tests.lab.world.hosts import until

USER_ID, TASKS_USER_ID = 65532, 50000
TOKEN = "eyJhbGciOi-the-token-of-the-task"
WAITS = "import signal; signal.pause()"
ENDS_WITH_1 = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)); signal.pause()"
WORKLOAD = ("-m", "airflow.sdk.execution_time.execute_workload", "--json-string", json.dumps({"token": TOKEN}))

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]  # the first test waits for the base image


@pytest.fixture(scope="module")
def image() -> str:
    return netprobe_image()


@pytest.fixture
def pause(image: str) -> Iterator[Container]:
    """Process 1 of the pod, which Kubernetes calls pause."""
    with python(image, WAITS) as container:
        yield container


def python(image: str, code: str, *arguments: str, options: tuple[str, ...] = ()) -> Container:
    return Container(image, "-c", code, *arguments, options=("--entrypoint=python3", *options))


def sharing(pause: Container, user: int) -> tuple[str, ...]:
    """Options of a container in the same pod."""
    return (f"--pid=container:{pause.name}", f"--user={user}:{user}")


@pytest.mark.parametrize("ends", ["by itself", "killed"])
def test_the_sidecar_ends_when_the_tasks_container_has(image: str, pause: Container, tmp_path: Path, ends: str) -> None:
    """Under another user, without privileges, and behind the same limits; whatever the task ended with, it is 0."""
    (tmp_path / "netprobe.yaml").write_text("targets: [{name: t, type: tcp, address: '127.0.0.1:9'}]\n")
    tmp_path.chmod(0o755)
    with (
        python(image, WAITS, options=sharing(pause, 1337)) as mesh,
        python(image, ENDS_WITH_1, *WORKLOAD, options=sharing(pause, TASKS_USER_ID)) as base,
        Container(
            image,
            *("run", "--fail-open", "--end-with-task"),
            options=(*HARDENED, *sharing(pause, USER_ID)),
            limits=Limits(cpu=0.5, memory_mib=64),
            mounts={tmp_path: "/etc/netprobe"},
        ) as sidecar,
    ):
        until(lambda: "task_container_found" in sidecar.log, "the sidecar to find the task's container", 60.0)
        assert sidecar.running
        base.signal("TERM" if ends == "by itself" else "KILL")
        assert base.wait() == (1 if ends == "by itself" else 128 + signal.SIGKILL)
        assert sidecar.wait(60.0) == 0
        assert mesh.running
        log, events = sidecar.log, sidecar.events()
    assert [event["airflows"] for event in events if event["event"] == "task_container_found"][-1] is True
    assert "task_container_ended" in {event["event"] for event in events}
    assert TOKEN not in log
    assert "execute_workload" not in log
