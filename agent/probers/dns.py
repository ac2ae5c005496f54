"""dns: a question to the pod's nameservers, to libc, or to one nameserver, and what its answer must be.

With `server: pod` the verdict follows libc: its walk through search list and nameservers decides (agent.net.dns_walk).
libc stops at the first nameserver that answers, so a dead or a different second one would stay unseen until it is
needed. Therefore each nameserver of resolv.conf that the walk left out is asked once for the name that was answered,
side by side, for at most SURVEY_SECONDS. What they say is in Fact.DNS_NAMESERVERS and DNS_ATTEMPTS; it never fails the
run, and does not count as time of the resolve phase.

With an address, that nameserver gets one question, without search list and second try. With `system` there is no
message of ours, so rcode, server and queries are not known and not written down.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

from agent.keys import HostPort
from agent.model import Addresses, Fact, Family, Phase, Reason, Target
from agent.net.dns_exchange import Finding, Transport, ask
from agent.net.dns_message import Question, Rcode, RecordType, Reply
from agent.net.dns_walk import Walk
from agent.net.resolvconf import ResolvConf
from agent.net.resolve import resolve
from agent.net.system_lookup import SystemLookups
from agent.prober import ProbeFailure, Recorder, listed, shorten
from agent.probers.dns_options import AnswerPattern, DnsExpect, DnsOptions, Resolver

SURVEY_SECONDS = 1.0
"""How long a nameserver is waited for that libc would not have asked. resolv.conf's 5 s would make a run with a dead
spare look like one that met the resolver's retry."""


class DnsProber:
    """Asks, and compares the answer."""

    def __init__(self) -> None:
        self._system = SystemLookups()

    def prepare(self, target: Target[DnsOptions]) -> None:
        """Nothing is shared by runs."""

    async def probe(self, target: Target[DnsOptions], recorder: Recorder) -> None:
        options = target.options
        began = time.perf_counter()
        match options.server:
            case Resolver.SYSTEM:
                await self._ask_libc(options, recorder)
            case Resolver.POD:
                walk, finding = await _ask_pod(options, recorder)
                try:
                    _judge(finding, options, recorder)
                finally:
                    left = target.timeout_seconds - (time.perf_counter() - began)
                    # Three messages at most, one after the other: as it is, without EDNS, over TCP.
                    await _survey(walk, finding, recorder, patience_seconds=min(SURVEY_SECONDS, left / 4))
            case HostPort() as server:
                _judge(await _ask_server(server, options, recorder), options, recorder)

    async def aclose(self) -> None:
        pass

    async def _ask_libc(self, options: DnsOptions, recorder: Recorder) -> None:
        expect = options.expect
        name = options.name
        recorder.nameserver_is_target = True
        with recorder.phase(Phase.RESOLVE):
            recorder.facts[Fact.DNS_NAME] = name
            family = socket.AF_INET if options.record is RecordType.A else socket.AF_INET6
            try:
                answers = await self._system.addresses(name, family)
            except socket.gaierror as error:
                if error.args[0] != socket.EAI_NONAME or Rcode.NXDOMAIN not in expect.rcodes:
                    raise
                return
            recorder.facts[Fact.DNS_ANSWERS] = listed(answers)
        with recorder.phase(Phase.VERIFY):
            if Rcode.NOERROR not in expect.rcodes:
                raise ProbeFailure(
                    Reason.UNEXPECTED_ANSWER, f"expected no such name as {name}, got {', '.join(answers)}"
                )
            _verify(answers, options)


async def _ask_pod(options: DnsOptions, recorder: Recorder) -> tuple[Walk, Finding]:
    recorder.nameserver_is_target = True
    with recorder.phase(Phase.RESOLVE):
        conf = ResolvConf.read(options.resolv_conf)
        walk = Walk(conf, [options.record], recorder, ask, over_tcp=options.transport is Transport.TCP)
        (finding,) = await walk.search(options.name)
    return walk, finding


async def _ask_server(server: HostPort, options: DnsOptions, recorder: Recorder) -> Finding:
    (address,) = await resolve(
        server.host,
        server.port,
        recorder,
        family=Family.ANY,
        addresses=Addresses.FIRST,
        resolv_conf=options.resolv_conf,
    )
    recorder.nameserver_is_target = True
    question = Question(options.name.removesuffix("."), options.record)
    with recorder.phase(Phase.RESOLVE):
        (finding,) = await ask(address, [question], recorder, transport=options.transport, patience_seconds=None)
    return finding


