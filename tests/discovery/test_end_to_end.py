"""From the environment of a worker to what was found out: the real command, real servers, nothing configured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.lab.command import netprobe
from tests.lab.http_servers import application
from tests.lab.misbehaving import refusing_port
from tests.lab.nameservers import Nameserver, loopback_ip, zone
from tests.lab.nameservers import resolv_conf as names
from tests.lab.postgres import PASSWORD, PgBouncer, Postgres
from tests.lab.postgres import directory as postgres_directory

ZONE = """
kubernetes.default.svc.cluster.local. 5 IN A 10.96.0.1
airflow-api-server.airflow.svc.cluster.local. 5 IN A 127.0.0.1
airflow-pgbouncer.airflow.svc.cluster.local. 5 IN A 127.0.0.1
airflow-redis.airflow.svc.cluster.local. 5 IN A 127.0.0.1
warehouse.data.svc.cluster.local. 5 IN A 127.0.0.1
minio.storage.svc.cluster.local. 5 IN A 127.0.0.1
orders.shop.svc.cluster.local. 5 IN A 127.0.0.1
"""
SEARCH = "search airflow.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the servers of a worker listen."""

    api_server: int
    pgbouncer: int
    postgres: int
    redis: int
    http: int


def worker(ports: Ports, **more: str) -> dict[str, str]:
    """What the official chart (1.18) gives to a worker of Airflow 2, as far as the sidecar is shown it, and more."""
    metadata = f"postgresql://probe:{PASSWORD.replace(' ', '%20')}@airflow-pgbouncer.airflow:{ports.pgbouncer}/app"
    return {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(ports.redis),
        "AIRFLOW_HOME": "/opt/airflow",
        "AIRFLOW__CORE__FERNET_KEY": "c2VjcmV0",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN": f"{metadata}?sslmode=prefer",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"{metadata}?sslmode=prefer",
        "AIRFLOW_CONN_AIRFLOW_DB": f"{metadata}?sslmode=prefer",
        "AIRFLOW__CELERY__BROKER_URL": f"redis://:secret@airflow-redis:{ports.redis}/0",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{metadata}?sslmode=prefer",
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "airflow-statsd",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "s3://airflow-logs/tasks",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "minio",
        "AIRFLOW_CONN_MINIO": json.dumps(
            {
                "conn_type": "aws",
                "login": "minio",
                "password": "secret",
                "extra": {"endpoint_url": f"http://minio.storage:{ports.http}", "region_name": "eu-west-1"},
            }
        ),
        "AIRFLOW_CONN_WAREHOUSE": f"postgres://trusting:secret@warehouse.data:{ports.postgres}/app",
        "AIRFLOW_CONN_ORDERS_API": f"http://user:secret@orders.shop:{ports.http}/http",
        **more,
    }


@asynccontextmanager
async def servers(upstream: Postgres) -> AsyncIterator[Ports]:
    """An API server, pgbouncer in front of Postgres, something that accepts connections, and an HTTP server."""

    async def healthy(_: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with AsyncExitStack() as stack:
        home = stack.enter_context(postgres_directory())
        pgbouncer = stack.enter_context(PgBouncer(home, upstream))
        redis = await asyncio.start_server(accept, "127.0.0.1", 0)
        stack.push_async_callback(redis.wait_closed)
        stack.callback(redis.close)
        api_server = await stack.enter_async_context(application(web.get("/execution/health", healthy)))
        http = await stack.enter_async_context(application())
        yield Ports(
            api_server=int(api_server.rpartition(":")[2]),
            pgbouncer=pgbouncer.port,
            postgres=upstream.port,
            redis=redis.sockets[0].getsockname()[1],
            http=int(http.rpartition(":")[2]),
        )


async def checked(tmp_path: Path, nameserver: Nameserver, environ: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """`netprobe check` with a configuration that names no target: its exit code, and the outcomes by target."""
    config = tmp_path / "netprobe.yaml"
    path = names(tmp_path, nameserver, rest=SEARCH)
    config.write_text(f"discover: [airflow, kubernetes]\ndefaults: {{resolv_conf: {path}}}\n", encoding="utf-8")
    done = await netprobe("check", "--config", str(config), "--output", "json", env=environ)
    assert "secret" not in done.stdout + done.stderr
    return done.code, {outcome["target"]: outcome for outcome in json.loads(done.stdout)["outcomes"]}


async def test_the_environment_of_a_worker_is_enough(tmp_path: Path, postgres: Postgres) -> None:
    """Airflow 2 behind a pgbouncer: every target answers, each as what it is."""
    async with servers(postgres) as ports, Nameserver(zone(ZONE), ip=loopback_ip(), port=53) as nameserver:
        code, outcomes = await checked(tmp_path, nameserver, worker(ports))

    assert {name: outcome["type"] for name, outcome in outcomes.items()} == {
        "nameservers": "dns",
        "kubernetes-api": "tcp",
        "metadata-db": "postgres",
        "broker": "tcp",
        "remote-log-store": "http",
        "conn-orders-api": "http",
        "conn-warehouse": "postgres",
    }
    assert [outcome["detail"] for outcome in outcomes.values() if not outcome["success"]] == []
    assert code == 0
    assert outcomes["metadata-db"]["facts"]["authentication"] == "SCRAM-SHA-256"
    assert outcomes["conn-orders-api"]["facts"]["http_status_code"] == 404


async def test_a_worker_of_airflow_3_asks_the_execution_api(tmp_path: Path, postgres: Postgres) -> None:
    """And leaves the metadata database alone, though the chart still names it."""
    async with servers(postgres) as ports, Nameserver(zone(ZONE), ip=loopback_ip(), port=53) as nameserver:
        url = f"http://airflow-api-server:{ports.api_server}/execution/"
        environ = worker(ports, AIRFLOW__CORE__EXECUTION_API_SERVER_URL=url)
        code, outcomes = await checked(tmp_path, nameserver, environ)

    assert "metadata-db" not in outcomes
    assert outcomes["execution-api"]["facts"]["http_status_code"] == 200
    # Celery stores results in the same database: that is what a worker needs it for.
    assert outcomes["result-backend"]["success"]
    assert code == 0


async def test_what_is_broken_is_found(tmp_path: Path, postgres: Postgres) -> None:
    """A port where nobody listens and names that do not exist; whoever shuts strangers out is left alone meanwhile."""
    strangers = 0

    async def shut_out(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal strangers
        strangers += 1
        writer.close()

    async with (
        servers(postgres) as ports,
        Nameserver(zone(ZONE), ip=loopback_ip(), port=53) as nameserver,
        await asyncio.start_server(shut_out, "127.0.0.1", 0) as mysql,
    ):
        environ = worker(
            ports,
            AIRFLOW_CONN_WAREHOUSE=f"postgres://u:secret@warehouse.data:{refusing_port()}/app",
            AIRFLOW_CONN_GONE="redis://u:secret@gone.data",
            AIRFLOW_CONN_GONE_AS_WELL="mysql://u:secret@gone-as-well.data/app",
            AIRFLOW_CONN_MYSQL=f"mysql://u:secret@orders.shop:{mysql.sockets[0].getsockname()[1]}/app",
        )
        code, outcomes = await checked(tmp_path, nameserver, environ)

    failed = {name: f"{o['phase']}/{o['reason']}" for name, o in outcomes.items() if not o["success"]}
    assert failed == {
        "conn-warehouse": "connect/refused",
        "conn-gone": "resolve/name_not_found",
        "conn-gone-as-well": "resolve/name_not_found",
    }
    assert (outcomes["conn-mysql"]["success"], strangers) == (True, 0)
    assert code == 1
