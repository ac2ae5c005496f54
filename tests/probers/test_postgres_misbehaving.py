"""postgres against peers that are silent, slow, broken, hostile or something else altogether."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from typing import Any

import pytest

from agent.model import DETAIL_LIMIT, Fact, Phase
from agent.probers.postgres import PostgresProber
from agent.runner import run
from tests.lab.certificates import Certificates
from tests.lab.fake_postgres import (
    ASK_SCRAM,
    AUTHENTICATION_OK,
    CANCEL_REQUEST,
    error,
    logged_in,
    message,
    parameter,
    read_startup,
    say,
    speaking,
)
from tests.lab.leaks import repeat
from tests.lab.misbehaving import (
    Server,
    closing,
    closing_when_spoken_to,
    flooding,
    greeting,
    http_only,
    refusing_port,
    reset,
    resetting,
    segmented,
    silent,
    upgrading,
)
from tests.lab.targets import probe, target, verdict

pytestmark = pytest.mark.alone

MODES = ("handshake", "query")

ONE_ROW = b"".join(
    (
        message("1"),
        message("t", struct.pack("!H", 0)),
        message("T", struct.pack("!H", 1) + b"?column?\0" + struct.pack("!IHIhiH", 0, 0, 23, 4, -1, 1)),
    )
)
"""ParseComplete, ParameterDescription and RowDescription of `select 1`."""
BEGUN = message("C", b"BEGIN\0") + message("Z", b"T")
THE_ROW = message("2") + message("D", struct.pack("!HII", 1, 4, 1)) + message("C", b"SELECT 1\0") + message("Z", b"T")


async def ask(server: Server, mode: str, parameters: str = "", **more: Any) -> Any:
    secret = {} if mode == "handshake" else {"password": "secret"}
    address = f"postgresql://probe@{server.address}/app{parameters}"
    return await probe("postgres", **({"dsn": address, "mode": mode, **secret} | more))


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An error that never ends: each byte comes in time for the next read."""
    for byte in error("28P01", "x" * 10_000):
        writer.write(bytes((byte,)))
        await writer.drain()
        await asyncio.sleep(0.02)


async def reset_now(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reset(writer)


# --- before a StartupMessage ---


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (silent, "login/timeout"),
        (closing, "login/closed or login/reset"),  # the SSLRequest may come before or after the end
        (closing_when_spoken_to, "login/closed"),
        (resetting, "login/reset"),
        (http_only, "login/protocol_error"),
        (greeting, "login/protocol_error"),
        (flooding, "login/protocol_error"),
        (lambda: closing_when_spoken_to(b"ERROR\r\n"), "login/protocol_error"),
        (lambda: closing_when_spoken_to(b"S" + b"E\0\0\0\x10injected"), "login/protocol_error"),
        (lambda: closing_when_spoken_to(b"N" + message("R", AUTHENTICATION_OK)), "login/protocol_error"),
        (
            lambda: closing_when_spoken_to(error("53300", "sorry, too many clients already")),
            "login/too_many_connections",
        ),
        (lambda: closing_when_spoken_to(error("57P03", "the database system is starting up")), "login/server_starting"),
        (
            lambda: closing_when_spoken_to(b"Ecould not fork new process for connection: Cannot allocate memory\n\0"),
            "login/too_many_connections",
        ),
        (lambda: closing_when_spoken_to(b"E\0\0\1\0cut short"), "login/closed"),
        # What comes later than the S is a broken handshake by then.
        (lambda: segmented([b"S", b"more"]), "tls/timeout or tls/not_tls"),
        (lambda: upgrading(None), "tls/timeout"),
        (lambda: closing_when_spoken_to(b"S"), "tls/closed"),
    ],
)
async def test_a_peer_that_goes_wrong_at_ssl_request(mode: str, server: Any, expected: str) -> None:
    """The round trip of SSLRequest is part of the login."""
    async with server() as peer:
        outcome = await ask(peer, mode, timeout_seconds=0.5)
    assert verdict(outcome) in expected.split(" or ")
    assert outcome.phases.keys() <= {Phase.CONNECT, Phase.LOGIN, Phase.TLS}


