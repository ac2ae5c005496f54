"""What Airflow's settings lead to: the execution API, the metadata database, broker, logs, telemetry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent.airflow.discovery.settings import FILE_LIMIT_BYTES
from agent.config.sections import MetadataDb
from agent.model import Role
from agent.probers.http_options import Method
from tests.discovery.finding import addresses, discovered, reasons

URL = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
DB = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
DSN = "postgresql+psycopg2://airflow:secret@db.example.com:5432/airflow"

# --- the execution API ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({URL: "http://api:8080/execution/"}, "http://api:8080/execution/health"),
        ({URL: "https://airflow.example.com/team/execution"}, "https://airflow.example.com/team/execution/health"),
        ({URL: "http://[fd00::1]:8080/execution/"}, "http://[fd00::1]:8080/execution/health"),
        ({URL: "http://u:secret@api/execution/?token=x"}, "http://api/execution/health"),
        ({"AIRFLOW__API__BASE_URL": "http://api:8080"}, "http://api:8080/execution/health"),
        ({"AIRFLOW__API__BASE_URL": "http://api:8080/base/"}, "http://api:8080/base/execution/health"),
        ({URL: "http://api/execution/", "AIRFLOW__API__BASE_URL": "http://ui"}, "http://api/execution/health"),
    ],
)
def test_the_execution_api_is_asked_for_its_health(environ: dict[str, str], address: str) -> None:
    """A GET that needs no token; the URL is found as `get_execution_api_server_url` finds it."""
    (target,) = discovered(environ).targets

    assert (target.name, target.type, target.address) == ("execution-api", "http", address)
    assert (target.role, target.options.method) == (Role.EXECUTION_API, Method.GET)
    assert [str(status) for status in target.options.expect.status] == ["2xx"]


def test_a_base_url_that_is_a_path_says_nothing_of_the_place() -> None:
    """Airflow takes localhost then, which is the pod itself: what is meant stands somewhere else."""
    environ = {"AIRFLOW__API__BASE_URL": "/airflow"}

    assert addresses(environ) == {}
    assert "tasks get the URL in another way" in reasons(environ)[URL]


def test_the_authority_of_the_execution_api_is_trusted_where_it_is_at_hand(tmp_path: Path) -> None:
    """With the file of `[api] ssl_cert` certificates are verified; without it, nobody's are."""
    ca = tmp_path / "ca.pem"
    ca.touch()
    environ = {URL: "https://api/execution/", "AIRFLOW__API__SSL_CERT": str(ca)}

    (with_file,) = discovered(environ).targets
    (without,) = discovered({**environ, "AIRFLOW__API__SSL_CERT": "/not/here.pem"}).targets

    assert (with_file.options.tls.verify, with_file.options.tls.ca_file) == (True, ca)
    assert (without.options.tls.verify, without.options.tls.ca_file) == (False, None)


# --- the metadata database ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "address"),
    [
        (DSN, "postgres db.example.com:5432/airflow"),
        ("postgresql://u:a/b@db/airflow", "postgres db:5432/airflow"),
        ("postgresql+asyncpg://u@[fd00::1]/airflow", "postgres [fd00::1]:5432/airflow"),
        ("postgresql://u:p@/airflow?host=db1:5433", "postgres db1:5433/airflow"),
        ("mysql+mysqldb://u:p@my/airflow", "dns my A @pod"),
        ("mssql+pyodbc://u:p@sql:1444/airflow?driver=x", "tcp sql:1444"),
    ],
)
def test_the_metadata_database_is_asked_without_a_login(dsn: str, address: str) -> None:
    """Postgres up to its demand for a password, MySQL for its name; by the variable before 2.3 as well."""
    assert addresses({DB: dsn}) == {"metadata-db": address}
    assert addresses({"AIRFLOW__CORE__SQL_ALCHEMY_CONN": dsn}) == {"metadata-db": address}


