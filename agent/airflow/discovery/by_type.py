"""From what a connection says to where it leads: by its type, as the hooks of Airflow's providers have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from agent.airflow.discovery.endpoint import Ask, Endpoint, Login, listed, with_login
from agent.airflow.discovery.parts import Parts, Unreadable


@dataclass(frozen=True, slots=True)
class Usual:
    """What a type of connection means where it does not say otherwise."""

    ask: Ask
    port: int | None
    host: str = ""
    """Where the hook turns to without a host."""


TCP, HTTP, HTTPS, NAME = Ask.TCP, Ask.HTTP, Ask.HTTPS, Ask.NAME

USUAL: Mapping[str, Usual] = MappingProxyType(
    {
        "airbyte": Usual(HTTP, 8000),
        "amqp": Usual(TCP, 5672),
        "arangodb": Usual(HTTP, 8529),
        "asana": Usual(HTTPS, 443, "app.asana.com"),
        "cassandra": Usual(TCP, 9042),
        "clickhouse": Usual(TCP, 9000),
        "databricks": Usual(HTTPS, 443),
        "dbt_cloud": Usual(HTTPS, 443, "cloud.getdbt.com"),
        "discord": Usual(HTTPS, 443, "discord.com"),
        "docker": Usual(HTTPS, 443),
        "drill": Usual(TCP, 8047),
        "druid": Usual(HTTP, 8082),
        "elasticsearch": Usual(HTTP, 9200),
        "exasol": Usual(TCP, 8563),
        "facebook_social": Usual(HTTPS, 443, "graph.facebook.com"),
        "ftp": Usual(TCP, 21),
        "git": Usual(HTTPS, 443),
        "github": Usual(HTTPS, 443, "api.github.com"),
        "hive_cli": Usual(TCP, 10000),
        "hive_metastore": Usual(TCP, 9083),
        "hiveserver2": Usual(TCP, 10000),
        "http": Usual(HTTP, 80),
        "https": Usual(HTTPS, 443),
        "imap": Usual(TCP, 993),
        "impala": Usual(TCP, 21050),
        "influxdb": Usual(HTTP, 8086),
        "jira": Usual(HTTPS, 443),
        "kafka": Usual(TCP, 9092),
        "kylin": Usual(HTTP, 7070),
        "ldap": Usual(TCP, 389),
        "livy": Usual(HTTP, 8998),
        "mongo": Usual(TCP, 27017),
        "mqtt": Usual(TCP, 1883),
        "mssql": Usual(TCP, 1433),
        "mysql": Usual(NAME, 3306),
        "neo4j": Usual(TCP, 7687),
        "openai": Usual(HTTPS, 443, "api.openai.com"),
        "opensearch": Usual(HTTPS, 9200),
        "opsgenie": Usual(HTTPS, 443, "api.opsgenie.com"),
        "oracle": Usual(TCP, 1521),
        "pagerduty": Usual(HTTPS, 443, "api.pagerduty.com"),
        "pagerduty_events": Usual(HTTPS, 443, "events.pagerduty.com"),
        "pgvector": Usual(Ask.POSTGRES, 5432),
        "pinot": Usual(HTTP, 8000),
        "postgres": Usual(Ask.POSTGRES, 5432),
        "presto": Usual(TCP, 8080),
        "qdrant": Usual(HTTP, 6333),
        "rabbitmq": Usual(TCP, 5672),
        "redis": Usual(TCP, 6379),
        "redshift": Usual(TCP, 5439),
        "salesforce": Usual(HTTPS, 443, "login.salesforce.com"),
        "samba": Usual(TCP, 445),
        "sendgrid": Usual(HTTPS, 443, "api.sendgrid.com"),
        "sftp": Usual(NAME, 22),
        "slack": Usual(HTTPS, 443, "slack.com"),
        "slackwebhook": Usual(HTTPS, 443, "hooks.slack.com"),
        "smtp": Usual(TCP, 465),
        "snowflake": Usual(HTTPS, 443),
        "spark": Usual(TCP, 7077),
        "spark_connect": Usual(TCP, 15002),
        "ssh": Usual(NAME, 22),
        "starrocks": Usual(NAME, 9030),
        "tableau": Usual(HTTPS, 443),
        "telegram": Usual(HTTPS, 443, "api.telegram.org"),
        "teradata": Usual(TCP, 1025),
        "trino": Usual(TCP, 8080),
        "vault": Usual(HTTP, 8200),
        "vertica": Usual(TCP, 5433),
        "weaviate": Usual(HTTP, 80),
        "webhdfs": Usual(HTTP, 9870),
        "winrm": Usual(TCP, 5985),
        "ydb": Usual(TCP, 2136),
        "zendesk": Usual(HTTPS, 443),
    }
)
"""By `conn_type`. A type that is not here is a TCP connection, where it names host and port."""

_NOWHERE: Mapping[str, str] = MappingProxyType(
    {
        "": "it names no type: its scheme, if it has one, holds other characters than letters, digits, +, - and .",
        "fs": "it is a path of its container",
        "package_index": "packages are installed before a task runs",
        "sqlite": "it is a file of its container",
        "kubernetes": "which cluster it leads to is in a file of its container; the pod's own is a source of its own",
        "gcpcloudsqldb": "which address the Cloud SQL proxy or the instance has is not named",
    }
)


def endpoints(parts: Parts) -> tuple[Endpoint, ...]:
    """Where a connection leads: at least one place. Raises Unreadable with why there is none."""
    if parts.conn_type in _NOWHERE:
        raise Unreadable(_NOWHERE[parts.conn_type])
    find = _SPECIAL.get(parts.conn_type, _plain)
    login = Login(
        user=parts.login,
        database=parts.schema,
        password=parts.password,
        parameters=tuple(
            (name, value)
            for name in ("sslmode", "sslrootcert", "sslcert", "sslkey")
            if isinstance(value := parts.extra.get(name), str)
        ),
    )
    found = dict.fromkeys(with_login(endpoint, login) for endpoint in find(parts))
    if not found:
        raise Unreadable("it names no host")
    return tuple(found)


def _usual(parts: Parts) -> Usual:
    return USUAL.get(parts.conn_type, Usual(TCP, None))


def _plain(parts: Parts) -> Iterator[Endpoint]:
    """Host and port as they stand in the connection, or those of its type."""
    usual = _usual(parts)
    if not parts.host and not usual.host:
        raise Unreadable("it names no host")
    yield from _at(parts.host or usual.host, parts, usual)


def _at(host: str, parts: Parts, usual: Usual) -> Iterator[Endpoint]:
    if host.lower().startswith("jdbc:"):
        yield from _of_jdbc(host)
        return
    yield from listed(host, ask=usual.ask, port=parts.port, usual=usual.port)


def _http(parts: Parts) -> Iterator[Endpoint]:
    """HttpHook: the schema is the protocol, http where there is none; a host may be a URL, or name SRV records."""
    if _true(parts.extra.get("srv_lookup")):
        for found in listed(_needed(parts), ask=TCP, usual=80):
            yield replace(found, ask=Ask.SRV)
        return
    protocol = parts.schema.lower()
    ask = HTTPS if protocol == "https" else HTTP
    yield from _at(_needed(parts), parts, Usual(ask, 443 if ask is HTTPS else 80))


def _https_by_schema(parts: Parts) -> Iterator[Endpoint]:
    """Elasticsearch and its like: the port is the same, the schema says whether it speaks TLS."""
    usual = _usual(parts)
    schema = parts.schema.lower()
    ask = {"http": HTTP, "https": HTTPS}.get(schema, usual.ask)
    yield from _at(parts.host or usual.host or _needed(parts), parts, Usual(ask, usual.port))


def _needed(parts: Parts) -> str:
    if not parts.host:
        raise Unreadable("it names no host")
    return parts.host


def _mail(parts: Parts) -> Iterator[Endpoint]:
    """SmtpHook and ImapHook speak TLS from the start, unless told otherwise; Python's smtplib and imaplib say where."""
    plain = _true(parts.extra.get("disable_ssl")) if parts.conn_type == "smtp" else _false(parts.extra.get("use_ssl"))
    port = {"smtp": 25 if plain else 465, "imap": 143 if plain else 993}[parts.conn_type]
    yield from _at(_needed(parts), parts, Usual(TCP, port))