async def test_nothing_listens() -> None:
    outcome = await probe("postgres", dsn=f"postgresql://probe@127.0.0.1:{refusing_port()}/app")
    assert verdict(outcome) == "connect/refused"
    assert list(outcome.phases) == [Phase.CONNECT]


# --- during the login ---


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((), "login/timeout"),
        ((drip,), "login/timeout"),
        ((reset_now,), "login/reset"),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "login/protocol_error"),
        ((message("R", b""),), "login/protocol_error"),
        ((struct.pack("!cI", b"R", 3),), "login/protocol_error"),
        ((struct.pack("!cI", b"R", 30_001),), "login/protocol_error"),
        ((struct.pack("!cI", b"R", 0xFFFFFFFF),), "login/protocol_error"),
        ((message("D", struct.pack("!H", 0)),), "login/protocol_error"),
        ((message("E", b"nonsense\0\0"),), "login/protocol_error"),
        ((message("E", b""),), "login/protocol_error"),
        (
            (b"Ecould not fork new process for connection: Resource temporarily unavailable\0",),
            "login/too_many_connections",
        ),
        ((error("28000", "go away"),), "login/access_denied"),
        ((error("28P01", "password authentication failed"),), "login/credentials_rejected"),
        ((error("3D000", 'database "app" does not exist'),), "login/database_not_found"),
        ((error("53300", "sorry, too many clients already"),), "login/too_many_connections"),
        ((error("53200", "out of memory"),), "login/too_many_connections"),
        ((error("57P03", "the database system is shutting down"),), "login/server_starting"),
        ((error("57P01", "terminating connection due to administrator command"),), "login/closed"),
        ((error("57014", "canceling authentication due to timeout"),), "login/timeout"),
        ((error("0A000", "unsupported frontend protocol 3.0: server supports 1.0 to 2.0"),), "login/protocol_error"),
        ((error("08P01", "expected password response, got message type 88"),), "login/protocol_error"),
        ((error("08P01", "no such user: probe"),), "login/credentials_rejected"),
        ((error("08P01", "SSL required"),), "login/tls_required"),
        ((error("08P01", "server login has been failing, cannot connect"),), "login/server_starting"),
        ((error("42501", 'permission denied for database "app"'),), "login/access_denied"),
        ((error("XX000", "Tenant or user not found"),), "login/access_denied"),
        ((error("ZZZZZ", "an error of the future"),), "login/access_denied"),
    ],
)
async def test_a_server_that_goes_wrong_at_the_startup_message(mode: str, steps: Any, expected: str) -> None:
    async with speaking(*steps) as peer:
        outcome = await ask(peer, mode, timeout_seconds=0.5)
    assert verdict(outcome) == expected
    assert list(outcome.phases) == [Phase.CONNECT, Phase.LOGIN]


@pytest.mark.parametrize("mode", MODES)
async def test_a_server_that_hangs_up_at_the_startup_message(mode: str) -> None:
    async with speaking(b"", hang_up=True) as peer:
        assert verdict(await ask(peer, mode)) == "login/closed"


@pytest.mark.parametrize("mode", MODES)
async def test_an_encrypted_server_that_hangs_up_at_the_startup_message(mode: str, certificates: Certificates) -> None:
    async with speaking(b"", ssl_answer=b"S", tls=certificates.good.server_context(), hang_up=True) as peer:
        assert verdict(await ask(peer, mode)) == "login/closed"


