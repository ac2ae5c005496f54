"""What comes and goes, is slow or was not ready; and netprobe's own troubles, which say nothing about the network."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agent.diagnosis import History, Snapshot, diagnose
from agent.model import Fact, Outcome, Phase, Target
from tests.diagnosis.networks import (
    BROKER,
    DATABASE,
    FIRST,
    FORBIDDEN,
    HOOKS,
    POD,
    SHOP,
    SIDECAR,
    WAREHOUSE,
    WEB,
    WIKI,
    attempts,
    fails,
    question,
    run,
    runs,
    seen,
    tables,
    works,
)
from tests.diagnosis.seen import NOW, Said, said, texts

OK, SILENT = "ok", "connect/timeout"
RESENT = {Fact.RETRANSMITTED_SEGMENTS: 1}
STARVED = {Fact.STARVED: True, Fact.EVENT_LOOP_LAG_SECONDS: 3.0}
A_LITTLE = {Fact.STARVED: True, Fact.EVENT_LOOP_LAG_SECONDS: 0.12}
"""Of five seconds."""


def spaced(probed: Target[Any], *facts: Any, apart: float = 4.0) -> History:
    """Successes, the newest first, with these facts."""
    return History(probed, tuple(run(probed, at=NOW - apart * n, facts=known) for n, known in enumerate(facts)))


def took(probed: Target[Any], *seconds: float, facts: Any = None) -> History:
    """Successes that took so long, most of it for the request."""
    return History(
        probed,
        tuple(
            run(probed, at=NOW - 10.0 * n, facts=facts, phases={Phase.CONNECT: 0.001, Phase.REQUEST: amount})
            for n, amount in enumerate(seconds)
        ),
    )


def late_start(probed: Target[Any], *ended: str, age: float = 20.0, how: str = SILENT) -> History:
    """A pod's first runs, the newest first, every two seconds from its start on."""
    outcomes = tuple(
        run(probed, how if end == "failed" else end, at=NOW + 2.0 - age + 2.0 * n)
        for n, end in enumerate(reversed(ended))
    )
    return History(probed, tuple(reversed(outcomes)), first=outcomes[0])


def young(*histories: History, age: float = 20.0, **keys: Any) -> Snapshot:
    return seen(*histories, pod=dataclasses.replace(POD, started_at=NOW + 2.0 - age), **keys)


LOSS: dict[str, tuple[Snapshot, Said]] = {
    "two targets send again, time and again": (
        seen(spaced(SHOP, RESENT, None, RESENT, RESENT), spaced(HOOKS, RESENT, RESENT, None), *works(DATABASE)),
        {("packet_loss", "medium", ("shop", "hooks"))},
    ),
    "and one of them failed": (
        seen(
            spaced(SHOP, RESENT, RESENT, None, RESENT, RESENT),
            History(HOOKS, (run(HOOKS, "tls/timeout"), *spaced(HOOKS, RESENT, RESENT, None).outcomes)),
            *works(DATABASE),
        ),
        {("packet_loss", "high", ("shop", "hooks"))},
    ),
    "at one moment only: the end of an outage": (
        seen(spaced(SHOP, RESENT, None, None), spaced(HOOKS, RESENT, None, None), spaced(WIKI, RESENT, None, None)),
        set(),
    ),
    "now and then, as any network does": (
        seen(spaced(SHOP, RESENT, *[None] * 9, apart=2.0), spaced(HOOKS, None, None, RESENT, None, None, None)),
        set(),
    ),
    "lookups alone lose something": (
        seen(
            spaced(
                SHOP,
                *[
                    attempts(
                        question("shop.example.net", FIRST, "NOERROR"),
                        question("shop.example.net", FIRST, record="AAAA"),
                        question("shop.example.net", FIRST, "NOERROR", record="AAAA"),
                    )
                ]
                * 4,
            )
        ),
        {("dns_slow", "high", ("shop",))},
    ),
    "three failures in a row are no chance": (
        seen(
            spaced(SHOP, RESENT, RESENT, RESENT, RESENT),
            runs(HOOKS, SILENT, SILENT, SILENT, OK),
        ),
        {("packet_loss", "medium", ("shop",)), ("target_blocked", "medium", ("hooks",))},
    ),
    "a long time ago": (
        seen(
            History(SHOP, tuple(run(SHOP, at=NOW - 300 - 5 * n, facts=RESENT) for n in range(5))),
            *works(DATABASE),
        ),
        set(),
    ),
    "within a starved run": (
        seen(spaced(SHOP, *[{**RESENT, **A_LITTLE}] * 5), *works(DATABASE)),
        set(),
    ),
}

