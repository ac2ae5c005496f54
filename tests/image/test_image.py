"""The image as a kubelet runs it: hardened, limited, without a network of the machine's."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import agent
from agent.airflow.inject.sidecar import LIMITS
from tests.image.containers import HARDENED, REPOSITORY, Container, Limits, attempt, podman
from tests.image.images import BASE, build, bytes_of, netprobe_image
from tests.lab.http_client import Answer, request
from tests.lab.netns import Namespace, namespace
from tests.lab.world.hosts import until

USER_ID = 65532
ANY_USER_ID = 1234567890
"""As clusters give out that take one of their own for every namespace."""
SIDECAR = Limits(cpu=0.1, memory_mib=64)
"""Less than `netprobe inject` gives it."""

CONFIGURATION = """
defaults: {interval: 1s, timeout: 500ms}
targets:
  - {name: itself, type: http, url: "http://127.0.0.1:9733/healthz"}
  - {name: nobody, type: tcp, address: "127.0.0.1:9"}
"""

DIAGNOSED = 'netprobe_diagnosis{cause="nothing_listening"} 1'

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]  # the first test waits for the base image


@pytest.fixture(scope="module")
def image() -> str:
    return netprobe_image()


@pytest.fixture(scope="module")
def network() -> Iterator[Namespace]:
    """A pod's network that leads nowhere."""
    with namespace() as host:
        yield host


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    directory = tmp_path / "configuration"
    directory.mkdir()
    (directory / "netprobe.yaml").write_text(CONFIGURATION)
    return directory


@contextmanager
def sidecar(
    image: str,
    network: Namespace,
    *arguments: str,
    configuration: Path | None = None,
    user: int = USER_ID,
    limits: Limits = SIDECAR,
) -> Iterator[Container]:
    """The image as the shipped templates run it; with no arguments, as it runs by itself."""
    mounts: Mapping[Path, str] = {configuration: "/etc/netprobe"} if configuration is not None else {}
    options = (*HARDENED, f"--user={user}:{user}")
    path = f"ns:/run/netns/{network.name}"
    with Container(image, *arguments, options=options, limits=limits, network=path, mounts=mounts) as container:
        yield container


def ask(network: Namespace, path: str) -> Answer:
    return network.inside(lambda: asyncio.run(request(f"http://127.0.0.1:9733{path}")))


def answers(network: Namespace, path: str) -> bool:
    try:
        return ask(network, path).status == 200
    except OSError:
        return False


def wait_for(container: Container, network: Namespace, path: str) -> None:
    def ready() -> bool:
        assert container.running, container.log
        return answers(network, path)

    until(ready, f"200 from {path}: {container.log}", 60)


# --- what it is made of ---------------------------------------------------------------------------------------------


