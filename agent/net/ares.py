"""Questions to one nameserver through c-ares (aiodns): how the resolve phase of http, tcp and postgres asks.

A fresh resolver serves one round of questions, because a channel of c-ares remembers what a probe must not: answers
(for up to an hour; its cache cannot be switched off) and how quick its nameservers were, by which it shortens its
patience. Whom to ask for what, and how often, is decided by agent.net.dns_walk.

What c-ares keeps to itself is unknown here too: the TC bit (it asks again over TCP; seen by the socket it opens, for
the round as a whole), whether it left out EDNS after a FORMERR, referrals, and the number of an unusual rcode. Over TCP
it calls a connection that was closed or reset the same as one that was refused. Where these are facts, in the dns type,
agent.net.dns_exchange asks.
"""

from __future__ import annotations

import asyncio
import socket
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import aiodns
import pycares
from aiodns import error as ares

from agent.model import Fact, Reason
from agent.net.address import Address
from agent.net.dns_exchange import RECEIVE_ICMP_ERRORS, Finding, NoReply, Transport, lost
from agent.net.dns_message import Question, Rcode, Record, RecordType, Reply, follow
from agent.prober import ProbeFailure, Recorder, excerpt

UNUSUAL = "an unusual rcode"
"""One of those that c-ares has no code for; glibc does not distinguish them either."""

RCODES: Mapping[int, Rcode] = {
    ares.ARES_ENODATA: Rcode.NOERROR,
    ares.ARES_EFORMERR: Rcode.FORMERR,
    ares.ARES_ESERVFAIL: Rcode.SERVFAIL,
    ares.ARES_ENOTFOUND: Rcode.NXDOMAIN,
    ares.ARES_ENOTIMP: Rcode.NOTIMP,
    ares.ARES_EREFUSED: Rcode.REFUSED,
}
"""Codes of c-ares that are answers without records."""

NO_ANSWERS: Mapping[int, NoReply] = {
    ares.ARES_EBADRESP: NoReply(Reason.PROTOCOL_ERROR, "a malformed answer"),
    ares.ARES_ECONNREFUSED: NoReply(Reason.UNREACHABLE, "it refuses, or cannot be reached"),
    ares.ARES_ETIMEOUT: NoReply(Reason.TIMEOUT, "none came in time"),
    ares.ARES_EOF: NoReply(Reason.CLOSED, "the connection ended before an answer"),
}
"""Codes of c-ares that say why there is no answer. The others are about the call or this process."""

_FLAGS = pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_NOALIASES | pycares.ARES_FLAG_EDNS
_TYPES = {
    pycares.QUERY_TYPE_A: RecordType.A,
    pycares.QUERY_TYPE_AAAA: RecordType.AAAA,
    pycares.QUERY_TYPE_CNAME: RecordType.CNAME,
}


async def ask(
    server: Address,
    questions: Sequence[Question],
    recorder: Recorder,
    *,
    transport: Transport,
    patience_seconds: float,
) -> tuple[Finding, ...]:
    """Ask for A or AAAA of a name, or for both together from one socket, and return a finding for each.

    Where only one has an answer, the other is asked again, alone: its datagram was lost, or what befell the first took
    the socket along. Each question is an entry of Fact.DNS_ATTEMPTS; a round waits as long as `patience_seconds` says.
    Raises ProbeFailure where the name is none.
    """
    over = f" over {transport}" if transport is Transport.TCP else ""
    name = questions[0].name or "."
    recorder.awaited = lambda: f"expected an answer from {server}{over} for {name}, got none"
    findings = await _round(server, questions, recorder, transport, patience_seconds)
    if any(isinstance(finding.seen, Reply) for finding in findings):
        for index, finding in enumerate(findings):
            if isinstance(finding.seen, NoReply):
                again = await _round(server, [finding.question], recorder, transport, patience_seconds)
                findings[index : index + 1] = again
    recorder.awaited = None
    return tuple(findings)


async def _round(
    server: Address, questions: Sequence[Question], recorder: Recorder, transport: Transport, patience_seconds: float
) -> list[Finding]:
    resolver = _Resolver(
        [_written(server)],
        loop=asyncio.get_running_loop(),
        flags=_FLAGS | (pycares.ARES_FLAG_USEVC if transport is Transport.TCP else 0),
        timeout=patience_seconds,
        tries=1,
        lookups="b",
        resolvconf_path="/dev/null",  # the walk has read it, and tells what of it counts
    )
    asked: list[_Asked] = []
    try:
        for question in questions:
            asked.append(_Asked(server, question, transport, recorder, resolver))
        # The patience is kept here: aiodns looks at the clock once a second.
        await asyncio.wait([one.answer for one in asked], timeout=patience_seconds)
    finally:
        # Also where the deadline of the run ends the wait.
        for one in asked:
            one.stop_waiting()
        await resolver.close()
    return [one.finding() for one in asked]


def _written(server: Address) -> str:
    """A nameserver as c-ares wants it: `127.0.0.1:53`, `[::1]:53`, `[fe80::1]:53%eth0`."""
    ip, _, scope = server.ip.partition("%")
    return f"{Address(ip, server.port)}%{scope}" if scope else str(server)


