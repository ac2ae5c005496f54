"""What cannot be reached: scopes, hosts, ports and addresses; and what looks alike and is something else."""

from __future__ import annotations

import dataclasses

import pytest

from agent.diagnosis import History, Snapshot, diagnose, plan
from agent.diagnosis.experiment import Connect, LocalNetwork, Lookup
from agent.model import Fact, Scope
from tests.diagnosis.networks import (
    ADDRESSES,
    API_ANSWERS,
    API_SILENT,
    BROKER,
    BY_NUMBER,
    DATABASE,
    FIRST,
    FORBIDDEN,
    HOOKS,
    POD,
    SECOND,
    SHOP,
    SIDECAR,
    WAREHOUSE,
    WEB,
    WIKI,
    connects,
    dns,
    fails,
    looks,
    run,
    runs,
    seen,
    tables,
    unanswered,
    works,
)
from tests.diagnosis.seen import NOW, Said, http, postgres, said, tcp, texts

DUAL = http("dual", "https://dual.example.com/")
SIX = http("six", "https://six.example.net/")
MIRROR = http("mirror", "https://mirror.example.org/")
CORPORATE = http("corporate", "https://intranet.example.com/")
NAMED_BY_ITS_NAMESPACE = http("ledger", "http://ledger.finance/")
NOWHERE = dataclasses.replace(POD, kubernetes_api=None)

SIX_FACTS = {Fact.ADDRESS: "[2001:db8:113::70]:443", Fact.ADDRESSES: ["2001:db8:113::70"]}
DUAL_FACTS = {Fact.ADDRESS: "[2001:db8:113::60]:443", Fact.ADDRESSES: ["2001:db8:113::60", "203.0.113.60"]}
MIRROR_FACTS = {Fact.ADDRESS: "203.0.113.50:443", Fact.ADDRESSES: ["203.0.113.50", "203.0.113.51"]}
ALL_TRIED = {
    Fact.ADDRESS: "203.0.113.50:443",
    Fact.ATTEMPTS: [
        {"address": "203.0.113.50:443", "success": False, "phase": "connect", "reason": "timeout", "phases": {}},
        {"address": "203.0.113.51:443", "success": True, "phase": None, "reason": None, "phases": {}},
    ],
}

EVERYTHING: dict[str, tuple[Snapshot, Said]] = {
    "nothing answers": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net")),
            fails(BY_NUMBER, "connect/timeout"),
            asked=[API_SILENT],
        ),
        {("network_down", "high", ("shop", "by-number"))},
    ),
    "nothing answers, seen once and nothing asked": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net"), times=1),
            fails(BY_NUMBER, "connect/timeout", times=1),
        ),
        {("network_down", "high", ("shop", "by-number"))},
    ),
    "names alone, and the gateway is gone": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net")),
            asked=[tables(gateway=False)],
        ),
        {("network_down", "high", ("shop",))},
    ),
    "names alone, and no default route": (
        seen(
            fails(SHOP, "resolve/unreachable", facts=unanswered("shop.example.net", "unreachable")),
            asked=[tables(unrouted=("203.0.113.20",), default_routes=(6,))],
        ),
        {("network_down", "high", ("shop",))},
    ),
    "what must not be reachable is no answer": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net")),
            fails(BY_NUMBER, "connect/timeout"),
            *works(FORBIDDEN),
            asked=[API_SILENT],
        ),
        {("network_down", "high", ("shop", "by-number"))},
    ),
    "what must not be reachable answers": (
        seen(
            fails(SHOP, "connect/timeout"),
            fails(HOOKS, "connect/timeout"),
            fails(FORBIDDEN, "verify/unexpected_success"),
            asked=[API_SILENT],
        ),
        {
            ("egress_blocked", "high", ("shop", "hooks")),
            ("policy_not_enforced", "high", ("forbidden",)),
        },
    ),
    "what is in the pod is no answer": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net")),
            fails(BY_NUMBER, "connect/timeout"),
            *works(SIDECAR),
            asked=[API_SILENT],
        ),
        {("network_down", "high", ("shop", "by-number"))},
    ),
    "one target answers": (
        seen(
            fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net")),
            *works(BY_NUMBER),
            asked=[API_SILENT],
        ),
        {("dns_unreachable", "medium", ("shop",))},
    ),
    "one target was reached and answers badly": (
        seen(
            fails(SHOP, "connect/timeout"),
            fails(HOOKS, "connect/timeout"),
            fails(DATABASE, "login/credentials_rejected"),
            asked=[API_SILENT],
        ),
        {
            ("credentials_rejected", "high", ("database",)),
            ("egress_blocked", "high", ("shop", "hooks")),
        },
    ),
    "a nameserver answers": (
        seen(
            fails(SHOP, "connect/timeout"),
            fails(BY_NUMBER, "connect/timeout"),
            asked=[API_SILENT, looks("kubernetes.default.svc.cluster.local", FIRST, "10.96.0.1")],
        ),
        {("egress_blocked", "high", ("shop", "by-number"))},
    ),
}

