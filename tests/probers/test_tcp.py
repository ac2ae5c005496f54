"""The tcp prober against real servers: every way to succeed, and every reason it can give."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import voluptuous as vol

from agent.keys import keys_of, section, show_section
from agent.model import Fact, Outcome, Phase
from agent.probers.dialogue import STEPS_LIMIT
from agent.probers.tcp import TcpOptions, TcpProber, from_url
from agent.runner import run
from tests.lab.certificates import HOST, Certificates
from tests.lab.leaks import nothing_leaks, repeat
from tests.lab.misbehaving import (
    Server,
    closing,
    closing_when_spoken_to,
    dripping,
    echoing,
    flooding,
    greeting,
    refusing_port,
    resetting,
    segmented,
    silent,
    upgrading,
)
from tests.lab.nameservers import Nameserver, loopback_ip, resolv_conf, zone
from tests.lab.netns import SERVER_IP, SERVER_IP6, Namespace, two_hosts
from tests.lab.postgres import Postgres
from tests.lab.targets import probe, target, verdict

SSL_REQUEST = "00000008 04d2162f"


def tls(certificates: Certificates, **keys: Any) -> dict[str, Any]:
    return {"ca_file": str(certificates.ca_file), "server_name": HOST, **keys}


def detail(outcome: Outcome) -> str:
    assert outcome.failure is not None
    return outcome.failure.detail


# --- real servers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis server that wants a password."""
    port = refusing_port()
    command = [
        "redis-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--requirepass",
        "hunter2hunter2",
    ]
    process = subprocess.Popen(command, cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if b"Ready to accept connections" in line:
            break
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()
    process.stdout.close()


async def test_redis_answers_a_ping(redis: str) -> None:
    outcome = await probe(
        "tcp",
        address=redis,
        dialogue=[
            {"send": "AUTH hunter2hunter2\r\n"},
            {"expect": r"\+OK\r\n"},
            {"send": "PING\r\n"},
            {"expect_bytes": {"text": "+PONG\r\n"}},
        ],
    )
    assert verdict(outcome) == "success"
    assert set(outcome.phases) == {Phase.CONNECT, Phase.REQUEST, Phase.VERIFY}
    assert outcome.facts[Fact.SERVER_SIGNATURE] == "+OK\\r\\n"
    assert outcome.facts[Fact.ADDRESS] == redis


async def test_redis_refuses_a_ping_without_its_password(redis: str) -> None:
    outcome = await probe(
        "tcp", address=redis, dialogue=[{"send": "PING\r\n"}, {"expect": r"^\+PONG"}], timeout_seconds=0.5
    )
    assert verdict(outcome) == "request/timeout"
    expected = (
        r"step 2 of 2: expected a reply that matches '^\\+PONG', got '-NOAUTH Authentication required.\r\n' within 0.5s"
    )
    assert detail(outcome) == expected


async def test_trap_t06_what_is_sent_has_no_line_end_added(postgres: Postgres, certificates: Certificates) -> None:
    """blackbox_exporter's own Postgres example sends a ninth byte, which lands in front of the TLS ClientHello."""
    outcome = await probe(
        "tcp",
        address=f"127.0.0.1:{postgres.port}",
        tls=tls(certificates),
        dialogue=[{"send_hex": SSL_REQUEST}, {"expect_bytes": {"text": "S"}}, {"starttls": True}],
    )
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.TLS_VERSION] == "TLSv1.3"
    assert outcome.facts[Fact.CERTIFICATE_VERIFIED] is True
    assert set(outcome.phases) == {Phase.CONNECT, Phase.REQUEST, Phase.VERIFY, Phase.TLS}


@pytest.mark.parametrize(
    ("step", "sent"),
    [({"send": "ä\n"}, b"\xc3\xa4\n"), ({"send": "x"}, b"x"), ({"send_hex": "00 ff 0A"}, b"\x00\xff\n")],
)
async def test_trap_t06_bytes_arrive_as_they_are(step: Mapping[str, str], sent: bytes) -> None:
    async with echoing() as server:
        dialogue = [step, {"expect_bytes": {"hex": sent.hex()}}, {"send": "END!"}, {"expect_bytes": {"text": "END!"}}]
        outcome = await probe("tcp", address=server.address, dialogue=dialogue)
    assert verdict(outcome) == "success"


