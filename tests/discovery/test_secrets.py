"""No password leaves the parser, unless credentials were asked for; then it is a Secret."""

from __future__ import annotations

import json
import pickle
from urllib.parse import quote

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.airflow.discovery.command import as_json, as_table
from agent.airflow.discovery.complete import Discovery, complete
from agent.config import Config, DiscoverOptions, show
from agent.config.sections import MetadataDb, Source
from agent.probers.postgres_options import Mode, PostgresOptions
from tests.discovery.finding import discovered

MARKER = "MARKER"
"""Upper case: hosts come out in lower case, and are searched for it as well."""

noise = st.text(st.sampled_from("abz019:/@?#[]%=&;,.+-_ \\'\"{}$~|<>^`é€\t"), max_size=8)
passwords = st.builds(lambda before, after: f"{before}{MARKER}{after}", noise, noise)
schemes = st.sampled_from(
    ["postgres", "postgresql", "mysql", "http", "https", "redis", "amqp", "aws", "snowflake", "kafka", "wasb", "mongo"]
)
hosts = st.sampled_from(
    ["host", "host:5432", "db.example.com", "", "[2001:db8::1]:5432", "h1,h2", "https%3A%2F%2Fapi", "%2Fsocket", "h:x"]
)
tails = st.sampled_from(["", "/", "/app", "/app?sslmode=require", "?a=b", "/?account=x", "?__extra__=%7B%7D"])

SECRET_KEYS = ["password", "private_key", "sasl.password", "token", "aws_secret_access_key", "extra__aws__secret"]


@st.composite
def urls(draw: st.DrawFn) -> str:
    """A URL with a password, percent-encoded or as whoever wrote it typed it."""
    password = draw(passwords)
    written = quote(password, safe="") if draw(st.booleans()) else password
    user = draw(st.sampled_from(["user", "", "us%40er"]))
    return f"{draw(schemes)}{draw(st.sampled_from(['', '+psycopg2']))}://{user}:{written}@{draw(hosts)}{draw(tails)}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    """JSON with a password where one may stand."""
    password = draw(passwords)
    extra = dict.fromkeys(draw(st.sets(st.sampled_from(SECRET_KEYS))), password)
    extra["connection_string"] = f"AccountName=account;AccountKey={quote(password, safe='')};X=y"
    extra["endpoint_url"] = f"https://user:{quote(password, safe='')}@minio:9000/?{quote(password, safe='')}"
    document = {
        "conn_type": draw(schemes),
        "host": draw(st.sampled_from(["host", "https://api.example.com/x", f"u:{quote(password, safe='')}@db:1", ""])),
        "login": "user",
        "password": password,
        "port": draw(st.sampled_from([None, 5432, "5432", "x"])),
        "extra": draw(st.sampled_from([extra, json.dumps(extra)])),
    }
    if draw(st.booleans()):
        document["url"] = f"https://user:{quote(password, safe='')}@vault:8200/{password}"
    return json.dumps(document)[: draw(st.sampled_from([10_000, 60, 100]))]


def everything_said(config: Config, found: Discovery) -> str:
    """All that can reach a log, a table, a metric, a page or an error."""
    targets = [*config.targets, *found.targets]
    return "\n".join(
        [
            as_table(found),
            as_json(found),
            yaml.safe_dump(show(config)),
            repr(found),
            repr(config),
            *(f"{target.options.printable_address} {target.options!r} {target.options.host}" for target in targets),
        ]
    )


def environment(value: str) -> dict[str, str]:
    return {
        "AIRFLOW_CONN_X": value,
        "AIRFLOW_CONN__TEAM___Y": f" {value}\n",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": value,
        "AIRFLOW__CELERY__BROKER_URL": value,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{value};{value}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": value,
        "AIRFLOW__SECRETS__BACKEND_KWARGS": value,
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "s3://logs",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "x",
        "OTEL_EXPORTER_OTLP_ENDPOINT": value,
    }


@settings(max_examples=400, deadline=None)
@given(st.one_of(urls(), documents()))
@example(f"postgres://u:a@{MARKER}?b@host/db")
@example(f"postgres://u:1/{MARKER}@host/db")
@example(f"redis://u:1;{MARKER}://b@host/0")
def test_no_password_is_ever_said(value: str) -> None:
    """Whatever is wrong with a value, and wherever it stands."""
    options = DiscoverOptions(sources=(Source.AIRFLOW,), metadata_db=MetadataDb.PROBE)

    config, found = complete(Config(targets=(), discover=options), environment(value))

    assert MARKER.lower() not in everything_said(config, found).lower()
    assert all(target.options.secrets == () for target in found.targets if target.type != "http")


@settings(max_examples=200, deadline=None)
@given(passwords)
def test_a_password_that_was_asked_for_is_a_secret(password: str) -> None:
    """It reaches the login, and nothing that can be read."""
    url = f"postgres://user:{quote(password, safe='')}@db/app?sslmode=require"
    options = DiscoverOptions(sources=(Source.AIRFLOW,), credentials=True)

    config, found = complete(Config(targets=(), discover=options), {"AIRFLOW_CONN_X": url})

    (target,) = found.targets
    assert isinstance(target.options, PostgresOptions)
    assert (target.options.mode, target.options.reveal_password()) == (Mode.LOGIN, password)
    assert str(target.options.effective_sslmode) == "require"
    assert MARKER.lower() not in everything_said(config, found).lower()
    with pytest.raises(TypeError):
        pickle.dumps(target.options.secrets)


def test_only_postgres_logs_in() -> None:
    """Everything else is asked the same way as ever; a database without a user is, too."""
    environ = {
        "AIRFLOW_CONN_A": "redis://u:secret@db/app",
        "AIRFLOW_CONN_B": "http://u:secret@api/",
        "AIRFLOW_CONN_C": "postgres://:secret@db2/app",
        "AIRFLOW_CONN_D": "postgres://u@db3/app",
    }

    assert discovered(environ, credentials=True).targets == discovered(environ).targets
