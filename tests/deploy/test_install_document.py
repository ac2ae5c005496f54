"""docs/install.md: what it says to type can be typed, and the files it shows are files that are taken."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, ROOT, check, containers, injected
from tests.lab.command import COMMAND, environment

TEXT = (ROOT / "docs" / "install.md").read_text("utf-8")
DIGEST = "sha256:" + "0123456789abcdef" * 4
NOBODY = "http://127.0.0.1:1"
"""Where no API server answers."""


BLOCK = re.compile(r"^ {4}\S.*\n(?: {4,}.*\n)*", re.MULTILINE)
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def commands() -> Iterator[str]:
    """The lines that are to be typed: blocks that are indented, and what stands whole in tables."""
    for block in BLOCK.findall(FENCE.sub("", TEXT)):
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines())
    for row in re.findall(r"^\|.*\|$", TEXT, re.MULTILINE):
        yield from re.findall(r"`(netprobe [^`]*\.yaml|kubectl [^`]*)`", row)


def split(line: str) -> list[str]:
    return shlex.split(line.replace("sha256:…", DIGEST).replace("POD ", "etl-load "))


TYPED = [split(line) for line in dict.fromkeys(commands())]
OURS = [words for words in TYPED if words[0] == "netprobe"]
KUBECTL = [words for words in TYPED if words[0] == "kubectl"]
IN_CONTAINERS = [words[words.index("--") + 1 :] for words in KUBECTL if "--" in words]
ADDRESSES = [words[:2] for words in TYPED if words[0] == "grep"]
IN_PODS = [words for words in IN_CONTAINERS if words[0] == "netprobe"]


def netprobe(*words: str, directory: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        cwd=directory,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )


def by_line(typed: list[list[str]]) -> list[object]:
    return [pytest.param(words, id=" ".join(words)) for words in typed]


def test_every_command_is_known() -> None:
    """None of them is left out below because it was not recognised."""
    others = [words for words in TYPED if words[0] not in {"netprobe", "kubectl"}]

    assert [words[:2] for words in others] == [
        ["podman", "build"],
        ["podman", "push"],
        ["COPY", "netprobe_listener.py"],
        ["netprobe_diagnosis{cause!=healthy}", "=="],
        ["airflow", "pools"],
        *ADDRESSES,
        ["make", "docs"],
    ]
    assert len(OURS) >= 8
    assert {words[1] for words in IN_PODS} == {"discover", "explain"}


def test_no_address_is_left_to_be_changed(tmp_path: Path) -> None:
    """Where people are led is theirs, once they have typed this; and nothing else has changed."""
    folders = ("deploy/prometheus/rules", "grafana/dashboards")
    for folder in folders:
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (line,) = (line for line in commands() if line.startswith("grep "))
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)

    for folder in folders:
        for file in (ROOT / folder).iterdir():
            before, after = file.read_text("utf-8"), (tmp_path / folder / file.name).read_text("utf-8")
            assert "example.com" not in after
            assert after == before.replace("grafana.example.com", "grafana.your.domain").replace(
                "runbooks.example.com", "your.domain"
            )


WORKER = """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: airflow-worker}
spec:
  serviceName: airflow-worker
  selector: {matchLabels: {component: worker}}
  template:
    metadata: {labels: {component: worker}}
    spec:
      containers:
        - name: worker
          image: apache/airflow:3.3.2
          args: [celery, worker]
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Where they are typed: the files they name are there."""
    plain = injected((DEPLOY / "pod-templates/airflow-3.yaml").read_text("utf-8"), "--remove")
    values = injected((DEPLOY / "chart/values.yaml").read_text("utf-8"), "--remove", "--format", "chart-values")
    (tmp_path / "pod_template_file.yaml").write_text(plain, "utf-8")
    (tmp_path / "my-values.yaml").write_text(values, "utf-8")
    (tmp_path / "worker.yaml").write_text(WORKER, "utf-8")
    (tmp_path / "netprobe.yaml").write_text("discover: [airflow, kubernetes]\n")
    (tmp_path / "remote-write-password").write_text("secret")
    (tmp_path / "sidecar.json").write_text("")
    for folder in ("deploy", "grafana"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    return tmp_path


@pytest.mark.parametrize("words", by_line(OURS))
def test_a_command_of_ours_does_something(desk: Path, words: list[str]) -> None:
    """It succeeds, and what is to change a file changes it."""
    file = desk / words[-1]
    command = words[1 : words.index(">")] if ">" in words else words[1:]
    before = file.read_text("utf-8")
    if "--remove" in command:
        netprobe(*(word for word in command if word != "--remove"), directory=desk)
        assert "name: netprobe\n" in file.read_text("utf-8")
    done = netprobe(*command, directory=desk)
    if ">" in words:
        file.write_text(done.stdout)
    after = file.read_text("utf-8")

    assert done.returncode == 0, done.stderr
    if "--remove" in command or "--diff" in command or command[0] != "inject":
        assert after == before
    else:
        (made,) = yaml.safe_load_all(after)
        assert "netprobe" in re.findall(r"'name': '(\w+)'", str(made))
    if "--diff" in command:
        assert "+    - name: netprobe\n" in done.stdout
    if "--image" in command:
        assert f"netprobe@{DIGEST}" in after + done.stdout


@pytest.mark.parametrize("words", by_line(IN_PODS))
def test_a_command_in_a_pod_exists(words: list[str]) -> None:
    done = netprobe(*words[1:], "--help")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", by_line(KUBECTL))
def test_kubectl_understands(desk: Path, words: list[str]) -> None:
    """What can be done without a cluster is done; the others get as far as asking for one."""
    if "--kustomize" in words:
        words = ["kubectl", "kustomize", words[-1]]
    elif words[3] == "create":
        end = words.index("--dry-run=client") if "--dry-run=client" in words else len(words)
        words = [*words[:end], "--dry-run=client", "--output=yaml"]
    else:
        words = [words[0], f"--server={NOBODY}", *words[1:]]
    done = subprocess.run(words, cwd=desk, env=environment(), capture_output=True, text=True, check=False)

    if words[1].startswith("--server"):
        assert f"{NOBODY.removeprefix('http://')} was refused" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert all(yaml.safe_load_all(done.stdout))


def test_the_kill_switch_switches_off(desk: Path) -> None:
    """The ConfigMap it makes is a configuration without a target, whatever the environment names."""
    (words,) = [words for words in KUBECTL if "--from-literal" in words]
    name, _, text = words[words.index("--from-literal") + 1].partition("=")
    (desk / name).write_text(text)
    shown = {"AIRFLOW_CONN_WAREHOUSE": "postgresql://192.0.2.1/app", "KUBERNETES_SERVICE_HOST": "192.0.2.1"}
    done = netprobe("discover", "--config", name, "--output", "json", directory=desk, **shown)

    assert done.returncode == 0, done.stderr
    document = yaml.safe_load(done.stdout)
    assert document["targets"] == []
    assert document["skipped"]


# --- files it shows --------------------------------------------------------------------------------------------------

FENCED = FENCE.findall(TEXT)


def test_the_configuration_it_shows_is_one(tmp_path: Path) -> None:
    (text,) = [text for language, text in FENCED if language == "yaml" and "discover" in text]
    (tmp_path / "netprobe.yaml").write_text(text)
    done = netprobe("config", "validate", "--config", str(tmp_path))

    assert done.returncode == 0, done.stderr


def test_the_volume_it_shows_is_that_of_the_templates() -> None:
    (text,) = [text for language, text in FENCED if language == "yaml" and "volumeMounts" in text]
    shown = yaml.safe_load(text)["spec"]
    template = yaml.safe_load((DEPLOY / "pod-templates/airflow-3.yaml").read_text("utf-8"))
    (base,) = shown["containers"]
    (volume,) = shown["volumes"]

    assert base["volumeMounts"][0] in template["spec"]["containers"][0]["volumeMounts"]
    assert volume in template["spec"]["volumes"]


def test_the_arguments_it_shows_are_python() -> None:
    (text,) = [text for language, text in FENCED if language == "python"]
    shown: dict[str, object] = {}
    exec(text, {}, shown)

    assert isinstance(shown["default_args"], tuple | dict)


def test_the_figures_are_those_of_the_metrics() -> None:
    """As near as "about" goes."""
    document = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    own = int(re.findall(r"The agent itself adds (\d+) series", document)[0])
    target, low = map(int, re.findall(r"at most \*\*(\d+)\*\*", document)[:2])
    thousand = re.findall(r"are about (\d+) 000, or (\d+) 000", TEXT)[0]
    said = [int(figure) for figure in (*thousand, *re.findall(r"about (\d+) series of each pod", TEXT))]

    assert said == pytest.approx([own + 10 * target, own + 10 * low, own], rel=0.2)


def test_pods_of_the_templates_ask_for_what_it_says() -> None:
    (said,) = re.findall(r"asks for (\d+m) of CPU and (\d+Mi) of memory", TEXT)
    pod = yaml.safe_load((DEPLOY / "pod-templates/airflow-3.yaml").read_text("utf-8"))
    check(pod)
    (sidecar,) = [container for container in containers(pod) if container["name"] == "netprobe"]

    assert tuple(sidecar["resources"]["requests"].values()) == said
