"""Proxies: which one leads to a URL, and how it is asked for a tunnel."""

from __future__ import annotations

import base64
import ipaddress
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import voluptuous as vol
from yarl import URL

from agent.keys import HostPort, Kind, Unexpected, valid_host
from agent.model import Phase, Reason, Secret
from agent.net.connect import Stream
from agent.net.http1 import Answer, Head, request_bytes
from agent.net.http_signs import SQUID_ERROR, note_proxy
from agent.net.urls import host_of, port_of
from agent.prober import ProbeFailure, Recorder

_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNAUTHORIZED, _FORBIDDEN, _AUTH_REQUIRED, _GATEWAY_TIMEOUT = 401, 403, 407, 504


class ProxyMode(StrEnum):
    """Where a proxy comes from, if it is not given."""

    ENVIRONMENT = "environment"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyServer:
    """A proxy that speaks HTTP, over TLS if its scheme is https."""

    scheme: str
    endpoint: HostPort
    username: str | None = None
    password: Secret | None = None

    @property
    def authorization(self) -> Secret | None:
        """The value of Proxy-Authorization. OSError where the password's file cannot be read."""
        if self.username is None:
            return None
        return basic(self.username, self.password)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What a sentence must not contain, in each form it is sent in."""
        authorization = self.authorization
        if authorization is None:
            return ()
        sent = Secret(authorization.reveal().removeprefix("Basic "))
        return (sent, self.password) if self.password is not None else (sent,)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.endpoint}"


def basic(username: str, password: Secret | None) -> Secret:
    """The value of an Authorization header, RFC 7617."""
    credentials = f"{username}:{password.reveal() if password else ''}"
    return Secret(f"Basic {base64.b64encode(credentials.encode()).decode()}")


def read_proxy(text: str) -> ProxyServer:
    """Read a proxy's URL, `http://user:password@proxy:3128`; the scheme may be left out. ValueError names no secret."""
    try:
        url = URL(text if "://" in text else f"http://{text}")
        port = url.port or _DEFAULT_PORTS.get(url.scheme)
    except ValueError:
        raise ValueError("not every part can be read") from None
    if url.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"its scheme is {url.scheme}")
    if not url.raw_host or not valid_host(url.raw_host) or not port:
        raise ValueError("it names no host")
    return ProxyServer(
        scheme=url.scheme,
        endpoint=HostPort(url.raw_host, port),
        username=url.user,
        password=Secret(url.password) if url.password else None,
    )


def _read(raw: Any) -> ProxyMode | ProxyServer:
    if not isinstance(raw, str):
        raise Unexpected
    if raw in set(ProxyMode):
        return ProxyMode(raw)
    if "://" not in raw:
        raise Unexpected
    try:
        return read_proxy(raw)
    except ValueError as error:
        raise vol.Invalid(f"expected {_EXPECTED}, got a URL where {error}") from None


def _show(proxy: ProxyMode | ProxyServer) -> str:
    if isinstance(proxy, ProxyMode):
        return proxy.value
    return str(proxy) if proxy.username is None else f"{proxy.scheme}://***@{proxy.endpoint}"


_EXPECTED = "environment, none, or a URL such as http://proxy:3128 or https://user:password@proxy"

PROXY: Kind[ProxyMode | ProxyServer] = Kind(
    expected=_EXPECTED, read=_read, show=_show, schema={"type": "string", "minLength": 1}, secret=True
)


class ProxyEnvironment:
    """HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY as Python's requests reads them: lower case wins."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        """Take {scheme or `no`: value}; the process's environment where left out."""
        self._variables = urllib.request.getproxies_environment() if variables is None else variables

    def proxy_for(self, url: URL) -> ProxyServer | None:
        """The proxy for a URL. Raises ProbeFailure where the environment names one that cannot be used."""
        text = self._variables.get(url.scheme) or self._variables.get("all")
        if not text or self._bypassed(url):
            return None
        try:
            return read_proxy(text)
        except ValueError as error:
            raise ProbeFailure(
                Reason.PROTOCOL_ERROR,
                f"expected the environment's proxy for {url.scheme} to be an http or https URL, got one where {error}",
                phase=Phase.PROXY,
            ) from None

    def _bypassed(self, url: URL) -> bool:
        host, port = host_of(url).lower(), port_of(url)
        return any(_covers(entry.strip().lower(), host, port) for entry in self._variables.get("no", "").split(","))


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY stands for a host: `*`, a name and all below it, an address, a network.

    Networks are an addition of curl and requests to the convention that Kubernetes clusters rely on. A name or an
    address may carry a port.
    """
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        name = entry.removesuffix(f":{port}").strip("[]").lstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))


async def open_tunnel(stream: Stream, proxy: ProxyServer, endpoint: HostPort, agent: str, recorder: Recorder) -> None:
    """Ask a proxy, to which the stream is connected, for a tunnel (CONNECT).

    Raises ProbeFailure, aiohttp.http_exceptions.HttpProcessingError, EOFError, OSError.
    """
    with recorder.phase(Phase.PROXY):
        headers = [("Host", str(endpoint)), ("User-Agent", agent)]
        if (authorization := proxy.authorization) is not None:
            headers.append(("Proxy-Authorization", authorization.reveal()))
        stream.writer.write(request_bytes("CONNECT", str(endpoint), headers))
        answer = Answer(stream, recorder, to_head=True)
        head = await answer.head()
        note_proxy(head, recorder)
        if 200 <= head.status <= 299:  # noqa: PLR2004 - RFC 9110, section 9.3.6
            if answer.rest:
                detail = f"expected the tunnel to {endpoint} to be silent, got data before any was sent"
                raise ProbeFailure(Reason.PROTOCOL_ERROR, detail)
            return
        detail = f"expected the proxy {proxy} to open a tunnel to {endpoint}, got {head.status_line}"
        raise ProbeFailure(_reason(head), detail)


def demand_credentials(proxy: ProxyServer, head: Head, recorder: Recorder) -> None:
    """Raise ProbeFailure where the answer to a request that went through a proxy is the proxy's own 407."""
    if head.status == _AUTH_REQUIRED:
        with recorder.phase(Phase.PROXY):
            detail = f"expected the proxy {proxy} to pass the request on, got {head.status_line}"
            raise ProbeFailure(Reason.AUTH_REQUIRED, detail)


def _reason(head: Head) -> Reason:
    if head.status in {_AUTH_REQUIRED, _UNAUTHORIZED}:  # tinyproxy says 401 where it means 407
        return Reason.AUTH_REQUIRED
    if head.status == _FORBIDDEN:
        return Reason.DENIED
    # squid says what happened: `ERR_CONNECT_FAIL 111`, with the number of the system's error
    squid = head.headers.get(SQUID_ERROR, "")
    if squid.endswith(" 111"):
        return Reason.REFUSED
    if head.status == _GATEWAY_TIMEOUT or squid.endswith(" 110"):
        return Reason.TIMEOUT
    # 502 and 503 by most, 500 by tinyproxy
    return Reason.UNREACHABLE if head.status >= 500 else Reason.PROTOCOL_ERROR  # noqa: PLR2004
