"""What the pod's libc would ask, and whom: resolv.conf's search list and nameservers, walked in its order.

The order and the rules for stopping are those of glibc 2.36: names as in `__res_context_search` (resolv/res_query.c),
nameservers as in `__res_context_send` and `send_dg` (resolv/res_send.c). Two things differ: questions carry EDNS, so
that large answers are not cut at 512 bytes, and TCP keeps to the timeout of resolv.conf instead of the kernel's.

Who sends the questions is an argument: agent.net.dns_exchange for the dns type, agent.net.ares for every other.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Iterator, Sequence
from typing import Protocol

from agent.model import Reason
from agent.net.address import Address
from agent.net.dns_exchange import Finding, NoReply, Transport
from agent.net.dns_message import Question, Rcode, RecordType, Reply, encode_name
from agent.net.resolvconf import ResolvConf
from agent.prober import Recorder

DNS_PORT = 53

# What makes libc go on to the next nameserver.
_NEXT_SERVER = frozenset({Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED})

# Where no nameserver gave an answer that counts: which of their failures says most, least first.
_SAYS_MOST = (Reason.UNREACHABLE, Reason.TIMEOUT, Reason.RESET, Reason.CLOSED, Reason.PROTOCOL_ERROR)


class Ask(Protocol):
    """Questions to one nameserver, one or more at once: agent.net.dns_exchange.ask, or agent.net.ares.ask."""

    async def __call__(
        self,
        server: Address,
        questions: Sequence[Question],
        recorder: Recorder,
        *,
        transport: Transport,
        patience_seconds: float,
    ) -> tuple[Finding, ...]:
        """Return a finding for each question."""


class Walk:
    """One lookup of one name: the records of one type, or A and AAAA together."""

    def __init__(
        self, conf: ResolvConf, records: Sequence[RecordType], recorder: Recorder, ask: Ask, *, over_tcp: bool = False
    ) -> None:
        self._ask_server = ask
        self._conf = conf
        self._records = records
        self._over_tcp = over_tcp or conf.use_vc
        self._recorder = recorder
        self._servers = [Address(ip, DNS_PORT) for ip in conf.nameservers]
        first = secrets.randbelow(len(self._servers)) if conf.rotate else 0
        self._firsts = itertools.count(first, int(conf.rotate))
        self._findings: dict[tuple[str, Address], tuple[Finding, ...]] = {}

    async def search(self, query: str) -> tuple[Finding, ...]:
        """Ask for a name and, by `search` and `ndots`, for the longer names it may stand for.

        The findings, one for each type, are those whose verdict libc returns: the first with records, or those its
        failure is based on.
        """
        conf = self._conf
        name = query.removesuffix(".")
        dots = query.count(".")
        first: tuple[Finding, ...] | None = None
        if name != query or dots >= conf.ndots:
            first = await self._ask_servers(name)
            if name != query or has_data(first):
                return first
        no_data: tuple[Finding, ...] | None = None
        server_failed: tuple[Finding, ...] | None = None
        last: tuple[Finding, ...] | None = None
        for candidate in self._candidates(name):
            last = await self._ask_servers(candidate)
            if has_data(last) or _unreachable(last):
                return last
            match decisive(last).seen:
                case Reply(rcode=Rcode.NOERROR):
                    no_data = last
                case Reply(rcode=Rcode.NXDOMAIN):
                    pass
                case Reply(rcode=Rcode.SERVFAIL):
                    server_failed = last
                case _:
                    break
        wanted = dots > 0 or not conf.search or not conf.no_tld_query
        if last is None or (wanted and first is None and "" not in conf.search):
            last = first or await self._ask_servers(name)
            if has_data(last):
                return last
        return first or no_data or server_failed or last

    async def survey(self, name: str, patience_seconds: float) -> None:
        """Ask the nameservers that have not been asked for a name: side by side, once each."""
        async with asyncio.TaskGroup() as tasks:
            for server in self._servers:
                if (name, server) not in self._findings:
                    tasks.create_task(self._ask(server, name, self._over_tcp, patience_seconds))

    def said(self, name: str) -> list[tuple[Finding, ...]]:
        """What each nameserver said about a name, in the order of resolv.conf."""
        found = (self._findings.get((name, server)) for server in self._servers)
        return [findings for findings in found if findings is not None]

    def _candidates(self, name: str) -> Iterator[str]:
        for domain in self._conf.search:
            candidate = f"{name}.{domain}" if domain else name
            try:
                encode_name(candidate)
            except ValueError:
                return  # libc cannot write it down either, and stops here
            yield candidate

    async def _ask_servers(self, name: str) -> tuple[Finding, ...]:
        """Ask one nameserver after the other, `attempts` times around; over TCP, once around."""
        over_tcp = self._over_tcp
        count = len(self._servers)
        first = next(self._firsts)
        failed: list[tuple[Finding, ...]] = []
        for _ in range(self._conf.attempts):
            for shift in range(count):
                index = (first + shift) % count
                findings = await self._ask(self._servers[index], name, over_tcp, self._patience_seconds(index))
                over_tcp = over_tcp or any(finding.truncated for finding in findings)
                if any(_settles(finding.seen, over_tcp=over_tcp) for finding in findings):
                    return findings
                failed.append(findings)
            if over_tcp:
                break
        return max(reversed(failed), key=_says)

    async def _ask(self, server: Address, name: str, over_tcp: bool, patience_seconds: float) -> tuple[Finding, ...]:  # noqa: FBT001
        transport = Transport.TCP if over_tcp else Transport.UDP
        questions = [Question(name, record) for record in self._records]
        findings = await self._ask_server(
            server, questions, self._recorder, transport=transport, patience_seconds=patience_seconds
        )
        self._findings[name, server] = findings
        return findings

    def _patience_seconds(self, index: int) -> int:
        """How long libc waits for the nameserver at this place of the list (send_dg)."""
        seconds = self._conf.timeout_seconds << index
        return max(1, seconds // len(self._servers) if index else seconds)


def has_data(findings: Sequence[Finding]) -> bool:
    """Whether libc takes this for an answer: a record of any type, be it a CNAME alone."""
    return any(
        isinstance(finding.seen, Reply) and finding.seen.rcode == Rcode.NOERROR and not finding.seen.empty
        for finding in findings
    )


def decisive(findings: Sequence[Finding]) -> Finding:
    """The finding libc judges by where none has data: the first, or the second where the first is plain no data."""
    first, last = findings[0], findings[-1]
    return last if isinstance(first.seen, Reply) and first.seen.rcode == Rcode.NOERROR else first


def _unreachable(findings: Sequence[Finding]) -> bool:
    """Every nameserver refused: libc gives up at once (ECONNREFUSED)."""
    return all(isinstance(f.seen, NoReply) and f.seen.reason is Reason.UNREACHABLE for f in findings)


def _settles(seen: Reply | NoReply, *, over_tcp: bool) -> bool:
    if isinstance(seen, NoReply):
        return False
    return over_tcp or not (seen.rcode in _NEXT_SERVER or seen.referral)


def _says(findings: Sequence[Finding]) -> int:
    seen = decisive(findings).seen
    return len(_SAYS_MOST) if isinstance(seen, Reply) else _SAYS_MOST.index(seen.reason)