# --- dialogues --------------------------------------------------------------------------------------------------------


async def test_trap_t07_a_pattern_needs_no_line_end() -> None:
    async with greeting(b"HELLO") as server:
        outcome = await probe("tcp", address=server.address, dialogue=[{"expect": "^HELLO"}])
    assert verdict(outcome) == "success"


@pytest.mark.parametrize(
    "dialogue",
    [
        [{"send": "?"}, {"expect_bytes": {"length": 9}}],
        [{"send": "?"}, {"expect_bytes": {"text": "onetwoend"}}],
        [{"send": "?"}, {"expect": "one"}, {"expect_bytes": {"length": 3}}, {"expect": "^end$"}],
        [{"send": "?"}, {"expect_bytes": {"length": 4}}, {"expect_bytes": {"hex": "776f65"}}, {"expect": "nd"}],
        [{"send": "?"}, {"expect": "t.*e"}, {"expect_bytes": {"text": "nd"}}],
        [{"send": "?"}, {"expect": ""}, {"send": "!"}],
    ],
    ids=str,
)
@pytest.mark.parametrize("pieces", [[b"onetwoend"], [b"one", b"two", b"end"], [b"o", b"netw", b"oen", b"d"]], ids=str)
async def test_trap_t08_segments_are_joined_and_no_byte_is_lost_between_steps(
    dialogue: list[dict[str, Any]], pieces: list[bytes]
) -> None:
    async with segmented(pieces) as server:
        outcome = await probe("tcp", address=server.address, dialogue=dialogue)
    assert verdict(outcome) == "success", outcome.failure


