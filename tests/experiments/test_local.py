"""This pod's own tables: of real network namespaces, and damaged ones."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.diagnosis.experiment import Gateway, LocalNetwork, LocalTables
from agent.experiments.local import (
    DefaultRoute,
    LocalNetworkTables,
    counters,
    default_routes,
    default_routes_v6,
    has_global_ipv6,
    neighbours_of,
    routed,
)
from tests.experiments.asking import answer, failing, snapshot
from tests.lab.netns import CLIENT_IP, SERVER_IP, SERVER_IP6, Namespace, namespace, two_hosts
from tests.lab.targets import target


@pytest.fixture
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    with two_hosts() as pair:
        yield pair


@pytest.fixture
def client(hosts: tuple[Namespace, Namespace]) -> Namespace:
    return hosts[0]


def tables(host: Namespace, *addresses: str) -> LocalTables:
    return host.inside(lambda: LocalNetworkTables().look(addresses))


def test_a_host_with_nothing_but_loopback() -> None:
    with namespace() as host:
        seen = tables(host, "127.0.0.1", "::1", "192.0.2.9", "2001:db8::9")
    assert seen == LocalTables(
        gateways=(),
        unrouted=("192.0.2.9", "2001:db8::9"),
        global_ipv6=False,
        sent_segments=0,
        retransmitted_segments=0,
        # IPv4 has no table while there is no address beyond loopback.
        default_routes=(),
    )


def test_a_host_without_a_default_route(client: Namespace) -> None:
    seen = tables(client, SERVER_IP, SERVER_IP6, "203.0.113.9", "2001:db8:ffff::9")
    assert seen.gateways == ()
    assert seen.default_routes == ()
    assert seen.unrouted == ("203.0.113.9", "2001:db8:ffff::9")
    assert seen.global_ipv6


def test_a_gateway_that_answers(client: Namespace) -> None:
    client.ip("route", "add", "default", "via", SERVER_IP)
    client.run("sh", "-c", f"bash -c 'exec 3<>/dev/tcp/{SERVER_IP}/9' || true")  # so that it is asked for its address
    seen = tables(client, "203.0.113.9")
    assert seen.gateways == (Gateway(SERVER_IP, resolved=True),)
    assert seen.unrouted == ()
    assert seen.default_routes == (4,)


def test_a_gateway_that_is_dead(client: Namespace) -> None:
    client.run("sh", "-c", "echo 100 >/proc/sys/net/ipv4/neigh/wire/retrans_time_ms")
    client.ip("route", "add", "default", "via", "192.0.2.77")
    client.run("sh", "-c", "bash -c 'exec 3<>/dev/tcp/203.0.113.9/9' || true")
    assert tables(client).gateways == (Gateway("192.0.2.77", resolved=False),)


def test_a_gateway_that_nothing_was_sent_to(client: Namespace) -> None:
    client.ip("route", "add", "default", "via", "192.0.2.77")
    assert tables(client).gateways == (Gateway("192.0.2.77", resolved=None),)


def test_gateways_of_both_ip_versions_in_order_of_metric(client: Namespace) -> None:
    client.ip("route", "add", "default", "via", "192.0.2.78", "metric", "200")
    client.ip("route", "add", "default", "via", "192.0.2.77", "metric", "100")
    client.ip("-6", "route", "add", "default", "via", "2001:db8::78", "metric", "200")
    client.ip("-6", "route", "add", "default", "via", "2001:db8::77", "metric", "100")
    seen = tables(client, "203.0.113.9", "2001:db8:ffff::9")
    assert [gateway.ip for gateway in seen.gateways] == ["192.0.2.77", "192.0.2.78", "2001:db8::77", "2001:db8::78"]
    assert [gateway.resolved for gateway in seen.gateways] == [None] * 4
    assert seen.default_routes == (4, 6)
    assert seen.unrouted == ()


def test_a_default_route_without_a_gateway(client: Namespace) -> None:
    client.ip("route", "add", "default", "dev", "wire")
    seen = tables(client, "203.0.113.9")
    assert (seen.gateways, seen.default_routes, seen.unrouted) == ((), (4,), ())


@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole"])
def test_a_route_that_forbids_is_none(client: Namespace, kind: str) -> None:
    client.ip("route", "add", "default", "via", SERVER_IP)
    client.ip("route", "add", kind, "203.0.113.0/24")
    client.ip("-6", "route", "add", kind, "2001:db8:ffff::/48")
    seen = tables(client, "203.0.113.9", "2001:db8:ffff::9", "198.51.100.9")
    assert seen.unrouted == ("203.0.113.9", "2001:db8:ffff::9")


def test_a_default_route_that_forbids_is_none(client: Namespace) -> None:
    client.ip("route", "add", "unreachable", "default")
    client.ip("-6", "route", "add", "unreachable", "default", "metric", "1")
    seen = tables(client, "203.0.113.9")
    assert (seen.gateways, seen.default_routes, seen.unrouted) == ((), (), ("203.0.113.9",))


def test_a_route_of_another_table_counts(client: Namespace) -> None:
    """As a mesh or a VPN lays them; the file shows the main table alone."""
    client.ip("route", "add", "203.0.113.0/24", "via", SERVER_IP, "table", "100")
    client.ip("rule", "add", "to", "203.0.113.0/24", "lookup", "100")
    assert tables(client, "203.0.113.9", CLIENT_IP).unrouted == ()


def test_an_interface_that_is_down(client: Namespace) -> None:
    client.ip("route", "add", "default", "via", SERVER_IP)
    client.ip("link", "set", "wire", "down")
    seen = tables(client, "203.0.113.9", SERVER_IP)
    assert (seen.default_routes, seen.unrouted) == ((), ("203.0.113.9", SERVER_IP))
    assert not seen.global_ipv6


def test_looking_sends_nothing(client: Namespace) -> None:
    client.ip("route", "add", "default", "via", SERVER_IP)
    sent = ("cat", "/sys/class/net/wire/statistics/tx_packets")
    client.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/wire/disable_ipv6")  # which says hello by itself
    before = client.run("ip", "netns", "exec", client.name, *sent)
    tables(client, *(f"203.0.113.{n}" for n in range(1, 30)))
    assert client.run("ip", "netns", "exec", client.name, *sent) == before


def test_segments_are_counted_from_one_look_to_the_next(hosts: tuple[Namespace, Namespace]) -> None:
    client, server = hosts

    def knock() -> None:
        client.run("sh", "-c", f"timeout 1.5 bash -c 'exec 3<>/dev/tcp/{SERVER_IP}/9' || true")

    looking = client.inside(LocalNetworkTables)
    knock()
    calm = client.inside(lambda: looking.look(()))
    assert calm.sent_segments > 0
    assert calm.retransmitted_segments == 0
    assert client.inside(lambda: looking.look(())).sent_segments == 0
    server.filter("input", "drop")
    knock()
    lossy = client.inside(lambda: looking.look(()))
    assert 1 <= lossy.retransmitted_segments < lossy.sent_segments


def test_the_experiment_looks_for_routes_to_hosts_of_failing_targets(client: Namespace) -> None:
    known = snapshot(
        failing(target("tcp", address="db.example.com:5432"), addresses=["203.0.113.9", SERVER_IP]),
        failing(target("tcp", address="203.0.113.10:5432"), success=True),
    )
    seen = client.inside(lambda: asyncio.run(answer(known, LocalNetwork())))
    assert seen.unrouted == ("203.0.113.9",)


def test_where_there_are_no_tables_nothing_is_known(tmp_path: Path) -> None:
    looking = LocalNetworkTables(tmp_path / "missing")
    assert looking.look(()) == LocalTables((), (), global_ipv6=False, sent_segments=0, retransmitted_segments=0)
    assert looking.unreachable_count() is None


def test_counters_that_begin_anew_do_not_count_backwards(tmp_path: Path) -> None:
    snmp = tmp_path / "snmp"
    snmp.write_text("Tcp: OutSegs RetransSegs\nTcp: 900 90\n")
    looking = LocalNetworkTables(tmp_path)
    snmp.write_text("Tcp: OutSegs RetransSegs\nTcp: 5 1\n")
    seen = looking.look(())
    assert (seen.sent_segments, seen.retransmitted_segments) == (0, 0)


ROUTE = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
ETH0 = "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
SNMP = "Icmp: InMsgs InErrors InDestUnreachs\nIcmp: 7 0 5\nTcp: RtoMin OutSegs RetransSegs\nTcp: 200 1000 10\n"


def test_damaged_lines_are_left_out() -> None:
    damaged = "eth0\teth0\n\n\x00\ufffd\neth0\t00000000\tzz\t0003\t0\t0\t0\t00000000\t0\n"
    assert list(default_routes(ROUTE + damaged + ETH0)) == [DefaultRoute(4, "10.0.0.1", 100)]
    too_long = ETH0.replace("0100000A", "0100000A0100000A")
    assert list(default_routes(too_long + ETH0)) == [DefaultRoute(4, "10.0.0.1", 100)]
    assert neighbours_of("IP address HW type\n10.0.0.1 0x1 0x2 aa * eth0\n10.0.0.2 0x1\n10.0.0.3 0x1 x aa * e\n") == {
        "10.0.0.1": True
    }
    assert counters(SNMP)["Icmp.InDestUnreachs"] == 5
    assert counters("Tcp: OutSegs\nUdp: 7\nTcp: OutSegs RetransSegs\nTcp: x 3\nTcp:") == {"Tcp.RetransSegs": 3}


FILES = ("route", "ipv6_route", "arp", "if_inet6", "snmp", "snmp6")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FILES), st.binary(max_size=300)))
def test_nothing_in_the_files_raises(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for name, data in files.items():
            Path(directory, name).write_bytes(data)
        looking = LocalNetworkTables(Path(directory))
        looking.look(())
        looking.unreachable_count()


REAL = [Path("/proc/net", name).read_text() for name in FILES if Path("/proc/net", name).exists()]
"""As they are when the tests begin: their counters never stand still."""


@settings(deadline=None)
@given(st.data())
def test_a_real_table_with_a_damaged_part_raises_nothing(data: st.DataObject) -> None:
    for part in [*REAL, ROUTE + ETH0]:
        begin = data.draw(st.integers(0, len(part)))
        end = data.draw(st.integers(begin, min(len(part), begin + 40)))
        spoilt = part[:begin] + data.draw(st.text(max_size=20)) + part[end:]
        assert all(route.version == 4 for route in default_routes(spoilt))
        assert all(route.version == 6 for route in default_routes_v6(spoilt))
        assert all(isinstance(number, int) for number in counters(spoilt).values())
        neighbours_of(spoilt)
        has_global_ipv6(spoilt)


@pytest.mark.parametrize("name", FILES)
def test_a_table_that_is_no_file_is_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    LocalNetworkTables(tmp_path).look(())


def test_loopback_has_a_route() -> None:
    assert routed("127.0.0.1")