SCOPES: dict[str, tuple[Snapshot, Said]] = {
    "all that is public, while the cluster answers": (
        seen(fails(SHOP, "connect/timeout"), fails(HOOKS, "connect/timeout"), *works(DATABASE)),
        {("egress_blocked", "high", ("shop", "hooks"))},
    ),
    "all that is public, while the Kubernetes API answers": (
        seen(fails(SHOP, "connect/timeout"), fails(HOOKS, "connect/timeout"), asked=[API_ANSWERS]),
        {("egress_blocked", "high", ("shop", "hooks"))},
    ),
    "one public target, the only one": (
        seen(fails(SHOP, "connect/timeout"), *works(DATABASE)),
        {("egress_blocked", "medium", ("shop",))},
    ),
    "one public target, the only one, seen once": (
        seen(fails(SHOP, "connect/timeout", times=1), *works(DATABASE)),
        {("egress_blocked", "low", ("shop",))},
    ),
    "one public target of two": (
        seen(fails(HOOKS, "connect/timeout"), *works(SHOP, DATABASE)),
        {("target_blocked", "medium", ("hooks",))},
    ),
    "one public target failed, the other was not asked since and is silent too": (
        seen(
            fails(HOOKS, "connect/timeout"),
            runs(SHOP, "ok", "ok", at=NOW - 4.0),
            *works(DATABASE),
            asked=[connects(ADDRESSES["shop"], "timeout")],
        ),
        {("egress_blocked", "high", ("hooks",))},
    ),
    "public targets reject by ICMP": (
        seen(
            fails(SHOP, "connect/unreachable"),
            fails(HOOKS, "connect/unreachable"),
            *works(DATABASE),
            asked=[
                connects(ADDRESSES["shop"], "unreachable", icmp="administratively prohibited"),
                connects(ADDRESSES["hooks"], "unreachable", icmp="administratively prohibited"),
            ],
        ),
        {("egress_blocked", "high", ("shop", "hooks"))},
    ),
    "public targets all refuse: somebody answers in their place": (
        seen(
            fails(SHOP, "connect/refused"),
            fails(HOOKS, "connect/refused"),
            *works(DATABASE),
            asked=[
                connects(ADDRESSES["shop"], "refused", rejected=False),
                connects(ADDRESSES["hooks"], "refused", rejected=False),
            ],
        ),
        {("egress_blocked", "medium", ("shop", "hooks"))},
    ),
    "one public target refuses, another is silent: each has its own trouble": (
        seen(
            fails(SHOP, "connect/timeout"),
            fails(HOOKS, "connect/refused"),
            *works(DATABASE),
            asked=[connects(ADDRESSES["hooks"], "refused", rejected=False)],
        ),
        {("target_blocked", "medium", ("shop",)), ("nothing_listening", "medium", ("hooks",))},
    ),
    "public targets answer through a proxy only": (
        seen(
            fails(SHOP, "connect/timeout"),
            fails(HOOKS, "connect/timeout"),
            runs(http("through", "https://api.example.com/"), "ok", facts={Fact.PROXY: "http://proxy.internal:3128"}),
            *works(DATABASE),
        ),
        {("egress_blocked", "high", ("shop", "hooks"))},
    ),
    "a public name that leads to a private address is private": (
        seen(
            runs(CORPORATE, "connect/timeout", "connect/timeout", facts={Fact.ADDRESS: "10.50.0.77:443"}),
            *works(SHOP, DATABASE),
        ),
        {("private_network_unreachable", "medium", ("corporate",))},
    ),
    "all of the cluster, and the Kubernetes API": (
        seen(fails(DATABASE, "connect/timeout"), fails(BROKER, "connect/timeout"), *works(SHOP), asked=[API_SILENT]),
        {("cluster_blocked", "high", ("database", "broker"))},
    ),
    "all of the cluster, and the Kubernetes API answers": (
        seen(fails(DATABASE, "connect/timeout"), fails(BROKER, "connect/timeout"), *works(SHOP), asked=[API_ANSWERS]),
        {("cluster_blocked", "medium", ("database", "broker"))},
    ),
    "one target of the cluster, the only one, and the Kubernetes API answers": (
        seen(fails(DATABASE, "connect/timeout"), *works(SHOP), asked=[API_ANSWERS]),
        {("target_blocked", "medium", ("database",))},
    ),
    "one target of two in the cluster": (
        seen(fails(DATABASE, "connect/timeout"), *works(BROKER, SHOP), asked=[API_SILENT]),
        {("target_blocked", "medium", ("database",))},
    ),
    "a name with its namespace is in the cluster": (
        seen(
            runs(
                NAMED_BY_ITS_NAMESPACE,
                *("connect/timeout", "connect/timeout"),
                facts={Fact.ADDRESS: "10.96.1.80:80", Fact.DNS_NAME: "ledger.finance.svc.cluster.local"},
            ),
            fails(DATABASE, "connect/timeout"),
            *works(SHOP),
            asked=[API_SILENT],
        ),
        {("cluster_blocked", "high", ("ledger", "database"))},
    ),
    "two Services refused by ICMP are two Services without endpoints": (
        seen(
            fails(DATABASE, "connect/refused"),
            fails(WEB, "connect/refused"),
            *works(SHOP),
            asked=[
                connects(ADDRESSES["database"], "refused", rejected=True),
                connects(ADDRESSES["web"], "refused", rejected=True),
                API_ANSWERS,
            ],
        ),
        {
            ("service_without_endpoints", "medium", ("database",)),
            ("service_without_endpoints", "medium", ("web",)),
        },
    ),
    "all of a private network": (
        seen(fails(WAREHOUSE, "connect/timeout"), fails(WIKI, "connect/timeout"), *works(SHOP, DATABASE)),
        {("private_network_unreachable", "high", ("warehouse", "wiki"))},
    ),
    "all of a private network, while another private network answers": (
        seen(fails(WAREHOUSE, "connect/timeout"), fails(WIKI, "connect/timeout"), *works(BY_NUMBER, DATABASE)),
        {("private_network_unreachable", "high", ("warehouse", "wiki"))},
    ),
    "one of two in a private network": (
        seen(fails(WAREHOUSE, "connect/timeout"), *works(WIKI, SHOP)),
        {("target_blocked", "medium", ("warehouse",))},
    ),
    "everything but names": (
        seen(
            fails(SHOP, "connect/timeout"),
            fails(DATABASE, "connect/timeout"),
            asked=[API_SILENT, looks("kubernetes.default.svc.cluster.local", FIRST, "10.96.0.1")],
        ),
        {("egress_blocked", "high", ("shop", "database"))},
    ),
    "all that is public and all that is private: two verdicts": (
        seen(
            fails(SHOP, "connect/timeout"),
            fails(HOOKS, "connect/timeout"),
            fails(WAREHOUSE, "connect/timeout"),
            fails(WIKI, "connect/timeout"),
            *works(DATABASE),
        ),
        {
            ("egress_blocked", "high", ("shop", "hooks")),
            ("private_network_unreachable", "high", ("warehouse", "wiki")),
        },
    ),
}

