"""Nobody is asked who is not a target's host, its nameserver, the Kubernetes API server, or this pod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.diagnosis.experiment import (
    Connect,
    LocalNetwork,
    Looked,
    Lookup,
    MeshProxy,
    Question,
    ServerClock,
    SmallSegments,
)
from agent.diagnosis.snapshot import History, Snapshot
from agent.experiments.bounds import Bounds, addresses_of
from agent.model import Target
from tests.experiments.asking import asking, experiment, failing, snapshot
from tests.lab.misbehaving import echoing
from tests.lab.outcomes import named
from tests.lab.targets import target

DATABASE = target("tcp", address="db:5432")
STRANGER = "203.0.113.99"


def allowed(known: Snapshot, question: Question) -> bool:
    return Bounds.of(known, known.pod.resolver.nameservers).allow(question)


@pytest.mark.parametrize(
    ("known", "ip"),
    [
        (snapshot(kubernetes_api=("10.96.0.1", 443)), "10.96.0.1"),
        (snapshot(target("tcp", address="10.0.0.5:5432")), "10.0.0.5"),
        (snapshot(target("tcp", address="[2001:DB8::5]:5432")), "2001:db8::5"),
        (snapshot(target("http", url="https://10.0.0.5/")), "10.0.0.5"),
        (snapshot(target("postgres", dsn="postgresql://10.0.0.5/app")), "10.0.0.5"),
        (snapshot(target("dns", query="example.com", server="10.0.0.5:5353")), "10.0.0.5"),
        (snapshot(failing(DATABASE, addresses=["10.0.0.5", "10.0.0.6"])), "10.0.0.6"),
        (snapshot(failing(DATABASE, address="10.0.0.5:5432")), "10.0.0.5"),
        (snapshot(failing(DATABASE, address="[2001:db8::5]:5432")), "2001:db8::5"),
        (snapshot(failing(DATABASE, addresses=["2001:db8::5"])), "2001:0DB8::5"),
    ],
)
def test_a_connection_goes_to_an_address_of_a_targets_host(known: Snapshot, ip: str) -> None:
    assert allowed(known, Connect(ip, 1))
    assert allowed(known, Connect(ip, 65_535))
    assert not allowed(known, Connect(STRANGER, 443))


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_connection_goes_to_a_port(port: int) -> None:
    assert not allowed(snapshot(target("tcp", address="10.0.0.5:5432")), Connect("10.0.0.5", port))


@pytest.mark.parametrize(
    ("asked", "reaches"),
    [
        ("db", True),
        ("DB.", True),
        ("db.airflow.svc.cluster.local", True),
        ("db.svc.cluster.local", True),
        ("db.other.svc.cluster.local", False),
        ("www.example.com", False),
    ],
)
def test_a_lookup_of_a_targets_own_name_leads_to_its_host(asked: str, reaches: bool) -> None:  # noqa: FBT001
    lookup = experiment(Lookup(asked, "A", "10.96.0.10"), Looked("NOERROR", ("10.0.0.7",)))
    search = ("airflow.svc.cluster.local", "svc.cluster.local")
    known = snapshot(DATABASE, nameservers=["10.96.0.10"], search=search, experiments=[lookup])
    assert allowed(known, Connect("10.0.0.7", 5432)) is reaches


def test_a_name_that_is_complete_is_not_searched_for() -> None:
    lookup = experiment(Lookup("db.svc.cluster.local", "A", "10.96.0.10"), Looked("NOERROR", ("10.0.0.7",)))
    complete = target("tcp", address="db.:5432")
    known = snapshot(complete, search=["svc.cluster.local"], experiments=[lookup])
    assert not allowed(known, Connect("10.0.0.7", 5432))


def test_the_name_a_dns_target_asks_for_is_no_host_of_ours() -> None:
    lookup = experiment(Lookup("www.example.com", "A", "10.96.0.10"), Looked("NOERROR", ("10.0.0.7",)))
    known = snapshot(failing(target("dns", query="www.example.com"), dns_answers=["10.0.0.7"]), experiments=[lookup])
    assert not allowed(known, Connect("10.0.0.7", 443))


def test_where_a_run_was_redirected_to_is_somebody_elses() -> None:
    redirected = failing(
        target("http", url="https://api.example.com/"),
        address=f"{STRANGER}:443",
        addresses=[STRANGER],
        http_redirects=[{"url": "https://api.example.com/", "status": 302}],
    )
    assert not allowed(snapshot(redirected), Connect(STRANGER, 443))


@pytest.mark.parametrize(
    ("server", "reaches"),
    [("10.96.0.10", True), ("10.0.0.53", True), ("10.0.0.54", True), ("8.8.8.8", False), ("dns.example.com", False)],
)
def test_a_lookup_goes_to_a_nameserver_of_the_pod_or_of_a_target(server: str, reaches: bool) -> None:  # noqa: FBT001
    literal = named("literal", "dns")
    known = snapshot(
        target("dns", query="example.com", server="10.0.0.53:5353"),
        failing(target("dns", query="example.com", server="ns.example.com:5353"), addresses=["10.0.0.54"]),
        literal,
        failing(DATABASE, addresses=["8.8.8.8"]),
        nameservers=["10.96.0.10"],
    )
    assert allowed(known, Lookup("db.example.com", "A", server)) is reaches


def test_a_nameserver_is_asked_at_its_own_port() -> None:
    known = snapshot(target("dns", query="example.com", server="10.0.0.53:5353"), nameservers=["10.96.0.10"])
    bounds = Bounds.of(known, known.pod.resolver.nameservers)
    assert str(bounds.nameserver(Lookup("a.example", "A", "10.0.0.53"))) == "10.0.0.53:5353"
    assert str(bounds.nameserver(Lookup("a.example", "A", "10.96.0.10"))) == "10.96.0.10:53"


@pytest.mark.parametrize("question", [ServerClock("other"), SmallSegments("other")])
def test_only_a_target_is_run_or_asked_for_its_time(question: Question) -> None:
    assert not allowed(snapshot(named("one")), question)
    assert allowed(snapshot(named("other")), question)


def test_this_pod_may_always_be_asked() -> None:
    assert allowed(snapshot(), MeshProxy())
    assert allowed(snapshot(), LocalNetwork())


def test_a_hosts_addresses_come_from_every_run_that_is_remembered() -> None:
    history = History(
        DATABASE,
        (
            *failing(DATABASE, address="10.0.0.6:5432").outcomes,
            *failing(DATABASE, addresses=["10.0.0.5", "10.0.0.6"]).outcomes,
        ),
    )
    assert list(dict.fromkeys(addresses_of(history))) == ["10.0.0.6", "10.0.0.5"]


async def test_what_is_out_of_bounds_is_refused_and_counted(tmp_path: Path) -> None:
    """The server that must not be asked runs here: it would notice."""
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.53\n")
    configured: Target[Any] = target("tcp", address="10.0.0.5:5432", resolv_conf=str(conf))
    async with echoing() as stranger, asking(snapshot(configured)) as ask:
        found = await ask.every(
            Connect("127.0.0.1", stranger.port),
            Lookup("db.example.com", "A", "127.0.0.1"),
            ServerClock("somebody"),
            SmallSegments("somebody"),
        )
        assert found == ()
        assert (ask.experimenter.refused, ask.experimenter.asked, ask.experimenter.left_out) == (4, 0, 0)
        assert stranger.connections == 0
