"""tcp: a connection, perhaps TLS on it, perhaps a dialogue in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.keys import HostPort, host_port, key, section
from agent.model import Secret, Target, secrets_of
from agent.net.addressing import Addressing
from agent.net.connect import connect
from agent.net.resolve import Address, resolve
from agent.net.tls import Contexts, TlsOptions, start_tls
from agent.prober import Recorder
from agent.runner import each


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOptions(Addressing):
    endpoint: HostPort = key(host_port(), name="address", doc="Host and port to connect to.")
    tls: TlsOptions | None = key(section(TlsOptions), default=None, doc="Make a TLS handshake after connecting.")

    @property
    def printable_address(self) -> str:
        return str(self.endpoint)

    @property
    def host(self) -> str:
        return self.endpoint.host

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return secrets_of(self)


class TcpProber:
    """Connects, and nothing more than is configured."""

    def __init__(self) -> None:
        self._contexts = Contexts()

    async def probe(self, target: Target[TcpOptions], recorder: Recorder) -> None:
        options = target.options
        addresses = await resolve(
            options.endpoint.host,
            options.endpoint.port,
            recorder,
            family=options.family,
            addresses=options.addresses,
            resolv_conf=options.resolv_conf,
        )

        async def attempt(address: Address, notes: Recorder) -> None:
            async with await connect(address, notes) as stream:
                if options.tls is not None:
                    context = self._contexts.get(options.tls)
                    await start_tls(stream, context, options.tls.server_name or options.endpoint.host, notes)

        await each(addresses, target, recorder, attempt)

    async def aclose(self) -> None:
        pass


def from_url(url: str) -> dict[str, Any]:
    """`tcp://host:port` as the configuration it stands for."""
    return {"address": url.removeprefix("tcp://").rstrip("/")}
