"""`netprobe inject` as it is typed: what it reads, prints, writes and refuses."""

from __future__ import annotations

import io
import itertools
import json
import re
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.airflow.inject.sidecar import LIMITS, REQUESTS
from agent.cli import main
from agent.exit_codes import FINE, USAGE
from tests.inject.files import FILES, TEMPLATES, loaded
from tests.lab.command import COMMAND, REPOSITORY, environment

MINIMAL = (TEMPLATES / "minimal.yaml").read_bytes()


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes


def inject(*arguments: str | Path, data: bytes = b"") -> Done:
    """The command in this process, with bytes for its three streams."""
    stdin, stdout, stderr = (io.TextIOWrapper(io.BytesIO(start)) for start in (data, b"", b""))
    before, sys.stdin = sys.stdin, stdin
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            code = main(["inject", *map(str, arguments)])
    finally:
        sys.stdin = before
    for stream in (stdout, stderr):
        stream.flush()
    return Done(code, *(stream.buffer.getvalue() for stream in (stdout, stderr)))


def started(*arguments: str | Path, data: bytes = b"", prefix: Sequence[str] = ()) -> Done:
    """The command in a process of its own."""
    command = [*prefix, *COMMAND, "inject", *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True, check=False, env=environment())
    return Done(done.returncode, done.stdout, done.stderr)


def sidecar(data: bytes, *arguments: str) -> Any:
    """The container that a minimal pod gets."""
    done = inject(*arguments, data=data)
    assert (done.returncode, done.stderr) == (FINE, b"")
    spec = loaded(done.stdout)[0]["spec"]
    (found,) = [made for made in [*spec.get("initContainers", ()), *spec["containers"]] if made["name"] == "netprobe"]
    return found


# --- what comes in and what goes out ---------------------------------------------------------------------------------


def test_a_file_and_standard_input_are_read_alike(tmp_path: Path) -> None:
    """And what is printed are bytes: line ends stay."""
    data = (TEMPLATES / "windows.yaml").read_bytes()
    path = tmp_path / "pod.yaml"
    path.write_bytes(data)

    from_file, from_input, from_dash = started(path), started(data=data), started("-", data=data)

    assert from_file.returncode == FINE
    assert from_file.stdout == from_input.stdout == from_dash.stdout != data
    assert path.read_bytes() == data
    assert inject("--remove", data=from_file.stdout).stdout == data


def test_a_file_is_written_in_its_place(tmp_path: Path) -> None:
    """With the mode it had, through a link, and nothing else is left beside it."""
    path, link = tmp_path / "pod.yaml", tmp_path / "link.yaml"
    path.write_bytes(MINIMAL)
    path.chmod(0o640)
    link.symlink_to(path)

    done = inject("--in-place", link)

    assert (done.returncode, done.stdout, done.stderr) == (FINE, b"", b"")
    assert path.read_bytes() == inject(data=MINIMAL).stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, path]

    assert inject("--in-place", "--remove", path).returncode == FINE
    assert path.read_bytes() == MINIMAL