HOSTS: dict[str, tuple[Snapshot, Said]] = {
    "no route in the pod": (
        seen(
            fails(HOOKS, "connect/unreachable"),
            *works(SHOP),
            asked=[connects(ADDRESSES["hooks"], "unreachable"), tables(unrouted=("198.51.100.30",))],
        ),
        {("no_route", "high", ("hooks",))},
    ),
    "no route at a router": (
        seen(
            fails(HOOKS, "connect/unreachable"),
            *works(SHOP),
            asked=[connects(ADDRESSES["hooks"], "unreachable", icmp="network unreachable"), tables()],
        ),
        {("no_route", "high", ("hooks",))},
    ),
    "a router cannot reach the host, or will not": (
        seen(
            fails(HOOKS, "connect/unreachable"),
            *works(SHOP),
            asked=[connects(ADDRESSES["hooks"], "unreachable", icmp="host unreachable")],
        ),
        {("no_route", "medium", ("hooks",))},
    ),
    "a filter says that it is one": (
        seen(
            fails(HOOKS, "connect/unreachable"),
            *works(SHOP),
            asked=[connects(ADDRESSES["hooks"], "unreachable", icmp="administratively prohibited")],
        ),
        {("target_blocked", "high", ("hooks",))},
    ),
    "refused by ICMP outside of the cluster: a filter, or a balancer": (
        seen(
            fails(HOOKS, "connect/refused"),
            *works(SHOP),
            asked=[connects(ADDRESSES["hooks"], "refused", rejected=True, icmp="port unreachable")],
        ),
        {("target_blocked", "medium", ("hooks",))},
    ),
    "this pod forbids it": (
        seen(fails(HOOKS, "connect/denied"), *works(SHOP)),
        {("target_blocked", "high", ("hooks",))},
    ),
    "a Service is refused by ICMP": (
        seen(
            fails(DATABASE, "connect/refused", times=1),
            *works(BROKER),
            asked=[connects(ADDRESSES["database"], "refused", rejected=True, icmp="port unreachable")],
        ),
        {("service_without_endpoints", "medium", ("database",))},
    ),
    "refused by the host": (
        seen(
            fails(DATABASE, "connect/refused", times=1),
            *works(BROKER),
            asked=[connects(ADDRESSES["database"], "refused", rejected=False)],
        ),
        {("nothing_listening", "high", ("database",))},
    ),
    "refused, nobody knows by whom": (
        seen(fails(DATABASE, "connect/refused"), *works(BROKER)),
        {("nothing_listening", "medium", ("database",))},
    ),
    "refused in the pod itself": (
        seen(fails(SIDECAR, "connect/refused"), *works(BROKER)),
        {("nothing_listening", "high", ("sidecar",))},
    ),
    "never worked, and the usual port answers": (
        seen(
            runs(postgres("wrong", "postgresql://probe@10.96.1.30:5433/app"), "connect/refused", "connect/refused"),
            *works(BROKER),
            asked=[connects("10.96.1.30:5433", "refused", rejected=False), connects("10.96.1.30:5432")],
        ),
        {("wrong_port", "medium", ("wrong",))},
    ),
    "a Service is silent on a port, and answers on the usual one": (
        seen(
            runs(postgres("wrong", "postgresql://probe@10.96.1.30:5433/app"), "connect/timeout", "connect/timeout"),
            *works(BROKER),
            asked=[connects("10.96.1.30:5433", "timeout"), connects("10.96.1.30:5432")],
        ),
        {("wrong_port", "medium", ("wrong",))},
    ),
    "it worked, and somebody listens on another port: nobody mistyped it": (
        seen(
            fails(WEB, "connect/refused"),
            *works(BROKER),
            asked=[connects(ADDRESSES["web"], "refused", rejected=False), connects("10.96.1.50:443")],
        ),
        {("nothing_listening", "high", ("web",))},
    ),
    "a public host answers on another port: a firewall, or the wrong port": (
        seen(
            runs(HOOKS, "connect/timeout", "connect/timeout"),
            *works(SHOP),
            asked=[connects("198.51.100.30:80")],
        ),
        {("target_blocked", "medium", ("hooks",))},
    ),
    "a private address written down": (
        seen(fails(BY_NUMBER, "connect/timeout"), *works(DATABASE, SHOP)),
        {("hardcoded_address", "medium", ("by-number",))},
    ),
    "a private address written down, where nobody listens": (
        seen(
            fails(BY_NUMBER, "connect/refused"),
            *works(DATABASE),
            asked=[connects(ADDRESSES["by-number"], "refused", rejected=False)],
        ),
        {("hardcoded_address", "medium", ("by-number",))},
    ),
    "a private address written down, and its whole network is gone": (
        seen(
            fails(BY_NUMBER, "connect/timeout"),
            runs(tcp("beside", "10.60.0.8:443", scope=Scope.PRIVATE), "connect/timeout", "connect/timeout"),
            *works(DATABASE),
        ),
        {("private_network_unreachable", "high", ("by-number", "beside"))},
    ),
    "a public address written down is none": (
        seen(
            runs(tcp("number", "203.0.113.99:443", scope=Scope.PUBLIC), "connect/timeout", "connect/timeout"),
            *works(SHOP),
        ),
        {("target_blocked", "medium", ("number",))},
    ),
    "a nameserver of the target's own": (
        seen(
            runs(dns("theirs", "db.corp.internal", "10.60.0.53:53"), "resolve/timeout", "resolve/timeout"),
            *works(DATABASE),
        ),
        {("target_blocked", "medium", ("theirs",))},
    ),
    "it failed, and answers again": (
        seen(fails(HOOKS, "connect/timeout", times=1), *works(SHOP), asked=[connects(ADDRESSES["hooks"])]),
        {("flapping", "low", ("hooks",))},
    ),
    "many hosts fail alike: one verdict": (
        seen(
            *(
                runs(
                    http(f"h{n}", f"https://h{n}.example.com/"),
                    "connect/timeout",
                    "connect/timeout",
                    facts={Fact.ADDRESS: f"203.0.113.{n}:443"},
                )
                for n in range(100, 106)
            ),
            *works(SHOP),
        ),
        {("target_blocked", "medium", tuple(f"h{n}" for n in range(100, 106)))},
    ),
    "what must not be reachable is": (
        seen(fails(FORBIDDEN, "verify/unexpected_success"), *works(SHOP)),
        {("policy_not_enforced", "high", ("forbidden",))},
    ),
}

