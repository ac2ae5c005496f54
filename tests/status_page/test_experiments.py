"""Experiments in words: every kind of question, and every way in which it can be answered."""

from __future__ import annotations

import time
from typing import get_args

import pytest

from agent.diagnosis import Diagnosis
from agent.diagnosis.document import document, experiment_document
from agent.diagnosis.experiment import (
    Answer,
    Clock,
    Connect,
    Connected,
    Exchanged,
    Experiment,
    Gateway,
    LocalNetwork,
    LocalTables,
    Looked,
    Lookup,
    Mesh,
    MeshProxy,
    Question,
    ServerClock,
    SmallSegments,
)
from agent.model import Failure, Phase, Reason
from agent.status_page.experiments import EXPERIMENTS_BYTES, WORDS, experiments_section, in_words

LOOKUP = Lookup(name="db.example.com", record="A", server="10.96.0.10", transport="tcp")
REFUSED = Failure(phase=Phase.CONNECT, reason=Reason.REFUSED, detail="expected a connection, got: refused")
TABLES = LocalTables(
    gateways=(), unrouted=(), global_ipv6=False, sent_segments=0, retransmitted_segments=0, default_routes=None
)
FULL = LocalTables(
    gateways=(
        Gateway("10.0.0.1", resolved=True),
        Gateway("fe80::1", resolved=None),
        Gateway("10.0.0.2", resolved=False),
    ),
    unrouted=("192.0.2.1",),
    global_ipv6=True,
    sent_segments=300,
    retransmitted_segments=12,
    default_routes=(4, 6),
)
FULL_SAID = (
    "Gateway 10.0.0.1 has answered; gateway fe80::1 is not in the neighbour table; gateway 10.0.0.2 does not answer; "
    "default route for IPv4 and IPv6; no route to 192.0.2.1; 12 of 300 TCP segments sent again."
)
SAID: list[tuple[Question, Answer, str, str]] = [
    (
        LOOKUP,
        Looked("NOERROR", ("10.0.0.1", "10.0.0.2")),
        "What does 10.96.0.10 say to A of db.example.com, over tcp?",
        "NOERROR: 10.0.0.1, 10.0.0.2.",
    ),
    (LOOKUP, Looked("NXDOMAIN"), "over tcp?", "NXDOMAIN, without records."),
    (LOOKUP, Looked(None, error=Reason.TIMEOUT), "over tcp?", "No answer (timeout)."),
    (
        Connect("10.0.0.1", 5432),
        Connected(None, 0.0021),
        "Does 10.0.0.1:5432 take a connection?",
        "It does, in 2.1 ms.",
    ),
    (
        Connect("2001:db8::1", 443, hops=1),
        Connected(None, 0.1),
        "Does [2001:db8::1]:443 take a connection that passes no more than 1 hop?",
        "It does, in 100 ms.",
    ),
    (
        Connect("10.0.0.1", 5432),
        Connected(REFUSED, 0.001, rejected=True),
        "connection?",
        "connect/refused after 1.0 ms: expected a connection, got: refused. An ICMP message said so.",
    ),
    (
        Connect("10.0.0.1", 5432),
        Connected(REFUSED, 0.001, icmp="host unreachable", icmp_from="10.0.0.9"),
        "connection?",
        "refused. An ICMP message from 10.0.0.9 said: host unreachable.",
    ),
    (
        SmallSegments("api"),
        Exchanged(None, 0.5),
        "Does api answer where TCP segments are small?",
        "It does, in 500 ms.",
    ),
    (
        SmallSegments("api"),
        Exchanged(REFUSED, 0.5),
        "small?",
        "connect/refused after 500 ms: expected a connection, got: refused.",
    ),
    (ServerClock("api"), Clock(None), "What time is it for api?", "It does not tell."),
    (ServerClock("api"), Clock(1.0), "api?", "The same as here."),
    (ServerClock("api"), Clock(7200.0), "api?", "Its clock is 2 hours behind ours."),
    (ServerClock("api"), Clock(-90.0), "api?", "Its clock is 90 seconds ahead of ours."),
    (MeshProxy(), Mesh(None, None, ""), "Is the proxy of a mesh in this pod, and is it ready?", "None was found."),
    (MeshProxy(), Mesh("istio", False, "127.0.0.1:15021: 503"), "ready?", "istio, not ready: 127.0.0.1:15021: 503."),
    (MeshProxy(), Mesh("envoy", None, "open"), "ready?", "envoy, and does not tell whether it is ready: open."),
    (LocalNetwork(), TABLES, "What do this pod's own tables say?", "Nothing that stands out."),
    (
        LocalNetwork(),
        FULL,
        "say?",
        FULL_SAID,
    ),
]


def asked(question: Question, answer: Answer) -> Experiment:
    return Experiment(question=question, answer=answer, targets=("api",), started_at=time.time() - 30.0)


@pytest.mark.parametrize(("question", "answer", "words", "said"), SAID)
def test_each_is_said_in_a_sentence(question: Question, answer: Answer, words: str, said: str) -> None:
    one, other = in_words(experiment_document(asked(question, answer)))
    assert one.endswith(words)
    assert other.endswith(said)


def test_there_are_words_for_every_question() -> None:
    assert {type(row[0]) for row in SAID} == set(get_args(Question))
    kinds = {experiment_document(asked(row[0], row[1]))["question"]["kind"] for row in SAID}
    assert kinds == set(WORDS)


def test_there_may_be_many() -> None:
    """What is left out is counted."""
    many = [asked(LOOKUP, Looked("NOERROR", ("2001:db8::1",) * 40))] * 60
    whole = document(Diagnosis(), since=1.0, held_seconds=1.0, waiting=(), experiments=many, budget={})
    section = experiments_section(whole, time.time())
    shown = section.count("<dt>")
    assert 3 <= shown < 60
    assert f"And {60 - shown} more:" in section
    assert len(section) < EXPERIMENTS_BYTES + 500
    assert "30 seconds</time> ago, for <bdi>api</bdi>" in section