def test_a_file_that_needs_nothing_is_not_written(tmp_path: Path) -> None:
    """Its time and its inode stay: whoever watches it need not wake up."""
    path = tmp_path / "pod.yaml"
    path.write_bytes(inject(data=MINIMAL).stdout)
    before = path.stat()

    assert inject("--in-place", path).returncode == FINE
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_diff_makes_the_result(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever applies patches applies it."""
    monkeypatch.chdir(tmp_path)
    copy = Path(path.name)
    copy.write_bytes(path.read_bytes())
    done = inject("--diff", copy)

    assert done.returncode == FINE
    assert copy.read_bytes() == path.read_bytes()
    command = ["git", "apply", "-p0", "--whitespace=nowarn"]
    subprocess.run(command, input=done.stdout, capture_output=True, check=True)
    assert copy.read_bytes() == inject(path).stdout


def test_a_diff_of_nothing_is_empty() -> None:
    once = inject(data=MINIMAL).stdout

    assert inject("--diff", data=once).stdout == b""
    assert inject("--diff", "--remove", data=MINIMAL).stdout == b""


# --- what the sidecar is ---------------------------------------------------------------------------------------------


def test_the_sidecar_is_hardened_and_small() -> None:
    """What a namespace with the restricted policy asks for, and no more rights or resources than it needs."""
    made = sidecar(MINIMAL)

    assert made["restartPolicy"] == "Always"
    assert made["args"] == ["run", "--fail-open"]
    assert "command" not in made
    assert made["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert made["resources"] == {"requests": dict(REQUESTS), "limits": dict(LIMITS)}
    assert made["ports"] == [{"name": "netprobe", "containerPort": 9733}]
    assert made["startupProbe"]["httpGet"] == {"path": "/startupz", "port": "netprobe"}


def test_options_say_what_the_sidecar_is() -> None:
    made = sidecar(
        MINIMAL,
        *("--image", "registry.example.com/netprobe@sha256:0123", "--image-pull-policy", "Always"),
        *("--requests", "cpu=20m", "--limits", "cpu=0.5,memory=1Gi", "--config-map", "mine", "--no-startup-probe"),
    )

    assert made["image"] == "registry.example.com/netprobe@sha256:0123"
    assert made["imagePullPolicy"] == "Always"
    assert made["resources"] == {
        "requests": {"cpu": "20m", "memory": REQUESTS["memory"]},
        "limits": {"cpu": "0.5", "memory": "1Gi"},
    }
    assert "startupProbe" not in made
    assert b"configMap: {name: mine, optional: true}" in inject("--config-map", "mine", data=MINIMAL).stdout


def test_a_legacy_sidecar_cannot_take_the_pod_with_it() -> None:
    """It ends with the task, and no startup probe could have it killed: the pod would have failed, and the task."""
    made = sidecar(MINIMAL, "--mode", "legacy")

    assert made["args"] == ["run", "--fail-open", "--end-with-task"]
    assert not made.keys() & {"restartPolicy", "startupProbe", "livenessProbe"}
    spec = loaded(inject("--mode", "legacy", data=MINIMAL).stdout)[0]["spec"]
    assert [container["name"] for container in spec["containers"]] == ["base", "netprobe"]
    assert spec["shareProcessNamespace"] is True


def test_a_pod_that_outlives_its_tasks_keeps_its_sidecar() -> None:
    """Of Celery workers: in either mode it goes on until the pod ends."""
    data = (TEMPLATES / "celery.yaml").read_bytes()
    done = inject("--mode", "legacy", data=data)

    assert done.returncode == FINE
    worker, other, scheduler = loaded(done.stdout)
    for document in (worker, other):
        spec = document["spec"]["template"]["spec"]
        assert spec["containers"][-1]["args"] == ["run", "--fail-open"]
        assert "shareProcessNamespace" not in spec
    assert len(scheduler["spec"]["template"]["spec"]["containers"]) == 1


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("spec: {containers: [{name: base}]}\n", ["spec"]),
        ("kind: Pod\nspec: {containers: [{name: base}]}\n", ["spec"]),
        ("kind: PodTemplate\ntemplate:\n  spec:\n    containers:\n    - name: base\n", ["template", "spec"]),
        (
            "kind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n      - name: base\n",
            ["spec", "template", "spec"],
        ),
    ],
)
def test_what_is_a_pod_or_makes_pods(text: str, path: list[str]) -> None:
    """A file without a kind is a pod, as Airflow reads it."""
    done = inject("--position", "last", data=text.encode())
    (found,) = loaded(done.stdout)
    for key in path:
        found = found[key]

    assert [made["name"] for made in found["initContainers"]] == ["netprobe"]
    assert inject("--remove", data=done.stdout).stdout == text.encode()


# --- what it shares with the task's container ------------------------------------------------------------------------


def test_only_what_is_asked_for_is_shared() -> None:
    data = (TEMPLATES / "community-chart.yaml").read_bytes()
    plain = sidecar(data)
    shared = sidecar(data, "--share-env", "AIRFLOW_CONN_*", "--share-env", "DATABASE_PASSWORD", "--share-env-from")

    def more(made: Any) -> list[Any]:
        return [entry for entry in made["env"] if not entry["name"].startswith("NETPROBE_")]

    assert more(plain) == []
    assert "envFrom" not in plain
    assert more(shared) == [
        {
            "name": "DATABASE_PASSWORD",
            "valueFrom": {"secretKeyRef": {"name": "my-airflow-postgresql", "key": "postgresql-password"}},
        },
        {
            "name": "AIRFLOW_CONN_WAREHOUSE",
            "value": "postgresql://etl:$(WAREHOUSE_PASSWORD)@warehouse.example.com/dwh",
        },
    ]
    assert shared["envFrom"] == [{"secretRef": {"name": "my-airflow-config-envs"}}]


def test_its_own_variables_hold() -> None:
    """Whatever the task's container has by their names."""
    entry = b"      env: [{name: NETPROBE_CONFIG, value: /elsewhere}, {name: netprobe_config, value: a}]\n"
    made = sidecar(MINIMAL.replace(b"  restartPolicy", entry + b"  restartPolicy"), "--share-env", "*")
    names = [entry["name"] for entry in made["env"]]

    assert len(names) == len(set(names))
    assert {"name": "NETPROBE_CONFIG", "value": "/etc/netprobe"} in made["env"]
    assert {"name": "netprobe_config", "value": "a"} in made["env"]


# --- the official chart ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ([], ["workers", "kubernetes"]),
        (["--chart-version", "1.22.0"], ["workers", "kubernetes"]),
        (["--chart-version", "1.21"], ["workers", "kubernetes"]),
        (["--chart-version", "v1.20.0"], ["workers"]),
        (["--chart-version", "1.14-dev"], ["workers"]),
    ],
)
@pytest.mark.parametrize("data", [b"", b"# none\n", b"{}\n", b"executor: KubernetesExecutor\n", b"workers:\n"])
def test_values_of_the_chart_get_it_where_their_version_looks(
    data: bytes, arguments: list[str], path: list[str]
) -> None:
    done = inject("--format", "chart-values", *arguments, data=data)
    assert done.returncode == FINE, done.stderr
    (values,) = loaded(done.stdout)
    for key in path:
        values = values[key]

    assert [made["name"] for made in values["extraInitContainers"]] == ["netprobe"]
    assert [made["name"] for made in values["extraVolumes"]] == ["netprobe-config"]
    assert inject("--format", "chart-values", "--remove", data=done.stdout).stdout == data