ADDRESS_TABLE: dict[str, tuple[Snapshot, Said]] = {
    "IPv6 fails and IPv4 of the same name answers": (
        seen(
            runs(DUAL, "connect/timeout", "connect/timeout", facts=DUAL_FACTS),
            runs(SIX, "connect/timeout", "connect/timeout", facts=SIX_FACTS),
            *works(SHOP),
            asked=[connects("203.0.113.60:443")],
        ),
        {("ipv6_broken", "high", ("dual", "six"))},
    ),
    "one name's IPv6 fails and its IPv4 answers: the host's, or the network's": (
        seen(
            runs(DUAL, "connect/timeout", "connect/timeout", facts=DUAL_FACTS),
            *works(SHOP),
            asked=[connects("203.0.113.60:443")],
        ),
        {("ipv6_broken", "medium", ("dual",))},
    ),
    "the pod has no IPv6": (
        seen(
            runs(SIX, "connect/unreachable", "connect/unreachable", facts=SIX_FACTS),
            *works(SHOP),
            asked=[tables(global_ipv6=False, unrouted=("2001:db8:113::70",))],
        ),
        {("ipv6_broken", "high", ("six",))},
    ),
    "one IPv6 address is dead, and others answer": (
        seen(
            runs(DUAL, "connect/timeout", "connect/timeout", facts=DUAL_FACTS),
            runs(SIX, "ok", facts=SIX_FACTS),
            *works(SHOP),
            asked=[connects("203.0.113.60:443")],
        ),
        {("one_address_dead", "high", ("dual",))},
    ),
    "a name with both is dead on both": (
        seen(
            runs(DUAL, "connect/timeout", "connect/timeout", facts=DUAL_FACTS),
            *works(SHOP),
            asked=[connects("203.0.113.60:443", "timeout")],
        ),
        {("target_blocked", "medium", ("dual",))},
    ),
    "one of two addresses, by an experiment": (
        seen(
            runs(MIRROR, "connect/timeout", facts=MIRROR_FACTS),
            *works(SHOP),
            asked=[connects("203.0.113.50:443", "timeout"), connects("203.0.113.51:443")],
        ),
        {("one_address_dead", "high", ("mirror",))},
    ),
    "one of two addresses, by trying all": (
        seen(runs(MIRROR, "connect/timeout", "connect/timeout", facts=ALL_TRIED), *works(SHOP)),
        {("one_address_dead", "high", ("mirror",))},
    ),
    "one of two addresses, by turns": (
        seen(
            History(
                MIRROR,
                tuple(
                    run(MIRROR, how, at=NOW - 2 * n, facts={Fact.ADDRESS: place})
                    for n, (how, place) in enumerate(
                        [
                            ("ok", "203.0.113.51:443"),
                            ("connect/timeout", "203.0.113.50:443"),
                            ("ok", "203.0.113.51:443"),
                            ("connect/timeout", "203.0.113.50:443"),
                        ]
                    )
                ),
            ),
            *works(SHOP),
        ),
        {("one_address_dead", "high", ("mirror",))},
    ),
    "the same address fails and answers by turns": (
        seen(runs(SHOP, "ok", "connect/timeout", "ok", "connect/timeout"), *works(DATABASE)),
        {("flapping", "medium", ("shop",))},
    ),
    "both addresses are dead": (
        seen(
            runs(MIRROR, "connect/timeout", "connect/timeout", facts=MIRROR_FACTS),
            *works(SHOP),
            asked=[connects("203.0.113.51:443", "timeout")],
        ),
        {("target_blocked", "medium", ("mirror",))},
    ),
}

