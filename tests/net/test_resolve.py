"""The resolve phase: what libc would ask and find, anew at each run, with a reason for each way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import resource
import selectors
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pycares
import pytest

from agent.failures import classify, names, network
from agent.model import REASONS, Addresses, Fact, Family, Phase, Reason
from agent.net import ares
from agent.net.address import Address
from agent.net.dns_exchange import Transport, lost
from agent.net.dns_message import Question, RecordType, Reply
from agent.net.resolve import ADDRESS_LIMIT, resolve
from agent.prober import LISTED, ProbeFailure, Recorder
from tests.lab.leaks import held, nothing_leaks, repeat
from tests.lab.libc import Lookup, Scenario, comparing
from tests.lab.misbehaving import silent as silent_target
from tests.lab.nameservers import (
    Nameserver,
    Query,
    Script,
    answering,
    by_transport,
    late,
    loopback_ip,
    resolv_conf,
    silent,
    truncated,
    zone,
)
from tests.lab.netns import SERVER_IP, namespace, two_hosts
from tests.lab.targets import probe, target, verdict

Compare = Callable[[Scenario], tuple[Lookup, Lookup]]

DB = zone("db.test. 86400 IN A 10.0.0.1\ndb.test. 86400 IN AAAA 2001:db8::1")


async def look_up(host: str, path: str, **keys: Any) -> list[str]:
    """All addresses of a name."""
    wanted: dict[str, Any] = {"family": Family.ANY, "addresses": Addresses.ALL, "resolv_conf": Path(path), **keys}
    return [address.ip for address in await resolve(host, 80, Recorder(), **wanted)]


def nameserver(script: Script) -> Nameserver:
    """On port 53 of an address of its own."""
    return Nameserver(script, ip=loopback_ip(), port=53)


# --- as libc ----------------------------------------------------------------------------------------------------------

ONE, TWO, THREE = "127.0.53.1", "127.0.53.2", "127.0.53.3"
KUBERNETES = f"nameserver {ONE}\nsearch prod.svc.test svc.test cluster.test\noptions ndots:5 timeout:1 attempts:2\n"
SERVICES = """
db.prod.svc.test. 5 IN A 10.96.0.1
db.prod.svc.test. 5 IN AAAA fd00::1
other.svc.test. 5 IN A 10.96.0.2
api.example.test. 60 IN A 192.0.2.9
alias.svc.test. 5 IN CNAME db.prod.svc.test.
dangling.prod.svc.test. 5 IN CNAME nowhere.test.
empty.prod.svc.test. 5 IN TXT "no address"
empty.svc.test. 5 IN A 10.96.0.3
single. 5 IN A 10.96.0.4
"""
TWO_SERVERS = f"nameserver {ONE}\nnameserver {TWO}\noptions timeout:1 attempts:2\n"


@pytest.fixture(scope="module")
def compare() -> Iterator[Compare]:
    """On a host with addresses of every kind, and no way out."""
    with namespace() as alone:
        alone.ip("link", "add", "void", "type", "veth", "peer", "name", "beyond")
        for address in ("10.1.1.1/24", "fd00:1::1/64", "2001:db8:1::1/64"):
            alone.ip("address", "add", address, "dev", "void", *(["nodad"] if ":" in address else []))
        alone.ip("link", "set", "beyond", "up")
        alone.ip("link", "set", "void", "up")
        alone.ip("route", "add", "default", "dev", "void")
        alone.ip("-6", "route", "add", "default", "dev", "void")
        with comparing(alone) as compare:
            yield compare


def scenario(query: str, resolv: str = KUBERNETES, **rest: Any) -> Scenario:
    return Scenario(query=query, resolv_conf=resolv, **{"zone": SERVICES, "servers": {ONE: {}}, **rest})


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(scenario("db"), id="found at once"),
        pytest.param(scenario("DB"), id="in capitals"),
        pytest.param(scenario("other"), id="found second"),
        pytest.param(scenario("api.example.test"), id="ndots above the dots"),
        pytest.param(scenario("api.example.test."), id="absolute"),
        pytest.param(scenario("gone"), id="found nowhere"),
        pytest.param(scenario("gone.example.test."), id="absolute and not there"),
        pytest.param(scenario("single"), id="one label, as it is"),
        pytest.param(scenario("alias"), id="cname"),
        pytest.param(scenario("dangling"), id="cname to nowhere ends the search"),
        pytest.param(scenario("empty"), id="no data goes on"),
        pytest.param(scenario("api.example.test", KUBERNETES.replace("ndots:5", "ndots:1")), id="dots enough"),
        pytest.param(scenario("db.prod", KUBERNETES.replace("ndots:5", "ndots:1")), id="as it is, then searched"),
        pytest.param(scenario("gone.test", KUBERNETES.replace("ndots:5", "ndots:1")), id="as it is, then nowhere"),
        pytest.param(scenario("db", KUBERNETES.replace("search prod", "search . prod")), id="the root on the list"),
        pytest.param(scenario("gone", f"nameserver {ONE}\nsearch svc.test .\n"), id="the root last on the list"),
        pytest.param(
            scenario("gone", KUBERNETES.replace("ndots", "no-tld-query ndots")), id="no query for a top level"
        ),
        pytest.param(scenario("db", f"nameserver {ONE}\n"), id="no search list"),
        pytest.param(scenario("db", f"nameserver {ONE}\ndomain prod.svc.test\n"), id="domain"),
        pytest.param(
            scenario("x" * 60 + ".y", f"nameserver {ONE}\nsearch svc.test {'.'.join(['z' * 60] * 4)} prod.svc.test\n"),
            id="a candidate that is no name",
        ),
        pytest.param(scenario("other", servers={ONE: {"other.prod.svc.test": "SERVFAIL"}}), id="failure goes on"),
        pytest.param(scenario("other", servers={ONE: {"other.prod.svc.test": "REFUSED"}}), id="refusal ends it"),
        pytest.param(scenario("single", servers={ONE: {"single.svc.test": "NOTIMP"}}), id="and as it is"),
        pytest.param(scenario("other", servers={ONE: {"*": "SERVFAIL"}}), id="failure everywhere"),
        pytest.param(scenario("other", servers={ONE: {"other.prod.svc.test": "silent"}}), id="silence ends the search"),
        pytest.param(scenario("db", servers={}), id="nobody there"),
        pytest.param(scenario("db.prod.svc.test", TWO_SERVERS, servers={TWO: {}}), id="first nameserver gone"),
        pytest.param(
            scenario("db.prod.svc.test", TWO_SERVERS, servers={ONE: {"*": "silent"}, TWO: {}}), id="first one silent"
        ),
        pytest.param(
            scenario("db.prod.svc.test", TWO_SERVERS, servers={ONE: {"*": "SERVFAIL"}, TWO: {}}), id="first one fails"
        ),
        pytest.param(
            scenario("db.prod.svc.test", TWO_SERVERS, servers={ONE: {"*": "REFUSED"}, TWO: {}}), id="first one refuses"
        ),
        pytest.param(
            scenario("db.prod.svc.test", TWO_SERVERS, servers={ONE: {"*": "NXDOMAIN"}, TWO: {}}), id="first one denies"
        ),
        pytest.param(
            scenario("db.prod.svc.test", TWO_SERVERS, servers={ONE: {"*": "SERVFAIL"}, TWO: {"*": "REFUSED"}}),
            id="both fail",
        ),
        pytest.param(
            scenario("db.prod.svc.test", TWO_SERVERS, servers={ONE: {"*": "silent"}, TWO: {"*": "SERVFAIL"}}),
            id="one silent, one fails",
        ),
        pytest.param(
            scenario(
                "db.prod.svc.test",
                f"nameserver {ONE}\nnameserver {TWO}\nnameserver {THREE}\noptions timeout:1 attempts:1\n",
                servers={ONE: {"*": "silent"}, TWO: {"*": "SERVFAIL"}, THREE: {}},
            ),
            id="the third nameserver",
        ),
        pytest.param(
            scenario("db", KUBERNETES + "options use-vc\n", family="4", servers={ONE: {}}), id="tcp from the start"
        ),
        pytest.param(
            scenario("db", family="4", servers={ONE: {"db.prod.svc.test": "truncated"}}), id="tcp after truncation"
        ),
        pytest.param(scenario("db", family="6"), id="IPv6 only"),
        pytest.param(scenario("other", family="6"), id="IPv6 only, and there is none"),
        pytest.param(scenario("db", hosts="10.9.9.9 x db # the database\n"), id="/etc/hosts"),
        pytest.param(scenario("DB.", hosts="10.9.9.9 db\n10.9.9.8 dB\nfd00::9 db\n"), id="/etc/hosts, several lines"),
        pytest.param(scenario("db", hosts="10.9.9.9 db\n", family="6"), id="/etc/hosts, another family"),
        pytest.param(scenario("db", hosts="#10.9.9.9 db\n300.1.1.1 db\n"), id="/etc/hosts, no such line"),
        pytest.param(scenario("localhost", hosts="127.0.0.1 localhost\n"), id="localhost"),
        pytest.param(
            scenario("localhost", hosts="127.0.0.1 localhost\n::1 localhost ip6-localhost\n"), id="localhost, both"
        ),
        *(
            pytest.param(scenario(number), id=number)
            for number in ("127.1", "0x7f.1", "017.0.0.1", "1", "::1", "fd00::1")
        ),
    ],
)
def test_the_same_questions_and_the_same_answer_as_libc(compare: Compare, case: Scenario) -> None:
    """Name by name, nameserver by nameserver, in the same order: getaddrinfo(3) itself is the reference."""
    libc, ours = compare(case)
    assert ours.asked == libc.asked
    assert ours.found == libc.found


def test_one_lost_datagram_of_two_is_asked_for_again_as_by_libc(compare: Compare) -> None:
    """The AAAA answer never comes. Libc asks for both again, each in its turn; here only for the lost one."""
    case = scenario("db.prod.svc.test", servers={ONE: {"db.prod.svc.test AAAA": "silent"}}, resolv=TWO_SERVERS)
    libc, ours = compare(case)
    assert libc.found == ours.found == ["10.96.0.1"]
    assert ours.asked == [[ONE, "db.prod.svc.test", record, "udp"] for record in ("A", "AAAA", "AAAA")]


def test_an_error_ends_the_search_as_by_libc(compare: Compare) -> None:
    """c-ares asks once more without EDNS where a question was not understood; libc has sent none."""
    case = scenario("other", servers={ONE: {"other.prod.svc.test": "FORMERR"}})
    libc, ours = compare(case)
    both, rest = libc.asked[:2], libc.asked[2:]
    assert ours.asked == [*both, *both, *rest]
    assert ours.found == libc.found


@pytest.mark.parametrize("seed", range(6))
def test_addresses_are_ordered_as_by_libc(compare: Compare, seed: int) -> None:
    """Global, private, link-local and tunnelled ones in any order, on a host with all kinds of its own."""
    kinds = ["10.1.2.3", "192.0.2.7", "127.0.0.5", "169.254.3.4"]
    kinds += ["2001:db8:1::7", "2001:db8:ffff::7", "fd00:1::9", "fd99::9", "::1", "2002:c000:201::1", "2001::5"]
    shuffled = random.Random(seed).sample(kinds, k=6)
    libc, ours = compare(scenario("many", hosts="".join(f"{ip} many\n" for ip in shuffled)))
    assert ours.found == libc.found


# --- every lookup anew ------------------------------------------------------------------------------------------------


async def test_every_lookup_reaches_the_wire_and_sees_a_changed_record(tmp_path: Path) -> None:
    async with nameserver(DB) as server:
        path = resolv_conf(tmp_path, server)
        for _ in range(3):
            assert sorted(await look_up("db.test.", path)) == ["10.0.0.1", "2001:db8::1"]
        assert sorted(asked.record for asked in server.asked) == ["A"] * 3 + ["AAAA"] * 3
        server.script = zone("db.test. 86400 IN A 10.0.0.2")
        assert await look_up("db.test.", path) == ["10.0.0.2"]


async def test_a_lookup_holds_one_socket_for_both_questions_and_neither_thread_nor_inotify(tmp_path: Path) -> None:
    """Inotify instances are 128 for all processes of a user on a node: the task's, too."""
    arrived = asyncio.Event()
    count = 20

    async with nameserver(DB) as server:
        path = resolv_conf(tmp_path, server)
        await look_up("db.test.", path)  # the library starts a thread, once, that takes away what was closed

        async def notice(query: Query) -> None:
            if len(server.asked) == 2 + 2 * count:
                arrived.set()

        server.script = notice
        before = held()
        tasks = [asyncio.create_task(look_up("db.test.", path)) for _ in range(count)]
        await arrived.wait()
        during = held()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert during.sockets - before.sockets == during.descriptors - before.descriptors == count
    assert during.threads == before.threads