def test_values_of_the_chart_lose_no_list() -> None:
    """The chart takes the lists of `workers.kubernetes` or else those of `workers`: none hides another."""
    data = b"workers:\n  extraVolumes: [{name: mine, emptyDir: {}}]\n  extraContainers: [{name: other}]\n"
    done = inject("--format", "chart-values", data=data)

    assert (done.returncode, done.stdout) == (USAGE, b"")
    (line,) = done.stderr.decode().splitlines()
    assert "expected workers.kubernetes.extraVolumes to hold what workers.extraVolumes holds, got nothing there" in line
    assert line.startswith("<stdin>:2:18: ")
    old = inject("--format", "chart-values", "--chart-version", "1.20", data=data)
    volumes = loaded(old.stdout)[0]["workers"]["extraVolumes"]
    assert [volume["name"] for volume in volumes] == ["mine", "netprobe-config"]
    moved = data + b"  kubernetes:\n    extraVolumes: [{name: mine, emptyDir: {}}]\n"
    assert inject("--format", "chart-values", data=moved).returncode == FINE


def test_values_of_the_chart_share_the_variables_they_give_to_workers() -> None:
    workers = b"workers: {env: [{name: A_2, value: y}], celery: {env: [{name: A_3, value: z}]}}\n"
    data = b"env: [{name: A_1, value: x}]\n" + workers
    done = inject("--format", "chart-values", "--share-env", "A_*", data=data)
    (made,) = loaded(done.stdout)[0]["workers"]["kubernetes"]["extraInitContainers"]

    assert [entry for entry in made["env"] if entry["name"].startswith("A_")] == [
        {"name": "A_1", "value": "x"},
        {"name": "A_2", "value": "y"},
    ]


# --- the hook --------------------------------------------------------------------------------------------------------


def test_the_snippet_is_what_a_pod_would_get() -> None:
    """The same container and volume, as JSON, and what the hook has to know besides."""
    done = inject("--format", "hook-snippet", "--share-env", "*_PROXY", "--position", "last")
    found = json.loads(done.stdout)
    made = sidecar(MINIMAL)
    made["env"] = [entry for entry in made["env"] if entry["name"] != "NETPROBE_INJECTED"]

    assert done.returncode == FINE
    assert found["container"] == made
    assert found["volumes"] == loaded(inject(data=MINIMAL).stdout)[0]["spec"]["volumes"]
    assert (found["mode"], found["position"], found["shareEnv"]) == ("native", "last", ["*_PROXY"])


# --- what is refused -------------------------------------------------------------------------------------------------