@pytest.mark.parametrize(
    ("dsn", "why"),
    [
        ("sqlite:////opt/airflow/airflow.db", "file"),
        ("postgresql://u:p@/airflow?host=/var/run/postgresql", "socket"),
        ("postgresql:///airflow", "names no host"),
        ("postgresql://u:p@db:abc/airflow", "port"),
        ("cockroachdb+weird://u:p@db/airflow", "not known"),
        ("secret", "no URL"),
    ],
)
def test_a_metadata_database_that_is_no_place_is_told(dsn: str, why: str) -> None:
    """Files, sockets, and what is no URL."""
    assert addresses({DB: dsn}) == {}
    assert why in reasons({DB: dsn})[DB]


@pytest.mark.parametrize(
    "sign",
    [
        {"NETPROBE_LABEL_AIRFLOW_VERSION": "3.3.2"},
        {"AIRFLOW_VERSION": "3.0.0"},
        {URL: "http://api:8080/execution/"},
        {"AIRFLOW__API_AUTH__JWT_SECRET": "secret"},
        {"AIRFLOW__API_AUTH__JWT_SECRET_CMD": "cat /secret"},
    ],
)
def test_tasks_of_airflow_3_do_not_need_the_metadata_database(sign: dict[str, str]) -> None:
    """Nor the connection by which the chart hands it on; another database on that server is something else."""
    same = DSN.replace("+psycopg2", "")
    environ = {DB: DSN, "AIRFLOW_CONN_AIRFLOW_DB": same, "AIRFLOW_CONN_APP": f"{same}-app", **sign}

    auto, probed = addresses(environ), addresses(environ, metadata_db=MetadataDb.PROBE)

    assert auto.keys() - {"execution-api"} == {"conn-app"}
    assert reasons(environ)[DB] == "tasks of Airflow 3 do not use the metadata database"
    assert reasons(environ)["AIRFLOW_CONN_AIRFLOW_DB"] == reasons(environ)[DB]
    assert probed.keys() - {"execution-api"} == {"metadata-db"}


def test_airflow_2_needs_it_even_where_a_setting_of_3_is_there() -> None:
    """The version says more than a setting."""
    environ = {DB: DSN, "AIRFLOW_VERSION": "2.11.2", "AIRFLOW__API__BASE_URL": "http://x"}

    assert "metadata-db" in addresses(environ)


def test_the_metadata_database_may_be_what_must_not_be_reachable() -> None:
    """A connection is all that is tried, and never a login."""
    (target,) = discovered({DB: DSN}, metadata_db=MetadataDb.NEGATIVE, credentials=True).targets

    assert (target.name, target.type, target.address) == ("metadata-db", "tcp", "db.example.com:5432")
    assert target.negative
    assert target.options.secrets == ()


# --- broker and result backend --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://:secret@airflow-redis:6379/0", ["tcp airflow-redis:6379"]),
        ("rediss://redis/0?ssl_cert_reqs=none", ["tcp redis:6379"]),
        ("amqp://u:p@rabbit//", ["tcp rabbit:5672"]),
        ("pyamqp://u:p@rabbit1:5672//;pyamqp://u:p@rabbit2:5673//", ["tcp rabbit1:5672", "tcp rabbit2:5673"]),
        ("sentinel://:p@s1:26379;sentinel://:p@s2", ["tcp s1:26379", "tcp s2:26379"]),
        ("db+postgresql://u:p@db/airflow", ["postgres db:5432/airflow"]),
        ("db+mysql://u:p@db/airflow", ["dns db A @pod"]),
        ("cache+memcached://m1;m2:11212", ["tcp m1:11211", "tcp m2:11212"]),
        ("sqs://key:secret@", []),
        ("rpc://", []),
    ],
)
def test_broker_and_result_backend(url: str, found: list[str]) -> None:
    """Celery's URLs: several with semicolons, databases behind `db+`."""
    assert list(addresses({"AIRFLOW__CELERY__BROKER_URL": url}).values()) == found
    names = [f"result-backend{'' if n == 0 else f'-{n + 1}'}" for n in range(len(found))]
    assert addresses({"AIRFLOW__CELERY__RESULT_BACKEND": url}) == dict(zip(names, found, strict=True))