class _Resolver(aiodns.DNSResolver):
    """An aiodns resolver that does not watch resolv.conf, and knows what sockets c-ares opened.

    aiodns would give each an inotify instance and a thread; inotify instances are limited to 128 for all processes of
    a user on a node, the task's among them, so the sidecar takes none.
    """

    met = False
    """A socket has been opened."""
    used_tcp = False
    connected = False
    """Over TCP."""

    def _make_channel(self, **kwargs: Any) -> tuple[bool, pycares.Channel]:
        this = weakref.ref(self)  # the channel holds the callback: no cycle, so that both end with a round

        def on_socket(fd: int, readable: bool, writable: bool) -> None:  # noqa: FBT001 - c-ares' signature
            resolver = this()
            if resolver is not None:
                resolver._on_socket(fd, readable=readable, writable=writable)  # noqa: SLF001

        return False, pycares.Channel(sock_state_cb=on_socket, timeout=self._timeout, **kwargs)

    def _on_socket(self, fd: int, *, readable: bool, writable: bool) -> None:
        if readable and fd not in self._read_fds:
            self._meet(fd)
        if readable and not writable and fd in self._write_fds:
            # aiodns would go on waiting for a connection to be writable, which it always is: a busy loop.
            self.connected = True
            self._write_fds.discard(fd)
            self.loop.remove_writer(fd)
        self._sock_state_cb(fd, readable, writable)

    def _meet(self, fd: int) -> None:
        self.met = True
        sock = socket.socket(fileno=fd)
        try:
            if sock.type is socket.SOCK_STREAM:
                self.used_tcp = True
            else:
                sock.setsockopt(*RECEIVE_ICMP_ERRORS[sock.family], 1)
        finally:
            sock.detach()


class _Asked:
    """A question on its way, and its entry in the notebook."""

    def __init__(
        self, server: Address, question: Question, transport: Transport, recorder: Recorder, resolver: _Resolver
    ) -> None:
        self._server, self._question, self._transport, self._resolver = server, question, transport, resolver
        self._entry: dict[str, Any] = {
            "server": str(server),
            "name": question.name or ".",
            "record": question.record.value,
            "transport": transport.value,
        }
        self._began = time.perf_counter()
        self._waited: float | None = None
        self._seen: Reply | NoReply | BaseException = NoReply(Reason.TIMEOUT, "no answer")
        self.answer = resolver.query_dns(question.name, question.record.value)
        self.answer.add_done_callback(self._stop_clock)
        recorder.facts.setdefault(Fact.DNS_ATTEMPTS, []).append(self._entry)

    def _stop_clock(self, _: object = None) -> None:
        if self._waited is None:
            self._waited = time.perf_counter() - self._began
            self._entry["duration_seconds"] = round(self._waited, 6)

    def stop_waiting(self) -> None:
        """Write down how it ended; what has no answer by now gets none."""
        self._stop_clock()
        if not self.answer.done():
            self.answer.cancel()
            self._seen = NoReply(Reason.TIMEOUT, f"none came within {self._waited:.2g}s")
        elif (error := self.answer.exception()) is None:
            self._seen = _reply(self._question, self.answer.result())
        else:
            self._seen = self._failed(error)
        if isinstance(self._seen, Reply):
            self._entry["rcode"] = str(self._seen.rcode)
        else:
            self._entry["error"] = (self._seen.reason if isinstance(self._seen, NoReply) else Reason.INTERNAL).value
        self._entry["truncated"] = self._truncated

    def finding(self) -> Finding:
        """What came of it. Raises what is no fault of the nameserver's."""
        seen = self._seen
        if isinstance(seen, BaseException):
            if seen.args[:1] == (ares.ARES_EBADNAME,):
                raise ProbeFailure(Reason.NAME_NOT_FOUND, f"expected a name of DNS, got {excerpt(self._question.name)}")
            raise seen
        if isinstance(seen, NoReply) and seen.reason is Reason.UNREACHABLE and not self._resolver.met:
            seen = _way_to(self._server)
        return Finding(self._server, self._question, seen, self._truncated)

    @property
    def _truncated(self) -> bool:
        return self._transport is Transport.UDP and self._resolver.used_tcp

    def _failed(self, error: BaseException) -> Reply | NoReply | BaseException:
        code: int = error.args[0] if isinstance(error, ares.DNSError) else ares.ARES_SUCCESS
        if code == ares.ARES_ECONNREFUSED and self._resolver.connected:
            return NO_ANSWERS[ares.ARES_EOF]
        if code in RCODES:
            return replace(_NOTHING, rcode=RCODES[code])
        return NO_ANSWERS.get(code, error)


_NOTHING = Reply(
    rcode=Rcode.NOERROR,
    truncated=False,
    authenticated=False,
    edns=False,
    referral=False,
    empty=True,
    records=(),
    ttl_seconds=None,
    dead_end=None,
)
"""An answer without records. What c-ares keeps to itself is false: nobody asks for it here."""


def _reply(question: Question, result: pycares.DNSResult) -> Reply:
    """An answer with records. What c-ares has no code for, it calls a success without any."""
    if not result.answer:
        return replace(_NOTHING, rcode=UNUSUAL)
    records = [
        Record(answer.name.lower(), _TYPES[answer.type], answer.ttl, _data(answer.data))
        for answer in result.answer
        if answer.type in _TYPES and answer.record_class == pycares.QUERY_CLASS_IN
    ]
    found, dead_end = follow(question, records)
    return replace(
        _NOTHING,
        empty=False,
        records=tuple(record.data for record in found if record.type is question.record),
        ttl_seconds=min((record.ttl for record in found), default=None),
        dead_end=dead_end,
    )


def _data(data: Any) -> str:
    return str(data.cname if isinstance(data, pycares.CNAMERecordData) else data.addr)


def _way_to(server: Address) -> NoReply:
    """Why c-ares got no socket, for which it has one code: the kernel says it again, without a packet.

    Raises OSError where it is about this process (too many open files).
    """
    try:
        with socket.socket(server.family, socket.SOCK_DGRAM) as sock:
            sock.connect((server.ip, server.port))
    except OSError as error:
        return lost(error)
    return NO_ANSWERS[ares.ARES_ECONNREFUSED]
