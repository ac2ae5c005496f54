"""The dns prober against real nameservers, and against one that misbehaves as it is told."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dnslib
import pytest
import voluptuous as vol

from agent.keys import section
from agent.model import Fact, Outcome
from agent.prober import LISTED
from agent.probers.dns import DnsProber
from agent.probers.dns_options import DnsOptions, from_url
from agent.runner import run
from tests.lab.command import COMMAND
from tests.lab.leaks import held, nothing_leaks
from tests.lab.misbehaving import Server, closing_when_spoken_to, dripping, resetting
from tests.lab.misbehaving import silent as mute
from tests.lab.nameservers import (
    LAB_ZONE,
    Daemon,
    Nameserver,
    Query,
    Script,
    answering,
    by_transport,
    dnsmasq,
    knot,
    late,
    loopback_ip,
    resolv_conf,
    silent,
    truncated,
    unbound,
    zone,
)
from tests.lab.netns import SERVER_IP, Namespace, two_hosts
from tests.lab.targets import probe, target, verdict

A_RECORD = "db.lab.test. 60 IN A 10.0.0.1"


@pytest.fixture(scope="module")
def authority() -> Iterator[Daemon]:
    with knot(LAB_ZONE) as server:
        yield server


async def ask(script: Script, **keys: Any) -> tuple[Outcome, Nameserver]:
    """One run against a nameserver with a script."""
    async with Nameserver(script) as server:
        return await probe("dns", **{"query": "db.lab.test", "server": server.address, **keys}), server


def attempts(outcome: Outcome) -> list[tuple[str, str]]:
    """Each message of a run: transport, and what came of it."""
    return [
        (attempt["transport"], attempt.get("rcode") or attempt["error"]) for attempt in outcome.facts[Fact.DNS_ATTEMPTS]
    ]


# --- good answers of real servers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("record", "query", "answers"),
    [
        ("A", "db.lab.test", ["10.0.0.1", "10.0.0.2"]),
        ("A", "DB.Lab.Test.", ["10.0.0.1", "10.0.0.2"]),
        ("A", "www.lab.test", ["10.0.0.1", "10.0.0.2"]),
        ("AAAA", "six.lab.test", ["2001:db8::1"]),
        ("CNAME", "www.lab.test", ["web.lab.test"]),
        ("TXT", "text.lab.test", ["v=spf1 -all and more"]),
        ("SRV", "_pg._tcp.lab.test", ["10 5 5432 db.lab.test"]),
        ("MX", "lab.test", ["10 mail.lab.test"]),
        ("NS", "lab.test", ["ns.lab.test"]),
        ("SOA", "lab.test", ["ns.lab.test admin.lab.test 2026112201 3600 600 86400 30"]),
        ("PTR", "127.0.0.7", ["host.lab.test"]),
        ("PTR", "7.0.0.127.in-addr.arpa", ["host.lab.test"]),
    ],
)
async def test_every_record_type_of_a_real_server(
    authority: Daemon, transport: str, record: str, query: str, answers: list[str]
) -> None:
    outcome = await probe("dns", query=query, record=record, server=authority.address, transport=transport)
    assert verdict(outcome) == "success"
    assert sorted(outcome.facts[Fact.DNS_ANSWERS]) == answers
    assert outcome.facts[Fact.DNS_RCODE] == "NOERROR"
    assert outcome.facts[Fact.DNS_SERVER] == authority.address
    assert outcome.facts[Fact.DNS_TTL_SECONDS] in {30, 60}
    assert outcome.facts[Fact.DNS_QUERIES] == 1
    assert [attempt["transport"] for attempt in outcome.facts[Fact.DNS_ATTEMPTS]] == [transport]


async def test_a_resolver_and_a_forwarder_answer_too() -> None:
    with (
        unbound('local-data: "db.lab.test. A 10.0.0.9"') as resolver,
        dnsmasq("--host-record=db.lab.test,10.1.1.1") as hub,
    ):
        for server, answer in ((resolver, "10.0.0.9"), (hub, "10.1.1.1")):
            outcome = await probe("dns", query="db.lab.test", server=server.address)
            assert verdict(outcome) == "success"
            assert outcome.facts[Fact.DNS_ANSWERS] == [answer]


async def test_a_real_server_refuses_denies_and_fails(authority: Daemon) -> None:
    refused = await probe("dns", query="example.org", server=authority.address)
    missing = await probe("dns", query="nosuch.lab.test", server=authority.address)
    empty = await probe("dns", query="six.lab.test", server=authority.address)
    broken = await probe("dns", query="db.broken.test", server=authority.address)
    assert [verdict(outcome) for outcome in (refused, missing, empty, broken)] == [
        "resolve/query_refused",
        "resolve/name_not_found",
        "resolve/no_records",
        "resolve/server_failure",
    ]


async def test_trap_t19_a_truncated_answer_is_fetched_over_tcp_and_both_are_seen(authority: Daemon) -> None:
    """blackbox_exporter sends no EDNS, does not retry over TCP, and a cut answer looks like a wrong one."""
    outcome = await probe("dns", query="big.lab.test", record="TXT", server=authority.address)
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.DNS_TRUNCATED] is True
    assert outcome.facts[Fact.DNS_ANSWERS][0].startswith("xxxx")
    assert attempts(outcome) == [("udp", "NOERROR"), ("tcp", "NOERROR")]
    assert [attempt["truncated"] for attempt in outcome.facts[Fact.DNS_ATTEMPTS]] == [True, False]
    assert outcome.facts[Fact.DNS_QUERIES] == 2


async def test_trap_t19_edns_spares_the_second_message() -> None:
    """900 bytes are too many for plain DNS over UDP, and fit into 1232."""
    lines = [f"db.lab.test. 60 IN A 10.0.1.{last}" for last in range(50)]
    outcome, server = await ask(answering("NOERROR", *lines))
    assert verdict(outcome) == "success"
    assert len(server.asked) == 1
    assert server.asked[0].edns


@pytest.mark.parametrize(
    ("over_tcp", "expected"),
    [
        (silent, "resolve/timeout"),
        (answering("SERVFAIL"), "resolve/server_failure"),
        (answering("NOERROR", A_RECORD), "success"),
    ],
)
async def test_trap_t19_what_comes_over_tcp_decides(over_tcp: Script, expected: str) -> None:
    outcome, _ = await ask(by_transport(udp=truncated, tcp=over_tcp), timeout_seconds=0.5)
    assert verdict(outcome) == expected
    assert outcome.facts[Fact.DNS_ATTEMPTS][0]["truncated"]
    if expected == "resolve/timeout":
        assert outcome.failure is not None
        assert "over tcp" in outcome.failure.detail


# --- bad answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rcode", "expected"),
    [
        ("FORMERR", "resolve/protocol_error"),
        ("SERVFAIL", "resolve/server_failure"),
        ("NXDOMAIN", "resolve/name_not_found"),
        ("NOTIMP", "resolve/server_failure"),
        ("REFUSED", "resolve/query_refused"),
        ("YXDOMAIN", "resolve/server_failure"),
        ("NOTAUTH", "resolve/server_failure"),
        ("NOERROR", "resolve/no_records"),
    ],
)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_each_rcode_is_its_reason_and_a_fact(rcode: str, expected: str, transport: str) -> None:
    outcome, server = await ask(answering(rcode), transport=transport)
    assert verdict(outcome) == expected
    assert outcome.facts[Fact.DNS_RCODE] == rcode
    assert outcome.failure is not None
    seen = "no A record (an empty answer)" if rcode == "NOERROR" else rcode
    assert outcome.failure.detail == (
        f"expected A records of db.lab.test, got {seen} from {server.address} for db.lab.test"
    )
    assert len(server.asked) == 1, "one nameserver by its address, one attempt"


async def test_an_rcode_without_a_name_and_an_extended_one() -> None:
    async def odd(query: Query) -> None:
        reply = query.message.reply()
        reply.header.rcode = 13
        query.send(reply)

    async def extended(query: Query) -> None:
        reply = query.message.reply()
        reply.add_ar(dnslib.EDNS0(ext_rcode=1, udp_len=1232))  # 1 << 4 | 0: BADVERS
        query.send(reply)

    assert (await ask(odd))[0].facts[Fact.DNS_RCODE] == "RCODE13"
    assert (await ask(extended))[0].facts[Fact.DNS_RCODE] == "BADVERS"


async def test_a_server_that_does_not_know_edns_is_asked_without() -> None:
    async def old(query: Query) -> None:
        if query.edns:
            reply = query.message.reply()
            reply.questions = []
            reply.header.rcode = dnslib.RCODE.FORMERR
            query.send(reply)
        else:
            query.send(query.reply(A_RECORD))

    outcome, server = await ask(old)
    assert verdict(outcome) == "success"
    assert [asked.edns for asked in server.asked] == [True, False]
    assert [attempt["edns"] for attempt in outcome.facts[Fact.DNS_ATTEMPTS]] == [True, False]
    assert attempts(outcome) == [("udp", "FORMERR"), ("udp", "NOERROR")]


def spoilt(spoil: Callable[[dnslib.DNSRecord], None], *, then: Script | None = None) -> Script:
    """A good answer with something wrong about it; then perhaps another one."""

    async def script(query: Query) -> None:
        reply = query.reply(A_RECORD)
        spoil(reply)
        query.send(reply)
        if then is not None:
            await then(query)

    return script


def wrong_id(reply: dnslib.DNSRecord) -> None:
    reply.header.id ^= 1


def wrong_name(reply: dnslib.DNSRecord) -> None:
    reply.questions = [dnslib.DNSQuestion("evil.lab.test")]


def wrong_type(reply: dnslib.DNSRecord) -> None:
    reply.questions = [dnslib.DNSQuestion("db.lab.test", dnslib.QTYPE.AAAA)]


def no_question(reply: dnslib.DNSRecord) -> None:
    reply.questions = []


def two_questions(reply: dnslib.DNSRecord) -> None:
    reply.questions = reply.questions * 2


UNRELATED = [wrong_id, wrong_name, wrong_type, no_question, two_questions]


@pytest.mark.parametrize("spoil", UNRELATED)
async def test_an_answer_to_another_question_does_not_count(spoil: Callable[[dnslib.DNSRecord], None]) -> None:
    """Forged and late answers: ignored, noted, and the run waits on."""
    outcome, _ = await ask(spoilt(spoil), timeout_seconds=0.3)
    assert verdict(outcome) == "resolve/timeout"
    assert outcome.facts[Fact.DNS_ATTEMPTS][0]["ignored"] == 1
    assert outcome.failure is not None
    assert "got none but 1 to another question within 0.3s" in outcome.failure.detail
    assert Fact.DNS_ANSWERS not in outcome.facts


@pytest.mark.parametrize("spoil", UNRELATED)
async def test_the_right_answer_after_a_forged_one_counts(spoil: Callable[[dnslib.DNSRecord], None]) -> None:
    right = late(0.05, answering("NOERROR", "db.lab.test. 60 IN A 10.0.0.7"))
    outcome, _ = await ask(spoilt(spoil, then=right))
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.DNS_ANSWERS] == ["10.0.0.7"]
    assert outcome.facts[Fact.DNS_ATTEMPTS][0]["ignored"] == 1


@pytest.mark.parametrize("spoil", UNRELATED)
async def test_over_tcp_an_answer_to_another_question_is_a_broken_server(
    spoil: Callable[[dnslib.DNSRecord], None],
) -> None:
    outcome, _ = await ask(spoilt(spoil), transport="tcp")
    assert verdict(outcome) == "resolve/protocol_error"


async def test_an_answer_from_another_address_does_not_count() -> None:
    """Right id, right question, but sent from a second socket."""
    elsewhere, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    peers: list[Any] = []

    class Eavesdropper(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            peers.append(addr)
            reply = dnslib.DNSRecord.parse(data).reply()
            reply.add_answer(*dnslib.RR.fromZone(A_RECORD))
            elsewhere.sendto(reply.pack(), addr)

    asked, _ = await asyncio.get_running_loop().create_datagram_endpoint(Eavesdropper, local_addr=("127.0.0.1", 0))
    port = asked.get_extra_info("sockname")[1]
    outcome = await probe("dns", query="db.lab.test", server=f"127.0.0.1:{port}", timeout_seconds=0.3)
    asked.close()
    elsewhere.close()
    assert peers, "the question arrived"
    assert verdict(outcome) == "resolve/timeout"


async def test_a_flood_of_strangers_does_not_stop_the_deadline() -> None:
    async def flood(query: Query) -> None:
        reply = query.reply(A_RECORD)
        wrong_id(reply)
        data = reply.pack()
        while True:
            for _ in range(100):
                query.send(data)
            await asyncio.sleep(0)

    outcome, _ = await ask(flood, timeout_seconds=0.3)
    assert verdict(outcome) == "resolve/timeout"
    assert outcome.facts[Fact.DNS_ATTEMPTS][0]["ignored"] > 100


def raw(build: Callable[[Query], bytes]) -> Script:
    async def script(query: Query) -> None:
        query.send(build(query))

    return script


def _looping_pointers(query: Query) -> bytes:
    """Two compression pointers, each inside the label the other one leads to: a decoder that trusts them never ends."""
    head = bytearray(query.reply(A_RECORD).pack()[:12])
    head[4:12] = (1).to_bytes(2, "big") + (1).to_bytes(2, "big") + bytes(4)
    question = query.data[12 : query.data.index(b"\0\0\x01\0\x01", 12) + 5]
    start = 12 + len(question)
    return bytes(head) + question + b"\xc0" + bytes((start,)) + bytes(10)


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda _: b"\0", id="one byte"),
        pytest.param(lambda _: b"hello", id="shorter than a header"),
        pytest.param(lambda query: query.data[:2] + b"\xff" * 40, id="garbage with the right id"),
        pytest.param(lambda query: query.data, id="the question itself"),
        pytest.param(lambda query: query.reply(A_RECORD).pack()[:-20], id="cut off without TC"),
        pytest.param(_looping_pointers, id="a name that points at itself"),
    ],
)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_what_is_no_dns_answer_is_a_protocol_error(build: Callable[[Query], bytes], transport: str) -> None:
    outcome, _ = await ask(raw(build), transport=transport)
    assert verdict(outcome) == "resolve/protocol_error"
    assert attempts(outcome) == [(transport, "protocol_error")]


async def test_no_mutation_of_an_answer_is_a_defect_of_ours() -> None:
    """Each run ends as a success or with a reason of the network's; never as `internal`."""
    chance = random.Random(53)
    ends: Counter[str] = Counter()

    async def mutated(query: Query) -> None:
        data = bytearray(query.reply(A_RECORD, "db.lab.test. 60 IN A 10.0.0.2").pack())
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(2, len(data))] = chance.randrange(256)
        query.send(bytes(data[: chance.randint(2, 2 * len(data))]))

    async with Nameserver(mutated) as server:
        for _ in range(400):
            outcome = await probe("dns", query="db.lab.test", server=server.address, transport="tcp")
            ends[verdict(outcome)] += 1
    assert ends["resolve/protocol_error"] > 0 < ends["success"]
    assert not any(end.endswith("/internal") for end in ends)


