"""Whether a mesh's proxy is in this pod, by the ports of loopback where Istio, Linkerd and Envoy tell."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp.http_exceptions import HttpProcessingError

from agent.diagnosis.experiment import Mesh
from agent.net.address import Address
from agent.net.connect import connect
from agent.net.http1 import Answer, request_bytes
from agent.prober import ProbeFailure, Recorder

ANSWER_SECONDS = 0.5
"""More than enough for loopback; a proxy that takes longer is not ready."""
_READY, _NOT_READY = 200, 503


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy tells whether it is ready."""

    kind: str
    port: int
    path: str
    server: str | None = None
    """The Server header it signs with, at a port that other programs like as well."""


PLACES = (
    Place("istio", 15021, "/healthz/ready"),  # Envoy, on behalf of the agent: what the kubelet asks
    Place("istio", 15020, "/healthz/ready"),  # the agent itself, before there is an Envoy
    Place("linkerd", 4191, "/ready"),
    Place("envoy", 15000, "/ready", server="envoy"),  # its administration, which Istio has at the same port
)
"""Ports as https://istio.io/latest/docs/ops/deployment/application-requirements and Linkerd's proxy have them; the
earlier names the kind."""
_HOSTS = ("127.0.0.1", "::1")
"""The second is asked where the first has nothing: pods of an IPv6 cluster."""


async def find_proxy() -> Mesh:
    """Ask every place of loopback."""
    for host in _HOSTS:
        addresses = [Address(host, place.port) for place in PLACES]
        statuses = await asyncio.gather(*map(_status, addresses, PLACES))
        found = [
            (place, f"{address}{place.path}", status)
            for place, address, status in zip(PLACES, addresses, statuses, strict=True)
            if status is not None
        ]
        if found:
            return Mesh(
                kind=found[0][0].kind,
                ready=_ready([status for _, _, status in found]),
                detail="; ".join(f"{where}: {status or 'no answer'}" for _, where, status in found),
            )
    ports = ", ".join(str(place.port) for place in PLACES)
    return Mesh(kind=None, ready=None, detail=f"no proxy at the ports {ports} of {' and '.join(_HOSTS)}")


def _ready(statuses: list[int]) -> bool | None:
    if _NOT_READY in statuses:
        return False
    return True if _READY in statuses else None


async def _status(address: Address, place: Place) -> int | None:
    """What a place answers: 200, 503, or 0 where it accepts and stays silent. None where no proxy is there."""
    recorder, silence = Recorder(), None
    try:
        async with asyncio.timeout(ANSWER_SECONDS), await connect(address, recorder) as stream:
            silence = 0
            stream.writer.write(request_bytes("GET", place.path, [("Host", str(address)), ("Connection", "close")]))
            head = await Answer(stream, recorder).head()
    except TimeoutError:
        return silence
    except (OSError, EOFError, ProbeFailure, HttpProcessingError):
        return None
    ours = head.status in {_READY, _NOT_READY} and place.server in {None, head.headers.get("Server")}
    return head.status if ours else None
