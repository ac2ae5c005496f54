"""Run by an interpreter that has Airflow: reads connection values from standard input, and prints what Airflow sees.

Both are JSON: a list of values; for each, `[conn_type, host, port, login, schema]`, or the name of the exception.
"""

from __future__ import annotations

import json
import sys

try:
    from airflow.sdk import Connection  # what tasks of Airflow 3 get
except ImportError:
    from airflow.models import Connection


def read(value: str) -> object:
    """As `BaseSecretsBackend.deserialize_connection` does."""
    text = value.strip()
    try:
        if text[0] == "{":
            connection = Connection.from_json(value=text, conn_id="x")
        elif hasattr(Connection, "from_uri"):
            connection = Connection.from_uri(conn_id="x", uri=text)
        else:
            connection = Connection(conn_id="x", uri=text)
    except Exception as error:  # noqa: BLE001 - whatever it is, a task would not get its connection
        return type(error).__name__
    return [connection.conn_type, connection.host, connection.port, connection.login, connection.schema]


answers = [read(value) for value in json.load(sys.stdin)]
print("\n" + json.dumps(answers))