async def test_a_cname_chain_is_followed_in_any_order() -> None:
    lines = ["c.test. 5 IN A 10.0.0.1", "db.lab.test. 60 IN CNAME b.test.", "B.test. 30 IN CNAME c.test."]
    outcome, _ = await ask(answering("NOERROR", *lines))
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.DNS_ANSWERS] == ["10.0.0.1"]
    assert outcome.facts[Fact.DNS_TTL_SECONDS] == 5, "the smallest of the chain"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["db.lab.test. 60 IN CNAME b.test."], "a CNAME chain that ends at b.test"),
        (
            ["db.lab.test. 60 IN CNAME b.test.", "b.test. 60 IN CNAME c.test.", "x.test. 60 IN A 10.0.0.1"],
            "ends at c.test",
        ),
        (["db.lab.test. 60 IN CNAME b.test.", "b.test. 60 IN CNAME db.lab.test."], "returns to db.lab.test"),
        (["db.lab.test. 60 IN CNAME db.lab.test."], "returns to db.lab.test"),
        (["other.test. 60 IN A 10.0.0.1"], "an empty answer"),
    ],
)
async def test_a_chain_that_leads_nowhere_is_no_records(lines: list[str], said: str) -> None:
    outcome, _ = await ask(answering("NOERROR", *lines))
    assert verdict(outcome) == "resolve/no_records"
    assert outcome.failure is not None
    assert said in outcome.failure.detail
    assert outcome.facts[Fact.DNS_ANSWERS] == []