async def test_both_questions_of_a_lookup_leave_from_one_port_and_the_next_from_another(tmp_path: Path) -> None:
    """The two datagrams take the way they take when libc sends them, so that what loses one of them shows here."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((loopback_ip(), 53))
        path = resolv_conf(tmp_path, sock.getsockname()[0])
        ports = []
        for _ in range(2):
            task = asyncio.create_task(look_up("db.test.", path))
            ports.append([(await loop.sock_recvfrom(sock, 512))[1][1] for _ in range(2)])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    (one, other), (another, fourth) = ports
    assert one == other
    assert another == fourth
    assert one != another


async def test_waiting_for_an_answer_over_tcp_is_waiting(tmp_path: Path) -> None:
    """Left to itself, aiodns watches the connection for being writable, which it always is, and uses all of the CPU."""
    arrived = asyncio.Event()

    async def keep(query: Query) -> None:
        arrived.set()
        await silent(query)

    async with nameserver(by_transport(udp=truncated, tcp=keep)) as server:
        task = asyncio.create_task(look_up("db.test.", resolv_conf(tmp_path, server)))
        await arrived.wait()
        loop: Any = asyncio.get_running_loop()
        watched = [key.events for key in loop._selector.get_map().values()]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert watched
    assert not [events for events in watched if events & selectors.EVENT_WRITE]


async def test_a_server_that_closes_after_one_answer_over_tcp_is_asked_again_for_the_other(tmp_path: Path) -> None:
    async with nameserver(DB) as server:
        path = resolv_conf(tmp_path, server, rest="options use-vc\n")
        assert sorted(await look_up("db.test.", path)) == ["10.0.0.1", "2001:db8::1"]
    assert {asked.transport for asked in server.asked} == {"tcp"}


async def test_lookups_leave_nothing_behind(tmp_path: Path) -> None:
    async with nameserver(DB) as server, nameserver(silent) as mute:
        good, stuck = resolv_conf(tmp_path, server), resolv_conf(tmp_path, mute)

        async def found() -> None:
            await look_up("db.test.", good)

        async def cut_off() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await look_up("db.test.", stuck)

        await repeat(40, found)
        async with nothing_leaks():
            await repeat(500, found)
            await repeat(1000, cut_off)


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "records", "found"),
    [
        (Family.ANY, {"A", "AAAA"}, {"10.0.0.1", "2001:db8::1"}),
        (Family.V4, {"A"}, {"10.0.0.1"}),
        (Family.V6, {"AAAA"}, {"2001:db8::1"}),
    ],
)
async def test_family(tmp_path: Path, family: Family, records: set[str], found: set[str]) -> None:
    async with nameserver(DB) as server:
        assert set(await look_up("db.test.", resolv_conf(tmp_path, server), family=family)) == found
    assert {asked.record for asked in server.asked} == records


async def test_one_address_or_all_up_to_a_limit(tmp_path: Path) -> None:
    many = zone("\n".join(f"db.test. 60 IN A 10.0.1.{n}" for n in range(40)))
    async with nameserver(many) as server:
        path = resolv_conf(tmp_path, server)
        assert len(await look_up("db.test.", path, addresses=Addresses.FIRST)) == 1
        assert len(await look_up("db.test.", path)) == ADDRESS_LIMIT


async def test_no_nameserver_makes_a_fact_as_long_as_it_likes(tmp_path: Path) -> None:
    """One message has room for thousands of addresses."""
    many = zone("\n".join(f"db.test. 60 IN A 127.1.{n // 250}.{n % 250}" for n in range(1000)))
    async with nameserver(many) as server:
        outcome = await probe(
            "tcp", address="db.test:1", family="4", resolv_conf=resolv_conf(tmp_path, server, rest="options use-vc\n")
        )
    assert verdict(outcome) == "connect/refused"
    assert len(outcome.facts[Fact.ADDRESSES]) == LISTED
    assert outcome.facts[Fact.ADDRESS].removesuffix(":1") == outcome.facts[Fact.ADDRESSES][0]


async def test_a_number_has_no_resolve_phase() -> None:
    for host in ("127.0.0.1", "127.1", "::1"):
        recorder = Recorder()
        await resolve(host, 80, recorder, family=Family.ANY, addresses=Addresses.FIRST, resolv_conf=Path("/nowhere"))
        assert recorder.phases == {}


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", Family.V6), ("::1", Family.V4)])
async def test_a_number_of_the_wrong_family_is_no_record(host: str, family: Family) -> None:
    with pytest.raises(ProbeFailure, match=f"expected an IPv{family} address, got {host}") as caught:
        await look_up(host, "/nowhere", family=family)
    assert caught.value.reason is Reason.NO_RECORDS


async def test_localhost_is_never_asked_for(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("")
    async with nameserver(DB) as server:
        path = resolv_conf(tmp_path, server)
        for family, found in ((Family.ANY, "127.0.0.1"), (Family.V4, "127.0.0.1"), (Family.V6, "::1")):
            assert await look_up("localhost", path, family=family, hosts=tmp_path / "hosts") == [found]
    assert server.asked == []


# --- time -------------------------------------------------------------------------------------------------------------


async def test_three_quick_answers_do_not_shorten_the_patience_for_a_slow_one(tmp_path: Path) -> None:
    """c-ares measures its nameservers and gave the fourth name of a search list 250 ms, where resolv.conf says 5 s."""
    quick = zone("")

    async def script(query: Query) -> None:
        await (late(2.5, DB) if query.name == "db.test" else quick)(query)

    async with nameserver(script) as server:
        path = resolv_conf(tmp_path, server, rest="search a.test b.test c.test\noptions ndots:5\n")
        assert len(await look_up("db.test", path)) == 2
    assert len(server.asked) == 8, "no second try before its time"


async def test_the_five_seconds_of_a_lost_datagram_are_five_seconds(tmp_path: Path) -> None:
    """The edges 4.5 and 5.5 of the histogram isolate what the whole world knows as the five-second DNS delay."""
    async with silent_target() as peer, nameserver(silent) as server:

        async def lose_the_first(query: Query) -> None:
            if len(server.asked) > 2:
                await zone("db.test. 60 IN A 127.0.0.1")(query)

        server.script = lose_the_first
        path = resolv_conf(tmp_path, server)
        outcome = await probe("tcp", address=f"db.test:{peer.port}", resolv_conf=path, timeout_seconds=30)
    assert verdict(outcome) == "success"
    assert len(server.asked) == 4, "one try is lost, the next one is answered"
    assert outcome.phases[Phase.RESOLVE] > 4.9


async def test_attempts_and_timeout_are_those_of_resolv_conf(tmp_path: Path) -> None:
    async with nameserver(silent) as server:
        path = resolv_conf(tmp_path, server, rest="options timeout:1 attempts:3\n")
        with pytest.raises(ProbeFailure) as caught:
            await look_up("db.test.", path, family=Family.V4)
    assert caught.value.reason is Reason.TIMEOUT
    assert len(server.asked) == 3


# --- reasons ----------------------------------------------------------------------------------------------------------


async def garbage(query: Query) -> None:
    """The right id, and then nothing that could be an answer."""
    query.send(query.data[:2] + b"\x80")


async def hanging_up(query: Query) -> None:
    """Over TCP, the connection is closed without an answer."""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (answering("NXDOMAIN"), Reason.NAME_NOT_FOUND),
        (answering("NOERROR"), Reason.NO_RECORDS),
        (answering("NOERROR", "db.test. 60 IN CNAME nowhere.test."), Reason.NO_RECORDS),
        (answering("SERVFAIL"), Reason.SERVER_FAILURE),
        (answering("NOTIMP"), Reason.SERVER_FAILURE),
        (answering("NOTAUTH"), Reason.SERVER_FAILURE),
        (answering("REFUSED"), Reason.QUERY_REFUSED),
        (answering("FORMERR"), Reason.PROTOCOL_ERROR),
        (silent, Reason.TIMEOUT),
        (by_transport(udp=truncated, tcp=silent), Reason.TIMEOUT),
        (by_transport(udp=truncated, tcp=answering("SERVFAIL")), Reason.SERVER_FAILURE),
        (by_transport(udp=truncated, tcp=hanging_up), Reason.CLOSED),
        (garbage, Reason.PROTOCOL_ERROR),
    ],
)
async def test_reasons(tmp_path: Path, script: Script, reason: Reason) -> None:
    async with nameserver(script) as server:
        path = resolv_conf(tmp_path, server, rest="options timeout:1 attempts:1\n")
        outcome = await probe("tcp", address="db.test.:1", resolv_conf=path, timeout_seconds=20)
    assert verdict(outcome) == f"resolve/{reason}"
    assert outcome.failure is not None
    assert "expected the addresses of db.test., got " in outcome.failure.detail
    assert f"from {server.ip}:53 for db.test" in outcome.failure.detail
    assert {attempt["server"] for attempt in outcome.facts[Fact.DNS_ATTEMPTS]} == {f"{server.ip}:53"}


@pytest.mark.parametrize(
    ("hook", "rule"),
    [
        ("input", "udp dport 53 reject"),
        ("input", "udp dport 53 reject with icmpx host-unreachable"),
        ("input", "udp dport 53 reject with icmpx admin-prohibited"),
        ("output", "udp dport 53 drop"),
        ("no route", ""),
    ],
)
def test_no_way_to_the_nameserver_is_unreachable_at_once(tmp_path: Path, hook: str, rule: str) -> None:
    """As libc does, the socket asks the kernel for what routers say; c-ares alone would wait for the timeout."""
    ip = "198.51.100.1" if hook == "no route" else SERVER_IP
    path = resolv_conf(tmp_path, ip, rest="options timeout:30 attempts:1\n")
    with two_hosts() as (client, server):
        if rule:
            (server if hook == "input" else client).filter(hook, rule)
        outcome = client.probe_in_thread("tcp", address="db.test.:1", resolv_conf=path, timeout_seconds=20)
    assert verdict(outcome) == "resolve/unreachable"
    assert outcome.failure is not None
    assert ("Network is unreachable" in outcome.failure.detail) == (hook == "no route")


async def test_running_out_of_descriptors_is_no_fault_of_the_nameserver() -> None:
    """c-ares has one code for a socket that cannot be had and for a nameserver that cannot be reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[int] = []
    question = Question("db.test", RecordType.A)
    async with Nameserver(DB) as server:
        address = Address(server.ip, server.port)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    spare.append(os.dup(0))
            with pytest.raises(OSError, match="Too many open files"):
                await ares.ask(address, [question], Recorder(), transport=Transport.UDP, patience_seconds=1)
        finally:
            for fd in spare:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_name_that_is_none_is_not_found(tmp_path: Path) -> None:
    async with nameserver(DB) as server:
        with pytest.raises(ProbeFailure, match="expected a name of DNS, got 'xxx") as caught:
            await look_up(f"{'x' * 64}.test.", resolv_conf(tmp_path, server))
    assert caught.value.reason is Reason.NAME_NOT_FOUND
    assert server.asked == []


