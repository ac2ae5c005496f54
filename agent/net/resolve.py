"""The resolve phase: a host name becomes the addresses the pod's own resolver would give a task."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiodns
import pycares

from agent.model import Addresses, Fact, Family, Phase
from agent.net.resolvconf import ResolvConf
from agent.prober import Recorder

ADDRESS_LIMIT = 16
"""How many addresses one run tries at most with `addresses: all`."""

_FAMILIES = {Family.ANY: socket.AF_UNSPEC, Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a port."""

    ip: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.ip else socket.AF_INET

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class _Resolver(aiodns.DNSResolver):
    """An aiodns resolver that does not watch resolv.conf.

    One resolver serves one lookup, because c-ares answers from a cache that cannot be switched off. aiodns would give
    each an inotify instance and a thread; inotify instances are limited to 128 for all processes of a user on a node,
    the task's among them, so the sidecar takes none.
    """

    def _make_channel(self, **kwargs: Any) -> tuple[bool, pycares.Channel]:
        this = weakref.ref(self)

        def on_socket(fd: int, readable: bool, writable: bool) -> None:  # noqa: FBT001 - c-ares' signature
            resolver = this()
            if resolver is not None:
                resolver._sock_state_cb(fd, readable, writable)  # noqa: SLF001

        return False, pycares.Channel(sock_state_cb=on_socket, timeout=self._timeout, **kwargs)


async def resolve(
    host: str, port: int, recorder: Recorder, *, family: Family, addresses: Addresses, resolv_conf: Path
) -> tuple[Address, ...]:
    """Look a name up, anew at each call, and return the address to try, or all of them, in RFC 6724 order.

    An IP address is returned as it is, without a resolve phase. Timeout and attempts are those of resolv.conf, as for
    every other program in the pod. Raises aiodns.error.DNSError.
    """
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return (Address(str(literal), port),)
    with recorder.phase(Phase.RESOLVE):
        conf = ResolvConf.read(resolv_conf)
        resolver = _Resolver(
            timeout=conf.timeout_seconds,
            tries=conf.attempts,
            rotate=conf.rotate,
            resolvconf_path=str(resolv_conf),
            loop=asyncio.get_running_loop(),
        )
        try:
            answer = await resolver.getaddrinfo(
                host, family=_FAMILIES[family], port=port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
        finally:
            await resolver.close()
    found = tuple(Address(_ip(node.addr[0]), port) for node in answer.nodes)
    recorder.facts[Fact.ADDRESSES] = [address.ip for address in found]
    return found[:1] if addresses is Addresses.FIRST else found[:ADDRESS_LIMIT]


def _ip(raw: bytes | str) -> str:
    return raw.decode("ascii") if isinstance(raw, bytes) else raw