@pytest.mark.parametrize(
    ("server", "dialogue", "expected", "sentence"),
    [
        (
            lambda: greeting(b"HELLO\r\n"),
            [{"expect_bytes": {"text": "HELP"}}],
            "verify/unexpected_reply",
            "step 1 of 1: expected the bytes 'HELP', got 'HELL'",
        ),
        (
            lambda: greeting(b"N"),
            [{"send": "x"}, {"expect_bytes": {"hex": "53 00"}}],
            "verify/unexpected_reply",
            "step 2 of 2: expected the bytes 5300, got 'N'",
        ),
        (
            lambda: closing(b"-ERR no\r\n"),
            [{"expect": "PONG"}],
            "verify/unexpected_reply",
            r"step 1 of 1: expected a reply that matches 'PONG', got '-ERR no\r\n' and then the end of the connection",
        ),
        (
            lambda: closing(b"abc"),
            [{"expect_bytes": {"length": 8}}],
            "verify/unexpected_reply",
            "step 1 of 1: expected 8 bytes, got 'abc' and then the end of the connection",
        ),
        (
            flooding,
            [{"expect": "PONG"}],
            "verify/unexpected_reply",
            "step 1 of 1: expected a reply that matches 'PONG', got 1000 bytes that do not: 'xxxxx",
        ),
        (
            closing_when_spoken_to,
            [{"send": "PING"}, {"expect": "PONG"}],
            "request/closed",
            "step 2 of 2: expected an answer from 127.0.0.1:",
        ),
        (
            resetting,
            [{"send": "PING"}, {"expect": "PONG"}],
            "request/reset",
            "step 2 of 2: expected an answer from 127.0.0.1:",
        ),
        (
            lambda: resetting(b"PO"),
            [{"send": "PING"}, {"expect": "PONG"}],
            "request/reset",
            "step 2 of 2: expected an answer from 127.0.0.1:",
        ),
        (
            silent,
            [{"send": "PING"}, {"expect": "PONG"}],
            "request/timeout",
            "step 2 of 2: expected a reply that matches 'PONG', got no answer within 0.5s",
        ),
        (
            dripping,
            [{"expect": "PONG"}],
            "request/timeout",
            "step 1 of 1: expected a reply that matches 'PONG', got '..",
        ),
        (
            lambda: greeting(b"S and more"),
            [{"expect_bytes": {"text": "S"}}, {"starttls": True}],
            "tls/not_tls",
            "step 2 of 2: expected nothing more before the TLS handshake, got ' and more'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
async def test_a_dialogue_that_goes_wrong(
    server: Callable[[], Server], dialogue: list[dict[str, Any]], expected: str, sentence: str
) -> None:
    """The step is named, with what it wanted and what came."""
    async with server() as peer:
        outcome = await probe("tcp", address=peer.address, dialogue=dialogue, read_limit="1000B", timeout_seconds=0.5)
    assert verdict(outcome) == expected
    assert detail(outcome).startswith(sentence)


async def test_what_came_before_a_reset_still_counts() -> None:
    """A server may answer and reset in the same breath: the answer was there."""
    async with resetting(b"PONG") as server:
        dialogue = [{"send": "PING"}, {"expect_bytes": {"length": 2}}, {"expect": "NG"}]
        outcomes = [await probe("tcp", address=server.address, dialogue=dialogue) for _ in range(20)]
    assert [verdict(outcome) for outcome in outcomes] == ["success"] * 20


async def test_the_deadline_holds_against_a_slow_drip() -> None:
    """Every read succeeds; the run ends all the same, with the time where it was spent."""
    async with dripping(every_seconds=0.01) as server:
        outcome = await probe("tcp", address=server.address, dialogue=[{"expect": "PONG"}], timeout_seconds=0.5)
    assert verdict(outcome) == "request/timeout"
    assert outcome.phases[Phase.REQUEST] > 0.8 * outcome.duration_seconds
    assert Phase.TRANSFER not in outcome.phases


@pytest.mark.parametrize(
    "server",
    [echoing, lambda: segmented([b"bad pass", b"word s3cret-", b"s3cret!", b" from me"])],
    ids=["echo", "pieces"],
)
@pytest.mark.parametrize("expected", ["nothing like it", "nothing.*like"])
async def test_what_was_sent_is_shown_nowhere(server: Callable[[], Server], expected: str) -> None:
    """`send` may hold a password, and servers like to repeat what they did not understand."""
    dialogue = [{"send": "AUTH me s3cret-s3cret!\r\n"}, {"expect": expected}]
    async with server() as peer:
        outcome = await probe("tcp", address=peer.address, dialogue=dialogue, timeout_seconds=0.5)
    assert verdict(outcome) == "request/timeout"
    seen = json.dumps(outcome.as_dict()) + repr(outcome)
    assert "s3cret-s3cret!" not in seen
    assert "AUTH me" not in seen
    assert "***" in detail(outcome)


@pytest.mark.parametrize(
    "steps",
    [
        [{"expect_bytes": {"text": "+OK\r\n"}}],
        [{"expect_bytes": {"length": 3}}, {"expect_bytes": {"text": "+OK\r\n"}}],
        [{"expect": "nothing like it"}],
    ],
    ids=["the beginning", "the middle", "a limit"],
)
async def test_no_part_of_what_was_sent_is_shown(steps: list[dict[str, Any]]) -> None:
    """A step and a limit end in the middle of a password that is repeated."""
    dialogue = [{"send": "s3cr3t-p4ssw0rd\r\n"}, *steps]
    async with echoing() as server:
        outcome = await probe("tcp", address=server.address, dialogue=dialogue, read_limit="8B")
    assert verdict(outcome) == "verify/unexpected_reply"
    seen = json.dumps(outcome.as_dict())
    assert not [part for part in ("s3c", "cr3", "r3t", "p4s") if part in seen]


# --- configuration ----------------------------------------------------------------------------------------------------


def problems(**keys: Any) -> list[str]:
    try:
        section(TcpOptions)(keys)
    except vol.MultipleInvalid as several:
        return [f"{'.'.join(map(str, error.path))}: {error.msg}" for error in several.errors]
    return []


STEP = "a mapping with exactly one of send, send_hex, expect, expect_bytes, starttls"


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (
            [{"expect": "("}],
            "dialogue.0.expect: expected a regular expression, got '(': missing ), unterminated subpattern",
        ),
        ([{"send": "a", "expect": "b"}], f"dialogue.0: expected {STEP}, got a mapping: send and expect"),
        ([{}], f"dialogue.0: expected {STEP}, got a mapping: none of them"),
        (
            [{"recv": "x"}],
            "dialogue.0.recv: expected one of expect, expect_bytes, send, send_hex, starttls, got the unknown key",
        ),
        (["PING"], "dialogue.0: expected a mapping, got 'PING'"),
        ({"send": "x"}, f"dialogue: expected a list, each item {STEP}, got a mapping"),
        ([{"send": ""}], "dialogue.0.send: expected a non-empty string, got"),
        ([{"send": 7}], "dialogue.0.send: expected a non-empty string, got"),
        ([{"send_hex": "0d0"}], "dialogue.0.send_hex: expected bytes in hexadecimal such as 0d0a, got"),
        ([{"send_hex": ""}], "dialogue.0.send_hex: expected bytes in hexadecimal such as 0d0a, got"),
        ([{"starttls": False}], "dialogue.0.starttls: expected true, got false"),
        ([{"expect_bytes": 8}], "dialogue.0.expect_bytes: expected a mapping, got 8"),
        (
            [{"expect_bytes": {"length": 8, "hex": "00"}}],
            "dialogue.0.expect_bytes: expected a mapping with exactly one of length, hex, text, got a mapping: length",
        ),
        (
            [{"expect_bytes": {"length": 0}}],
            "dialogue.0.expect_bytes.length: expected a whole number from 1 to 65536, got 0",
        ),
        ([{"send": "x"}] * (STEPS_LIMIT + 1), f"dialogue: expected at most {STEPS_LIMIT} steps, got {STEPS_LIMIT + 1}"),
        ([{"starttls": True}] * 2, "dialogue: expected starttls at most once, got it 2 times"),
    ],
    ids=str,
)
def test_a_wrong_dialogue_is_refused_at_load(steps: Any, problem: str) -> None:
    found = problems(address="db:1", dialogue=steps)
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_a_wrong_payload_is_not_shown_in_the_message() -> None:
    assert "s3cret" not in str(problems(address="db:1", dialogue=[{"send_hex": "s3cret"}]))


def test_options_are_shown_as_they_were_written_but_for_what_is_sent() -> None:
    steps: list[dict[str, Any]] = [
        {"send": "AUTH s3cret"},
        {"expect": r"\x00ä"},
        {"expect_bytes": {"hex": "00ff"}},
        {"expect_bytes": {"text": "S"}},
        {"expect_bytes": {"length": 3}},
        {"starttls": True},
    ]
    options = section(TcpOptions)({"address": "db:1", "dialogue": steps})
    shown = show_section(options, keys_of(TcpOptions))
    assert shown["dialogue"] == [{"send": "***"}, *steps[1:]]
    assert "s3cret" not in repr(options)


@pytest.mark.parametrize(
    ("url", "keys"),
    [
        ("tcp://db.example.com:5432", {"address": "db.example.com:5432"}),
        ("tcp://[2001:db8::1]:80/", {"address": "[2001:db8::1]:80"}),
        ("tls://db.example.com:5432", {"address": "db.example.com:5432", "tls": {}}),
    ],
)
def test_urls_of_check(url: str, keys: dict[str, Any]) -> None:
    assert from_url(url) == keys
    assert problems(**keys) == []


@pytest.mark.parametrize("url", ["tcp://db:1/path", "tcp://db:1?x=1", "tcp://db:1#x", "http://db:1"])
def test_urls_that_say_more_than_an_address_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected tcp://host:port or tls://host:port, got"):
        from_url(url)


@pytest.mark.parametrize("url", ["tcp://db", "tcp://me:s3cret@db:1", "tls://"])
def test_urls_without_a_proper_address_are_refused_as_configuration_is(url: str) -> None:
    assert problems(**from_url(url))
    assert "s3cret" not in str(problems(**from_url(url)))


# --- the network ------------------------------------------------------------------------------------------------------


async def test_a_port_nobody_listens_on_is_refused() -> None:
    port = refusing_port()
    outcome = await probe("tcp", address=f"127.0.0.1:{port}")
    assert verdict(outcome) == "connect/refused"
    assert detail(outcome) == f"expected a connection to 127.0.0.1:{port}, got: the connection was refused"
    assert set(outcome.phases) == {Phase.CONNECT}


async def test_ipv6() -> None:
    async with echoing(host="::1") as server:
        outcome = await probe("tcp", address=server.address)
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.ADDRESS] == f"[::1]:{server.port}"


