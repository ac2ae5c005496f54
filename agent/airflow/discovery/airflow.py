"""What Airflow's settings and connections lead to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from agent.airflow.discovery.by_type import endpoints
from agent.airflow.discovery.complete import Skipped
from agent.airflow.discovery.database_url import read_url
from agent.airflow.discovery.endpoint import Ask, Endpoint, listed
from agent.airflow.discovery.found import Found, numbered, plain_name
from agent.airflow.discovery.parts import Unreadable, read_parts
from agent.airflow.discovery.settings import Indirect, Setting, Settings, at_hand, readable
from agent.config.sections import DiscoverOptions, MetadataDb
from agent.model import Role

CONNECTION_PREFIX = "AIRFLOW_CONN_"
_OF_A_TEAM = re.compile(r"_(?P<team>.+?)___(?P<id>.+)", re.DOTALL)
"""Airflow 3: AIRFLOW_CONN__TEAM___ID."""


def settings(environ: Mapping[str, str], options: DiscoverOptions) -> Iterator[Callable[[], Iterable[Found | Skipped]]]:
    """Parts of the settings, the most particular first: each says what it leads to."""
    known = Settings(environ)
    read = partial(read_url, keep_password=options.credentials)
    yield partial(_problem, known)
    yield partial(_execution_api, known)
    yield partial(_metadata_db, known, options)
    yield partial(_of_setting, known.get("celery", "broker_url"), "broker", Role.BROKER, read)
    yield partial(_of_setting, known.get("celery", "result_backend"), "result-backend", Role.BROKER, read)
    yield partial(_secrets_backend, known)
    yield partial(_remote_logs, known, environ)
    yield partial(_telemetry, known, environ)


def _problem(known: Settings) -> Iterator[Skipped]:
    if known.problem is not None:
        yield Skipped(source=known.problem.source, why=known.problem.why)


def _of_setting(
    setting: Setting | Indirect | None, name: str, role: Role, read: Callable[[str], Iterable[Endpoint]]
) -> Iterator[Found | Skipped]:
    if setting is None:
        return
    if isinstance(setting, Indirect):
        yield Skipped(source=setting.source, why=setting.why)
        return
    if not readable(setting.value):
        yield Skipped(source=setting.source, why="its value is no text, or far too long")
        return
    try:
        found = tuple(dict.fromkeys(read(setting.value)))
    except Unreadable as problem:
        yield Skipped(source=setting.source, why=str(problem))
        return
    for index, endpoint in enumerate(found):
        yield Found(source=setting.source, name=numbered(name, index), role=role, endpoint=endpoint)


def _execution_api(known: Settings) -> Iterator[Found | Skipped]:
    """`get_execution_api_server_url`: the setting, else the place of the API server and /execution/."""
    setting = known.get("core", "execution_api_server_url")
    if setting is None:
        base = known.get("api", "base_url")
        if isinstance(base, Setting) and not base.value.startswith("/"):
            setting = Setting(base.source, f"{base.value.rstrip('/')}/execution/")
        elif known.airflow_3:
            why = "neither it nor AIRFLOW__API__BASE_URL is set here: tasks get the URL in another way"
            yield Skipped(source="AIRFLOW__CORE__EXECUTION_API_SERVER_URL", why=why)
            return
    ca_file = known.text("api", "ssl_cert")
    for item in _of_setting(setting, "execution-api", Role.EXECUTION_API, _health):
        if isinstance(item, Found):
            # It answers without a token, and asks neither the database nor anything else (Airflow 3.0 to 3.3).
            keys = {**item.endpoint.keys(), "method": "GET", "expect": {"status": ["2xx"]}}
            if ca_file and at_hand(Path(ca_file)):
                keys["tls"] = {"ca_file": ca_file}
            yield replace(item, keys=keys)
        else:
            yield item


def _health(url: str) -> Iterator[Endpoint]:
    endpoint, *more = listed(url, ask=Ask.HTTP)
    _, scheme, rest = url.partition("://")
    path = re.split(r"[?#]", rest if scheme else url, maxsplit=1)[0].partition("/")[2].strip("/")
    if more or endpoint.ask not in {Ask.HTTP, Ask.HTTPS} or not re.fullmatch(r"[A-Za-z0-9._~/-]*", path):
        raise Unreadable("it is no URL of one server and a plain path")
    yield replace(endpoint, path=f"/{path}/health" if path else "/health")


def _metadata_db(known: Settings, options: DiscoverOptions) -> Iterator[Found | Skipped]:
    setting = known.get("database", "sql_alchemy_conn") or known.get("core", "sql_alchemy_conn")
    wanted = options.metadata_db
    read = partial(read_url, keep_password=options.credentials and wanted is not MetadataDb.NEGATIVE)
    for item in _of_setting(setting, "metadata-db", Role.METADATA_DB, read):
        if isinstance(item, Skipped):
            yield item
        elif wanted is MetadataDb.NEGATIVE:
            address = replace(item.endpoint, ask=Ask.TCP).keys()
            yield replace(item, negative=True, keys=address)
        elif wanted is MetadataDb.AUTO and known.airflow_3:
            yield replace(item, unwanted="tasks of Airflow 3 do not use the metadata database")
        else:
            yield item


def _secrets_backend(known: Settings) -> Iterator[Found | Skipped]:
    """Vault's `url` among the arguments of a backend; those of the clouds name no place."""
    for section, key in (("secrets", "backend_kwargs"), ("workers", "secrets_backend_kwargs")):
        yield from _of_setting(known.get(section, key), "secrets-backend", Role.CUSTOM, _of_arguments)