@pytest.mark.parametrize("mode", MODES)
async def test_what_may_come_before_the_demand_for_credentials_is_passed_over(mode: str) -> None:
    """NegotiateProtocolVersion of a server that knows less, notices, and parameters, in pieces of a byte each."""
    opening = message("v", struct.pack("!II", 0, 0)) + message("N", b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0")

    async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in opening + logged_in():
            writer.write(bytes((byte,)))
            await writer.drain()

    async with speaking(in_pieces, BEGUN, ONE_ROW, THE_ROW) as peer:
        outcome = await ask(peer, mode, timeout_seconds=10)
    assert verdict(outcome) == "success", outcome.failure
    assert outcome.facts[Fact.AUTHENTICATION] == "none"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # The demand for credentials is all a handshake wants, and no login can satisfy these.
        ((message("R", struct.pack("!I", 7)),), "login/access_denied"),
        ((message("R", struct.pack("!I", 9)),), "login/access_denied"),
        ((message("R", struct.pack("!I", 2)),), "login/access_denied"),
        ((message("R", struct.pack("!I", 99)),), "login/access_denied"),
        ((message("R", struct.pack("!I", 10) + b"OAUTHBEARER\0\0"),), "login/access_denied"),
        # Somebody who does not know the password pretends to.
        (
            (
                message("R", ASK_SCRAM),
                message("R", struct.pack("!I", 11) + b"r=not-ours,s=c2FsdA==,i=4096"),
            ),
            "login/protocol_error",
        ),
        ((message("R", ASK_SCRAM), message("R", struct.pack("!I", 11) + b"nonsense")), "login/protocol_error"),
        ((message("R", ASK_SCRAM), message("R", struct.pack("!I", 12) + b"v=bm9uc2Vuc2U=")), "login/protocol_error"),
        # Let in, but to what?
        ((message("R", AUTHENTICATION_OK) + message("Z", b"I"),), "login/protocol_error"),
        ((logged_in("a version of the future"),), "login/protocol_error"),
        ((message("R", AUTHENTICATION_OK) + message("S", b"nonsense"),), "login/protocol_error"),
        ((message("R", AUTHENTICATION_OK) + message("K", b"") + parameter("server_version", "15"),), "login/timeout"),
        ((message("R", AUTHENTICATION_OK) + error("3D000", "no such"),), "login/database_not_found"),
    ],
)
async def test_a_server_that_goes_wrong_after_it_asked_for_credentials(steps: Any, expected: str) -> None:
    async with speaking(*steps) as peer:
        outcome = await ask(peer, "login", timeout_seconds=0.5)
        assert verdict(outcome) == expected, outcome.failure
    async with speaking(*steps) as peer:
        assert verdict(await ask(peer, "handshake", timeout_seconds=0.5)) == "success"


@pytest.mark.parametrize(
    ("version", "seen"),
    [
        ("", "''"),
        ("a version of the future", "'a version of the future'"),
        ("\N{SUPERSCRIPT TWO}", "'\N{SUPERSCRIPT TWO}'"),
        ("9" * 5000, f"'{'9' * 60}…'"),
        ("9." + "9" * 5000, f"'9.{'9' * 58}…'"),
    ],
    ids=["empty", "no number", "no number of asyncpg's", "too long for an int", "a long second part"],
)
async def test_a_version_that_is_none_is_quoted(version: str, seen: str) -> None:
    async with speaking(logged_in(version)) as peer:
        outcome = await ask(peer, "login")
    assert verdict(outcome) == "login/protocol_error"
    assert outcome.failure is not None
    assert outcome.failure.detail == f"expected the server to tell a version such as 15.4, got {seen}"


async def test_any_version_of_a_server_that_has_one_is_shown() -> None:
    async def ask_one(version: str) -> None:
        async with speaking(logged_in(version)) as peer:
            outcome = await ask(peer, "login")
        assert verdict(outcome) == "success", outcome.failure
        assert outcome.facts[Fact.SERVER_VERSION] == version

    versions = ("15.18 (Debian 15.18-0+deb12u1)", "19beta1", "8.0.2", "PostgreSQL 12.3", "14.")
    await asyncio.gather(*map(ask_one, versions))


_LONG = "x" * 20_000


