"""A DAG for each way in which a task ends. No retries: it ends for good."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime

try:
    from airflow.sdk import dag, task  # type: ignore[import-not-found]
    from airflow.sdk.exceptions import AirflowSkipException  # type: ignore[import-not-found]
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task  # type: ignore[import-not-found]
    from airflow.exceptions import AirflowSkipException  # type: ignore[import-not-found]

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def fails() -> None:
    raise ConnectionError("no connection, says the task")


def exits() -> None:
    sys.exit(3)


def skips() -> None:
    raise AirflowSkipException


def works_on() -> None:
    time.sleep(600)


def succeeds() -> str:
    return "done"


for function in (fails, exits, skips, works_on, succeeds):

    @dag(dag_id=function.__name__, schedule=None, start_date=BEGINNING, catchup=False)  # type: ignore[untyped-decorator]
    def make() -> None:
        task(function, task_id="work")()  # noqa: B023 - called at once

    globals()[function.__name__] = make()