NOT_OURS = """\
kind: Pod
spec:
  containers:
    - name: base
    - name: netprobe
      image: somebody/else
  volumes:
    - {name: netprobe-config, emptyDir: {}}
"""

MISFIT = (
    "expected a sidecar to fit in without another change, got a form of YAML that does not allow it; anchors, aliases "
    "and merged keys (<<) around the lists of a pod may be why"
)
UNENDED = (
    "expected a sidecar to fit in without another change, got a form of YAML that does not allow it; a block of text "
    "(|) at the end of a file without a line end may be why"
)
RENDER = (
    "expected YAML, got a template with {{ }}: render it first, or inject into the values of the chart "
    "(--format chart-values)"
)
FOREIGN = "expected no container called netprobe but one that netprobe inject made, got one without NETPROBE_INJECTED"
ORPHAN = "expected no volume called netprobe-config without its container, got one"
BROKEN = (
    "expected YAML, got an error: expected <block end>, but found '<block mapping start>', "
    "while parsing a block mapping"
)
TAB = (
    "expected YAML, got an error: found character '\\t' that cannot start any token, while scanning for the next token"
)
NO_POD = "expected a Pod, or what makes pods, got"
HINT = "(--container NAME names another)"
CHART = "for values of Airflow's official chart, use --format chart-values"