async def test_attempts_show_truncation_as_far_as_it_can_be_seen(tmp_path: Path) -> None:
    script = by_transport(udp=truncated, tcp=answering("SERVFAIL"))
    async with nameserver(script) as server:
        path = resolv_conf(tmp_path, server, rest="options attempts:1\n")
        outcome = await probe("tcp", address="db.test.:1", resolv_conf=path, family="4")
    (attempt,) = outcome.facts[Fact.DNS_ATTEMPTS]
    assert attempt.pop("duration_seconds") > 0
    assert attempt == {
        "server": f"{server.ip}:53",
        "name": "db.test",
        "record": "A",
        "transport": "udp",
        "truncated": True,
        "rcode": "SERVFAIL",
    }


async def test_a_nameserver_by_ipv6() -> None:
    async with Nameserver(DB, ip="::1") as server:
        (finding,) = await ares.ask(
            Address("::1", server.port),
            [Question("db.test", RecordType.AAAA)],
            Recorder(),
            transport=Transport.UDP,
            patience_seconds=5,
        )
    assert isinstance(finding.seen, Reply)
    assert finding.seen.records == ("2001:db8::1",)


async def test_a_link_local_nameserver_keeps_its_interface() -> None:
    written = ares._written(Address("fe80::1%lo", 53))
    resolver = ares._Resolver([written], loop=asyncio.get_running_loop())
    try:
        assert resolver._channel.servers == ["[fe80::1]:53%lo"]
    finally:
        await resolver.close()


