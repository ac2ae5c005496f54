"""Connections as people write them, and where each leads.

Most are the examples of Airflow's documentation and of its providers', with other names; the rest are traps.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

LEADS: Mapping[str, tuple[str, ...]] = {
    # --- databases ----------------------------------------------------------------------------------------------------
    "postgresql://user:p%40ss%2Fw@db.prod.svc:5432/analytics?sslmode=require": ("postgres db.prod.svc:5432",),
    "postgres://user@db.prod.svc/analytics": ("postgres db.prod.svc:5432",),
    "postgresql://postgres_user:XXXXXXXXXXXX@1.1.1.1:5432/postgresdb?sslmode=verify-ca"
    "&sslcert=%2Ftmp%2Fclient-cert.pem&sslkey=%2Ftmp%2Fclient-key.pem&sslrootcert=%2Ftmp%2Fserver-ca.pem": (
        "postgres 1.1.1.1:5432",
    ),
    "postgresql://u:p@[2001:db8::1]:5432/db": ("postgres [2001:db8::1]:5432",),
    "postgresql://u:p@[2001:db8::1]/db": ("postgres [2001:db8::1]:5432",),
    "postgres://DB.Prod.SVC/db": ("postgres db.prod.svc:5432",),
    "postgres://u:p@db1.example.com,db2.example.com/app": (
        "postgres db1.example.com:5432",
        "postgres db2.example.com:5432",
    ),
    '{"conn_type":"postgres","host":"h","port":"5432","extra":"{\\"sslmode\\": \\"require\\"}"}': ("postgres h:5432",),
    '{"conn_type": "postgresql", "login": "u", "password": "p", "host": "h.example.com", "schema": "s"}': (
        "postgres h.example.com:5432",
    ),
    '  {"conn_type": "mysql", "login": "root", "password": "plainpassword", "host": "mysql", "port": 3307} ': (
        "name mysql:3307",
    ),
    "mysql://mysql_user:XXXXXXXXXXXX@db.example.com:3306/mysqldb?charset=utf8": ("name db.example.com:3306",),
    "mysql://u@dbhost/s": ("name dbhost:3306",),
    "mssql://sa:pw@sql.corp.internal:1433/db": ("tcp sql.corp.internal:1433",),
    "mssql://sa:pw@sql.corp.internal/db": ("tcp sql.corp.internal:1433",),
    "oracle://oracle_user:XXXXXXXXXXXX@1.1.1.1:1521?encoding=UTF-8&nencoding=UTF-8&threaded=False&events=False"
    "&mode=sysdba&purity=new": ("tcp 1.1.1.1:1521",),
    "oracle://u:p@?dsn=ora.example.com%3A1522%2Fservice": ("tcp ora.example.com:1522",),
    "redshift://awsuser:password@redshift-cluster-1.123456789.us-west-1.redshift.amazonaws.com:5439/": (
        "tcp redshift-cluster-1.123456789.us-west-1.redshift.amazonaws.com:5439",
    ),
    "redshift://awsuser:password@redshift-cluster-1.123456789.us-west-1.redshift.amazonaws.com/dev": (
        "tcp redshift-cluster-1.123456789.us-west-1.redshift.amazonaws.com:5439",
    ),
    "vertica://u:p@vertica.example.com/db": ("tcp vertica.example.com:5433",),
    "exasol://u:p@exasol.example.com/schema": ("tcp exasol.example.com:8563",),
    "teradata://td_user:XXXXXXXXXXXX@1.1.1.1/teradatadb?tmode=tera&sslmode=verify-ca": ("tcp 1.1.1.1:1025",),
    "impala://impala.example.com/db": ("tcp impala.example.com:21050",),
    "cassandra://u:p@c1.example.com,c2.example.com/keyspace": (
        "tcp c1.example.com:9042",
        "tcp c2.example.com:9042",
    ),
    "mongodb://u:p@mongo.example.com:27017/db": ("tcp mongo.example.com:27017",),
    "mongo://u:p@mongo.example.com/db?ssl=true": ("tcp mongo.example.com:27017",),
    "mongo://u:p@cluster0.abcde.mongodb.net/db?srv=true": ("srv _mongodb._tcp.cluster0.abcde.mongodb.net:27017",),
    '{"conn_type": "mongo", "host": "h1:27017,h2:27018,h3"}': ("tcp h1:27017", "tcp h2:27018", "tcp h3:27017"),
    "redis://:secret@redis.example.com:6380/0": ("tcp redis.example.com:6380",),
    "redis://redis": ("tcp redis:6379",),
    "neo4j://neo4j:password@neo4j.example.com/db": ("tcp neo4j.example.com:7687",),
    "trino://trino@trino.example.com:8080/hive?protocol=https": ("tcp trino.example.com:8080",),
    "trino://trino@trino/hive": ("tcp trino:8080",),
    "presto://presto@presto.example.com/hive": ("tcp presto.example.com:8080",),
    "hiveserver2://hive@hive.example.com/default": ("tcp hive.example.com:10000",),
    "hive-cli://beeline-username:beeline-password@jdbc-hive-host:80/hive-database?use_beeline=true": (
        "tcp jdbc-hive-host:80",
    ),
    "hive-metastore://metastore.example.com": ("tcp metastore.example.com:9083",),
    "jdbc://u:p@jdbc%3Apostgresql%3A%2F%2Fdb%3A5432%2Fx": ("postgres db:5432",),
    '{"conn_type": "jdbc", "host": "jdbc:sqlserver://sql.example.com:1434;databaseName=x;encrypt=true"}': (
        "tcp sql.example.com:1434",
    ),
    '{"conn_type": "jdbc", "host": "jdbc:oracle:thin:@ora.example.com:1522:orcl"}': ("tcp ora.example.com:1522",),
    '{"conn_type": "jdbc", "host": "jdbc:mysql://my.example.com/x?user=u&password=p"}': ("name my.example.com:3306",),
    "elasticsearch://elastic:pw@es.example.com:9200/http": ("http es.example.com:9200",),
    "elasticsearch://elastic:pw@es.example.com/https": ("https es.example.com:9200",),
    "druid://druid-broker.example.com:8082/?endpoint=druid%2Fv2%2Fsql": ("http druid-broker.example.com:8082",),
    "snowflake://user:password@/db-schema?account=xy12345&database=db&region=eu-central-1&warehouse=wh": (
        "https xy12345.eu-central-1.snowflakecomputing.com:443",
    ),
    "snowflake://user:password@/s?__extra__=%7B%22account%22%3A+%22org-acct%22%2C+%22warehouse%22%3A+%22w%22%7D": (
        "https org-acct.snowflakecomputing.com:443",
    ),
    '{"conn_type": "snowflake", "login": "u", "password": "p", "extra": {"extra__snowflake__account": "acct"}}': (
        "https acct.snowflakecomputing.com:443",
    ),
    '{"conn_type": "snowflake", "extra": {"account": "a", "host": "acct.privatelink.snowflakecomputing.com"}}': (
        "https acct.privatelink.snowflakecomputing.com:443",
    ),
    # --- HTTP ---------------------------------------------------------------------------------------------------------
    "http://user:pw@api.example.com/https": ("https api.example.com:443",),
    "http://api.example.com:8443/https": ("https api.example.com:8443",),
    "http://api.example.com": ("http api.example.com:80",),
    "https://api.example.com": ("https api.example.com:443",),
    "http://https%3A%2F%2Fapi.example.com%2F/": ("https api.example.com:443",),
    "http://https%3A%2F%2Fapi.example.com%2Fbase%3Ftoken%3Dx/": ("https api.example.com:443",),
    "http://https://api.example.com:8443/v1": ("https api.example.com:8443",),
    '{"conn_type": "http", "host": "https://api.example.com/v2/", "port": 8443}': ("https api.example.com:8443",),
    '{"conn_type": "http", "host": "api.example.com/v2", "schema": "https"}': ("https api.example.com:443",),
    "http://_api._tcp.example.com/https?srv_lookup=true": ("srv _api._tcp.example.com:80",),
    '{"conn_type": "http", "host": "h", "extra": "not json"}': ("http h:80",),
    '{"conn_type": "http", "host": "h", "extra": [1]}': ("http h:80",),
    "http://h?__extra__=not+json": ("http h:80",),
    "databricks://token:dapi123@adb-1234.5.azuredatabricks.net": ("https adb-1234.5.azuredatabricks.net:443",),
    "databricks://@https%3A%2F%2Fadb-1234.5.azuredatabricks.net?token=yourtoken": (
        "https adb-1234.5.azuredatabricks.net:443",
    ),
    "dbt-cloud://account_id:api_token@": ("https cloud.getdbt.com:443",),
    "dbt-cloud://account_id:api_token@my-access-url.us1.dbt.com": ("https my-access-url.us1.dbt.com:443",),
    "slack://:xoxb-token@": ("https slack.com:443",),
    "slackwebhook://:T00%2FB00%2FXXX@hooks.slack.com%2Fservices": ("https hooks.slack.com:443",),
    "salesforce://u:p@?security_token=t&domain=test": ("https test.salesforce.com:443",),
    "livy://livy-server.example.com:8998/http?headers=false": ("http livy-server.example.com:8998",),
    "livy://livy-server.example.com": ("http livy-server.example.com:8998",),
    "airbyte://airbyte.example.com:8000": ("http airbyte.example.com:8000",),
    "tableau://u:p@https%3A%2F%2Fmy-tableau-server": ("https my-tableau-server:443",),
    "vault://vault.example.com:8200?auth_type=token": ("http vault.example.com:8200",),
    # --- clouds -------------------------------------------------------------------------------------------------------
    "aws://AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI%2FK7MDENG%2FbPxRfiCYEXAMPLEKEY@/"
    "?endpoint_url=http%3A%2F%2Flocalhost%3A4566%2F": ("http localhost:4566",),
    '{"conn_type": "aws", "extra": {"region_name": "eu-west-1", "service_config": '
    '{"s3": {"endpoint_url": "https://s3.custom.url"}, "sts": {"endpoint_url": "https://sts.eu-west-2.amazonaws.com"}}'
    "}}": ("https s3.custom.url:443", "https sts.eu-west-2.amazonaws.com:443"),
    "google-cloud-platform://?key_path=%2Fkeys%2Fkey.json&scope=https%3A%2F%2Fwww.googleapis.com%2Fauth": (
        "https oauth2.googleapis.com:443",
    ),
    "wasb://blob%20username:blob%20password@myblob.com": ("https myblob.com:443",),
    "wasb://account:key@": ("https account.blob.core.windows.net:443",),
    '{"conn_type": "wasb", "login": "acct", "extra": {"connection_string": '
    '"DefaultEndpointsProtocol=https;AccountName=store;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net"}}': (
        "https store.blob.core.windows.net:443",
    ),
    "adls://account:key@": ("https account.dfs.core.windows.net:443",),
    "azure-cosmos://https%3A%2F%2Fairflow.azure.com:master%20key@?database_name=mydatabase": (
        "https airflow.azure.com:443",
    ),
    # --- messages, files, mail, machines ------------------------------------------------------------------------------
    '{"conn_type":"kafka","extra":{"bootstrap.servers":"b1:9092,b2:9092", "sasl.password": "secret"}}': (
        "tcp b1:9092",
        "tcp b2:9092",
    ),
    "kafka://?bootstrap.servers=broker%3A9092&group.id=my-group": ("tcp broker:9092",),
    "amqp://u:p@rabbit.example.com/vhost": ("tcp rabbit.example.com:5672",),
    "rabbitmq://u:p@rabbit.example.com:5671/vhost": ("tcp rabbit.example.com:5671",),
    "mqtt://mqtt.example.com": ("tcp mqtt.example.com:1883",),
    "ssh://user:pass@localhost:22?timeout=10&compress=false&no_host_key_check=true": ("name localhost:22",),
    "ssh://user@bastion": ("name bastion:22",),
    "sftp://user@sftp.example.com?key_file=%2Fkeys%2Fid": ("name sftp.example.com:22",),
    "ftp://user:pass@localhost?passive=false": ("tcp localhost:21",),
    "smtp://username%40example.com:pass@smtp.example.com:587?disable_tls=false": ("tcp smtp.example.com:587",),
    "smtp://u:p@smtp.example.com": ("tcp smtp.example.com:465",),
    "smtp://smtp.example.com?disable_ssl=true&from_email=netprobe@example.com": ("tcp smtp.example.com:25",),
    "imap://u:p@imap.example.com": ("tcp imap.example.com:993",),
    "imap://u:p@imap.example.com?use_ssl=false": ("tcp imap.example.com:143",),
    "samba://user:pw@files.example.com/share": ("tcp files.example.com:445",),
    "spark://spark%3A%2F%2Fspark-master:7078?deploy-mode=client": ("tcp spark-master:7078",),
    '{"conn_type": "spark", "host": "spark://spark-master"}': ("tcp spark-master:7077",),
    '{"conn_type": "spark", "host": "k8s://https://10.96.0.1", "port": 6443}': ("https 10.96.0.1:6443",),
    "winrm://u:p@windows.example.com": ("tcp windows.example.com:5985",),
    "webhdfs://namenode:9870": ("http namenode:9870",),
    "my-custom-type://host.example.com:3306/x": ("name host.example.com:3306",),
    "my-custom-type://host.example.com:1234/x": ("tcp host.example.com:1234",),
}
"""By value: where it leads, as `how host:port` each."""

LEADS_NOWHERE: Mapping[str, str] = {
    "db.prod": "it names no type",
    "my_custom_type://host.example.com:1234/x": "it names no type",
    "aws://AKIA:secret@/?region_name=eu-central-1": "endpoint_url",
    "aws://": "endpoint_url",
    "google-cloud-platform://?project=p": "which of Google's services",
    "postgresql://u:p@%2Fvar%2Frun%2Fpostgresql/db": "socket",
    "mysql:///db?unix_socket=%2Fvar%2Frun%2Fmysqld.sock": "it names no host",
    "mysql://mysql_user:XXXXXXXXXXXX@1.1.1.1:3306/mysqldb?charset=utf8": "shuts out who connects without a login",
    "sqlite:///tmp/sqlite_default.db": "file",
    "spark://local%5B%2A%5D": "no place on the network",
    '{"conn_type": "spark", "host": "yarn"}': "no place on the network",
    "kubernetes://?in_cluster=True": "which cluster",
    "my-custom-type://host.example.com": "it names no port",
    "custom-without-host://": "it names no host",
    '{"conn_type": "oracle", "host": "(DESCRIPTION=(ADDRESS=(PROTOCOL=tcp)(HOST=h)(PORT=1521)))"}': "descriptor",
    '{"conn_type": "snowflake"}': "neither an account nor a host",
    '{"conn_type": "kafka", "extra": {}}': "bootstrap.servers",
    '{"conn_type": "postgres", "host": "not a host"}': "no host name",
    '{"conn_type": "postgres", "host": "h", "port": 70000}': "its port is no port",
}
"""By value: a part of why it is no target. Airflow reads each of these."""

REFUSED: tuple[str, ...] = (
    "mongodb://h1:27017,h2:27017/db",
    "postgres://u:p/w@host:5432/db",
    "postgres://host:port/db",
    "postgres://host:99999/db",
    "postgres://[2001:db8::1/db",
    "a://b://c://d",
    "http://user@https://api.example.com",
    '{"conn_type": "postgres", "host": "h", "port": "abc"}',
    '{"conn_type": "postgres", "conn_id": "x", "host": "h"}',
    '{"conn_type": "postgres", "unknown": 1, "host": "h"}',
    '{"conn_type": "postgres", "host": "h"',
)
"""What Airflow itself raises for."""


_PIECES = (
    *("postgres", "http", "https", "my-type", "aws", "a", "Host", "db.example.com", "h1,h2", "[::1]", "[fe80::1%eth0]"),
    *("://", "://", "://", ":", ":", "/", "/", "@", "@", "?", "#", "&", "=", "%40", "%2F", "%3A", "%25", "%zz", "%"),
    *(
        "5432",
        "0",
        "99999",
        "user",
        "pass",
        "extra",
        "__extra__",
        "%7B%7D",
        " ",
        "+",
        ";",
        ",",
        "é",
        "{",
        "}",
        "[",
        "]",
    ),
)
_VALUES: tuple[Any, ...] = (
    None,
    "",
    "host",
    "https://host/x",
    0,
    5432,
    "5432",
    "x",
    1.5,
    True,
    [],
    {},
    {"a": 1},
    '{"a": 1}',
    "[]",
    "{",
)


def generated(count: int) -> Iterator[str]:
    """Values put together at random, the same each time: URIs that nearly are some, and JSON of the right keys."""
    dice = random.Random(1)
    keys = ("conn_type", "host", "login", "password", "schema", "port", "extra", "description", "unknown")
    for number in range(count):
        pieces = [dice.choice(_PIECES) for _ in range(dice.randrange(1, 9))]
        start = dice.choice(("", "postgres://", "postgres://user:pass@", "http://https://", "my-type://"))
        if number % 4:
            yield start + "".join(pieces)
        else:
            yield json.dumps({key: dice.choice(_VALUES) for key in dice.sample(keys, dice.randrange(1, 6))})