async def test_a_late_answer_counts_within_the_deadline_and_not_after() -> None:
    good = answering("NOERROR", A_RECORD)
    in_time, _ = await ask(late(0.2, good), timeout_seconds=5)
    too_late, _ = await ask(late(0.6, good), timeout_seconds=0.2)
    assert verdict(in_time) == "success"
    assert in_time.facts[Fact.DNS_ATTEMPTS][0]["duration_seconds"] >= 0.2
    assert verdict(too_late) == "resolve/timeout"


async def test_a_late_duplicate_harms_nobody() -> None:
    async def twice(query: Query) -> None:
        query.send(query.reply(A_RECORD))
        query.send(query.reply(A_RECORD))

    async with Nameserver(twice) as server:
        for _ in range(20):
            assert verdict(await probe("dns", query="db.lab.test", server=server.address)) == "success"
    assert len(server.asked) == 20


async def test_a_silent_server_shows_the_time_in_the_attempt() -> None:
    outcome, server = await ask(silent, timeout_seconds=0.4)
    assert verdict(outcome) == "resolve/timeout"
    (attempt,) = outcome.facts[Fact.DNS_ATTEMPTS]
    assert attempt["error"] == "timeout"
    assert attempt["duration_seconds"] == pytest.approx(outcome.phases[next(iter(outcome.phases))], abs=0.05)
    assert outcome.failure is not None
    assert outcome.failure.detail == (f"expected an answer from {server.address} for db.lab.test, got none within 0.4s")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_port_nobody_listens_on_is_unreachable(transport: str) -> None:
    async with Nameserver(silent) as server:
        pass
    outcome = await probe("dns", query="db.lab.test", server=server.address, transport=transport)
    assert verdict(outcome) == "resolve/unreachable"
    assert attempts(outcome) == [(transport, "unreachable")]


@pytest.mark.parametrize(
    ("misbehaving", "expected"),
    [
        (closing_when_spoken_to(), "resolve/closed"),
        (closing_when_spoken_to(b"\0"), "resolve/closed"),
        (closing_when_spoken_to(b"\0\x40only a part"), "resolve/closed"),
        (resetting(), "resolve/reset"),
        (resetting(b"\0\x40only a part"), "resolve/reset"),
        (dripping(b"\x40", 0.05), "resolve/timeout"),
        (mute(), "resolve/timeout"),
    ],
)
async def test_ends_and_delays_of_a_tcp_connection(misbehaving: Server, expected: str) -> None:
    async with misbehaving as server:
        outcome = await probe("dns", query="db.lab.test", server=server.address, transport="tcp", timeout_seconds=0.4)
    assert verdict(outcome) == expected
    assert attempts(outcome) == [("tcp", expected.partition("/")[2])]


