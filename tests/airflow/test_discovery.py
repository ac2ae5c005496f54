"""What discovery reads out of settings and connections is what Airflow reads out of them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.airflow.discovery.parts import Unreadable, read_parts
from tests.airflow.installed import VERSIONS, airflow_python
from tests.discovery.connections import LEADS, LEADS_NOWHERE, REFUSED, generated
from tests.discovery.finding import discovered

GENERATED = tuple(generated(3000))
ALL = (*LEADS, *LEADS_NOWHERE, *REFUSED, *GENERATED)
SCRIPT = Path(__file__).with_name("seen_by_airflow.py")
PORT = 2
"""Its place in what a connection is compared by."""
BASE_URL = {"AIRFLOW__API__BASE_URL": "http://api:8080/base/"}


@pytest.fixture(scope="module", params=VERSIONS)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one version of Airflow sees: all in one process, which takes seconds to start."""
    home = str(tmp_path_factory.mktemp("airflow"))
    done = subprocess.run(
        [str(airflow_python(request.param)), str(SCRIPT)],
        input=json.dumps(ALL),
        env={"PATH": os.environ["PATH"], "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False", **BASE_URL},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    answer["version"] = request.param
    answer["connections"] = dict(zip(ALL, answer["connections"], strict=True))
    return answer


def test_type_host_and_port_are_those_of_airflow(seen: dict[str, Any]) -> None:
    """Before defaults and what hides in `extra` come in, both agree on every value."""
    for value in (*LEADS, *LEADS_NOWHERE):
        conn_type, host, port, login, schema = seen["connections"][value]
        parts = read_parts(value)

        ours = (parts.conn_type, parts.host, parts.port, parts.login, parts.schema)
        assert ours == (conn_type, host or "", port, login or "", schema or ""), value


def test_what_airflow_raises_for_is_refused(seen: dict[str, Any]) -> None:
    """A task would not get its connection: there is nothing to probe for it."""
    for value in REFUSED:
        assert isinstance(seen["connections"][value], str), value
        with pytest.raises(Unreadable):
            read_parts(value)


def test_what_nobody_thought_of_is_read_as_airflow_reads_it(seen: dict[str, Any]) -> None:
    """Of values put together at random: the same, or less. What Airflow refuses is refused, and nothing read in it."""
    read = 0
    for value in GENERATED:
        theirs = seen["connections"][value]
        try:
            parts = read_parts(value)
        except Unreadable:
            continue
        ours = [parts.conn_type, parts.host, parts.port, parts.login, parts.schema]
        assert isinstance(theirs, list), (value, ours)
        assert ours == [item or "" if place != PORT else item for place, item in enumerate(theirs)], value
        read += 1
    assert read > len(GENERATED) / 4


def test_the_execution_api_is_where_airflow_has_it_and_tells_its_health_to_anybody(seen: dict[str, Any]) -> None:
    """Airflow 2 has none."""
    if seen["version"].startswith("2."):
        assert "execution_api" not in seen
        return
    url, status, body = seen["execution_api"]

    (target,) = discovered(BASE_URL).targets

    assert target.address == f"{url}health"
    assert (status, body) == (200, {"status": "healthy"})


def test_there_are_enough_of_them() -> None:
    """Sixty values that lead somewhere, at the very least."""
    assert len(LEADS) >= 60