def _judge(finding: Finding, options: DnsOptions, recorder: Recorder) -> None:
    """Write down what was found, and raise where it is not what is expected."""
    expect = options.expect
    seen = finding.seen
    if not isinstance(seen, Reply):
        raise ProbeFailure(finding.reason, f"expected {_wanted(options)}, got {finding}", phase=Phase.RESOLVE)
    recorder.facts.update(
        {
            Fact.DNS_SERVER: str(finding.server),
            Fact.DNS_NAME: finding.question.name or ".",
            Fact.DNS_RCODE: str(seen.rcode),
            Fact.DNS_TRUNCATED: finding.truncated,
            Fact.DNS_AUTHENTICATED: seen.authenticated,
            Fact.DNS_ANSWERS: listed(seen.records),
        }
    )
    if seen.ttl_seconds is not None:
        recorder.facts[Fact.DNS_TTL_SECONDS] = seen.ttl_seconds
    if seen.rcode not in expect.rcodes:
        if seen.rcode != Rcode.NOERROR:
            raise ProbeFailure(finding.reason, f"expected {_wanted(options)}, got {finding}", phase=Phase.RESOLVE)
    elif seen.rcode == Rcode.NOERROR and not seen.records and expect.min_answers > 0:
        raise ProbeFailure(Reason.NO_RECORDS, f"expected {_wanted(options)}, got {finding}", phase=Phase.RESOLVE)
    with recorder.phase(Phase.VERIFY):
        if seen.rcode not in expect.rcodes:
            raise ProbeFailure(Reason.UNEXPECTED_ANSWER, f"expected {_wanted(options)}, got {_shown(finding)}")
        if seen.rcode == Rcode.NOERROR:
            _verify(seen.records, options)


def _shown(finding: Finding) -> str:
    seen = finding.seen
    records = ", ".join(seen.records) if isinstance(seen, Reply) else ""
    return f"NOERROR ({records or 'an empty answer'}) from {finding.server} for {finding.question.name or '.'}"


def _wanted(options: DnsOptions) -> str:
    others = " or ".join(rcode for rcode in options.expect.rcodes if rcode is not Rcode.NOERROR)
    if Rcode.NOERROR not in options.expect.rcodes:
        return f"{others} for {options.query}"
    return f"{options.record} records of {options.query}" + (f" or {others}" if others else "")


def _verify(answers: Sequence[str], options: DnsOptions) -> None:
    """Compare the records with what is expected of them."""
    expect = options.expect
    problem = _too_few(answers, expect) or _unlike(answers, options)
    if problem is not None:
        raise ProbeFailure(Reason.UNEXPECTED_ANSWER, problem)


def _too_few(answers: Sequence[str], expect: DnsExpect) -> str | None:
    if len(answers) >= expect.min_answers:
        return None
    return f"expected at least {expect.min_answers} answers, got {len(answers)} ({', '.join(answers)})"


def _unlike(answers: Sequence[str], options: DnsOptions) -> str | None:
    expected = options.expect.answers
    if expected is None:
        return None

    def fits(answer: str, patterns: Sequence[AnswerPattern]) -> bool:
        return any(pattern.fits(answer, options.record) for pattern in patterns)

    if expected.some and not any(fits(answer, expected.some) for answer in answers):
        return f"expected an answer that {_either(expected.some)}, got {', '.join(answers) or 'no answer'}"
    for answer in answers:
        if expected.every and not fits(answer, expected.every):
            return f"expected only answers of which each {_either(expected.every)}, got {answer}"
        if expected.no and fits(answer, expected.no):
            return f"expected no answer that {_either(expected.no)}, got {answer}"
    return None


def _either(patterns: Sequence[AnswerPattern]) -> str:
    return shorten(" or ".join(map(str, patterns)), 120)


async def _survey(walk: Walk, finding: Finding, recorder: Recorder, *, patience_seconds: float) -> None:
    """Hear the nameservers that the walk did not need, and write down what each said."""
    await walk.survey(finding.question.name, patience_seconds)
    recorder.facts[Fact.DNS_NAMESERVERS] = [_said(other, finding) for (other,) in walk.said(finding.question.name)]


def _said(other: Finding, finding: Finding) -> dict[str, Any]:
    seen = other.seen
    if not isinstance(seen, Reply):
        return {"server": str(other.server), "error": seen.reason.value}
    same = isinstance(finding.seen, Reply) and (seen.rcode, set(seen.records)) == (
        finding.seen.rcode,
        set(finding.seen.records),
    )
    return {
        "server": str(other.server),
        "rcode": str(seen.rcode),
        "answers": listed(seen.records),
        "same_answer": same,
    }