Hosts = tuple[Namespace, Namespace]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """A client, and a server that listens on port 8000."""
    with two_hosts() as (client, server), server.serving(sys.executable, "-m", "http.server", "8000", port=8000):
        yield client, server


FILTERS = [
    ("drop", "timeout"),
    ("reject with tcp reset", "refused"),
    ("reject with icmpx port-unreachable", "refused"),
    ("reject with icmpx host-unreachable", "unreachable"),
    ("reject with icmpx no-route", "unreachable"),
    ("reject with icmpx admin-prohibited", "unreachable"),
]


@pytest.mark.parametrize(("rule", "reason"), FILTERS, ids=[rule for rule, _ in FILTERS])
@pytest.mark.parametrize("negative", [False, True], ids=["positive", "negative"])
def test_a_packet_filter_in_the_way(hosts: Hosts, rule: str, reason: str, negative: bool) -> None:  # noqa: FBT001
    """Every way a network policy may forbid a connection has its reason, and satisfies a negative target."""
    client, server = hosts
    address = f"{SERVER_IP}:8000"
    server.filter("input", f"tcp dport 8000 {rule}")
    try:
        outcome = client.probe_in_thread("tcp", address=address, timeout_seconds=0.7, negative=negative)
    finally:
        server.filter("input")
    assert verdict(outcome) == ("success" if negative else f"connect/{reason}")
    assert outcome.facts.get(Fact.BLOCKED_BY) == (f"connect/{reason}" if negative else None)
    if reason == "timeout":
        assert outcome.phases[Phase.CONNECT] > 0.8 * outcome.duration_seconds


