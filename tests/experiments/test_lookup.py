"""One question to one nameserver."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.diagnosis.experiment import Looked, Lookup
from agent.model import Reason
from tests.experiments.asking import answer, snapshot
from tests.lab.misbehaving import refusing_port
from tests.lab.nameservers import Nameserver, Script, answering, loopback_ip, resolv_conf, silent, zone
from tests.lab.targets import target

ZONE = """
db.example.test. A 192.0.2.1
db.example.test. A 192.0.2.2
db.example.test. AAAA 2001:db8::1
alias.example.test. CNAME db.example.test.
"""


async def looked(script: Script, name: str, record: str = "A", transport: str = "udp") -> tuple[Looked, Nameserver]:
    async with Nameserver(script) as nameserver:
        known = snapshot(target("dns", query="example.test", server=nameserver.address))
        found = await answer(known, Lookup(name, record, nameserver.ip, transport))
    assert isinstance(found, Looked)
    return found, nameserver


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        ("db.example.test", "A", Looked("NOERROR", ("192.0.2.1", "192.0.2.2"))),
        ("db.example.test.", "AAAA", Looked("NOERROR", ("2001:db8::1",))),
        ("alias.example.test", "A", Looked("NOERROR", ("192.0.2.1", "192.0.2.2"))),
        ("other.example.test", "A", Looked("NXDOMAIN")),
    ],
)
async def test_what_the_nameserver_says(transport: str, name: str, record: str, expected: Looked) -> None:
    found, nameserver = await looked(zone(ZONE), name, record, transport)
    assert found == expected
    (asked,) = nameserver.asked
    assert (asked.name, asked.record, asked.transport) == (name.removesuffix("."), record, transport)


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
async def test_a_nameserver_that_will_not_is_quoted(rcode: str) -> None:
    assert (await looked(answering(rcode), "db.example.test"))[0] == Looked(rcode)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_nameserver_that_stays_silent(transport: str) -> None:
    found, nameserver = await looked(silent, "db.example.test", transport=transport)
    assert found == Looked(None, error=Reason.TIMEOUT)
    assert len(nameserver.asked) == 1


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_nameserver_that_is_not_there(transport: str) -> None:
    known = snapshot(target("dns", query="example.test", server=f"127.0.0.1:{refusing_port()}"))
    found = await answer(known, Lookup("db.example.test", "A", "127.0.0.1", transport))
    assert found == Looked(None, error=Reason.UNREACHABLE)


async def test_nameservers_of_a_targets_own_resolv_conf_may_be_asked(tmp_path: Path) -> None:
    async with Nameserver(zone(ZONE), ip=loopback_ip(), port=53) as nameserver:
        configured = target("tcp", address="db.example.test:5432", resolv_conf=resolv_conf(tmp_path, nameserver))
        found = await answer(snapshot(configured), Lookup("db.example.test", "A", nameserver.ip))
    assert found == Looked("NOERROR", ("192.0.2.1", "192.0.2.2"))


async def test_an_answer_of_thousands_of_records_is_cut() -> None:
    lines = [f"big.example.test. A 192.0.{n // 250}.{n % 250 + 1}" for n in range(500)]
    found, _ = await looked(answering("NOERROR", *lines), "big.example.test", transport="tcp")
    assert len(found.records) == 32