@pytest.mark.parametrize(
    "setting",
    [
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CELERY__BROKER_URL",
        "AIRFLOW__CELERY__RESULT_BACKEND",
    ],
)
def test_no_command_is_run_and_no_backend_asked_for_a_setting(setting: str, tmp_path: Path) -> None:
    """The reason names the variable; the setting itself, where it is there, is what counts."""
    ran = tmp_path / "ran"
    by_command, by_secret = {f"{setting}_CMD": f"touch {ran}"}, {f"{setting}_SECRET": "path"}

    assert reasons(by_command) == {f"{setting}_CMD": "its value is the output of a command, which is never run"}
    assert reasons(by_secret) == {f"{setting}_SECRET": "its value is in a secrets backend, which is not asked"}
    assert len(addresses({**by_command, **by_secret, setting: "mysql://db/x"})) == 1
    assert not ran.exists()


# --- secrets backend ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["AIRFLOW__SECRETS__BACKEND_KWARGS", "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"])
def test_a_secrets_backend_with_a_url(setting: str) -> None:
    """Vault's. What else is among its arguments is nobody's business."""
    arguments = '{"url": "https://vault.example.com:8200", "token": "secret", "mount_point": "airflow"}'

    assert addresses({setting: arguments}) == {"secrets-backend": "http https://vault.example.com:8200/"}
    assert reasons({setting: '{"connections_prefix": "airflow/connections"}'}) == {setting: "it has no url"}
    assert reasons({setting: "secret"}) == {setting: "it has no url"}


# --- logs -----------------------------------------------------------------------------------------------------------

LOGS = {"AIRFLOW__LOGGING__REMOTE_LOGGING": "True"}
FOLDER = "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER"
BY = "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID"


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({FOLDER: "s3://logs/airflow", "AWS_REGION": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com/"),
        ({FOLDER: "s3://logs", "AWS_DEFAULT_REGION": "cn-north-1"}, "https://s3.cn-north-1.amazonaws.com.cn/"),
        ({FOLDER: "s3://logs", "AWS_ENDPOINT_URL_S3": "http://minio:9000"}, "http://minio:9000/"),
        (
            {FOLDER: "s3://logs", BY: "my_s3", "AIRFLOW_CONN_MY_S3": "aws://?endpoint_url=http%3A%2F%2Fminio%3A9000"},
            "http://minio:9000/",
        ),
        (
            {FOLDER: "s3://logs", BY: "s3", "AIRFLOW_CONN_S3": "aws://k:s@?region_name=us-east-2"},
            "https://s3.us-east-2.amazonaws.com/",
        ),
        (
            {FOLDER: "cloudwatch://arn:aws:logs:eu-west-1:123:log-group:x"},
            "https://logs.eu-west-1.amazonaws.com/",
        ),
        ({FOLDER: "gs://logs/airflow"}, "https://storage.googleapis.com/"),
        ({FOLDER: "stackdriver://airflow"}, "https://logging.googleapis.com/"),
        ({FOLDER: "hdfs://namenode/logs"}, "namenode:8020"),
        (
            {FOLDER: "wasb-base/logs", BY: "wasb", "AIRFLOW_CONN_WASB": "wasb://account:key@"},
            "https://account.blob.core.windows.net/",
        ),
    ],
)
def test_where_the_logs_go(environ: dict[str, str], address: str) -> None:
    """To the endpoint of their connection, else to the store that the folder names."""
    (target,) = discovered({**LOGS, **environ}).targets

    assert (target.name, target.role, target.address) == ("remote-log-store", Role.REMOTE_LOG_STORE, address)


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({FOLDER: "s3://logs"}, "the region of its store is not named"),
        ({FOLDER: "s3://logs", BY: "elsewhere"}, "is not in the environment"),
        ({FOLDER: "/opt/airflow/logs"}, "it is a directory"),
        ({FOLDER: "s3://logs", "AWS_REGION": "evil.example.com/"}, "region"),
    ],
)
def test_a_log_store_that_is_not_named_is_not_guessed(environ: dict[str, str], why: str) -> None:
    """A target that nobody uses would be a false alarm."""
    assert addresses({**LOGS, **environ}) == {}
    assert why in reasons({**LOGS, **environ})[FOLDER]