def test_a_lost_packet_is_told(hosts: Hosts) -> None:
    """A connection that stands after its SYN was sent again has lost something, however well it goes on."""
    client, server = hosts
    # The first SYN has 60 bytes.
    server.filter("input", "tcp dport 8000 tcp flags syn quota until 61 bytes drop")
    try:
        outcome = client.probe_in_thread("tcp", address=f"{SERVER_IP}:8000")
    finally:
        server.filter("input")
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.RETRANSMITTED_SEGMENTS] == 1
    assert outcome.phases[Phase.CONNECT] > 0.9


def test_an_open_way_fails_a_negative_target(hosts: Hosts) -> None:
    client, _ = hosts
    good = client.probe_in_thread("tcp", address=f"{SERVER_IP}:8000")
    bad = client.probe_in_thread("tcp", address=f"{SERVER_IP}:8000", negative=True)
    assert verdict(good) == "success"
    assert verdict(bad) == "verify/unexpected_success"
    assert detail(bad) == (f"expected {SERVER_IP}:8000 to be unreachable, but it answered as a healthy target would")


@pytest.mark.parametrize(
    ("route", "reason", "seen"),
    [
        (None, "unreachable", "Network is unreachable"),
        ("unreachable", "unreachable", "No route to host"),
        ("blackhole", "unreachable", "Invalid argument"),
        ("prohibit", "denied", "Permission denied"),
    ],
)
def test_no_way_out(hosts: Hosts, route: str | None, reason: str, seen: str) -> None:
    client, _ = hosts
    if route:
        client.ip("route", "add", route, "203.0.113.0/24")
    try:
        outcome = client.probe_in_thread("tcp", address="203.0.113.9:80")
    finally:
        if route:
            client.ip("route", "delete", route, "203.0.113.0/24")
    assert verdict(outcome) == f"connect/{reason}"
    assert seen in detail(outcome)


def test_a_link_local_address_without_a_link_is_unreachable(hosts: Hosts) -> None:
    """A nameserver may give such an address out: what it leads to is no defect of ours."""
    client, _ = hosts
    outcome = client.probe_in_thread("tcp", address="[fe80::1]:80")
    assert verdict(outcome) == "connect/unreachable"