@pytest.mark.parametrize(
    ("mode", "steps", "fact"),
    [
        ("login", (logged_in(f"15.4 ({_LONG})"),), Fact.SERVER_VERSION),
        ("handshake", (message("R", struct.pack("!I", 10) + _LONG.encode() + b"\0\0"),), Fact.AUTHENTICATION),
        ("login", (message("R", struct.pack("!I", 10) + _LONG.encode() + b"\0\0"),), Fact.AUTHENTICATION),
        ("login", (error("28000" + _LONG, "no"),), Fact.SQLSTATE),
        ("login", (error("28000", _LONG),), Fact.UNENCRYPTED_REFUSAL),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_no_server_makes_a_fact_as_long_as_it_likes(mode: str, steps: Any, fact: Fact) -> None:
    async with speaking(*steps) as peer:
        outcome = await ask(peer, mode, "?sslmode=allow")
    assert len(outcome.facts[fact]) == DETAIL_LIMIT


async def test_a_password_that_is_asked_for_in_the_clear_is_given_and_that_is_shown() -> None:
    """As by libpq: what would happen to a task is what is to be found out. The facts say how."""
    got: list[bytes] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(message("R", struct.pack("!I", 3)))
        got.append(await reader.read(65536))
        writer.write(logged_in())

    async with speaking(receive) as peer:
        outcome = await ask(peer, "login", "?sslmode=disable")
    assert verdict(outcome) == "success"
    assert got == [message("p", b"secret\0")]
    assert outcome.facts[Fact.AUTHENTICATION] == "password"
    assert Fact.TLS_VERSION not in outcome.facts


# --- during the query ---


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((), "request/timeout"),
        ((reset_now,), "request/reset"),
        ((error("57P01", "terminating connection due to administrator command"), b""), "request/timeout"),
        ((BEGUN, ONE_ROW, THE_ROW), "success"),
        ((BEGUN, ONE_ROW), "request/timeout"),
        ((BEGUN, ONE_ROW, reset_now), "request/reset"),
        ((BEGUN, error("42601", "syntax error", "ERROR") + message("Z", b"E")), "verify/query_failed"),
        ((BEGUN, error("ZZZZZ", "an error of the future", "ERROR"), message("Z", b"E")), "verify/query_failed"),
        ((BEGUN, ONE_ROW, message("2") + message("D", b"\0\1\0\0") + message("Z", b"T")), "request/protocol_error"),
        # asyncpg would turn in circles over these, and the agent with it.
        ((BEGUN, message("\0") + THE_ROW), "request/protocol_error"),
        ((BEGUN, ONE_ROW, message("2") + struct.pack("!cI", b"D", 0) + THE_ROW), "request/protocol_error"),
    ],
)
async def test_a_server_that_goes_wrong_at_the_query(steps: Any, expected: str) -> None:
    async with speaking(logged_in(), *steps) as peer:
        outcome = await ask(peer, "query", timeout_seconds=0.5)
    assert verdict(outcome) == expected, outcome.failure


@pytest.mark.parametrize(
    ("last_words", "expected"),
    [
        (b"", "request/closed"),
        (error("57P01", "terminating connection due to administrator command"), "request/closed"),
        (error("57P02", "terminating connection because of crash of another server process"), "request/closed"),
        (error("57P05", "terminating connection due to idle-session timeout"), "request/closed"),
        (error("25P03", "terminating connection due to idle-in-transaction timeout"), "request/closed"),
        (error("25P04", "terminating connection due to transaction timeout"), "request/timeout"),
        (error("08P01", "query_wait_timeout"), "request/timeout"),
        (error("08P01", "server conn crashed?"), "request/closed"),
    ],
)
async def test_a_server_that_hangs_up_at_the_query(last_words: bytes, expected: str) -> None:
    async with speaking(logged_in(), last_words, hang_up=True) as peer:
        outcome = await ask(peer, "query")
    assert verdict(outcome) == expected, outcome.failure
    assert (Fact.SQLSTATE in outcome.facts) is bool(last_words)