@pytest.mark.parametrize("text", ["nameserver {ip}\n", ""])
async def test_a_nameserver_that_is_not_there_is_unreachable(tmp_path: Path, text: str) -> None:
    """Nothing listens on that address; and without any nameserver, libc asks 127.0.0.1."""
    (tmp_path / "resolv.conf").write_text(text.format(ip=loopback_ip()))
    outcome = await probe("tcp", address="db.test.:1", resolv_conf=str(tmp_path / "resolv.conf"))
    assert verdict(outcome) == "resolve/unreachable"


async def test_a_deadline_says_who_was_waited_for_and_shows_the_attempts(tmp_path: Path) -> None:
    async with nameserver(silent) as server:
        path = resolv_conf(tmp_path, server)
        outcome = await probe("tcp", address="db.test.:1", resolv_conf=path, timeout_seconds=0.3)
    assert verdict(outcome) == "resolve/timeout"
    assert outcome.failure is not None
    assert outcome.failure.detail == (
        f"expected the addresses of db.test.: expected an answer from {server.ip}:53 for db.test, got none within 0.3s"
    )
    assert [(a["record"], a["error"]) for a in outcome.facts[Fact.DNS_ATTEMPTS]] == [
        ("A", "timeout"),
        ("AAAA", "timeout"),
    ]