def test_ipv6_over_the_wire(hosts: Hosts) -> None:
    client, _ = hosts
    outcome = client.probe_in_thread("tcp", address=f"[{SERVER_IP6}]:8001")
    assert verdict(outcome) == "connect/refused"


def test_a_connection_cut_in_the_middle_by_an_icmp_error_is_a_reset(hosts: Hosts) -> None:
    """The same errno that means unreachable while connecting means the end of a connection that stood."""
    client, server = hosts
    # The server lets the handshake through and nothing after it.
    server.filter("input", "tcp dport 8000 ct state established meta length > 60 reject with tcp reset")
    try:
        outcome = client.probe_in_thread(
            "tcp", address=f"{SERVER_IP}:8000", dialogue=[{"send": "GET /" + "x" * 99}, {"expect": "x"}]
        )
    finally:
        server.filter("input")
    assert verdict(outcome) == "request/reset"


# --- several addresses ------------------------------------------------------------------------------------------------


def database(*ips: str) -> Nameserver:
    """A nameserver that knows where db.test is."""
    return Nameserver(zone("\n".join(f"db.test. A {ip}" for ip in ips)), ip=loopback_ip(), port=53)


def named(address: str, names: Nameserver, directory: Path) -> dict[str, Any]:
    return {"address": address, "resolv_conf": resolv_conf(directory, names), "family": "4"}


async def test_one_of_all_addresses_is_dead(tmp_path: Path) -> None:
    """The run fails, and shows each attempt; the first address alone would have looked healthy."""
    async with echoing() as server, database("127.0.0.1", "127.0.53.77") as names:
        keys = named(f"db.test.:{server.port}", names, tmp_path)
        outcome = await probe("tcp", addresses="all", **keys)
    assert verdict(outcome) == "connect/refused"
    dead = f"127.0.53.77:{server.port}"
    sentence = f"1 of 2 addresses failed: expected a connection to {dead}, got: the connection was refused"
    assert detail(outcome) == sentence
    attempts = {attempt["address"]: attempt for attempt in outcome.facts[Fact.ATTEMPTS]}
    assert attempts[dead]["reason"] == "refused"
    assert attempts[f"127.0.0.1:{server.port}"]["success"] is True
    assert outcome.facts[Fact.ADDRESS] == dead


async def test_all_addresses_are_fine(tmp_path: Path) -> None:
    ips = ["127.0.0.1", "127.0.53.77", "127.0.53.78"]
    async with echoing(host="0.0.0.0") as server, database(*ips) as names:
        keys = named(f"db.test.:{server.port}", names, tmp_path)
        outcome = await probe("tcp", addresses="all", **keys)
        first = await probe("tcp", addresses="first", **keys)
    assert verdict(outcome) == "success"
    assert len(outcome.facts[Fact.ATTEMPTS]) == server.connections - 1 == 3
    assert verdict(first) == "success"
    assert Fact.ATTEMPTS not in first.facts


@pytest.mark.parametrize(
    ("family", "expected"), [("6", "success"), ("4", "connect/refused"), ("any", "connect/refused")]
)
async def test_all_addresses_of_a_family(family: str, expected: str, tmp_path: Path) -> None:
    """The server listens on IPv6 alone, and the name has an address of each kind."""
    script = zone("db.test. A 127.0.53.77\ndb.test. AAAA ::1")
    async with echoing(host="::1") as server, Nameserver(script, ip=loopback_ip(), port=53) as names:
        keys = named(f"db.test.:{server.port}", names, tmp_path) | {"family": family}
        outcome = await probe("tcp", addresses="all", **keys)
    assert verdict(outcome) == expected
    assert len(outcome.facts.get(Fact.ATTEMPTS, ["one"])) == (2 if family == "any" else 1)