REFUSALS = {
    "empty": ("", [":1:1: expected a Pod, or what makes pods, got nothing of that kind"]),
    "another kind": (
        "kind: ConfigMap\ndata: {}\n---\nkind: Service\n",
        [":1:1: expected a Pod, or what makes pods, got ConfigMap, Service"],
    ),
    "values": (
        "executor: KubernetesExecutor\n",
        [f":1:1: {NO_POD} nothing of that kind; {CHART}"],
    ),
    "no spec": ("kind: Pod\n", [":1:1: expected spec of a Pod to be a mapping that is written here, got none"]),
    "no containers": (
        "kind: Pod\nspec:\n  volumes: []\n",
        [":3:3: expected a list of containers in the Pod, got none"],
    ),
    "no base": (
        "kind: Pod\nspec:\n  containers:\n    - name: main\n    - name: side\n",
        [":4:5: expected a container called base in the Pod, got main, side (--container NAME names another)"],
    ),
    "base second": (
        "kind: Pod\nspec:\n  containers:\n    - name: side\n    - name: base\n",
        [":4:5: expected base to be the first container, as Airflow wants it, got side, base"],
    ),
    "of the node": (
        "kind: Pod\nspec:\n  hostNetwork: true\n  containers: [{name: base}]\n",
        [":3:16: expected a Pod with a network of its own, got hostNetwork: port 9733 is the node's"],
    ),
    "windows": (
        "kind: Pod\nspec:\n  containers: [{name: base}]\n  os: {name: windows}\n",
        [":4:7: expected a Pod for linux, got one for windows"],
    ),
    "windows nodes": (
        "kind: Pod\nspec: {containers: [{name: base}], nodeSelector: {kubernetes.io/os: windows}}\n",
        [":2:50: expected a Pod for linux, got one for windows"],
    ),
    "no worker": (
        "kind: Deployment\nspec: {template: {spec: {containers: [{name: web}]}}}\n",
        [f":2:38: expected a container called worker or airflow-worker or base in the Deployment, got web {HINT}"],
    ),
    "not ours": (
        NOT_OURS,
        [
            f":5:7: {FOREIGN}",
            f":8:7: {ORPHAN}",
        ],
    ),
    "all at once": (
        f"{NOT_OURS}---\nkind: Pod\nspec:\n  containers: [{{name: x}}]\n",
        [
            f":5:7: {FOREIGN}",
            f":8:7: {ORPHAN}",
            ":12:15: expected a container called base in the Pod, got x (--container NAME names another)",
        ],
    ),
    "broken": (
        "kind: Pod\nspec:\n  containers:\n  - name: base\n   image: x\n",
        [f":5:4: {BROKEN}"],
    ),
    "tab": (
        "kind: Pod\nspec:\n\tcontainers: []\n",
        [f":3:1: {TAB}"],
    ),
    "template": (
        "kind: Pod\nspec:\n  {{- if .Values.x }}\n  containers: []\n  {{- end }}\n",
        [f":3:3: {RENDER}"],
    ),
    "template in a value": (
        "kind: Pod\nspec:\n  containers:\n    - name: base\n      image: {{ .Values.image }}\n",
        [f":5:14: {RENDER}"],
    ),
    "alias": (
        "x: &x []\nkind: Pod\nspec:\n  initContainers: *x\n  containers: [{name: base}]\n",
        [":4:19: expected initContainers to be written here, got an alias or an anchor"],
    ),
    "broken elsewhere": (
        "kind: Pod\nspec:\n  x: '{{ ds }}'\n  containers:\n  - name: base\n   image: x\n",
        [f":6:4: {BROKEN}"],
    ),
    "inside itself": (
        "kind: Pod\nspec: &x\n  more: *x\n  containers: [{name: base}]\n",
        [":3:9: expected an anchor above, got the alias *x without one, or inside it"],
    ),
    "unfolding": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{n}: &{n} [{', '.join([f'*{b}'] * 10)}]\n" for b, n in itertools.pairwise("abcdef"))
        + "kind: Pod\nspec: {containers: [{name: base}]}\n",
        [":1:1: expected at most 200000 values with aliases unfolded, got more"],
    ),
    "block of text at the end": (
        "kind: Pod\nspec:\n  containers:\n    - name: base\n      command:\n        - |\n          exec airflow",
        [f":1:1: {UNENDED}"],
    ),
    "anchor": (
        "kind: Pod\nspec:\n  containers: &all\n    - name: base\n  initContainers: &x [{name: a}]\nmore: *x\n",
        [f":1:1: {MISFIT}"],
    ),
    "merged": (
        "x: &x {initContainers: [{name: a}]}\nkind: Pod\nspec:\n  <<: *x\n  containers: [{name: base}]\n",
        [f":1:1: {MISFIT}"],
    ),
    "twice": (
        "kind: Pod\nspec:\n  containers: [{name: base}]\n  volumes: []\n  volumes: []\n",
        [":3:3: expected the key volumes once, got it again"],
    ),
    "no list": (
        "kind: Pod\nspec:\n  containers: [{name: base}]\n  volumes: {a: 1}\n  initContainers: none\n",
        [
            ":4:12: expected volumes to be a list, got something else",
            ":5:19: expected initContainers to be a list, got something else",
        ],
    ),
    "control": ("kind: Pod\nx: \x07\n", [":2:4: expected YAML, got the character '\\x07'"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_used_is_said_where_it_stands(name: str, tmp_path: Path) -> None:
    """One line a problem, nothing on standard output, no traceback, and the file as it was."""
    text, expected = REFUSALS[name]
    path = tmp_path / "pod.yaml"
    path.write_text(text)

    done = inject("--in-place", path)

    assert done.stderr.decode().splitlines() == [f"{path}{line}" for line in expected]
    assert (done.returncode, done.stdout) == (USAGE, b"")
    assert path.read_text() == text


ENDLESS = (
    "expected NETPROBE_QUIT_WITH_TASK in the env of the task's container, so that Airflow's listener ends the sidecar, "
    "got none"
)
APART = "expected shareProcessNamespace to be true or left out, got false (--no-share-process-namespace does without)"
MISSING = "expected a file that can be read, got an error: No such file or directory"


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        (["--format", "chart-values"], MINIMAL, "<stdin>:1:1: expected the values of a chart, got a Pod"),
        (["--format", "chart-values"], b"- a\n", "<stdin>:1:1: expected the values of a chart, got no mapping"),
        (
            ["--format", "chart-values"],
            b"a: 1\n---\nb: 1\n",
            "<stdin>:3:1: expected the values of a chart, got a second document",
        ),
        ([], b"kind: Pod\nx: \xff\n", "<stdin>:2:4: expected UTF-8 text, got the byte 0xff"),
        (["--mode", "legacy", "--no-share-process-namespace"], MINIMAL, f"<stdin>:7:5: {ENDLESS}"),
        (
            ["--mode", "legacy"],
            MINIMAL.replace(b"  restart", b"  shareProcessNamespace: false\n  restart"),
            f"<stdin>:9:26: {APART}",
        ),
        (["/nowhere/pod.yaml"], b"", f"/nowhere/pod.yaml: {MISSING}"),
        (
            ["--container", "main"],
            MINIMAL,
            f"<stdin>:7:5: expected a container called main in the Pod, got base {HINT}",
        ),
    ],
)
def test_options_and_files_have_to_fit(arguments: list[str], data: bytes, message: str) -> None:
    done = inject(*arguments, data=data)

    assert (done.returncode, done.stdout, done.stderr.decode()) == (USAGE, b"", f"{message}\n")