def test_hadolint_has_nothing_to_say() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, REPOSITORY / "Dockerfile"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_it_says_what_it_is(image: str) -> None:
    """Labels of OCI, a numeric user, no shell in the way of a signal."""
    described = json.loads(podman("image", "inspect", image))[0]["Config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in described["Labels"].items()}

    assert described["User"] == f"{USER_ID}:{USER_ID}"
    assert described["Entrypoint"] == ["netprobe"]
    assert described["Cmd"] == ["run", "--fail-open"]
    assert described["StopSignal"] in ("SIGTERM", "15")
    assert labels["version"] == agent.__version__
    assert labels["licenses"] == "Apache-2.0"
    assert labels["revision"] == "of-the-test"
    assert labels["title"] == "netprobe"
    assert labels["description"]


def test_its_base_can_be_pinned(image: str, tmp_path: Path) -> None:
    """Any reference is taken for the base, a digest included, and every stage stands on it."""
    described = json.loads(podman("image", "inspect", BASE))[0]
    pinned = f"{BASE.rpartition(':')[0]}@{described['Digest']}"
    stages = re.findall(r"^FROM (\S+)", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    (tmp_path / "Dockerfile").write_text('ARG BASE=localhost/nothing:there\nFROM ${BASE}\nLABEL made="yes"\n')
    made = podman("build", "--quiet", "--network=none", "--pull=never", f"--build-arg=BASE={pinned}", tmp_path)
    layers = json.loads(podman("image", "inspect", image))[0]["RootFS"]["Layers"]
    podman("image", "rm", made)

    assert set(stages) == {"${BASE}"}
    assert layers[: len(described["RootFS"]["Layers"])] == described["RootFS"]["Layers"]


def test_what_is_locked_is_installed_and_nothing_else(image: str) -> None:
    """The very versions of requirements.lock, where they apply; neither pip nor a test nor a source of a C library."""
    script = (
        "import importlib.metadata as m, json, sys; "
        "print(json.dumps([sys.version_info[:2], {d.name: d.version for d in m.distributions()}]))"
    )
    version, found = json.loads(run_python(image, script))
    lines = re.findall(r"^([\w.-]+==\S+(?: ; [^\\]+)?)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE)
    locked = [Requirement(line.strip()) for line in lines]
    environment = {
        "python_full_version": f"{version[0]}.{version[1]}.0",
        "python_version": f"{version[0]}.{version[1]}",
    }
    wanted = {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in locked
        if one.marker is None or one.marker.evaluate(environment)
    }

    assert {canonicalize_name(name): version for name, version in found.items()} == wanted


def test_nothing_is_compiled_at_run_time(image: str) -> None:
    """Each module that is loaded has its compiled form beside it, those of the standard library included.

    The base has none of its own, as official Python images do.
    """
    script = (
        "import json, os, sys, agent.app, agent.cli; "
        "print(json.dumps([m.__file__ for m in sys.modules.values() if getattr(m, '__cached__', None) "
        "and m.__spec__.origin.endswith('.py') and not os.path.exists(m.__cached__)]))"
    )
    bare = attempt(
        "run", "--rm", "--network=none", "--entrypoint=python3", BASE, "-c", script.replace(", agent.app", "")
    )

    assert json.loads(run_python(image, script)) == []
    # Otherwise this would have shown nothing.
    assert "No module named 'agent'" in bare.stderr
    assert json.loads(run_python(BASE, script.replace(", agent.app, agent.cli", ", asyncio"), "python3")) != []


def test_whoever_built_it_anybody_can_run_it(image: str, tmp_path: Path) -> None:
    """From a checkout whose files its owner alone may read (umask 077), too."""
    checkout, tag = tmp_path / "checkout", f"{image}-of-a-private-checkout"
    checkout.mkdir()
    for name in ("Dockerfile", ".dockerignore", "requirements.lock", "LICENSE"):
        shutil.copy2(REPOSITORY / name, checkout)
    for name in ("agent", "image"):
        shutil.copytree(REPOSITORY / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (checkout / name, *(checkout / name).rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
    build(checkout, tag)
    try:
        printed = podman("run", "--rm", "--network=none", f"--user={ANY_USER_ID}", *HARDENED, tag, "--version")
    finally:
        podman("image", "rm", tag)

    assert printed == f"netprobe {agent.__version__}"


def test_it_is_small(image: str) -> None:
    """What it adds to the base is less than the base: packages and their compiled form, no tool that made them."""
    assert 0 < bytes_of(image) - bytes_of(BASE) < bytes_of(BASE) / 2


def run_python(image: str, script: str, interpreter: str = "/opt/netprobe/bin/python3") -> str:
    """What a script prints, run by the image's interpreter where nothing can be written."""
    return podman("run", "--rm", "--network=none", *HARDENED, f"--entrypoint={interpreter}", image, "-I", "-c", script)


# --- how it runs ----------------------------------------------------------------------------------------------------


def test_it_probes_within_the_limits_of_a_sidecar(image: str, network: Namespace, configuration: Path) -> None:
    """100m CPU, 64 MiB, a root nobody can write to, no capability: it starts, probes, answers and ends with 0."""
    with sidecar(image, network, configuration=configuration) as container:
        wait_for(container, network, "/startupz")
        wait_for(container, network, "/readyz")
        until(lambda: DIAGNOSED in ask(network, "/metrics").text, DIAGNOSED, 60)
        targets = {entry["name"]: entry for entry in json.loads(ask(network, "/targets").body)["targets"]}
        changed = podman("diff", container.name)
        stopped = container.terminate()
        state = container.inspect()["State"]

    assert targets["itself"]["last"]["success"], targets["itself"]
    assert not targets["nobody"]["last"]["success"]
    assert not state["OOMKilled"]
    assert stopped.code == 0, container
    assert [
        line for line in changed.splitlines() if not re.fullmatch(r"C /(etc|run)|A /(etc/netprobe|run/secrets)", line)
    ] == []


def test_it_ends_at_once(image: str, network: Namespace, configuration: Path) -> None:
    """With nothing to flush, SIGTERM to the end takes a fraction of what its start takes on the same CPU."""
    with sidecar(image, network, configuration=configuration, limits=Limits(memory_mib=64)) as container:
        wait_for(container, network, "/readyz")
        stopped = container.terminate()

    assert stopped.code == 0
    assert stopped.seconds < 2


def test_a_signal_during_the_start_ends_it(image: str, network: Namespace, configuration: Path) -> None:
    """As process 1, which a signal without a handler does not reach: starved, so that there is time to meet it."""
    with sidecar(image, network, configuration=configuration, limits=Limits(cpu=0.02, memory_mib=64)) as container:
        until(lambda: catches(container.pid, signal.SIGTERM), "SIGTERM to be caught")
        listened = answers(network, "/startupz")
        stopped = container.terminate()

    assert not listened
    assert stopped.code == 0


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_any_user_will_do(image: str, network: Namespace, configuration: Path) -> None:
    """It knows neither its user's name nor its home."""
    with sidecar(image, network, configuration=configuration, user=ANY_USER_ID) as container:
        wait_for(container, network, "/readyz")
        stopped = container.terminate()

    assert stopped.code == 0


def test_it_needs_no_configuration(image: str, network: Namespace) -> None:
    """As it is: nothing mounted, no argument."""
    with sidecar(image, network) as container:
        wait_for(container, network, "/startupz")
        stopped = container.terminate()

    assert stopped.code == 0, container


def test_its_commands_can_be_typed(image: str, network: Namespace, configuration: Path) -> None:
    """`kubectl exec my-pod -c netprobe -- netprobe …`: the memory of a sidecar has room for them beside the agent."""
    with sidecar(image, network, configuration=configuration, limits=Limits(memory_mib=128)) as container:
        wait_for(container, network, "/readyz")
        version = container.execute("netprobe", "--version")
        explained = container.execute("netprobe", "explain")
        checked = container.execute("netprobe", "check")
        shown = container.execute("netprobe", "config", "show")
        still_there = container.running

    assert LIMITS["memory"] == "128Mi"
    assert version.stdout.strip() == f"netprobe {agent.__version__}"
    assert "nothing_listening" in explained.stdout
    assert checked.returncode == 1
    assert "nothing_listening" in checked.stdout
    assert "http://127.0.0.1:9733/healthz" in shown.stdout
    assert still_there


def test_it_checks_once(image: str, network: Namespace) -> None:
    """`kubectl run … -- check URL`: a pod of its own that asks once and ends."""
    with sidecar(image, network, "check", "tcp://127.0.0.1:9", limits=Limits(memory_mib=64)) as container:
        code = container.wait()
        printed = container.log

    assert code == 1
    assert "connect/refused" in printed
    assert "nothing_listening" in printed