async def test_a_timeout_among_all_addresses_shows_the_time_in_its_phase(
    certificates: Certificates, tmp_path: Path
) -> None:
    """One address refuses at once, another waits in vain for TLS until the deadline: the time is in tls."""
    async with silent() as server, database("127.0.0.1", "127.0.53.77") as names:
        outcome = await probe(
            "tcp",
            address=f"db.test.:{server.port}",
            addresses="all",
            family="4",
            resolv_conf=resolv_conf(tmp_path, names),
            tls=tls(certificates),
            timeout_seconds=0.5,
        )
    assert verdict(outcome) == "tls/timeout"
    assert outcome.phases[Phase.TLS] > 0.8 * outcome.duration_seconds
    late = f"expected 127.0.0.1:{server.port} to finish the TLS handshake, got no answer within 0.5s"
    assert detail(outcome) == f"2 of 2 addresses failed: {late}"
    assert {attempt["phase"] for attempt in outcome.facts[Fact.ATTEMPTS]} == {"connect", "tls"}


async def test_a_negative_target_is_reached_if_one_of_all_addresses_is(tmp_path: Path) -> None:
    async with echoing() as server, database("127.0.53.77", "127.0.0.1") as names:
        keys = named(f"db.test.:{server.port}", names, tmp_path)
        outcome = await probe("tcp", addresses="all", negative=True, **keys)
    assert verdict(outcome) == "verify/unexpected_success"
    assert f"127.0.0.1:{server.port}" in detail(outcome)


async def test_a_negative_target_needs_every_address_blocked(tmp_path: Path) -> None:
    async with database("127.0.53.77", "127.0.53.78") as names:
        keys = named(f"db.test.:{refusing_port()}", names, tmp_path)
        outcome = await probe("tcp", addresses="all", negative=True, **keys)
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.BLOCKED_BY] == "connect/refused"


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_trap_t15_a_server_that_upgrades_and_stays_silent_meets_the_deadline(certificates: Certificates) -> None:
    dialogue = [{"send_hex": SSL_REQUEST}, {"expect_bytes": {"text": "S"}}, {"starttls": True}]
    async with upgrading(None) as server:
        mute = await probe("tcp", address=server.address, tls=tls(certificates), dialogue=dialogue, timeout_seconds=0.5)
    async with upgrading(certificates.good.server_context()) as server:
        dialogue = [*dialogue, {"send": "?"}, {"expect": "!"}]
        late = await probe("tcp", address=server.address, tls=tls(certificates), dialogue=dialogue, timeout_seconds=0.5)
    assert (verdict(mute), verdict(late)) == ("tls/timeout", "request/timeout")
    assert detail(mute).startswith("step 3 of 3: expected 127.0.0.1:")
    assert detail(late) == "step 5 of 5: expected a reply that matches '!', got no answer within 0.5s"
    assert mute.phases[Phase.TLS] > 0.8 * mute.duration_seconds
    assert late.phases[Phase.REQUEST] > 0.5 * late.duration_seconds


async def test_a_dialogue_inside_tls(certificates: Certificates) -> None:
    async with echoing(tls=certificates.good.server_context()) as server:
        outcome = await probe(
            "tcp", address=server.address, tls=tls(certificates), dialogue=[{"send": "PING"}, {"expect": "PING"}]
        )
    assert verdict(outcome) == "success"


async def test_starttls_goes_on_with_the_dialogue_inside(certificates: Certificates) -> None:
    async def echo(reader: Any, writer: Any) -> None:
        while data := await reader.read(100):
            writer.write(data)

    async with upgrading(certificates.good.server_context(), then=echo) as server:
        dialogue = [
            {"send_hex": SSL_REQUEST},
            {"expect": "S"},
            {"starttls": True},
            {"send": "inside"},
            {"expect_bytes": {"text": "inside"}},
        ]
        outcome = await probe("tcp", address=server.address, tls=tls(certificates), dialogue=dialogue)
    assert verdict(outcome) == "success"


@pytest.mark.parametrize("state", ["good", "expired", "wrong_name"])
async def test_a_negative_target_that_speaks_tls_is_reached(certificates: Certificates, state: str) -> None:
    """However bad its certificate is: it came from the target."""
    async with silent(tls=getattr(certificates, state).server_context()) as server:
        outcome = await probe("tcp", address=server.address, tls=tls(certificates), negative=True)
    assert verdict(outcome) == "verify/unexpected_success"