FLAPPING: dict[str, tuple[Snapshot, Said]] = {
    "by turns, and failing now": (
        seen(runs(HOOKS, SILENT, OK, SILENT, OK, SILENT), *works(SHOP)),
        {("flapping", "high", ("hooks",))},
    ),
    "by turns, and answering now": (
        seen(runs(HOOKS, OK, SILENT, OK, SILENT), *works(SHOP)),
        {("flapping", "medium", ("hooks",))},
    ),
    "one outage is no flapping": (
        seen(runs(HOOKS, OK, SILENT, SILENT, OK), *works(SHOP)),
        set(),
    ),
    "a server that fails by turns was reached": (
        seen(runs(HOOKS, "verify/unexpected_status", OK, "verify/unexpected_status", OK), *works(SHOP)),
        {("wrong_content", "medium", ("hooks",))},
    ),
    "what must not be reachable does not flap": (
        seen(runs(FORBIDDEN, OK, "resolve/timeout", OK, "resolve/timeout"), *works(SHOP)),
        set(),
    ),
    "netprobe was kept off the CPU": (
        seen(runs(HOOKS, OK, SILENT, OK, SILENT, facts=A_LITTLE), *works(SHOP)),
        set(),
    ),
}

SLOW: dict[str, tuple[Snapshot, Said]] = {
    "more than half of the timeout, twice": (
        seen(took(SHOP, 3.0, 2.8, 0.1), *works(DATABASE)),
        {("slow", "high", ("shop",))},
    ),
    "once": (seen(took(SHOP, 3.0, 0.1), *works(DATABASE)), set()),
    "slow but fine": (seen(took(SHOP, 1.5, 1.5, 1.5), *works(DATABASE)), set()),
    "netprobe was kept off the CPU": (seen(took(SHOP, 3.0, 3.0, facts=A_LITTLE), *works(DATABASE)), set()),
    "silence that is wanted takes its time": (
        seen(took(FORBIDDEN, 4.9, 4.9), *works(DATABASE)),
        set(),
    ),
}

READY: dict[str, tuple[Snapshot, Said]] = {
    "all failed at first, and none since": (
        young(
            late_start(SHOP, OK, OK, OK, "failed", "failed"),
            late_start(DATABASE, OK, OK, OK, OK, "failed"),
            late_start(BROKER, OK, OK, OK, "failed", "failed"),
        ),
        {("network_not_ready", "high", ("shop", "database", "broker"))},
    ),
    "a pod that is not young any more": (
        young(late_start(SHOP, OK, "failed", age=400.0), late_start(DATABASE, OK, "failed", age=400.0), age=400.0),
        set(),
    ),
    "one target alone": (
        young(late_start(SHOP, OK, OK, "failed"), *works(DATABASE, BROKER)),
        set(),
    ),
    "two of five, all that is private": (
        young(
            late_start(WAREHOUSE, OK, OK, "failed"),
            late_start(WIKI, OK, OK, "failed"),
            late_start(SHOP, OK, OK, OK),
            late_start(DATABASE, OK, OK, OK),
            late_start(BROKER, OK, OK, OK),
        ),
        {("network_not_ready", "medium", ("warehouse", "wiki"))},
    ),
    "two of five, of different kinds": (
        young(
            late_start(WAREHOUSE, OK, OK, "failed"),
            late_start(SHOP, OK, OK, "failed"),
            late_start(WIKI, OK, OK, OK),
            late_start(HOOKS, OK, OK, OK),
            late_start(BROKER, OK, OK, OK),
        ),
        set(),
    ),
    "it worked before it failed": (
        young(late_start(SHOP, OK, OK, "failed", OK), late_start(DATABASE, OK, OK, "failed", OK)),
        set(),
    ),
    "it fails still": (
        young(late_start(SHOP, SILENT, "failed", "failed"), late_start(DATABASE, OK, OK, "failed", "failed")),
        {("egress_blocked", "medium", ("shop",))},
    ),
    "it failed for reasons of its own": (
        young(
            late_start(SHOP, OK, "failed", how="verify/unexpected_status"),
            late_start(DATABASE, OK, "failed", how="login/credentials_rejected"),
        ),
        set(),
    ),
    "its first run is forgotten but for what the memory keeps of it": (
        young(
            *(
                dataclasses.replace(
                    runs(one, *[OK] * 10),
                    first=run(one, SILENT, at=NOW - 58.0),
                    earlier_failures=(run(one, SILENT, at=NOW - 56.0), run(one, SILENT, at=NOW - 58.0)),
                )
                for one in (SHOP, DATABASE, BROKER)
            ),
            age=60.5,
        ),
        {("network_not_ready", "high", ("shop", "database", "broker"))},
    ),
    "its first run is forgotten, and was well": (
        young(
            *(
                dataclasses.replace(
                    runs(one, *[OK] * 10),
                    first=run(one, OK, at=NOW - 58.0),
                    earlier_failures=(run(one, SILENT, at=NOW - 56.0),),
                )
                for one in (SHOP, DATABASE, BROKER)
            ),
            age=60.5,
        ),
        set(),
    ),
}