TABLE = {**EVERYTHING, **SCOPES, **HOSTS, **ADDRESS_TABLE}


@pytest.mark.parametrize("name", TABLE)
def test_what_cannot_be_reached(name: str) -> None:
    snapshot, expected = TABLE[name]
    assert said(snapshot) == expected, texts(snapshot)


def test_no_row_has_the_name_of_another() -> None:
    assert len(TABLE) == sum(map(len, (EVERYTHING, SCOPES, HOSTS, ADDRESS_TABLE)))


@pytest.mark.parametrize("name", TABLE)
def test_sentences_are_whole(name: str) -> None:
    """Short enough not to be cut, ended by a full stop, with evidence."""
    for verdict in diagnose(TABLE[name][0]).verdicts:
        assert "…" not in verdict.summary
        assert verdict.summary.endswith(".")
        assert verdict.evidence


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_the_controls_are_asked_where_something_is_silent() -> None:
    wanted = [one.question for one in plan(seen(fails(SHOP, "connect/timeout"), *works(DATABASE)))]
    assert LocalNetwork() in wanted
    assert Connect("10.96.0.1", 443) in wanted
    assert Connect("203.0.113.20", 443) in wanted


def test_neighbours_that_have_not_been_asked_since_are_asked() -> None:
    old = runs(SHOP, "ok", at=NOW - 30)
    fresh = runs(http("fresh", "https://fresh.example.com/"), "ok", facts={Fact.ADDRESS: "203.0.113.33:443"})
    wanted = [one.question for one in plan(seen(fails(HOOKS, "connect/timeout"), old, fresh))]
    assert Connect("203.0.113.20", 443) in wanted
    assert Connect("203.0.113.33", 443) not in wanted