async def test_a_length_prefix_in_two_parts_is_one_length() -> None:
    async def dripped(query: Query) -> None:
        data = query.reply(A_RECORD).pack()
        for byte in len(data).to_bytes(2, "big") + data:
            query.send_raw(bytes((byte,)))
            await asyncio.sleep(0.001)

    outcome, _ = await ask(dripped, transport="tcp")
    assert verdict(outcome) == "success"


async def test_ipv6() -> None:
    async with Nameserver(answering("NOERROR", A_RECORD), ip="::1") as server:
        for transport in ("udp", "tcp"):
            outcome = await probe("dns", query="db.lab.test", server=server.address, transport=transport)
            assert verdict(outcome) == "success"
            assert outcome.facts[Fact.DNS_SERVER] == f"[::1]:{server.port}"


async def test_the_root_has_nameservers() -> None:
    outcome, server = await ask(answering("NOERROR", ". 60 IN NS a.root.test."), query=".", record="NS")
    assert verdict(outcome) == "success"
    assert server.names == [""]
    assert outcome.facts[Fact.DNS_NAME] == "."


async def test_facts_are_bounded() -> None:
    lines = [f"db.lab.test. 60 IN A 10.1.{n // 250}.{n % 250}" for n in range(2000)]
    outcome, _ = await ask(answering("NOERROR", *lines), transport="tcp", expect={"min_answers": 1000})
    assert verdict(outcome) == "success"
    assert len(outcome.facts[Fact.DNS_ANSWERS]) == LISTED


async def test_every_run_reaches_the_wire_and_sees_a_changed_record() -> None:
    async with Nameserver(answering("NOERROR", "db.lab.test. 86400 IN A 10.0.0.1")) as server:
        for last in (1, 2, 3):
            server.script = answering("NOERROR", f"db.lab.test. 86400 IN A 10.0.0.{last}")
            outcome = await probe("dns", query="db.lab.test", server=server.address)
            assert outcome.facts[Fact.DNS_ANSWERS] == [f"10.0.0.{last}"]
        server.script = silent
        assert (
            verdict(await probe("dns", query="db.lab.test", server=server.address, timeout_seconds=0.2))
            == "resolve/timeout"
        )
    assert len(server.asked) == 4


async def test_ids_are_not_to_be_guessed() -> None:
    """Neither equal nor in a row."""
    ids: list[int] = []

    async def script(query: Query) -> None:
        ids.append(query.message.header.id)
        query.send(query.reply(A_RECORD))

    async with Nameserver(script) as server:
        for _ in range(50):
            await probe("dns", query="db.lab.test", server=server.address)
    assert len(set(ids)) > 45
    assert sum(abs(a - b) < 256 for a, b in itertools.pairwise(ids)) < 10


# --- expectations -----------------------------------------------------------------------------------------------------

THREE = answering("NOERROR", *(f"db.lab.test. 60 IN A 10.0.0.{last}" for last in (1, 2, 3)))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"any": [{"exact": "10.0.0.2"}]}, None),
        ({"any": [{"exact": "10.9.9.9"}, {"within": "10.0.0.0/30"}]}, None),
        ({"any": [{"exact": "10.9.9.9"}]}, "expected an answer that is 10.9.9.9, got 10.0.0.1, 10.0.0.2, 10.0.0.3"),
        ({"any": [{"matches": r"\.3$"}]}, None),
        ({"all": [{"matches": r"^10\."}]}, None),
        ({"all": [{"within": "10.0.0.0/24"}]}, None),
        (
            {"all": [{"exact": "10.0.0.1"}, {"exact": "10.0.0.2"}]},
            "expected only answers of which each is 10.0.0.1 or is 10.0.0.2, got 10.0.0.3",
        ),
        ({"none": [{"within": "192.168.0.0/16"}]}, None),
        (
            {"none": [{"matches": r"\.2$"}]},
            r"expected no answer that matches '\\.2$', got 10.0.0.2",
        ),
        (
            {"all": [{"within": "10.0.0.0/8"}], "none": [{"exact": "10.0.0.3"}]},
            "expected no answer that is 10.0.0.3, got 10.0.0.3",
        ),
    ],
)
async def test_answers_are_compared(answers: dict[str, Any], expected: str | None) -> None:
    outcome, _ = await ask(THREE, expect={"answers": answers})
    assert verdict(outcome) == ("success" if expected is None else "verify/unexpected_answer")
    if outcome.failure is not None:
        assert outcome.failure.detail == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("^10", "success"), (r"\.1$", "verify/unexpected_answer"), ("^192", "verify/unexpected_answer")],
)
async def test_trap_t01_all_means_that_every_answer_matches(pattern: str, expected: str) -> None:
    """blackbox_exporter's fail_if_all_match_regexp passes where all match, and fails where not all do."""
    outcome, _ = await ask(THREE, expect={"answers": {"all": [{"matches": pattern}]}})
    assert verdict(outcome) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("^10", "verify/unexpected_answer"), (r"\.1$", "verify/unexpected_answer"), ("^192", "success")],
)
async def test_trap_t01_none_means_that_no_answer_matches(pattern: str, expected: str) -> None:
    outcome, _ = await ask(THREE, expect={"answers": {"none": [{"matches": pattern}]}})
    assert verdict(outcome) == expected


@pytest.mark.parametrize(
    ("record", "line", "exact"),
    [
        ("AAAA", "db.lab.test. 60 IN AAAA 2001:db8::1", "2001:0DB8:0::1"),
        ("CNAME", "db.lab.test. 60 IN CNAME Web.Lab.Test.", "web.lab.test."),
        ("MX", "db.lab.test. 60 IN MX 10 mail.lab.test.", "10 MAIL.lab.test."),
        ("SRV", "db.lab.test. 60 IN SRV 0 5 53 .", "0 5 53 ."),
        ("TXT", 'db.lab.test. 60 IN TXT "one " "Two"', "one Two"),
    ],
)
async def test_exact_knows_what_is_the_same(record: str, line: str, exact: str) -> None:
    outcome, _ = await ask(answering("NOERROR", line), record=record, expect={"answers": {"all": [{"exact": exact}]}})
    assert verdict(outcome) == "success"


async def test_text_keeps_its_letter_case() -> None:
    script = answering("NOERROR", 'db.lab.test. 60 IN TXT "Two"')
    outcome, _ = await ask(script, record="TXT", expect={"answers": {"all": [{"exact": "two"}]}})
    assert verdict(outcome) == "verify/unexpected_answer"