def _true(value: object) -> bool:
    return str(value).lower() in {"true", "1", "yes"}


def _false(value: object) -> bool:
    return str(value).lower() in {"false", "0", "no"}


def _kafka(parts: Parts) -> Iterator[Endpoint]:
    servers = parts.extra.get("bootstrap.servers") or parts.host
    if not isinstance(servers, str) or not servers:
        raise Unreadable("it names no bootstrap.servers")
    # A listener may be named as in Kafka's own configuration.
    for server in servers.split(","):
        yield from listed(server.rpartition("://")[2].strip(), ask=TCP, port=parts.port, usual=9092)


def _snowflake(parts: Parts) -> Iterator[Endpoint]:
    host = _said(parts, "host") or (parts.host if "." in parts.host else "")
    if not host:
        account, region = _said(parts, "account") or parts.host, _said(parts, "region")
        if not account:
            raise Unreadable("it names neither an account nor a host")
        account = account.removesuffix(".snowflakecomputing.com")
        host = f"{account}.{region}" if region and "." not in account else account
        host = f"{host}.snowflakecomputing.com"
    yield from listed(host, ask=HTTPS, port=parts.port, usual=443)


def _said(parts: Parts, name: str) -> str:
    value = parts.extra.get(name)
    return value.strip() if isinstance(value, str) else ""