def starved(probed: Target[Any], *ended: str, facts: Any = None) -> History:
    return runs(probed, *ended, facts=STARVED if facts is None else facts)


OWN: dict[str, tuple[Snapshot, Said]] = {
    "kept off the CPU": (
        seen(starved(SHOP, "tls/timeout", OK), starved(DATABASE, "login/timeout", OK), lag_seconds=3.0),
        {("prober_starved", "high", ("shop", "database"))},
    ),
    "kept off the CPU once": (
        seen(starved(SHOP, "tls/timeout", OK), *works(DATABASE), lag_seconds=3.0),
        {("prober_starved", "medium", ("shop",))},
    ),
    "throttled, a little at a time": (
        seen(starved(SHOP, "tls/timeout", "tls/timeout", facts=A_LITTLE), throttled_share=0.6),
        {("prober_starved", "high", ("shop",))},
    ),
    "a minute after": (
        seen(starved(SHOP, OK, "tls/timeout", OK), *works(DATABASE), lag_seconds=3.0),
        {("prober_starved", "medium", ("shop",))},
    ),
    "a little late, and the target is silent": (
        seen(starved(HOOKS, SILENT, SILENT, OK, facts=A_LITTLE), *works(SHOP)),
        {("target_blocked", "medium", ("hooks",))},
    ),
    "silent also with CPU enough": (
        seen(
            History(HOOKS, (run(HOOKS, SILENT, facts=STARVED), run(HOOKS, SILENT, at=NOW - 2), run(HOOKS, at=NOW - 4))),
            *works(SHOP),
        ),
        {("target_blocked", "medium", ("hooks",))},
    ),
    "an answer is an answer, however late": (
        seen(starved(SHOP, "verify/unexpected_status", "verify/unexpected_status"), *works(DATABASE)),
        {("wrong_content", "high", ("shop",))},
    ),
    "a file that cannot be read": (
        seen(fails(SHOP, "request/internal"), *works(DATABASE)),
        {("probe_misconfigured", "high", ("shop",))},
    ),
    "a defect, seen once": (
        seen(fails(SHOP, "connect/internal", times=1), *works(DATABASE)),
        {("probe_misconfigured", "medium", ("shop",))},
    ),
    "a certificate file that cannot be used: no handshake was begun": (
        seen(
            History(
                SHOP,
                tuple(
                    dataclasses.replace(
                        run(SHOP, "tls/certificate_untrusted", at=NOW - 2.0 * n), phases={Phase.CONNECT: 0.001}
                    )
                    for n in range(2)
                ),
            ),
            *works(DATABASE),
        ),
        {("probe_misconfigured", "high", ("shop",))},
    ),
    "nothing is wrong": (seen(*works(SHOP, DATABASE, WEB, SIDECAR, FORBIDDEN), asked=[tables()]), set()),
    "kept off the CPU, and nothing failed": (
        seen(runs(SHOP, OK, OK, facts=STARVED), lag_seconds=3.0, throttled_share=0.9),
        set(),
    ),
    "no run has ended yet": (seen(History(SHOP, ())), set()),
}

TABLES = {"loss": LOSS, "flapping": FLAPPING, "slow": SLOW, "ready": READY, "own": OWN}
TABLE = {f"{kind}: {name}": row for kind, table in TABLES.items() for name, row in table.items()}


@pytest.mark.parametrize("name", TABLE)
def test_what_comes_and_goes(name: str) -> None:
    snapshot, expected = TABLE[name]
    assert said(snapshot) == expected, texts(snapshot)


@pytest.mark.parametrize("name", TABLE)
def test_sentences_are_whole(name: str) -> None:
    for verdict in diagnose(TABLE[name][0]).verdicts:
        assert "…" not in verdict.summary
        assert verdict.summary.endswith(".")
        assert verdict.evidence


def test_a_verdict_about_losses_has_the_kernels_figures() -> None:
    late: Outcome = dataclasses.replace(run(SHOP, facts=RESENT), phases={Phase.CONNECT: 1.03})
    snapshot = seen(
        History(SHOP, (late, *spaced(SHOP, None, RESENT, RESENT, RESENT).outcomes)),
        asked=[tables()],
    )
    text = texts(snapshot)
    assert "4 of the last 5 runs of shop succeeded only after something was sent again: 4 TCP segments" in text
    assert "shop connected after 1.03 s: Linux sends a lost SYN again after 1 s" in text


def test_slow_says_in_which_phase() -> None:
    assert "most of it in request (3.00 s)" in texts(SLOW["more than half of the timeout, twice"][0])
