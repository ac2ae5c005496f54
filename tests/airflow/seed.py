"""Makes a metadata database, a run of each DAG for each name, and the command that a worker pod would get for its task.

Airflow's own interpreter runs this file, either version's, with nothing of netprobe in it. What the scheduler would do
by and by is done at once: tasks are queued. Reads the names of runs from standard input as JSON, and prints
`{"run": {"dag": {"task": …, "args": […]}}}`.
"""

# ruff: noqa: PLC0415 - each version has modules of its own

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow import __version__, settings  # type: ignore[import-not-found]
from airflow.utils.db import initdb  # type: ignore[import-not-found]
from airflow.utils.state import DagRunState, TaskInstanceState  # type: ignore[import-not-found]
from airflow.utils.types import DagRunType  # type: ignore[import-not-found]

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def airflow3(names: list[str]) -> dict[str, dict[str, Any]]:
    """As the DAG processor and the scheduler of Airflow 3 do. What workers import is imported once, to be compiled."""
    import airflow.sdk.execution_time.execute_workload  # type: ignore[import-not-found]
    import airflow.sdk.execution_time.task_runner  # type: ignore[import-not-found]  # noqa: F401
    from airflow.api_fastapi.auth.tokens import (  # type: ignore[import-not-found]
        JWTGenerator,
        get_signing_args,
    )
    from airflow.configuration import conf  # type: ignore[import-not-found]
    from airflow.dag_processing.bundles.manager import DagBundlesManager  # type: ignore[import-not-found]
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db  # type: ignore[import-not-found]
    from airflow.executors import workloads  # type: ignore[import-not-found]
    from airflow.providers.cncf.kubernetes.pod_generator import (  # type: ignore[import-not-found]
        workload_to_command_args,
    )
    from airflow.serialization.serialized_objects import DagSerialization  # type: ignore[import-not-found]
    from airflow.utils.types import DagRunTriggeredByType

    session = settings.Session()
    manager = DagBundlesManager()
    manager.sync_bundles_to_db(session=session)
    session.commit()
    (bundle,) = manager.get_all_dag_bundles()
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    assert not bag.import_errors, bag.import_errors
    sync_bag_to_db(bag, bundle.name, bundle.version)
    generator = JWTGenerator(
        valid_for=conf.getint("execution_api", "jwt_expiration_time"),
        audience=conf.get_mandatory_list_value("execution_api", "jwt_audience")[0],
        issuer=conf.get("api_auth", "jwt_issuer", fallback=None),
        **get_signing_args(make_secret_key_if_needed=False),
    )
    made: dict[str, dict[str, Any]] = {}
    for day, name in enumerate(names):
        for dag_id, dag in bag.dags.items():
            when = BEGINNING + timedelta(days=day)
            run = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)).create_dagrun(
                run_id=name,
                logical_date=when,
                data_interval=(when, when),
                run_after=when,
                run_type=DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.TEST,
                state=DagRunState.RUNNING,
                start_date=when,
                session=session,
            )
            (instance,) = run.get_task_instances(session=session)
            instance.try_number = 1
            instance.state = TaskInstanceState.QUEUED
            session.flush()
            workload = workloads.ExecuteTask.make(instance, generator=generator)
            made.setdefault(name, {})[dag_id] = {
                "task": instance.task_id,
                "args": workload_to_command_args(workload),
            }
    session.commit()
    return made


def airflow2(names: list[str]) -> dict[str, dict[str, Any]]:
    """As the scheduler of Airflow 2 does."""
    import airflow.jobs.local_task_job_runner  # type: ignore[import-not-found]
    import airflow.task.task_runner.standard_task_runner  # type: ignore[import-not-found]  # noqa: F401
    from airflow.executors.base_executor import BaseExecutor  # type: ignore[import-not-found]
    from airflow.models import DagBag  # type: ignore[import-not-found]
    from airflow.models.taskinstance import TaskInstance  # type: ignore[import-not-found]

    session = settings.Session()
    bag = DagBag(include_examples=False)
    assert not bag.import_errors, bag.import_errors
    bag.sync_to_db(session=session)
    made: dict[str, dict[str, Any]] = {}
    for day, name in enumerate(names):
        for dag_id, dag in bag.dags.items():
            when = BEGINNING + timedelta(days=day)
            run = dag.create_dagrun(
                run_id=name,
                execution_date=when,
                data_interval=(when, when),
                run_type=DagRunType.MANUAL,
                state=DagRunState.RUNNING,
                start_date=when,
                session=session,
            )
            (instance,) = run.get_task_instances(session=session)
            instance.try_number = 1
            instance.state = TaskInstanceState.QUEUED
            session.flush()
            args = TaskInstance.generate_command(
                dag_id, instance.task_id, run_id=name, local=True, file_path=dag.fileloc, map_index=-1
            )
            BaseExecutor.validate_airflow_tasks_run_command(args)
            made.setdefault(name, {})[dag_id] = {
                "task": instance.task_id,
                "args": args,
            }
    session.commit()
    return made


def main() -> None:
    initdb()
    made = airflow2 if __version__.startswith("2.") else airflow3
    json.dump(made(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
