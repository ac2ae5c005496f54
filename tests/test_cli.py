"""The command line: what each command prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

import agent
from agent.cli import CONFIG_VARIABLE, main
from agent.exit_codes import A_TARGET_FAILED, FINE, NOT_STARTED, USAGE

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)


@pytest.fixture
def port() -> Iterator[int]:
    """A port of loopback that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of loopback that refuses connections: bound, so that nobody else takes it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def configured(directory: Path, port: int, **sections: object) -> Path:
    path = directory / "netprobe.yaml"
    target = {"name": "server", "type": "tcp", "address": f"127.0.0.1:{port}", "interval": "1s", "timeout": "1s"}
    path.write_text(yaml.safe_dump({"targets": [target], **sections}), encoding="utf-8")
    return path


def netprobe(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == USAGE
    return capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, on standard output."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert caught.value.code == FINE
    assert capsys.readouterr().out == f"netprobe {agent.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["probe"],
        ["config"],
        ["config", "edit"],
        ["run", "--listen", "nowhere:port"],
        ["run", "--unknown"],
        ["check", "--output", "xml", "tcp://127.0.0.1:1"],
        ["demo", "--duration", "60"],
        ["explain", "--url", "gopher://localhost"],
        ["explain", "--output", "xml"],
        ["explain", "--config", "netprobe.yaml"],
    ],
)
def test_bad_usage_is_answered_with_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and what would have been right."""
    error = usage_error(capsys, *arguments)

    assert error.startswith("usage: netprobe")
    assert "error: " in error


@pytest.mark.parametrize("command", ["run", "check", "config validate", "config show"])
def test_a_command_without_a_configuration_says_how_to_name_one(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no default path: a sidecar that probes what nobody configured is worse than one that does not start."""
    error = usage_error(capsys, *command.split())

    assert error.endswith("error: expected --config PATH or NETPROBE_CONFIG, got neither\n")