async def test_an_answer_without_an_end_is_cut_off() -> None:
    async def rows(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        row = message("D", struct.pack("!HII", 1, 4, 1))
        while True:
            writer.write(row * 1000)
            await writer.drain()

    async with speaking(logged_in(), BEGUN, ONE_ROW, rows) as peer:
        assert verdict(await ask(peer, "query")) == "transfer/too_large"


async def test_a_message_that_promises_a_gigabyte_is_not_waited_for_in_memory() -> None:
    """It never ends, and no more of it than the limit is kept."""

    async def huge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(struct.pack("!cI", b"D", 1 << 30))
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with speaking(logged_in(), BEGUN, ONE_ROW, huge) as peer:
        assert verdict(await ask(peer, "query")) == "transfer/too_large"


async def test_a_server_that_does_not_know_the_question_is_not_asked_whether_it_is_in_recovery() -> None:
    """Redshift says it is 8.0.2, and has no such function."""
    async with speaking(logged_in("8.0.2", in_recovery=None), BEGUN, ONE_ROW, THE_ROW) as peer:
        outcome = await ask(peer, "query")
    assert verdict(outcome) == "success"
    assert Fact.IN_RECOVERY not in outcome.facts


# --- anything at all ---


def _damaged(conversation: list[bytes], dice: random.Random) -> list[bytes]:
    """The conversation with a few bytes of one part changed, and perhaps the end of it cut off."""
    victim = dice.randrange(len(conversation))
    changed = bytearray(conversation[victim])
    for _ in range(dice.choice((1, 1, 2, 5))):
        changed[dice.randrange(len(changed))] = dice.choice((0, 1, 0x7F, 0xFF, dice.randrange(256)))
    cut = dice.choice((len(changed), len(changed), dice.randrange(len(changed))))
    return [*conversation[:victim], bytes(changed[:cut]), *conversation[victim + 1 :]]


async def test_no_bytes_of_a_server_are_a_defect_of_ours() -> None:
    """A good conversation is damaged, 500 times: whatever comes of it, a reason is known for it."""
    dice = random.Random(20261122)
    conversations = iter([_damaged([logged_in(), BEGUN, ONE_ROW, THE_ROW], dice) for _ in range(500)])
    seen = set()

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not (await read_startup(reader)).startswith(CANCEL_REQUEST):
            await say(next(conversations), reader, writer, hang_up=True)

    async with Server(conversation) as server:
        prober = PostgresProber()
        address = f"postgresql://probe@{server.address}/app?sslmode=disable"
        asked = target("postgres", dsn=address, mode="query", timeout_seconds=0.5)

        async def one() -> None:
            outcome = await run(prober, asked)
            assert outcome.failure is None or outcome.failure.reason != "internal", outcome.failure
            seen.add(verdict(outcome))

        await repeat(500, one, at_once=25)
        await prober.aclose()
    assert {"login/protocol_error", "request/protocol_error", "request/timeout", "request/closed"} <= seen


@pytest.mark.parametrize("reason", ["silent", "closing", "resetting"])
async def test_a_peer_that_never_said_a_word_was_not_reached(reason: str) -> None:
    """A mesh accepts every connection and drops the forbidden ones."""
    peers: dict[str, Callable[[], Server]] = {"silent": silent, "closing": closing, "resetting": resetting}
    async with peers[reason]() as peer:
        outcome = await ask(peer, "handshake", negative=True, timeout_seconds=0.5)
    assert verdict(outcome) == "success"
    assert outcome.facts[Fact.BLOCKED_BY].startswith("login/")


@pytest.mark.parametrize("word", [b"N", b"S", error("57P01", "shutting down"), b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_peer_that_said_a_word_was_reached(word: bytes) -> None:
    async with closing_when_spoken_to(word) as peer:
        outcome = await ask(peer, "handshake", negative=True, timeout_seconds=0.5)
    assert verdict(outcome) == "verify/unexpected_success"