def test_nameservers_are_a_control_where_no_name_has_been_looked_up() -> None:
    found = {one.question for one in plan(seen(runs(BY_NUMBER, "connect/timeout")))}
    assert Lookup("kubernetes.default.svc.cluster.local", "A", FIRST) in found
    assert Lookup("kubernetes.default.svc.cluster.local", "A", SECOND) not in found


def test_other_addresses_and_other_ports_are_asked() -> None:
    never = runs(MIRROR, "connect/timeout", facts=MIRROR_FACTS)
    wanted = [one.question for one in plan(seen(never, *works(DATABASE)))]
    assert Connect("203.0.113.51", 443) in wanted
    assert Connect("203.0.113.50", 80) in wanted
    before = [one.question for one in plan(seen(fails(HOOKS, "connect/timeout"), *works(DATABASE)))]
    assert Connect("198.51.100.30", 80) not in before


def test_nobody_is_asked_where_nothing_fails() -> None:
    assert plan(seen(*works(SHOP, DATABASE))) == ()


def test_a_question_that_was_answered_for_another_target_is_asked_again_for_this_one() -> None:
    """Whoever plans knows whether the answer is still good for it."""
    failing = fails(SHOP, "connect/timeout"), fails(HOOKS, "connect/timeout")
    (wanted,) = [one for one in plan(seen(*failing)) if one.question == Connect("10.96.0.1", 443)]
    assert wanted.targets == ("shop", "hooks")
    some = dataclasses.replace(API_ANSWERS, targets=("shop",))
    every = dataclasses.replace(API_ANSWERS, targets=("shop", "hooks"))
    assert Connect("10.96.0.1", 443) in {one.question for one in plan(seen(*failing, asked=[some]))}
    assert Connect("10.96.0.1", 443) not in {one.question for one in plan(seen(*failing, asked=[every]))}