def _aws(parts: Parts) -> Iterator[Endpoint]:
    """AwsGenericHook reads `endpoint_url`, and one of each service in `service_config`."""
    urls = [_said(parts, "endpoint_url") or _said(parts, "host")]
    services = parts.extra.get("service_config")
    if isinstance(services, dict):
        options = (services[name] for name in sorted(services, key=str))
        urls += [url for of in options if isinstance(of, dict) and isinstance(url := of.get("endpoint_url"), str)]
    urls = [url for url in urls if url] or ([parts.host] if parts.host else [])
    if not urls:
        raise Unreadable("it has no endpoint_url; which of AWS's services it is for is not named")
    for url in urls:
        yield from listed(url, ask=HTTPS, port=parts.port)


def _google(parts: Parts) -> Iterator[Endpoint]:
    """A key is exchanged for a token at one place, whatever service follows."""
    if parts.host:
        yield from _plain(parts)
    elif parts.extra.get("keyfile"):
        yield from listed("oauth2.googleapis.com", ask=HTTPS, usual=443)
    else:
        raise Unreadable("it names no endpoint; which of Google's services it is for is not named")


def _azure_storage(parts: Parts) -> Iterator[Endpoint]:
    """WasbHook: the account's URL, or its name, as the host or as the login. `adls` and its like differ in the name."""
    service = "dfs" if parts.conn_type in {"adls", "azure_data_lake"} else "blob"
    url = _said(parts, "account_url") or _said(parts, "blob_endpoint") or parts.host
    if "." not in url:
        account = _said(parts, "account_name") or url or parts.login
        if not account:
            raise Unreadable("it names no storage account")
        url = f"{account}.{service}.core.windows.net"
    yield from listed(url, ask=HTTPS, port=parts.port, usual=443)


def _azure_cosmos(parts: Parts) -> Iterator[Endpoint]:
    """AzureCosmosDBHook: the endpoint is the login."""
    if not (parts.login or parts.host):
        raise Unreadable("it names no endpoint")
    yield from listed(parts.login or parts.host, ask=HTTPS, port=parts.port, usual=443)


def _salesforce(parts: Parts) -> Iterator[Endpoint]:
    domain = _said(parts, "domain")
    host = _said(parts, "instance_url") or parts.host or (f"{domain}.salesforce.com" if domain else "")
    yield from listed(host or USUAL["salesforce"].host, ask=HTTPS, port=parts.port, usual=443)


