"""One TCP connection to one address, and who refused it: the host itself, or a packet filter.

A host where nobody listens answers with a RST; a filter, and a Service without endpoints, with an ICMP message, and
connect(2) says "refused" to both. Linux hands the message out through the socket's error queue (5.8 and later, commit
45af29ca761c, for the sake of traceroute). For older kernels the counters of /proc/net/snmp have to do: they count for
the whole pod, so that one which moved may have moved for somebody else, and the connection is tried again, alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.diagnosis.experiment import Connect, Connected
from agent.failures import network
from agent.model import Fact, Failure, Phase, Reason
from agent.net.address import Address
from agent.net.dns_exchange import RECEIVE_ICMP_ERRORS
from agent.prober import shorten

TRIES = 3
"""Connections at most, where a counter moved: it takes a coincidence to move it so often, once each time."""

_MSG_ERRQUEUE = 0x2000  # linux/socket.h; the socket module has no name for it
_QUEUE_BYTES = 512
# struct sock_extended_err of linux/errqueue.h, then the address of whoever sent the message.
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3
_OFFENDER = {_ORIGIN_ICMP: slice(20, 24), _ORIGIN_ICMP6: slice(24, 40)}
_HOPS = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TTL),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
}
_SAID = {
    # (origin, type, code): RFC 792, RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1; RFC 4443 section 3.1
    (_ORIGIN_ICMP, 3, 0): "network unreachable",
    (_ORIGIN_ICMP, 3, 1): "host unreachable",
    (_ORIGIN_ICMP, 3, 2): "protocol unreachable",
    (_ORIGIN_ICMP, 3, 3): "port unreachable",
    (_ORIGIN_ICMP, 3, 9): "network administratively prohibited",
    (_ORIGIN_ICMP, 3, 10): "host administratively prohibited",
    (_ORIGIN_ICMP, 3, 13): "administratively prohibited",
    (_ORIGIN_ICMP, 11, 0): "too many routers on the way",
    (_ORIGIN_ICMP6, 3, 0): "too many routers on the way",
    (_ORIGIN_ICMP6, 1, 0): "network unreachable",
    (_ORIGIN_ICMP6, 1, 1): "administratively prohibited",
    (_ORIGIN_ICMP6, 1, 3): "host unreachable",
    (_ORIGIN_ICMP6, 1, 4): "port unreachable",
    (_ORIGIN_ICMP6, 1, 5): "source address refused by policy",
    (_ORIGIN_ICMP6, 1, 6): "route rejected",
}


@dataclass(frozen=True, slots=True)
class Icmp:
    """An ICMP message about a connection."""

    said: str
    sender: str


class Connections:
    """Makes connections and closes them at once."""

    def __init__(self, unreachable_count: Callable[[], int | None]) -> None:
        """`unreachable_count` reads how many ICMP messages of unreachable destinations this pod has received."""
        self._unreachable_count = unreachable_count
        self._alone = asyncio.Lock()

    async def connect(self, question: Connect, patience_seconds: float) -> Connected:
        """Connect, and wait so long. OSError where it is this process that cannot."""
        address = Address(question.ip, question.port)
        until = time.perf_counter() + patience_seconds
        before = self._unreachable_count()
        result = await _connect(address, patience_seconds, question.hops)
        if result.failure is None or result.failure.reason is not Reason.REFUSED:
            return result.connected()
        if result.icmp is not None:
            return result.connected(rejected=True)
        moved = [_moved(before, self._unreachable_count())]
        async with self._alone:
            while undecided(moved) and (left := until - time.perf_counter()) > 0:
                before = self._unreachable_count()
                again = await _connect(address, left, question.hops)
                if again.failure is None or again.failure.reason is not Reason.REFUSED or again.icmp is not None:
                    break  # it changes as we look
                moved.append(_moved(before, self._unreachable_count()))
        return result.connected(rejected=rejected(moved))


def undecided(moved: Sequence[int | None]) -> bool:
    """Whether the counter's movements, one a refused connection, call for another."""
    return rejected(moved) is None and None not in moved and len(moved) < TRIES


def rejected(moved: Sequence[int | None]) -> bool | None:
    """What the movements of the counter say: whether ICMP messages refused the connections, None where they do not."""
    if 0 in moved:
        return False  # refused, and no message came
    return True if list(moved) == [1] * TRIES else None


def _moved(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


@dataclass(frozen=True, slots=True)
class _Result:
    failure: Failure | None
    seconds: float
    icmp: Icmp | None

    def connected(self, *, rejected: bool | None = None) -> Connected:
        said, sender = (self.icmp.said, self.icmp.sender) if self.icmp is not None else (None, None)
        return Connected(self.failure, self.seconds, rejected=rejected, icmp=said, icmp_from=sender)


async def _connect(address: Address, patience_seconds: float, hops: int | None) -> _Result:
    began = time.perf_counter()
    failure, icmp = None, None
    try:
        with socket.socket(address.family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            sock.setsockopt(*RECEIVE_ICMP_ERRORS[address.family], 1)
            if hops is not None:
                sock.setsockopt(*_HOPS[address.family], hops)
            try:
                async with asyncio.timeout(patience_seconds):
                    await asyncio.get_running_loop().sock_connect(sock, (address.ip, address.port))
            finally:
                icmp = icmp_error(sock)
    except TimeoutError as error:
        if error.errno is None:
            detail = f"expected {address} to accept a connection, got no answer within {patience_seconds:g}s"
            failure = Failure(phase=Phase.CONNECT, reason=Reason.TIMEOUT, detail=detail)
        else:
            failure = _failure(error, address)
    except OSError as error:
        failure = _failure(error, address)
    return _Result(failure, time.perf_counter() - began, icmp)


def _failure(error: OSError, address: Address) -> Failure:
    """What an error says about the address. One that is about this process is raised again."""
    cause = network.classify(error, Phase.CONNECT, {Fact.ADDRESS: str(address)})
    if cause is None or cause.reason is Reason.INTERNAL:
        raise error
    return Failure(phase=Phase.CONNECT, reason=cause.reason, detail=shorten(cause.detail))


def icmp_error(sock: socket.socket) -> Icmp | None:
    """The ICMP message about a socket's connection; None where there is none, or the kernel keeps it to itself."""
    try:
        _, ancillary, _, _ = sock.recvmsg(_QUEUE_BYTES, _QUEUE_BYTES, _MSG_ERRQUEUE)
    except OSError:
        return None
    for level, kind, data in ancillary:
        if (level, kind) in RECEIVE_ICMP_ERRORS.values() and len(data) >= _EXTENDED_ERROR.size:
            _, origin, type_, code, *_ = _EXTENDED_ERROR.unpack_from(data)
            if origin in _OFFENDER and len(sender := data[_OFFENDER[origin]]) in {4, 16}:
                said = _SAID.get((origin, type_, code), f"ICMP type {type_}, code {code}")
                return Icmp(said, str(ipaddress.ip_address(sender)))
    return None