def test_what_happens_within_the_pod_is_not_asked_over_the_network() -> None:
    assert all(not isinstance(one.question, Connect) for one in plan(seen(fails(SIDECAR, "connect/refused"))))


# --- what a few of them say -------------------------------------------------------------------------------------------


def test_a_verdict_about_one_public_target_names_both_readings() -> None:
    text = texts(seen(fails(SHOP, "connect/timeout"), *works(DATABASE)))
    assert "consistent with an egress policy" in text
    assert "this one host being down" in text


def test_a_hint_to_the_proxy_where_one_works() -> None:
    assert "set HTTPS_PROXY" in texts(SCOPES["public targets answer through a proxy only"][0])


def test_the_name_that_answers_stands_beside_the_number_that_does_not() -> None:
    assert "by name, database answers on port 5432" in texts(HOSTS["a private address written down"][0])


def test_lookups_of_proxied_targets_are_no_evidence_about_hosts() -> None:
    """Who goes through a proxy has spoken to the proxy."""
    proxied = runs(SHOP, "connect/timeout", "connect/timeout", facts={Fact.PROXY: "http://proxy.internal:3128"})
    assert {cause for cause, _, _ in said(seen(proxied, *works(DATABASE)))} == {"proxy_unreachable"}


def test_without_a_control_names_are_all_that_is_known() -> None:
    """Nothing else was asked: it may be the whole network."""
    snapshot = seen(fails(SHOP, "resolve/timeout", facts=unanswered("shop.example.net")), pod=NOWHERE)
    assert said(snapshot) == {("dns_unreachable", "high", ("shop",))}


def test_an_answer_for_the_name_of_a_redirect_is_not_asked_about() -> None:
    redirected = {
        Fact.HTTP_REDIRECTS: [{"url": "https://shop.example.net/", "status": 302}],
        Fact.ADDRESS: "203.0.113.7:443",
    }
    wanted = plan(seen(runs(SHOP, "connect/timeout", facts=redirected), *works(DATABASE)))
    assert Connect("203.0.113.7", 443) not in {one.question for one in wanted}
