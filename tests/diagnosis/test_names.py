"""Names that are not answered for, do not exist, or take long; and what looks alike and is something else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agent.diagnosis import History, Snapshot, diagnose, plan
from agent.diagnosis.experiment import Connect, LocalNetwork, Lookup
from agent.model import Fact, Phase, Scope
from tests.diagnosis.networks import (
    API_ANSWERS,
    API_SILENT,
    BROKER,
    DATABASE,
    FIRST,
    POD,
    SECOND,
    SHOP,
    WEB,
    WIKI,
    attempts,
    dns,
    fails,
    looks,
    question,
    run,
    runs,
    seen,
    unanswered,
    works,
)
from tests.diagnosis.seen import NOW, Said, http, said, tcp, texts

KUBERNETES = "kubernetes.default.svc.cluster.local"
SEARCHED = ("airflow.svc.cluster.local", "svc.cluster.local", "cluster.local")
BARE = http("bare", "http://ledger/", scope=Scope.CLUSTER)
LEDGER = http("ledger", "http://ledger.finance/")
IN_FULL = http("in-full", "http://ledger.finance.svc.cluster.local/", scope=Scope.CLUSTER)
ROOTED = http("rooted", "http://web.airflow.svc./", scope=Scope.CLUSTER)
LOOKUP = dns("lookup", "kubernetes.default.svc")
THEIRS = dns("theirs", "db.corp.internal", "10.60.0.53:53")
WITHOUT_SEARCH = dataclasses.replace(
    POD, resolver=dataclasses.replace(POD.resolver, search=()), namespace=None, cluster_domain=None
)
FOUND_IN_FINANCE = {Fact.DNS_NAME: "ledger.finance.svc.cluster.local", Fact.ADDRESS: "10.96.1.80:80"}


def walked(name: str, server: str = FIRST, rcode: str = "NXDOMAIN") -> dict[Fact, Any]:
    """One nameserver answered alike for every name of the walk."""
    return attempts(
        *(question(f"{name}.{domain}", server, rcode) for domain in SEARCHED), question(name, server, rcode)
    )


def first_silent(name: str, rcode: str | None = "NOERROR") -> dict[Fact, Any]:
    """The first nameserver let the lookup wait, and the second answered, if it had the time to."""
    return attempts(
        question(f"{name}.airflow.svc.cluster.local", FIRST),
        question(f"{name}.airflow.svc.cluster.local", SECOND, rcode),
    )


def retried(name: str) -> dict[Fact, Any]:
    """A question was lost, and answered when it was asked again."""
    return attempts(
        question(name, FIRST, "NOERROR"),
        question(name, FIRST, record="AAAA"),
        question(name, FIRST, "NOERROR", record="AAAA"),
    )


def slow_walk(name: str, seconds: float) -> dict[Fact, Any]:
    return attempts(
        *(
            question(full, FIRST, "NXDOMAIN", record=record, seconds=seconds)
            for full in (*(f"{name}.{domain}" for domain in SEARCHED), name)
            for record in ("A", "AAAA")
        )
    )


def looked_up(probed: Any, *took: float, facts: Any, apart: float = 6.0) -> History:
    """Runs that succeeded after lookups of so many seconds, the newest first."""
    return History(
        probed,
        tuple(
            run(probed, at=NOW - apart * n, facts=facts, phases={Phase.RESOLVE: seconds, Phase.CONNECT: 0.001})
            for n, seconds in enumerate(took)
        ),
    )


UNREACHABLE: dict[str, tuple[Snapshot, Said]] = {
    "nobody answers lookups, the Kubernetes API does": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net")),
            fails(DATABASE, "resolve/timeout", facts=unanswered("internal-database.airflow.svc.cluster.local")),
            asked=[API_ANSWERS],
        ),
        {("dns_unreachable", "high", ("shop", "database"))},
    ),
    "seen once, by one": (
        seen(
            fails(
                SHOP,
                "resolve/timeout",
                facts=attempts(question("shop.example.net", FIRST), question("shop.example.net", SECOND, seconds=0.5)),
                times=1,
            )
        ),
        {("dns_unreachable", "medium", ("shop",))},
    ),
    "questions are turned away": (
        seen(
            fails(SHOP, "resolve/unreachable", facts=unanswered("shop.example.net", "unreachable")), *works(LOOKUP)[:0]
        ),
        {("dns_unreachable", "high", ("shop",))},
    ),
    "it may be the whole network": (
        seen(fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net")), *works(BROKER), asked=[API_SILENT]),
        {("dns_failing", "medium", ("shop",))},
    ),
    "names of proxies cannot be looked up either": (
        seen(
            fails(SHOP, "resolve/timeout", facts={**unanswered("proxy"), Fact.PROXY: "http://proxy:3128"}),
            asked=[API_ANSWERS],
        ),
        {("dns_unreachable", "high", ("shop",))},
    ),
    "over TCP they answer": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net")),
            asked=[
                looks(KUBERNETES, FIRST, rcode=None),
                looks(KUBERNETES, FIRST, "10.96.0.1", over="tcp"),
                API_ANSWERS,
            ],
        ),
        {("dns_unreachable", "high", ("shop",))},
    ),
    "libc says only that it failed": (
        seen(runs(LOOKUP, "resolve/server_failure", "resolve/server_failure"), *works(BROKER)),
        {("dns_failing", "high", ("lookup",))},
    ),
    "others are answered meanwhile": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net"), times=3),
            *works(WEB, DATABASE),
        ),
        {("dns_failing", "medium", ("shop",))},
    ),
    "one question of very many was answered": (
        seen(
            *(
                History(
                    one,
                    tuple(
                        run(
                            one,
                            "resolve/unreachable",
                            at=NOW - 2.0 * n - late,
                            facts=unanswered(one.name, "unreachable"),
                        )
                        for n in range(3)
                    ),
                )
                for one, late in ((SHOP, 0.0), (WIKI, 0.3), (DATABASE, 0.6))
            ),
            History(
                BROKER,
                (
                    run(
                        BROKER,
                        "resolve/unreachable",
                        at=NOW - 0.2,
                        facts=attempts(
                            question("broker.airflow.svc.cluster.local", FIRST, "NXDOMAIN"),
                            question("broker.svc.cluster.local", FIRST, error="unreachable"),
                            question("broker.svc.cluster.local", SECOND, error="unreachable"),
                        ),
                    ),
                    *(
                        run(
                            BROKER,
                            "resolve/unreachable",
                            at=NOW - 0.2 - 2.0 * n,
                            facts=unanswered("broker", "unreachable"),
                        )
                        for n in (1, 2)
                    ),
                ),
            ),
        ),
        {("dns_unreachable", "high", ("shop", "wiki", "database", "broker"))},
    ),
    "others were answered before": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net"), times=3),
            runs(WEB, "ok", "ok", at=NOW - 30),
        ),
        {("dns_unreachable", "high", ("shop",))},
    ),
    "a name of /etc/hosts is no answer of a nameserver": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net"), times=3),
            runs(WEB, "ok", "ok", facts={Fact.HOSTS_FILE: True}),
        ),
        {("dns_unreachable", "high", ("shop",))},
    ),
    "the search list is answered for, the name itself is not": (
        seen(
            fails(
                SHOP,
                "resolve/timeout",
                facts=attempts(
                    question("shop.example.net.airflow.svc.cluster.local", FIRST, "NXDOMAIN"),
                    question("shop.example.net", FIRST),
                    question("shop.example.net", SECOND, seconds=0.5),
                ),
            ),
            *works(WEB),
        ),
        {("dns_failing", "medium", ("shop",))},
    ),
}

ONE_DOWN: dict[str, tuple[Snapshot, Said]] = {
    "the first is silent, the second helps out": (
        seen(
            runs(DATABASE, "ok", "ok", facts=first_silent("internal-database")),
            runs(BROKER, "ok", "ok", at=NOW - 1, facts=first_silent("broker")),
        ),
        {("dns_nameserver_down", "high", ("database", "broker"))},
    ),
    "some have the time to ask the second, some have not": (
        seen(
            fails(
                SHOP,
                "resolve/timeout",
                facts=attempts(
                    question("shop.example.net.airflow.svc.cluster.local", FIRST),
                    question("shop.example.net.airflow.svc.cluster.local", SECOND, "NXDOMAIN"),
                    question("shop.example.net.svc.cluster.local", FIRST, seconds=0.5),
                ),
            ),
            runs(BROKER, "ok", "ok", facts=first_silent("broker")),
        ),
        {("dns_nameserver_down", "high", ("shop", "broker"))},
    ),
    "the second turns questions away, which a dns target alone sees": (
        seen(
            runs(
                LOOKUP,
                *("ok", "ok"),
                facts={
                    **attempts(
                        question(KUBERNETES, FIRST, "NOERROR"), question(KUBERNETES, SECOND, error="unreachable")
                    ),
                    Fact.DNS_NAMESERVERS: [
                        {"server": f"{FIRST}:53", "rcode": "NOERROR", "answers": [], "same_answer": True},
                        {"server": f"{SECOND}:53", "error": "unreachable"},
                    ],
                },
            ),
            *works(DATABASE),
        ),
        {("dns_nameserver_down", "high", ("lookup",))},
    ),
    "one lost message is no nameserver that is down": (
        seen(runs(DATABASE, "ok", facts=first_silent("internal-database")), *works(BROKER)),
        set(),
    ),
    "it was silent, and has answered since": (
        seen(
            runs(DATABASE, "ok", "ok", facts=first_silent("internal-database")),
            asked=[looks(KUBERNETES, FIRST, "10.96.0.1")],
        ),
        {("dns_slow", "medium", ("database",))},
    ),
}

FAILING: dict[str, tuple[Snapshot, Said]] = {
    "SERVFAIL": (
        seen(
            fails(SHOP, "resolve/server_failure", facts=walked("shop.example.net", rcode="SERVFAIL")),
            *works(BROKER),
        ),
        {("dns_failing", "high", ("shop",))},
    ),
    "REFUSED, seen once": (
        seen(fails(SHOP, "resolve/query_refused", facts=walked("shop.example.net", rcode="REFUSED"), times=1)),
        {("dns_failing", "medium", ("shop",))},
    ),
    "REFUSED, and asked again": (
        seen(
            fails(SHOP, "resolve/query_refused", facts=walked("shop.example.net", rcode="REFUSED"), times=1),
            asked=[looks("shop.example.net", FIRST, rcode="REFUSED")],
        ),
        {("dns_failing", "high", ("shop",))},
    ),
    "SERVFAIL for some and REFUSED for others": (
        seen(
            fails(SHOP, "resolve/server_failure", facts=walked("shop.example.net", rcode="SERVFAIL")),
            fails(WIKI, "resolve/query_refused", facts=walked("wiki.corp.internal", rcode="REFUSED")),
        ),
        {("dns_failing", "high", ("shop",)), ("dns_failing", "high", ("wiki",))},
    ),
    "the name of a proxy": (
        seen(
            fails(
                SHOP,
                "resolve/server_failure",
                facts={**walked("proxy", rcode="SERVFAIL"), Fact.PROXY: "http://proxy:1"},
            )
        ),
        {("proxy_unreachable", "high", ("shop",))},
    ),
}

MISSING: dict[str, tuple[Snapshot, Said]] = {
    "a public name": (
        seen(fails(SHOP, "resolve/name_not_found", facts=walked("shop.example.net")), *works(BROKER)),
        {("name_not_found", "high", ("shop",))},
    ),
    "a public name, seen once": (
        seen(fails(SHOP, "resolve/name_not_found", facts=walked("shop.example.net"), times=1), *works(BROKER)),
        {("name_not_found", "medium", ("shop",))},
    ),
    "two targets of one name": (
        seen(
            fails(SHOP, "resolve/name_not_found", facts=walked("shop.example.net")),
            fails(tcp("shop-port", "shop.example.net:443"), "resolve/name_not_found", facts=walked("shop.example.net")),
        ),
        {("name_not_found", "high", ("shop", "shop-port"))},
    ),
    "two names": (
        seen(
            fails(SHOP, "resolve/name_not_found", facts=walked("shop.example.net")),
            fails(WIKI, "resolve/name_not_found", facts=walked("wiki.corp.internal")),
        ),
        {("name_not_found", "high", ("shop",)), ("name_not_found", "high", ("wiki",))},
    ),
    "many names of one kind: one verdict": (
        seen(
            *(
                fails(
                    http(f"t{n}", f"http://t{n}.corp.example/"),
                    "resolve/name_not_found",
                    facts=walked(f"t{n}.corp.example"),
                )
                for n in range(5)
            ),
            *works(SHOP),
        ),
        {("name_not_found", "medium", tuple(f"t{n}" for n in range(5)))},
    ),
    "many Services: one verdict": (
        seen(
            *(
                fails(
                    http(f"t{n}", f"http://t{n}/", scope=Scope.CLUSTER), "resolve/name_not_found", facts=walked(f"t{n}")
                )
                for n in range(5)
            ),
            *works(SHOP),
        ),
        {("name_not_found", "medium", tuple(f"t{n}" for n in range(5)))},
    ),
    "the name of a proxy": (
        seen(fails(SHOP, "resolve/name_not_found", facts={**walked("proxy"), Fact.PROXY: "http://proxy:3128"})),
        {("proxy_unreachable", "high", ("shop",))},
    ),
}

SLOW: dict[str, tuple[Snapshot, Said]] = {
    "messages get lost at several moments": (
        seen(
            looked_up(DATABASE, 1.002, 1.001, 1.001, facts=retried("internal-database.airflow.svc.cluster.local")),
            *works(SHOP),
        ),
        {("dns_slow", "high", ("database",))},
    ),
    "many messages got lost at one moment: the end of an outage": (
        seen(
            *(
                looked_up(dataclasses.replace(DATABASE, name=f"d{n}"), 1.0, facts=retried("internal-database"))
                for n in range(4)
            )
        ),
        set(),
    ),
    "a lookup failed, and others lose messages": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net"), times=1),
            looked_up(DATABASE, 1.002, 1.001, 1.001, facts=retried("internal-database.airflow.svc.cluster.local")),
        ),
        {("dns_slow", "high", ("shop", "database"))},
    ),
    "a long walk that takes its time": (
        seen(looked_up(SHOP, 0.62, 0.61, facts=slow_walk("shop.example.net", 0.15))),
        {("dns_slow", "high", ("shop",))},
    ),
    "a long walk that takes its time once": (
        seen(looked_up(SHOP, 0.62, 0.01, facts=slow_walk("shop.example.net", 0.15))),
        set(),
    ),
    "a long walk that takes no time": (
        seen(looked_up(SHOP, 0.02, 0.02, facts=slow_walk("shop.example.net", 0.005))),
        set(),
    ),
    "a walk so long that the time runs out": (
        seen(
            fails(
                SHOP,
                "resolve/timeout",
                facts=attempts(
                    *(question(f"shop.example.net.{domain}", FIRST, "NXDOMAIN", seconds=0.4) for domain in SEARCHED),
                    question("shop.example.net", FIRST, seconds=0.3),
                ),
            ),
            *works(BROKER),
        ),
        {("dns_slow", "high", ("shop",))},
    ),
}

TABLE = {**UNREACHABLE, **ONE_DOWN, **FAILING, **{f"no such name: {k}": v for k, v in MISSING.items()}, **SLOW}


@pytest.mark.parametrize("name", TABLE)
def test_lookups(name: str) -> None:
    snapshot, expected = TABLE[name]
    assert said(snapshot) == expected, texts(snapshot)


@pytest.mark.parametrize("name", TABLE)
def test_sentences_are_whole(name: str) -> None:
    for verdict in diagnose(TABLE[name][0]).verdicts:
        assert "…" not in verdict.summary
        assert verdict.summary.endswith(".")
        assert verdict.evidence


# --- the nearest explanation ------------------------------------------------------------------------------------------

EXPLAINED: dict[str, tuple[Snapshot, str]] = {
    "no such Service": (
        seen(fails(BARE, "resolve/name_not_found", facts=walked("ledger")), *works(BROKER)),
        "There is no Service ledger in the namespace airflow",
    ),
    "in another namespace": (
        seen(
            fails(BARE, "resolve/name_not_found", facts=walked("ledger")),
            runs(LEDGER, "ok", facts=FOUND_IN_FINANCE),
            asked=[
                looks("ledger.default.svc.cluster.local", FIRST, rcode="NXDOMAIN"),
                looks("ledger.finance.svc.cluster.local", FIRST, "10.96.1.80"),
            ],
        ),
        "there is one in the namespace finance",
    ),
    "in full, in the wrong namespace": (
        seen(
            fails(IN_FULL, "resolve/name_not_found", facts=walked("ledger.finance.svc.cluster.local")),
            asked=[looks("ledger.airflow.svc.cluster.local", FIRST, "10.96.1.80")],
        ),
        "there is one in the namespace airflow",
    ),
    "a search domain is missing": (
        seen(
            fails(LEDGER, "resolve/name_not_found", facts=attempts(question("ledger.finance", FIRST, "NXDOMAIN"))),
            fails(
                http("web", "http://web.airflow/", scope=Scope.CLUSTER),
                "resolve/name_not_found",
                facts=attempts(question("web.airflow", FIRST, "NXDOMAIN")),
            ),
            asked=[looks("web.airflow.svc.cluster.local", FIRST, "10.96.1.50")],
            pod=WITHOUT_SEARCH,
        ),
        "svc.cluster.local is missing from the pod's search list",
    ),
    "the dot at its end": (
        seen(
            fails(ROOTED, "resolve/name_not_found", facts=attempts(question("web.airflow.svc", FIRST, "NXDOMAIN"))),
            asked=[looks("web.airflow.svc.cluster.local", FIRST, "10.96.1.50")],
        ),
        "the dot at the end of the name keeps the search list from it",
    ),
    "nameservers disagree": (
        seen(
            fails(WIKI, "resolve/name_not_found", facts=walked("wiki.corp.internal")),
            asked=[
                looks("wiki.corp.internal", FIRST, rcode="NXDOMAIN"),
                looks("wiki.corp.internal", SECOND, "10.50.0.20"),
            ],
        ),
        f"exists for the nameserver {SECOND} only",
    ),
    "it exists again": (
        seen(
            fails(WIKI, "resolve/name_not_found", facts=walked("wiki.corp.internal")),
            asked=[
                looks("wiki.corp.internal", FIRST, "10.50.0.20"),
                looks("wiki.corp.internal", SECOND, "10.50.0.20"),
            ],
        ),
        "The nameservers say that wiki.corp.internal does not exist",
    ),
    "IPv6 only": (
        seen(
            fails(SHOP, "resolve/no_records", facts=walked("shop.example.net", rcode="NOERROR")),
            asked=[looks("shop.example.net", FIRST, "2001:db8::20", record="AAAA")],
        ),
        "has AAAA records only",
    ),
    "no record at all": (
        seen(fails(SHOP, "resolve/no_records", facts=walked("shop.example.net", rcode="NOERROR"))),
        "has no record of the type that is asked for",
    ),
    "it was there before": (
        seen(fails(SHOP, "resolve/name_not_found", facts=walked("shop.example.net"))),
        "it was found before",
    ),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_missing_name_has_its_nearest_explanation(name: str) -> None:
    snapshot, expected = EXPLAINED[name]
    assert expected in texts(snapshot)
    assert {verdict.cause.value for verdict in diagnose(snapshot).verdicts} == {"name_not_found"}


# --- what is asked ----------------------------------------------------------------------------------------------------


def asked_for(snapshot: Snapshot) -> list[Any]:
    return [one.question for one in plan(snapshot)]


def test_each_nameserver_is_asked_in_turn_and_then_over_tcp() -> None:
    failing = fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net"))
    first = asked_for(seen(failing))
    assert first[:2] == [LocalNetwork(), Connect("10.96.0.1", 443)]
    assert {Lookup(KUBERNETES, "A", FIRST), Lookup(KUBERNETES, "A", SECOND)} <= set(first)
    assert Lookup(KUBERNETES, "A", FIRST, "tcp") not in first
    then = asked_for(seen(failing, asked=[looks(KUBERNETES, FIRST, rcode=None)]))
    assert Lookup(KUBERNETES, "A", FIRST, "tcp") in then
    assert Lookup(KUBERNETES, "A", SECOND, "tcp") not in then


def test_a_service_is_looked_for_in_the_namespaces_that_targets_name() -> None:
    wanted = asked_for(
        seen(
            fails(BARE, "resolve/name_not_found", facts=walked("ledger")),
            runs(LEDGER, "ok", facts=FOUND_IN_FINANCE),
            runs(tcp("cache", "cache.stores.svc.cluster.local:6379"), "ok"),
        )
    )
    names = [one.name for one in wanted if isinstance(one, Lookup)]
    assert names[:3] == [
        "ledger.default.svc.cluster.local",
        "ledger.finance.svc.cluster.local",
        "ledger.stores.svc.cluster.local",
    ]


def test_nobody_asks_for_namespaces_of_a_public_name() -> None:
    wanted = asked_for(seen(fails(SHOP, "resolve/name_not_found", facts=walked("shop.example.net"))))
    assert {one.name for one in wanted if isinstance(one, Lookup)} == {"shop.example.net"}


def test_the_name_a_redirect_led_to_is_not_asked_for() -> None:
    facts = attempts(question("login.example.org", FIRST, "NXDOMAIN"))
    snapshot = seen(fails(SHOP, "resolve/name_not_found", facts=facts))
    assert asked_for(snapshot) == []
    assert "login.example.org does not exist" in texts(snapshot)


def test_many_missing_names_do_not_make_many_questions() -> None:
    many = [
        fails(http(f"t{n}", f"http://t{n}/", scope=Scope.CLUSTER), "resolve/name_not_found", facts=walked(f"t{n}"))
        for n in range(40)
    ]
    assert len(plan(seen(*many))) < 60


def test_a_nameserver_of_a_targets_own_is_a_host_like_any_other() -> None:
    """Its silence says nothing about the pod's."""
    failing = fails(THEIRS, "resolve/timeout", facts=attempts(question("db.corp.internal", "10.60.0.53")))
    assert "dns_unreachable" not in {cause for cause, _, _ in said(seen(failing, *works(SHOP)))}
    assert all(not isinstance(one, Lookup) for one in asked_for(seen(failing, *works(SHOP))))