def test_options_that_contradict_each_other_are_said_at_once() -> None:
    done = inject("--in-place", "--diff", "--chart-version", "new", "--requests", "cpu=many,gpu=1", "--image", "a b")

    assert done.returncode == USAGE
    assert done.stderr.decode().splitlines() == [
        "netprobe inject: --in-place does not go with --diff",
        "netprobe inject: --in-place needs a FILE",
        "netprobe inject: --chart-version goes with --format chart-values",
        "netprobe inject: expected --image such as registry.example.com/netprobe:1.0, got 'a b'",
        "netprobe inject: expected --requests such as cpu=10m,memory=64Mi, got 'cpu=many'",
        "netprobe inject: expected --requests such as cpu=10m,memory=64Mi, got 'gpu=1'",
    ]


def test_options_that_do_not_go_with_a_chart_are_said_at_once() -> None:
    done = inject("--format", "chart-values", "--container", "a", "--share-env-from", "--chart-version", "1.13.1")

    assert done.returncode == USAGE
    assert done.stderr.decode().splitlines() == [
        "netprobe inject: --share-env-from needs a pod: the values of the chart hold envFrom as text",
        "netprobe inject: --container does not go with --format chart-values",
        "netprobe inject: a chart before 1.14 takes no native sidecar: use pod_mutation_hook (--format hook-snippet)",
    ]
    done = inject("--format", "chart-values", "--mode", "legacy", "--chart-version", "new")
    no_value = "the chart has no value for shareProcessNamespace: --mode legacy needs --no-share-process-namespace"
    assert done.stderr.decode().splitlines() == [
        f"netprobe inject: {no_value}",
        "netprobe inject: expected --chart-version such as 1.20, got 'new'",
    ]


def test_more_is_not_asked_for_than_may_be_used() -> None:
    """An API server would refuse the pod."""
    done = inject("--requests", "cpu=1,memory=1Gi", "--limits", "cpu=1000m,memory=1G", data=MINIMAL)

    assert (done.returncode, done.stdout) == (USAGE, b"")
    message = "expected --limits memory to be at least what is asked for (1Gi), got 1G"
    assert done.stderr.decode() == f"netprobe inject: {message}\n"


def test_a_secret_in_the_file_is_in_no_message() -> None:
    """Whatever is wrong with it."""
    text = "kind: Pod\nspec:\n  containers:\n  - name: base\n    env: [{name: A, value: hunter2}\n"
    done = inject(data=text.encode())

    assert done.returncode == USAGE
    assert b"hunter2" not in done.stderr


def test_another_name_of_the_container_of_the_task() -> None:
    """KubernetesPodOperator lets it be chosen; then it need not be the first."""
    text = "kind: Pod\nspec:\n  containers:\n    - name: side\n    - name: main\n      env: [{name: A, value: b}]\n"
    made = sidecar(text.encode(), "--container", "main", "--share-env", "A")

    assert made["env"][-1] == {"name": "A", "value": "b"}


def test_nobody_is_contacted() -> None:
    """Without a network there is nothing that it misses."""
    done = started(data=MINIMAL, prefix=["unshare", "--net", "--"])

    assert done.returncode == FINE, done.stderr
    assert done == inject(data=MINIMAL)


# --- what is written about it ----------------------------------------------------------------------------------------


def test_the_document_knows_every_option() -> None:
    """And none that there is not."""
    text = (REPOSITORY / "docs" / "inject.md").read_text("utf-8")
    listed = started("--help").stdout.decode()
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", listed)) - {"--help"}
    others = {"--fail-open", "--from-file", "--end-with-task"}

    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - others == options


def test_what_the_sidecar_asks_for_is_told() -> None:
    """The same in the document, in the help and in the container."""
    text = (REPOSITORY / "docs" / "inject.md").read_text("utf-8")
    listed = started("--help").stdout.decode()

    asked, most = (
        " and ".join((f"{each['cpu']} of CPU", f"{each['memory']} of memory")) for each in (REQUESTS, LIMITS)
    )
    assert f"{asked} asked for, {most} at most" in text
    for option, each in (("--requests", REQUESTS), ("--limits", LIMITS)):
        assert f"{option} cpu={each['cpu']},memory={each['memory']}" in listed