def _mongo(parts: Parts) -> Iterator[Endpoint]:
    """MongoHook: with `srv`, the host is a domain whose SRV records name the servers."""
    if _true(parts.extra.get("srv")):
        for found in listed(_needed(parts), ask=TCP, usual=27017):
            yield replace(found, ask=Ask.SRV, host=f"_mongodb._tcp.{found.host}")
        return
    yield from _plain(parts)


def _spark(parts: Parts) -> Iterator[Endpoint]:
    host = _needed(parts)
    if host.lower().partition("[")[0] in {"local", "yarn"}:
        raise Unreadable("its master is no place on the network, or in a file of its container")
    if host.lower().startswith("k8s://"):
        host = host[len("k8s://") :]
        yield from listed(host if "://" in host else f"https://{host}", ask=HTTPS, port=parts.port, usual=443)
        return
    yield from _plain(parts)


def _oracle(parts: Parts) -> Iterator[Endpoint]:
    """OracleHook: `dsn` in extra, as host[:port]/service, or the host."""
    dsn = _said(parts, "dsn")
    if "(" in dsn or "(" in parts.host:
        raise Unreadable("its address is an Oracle Net descriptor, which is not read")
    yield from _at(dsn.partition("/")[0] if dsn else _needed(parts), parts, USUAL["oracle"])


def _jdbc(parts: Parts) -> Iterator[Endpoint]:
    yield from _at(_needed(parts), parts, Usual(TCP, None))


def _of_jdbc(url: str) -> Iterator[Endpoint]:
    """`jdbc:postgresql://host:5432/db`, `jdbc:sqlserver://host:1433;database=x`, `jdbc:oracle:thin:@host:1521:x`."""
    rest = url[len("jdbc:") :]
    if "://" in rest:
        scheme, _, authority = rest.partition("://")
        kind = scheme.lower().rpartition(":")[2]
        port = _JDBC_PORTS.get(kind)
        authority = authority.partition(";")[0]  # what follows are properties, in the style of SQL Server
        ask = {"postgresql": Ask.POSTGRES, "mysql": NAME, "mariadb": NAME}.get(kind, TCP)
        yield from listed(authority, ask=ask, usual=port)
    elif rest.lower().startswith("oracle:") and "@" in rest and "(" not in rest:
        host, _, more = rest.rpartition("@")[2].removeprefix("//").partition(":")
        number = more.partition(":")[0].partition("/")[0]
        yield from listed(host.partition("/")[0], ask=TCP, port=int(number) if number.isdecimal() else 1521)
    else:
        raise Unreadable("the form of its JDBC URL is not known")


_JDBC_PORTS = {
    "db2": 50000,
    "hive2": 10000,
    "mariadb": 3306,
    "mysql": 3306,
    "postgresql": 5432,
    "presto": 8080,
    "redshift": 5439,
    "snowflake": 443,
    "sqlserver": 1433,
    "trino": 8080,
    "vertica": 5433,
}

_SPECIAL: Mapping[str, Callable[[Parts], Iterator[Endpoint]]] = MappingProxyType(
    {
        "adls": _azure_storage,
        "aws": _aws,
        "azure_cosmos": _azure_cosmos,
        "azure_data_lake": _azure_storage,
        "elasticsearch": _https_by_schema,
        "google_cloud_platform": _google,
        "http": _http,
        "imap": _mail,
        "jdbc": _jdbc,
        "kafka": _kafka,
        "livy": _https_by_schema,
        "mongo": _mongo,
        "opensearch": _https_by_schema,
        "oracle": _oracle,
        "s3": _aws,
        "salesforce": _salesforce,
        "smtp": _mail,
        "snowflake": _snowflake,
        "spark": _spark,
        "wasb": _azure_storage,
    }
)


def usual_places() -> Iterator[tuple[str, str, Any]]:
    """(conn_type, default host, default port) for the documentation."""
    for name, usual in USUAL.items():
        yield name, usual.host, usual.port
