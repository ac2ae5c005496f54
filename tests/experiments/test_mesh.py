"""Whether a mesh's proxy is in this pod, by the ports of loopback. Each test has a loopback of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agent.diagnosis.experiment import Mesh, MeshProxy
from tests.experiments.asking import answer, snapshot
from tests.lab.http_servers import HttpServer, response
from tests.lab.misbehaving import Server, closing_when_spoken_to, greeting, silent
from tests.lab.netns import Namespace, namespace

READY, UNREADY, OTHER = response(), response("503 Service Unavailable"), response("404 Not Found")
LIVE, DRAINING = (response(status, headers={"Server": "envoy"}) for status in ("200 OK", "503 Service Unavailable"))
FAIL = r"POST /healthcheck/fail HTTP/1.1\r\nHost: envoy\r\nContent-Length: 0\r\n\r\n"
ISTIO, ISTIO_AGENT, ENVOY, LINKERD = 15021, 15020, 15000, 4191


@pytest.fixture(scope="module")
def pod() -> Iterator[Namespace]:
    with namespace() as host:
        yield host


def found(pod: Namespace, servers: Mapping[int, Server | bytes], host: str = "127.0.0.1") -> tuple[Mesh, list[str]]:
    """What the experiment finds where these servers listen, and the requests that came."""

    async def ask() -> tuple[Mesh, list[str]]:
        requests = []
        async with AsyncExitStack() as stack:
            for port, answered in servers.items():
                server = answered if isinstance(answered, Server) else HttpServer(answered, host=host)
                server.port = port
                await stack.enter_async_context(server)
            mesh = await answer(snapshot(), MeshProxy())
            assert isinstance(mesh, Mesh)
            for answered in servers.values():
                if isinstance(answered, HttpServer):
                    requests += [f"{request.method} {request.target}" for request in answered.requests]
        return mesh, requests

    return pod.inside(lambda: asyncio.run(ask()))


@pytest.mark.parametrize(
    ("servers", "kind", "ready"),
    [
        ({ISTIO: READY, ISTIO_AGENT: READY, ENVOY: LIVE}, "istio", True),
        ({ISTIO_AGENT: UNREADY, ENVOY: DRAINING}, "istio", False),
        ({ISTIO_AGENT: UNREADY, ENVOY: LIVE}, "istio", False),
        ({ISTIO: UNREADY}, "istio", False),
        ({LINKERD: READY}, "linkerd", True),
        ({LINKERD: UNREADY}, "linkerd", False),
        ({ENVOY: LIVE}, "envoy", True),
        ({ENVOY: DRAINING}, "envoy", False),
    ],
)
def test_what_proxies_say(pod: Namespace, servers: dict[int, bytes], kind: str, ready: bool) -> None:  # noqa: FBT001
    mesh, _ = found(pod, servers)
    assert (mesh.kind, mesh.ready) == (kind, ready)


def test_the_detail_says_who_answered_what(pod: Namespace) -> None:
    mesh, _ = found(pod, {ISTIO_AGENT: UNREADY, ENVOY: LIVE})
    assert mesh.detail == "127.0.0.1:15020/healthz/ready: 503; 127.0.0.1:15000/ready: 200"


def test_nobody_there(pod: Namespace) -> None:
    mesh, _ = found(pod, {})
    assert (mesh.kind, mesh.ready) == (None, None)
    assert mesh.detail == "no proxy at the ports 15021, 15020, 4191, 15000 of 127.0.0.1 and ::1"


def test_each_is_asked_once_in_its_own_words(pod: Namespace) -> None:
    servers = {port: HttpServer(READY) for port in (ISTIO, ISTIO_AGENT, ENVOY, LINKERD)}
    _, requests = found(pod, servers)
    assert sorted(requests) == ["GET /healthz/ready", "GET /healthz/ready", "GET /ready", "GET /ready"]


def test_a_real_envoy(pod: Namespace, tmp_path: Path) -> None:
    """Its administration tells, also that it is about to end."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": ENVOY}}
    configuration = tmp_path / "envoy.json"
    configuration.write_text(json.dumps({"admin": {"address": address}}))
    envoy = Path(sys.executable).with_name("envoy")
    with pod.serving(str(envoy), "-c", str(configuration), "--concurrency", "1", port=ENVOY):
        assert found(pod, {})[0] == Mesh("envoy", ready=True, detail="127.0.0.1:15000/ready: 200")
        pod.run("bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{ENVOY}; printf '{FAIL}' >&3; head -1 <&3 | grep -q 200")
        assert found(pod, {})[0] == Mesh("envoy", ready=False, detail="127.0.0.1:15000/ready: 503")


def test_a_pod_of_an_ipv6_cluster(pod: Namespace) -> None:
    mesh, _ = found(pod, {ISTIO: READY}, host="::1")
    assert mesh == Mesh("istio", ready=True, detail="[::1]:15021/healthz/ready: 200")


def test_a_proxy_that_hangs_is_there_and_says_nothing(pod: Namespace) -> None:
    mesh, _ = found(pod, {ISTIO: silent()})
    assert mesh == Mesh("istio", ready=None, detail="127.0.0.1:15021/healthz/ready: no answer")


@pytest.mark.parametrize(
    "program",
    [
        OTHER,
        READY,
        UNREADY,
        response("302 Found"),
        greeting(b"220 mail\r\n"),
        closing_when_spoken_to(b"\x00\xff" * 50),
        b"HTTP/1.1 ",
    ],
    ids=["not-found", "ready-itself", "unavailable-itself", "redirects", "speaks-first", "binary", "broken-off"],
)
def test_another_program_at_such_a_port_is_no_proxy(pod: Namespace, program: Server | bytes) -> None:
    mesh, _ = found(pod, {ENVOY: program})
    assert mesh.kind is None