async def test_a_lookup_that_succeeds_leaves_no_attempts_among_the_facts(tmp_path: Path) -> None:
    """They are for finding out what went wrong; of a run that went well they are noise."""
    async with silent_target() as peer, nameserver(zone("db.test. 60 IN A 127.0.0.1")) as server:
        path = resolv_conf(tmp_path, server)
        outcome = await probe("tcp", address=f"db.test:{peer.port}", resolv_conf=path)
    assert verdict(outcome) == "success"
    assert Fact.DNS_ATTEMPTS not in outcome.facts
    assert Fact.HOSTS_FILE not in outcome.facts
    assert outcome.facts[Fact.ADDRESSES] == ["127.0.0.1"]
    assert outcome.facts[Fact.DNS_NAME] == "db.test"
    assert outcome.facts[Fact.DNS_SERVER] == f"{server.ip}:53"


async def test_a_lookup_that_took_a_second_try_leaves_its_attempts(tmp_path: Path) -> None:
    """Else nobody could tell a slow network from a nameserver that does not answer."""
    answer = zone("db.test. 60 IN A 127.0.0.1")
    async with (
        silent_target() as peer,
        nameserver(silent) as dead,
        nameserver(answer) as alive,
    ):
        path = resolv_conf(tmp_path, dead, alive, rest="options timeout:1 attempts:1\n")
        outcome = await probe("tcp", address=f"db.test:{peer.port}", resolv_conf=path)
    assert verdict(outcome) == "success"
    seen = {(a["server"], a.get("error", a.get("rcode"))) for a in outcome.facts[Fact.DNS_ATTEMPTS]}
    assert seen == {(f"{dead.ip}:53", "timeout"), (f"{alive.ip}:53", "NOERROR")}


