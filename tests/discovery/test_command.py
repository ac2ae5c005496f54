"""`netprobe discover`: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from agent.exit_codes import A_TARGET_FAILED, FINE, USAGE
from tests.discovery.finding import CLUSTER, resolv_conf
from tests.lab.command import environment, netprobe
from tests.lab.misbehaving import refusing_port

DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
ENVIRONMENT = {
    **CLUSTER,
    DATABASE: "postgresql://airflow:secret@db.airflow:5432/airflow",
    "AIRFLOW_CONN_ORDERS_API": "http://user:secret@api.example.com/https",
    "AIRFLOW_CONN_AWS_DEFAULT": "aws://key:secret@",
}


def configuration(directory: Path, text: str) -> str:
    path = directory / "netprobe.yaml"
    path.write_text(f"{text}\ndefaults: {{resolv_conf: {resolv_conf(directory)}}}\n", encoding="utf-8")
    return str(path)


async def test_a_table_says_what_would_be_probed_and_what_not(tmp_path: Path) -> None:
    """Whoever installs the sidecar looks here first."""
    config = configuration(tmp_path, "discover: {sources: [airflow, kubernetes], metadata_db: negative}")

    done = await netprobe("discover", "--config", config, env=ENVIRONMENT)

    assert done.lines == [
        "name             type  address                        role            scope    source",
        f"nameservers      dns   kubernetes.default.svc A @pod  nameserver      cluster  {tmp_path / 'resolv.conf'}",
        "kubernetes-api   tcp   10.96.0.1:443                  kubernetes_api  cluster  KUBERNETES_SERVICE_HOST",
        f"metadata-db      tcp   not db.airflow:5432            metadata_db     cluster  {DATABASE}",
        "conn-orders-api  http  https://api.example.com/       connection      public   AIRFLOW_CONN_ORDERS_API",
        "",
        "Not probed:",
        "  AIRFLOW_CONN_AWS_DEFAULT  it has no endpoint_url; which of AWS's services it is for is not named",
    ]
    assert (done.stderr, done.code) == ("", FINE)


async def test_json_says_the_same(tmp_path: Path) -> None:
    """Its keys are a contract."""
    config = configuration(tmp_path, "discover: airflow")

    done = await netprobe("discover", "--config", config, "--output", "json", env=ENVIRONMENT)

    document = json.loads(done.stdout)
    assert document == {
        "version": 1,
        "targets": [
            {
                "name": "metadata-db",
                "type": "postgres",
                "address": "db.airflow:5432/airflow",
                "role": "metadata_db",
                "scope": "cluster",
                "negative": False,
                "source": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
            },
            {
                "name": "conn-orders-api",
                "type": "http",
                "address": "https://api.example.com/",
                "role": "connection",
                "scope": "public",
                "negative": False,
                "source": "AIRFLOW_CONN_ORDERS_API",
            },
        ],
        "skipped": [
            {
                "source": "AIRFLOW_CONN_AWS_DEFAULT",
                "why": "it has no endpoint_url; which of AWS's services it is for is not named",
            }
        ],
    }
    assert (done.stderr, done.code) == ("", FINE)


async def test_no_configuration_is_needed() -> None:
    """Everything is looked for then."""
    done = await netprobe("discover", env={"AIRFLOW_CONN_DB": "redis://db"})

    assert done.lines[1].split() == ["conn-db", "tcp", "db:6379", "connection", "cluster", "AIRFLOW_CONN_DB"]
    assert "KUBERNETES_SERVICE_HOST" in done.stdout
    assert (done.stderr, done.code) == ("", FINE)


async def test_a_volume_without_a_configuration_is_none(tmp_path: Path) -> None:
    """The ConfigMap of the sidecar is optional, and `run --fail-open` takes this for no configuration as well."""
    for place in (tmp_path, tmp_path / "missing"):
        done = await netprobe("discover", env={"NETPROBE_CONFIG": str(place), "AIRFLOW_CONN_DB": "redis://db"})

        assert done.lines[1].split()[:3] == ["conn-db", "tcp", "db:6379"]
        assert (done.stderr, done.code) == ("", FINE)


async def test_a_check_in_such_a_pod_probes_what_is_found(tmp_path: Path) -> None:
    """What `run --fail-open` probes there, once and now."""
    environ = {"NETPROBE_CONFIG": str(tmp_path), "AIRFLOW_CONN_DB": f"redis://127.0.0.1:{refusing_port()}"}

    done = await netprobe("check", "--output", "json", env=environ)

    assert [outcome["target"] for outcome in json.loads(done.stdout)["outcomes"]] == ["conn-db"]
    assert done.code == A_TARGET_FAILED


async def test_a_configuration_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    """A mistyped path is a mistake, not a pod without a ConfigMap."""
    done = await netprobe("discover", "--config", str(tmp_path / "missing"))

    assert "expected a readable file" in done.stderr
    assert done.code == USAGE


async def test_a_configuration_without_the_section_is_told(tmp_path: Path) -> None:
    """What is printed is what the section would add, beside the targets of the configuration."""
    config = configuration(tmp_path, "targets: [{name: db, type: tcp, address: 'db:6379'}]")
    environ = {"NETPROBE_CONFIG": config, "AIRFLOW_CONN_DB": "redis://db", "AIRFLOW_CONN_X": "redis://x"}

    done = await netprobe("discover", env=environ)

    assert [line.split()[0] for line in done.lines[:2]] == ["name", "conn-x"]
    assert "the target db has its host and port" in done.stdout
    assert done.stderr.startswith("netprobe: the configuration has no section discover")
    assert done.code == FINE


async def test_an_environment_without_anything_is_said_to_be_so() -> None:
    """An empty table would leave open whether something went wrong."""
    done = await netprobe("discover")

    assert done.lines[0] == "The environment names nothing to probe."
    assert done.code == FINE


async def test_a_broken_configuration_ends_the_command(tmp_path: Path) -> None:
    """With every problem and exit code 2, as everywhere."""
    done = await netprobe("discover", "--config", configuration(tmp_path, "discover: aws"))

    assert "discover.sources[0]: expected one of airflow, kubernetes, got 'aws'" in done.stderr
    assert (done.stdout, done.code) == ("", USAGE)


async def test_what_a_variable_is_called_does_nothing_to_a_terminal() -> None:
    """Names of variables come from whoever made the pod, and may hold any byte but = and NUL."""
    done = await netprobe("discover", env={"AIRFLOW_CONN_\x1b[31mX\udcff": "redis://db", "AIRFLOW_CONN_\nY": "x"})

    assert "\x1b" not in done.stdout
    assert "AIRFLOW_CONN_\\x1b[31mX\\udcff" in done.stdout
    assert done.code == FINE


WATCHED = """
import sys
seen = set()
def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "os.spawn")):
        seen.add(event)
sys.addaudithook(watch)
from agent.cli import main
main(["discover", "--output", "json"])
print("\\n", sorted(seen), file=sys.stderr)
"""


def test_nobody_is_contacted_and_nothing_run() -> None:
    """What `netprobe discover` prints is what would be probed. The name of this host is all that is asked for."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        env=environment(**ENVIRONMENT, AIRFLOW__CELERY__BROKER_URL_CMD="touch /nonexistent/ran"),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert "conn-orders-api" in {target["name"] for target in json.loads(done.stdout)["targets"]}
    assert done.stderr.strip() == "['socket.gethostname']"
