"""tcp: a connection, perhaps TLS on it, perhaps a dialogue in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agent.keys import Check, HostPort, host_port, key, list_of, section, size, without_password
from agent.model import Secret, Target, secrets_of
from agent.net.addressing import Addressing
from agent.net.connect import Stream, connect
from agent.net.resolve import Address, resolve_endpoint
from agent.net.tls import Contexts, TlsOptions, confirm, start_tls
from agent.prober import Recorder
from agent.probers.dialogue import STEPS_LIMIT, Dialogue, Step, exactly_one
from agent.runner import each

URL_SCHEMES = ("tcp", "tls")


def _dialogue_problem(steps: tuple[Step, ...]) -> str | None:
    if len(steps) > STEPS_LIMIT:
        return f"expected at most {STEPS_LIMIT} steps, got {len(steps)}"
    upgrades = sum(step.starttls is not None for step in steps)
    return f"expected starttls at most once, got it {upgrades} times" if upgrades > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOptions(Addressing):
    CHECKS = (Check(at="dialogue", needs=("dialogue",), problem=_dialogue_problem),)

    endpoint: HostPort = key(host_port(), name="address", doc="Host and port to connect to.")
    tls: TlsOptions | None = key(
        section(TlsOptions),
        default=None,
        doc="Make a TLS handshake after connecting, or at the dialogue's starttls step where it has one.",
    )
    dialogue: tuple[Step, ...] = key(
        list_of(exactly_one(Step)),
        default=(),
        doc=f"What to say and what to expect, in bytes, one step after the other; at most {STEPS_LIMIT}.",
    )
    read_limit: int = key(
        size("1B", "1MiB"), default=64 * 1024, doc="How much may arrive before a step's expect has to match."
    )

    @property
    def printable_address(self) -> str:
        return str(self.endpoint)

    @property
    def host(self) -> str:
        return self.endpoint.host

    @property
    def port(self) -> int:
        return self.endpoint.port

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return secrets_of(self)

    @property
    def upgrades(self) -> bool:
        """TLS begins inside the dialogue."""
        return any(step.starttls for step in self.dialogue)


class TcpProber:
    """Connects, and nothing more than is configured."""

    def __init__(self) -> None:
        self._contexts = Contexts()

    def prepare(self, target: Target[TcpOptions]) -> None:
        if target.options.tls is not None:
            self._contexts.get(target.options.tls)

    async def probe(self, target: Target[TcpOptions], recorder: Recorder) -> None:
        options = target.options
        addresses = await resolve_endpoint(options.endpoint, options, recorder, addresses=options.addresses)

        async def attempt(address: Address, notes: Recorder) -> None:
            async with await connect(address, notes) as stream:
                await self._converse(options, stream, notes)

        await each(addresses, target, recorder, attempt)

    async def _converse(self, options: TcpOptions, stream: Stream, notes: Recorder) -> None:
        async def upgrade() -> None:
            tls = options.tls or TlsOptions()
            await start_tls(stream, self._contexts.get(tls), tls.server_name or options.endpoint.host, notes)

        dialogue = Dialogue(stream, notes, options.dialogue, read_limit=options.read_limit, start_tls=upgrade)
        if options.tls is not None and not options.upgrades:
            await upgrade()
        await dialogue.hold()
        if not dialogue.heard:
            await confirm(stream, notes)

    async def aclose(self) -> None:
        pass


def from_url(url: str) -> dict[str, Any]:
    """`tcp://host:port`, or `tls://host:port` for TLS on it, as the configuration it stands for. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in URL_SCHEMES or parts.path.rstrip("/") or parts.query or parts.fragment:
        forms = " or ".join(f"{scheme}://host:port" for scheme in URL_SCHEMES)
        raise ValueError(f"expected {forms}, got {without_password(url)}")
    return {"address": parts.netloc, **({"tls": {}} if parts.scheme == "tls" else {})}