def _of_arguments(text: str) -> Iterator[Endpoint]:
    arguments: object = None
    with suppress(ValueError, RecursionError):
        arguments = json.loads(text)
    url = arguments.get("url") if isinstance(arguments, dict) else None
    if not isinstance(url, str) or not url:
        raise Unreadable("it has no url")
    yield from listed(url, ask=Ask.HTTP, usual=8200)


_AWS_REGION = re.compile(r"[a-z0-9-]{1,40}")


def _remote_logs(known: Settings, environ: Mapping[str, str]) -> Iterator[Found | Skipped]:
    """Where the logs of tasks go: the endpoint of their connection, else the one of the store itself."""
    if not known.on("logging", "remote_logging"):
        return
    folder = known.get("logging", "remote_base_log_folder")
    if not isinstance(folder, Setting):
        if folder is not None:
            yield Skipped(source=folder.source, why=folder.why)
        return
    connection = known.get("logging", "remote_log_conn_id")
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or ""
    if isinstance(connection, Setting):
        variable = f"{CONNECTION_PREFIX}{connection.value.upper()}"
        value = environ.get(variable)
        if value is None:
            why = "the connection in AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID is not in the environment"
            yield Skipped(source=folder.source, why=why)
            return
        try:
            parts = read_parts(value)
        except Unreadable as problem:
            yield Skipped(source=folder.source, why=f"its connection, {variable}: {problem}")
            return
        said = parts.extra.get("region_name")
        region = said if isinstance(said, str) else region
        try:
            found = endpoints(parts)
        except Unreadable:
            found = ()  # credentials alone, for the store that the folder names
        for index, endpoint in enumerate(found):
            name = numbered("remote-log-store", index)
            yield Found(source=folder.source, name=name, role=Role.REMOTE_LOG_STORE, endpoint=endpoint)
        if found:
            return
    read = partial(_log_store, region=region, environ=environ)
    yield from _of_setting(folder, "remote-log-store", Role.REMOTE_LOG_STORE, read)


def _log_store(folder: str, *, region: str, environ: Mapping[str, str]) -> Iterator[Endpoint]:
    scheme, _, rest = folder.partition("://")
    if scheme in {"s3", "cloudwatch"}:
        service = {"s3": "s3", "cloudwatch": "logs"}[scheme]
        named = environ.get(f"AWS_ENDPOINT_URL_{'S3' if service == 's3' else 'CLOUDWATCH_LOGS'}")
        if named := named or environ.get("AWS_ENDPOINT_URL"):
            yield from listed(named, ask=Ask.HTTPS)
            return
        if scheme == "cloudwatch":
            # arn:aws:logs:REGION:ACCOUNT:log-group:NAME
            region = (rest.split(":") + [""] * 4)[3]
        if not _AWS_REGION.fullmatch(region):
            raise Unreadable("the region of its store is not named: AWS_REGION, or region_name in its connection")
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        yield from listed(f"{service}.{region}.{domain}", ask=Ask.HTTPS, usual=443)
    elif scheme in {"gs", "stackdriver"}:
        host = {"gs": "storage.googleapis.com", "stackdriver": "logging.googleapis.com"}[scheme]
        yield from listed(host, ask=Ask.HTTPS, usual=443)
    elif scheme == "hdfs":
        yield from listed(rest.partition("/")[0], ask=Ask.TCP, usual=8020)
    elif not scheme or "://" not in folder:
        raise Unreadable("it is a directory, or its connection names no host")
    else:
        raise Unreadable("its store is named by its connection, which names no host")


def _telemetry(known: Settings, environ: Mapping[str, str]) -> Iterator[Found | Skipped]:
    if known.on("metrics", "statsd_on"):
        setting = known.get("metrics", "statsd_host")
        source = setting.source if setting is not None else "AIRFLOW__METRICS__STATSD_ON"
        yield Skipped(source=source, why="statsd is UDP, which nothing answers: whether it arrives cannot be asked")
    for variable in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        if value := environ.get(variable):
            yield from _of_setting(Setting(variable, value), "otel-collector", Role.CUSTOM, _otlp)
    for section in ("metrics", "traces"):
        host = known.get(section, "otel_host")
        if known.on(section, "otel_on") and isinstance(host, Setting):
            port = known.text(section, "otel_port") or "8889"
            yield from _of_setting(Setting(host.source, f"{host.value}:{port}"), "otel-collector", Role.CUSTOM, _otlp)


def _otlp(text: str) -> Iterator[Endpoint]:
    for endpoint in listed(text, ask=Ask.TCP, usual=4318):
        yield replace(endpoint, ask=Ask.TCP)


def is_connection(variable: str) -> bool:
    return variable.startswith(CONNECTION_PREFIX) and len(variable) > len(CONNECTION_PREFIX)


def connection(variable: str, value: str, options: DiscoverOptions) -> Iterator[Found | Skipped]:
    """What one `AIRFLOW_CONN_*` leads to. Its id is known in capitals only."""
    if not value:
        return  # Airflow takes it for one that is not set
    name = connection_name(variable)
    try:
        found = endpoints(read_parts(value, keep_password=options.credentials))
    except Unreadable as problem:
        yield Skipped(source=variable, why=str(problem))
        return
    for index, endpoint in enumerate(found):
        yield Found(source=variable, name=numbered(name, index), role=Role.CONNECTION, endpoint=endpoint)


def connection_name(variable: str) -> str:
    """`AIRFLOW_CONN_ORDERS_DB` is conn-orders-db, `AIRFLOW_CONN__SALES___ORDERS_DB` conn-sales.orders-db."""
    name = variable.removeprefix(CONNECTION_PREFIX)
    team = _OF_A_TEAM.fullmatch(name)
    return plain_name("conn", f"{team['team']}.{team['id']}" if team else name)