@pytest.mark.parametrize(
    ("script", "expect", "expected"),
    [
        (THREE, {"min_answers": 3}, "success"),
        (THREE, {"min_answers": 4}, "verify/unexpected_answer"),
        (answering("NOERROR"), {"min_answers": 4}, "resolve/no_records"),
        (answering("NOERROR"), {"min_answers": 0}, "success"),
        (
            answering("NOERROR"),
            {"min_answers": 0, "answers": {"any": [{"exact": "10.0.0.1"}]}},
            "verify/unexpected_answer",
        ),
        (answering("NOERROR"), {"min_answers": 0, "answers": {"all": [{"exact": "10.0.0.1"}]}}, "success"),
        (answering("NXDOMAIN"), {"rcodes": ["NXDOMAIN"]}, "success"),
        (answering("NXDOMAIN"), {"rcodes": ["NOERROR", "NXDOMAIN"]}, "success"),
        (answering("SERVFAIL"), {"rcodes": ["NXDOMAIN"]}, "resolve/server_failure"),
        (answering("REFUSED"), {"rcodes": ["REFUSED"]}, "success"),
        (THREE, {"rcodes": ["NXDOMAIN"]}, "verify/unexpected_answer"),
        (answering("NOERROR"), {"rcodes": ["NXDOMAIN"]}, "verify/unexpected_answer"),
        (THREE, {"rcodes": ["NOERROR", "NXDOMAIN"], "min_answers": 4}, "verify/unexpected_answer"),
    ],
)
async def test_rcodes_and_counts_that_are_right(script: Script, expect: dict[str, Any], expected: str) -> None:
    outcome, _ = await ask(script, expect=expect)
    assert verdict(outcome) == expected


async def test_an_unexpected_success_says_what_was_seen() -> None:
    outcome, server = await ask(THREE, expect={"rcodes": ["NXDOMAIN"]})
    assert outcome.failure is not None
    assert outcome.failure.detail == (
        f"expected NXDOMAIN for db.lab.test, got NOERROR (10.0.0.1, 10.0.0.2, 10.0.0.3) from {server.address}"
        " for db.lab.test"
    )


@pytest.mark.parametrize(
    ("keys", "place", "message"),
    [
        ({"query": "a..b"}, "query", "expected a DNS name such as db.example.com, got 'a..b': each label"),
        ({"query": "x" * 64}, "query", "each label of a DNS name has 1 to 63 characters"),
        ({"query": ".".join(["x" * 60] * 5)}, "query", "a DNS name has at most 253 characters"),
        ({"query": "bücher.example"}, "query", "write an international name in its xn-- form"),
        ({"query": "a b"}, "query", "expected a DNS name"),
        ({"query": ""}, "query", "expected a DNS name"),
        ({"query": "10.0.0.1"}, "query", "expected a name, since the record is A, got the IP address '10.0.0.1'"),
        ({"record": "HINFO"}, "record", "expected one of A, AAAA, CNAME, TXT, SRV, MX, NS, SOA, PTR, got 'HINFO'"),
        ({"server": "a b"}, "server", "expected pod, system, or a nameserver such as"),
        ({"server": "10.0.0.1:0"}, "server", "expected pod, system, or a nameserver such as"),
        ({"transport": "dot"}, "transport", "expected one of udp, tcp, got 'dot'"),
        ({"server": "system", "record": "MX"}, "record", "expected A or AAAA, since getaddrinfo"),
        ({"server": "system", "transport": "tcp"}, "transport", "got tcp"),
        ({"server": "system", "expect": {"rcodes": ["REFUSED"]}}, "expect", "expected NOERROR and NXDOMAIN only"),
        ({"expect": {"rcodes": ["NOT_A_CODE"]}}, "expect.rcodes.0", "expected one of NOERROR, FORMERR"),
        ({"expect": {"rcodes": []}}, "expect.rcodes", "expected a non-empty list"),
        ({"expect": {"min_answers": -1}}, "expect.min_answers", "expected a whole number from 0 to 1000, got -1"),
        ({"expect": {"answers": {}}}, "expect.answers", "expected at least one of any, all and none"),
        ({"expect": {"answers": {"any": []}}}, "expect.answers.any", "expected a non-empty list"),
        ({"expect": {"answers": {"any": [{"matches": ":["}]}}}, "expect.answers.any.0.matches", "a regular expression"),
        (
            {"expect": {"answers": {"all": [{"within": "10.0.0.1/8"}]}}},
            "expect.answers.all.0.within",
            "the network is 10.0.0.0/8",
        ),
        ({"expect": {"answers": {"all": [{"within": "fd00::/8"}]}}}, "expect", "expected networks of A records"),
        ({"expect": {"answers": {"none": [{"exact": "::1"}]}}}, "expect", "expected addresses as A records hold them"),
        ({"record": "TXT", "expect": {"answers": {"none": [{"within": "::/0"}]}}}, "expect", "networks of TXT records"),
        ({"expect": {"answers": {"none": [{}]}}}, "expect.answers.none.0", "got none"),
        (
            {"expect": {"answers": {"any": [{"exact": "10.0.0.1", "matches": "x"}]}}},
            "expect.answers.any.0.exact",
            "expected one of exact, matches and within, got exact and matches",
        ),
        (
            {"expect": {"rcodes": ["NXDOMAIN"], "answers": {"any": [{"matches": "x"}]}}},
            "expect.rcodes",
            "expected NOERROR among the rcodes",
        ),
    ],
)
def test_trap_t02_everything_is_checked_at_load(keys: dict[str, Any], place: str, message: str) -> None:
    """blackbox_exporter accepts a broken regex and an rcode that does not exist, and then every probe fails."""
    with pytest.raises(vol.MultipleInvalid) as caught:
        section(DnsOptions)({"query": "db.lab.test", **keys})
    assert [(".".join(map(str, error.path)), message in error.error_message) for error in caught.value.errors] == [
        (place, True)
    ], str(caught.value)


@pytest.mark.parametrize(
    ("url", "keys"),
    [
        ("dns:internal-database", {"query": "internal-database"}),
        ("dns:db.example.com?type=aaaa", {"query": "db.example.com", "record": "AAAA"}),
        ("dns://10.0.0.10/db.example.com", {"query": "db.example.com", "server": "10.0.0.10"}),
        ("dns://[::1]:5353/db?TYPE=SRV;CLASS=IN", {"query": "db", "server": "[::1]:5353", "record": "SRV"}),
        ("dns:%5fpg.example.com", {"query": "_pg.example.com"}),
        ("dns:127.0.0.7?type=PTR", {"query": "127.0.0.7", "record": "PTR"}),
    ],
)
def test_urls(url: str, keys: dict[str, Any]) -> None:
    assert from_url(url) == keys
    section(DnsOptions)(keys)


