"""Call a Service of the same cluster.

Which one, the variable `reports_url` says: AIRFLOW_VAR_REPORTS_URL=http://reports.data.svc.cluster.local:8080/daily.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.request import ProxyHandler, Request, build_opener

try:
    from airflow.sdk import Variable, dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.models import Variable

TIMEOUT_SECONDS = 10


@dag(schedule=None, start_date=datetime(2026, 1, 1), catchup=False, tags=["netprobe"])
def netprobe_example_service() -> None:
    """Have a report made."""

    @task(retries=2, retry_delay=timedelta(seconds=30))
    def call() -> int:
        # What is in the cluster is reached without a proxy, whatever the environment says.
        direct = build_opener(ProxyHandler({}))
        request = Request(Variable.get("reports_url"), data=b"{}", headers={"Content-Type": "application/json"})
        with direct.open(request, timeout=TIMEOUT_SECONDS) as answer:
            print(f"{answer.status} {answer.reason}")
            return answer.status

    call()


netprobe_example_service()
