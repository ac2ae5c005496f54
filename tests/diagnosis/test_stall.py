"""Silence after a connection: path MTU where small segments help, the server where they do not."""

from __future__ import annotations

import pytest

from agent.diagnosis import Snapshot, plan
from agent.diagnosis.experiment import Exchanged, SmallSegments
from agent.model import Failure, Phase, Reason, Scope
from tests.diagnosis.seen import Said, experiment, failing, http, postgres, said, snapshot, tcp, texts, working

API = http("api", "https://api.example.com/health")
SHOP = http("shop", "https://shop.example.net/")
DATABASE = postgres("database", "postgresql://probe@db:5432/app")
WEB = http("web", "http://web/", scope=Scope.CLUSTER)
PING = tcp("ping", "broker:6379")

WORKED = Exchanged(None, 0.02)
SILENT = Exchanged(Failure(phase=Phase.TLS, reason=Reason.TIMEOUT, detail="expected x, got no answer"), 1.5)
ANSWERED = Exchanged(Failure(phase=Phase.VERIFY, reason=Reason.UNEXPECTED_STATUS, detail="expected 2xx, got 404"), 0.1)

TABLE: dict[str, tuple[Snapshot, Said]] = {
    "silence in the handshake": (
        snapshot(failing(API, "tls/timeout"), working(WEB)),
        {("stalled_after_connect", "medium", ("api",))},
    ),
    "seen once": (
        snapshot(failing(API, "tls/timeout", times=1), working(WEB)),
        {("stalled_after_connect", "low", ("api",))},
    ),
    "small segments get through": (
        snapshot(failing(API, "tls/timeout", times=1), experiments=[experiment(SmallSegments("api"), WORKED, "api")]),
        {("stalled_after_connect", "high", ("api",))},
    ),
    "small segments get further": (
        snapshot(failing(API, "tls/timeout"), experiments=[experiment(SmallSegments("api"), ANSWERED, "api")]),
        {("stalled_after_connect", "high", ("api",))},
    ),
    "small segments do not help": (
        snapshot(failing(API, "tls/timeout"), experiments=[experiment(SmallSegments("api"), SILENT, "api")]),
        {("stalled_after_connect", "medium", ("api",))},
    ),
    "one was asked again, the other stalls alike": (
        snapshot(
            failing(API, "tls/timeout"),
            failing(SHOP, "tls/timeout"),
            experiments=[experiment(SmallSegments("api"), WORKED, "api")],
        ),
        {("stalled_after_connect", "high", ("api", "shop"))},
    ),
    "one loses large packets, the other is silent": (
        snapshot(
            failing(API, "tls/timeout"),
            failing(SHOP, "tls/timeout"),
            experiments=[
                experiment(SmallSegments("api"), WORKED, "api"),
                experiment(SmallSegments("shop"), SILENT, "shop"),
            ],
        ),
        {("stalled_after_connect", "high", ("api",)), ("stalled_after_connect", "medium", ("shop",))},
    ),
    "small segments of a target that does not stall tell nothing": (
        snapshot(
            failing(API, "tls/certificate_expired"), experiments=[experiment(SmallSegments("api"), WORKED, "api")]
        ),
        {("tls_certificate", "high", ("api",))},
    ),
    "silence in the middle of an answer": (
        snapshot(failing(WEB, "transfer/timeout"), working(API)),
        {("stalled_after_connect", "medium", ("web",))},
    ),
    "silence of a database": (
        snapshot(failing(DATABASE, "login/timeout"), working(API)),
        {("stalled_after_connect", "medium", ("database",))},
    ),
    "a server that answers too late to what was asked": (
        snapshot(failing(WEB, "request/timeout"), working(API)),
        {("stalled_after_connect", "medium", ("web",))},
    ),
}


@pytest.mark.parametrize("row", TABLE)
def test_verdicts(row: str) -> None:
    seen, expected = TABLE[row]
    assert said(seen) == expected


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("silence in the handshake", ("path MTU", "to the TLS handshake")),
        ("small segments get through", ("536 bytes took 20 ms and succeeded", "ping -M do", "--clamp-mss-to-pmtu")),
        ("small segments get further", ("got as far as verify",)),
        ("small segments do not help", ("the path MTU is no suspect", "tls/timeout after 1.50 s")),
        ("silence of a database", ("db:5432 accepts connections and then says nothing to the login",)),
    ],
)
def test_words(row: str, words: tuple[str, ...]) -> None:
    seen = texts(TABLE[row][0])
    assert [word for word in words if word not in seen] == []


def test_one_target_of_each_host_is_asked_again_with_small_segments() -> None:
    again = http("again", "https://api.example.com/other")
    seen = snapshot(failing(API, "tls/timeout"), failing(again, "tls/timeout"), failing(SHOP, "tls/timeout"))
    asked = [one for one in plan(seen) if isinstance(one.question, SmallSegments)]
    assert [(one.question, one.targets) for one in asked] == [
        (SmallSegments("api"), ("api",)),
        (SmallSegments("shop"), ("shop",)),
    ]


def test_a_request_with_a_body_is_not_sent_again() -> None:
    """The server may have carried it out."""
    order = http("order", "https://api.example.com/orders", method="POST", body="{}")
    asked = plan(snapshot(failing(order, "request/timeout")))
    assert not [one for one in asked if isinstance(one.question, SmallSegments)]


def test_who_never_connected_is_not_asked_again() -> None:
    seen = snapshot(failing(API, "connect/timeout"), failing(PING, "tls/certificate_expired"))
    assert not [one for one in plan(seen) if isinstance(one.question, SmallSegments)]
