"""Where a connection leads: host, port and how it is asked."""

from __future__ import annotations

import pytest

from agent.airflow.discovery.by_type import USUAL, endpoints
from agent.airflow.discovery.endpoint import Endpoint
from agent.airflow.discovery.parts import Unreadable, read_parts
from tests.discovery.connections import LEADS, LEADS_NOWHERE


def _shown(endpoint: Endpoint) -> str:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{endpoint.ask} {host}:{endpoint.port}"


@pytest.mark.parametrize("value", LEADS)
def test_a_connection_leads_to_its_endpoints(value: str) -> None:
    """Defaults of its type and what hides in `extra` included."""
    assert tuple(map(_shown, endpoints(read_parts(value)))) == LEADS[value]


@pytest.mark.parametrize("value", LEADS_NOWHERE)
def test_a_connection_that_leads_nowhere_says_why(value: str) -> None:
    """The reason is exact, and short enough for a line of a table."""
    with pytest.raises(Unreadable) as refused:
        endpoints(read_parts(value))

    assert LEADS_NOWHERE[value] in str(refused.value)
    assert len(str(refused.value)) <= 100


@pytest.mark.parametrize("conn_type", [name for name, usual in USUAL.items() if usual.port is not None])
def test_a_type_with_a_usual_port_gets_it(conn_type: str) -> None:
    """A host alone is enough."""
    found = endpoints(read_parts(f'{{"conn_type": "{conn_type}", "host": "server.example.com"}}'))

    assert [(endpoint.host, endpoint.port) for endpoint in found] == [("server.example.com", USUAL[conn_type].port)]


@pytest.mark.parametrize("conn_type", [name for name, usual in USUAL.items() if usual.host])
def test_a_service_with_one_address_needs_no_host(conn_type: str) -> None:
    """Its hook knows where to turn."""
    found = endpoints(read_parts(f'{{"conn_type": "{conn_type}"}}'))

    assert [endpoint.host for endpoint in found] == [USUAL[conn_type].host]