def test_the_environment_names_the_configuration(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So the image's command needs no argument; an argument wins."""
    path = configured(tmp_path, port)
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    assert main(["config", "validate"]) == FINE
    assert capsys.readouterr().out == f"{path}: 1 target\n"

    assert main(["config", "validate", "--config", str(ROOT / "config" / "minimal.yaml")]) == FINE
    assert capsys.readouterr().out == f"{ROOT / 'config' / 'minimal.yaml'}: 1 target\n"


def test_validate_counts_the_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever forgot a file of a directory sees it."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"targets: [{{name: {name}, type: tcp, address: 'x:1'}}]\n")

    assert main(["config", "validate", "--config", str(tmp_path)]) == FINE
    assert capsys.readouterr().out == f"{tmp_path}: 2 targets\n"


HARDCODED = """\
targets:
  - {name: by-name, type: tcp, address: "internal-database:5432"}
  - {name: database, type: postgres, dsn: "postgresql://probe@10.1.2.3/app"}
  - {name: site, type: http, url: "https://[fd00::7]:8443/"}
  - {name: broker, type: tcp, address: "172.16.0.9:6379"}
  - {name: on-the-node, type: tcp, address: "169.254.20.10:53"}
  - {name: here, type: tcp, address: "127.0.0.1:1"}
  - {name: public, type: tcp, address: "203.0.113.7:443"}
  - {name: nameserver, type: dns, query: kubernetes.default, server: 10.96.0.10}
  - {name: api, type: tcp, address: "10.96.0.1:443", role: kubernetes_api}
  - {name: forbidden, type: tcp, address: "10.1.2.4:5432", negative: true}
"""


def test_validate_warns_of_private_addresses_written_as_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They work today and move tomorrow. That is no mistake of the configuration: it is valid."""
    path = tmp_path / "netprobe.yaml"
    path.write_text(HARDCODED)

    assert main(["config", "validate", "--config", str(path)]) == FINE

    seen = capsys.readouterr()
    assert seen.out == f"{path}: 10 targets\n"
    warned = {"database": "10.1.2.3", "site": "fd00::7", "broker": "172.16.0.9"}
    lines = seen.err.splitlines()
    assert len(lines) == len(warned)
    for line, (name, ip) in zip(lines, warned.items(), strict=True):
        assert line.startswith(
            f"{path}: warning: target {name}: expected the name of a Service, got the private address {ip}: "
        )
        assert line.endswith("docs/runbook.md#hardcoded_address")


def test_show_prints_yaml_with_every_default(tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is a configuration that means the same."""
    assert main(["config", "show", "--config", str(configured(tmp_path, port))]) == FINE

    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["server"] == {"listen": "[::]:9733"}
    assert shown["targets"][0]["confirm_interval"] == "1s"


def test_schema_needs_no_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """It is for editors, and says nothing about this pod."""
    assert main(["config", "schema"]) == FINE

    jsonschema_rs.meta.validate(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("command", ["run", "check", "config validate", "config show"])
def test_a_missing_file_is_a_problem_of_the_configuration(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, in the form of every other problem."""
    assert main([*command.split(), "--config", "/nowhere/netprobe.yaml"]) == USAGE
    assert capsys.readouterr().err == (
        "/nowhere/netprobe.yaml:1:1: expected a readable file, got an error: No such file or directory\n"
    )


def test_check_succeeds_where_every_target_is_well(tmp_path: Path, port: int) -> None:
    """Exit code 0, and JSON a program can read."""
    done = netprobe("check", "--config", str(configured(tmp_path, port)), "--output", "json")

    assert (done.returncode, done.stderr) == (FINE, "")
    [outcome] = json.loads(done.stdout)["outcomes"]
    assert (outcome["target"], outcome["success"]) == ("server", True)


def test_check_fails_where_one_target_does(tmp_path: Path, port: int, closed_port: int) -> None:
    """Exit code 1; targets of the configuration and of the command line are probed together."""
    done = netprobe(
        "check", "--config", str(configured(tmp_path, port)), "--output", "json", f"tcp://127.0.0.1:{closed_port}"
    )

    assert done.returncode == A_TARGET_FAILED
    outcomes = {outcome["target"]: outcome for outcome in json.loads(done.stdout)["outcomes"]}
    assert outcomes["server"]["success"] is True
    assert outcomes[f"tcp://127.0.0.1:{closed_port}"]["reason"] == "refused"


def test_check_of_a_url_leaves_the_pods_configuration_alone(tmp_path: Path, port: int, closed_port: int) -> None:
    """Who types a URL asks about that URL."""
    path = configured(tmp_path, closed_port)

    done = netprobe("check", f"tcp://127.0.0.1:{port}", "--output", "json", NETPROBE_CONFIG=str(path))

    assert done.returncode == FINE
    assert [outcome["target"] for outcome in json.loads(done.stdout)["outcomes"]] == [f"tcp://127.0.0.1:{port}"]


def test_check_refuses_a_url_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 before anything is probed, and no password on the terminal."""
    assert main(["check", "ftp://me:hunter2@127.0.0.1/"]) == USAGE

    error = capsys.readouterr().err
    assert error.startswith("ftp://me:***@127.0.0.1/: expected a URL that begins with one of ")
    assert "hunter2" not in error


def test_run_could_not_start_where_the_port_is_taken(tmp_path: Path, port: int) -> None:
    """Exit code 3, one sentence, no traceback."""
    done = netprobe("run", "--config", str(configured(tmp_path, port)), "--listen", f"127.0.0.1:{port}")

    assert done.returncode == NOT_STARTED
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_listens_where_it_is_told_and_ends_on_sigterm(tmp_path: Path, port: int, closed_port: int) -> None:
    """`--listen` wins over the file; SIGTERM is how a sidecar ends: exit code 0."""
    path = configured(tmp_path, port, server={"listen": f"127.0.0.1:{port}"}, log={"format": "json"})
    with subprocess.Popen(
        [sys.executable, "-m", "agent", "run", "--config", str(path), "--listen", "127.0.0.1:0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        started = next(json.loads(line) for line in process.stdout if "agent_started" in line)
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        code = process.wait(timeout=deadline - time.monotonic())

    assert started["url"].startswith("http://127.0.0.1:")
    assert not started["url"].endswith(f":{port}")
    assert code == FINE


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_run_needs_no_standard_streams(tmp_path: Path, closed: str) -> None:
    """Whoever starts a sidecar may give it none of them: it probes all the same, and ends with 0."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60.0)
        path = configured(tmp_path, server.getsockname()[1])
        script = f'exec "$0" -m agent run --config "$1" --listen 127.0.0.1:0 {closed}'
        with subprocess.Popen(["/bin/bash", "-c", script, sys.executable, str(path)], cwd=ROOT) as process:
            try:
                server.accept()[0].close()
            finally:
                process.send_signal(signal.SIGTERM)
                code = process.wait(timeout=60)

    assert code == FINE


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_check_needs_no_standard_streams(port: int, closed: str) -> None:
    """The exit code is the answer that is left."""
    script = f'exec "$0" -m agent check "$1" {closed}'
    done = subprocess.run(
        ["/bin/bash", "-c", script, sys.executable, f"tcp://127.0.0.1:{port}"], cwd=ROOT, check=False, timeout=60
    )

    assert done.returncode == FINE


def test_run_ends_on_a_sigterm_that_comes_before_it_has_started(tmp_path: Path) -> None:
    """Exit code 0 also while the configuration is read: process 1 of a container would miss the signal otherwise."""
    path = tmp_path / "netprobe.yaml"
    os.mkfifo(path)
    command = [sys.executable, "-m", "agent", "run", "--config", str(path)]
    # Opening the pipe waits until the command reads from it.
    with subprocess.Popen(command, cwd=ROOT) as process, path.open("w"):
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=30)

    assert code == FINE


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`netprobe config schema | head -1` prints one line and nothing else."""
    done = subprocess.run(
        ["/bin/bash", "-c", 'set -o pipefail; "$0" -m agent config schema | head -c 1', sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.stdout, done.stderr, done.returncode) == ("{", "", FINE)


def test_a_full_disk_is_one_line() -> None:
    """Exit code 3, one sentence, no traceback."""
    done = subprocess.run(
        ["/bin/bash", "-c", '"$0" -m agent config schema > /dev/full', sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == NOT_STARTED
    assert done.stderr == "netprobe: expected to write to standard output, got an error: No space left on device\n"


def test_a_defect_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong inside, there is no traceback, but there is a place to look. Here a module is missing."""
    monkeypatch.setitem(sys.modules, "agent.app", None)

    assert main(["run", "--config", str(configured(tmp_path, 1))]) == NOT_STARTED
    error = capsys.readouterr().err
    assert error.startswith("netprobe: internal error: ModuleNotFoundError: ")
    assert error.endswith(")\n")
    assert error.count("\n") == 1


def test_version_and_validation_load_neither_server_nor_table() -> None:
    """What a command does not need, it does not pay for."""
    script = "import sys; from agent.cli import main; main(['config', 'schema']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    for module in ("'rich'", "'agent.app'", "'agent.server'", "'agent.check'", "'agent.demo'"):
        assert module not in done.stdout.splitlines()[-1]
