"""Run by an interpreter that has Airflow: reads connection values from standard input, and prints what Airflow sees.

A JSON list goes in. A JSON object comes out: `connections`, for each value `[conn_type, host, port, login, schema]`
or the name of the exception; and with Airflow 3 `execution_api`, its URL by the environment and what its health says
to somebody without a token.
"""

from __future__ import annotations

import json
import sys
from typing import Any

try:
    # what tasks of Airflow 3 get
    from airflow.sdk import Connection  # type: ignore[import-not-found]
except ImportError:
    from airflow.models import Connection  # type: ignore[import-not-found]


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


def execution_api() -> object:
    """The place of the execution API, and the answer of its own code."""
    # Airflow 3 alone has these.
    from airflow.api_fastapi.execution_api.app import (  # type: ignore[import-not-found] # noqa: PLC0415
        create_task_execution_api_app,
    )
    from airflow.executors.base_executor import (  # type: ignore[import-not-found] # noqa: PLC0415
        get_execution_api_server_url,
    )
    from starlette.testclient import TestClient  # type: ignore[import-not-found] # noqa: PLC0415

    health = TestClient(create_task_execution_api_app()).get("/health")
    return [get_execution_api_server_url(), health.status_code, health.json()]


answer: dict[str, Any] = {"connections": [read(value) for value in json.load(sys.stdin)]}
if Connection.__module__.startswith("airflow.sdk"):
    answer["execution_api"] = execution_api()
print("\n" + json.dumps(answer))
