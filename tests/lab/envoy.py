"""A real Envoy in a world's pod, set up as Istio does it: whatever the pod sends by TCP goes through it.

nftables redirect the pod's outbound TCP to port 15001, except Envoy's own, which is known by its user. There a listener
hands each connection to the one that stands for its original destination: HTTP by the host header, anything else as it
is. The agent beside it (15020) says whether Envoy is ready; Envoy passes the question on (15021).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tests.lab.http_client import request
from tests.lab.http_servers import receive, response
from tests.lab.world import Change, World

BINARY = Path(str(files("envoy"))) / "_bin" / "envoy"
USER = 1337
"""Istio's user, whose packets are not redirected."""
OUTBOUND_PORT, ADMIN_PORT, AGENT_PORT, READY_PORT = 15001, 15000, 15020, 15021

_PASSTHROUGH, _BLACK_HOLE, _AGENT, _CONTROL_PLANE = "PassthroughCluster", "BlackHoleCluster", "agent", "xds-grpc"
_NOBODY = 15999
"""Where nobody listens: the control plane that never answers."""

Endpoints = Mapping[str, Sequence[str]]
"""By host name (`web`), the endpoints the mesh knows: `10.244.2.50:8080`."""


def redirect(world: World) -> Change:
    """The packet filter's part, which istio-init or the CNI installs before any container starts."""
    rules = f"""
        table ip mesh {{
            chain output {{
                type nat hook output priority -100
                meta skuid {USER} return
                ip daddr 127.0.0.0/8 return
                meta l4proto tcp redirect to :{OUTBOUND_PORT}
            }}
        }}
    """
    world.execute("pod", "nft", "-f", "-", stdin=rules)
    return world.undo(lambda: world.execute("pod", "nft", "delete", "table", "ip", "mesh"))


def proxy(
    world: World, *, services: Endpoints | None = None, registry_only: bool = False, configured: bool = True
) -> Change:
    """Envoy itself. `registry_only`: to the mesh's services and nowhere else; not `configured`: it waits for istiod."""
    bootstrap = _bootstrap(services or {}, registry_only=registry_only) if configured else _waiting()
    file = world.directory / "envoy.json"
    file.write_text(json.dumps(bootstrap))
    # The user is changed first: the kernel forgets whom a process wants to die with when its user changes.
    become = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--pdeathsig", "KILL")
    options = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "error")
    port = OUTBOUND_PORT if configured else ADMIN_PORT
    return world.process("pod", *become, BINARY, "-c", file, *options, port=port)


def agent(world: World) -> Change:
    """What pilot-agent does: it says whether Envoy is ready."""
    return world.serve("pod", "127.0.0.1", AGENT_PORT, _tell_readiness)


def sidecar(world: World, *, services: Endpoints | None = None, registry_only: bool = False) -> Change:
    """All of it, ready. What is undone is Envoy alone: it has crashed."""
    agent(world)
    change = proxy(world, services=services, registry_only=registry_only)
    redirect(world)
    return change


async def _tell_readiness(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await receive(reader)
    try:
        ready = (await request(f"http://127.0.0.1:{ADMIN_PORT}/ready")).status == 200
    except OSError:
        ready = False
    writer.write(response("200 OK" if ready else "503 Service Unavailable"))
    await writer.drain()


# --- its configuration ------------------------------------------------------------------------------------------------


def _bootstrap(services: Endpoints, *, registry_only: bool) -> dict[str, Any]:
    rest = _BLACK_HOLE if registry_only else _PASSTHROUGH
    clusters = [
        _cluster(_AGENT, [f"127.0.0.1:{AGENT_PORT}"]),
        _cluster(_BLACK_HOLE, []),
        {"name": _PASSTHROUGH, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "10s"},
        *(_cluster(name, endpoints) for name, endpoints in services.items()),
    ]
    outbound = _listener("virtualOutbound", "0.0.0.0", OUTBOUND_PORT, _tcp(rest)) | {"use_original_dst": True}
    hosts = [_virtual_host(name, _names(name), {"route": {"cluster": name}}) for name in services]
    fallback = {"direct_response": {"status": 502}} if registry_only else {"route": {"cluster": _PASSTHROUGH}}
    hosts.append(_virtual_host("block_all" if registry_only else "allow_any", ["*"], fallback))
    web = _listener("0.0.0.0_80", "0.0.0.0", 80, _http("80", hosts)) | {"bind_to_port": False}
    ready = _virtual_host("agent", ["*"], {"route": {"cluster": _AGENT}})
    health = _listener("health", "127.0.0.1", READY_PORT, _http("health", [ready]))
    return {**_ADMIN, "static_resources": {"listeners": [outbound, web, health], "clusters": clusters}}


def _waiting() -> dict[str, Any]:
    """An Envoy that gets everything from a control plane, and waits for it as long as it takes."""
    ads = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    service = {"envoy_grpc": {"cluster_name": _CONTROL_PLANE}}
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    control_plane = _cluster(_CONTROL_PLANE, [f"127.0.0.1:{_NOBODY}"]) | {"typed_extension_protocol_options": http2}
    return {
        **_ADMIN,
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service]},
        },
        "static_resources": {"clusters": [control_plane]},
    }


_ADMIN: Mapping[str, Any] = {
    "node": {"id": "sidecar", "cluster": "airflow"},
    "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": ADMIN_PORT}}},
}
_FILTERS = "type.googleapis.com/envoy.extensions.filters"


def _cluster(name: str, endpoints: Sequence[str]) -> dict[str, Any]:
    pairs = (endpoint.rpartition(":") for endpoint in endpoints)
    addresses = [{"socket_address": {"address": ip, "port_value": int(port)}} for ip, _, port in pairs]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}],
        },
    }


def _listener(name: str, ip: str, port: int, network_filter: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "address": {"socket_address": {"address": ip, "port_value": port}},
        "filter_chains": [{"filters": [network_filter]}],
    }


def _tcp(cluster: str) -> dict[str, Any]:
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{_FILTERS}.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster,
            "cluster": cluster,
        },
    }


def _http(name: str, hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    router = {"@type": f"{_FILTERS}.http.router.v3.Router"}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "route_config": {"name": name, "virtual_hosts": list(hosts)},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        },
    }


def _virtual_host(name: str, domains: Sequence[str], action: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "domains": list(domains), "routes": [{"match": {"prefix": "/"}, **action}]}


def _names(host: str) -> list[str]:
    """A host as requests may call it: as it is written, and as a Service of the pod's namespace."""
    forms = [host] if "." in host else [host, f"{host}.airflow", f"{host}.airflow.svc.cluster.local"]
    return [name for form in forms for name in (form, f"{form}:80")]
