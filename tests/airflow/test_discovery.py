"""What discovery reads out of connections is what Airflow reads out of them."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from agent.airflow.discovery.parts import Unreadable, read_parts
from tests.airflow.installed import VERSIONS, airflow_python
from tests.discovery.connections import LEADS, LEADS_NOWHERE, REFUSED

ALL = (*LEADS, *LEADS_NOWHERE, *REFUSED)
SCRIPT = Path(__file__).with_name("connections_of_airflow.py")


@cache
def _of_airflow(version: str, home: Path) -> dict[str, Any]:
    done = subprocess.run(
        [str(airflow_python(version)), str(SCRIPT)],
        input=json.dumps(ALL),
        env={"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(ALL, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.fixture(scope="module", params=VERSIONS)
def of_airflow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _of_airflow(request.param, tmp_path_factory.mktemp("airflow"))


def test_type_host_and_port_are_those_of_airflow(of_airflow: dict[str, Any]) -> None:
    """Before defaults and what hides in `extra` come in, both agree on every value."""
    for value in (*LEADS, *LEADS_NOWHERE):
        conn_type, host, port, login, schema = of_airflow[value]
        parts = read_parts(value)

        seen = (parts.conn_type, parts.host, parts.port, parts.login, parts.schema)
        assert seen == (conn_type, host or "", port, login or "", schema or ""), value


def test_what_airflow_raises_for_is_refused(of_airflow: dict[str, Any]) -> None:
    """A task would not get its connection: there is nothing to probe for it."""
    for value in REFUSED:
        assert isinstance(of_airflow[value], str), value
        with pytest.raises(Unreadable):
            read_parts(value)


def test_there_are_enough_of_them() -> None:
    """Sixty values that lead somewhere, at the very least."""
    assert len(LEADS) >= 60
