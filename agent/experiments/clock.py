"""How far this node's clock is from a server's, by the Date header of an answer to HEAD."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from agent import __version__
from agent.diagnosis.experiment import Clock
from agent.keys import HostPort
from agent.model import Addresses, Target
from agent.net.connect import connect
from agent.net.http1 import Answer, request_bytes
from agent.net.http_signs import server_time
from agent.net.proxy import ProxyEnvironment, ProxyMode
from agent.net.resolve import resolve_endpoint
from agent.net.tls import start_tls
from agent.net.urls import host_of, port_of
from agent.prober import ProbeFailure, Recorder
from agent.probers.http_options import HttpOptions
from agent.probers.tcp import TcpOptions

UNKNOWN = Clock(None)


def asks_for_time(target: Target[Any]) -> bool:
    """Whether a target may be asked for the time: it speaks HTTP, or something in TLS, and needs no proxy."""
    options = target.options
    if isinstance(options, TcpOptions):
        # Where a dialogue is configured, another protocol is spoken.
        return options.tls is not None and not options.dialogue
    if not isinstance(options, HttpOptions):
        return False
    if options.proxy is ProxyMode.ENVIRONMENT:
        try:
            return ProxyEnvironment().proxy_for(options.url) is None
        except ProbeFailure:
            return False
    return options.proxy is ProxyMode.NONE


async def server_clock(target: Target[Any], patience_seconds: float, wall_clock: Callable[[], float]) -> Clock:
    """Ask a target for its time, and wait so long. The certificate is not judged; no credentials are sent."""
    try:
        async with asyncio.timeout(patience_seconds):
            return await _ask(target.options, wall_clock)
    except (OSError, EOFError, ProbeFailure, HttpProcessingError):  # TimeoutError and ssl.SSLError are OSErrors
        return UNKNOWN


async def _ask(options: HttpOptions | TcpOptions, wall_clock: Callable[[], float]) -> Clock:
    recorder = Recorder()
    if isinstance(options, HttpOptions):
        endpoint = HostPort(host_of(options.url), port_of(options.url))
        tls = options.tls if options.url.scheme == "https" else None
    else:
        endpoint, tls = options.endpoint, options.tls
    (address,) = await resolve_endpoint(endpoint, options, recorder, addresses=Addresses.FIRST)
    async with await connect(address, recorder) as stream:
        if tls is not None:
            await start_tls(stream, _any_certificate(), tls.server_name or endpoint.host, recorder)
        host = URL.build(scheme="http" if tls is None else "https", host=endpoint.host, port=endpoint.port)
        headers = [
            ("Host", host.host_port_subcomponent or ""),
            ("User-Agent", f"netprobe/{__version__}"),
            ("Cache-Control", "no-cache"),
            ("Connection", "close"),
        ]
        asked_at, began = wall_clock(), time.perf_counter()
        stream.writer.write(request_bytes("HEAD", "/", headers))
        head = await Answer(stream, recorder, to_head=True).head()
        on_the_way = (time.perf_counter() - began) / 2
    there = server_time(head)
    return UNKNOWN if there is None else Clock(asked_at + on_the_way - there)


@cache
def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
