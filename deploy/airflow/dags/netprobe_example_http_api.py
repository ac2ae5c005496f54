"""Pull from an HTTP API: the DAG most people write first.

Where the API is, the connection `orders_api` says: AIRFLOW_CONN_ORDERS_API=https://api.example.com/orders. From an
environment variable netprobe knows it, too, and probes it.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from urllib.parse import urlunsplit
from urllib.request import urlopen

try:
    from airflow.sdk import BaseHook, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.hooks.base import BaseHook

TIMEOUT_SECONDS = 10


@dag(schedule=None, start_date=datetime(2026, 1, 1), catchup=False, tags=["netprobe"])
def netprobe_example_http_api() -> None:
    """Count the orders that an API lists."""

    @task(retries=2, retry_delay=timedelta(seconds=30))
    def pull() -> int:
        api = BaseHook.get_connection("orders_api")
        # The URI of a connection is not the URL it stands for: https://host/orders is type https and schema orders.
        host = f"{api.host}:{api.port}" if api.port else api.host
        url = urlunsplit((api.conn_type, host, f"/{api.schema or ''}", "", ""))
        with urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            orders = json.load(answer)
        print(f"{len(orders)} orders")
        return len(orders)

    pull()


netprobe_example_http_api()