@pytest.mark.parametrize("url", ["dns:", "dns://10.0.0.1", "dns://10.0.0.1/", "dns:a?class=CH", "dns:a?rcode=1"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        from_url(url)


# --- server: pod ------------------------------------------------------------------------------------------------------


async def pod(tmp_path: Path, *scripts: Script, rest: str = "", **keys: Any) -> tuple[Outcome, list[Nameserver]]:
    """One run by a resolv.conf with these nameservers."""
    servers = [Nameserver(script, ip=loopback_ip(), port=53) for script in scripts]
    for server in servers:
        await server.__aenter__()
    try:
        path = resolv_conf(tmp_path, *servers, rest=rest)
        return await probe("dns", **{"query": "db", "resolv_conf": path, **keys}), servers
    finally:
        for server in servers:
            await server.__aexit__(None, None, None)


KUBERNETES = "search prod.svc.cluster.test svc.cluster.test cluster.test\noptions ndots:5 timeout:1 attempts:2\n"
SERVICE = zone("db.prod.svc.cluster.test. 5 IN A 10.96.0.1\napi.example.test. 60 IN A 192.0.2.9")


async def test_pod_finds_a_short_name_by_the_search_list(tmp_path: Path) -> None:
    outcome, (server,) = await pod(tmp_path, SERVICE, rest=KUBERNETES)
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.DNS_NAME] == "db.prod.svc.cluster.test"
    assert outcome.facts[Fact.DNS_SERVER] == f"{server.ip}:53"
    assert server.names == ["db.prod.svc.cluster.test"]


async def test_pod_counts_the_price_of_ndots(tmp_path: Path) -> None:
    """The queries counted at the server are those the facts speak of: the storm of ndots:5, and what a dot saves."""
    searched, (server,) = await pod(tmp_path, SERVICE, rest=KUBERNETES, query="api.example.test")
    absolute, (other,) = await pod(tmp_path, SERVICE, rest=KUBERNETES, query="api.example.test.")
    assert verdict(searched) == verdict(absolute) == "success"
    assert server.names == [
        "api.example.test.prod.svc.cluster.test",
        "api.example.test.svc.cluster.test",
        "api.example.test.cluster.test",
        "api.example.test",
    ]
    assert searched.facts[Fact.DNS_QUERIES] == len(server.asked) == 4
    assert absolute.facts[Fact.DNS_QUERIES] == len(other.asked) == 1
    assert [a["rcode"] for a in searched.facts[Fact.DNS_ATTEMPTS]] == ["NXDOMAIN", "NXDOMAIN", "NXDOMAIN", "NOERROR"]


async def test_pod_expects_a_name_not_to_exist_anywhere(tmp_path: Path) -> None:
    outcome, (server,) = await pod(tmp_path, SERVICE, rest=KUBERNETES, query="gone", expect={"rcodes": ["NXDOMAIN"]})
    assert verdict(outcome) == "success"
    assert len(server.asked) == 4


async def test_pod_reverses_an_address_and_does_not_search_for_it(tmp_path: Path) -> None:
    script = zone("9.2.0.192.in-addr.arpa. 60 IN PTR host.test.")
    outcome, (server,) = await pod(tmp_path, script, rest=KUBERNETES, query="192.0.2.9", record="PTR")
    assert verdict(outcome) == "success"
    assert server.names == ["9.2.0.192.in-addr.arpa"]


async def test_pod_asks_the_spare_nameserver_too(tmp_path: Path) -> None:
    outcome, servers = await pod(tmp_path, SERVICE, SERVICE, rest=KUBERNETES)
    assert verdict(outcome) == "success"
    assert [server.names for server in servers] == [["db.prod.svc.cluster.test"]] * 2
    assert outcome.facts[Fact.DNS_SERVER] == f"{servers[0].ip}:53"
    assert outcome.facts[Fact.DNS_NAMESERVERS] == [
        {"server": f"{server.ip}:53", "rcode": "NOERROR", "answers": ["10.96.0.1"], "same_answer": True}
        for server in servers
    ]


async def test_pod_a_dead_spare_nameserver_is_seen_and_fails_nothing(tmp_path: Path) -> None:
    """As libc would not notice before the first one fails as well. Its silence is not the network's time either."""
    outcome, servers = await pod(tmp_path, SERVICE, silent, rest=KUBERNETES.replace("timeout:1", "timeout:5"))
    assert verdict(outcome) == "success"
    assert [entry.get("error") for entry in outcome.facts[Fact.DNS_NAMESERVERS]] == [None, "timeout"]
    assert outcome.facts[Fact.DNS_ATTEMPTS][-1]["server"] == f"{servers[1].ip}:53"
    assert outcome.facts[Fact.DNS_ATTEMPTS][-1]["duration_seconds"] < 2
    assert sum(outcome.phases.values()) < 0.9 < outcome.duration_seconds


async def test_pod_a_spare_nameserver_cannot_make_the_run_late(tmp_path: Path) -> None:
    """One that wants every question three times: with EDNS, without, and over TCP."""

    async def demanding(query: Query) -> None:
        if query.transport == "tcp":
            await asyncio.Event().wait()
        await asyncio.sleep(0.45)
        reply = query.message.reply()
        reply.header.rcode = dnslib.RCODE.FORMERR if query.edns else dnslib.RCODE.NOERROR
        reply.header.tc = int(not query.edns)
        query.send(reply)

    outcome, _ = await pod(tmp_path, SERVICE, demanding, rest=KUBERNETES, timeout_seconds=1.0)
    assert verdict(outcome) == "success", outcome.failure


async def test_pod_a_spare_nameserver_that_says_something_else_is_seen(tmp_path: Path) -> None:
    outcome, _ = await pod(tmp_path, SERVICE, answering("NXDOMAIN"), rest=KUBERNETES)
    assert verdict(outcome) == "success"
    assert [entry["same_answer"] for entry in outcome.facts[Fact.DNS_NAMESERVERS]] == [True, False]
    assert outcome.facts[Fact.DNS_NAMESERVERS][1]["rcode"] == "NXDOMAIN"


async def test_pod_the_first_nameserver_that_answers_decides(tmp_path: Path) -> None:
    """As for libc: an NXDOMAIN is an answer, whatever the next nameserver knows."""
    outcome, _ = await pod(tmp_path, answering("NXDOMAIN"), SERVICE, rest=KUBERNETES)
    assert verdict(outcome) == "resolve/name_not_found"


@pytest.mark.parametrize(
    ("first", "seen"),
    [
        (silent, "timeout"),
        (answering("SERVFAIL"), "SERVFAIL"),
        (answering("REFUSED"), "REFUSED"),
        (answering("NOTIMP"), "NOTIMP"),
        (raw(lambda query: query.data[:2] + b"\x81\x80" + b"\xff" * 30), "timeout"),
        (raw(lambda _: b"short"), "protocol_error"),
    ],
)
async def test_pod_the_second_nameserver_takes_over(tmp_path: Path, first: Script, seen: str) -> None:
    outcome, servers = await pod(tmp_path, first, SERVICE, rest=KUBERNETES)
    assert verdict(outcome) == "success"
    assert attempts(outcome) == [("udp", seen), ("udp", "NOERROR")]
    assert outcome.facts[Fact.DNS_SERVER] == f"{servers[1].ip}:53"
    if seen == "timeout":
        assert 0.9 < outcome.facts[Fact.DNS_ATTEMPTS][0]["duration_seconds"] < 1.5


async def test_pod_a_nameserver_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    gone = loopback_ip()
    async with Nameserver(SERVICE, ip=loopback_ip(), port=53) as server:
        path = resolv_conf(tmp_path, gone, server, rest=KUBERNETES)
        outcome = await probe("dns", query="db", resolv_conf=path)
    assert verdict(outcome) == "success"
    assert attempts(outcome) == [("udp", "unreachable"), ("udp", "NOERROR")]


@pytest.mark.parametrize(
    ("script", "expected", "rounds"),
    [
        (answering("SERVFAIL"), "resolve/server_failure", 2),
        (answering("REFUSED"), "resolve/query_refused", 2),
        (silent, "resolve/timeout", 2),
        (answering("NXDOMAIN"), "resolve/name_not_found", 1),
    ],
)
async def test_pod_attempts_are_those_of_resolv_conf(
    tmp_path: Path, script: Script, expected: str, rounds: int
) -> None:
    outcome, (server,) = await pod(tmp_path, script, rest="options timeout:1 attempts:2\n", query="db.")
    assert verdict(outcome) == expected
    assert len(server.asked) == rounds == outcome.facts[Fact.DNS_QUERIES]


async def test_pod_a_timeout_of_resolv_conf_is_told_apart_from_the_deadline(tmp_path: Path) -> None:
    outcome, (server,) = await pod(tmp_path, silent, rest="options timeout:1 attempts:1\n", query="db.")
    assert outcome.failure is not None
    assert outcome.failure.detail == (
        f"expected A records of db., got no usable answer from {server.ip}:53 for db: none came within 1s"
    )


async def test_pod_a_deadline_during_the_walk_leaves_every_attempt_on_record(tmp_path: Path) -> None:
    outcome, servers = await pod(tmp_path, silent, silent, rest=KUBERNETES, timeout_seconds=1.5)
    assert verdict(outcome) == "resolve/timeout"
    assert [attempt["error"] for attempt in outcome.facts[Fact.DNS_ATTEMPTS]] == ["timeout", "timeout"]
    waited = [attempt["duration_seconds"] for attempt in outcome.facts[Fact.DNS_ATTEMPTS]]
    assert waited == pytest.approx([1.0, 0.5], abs=0.2)
    assert outcome.failure is not None
    assert f"expected an answer from {servers[1].ip}:53" in outcome.failure.detail


async def test_pod_a_nameserver_by_its_name(tmp_path: Path) -> None:
    """The name of a nameserver is looked up by the pod's own nameservers, then that one is asked."""
    async with (
        Nameserver(zone("dns.test. 60 IN A 127.0.0.1"), ip=loopback_ip(), port=53) as book,
        Nameserver(answering("NOERROR", A_RECORD)) as server,
    ):
        path = resolv_conf(tmp_path, book)
        outcome = await probe("dns", query="db.lab.test", server=f"dns.test:{server.port}", resolv_conf=path)
    assert verdict(outcome) == "success"
    assert [asked.record for asked in book.asked] == ["A", "AAAA"]
    assert server.names == ["db.lab.test"]


@pytest.mark.parametrize("how", ["use-vc", "transport"])
async def test_pod_over_tcp_from_the_start(tmp_path: Path, how: str) -> None:
    rest, keys = ("options use-vc\n", {}) if how == "use-vc" else ("", {"transport": "tcp"})
    outcome, (server,) = await pod(tmp_path, zone("db. 60 IN A 10.0.0.1"), rest=rest, query="db.", **keys)
    assert verdict(outcome) == "success"
    assert [asked.transport for asked in server.asked] == ["tcp"]


async def test_pod_rotate_starts_anywhere(tmp_path: Path) -> None:
    """Which nameserver counts differs from run to run; each is asked."""
    deciding = set()
    script = zone("db. 60 IN A 10.0.0.1")
    async with (
        Nameserver(script, ip=loopback_ip(), port=53) as one,
        Nameserver(script, ip=loopback_ip(), port=53) as two,
    ):
        path = resolv_conf(tmp_path, one, two, rest="options rotate\n")
        for _ in range(40):
            outcome = await probe("dns", query="db.", resolv_conf=path)
            assert verdict(outcome) == "success"
            deciding.add(outcome.facts[Fact.DNS_SERVER])
    assert deciding == {f"{one.ip}:53", f"{two.ip}:53"}
    assert len(one.asked) == len(two.asked) == 40


async def test_pod_reads_resolv_conf_anew_at_each_run(tmp_path: Path) -> None:
    script = zone("db.one.test. 60 IN A 10.0.0.1\ndb.two.test. 60 IN A 10.0.0.2")
    link = tmp_path / "resolv.conf"
    async with Nameserver(script, ip=loopback_ip(), port=53) as server:
        seen = []
        for domain in ("one.test", "two.test"):
            link.unlink(missing_ok=True)
            link.symlink_to(resolv_conf(tmp_path, server, rest=f"search {domain}\n"))
            seen.append((await probe("dns", query="db", resolv_conf=str(link))).facts[Fact.DNS_ANSWERS])
    assert seen == [["10.0.0.1"], ["10.0.0.2"]]


# --- server: system ---------------------------------------------------------------------------------------------------


async def test_system_knows_etc_hosts() -> None:
    outcome = await probe(
        "dns", query="localhost", server="system", expect={"answers": {"any": [{"exact": "127.0.0.1"}]}}
    )
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.DNS_ANSWERS] == ["127.0.0.1"]
    assert Fact.DNS_RCODE not in outcome.facts, "libc does not tell"


