"""Questions to one nameserver; every message, and how long its answer took, is written down."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.failures import network
from agent.failures.names import BY_RCODE
from agent.model import Fact, Phase, Reason
from agent.net.address import Address
from agent.net.dns_message import MalformedError, Question, Rcode, Reply, UnrelatedError, read_reply
from agent.prober import Recorder

_DATAGRAM_LIMIT_BYTES = 65_535

# linux/in.h and linux/in6.h; the socket module has no names for them. Without this Linux keeps to itself what routers
# say about a datagram; glibc's resolver sets it too (resolv/res_enable_icmp.c).
RECEIVE_ICMP_ERRORS = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}


class Transport(StrEnum):
    UDP = "udp"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class NoReply:
    """A nameserver gave no answer that can be used."""

    reason: Reason
    """timeout, unreachable, closed, reset or protocol_error."""
    seen: str
    """Completes `got …`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one nameserver gave back to one question."""

    server: Address
    question: Question
    seen: Reply | NoReply
    truncated: bool = False
    """The answer over UDP was, so that `seen` came over TCP."""

    @property
    def reason(self) -> Reason:
        """What is wrong, if records were wanted and there are none."""
        if isinstance(self.seen, NoReply):
            return self.seen.reason
        return BY_RCODE.get(self.seen.rcode, Reason.SERVER_FAILURE)

    def __str__(self) -> str:
        """Completes `got …`."""
        if isinstance(self.seen, NoReply):
            return f"no usable answer from {self.server} for {self.question.name or '.'}: {self.seen.seen}"
        if self.seen.rcode == Rcode.NOERROR:
            what = f"no {self.question.record} record ({self.seen.dead_end or 'an empty answer'})"
        else:
            what = self.seen.rcode
        return f"{what} from {self.server} for {self.question.name or '.'}"


async def ask(
    server: Address,
    questions: Sequence[Question],
    recorder: Recorder,
    *,
    transport: Transport,
    patience_seconds: float | None,
) -> tuple[Finding, ...]:
    """Ask one or more questions and return a finding for each.

    Over UDP they leave together from one socket, as libc sends A and AAAA: what loses one of two such datagrams in a
    cluster (a race in conntrack) then hits the probe as it hits the task. The lost one is asked for again, as by libc.
    A truncated answer is asked for again over TCP, a question whose EDNS was not understood without. Each message is
    an entry of Fact.DNS_ATTEMPTS and waits as long as `patience_seconds` says, or until the run ends.
    """

    async def send(some: Sequence[Question], over: Transport, *, edns: bool = True) -> list[Reply | NoReply]:
        messages = [_Message(server, question, over, recorder, edns=edns) for question in some]
        await _exchange(server, messages, over, patience_seconds)
        return [message.seen for message in messages]

    recorder.awaited = lambda: _awaited(recorder)
    findings = []
    first = await send(questions, transport)
    answered = any(isinstance(seen, Reply) for seen in first)
    for question, reply in zip(questions, first, strict=True):
        seen, edns, truncated = reply, True, False
        if answered and isinstance(seen, NoReply) and seen.reason is Reason.TIMEOUT:
            (seen,) = await send([question], transport)
        if isinstance(seen, Reply) and seen.rcode == Rcode.FORMERR and not seen.edns:
            edns = False
            (seen,) = await send([question], transport, edns=edns)
        if isinstance(seen, Reply) and seen.truncated and transport is Transport.UDP:
            truncated = True
            (seen,) = await send([question], Transport.TCP, edns=edns)
        findings.append(Finding(server, question, seen, truncated))
    recorder.awaited = None
    return tuple(findings)


def _awaited(recorder: Recorder) -> str:
    """What the last message waits for."""
    entry = recorder.facts[Fact.DNS_ATTEMPTS][-1]
    over = f" over {entry['transport']}" if entry["transport"] == Transport.TCP else ""
    return f"expected an answer from {entry['server']}{over} for {entry['name']}, got none{_strangers(entry)}"


def _strangers(entry: Mapping[str, Any]) -> str:
    return f" but {entry['ignored']} to another question" if "ignored" in entry else ""


class _Message:
    """A question on its way, and its entry in the notebook."""

    def __init__(
        self, server: Address, question: Question, transport: Transport, recorder: Recorder, *, edns: bool
    ) -> None:
        self._question = question
        self._id = secrets.randbelow(1 << 16)
        self._facts = recorder.facts
        self._began = time.perf_counter()
        self._entry: dict[str, Any] = {
            "server": str(server),
            "name": question.name or ".",
            "record": question.record.value,
            "transport": transport.value,
            "edns": edns,
        }
        self._facts.setdefault(Fact.DNS_ATTEMPTS, []).append(self._entry)
        self.data = question.message(self._id, edns=edns)
        self.open = True
        self.seen: Reply | NoReply = NoReply(Reason.TIMEOUT, "no answer")

    def sent(self) -> None:
        self._facts[Fact.DNS_QUERIES] = self._facts.get(Fact.DNS_QUERIES, 0) + 1

    def take(self, data: bytes) -> bool:
        """Whether this is the answer to the question, well-formed or not."""
        try:
            seen: Reply | NoReply = read_reply(data, self._id, self._question)
        except UnrelatedError:
            return False
        except MalformedError as error:
            seen = NoReply(Reason.PROTOCOL_ERROR, str(error))
        self.close(seen)
        return True

    def ignore(self) -> None:
        """Count something received that answers another question."""
        self._entry["ignored"] = self._entry.get("ignored", 0) + 1

    def stop_waiting(self) -> None:
        waited = time.perf_counter() - self._began
        self.close(NoReply(Reason.TIMEOUT, f"none came within {waited:.2g}s{_strangers(self._entry)}"))

    def close(self, seen: Reply | NoReply) -> None:
        """Write down how it ended."""
        self.seen, self.open = seen, False
        if isinstance(seen, Reply):
            self._entry["rcode"] = str(seen.rcode)
        else:
            self._entry["error"] = seen.reason.value
        self._entry["duration_seconds"] = round(time.perf_counter() - self._began, 6)
        self._entry["truncated"] = isinstance(seen, Reply) and seen.truncated


async def _exchange(
    server: Address, messages: Sequence[_Message], transport: Transport, patience_seconds: float | None
) -> None:
    """Send messages and wait until each has its answer, or none is to be had."""
    try:
        async with asyncio.timeout(patience_seconds):
            if transport is Transport.UDP:
                await _udp(server, messages)
            else:
                for message in messages:
                    await _tcp(server, message)
    except TimeoutError:
        pass
    except (OSError, EOFError, MalformedError) as error:
        reason = lost(error)
        for message in messages:
            if message.open:
                message.close(reason)
    finally:
        # Also where the deadline of the run ends the wait.
        for message in messages:
            if message.open:
                message.stop_waiting()


async def _udp(server: Address, messages: Sequence[_Message]) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(server.family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.setsockopt(*RECEIVE_ICMP_ERRORS[server.family], 1)
        # Connected: the kernel drops what comes from anybody else, and reports a closed port.
        sock.connect((server.ip, server.port))
        for message in messages:
            sock.send(message.data)
            message.sent()
        while waiting := [message for message in messages if message.open]:
            data = await loop.sock_recv(sock, _DATAGRAM_LIMIT_BYTES)
            if not any(message.take(data) for message in waiting):
                # Forged, or late from elsewhere; the right one may still come.
                for message in waiting:
                    message.ignore()
                await asyncio.sleep(0)  # a flood of them must not keep the deadline from striking


async def _tcp(server: Address, message: _Message) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(server.family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (server.ip, server.port))
        await loop.sock_sendall(sock, len(message.data).to_bytes(2, "big") + message.data)
        message.sent()
        size = int.from_bytes(await _exactly(sock, 2), "big")
        if not message.take(await _exactly(sock, size)):
            raise MalformedError("an answer to another question")


async def _exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes from a connection. Raises EOFError where it ends before."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        part = await loop.sock_recv(sock, count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def lost(error: OSError | EOFError | MalformedError) -> NoReply:
    """What an error of a socket says about the nameserver; one that is about this process is raised again."""
    if isinstance(error, MalformedError):
        return NoReply(Reason.PROTOCOL_ERROR, str(error))
    cause = network.classify(error, Phase.RESOLVE, {})
    if cause is None or cause.reason is Reason.INTERNAL:
        raise error
    return NoReply(cause.reason, cause.detail.partition("got: ")[2])