async def test_a_negative_target_that_goes_silent_after_tls_is_reached(certificates: Certificates) -> None:
    async with silent(tls=certificates.good.server_context()) as server:
        outcome = await probe(
            "tcp",
            address=server.address,
            tls=tls(certificates),
            dialogue=[{"expect": "hello"}],
            negative=True,
            timeout_seconds=0.5,
        )
    assert verdict(outcome) == "verify/unexpected_success"


@pytest.mark.parametrize("server", [silent, closing, lambda: resetting(when_spoken_to=False)])
async def test_a_mesh_that_accepts_and_says_nothing_does_not_reach_a_negative_target(
    server: Callable[[], Server],
) -> None:
    """Meshes accept every connection and drop the forbidden ones: no byte of the target's was seen."""
    async with server() as peer:
        outcome = await probe(
            "tcp", address=peer.address, dialogue=[{"send": "?"}, {"expect": "!"}], negative=True, timeout_seconds=0.5
        )
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.BLOCKED_BY].startswith("request/")


async def test_a_file_that_is_missing_says_nothing_about_a_negative_target(tmp_path: Path) -> None:
    async with silent() as server:
        outcome = await probe(
            "tcp", address=server.address, tls={"ca_file": str(tmp_path / "missing.pem")}, negative=True
        )
    assert verdict(outcome) == "tls/certificate_untrusted"


# --- nothing is kept --------------------------------------------------------------------------------------------------


async def test_a_server_that_dies_and_returns_is_seen_by_the_very_next_run() -> None:
    async with echoing() as server:
        address = server.address
        first = await probe("tcp", address=address)
    second = await probe("tcp", address=address)
    assert (verdict(first), verdict(second)) == ("success", "connect/refused")


async def test_a_certificate_that_is_replaced_is_seen_by_the_very_next_run(
    certificates: Certificates, tmp_path: Path
) -> None:
    """The same prober, the same target, the same server: another certificate."""
    mine = Certificates(tmp_path)
    served = mine.issue("served", (HOST,))
    context = served.server_context()
    async with silent(tls=context) as server:
        asked = target("tcp", address=server.address, tls={"ca_file": str(mine.ca_file), "server_name": HOST})
        prober = TcpProber()
        first = await run(prober, asked)
        served = mine.expired
        context.load_cert_chain(served.chain_file, served.key_file)
        second = await run(prober, asked)
        # And the authority that the client trusts.
        shutil.copy(mine.other_ca_file, mine.ca_file)
        other = mine.unknown_issuer
        context.load_cert_chain(other.chain_file, other.key_file)
        third = await run(prober, asked)
    assert [verdict(o) for o in (first, second, third)] == ["success", "tls/certificate_expired", "success"]


# --- leaks: what tests/probers/test_leaks.py does not provoke ---------------------------------------------------------


@pytest.mark.parametrize("ending", ["refused", "expired", "reset", "garbage", "plain"])
async def test_a_thousand_failed_runs_leak_nothing(ending: str, certificates: Certificates) -> None:
    servers: dict[str, Callable[[], Server]] = {
        "refused": silent,
        "expired": lambda: silent(tls=certificates.expired.server_context()),
        "reset": resetting,
        "garbage": lambda: greeting(b"garbage" * 10),
        "plain": silent,
    }
    with_tls: dict[str, Any] = {} if ending in {"refused", "plain"} else {"tls": tls(certificates)}
    expected = {
        "refused": "connect/refused",
        "expired": "tls/certificate_expired",
        "reset": "tls/reset",
        "garbage": "tls/not_tls",
        "plain": "success",
    }[ending]
    async with servers[ending]() as server:
        address = f"127.0.0.1:{refusing_port()}" if ending == "refused" else server.address
        asked = target("tcp", address=address, timeout_seconds=30.0, **with_tls)
        prober = TcpProber()

        async def one() -> None:
            assert verdict(await run(prober, asked)) == expected

        await repeat(20, one)
        async with nothing_leaks():
            await repeat(1000, one)