SYSTEM: list[tuple[dict[str, Any], str]] = [
    ({"query": "db.test"}, "success"),
    ({"query": "in-hosts"}, "success"),
    ({"query": "gone.test"}, "resolve/name_not_found"),
    ({"query": "gone.test", "expect": {"rcodes": ["NXDOMAIN"]}}, "success"),
    ({"query": "db.test", "expect": {"rcodes": ["NXDOMAIN"]}}, "verify/unexpected_answer"),
    ({"query": "db.test", "record": "AAAA"}, "resolve/no_records"),
    ({"query": "refused.example"}, "resolve/server_failure"),
    ({"query": "."}, "resolve/server_failure"),
    ({"query": "db.test", "expect": {"min_answers": 2}}, "verify/unexpected_answer"),
    ({"query": "db.test", "expect": {"answers": {"all": [{"within": "10.0.0.0/24"}]}}}, "success"),
]


def check(host: Namespace, directory: Path, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Probe targets on another host, by the command itself, and return their outcomes in the JSON form."""
    configuration = directory / "targets.yaml"
    targets = [{"name": f"row-{n}", "type": "dns", **row} for n, row in enumerate(rows)]
    configuration.write_text(json.dumps({"targets": targets}))
    command = shlex.join([*COMMAND, "check", "--config", str(configuration), "--output", "json"])
    outcomes: list[dict[str, Any]] = json.loads(host.run("sh", "-c", f"{command} || test $? = 1"))["outcomes"]
    return outcomes


def ends(outcomes: list[dict[str, Any]]) -> list[str]:
    return ["success" if one["success"] else f"{one['phase']}/{one['reason']}" for one in outcomes]


def test_system_is_what_libc_says(tmp_path: Path) -> None:
    """On a host whose /etc/resolv.conf names a real nameserver across a wire, and whose /etc/hosts has one entry."""
    with two_hosts() as (client, server):
        etc = Path("/etc/netns") / client.name  # ip-netns(8) puts its files in the place of those in /etc
        etc.mkdir(parents=True)
        try:
            (etc / "resolv.conf").write_text(f"nameserver {SERVER_IP}\noptions timeout:1 attempts:1\n")
            (etc / "hosts").write_text("10.7.7.7 in-hosts\n")
            options = ["--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file="]
            records = ["--host-record=db.test,10.0.0.5", "--local=/test/"]
            with server.serving("dnsmasq", "--keep-in-foreground", *options, *records, port=53):
                outcomes = check(client, tmp_path, *({"server": "system", **keys} for keys, _ in SYSTEM))
        finally:
            shutil.rmtree(etc)
    assert ends(outcomes) == [expected for _, expected in SYSTEM]


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("udp dport 53 drop", "resolve/timeout"),
        ("udp dport 53 reject", "resolve/unreachable"),
        ("udp dport 53 reject with icmpx host-unreachable", "resolve/unreachable"),
        ("udp dport 53 reject with icmpx admin-prohibited", "resolve/unreachable"),
        ("udp dport 53 reject with icmpx no-route", "resolve/unreachable"),
    ],
)
def test_what_packet_filters_do(tmp_path: Path, rule: str, expected: str) -> None:
    """Filtered where the nameserver is, as a network policy does it."""
    keys = {"query": "db.test", "server": SERVER_IP, "timeout": "500ms"}
    with two_hosts() as (client, server):
        server.filter("input", rule)
        (plain,) = check(client, tmp_path, keys)
        (negative,) = check(client, tmp_path, keys | {"negative": True})
    assert ends([plain, negative]) == [expected, "success"]
    assert negative["facts"]["blocked_by"] == expected


def test_no_route_and_a_filter_of_our_own_are_unreachable(tmp_path: Path) -> None:
    servers = ("198.51.100.1", "2001:db8:1::1", SERVER_IP)
    with two_hosts() as (client, _):
        client.filter("output", "udp dport 53 drop")
        outcomes = check(client, tmp_path, *({"query": "db.test", "server": server} for server in servers))
    assert ends(outcomes) == ["resolve/unreachable"] * 3
    assert not any("dns_queries" in outcome["facts"] for outcome in outcomes), "nothing has left"


# --- negative targets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "keys", "expected"),
    [
        (silent, {}, "success"),
        (answering("REFUSED"), {}, "success"),
        (answering("NXDOMAIN"), {}, "success"),
        (answering("NOERROR"), {}, "success"),
        (answering("SERVFAIL"), {}, "resolve/server_failure"),
        (raw(lambda _: b"?"), {}, "resolve/protocol_error"),
        (answering("NOERROR", A_RECORD), {}, "verify/unexpected_success"),
        (answering("NOERROR", A_RECORD), {"expect": {"min_answers": 2}}, "verify/unexpected_success"),
    ],
)
async def test_negative(script: Script, keys: dict[str, Any], expected: str) -> None:
    """A nameserver that must not be reachable: silence and refusal show it, a broken answer shows nothing."""
    outcome, _ = await ask(script, negative=True, timeout_seconds=0.3, **keys)
    assert verdict(outcome) == expected


async def test_negative_a_dead_address_book_shows_nothing(tmp_path: Path) -> None:
    """The nameserver's own name could not be looked up: nobody tried to reach it."""
    async with Nameserver(silent, ip=loopback_ip(), port=53) as book:
        path = resolv_conf(tmp_path, book)
        outcome = await probe(
            "dns", query="db.test", server="dns.test", resolv_conf=path, negative=True, timeout_seconds=0.3
        )
    assert verdict(outcome) == "resolve/timeout"


# --- what is left behind ----------------------------------------------------------------------------------------------


async def test_system_lookups_leave_no_thread() -> None:
    prober = DnsProber()
    local = target("dns", query="localhost", server="system")
    await run(prober, local)
    async with nothing_leaks():
        for _ in range(100):
            assert verdict(await run(prober, local)) == "success"
    await prober.aclose()


async def test_a_run_holds_one_socket_and_nothing_else() -> None:
    """A resolver that watches resolv.conf would hold a thread and an inotify instance, of which a user has 128."""
    arrived = asyncio.Event()

    async def script(query: Query) -> None:
        arrived.set()

    async with Nameserver(script) as server:
        before = held()
        task = asyncio.create_task(run(DnsProber(), target("dns", query="a.test", server=server.address)))
        await arrived.wait()
        during = held()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert during.sockets - before.sockets == during.descriptors - before.descriptors == 1
    assert during.threads == before.threads