def test_without_remote_logging_its_folder_does_not_matter() -> None:
    """Charts set it all the same."""
    environ = {FOLDER: "s3://logs", "AWS_REGION": "eu-west-1", "AIRFLOW__LOGGING__REMOTE_LOGGING": "False"}

    assert discovered(environ).targets == ()


# --- telemetry ------------------------------------------------------------------------------------------------------


def test_statsd_cannot_be_asked() -> None:
    """UDP: a datagram that vanishes looks like one that arrives."""
    environ = {"AIRFLOW__METRICS__STATSD_ON": "True", "AIRFLOW__METRICS__STATSD_HOST": "airflow-statsd"}

    assert addresses(environ) == {}
    assert "UDP" in reasons(environ)["AIRFLOW__METRICS__STATSD_HOST"]


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318"}, "tcp otel:4318"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "otel:4317"}, "tcp otel:4317"),
        ({"AIRFLOW__METRICS__OTEL_ON": "True", "AIRFLOW__METRICS__OTEL_HOST": "otel"}, "tcp otel:8889"),
        (
            {
                "AIRFLOW__TRACES__OTEL_ON": "True",
                "AIRFLOW__TRACES__OTEL_HOST": "otel",
                "AIRFLOW__TRACES__OTEL_PORT": "4318",
            },
            "tcp otel:4318",
        ),
    ],
)
def test_a_collector_of_telemetry(environ: dict[str, str], address: str) -> None:
    """OpenTelemetry's own variables, and Airflow's."""
    assert addresses(environ) == {"otel-collector": address}


# --- airflow.cfg ----------------------------------------------------------------------------------------------------

CFG = f"""
[core]
execution_api_server_url = http://api:8080/execution/
[database]
sql_alchemy_conn = {DSN}
[celery]
broker_url = redis://:se%%cret@redis/0
result_backend_cmd = cat /secret
"""


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    path = tmp_path / "airflow.cfg"
    path.write_text(CFG, encoding="utf-8")
    return path


@pytest.mark.parametrize("variable", ["AIRFLOW_CONFIG", "AIRFLOW_HOME"])
def test_a_mounted_airflow_cfg_is_read(cfg: Path, variable: str) -> None:
    """The official chart says there, and not in the environment, where the execution API is."""
    environ = {variable: str(cfg if variable == "AIRFLOW_CONFIG" else cfg.parent)}

    assert addresses(environ) == {
        "execution-api": "http http://api:8080/execution/health",
        "broker": "tcp redis:6379",
    }
    assert reasons(environ) == {
        "airflow.cfg [database] sql_alchemy_conn": "tasks of Airflow 3 do not use the metadata database",
        "airflow.cfg [celery] result_backend_cmd": "its value is the output of a command, which is never run",
    }


def test_the_environment_beats_airflow_cfg(cfg: Path) -> None:
    """As in Airflow."""
    environ = {"AIRFLOW_CONFIG": str(cfg), "AIRFLOW__CELERY__BROKER_URL": "redis://other"}

    assert addresses(environ)["broker"] == "tcp other:6379"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("password = secret\n", "it is malformed"),
        ("[core]\n" + "# comment\n" * FILE_LIMIT_BYTES, "it is larger than 1 MiB"),
        ("pipe", "it is no file"),
        (None, "it is no file"),
    ],
)
def test_an_airflow_cfg_that_cannot_be_read_is_told(tmp_path: Path, content: Any, why: str) -> None:
    """Whatever it is, the environment still counts, and no line of the file is quoted."""
    path = tmp_path / "airflow.cfg"
    if content is None:
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(content, encoding="utf-8")
    environ = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CELERY__BROKER_URL": "redis://redis"}

    assert addresses(environ) == {"broker": "tcp redis:6379"}
    assert reasons(environ) == {"airflow.cfg": why}
