"""Query a Postgres database.

Which one, the connection `warehouse` says: AIRFLOW_CONN_WAREHOUSE=postgresql://user:password@warehouse:5432/analytics.
Airflow's own image brings the driver. Where an image has none, the task asks the server whether it is one and no more.
"""

from __future__ import annotations

import socket
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

try:
    from airflow.sdk import BaseHook, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.hooks.base import BaseHook

TIMEOUT_SECONDS = 10
SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
"""The first question of PostgreSQL's protocol (version 3): may the rest be encrypted? The answer is S or N."""


def ask(warehouse: Any) -> int:
    """A number out of the database."""
    address = warehouse.host, warehouse.port or 5432
    try:
        import psycopg2  # noqa: PLC0415 - not every image has it
    except ImportError:
        with socket.create_connection(address, timeout=TIMEOUT_SECONDS) as connection:
            connection.sendall(SSL_REQUEST)
            answer = connection.recv(1)
        if answer not in {b"S", b"N"}:
            raise ConnectionError(f"expected a Postgres server at {address}, got {answer!r}") from None
        return 1
    session = psycopg2.connect(
        host=address[0],
        port=address[1],
        user=warehouse.login,
        password=warehouse.password,
        dbname=warehouse.schema,
        connect_timeout=TIMEOUT_SECONDS,
    )
    with closing(session), session.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()[0]


@dag(schedule=None, start_date=datetime(2026, 1, 1), catchup=False, tags=["netprobe"])
def netprobe_example_postgres() -> None:
    """Ask a database."""

    @task(retries=2, retry_delay=timedelta(seconds=30))
    def query() -> int:
        return ask(BaseHook.get_connection("warehouse"))

    query()


netprobe_example_postgres()