@pytest.mark.parametrize(("delay_seconds", "told"), [(0.0, False), (0.06, True)])
async def test_a_long_walk_is_told_where_it_takes_time(tmp_path: Path, delay_seconds: float, told: bool) -> None:  # noqa: FBT001
    """Eight questions behind a search list of Kubernetes' length: of four that took long the record is kept."""
    script = late(delay_seconds, zone("db.example.test. 60 IN A 127.0.0.1"))
    async with silent_target() as peer, nameserver(script) as server:
        path = resolv_conf(tmp_path, server, rest="search a.svc.test svc.test cluster.test\noptions ndots:5\n")
        outcome = await probe("tcp", address=f"db.example.test:{peer.port}", resolv_conf=path)
    assert verdict(outcome) == "success"
    assert (Fact.DNS_ATTEMPTS in outcome.facts) is told
    assert outcome.facts[Fact.DNS_NAME] == "db.example.test"


async def test_a_name_of_the_hosts_file_is_marked(tmp_path: Path) -> None:
    """It says nothing about nameservers."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 db.test\n", "utf-8")
    recorder = Recorder()
    await resolve(
        "db.test",
        80,
        recorder,
        family=Family.ANY,
        addresses=Addresses.ALL,
        resolv_conf=tmp_path / "missing",
        hosts=hosts,
    )
    assert recorder.facts[Fact.HOSTS_FILE] is True


def gai_codes() -> Sequence[str]:
    return [name for name in dir(socket) if name.startswith("EAI_")]


OURS = {"EAI_BADFLAGS", "EAI_FAMILY", "EAI_MEMORY", "EAI_OVERFLOW", "EAI_SERVICE", "EAI_SOCKTYPE"}
"""Codes that speak of the call, not of the network."""


@pytest.mark.parametrize("name", gai_codes())
def test_every_code_of_getaddrinfo_is_classified(name: str) -> None:
    error = socket.gaierror(getattr(socket, name), "said libc")
    recorder = Recorder()
    failure = classify(error, target("dns", query="db.test", server="system"), recorder)
    assert (failure.reason is Reason.INTERNAL) == (name in OURS)
    assert failure.phase is Phase.RESOLVE
    assert "said libc" in failure.detail


ABOUT_THE_CALL = {
    "ARES_SUCCESS",
    "ARES_EBADFAMILY",
    "ARES_EBADFLAGS",
    "ARES_EBADHINTS",
    "ARES_EBADNAME",  # name_not_found, see above
    "ARES_EBADQUERY",
    "ARES_EBADSTR",
    "ARES_ECANCELLED",
    "ARES_EDESTRUCTION",
    "ARES_EFILE",
    "ARES_ENOMEM",
    "ARES_ENONAME",
    "ARES_ENOTINITIALIZED",
    "ARES_ESERVICE",
    "ARES_EADDRGETNETWORKPARAMS",  # Windows
    "ARES_ELOADIPHLPAPI",  # Windows
}
"""Codes that speak of the call or of this process, not of the network."""


@pytest.mark.parametrize(("code", "name"), sorted(pycares.errno.errorcode.items()))
def test_every_code_of_c_ares_is_an_answer_or_says_why_there_is_none(code: int, name: str) -> None:
    kinds = [code in ares.RCODES, code in ares.NO_ANSWERS, name in ABOUT_THE_CALL]
    assert kinds.count(True) == 1
    if code in ares.RCODES:
        assert ares.RCODES[code] in names.BY_RCODE
    if code in ares.NO_ANSWERS:
        assert ares.NO_ANSWERS[code].reason in OF_THE_NETWORK | {Reason.PROTOCOL_ERROR}


def test_every_reason_of_a_response_code_is_one_of_the_resolve_phase() -> None:
    assert set(names.BY_RCODE.values()) <= REASONS[Phase.RESOLVE]


OF_THE_NETWORK = {Reason.UNREACHABLE, Reason.TIMEOUT, Reason.RESET, Reason.CLOSED}


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_an_error_of_a_socket_is_a_reason_or_raised_as_it_is(number: int) -> None:
    """What the network does to a socket is a reason of the resolve phase; the rest is this process's own trouble."""
    error = OSError(number, "said the kernel")
    known = network.classify(error, Phase.RESOLVE, {})
    if known is None:
        with pytest.raises(OSError, match="said the kernel"):
            lost(error)
    else:
        assert lost(error).reason in OF_THE_NETWORK
