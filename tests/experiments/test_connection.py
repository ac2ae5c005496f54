"""One connection, and who refused it: real hosts in network namespaces, real packet filters between them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from agent.diagnosis.experiment import Connect, Connected
from agent.experiments.connection import Connections, rejected, undecided
from agent.experiments.local import LocalNetworkTables
from agent.model import Failure, Phase, Reason
from tests.experiments.asking import answer, snapshot
from tests.lab.misbehaving import echoing, refusing_port
from tests.lab.netns import CLIENT_IP, CLIENT_IP6, SERVER_IP, SERVER_IP6, Namespace, namespace, two_hosts
from tests.lab.targets import target

PORT = 5432
FAMILIES = [(SERVER_IP, CLIENT_IP), (SERVER_IP6, CLIENT_IP6)]
TO_THE_PORT = f"tcp dport {PORT}"


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    with two_hosts() as pair:
        yield pair


@pytest.fixture
def client(hosts: tuple[Namespace, Namespace]) -> Iterator[Namespace]:
    yield hosts[0]
    for host in hosts:
        host.filter("input")
        host.filter("output")


@pytest.fixture
def server(client: Namespace, hosts: tuple[Namespace, Namespace]) -> Namespace:
    return hosts[1]


def connected(host: Namespace, ip: str, port: int = PORT, hops: int | None = None) -> Connected:
    """What the experiment finds on a host whose target is that address."""
    address = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    known = snapshot(target("tcp", address=address))
    found = host.inside(lambda: asyncio.run(answer(known, Connect(ip, port, hops))))
    assert isinstance(found, Connected)
    return found


def reason(found: Connected) -> Reason:
    assert found.failure is not None
    assert found.failure.phase is Phase.CONNECT
    return found.failure.reason


@pytest.mark.parametrize(("ip", "own"), FAMILIES)
def test_nobody_listens(client: Namespace, server: Namespace, ip: str, own: str) -> None:
    found = connected(client, ip)
    assert (reason(found), found.rejected, found.icmp, found.icmp_from) == (Reason.REFUSED, False, None, None)


@pytest.mark.parametrize(("ip", "own"), FAMILIES)
def test_a_filter_that_resets_looks_as_if_nobody_listened(
    client: Namespace, server: Namespace, ip: str, own: str
) -> None:
    server.filter("input", f"{TO_THE_PORT} reject with tcp reset")
    found = connected(client, ip)
    assert (reason(found), found.rejected, found.icmp) == (Reason.REFUSED, False, None)


@pytest.mark.parametrize(("ip", "own"), FAMILIES)
def test_a_filter_that_rejects(client: Namespace, server: Namespace, ip: str, own: str) -> None:
    """As kube-proxy does for a Service without endpoints."""
    server.filter("input", f"{TO_THE_PORT} reject with icmpx port-unreachable")
    found = connected(client, ip)
    assert (reason(found), found.rejected) == (Reason.REFUSED, True)
    assert (found.icmp, found.icmp_from) == ("port unreachable", ip)


@pytest.mark.parametrize(("ip", "own"), FAMILIES)
def test_a_filter_on_the_own_way_out_that_rejects(client: Namespace, server: Namespace, ip: str, own: str) -> None:
    client.filter("output", f"{TO_THE_PORT} reject with icmpx port-unreachable")
    found = connected(client, ip)
    assert (reason(found), found.rejected) == (Reason.REFUSED, True)
    assert (found.icmp, found.icmp_from) == ("port unreachable", own)


@pytest.mark.parametrize(("ip", "own", "seen"), [(*FAMILIES[0], Reason.UNREACHABLE), (*FAMILIES[1], Reason.DENIED)])
def test_a_filter_that_prohibits(client: Namespace, server: Namespace, ip: str, own: str, seen: Reason) -> None:
    """Linux calls it "no route to host" for IPv4, and "permission denied" for IPv6."""
    server.filter("input", f"{TO_THE_PORT} reject with icmpx admin-prohibited")
    found = connected(client, ip)
    assert (reason(found), found.rejected) == (seen, None)
    assert (found.icmp, found.icmp_from) == ("administratively prohibited", ip)


def test_a_neighbour_that_does_not_answer(client: Namespace) -> None:
    """The kernel says so itself, when nobody has told it the link-layer address for a while."""
    client.run("sh", "-c", "echo 100 >/proc/sys/net/ipv4/neigh/wire/retrans_time_ms")
    found = connected(client, "192.0.2.77")
    assert reason(found) is Reason.UNREACHABLE
    assert (found.rejected, found.icmp, found.icmp_from) == (None, "host unreachable", CLIENT_IP)


@pytest.mark.parametrize(("ip", "own"), FAMILIES)
def test_a_filter_that_drops(client: Namespace, server: Namespace, ip: str, own: str) -> None:
    server.filter("input", f"{TO_THE_PORT} drop")
    found = connected(client, ip)
    peer = f"[{ip}]:{PORT}" if ":" in ip else f"{ip}:{PORT}"
    assert found.failure == Failure(
        phase=Phase.CONNECT,
        reason=Reason.TIMEOUT,
        detail=f"expected {peer} to accept a connection, got no answer within 1.5s",
    )
    assert found.seconds >= 1.5
    assert (found.rejected, found.icmp) == (None, None)


def test_a_route_that_prohibits(client: Namespace) -> None:
    client.ip("route", "add", "prohibit", "203.0.113.0/24")
    try:
        found = connected(client, "203.0.113.9")
    finally:
        client.ip("route", "del", "prohibit", "203.0.113.0/24")
    assert (reason(found), found.rejected, found.icmp) == (Reason.DENIED, None, None)


def test_a_refusal_beside_rejections_of_others_is_still_told(client: Namespace, server: Namespace) -> None:
    """The counters move all the time, for the sake of others; the error queue is this connection's own."""
    server.filter("input", f"{TO_THE_PORT} reject with icmpx port-unreachable")

    async def both() -> tuple[list[Connected], list[Connected]]:
        connections = Connections(LocalNetworkTables().unreachable_count)
        refused = [connections.connect(Connect(SERVER_IP, PORT + 1), 5.0) for _ in range(20)]
        unreached = [connections.connect(Connect(SERVER_IP, PORT), 5.0) for _ in range(20)]
        found = await asyncio.gather(*refused, *unreached)
        return found[:20], found[20:]

    refused, unreached = client.inside(lambda: asyncio.run(both()))
    assert {found.rejected for found in unreached} == {True}
    assert {found.rejected for found in refused} == {False}


FAR, FAR6 = "203.0.113.9", "2001:db8:ffff::9"


@pytest.fixture(scope="module")
def far(hosts: tuple[Namespace, Namespace]) -> Iterator[Namespace]:
    """A host behind the server, which is its router."""
    client, router = hosts
    with namespace() as host:
        router.ip("link", "add", "far", "type", "veth", "peer", "name", "far", "netns", host.name)
        for end, ip, ip6 in ((router, "203.0.113.1", "2001:db8:ffff::1"), (host, FAR, FAR6)):
            # Otherwise a router waits a second or two before it has an address to ask its neighbours from.
            end.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/far/accept_dad")
            end.ip("address", "add", f"{ip}/24", "dev", "far")
            end.ip("-6", "address", "add", f"{ip6}/64", "dev", "far", "nodad")
            end.ip("link", "set", "far", "up")
        for end, way, way6 in ((client, SERVER_IP, SERVER_IP6), (host, "203.0.113.1", "2001:db8:ffff::1")):
            end.ip("route", "add", "default", "via", way)
            end.ip("-6", "route", "add", "default", "via", way6)
        router.run("sh", "-c", "echo 1 | tee /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding")
        yield host
        client.ip("route", "del", "default")
        client.ip("-6", "route", "del", "default")


@pytest.mark.parametrize(("ip", "router"), [(FAR, SERVER_IP), (FAR6, SERVER_IP6)])
def test_a_connection_of_one_hop_ends_at_the_first_router(
    client: Namespace, far: Namespace, ip: str, router: str
) -> None:
    with far.serving(sys.executable, "-m", "http.server", "--bind", "::", str(PORT), port=PORT):
        assert connected(client, ip).failure is None
        found = connected(client, ip, hops=1)
        assert reason(found) is Reason.UNREACHABLE
        assert (found.icmp, found.icmp_from) == ("too many routers on the way", router)
        assert connected(client, ip, hops=2).failure is None


def test_what_answers_a_connection_of_one_hop_is_in_this_pod(client: Namespace, far: Namespace) -> None:
    """As the proxy of a mesh, to which the pod's own rules lead every connection."""
    client.run(
        "nft",
        "-f",
        "-",
        stdin="add table ip mesh\n"
        "add chain ip mesh mesh { type nat hook output priority -100; }\n"
        f"add rule ip mesh mesh tcp dport {PORT} redirect to :15001\n",
    )
    try:
        with client.serving(sys.executable, "-m", "http.server", "15001", port=15001):
            assert connected(client, FAR, hops=1).failure is None
    finally:
        client.run("nft", "delete", "table", "ip", "mesh")


async def test_a_server_that_listens() -> None:
    async with echoing() as server:
        found = await answer(snapshot(target("tcp", address=server.address)), Connect("127.0.0.1", server.port))
        assert found.failure is None
        assert found.rejected is None
        assert 0 < found.seconds < 1.5
        assert server.connections == 1


async def test_where_the_kernel_tells_nothing_a_refusal_stays_what_it_is() -> None:
    """Without counters, as in a sandbox that hides /proc."""
    found = await Connections(lambda: None).connect(Connect("127.0.0.1", refusing_port()), 1.5)
    assert reason(found) is Reason.REFUSED
    assert found.rejected is None


@pytest.mark.parametrize(
    ("moved", "told", "more"),
    [
        ([0], False, False),
        ([1], None, True),
        ([1, 1], None, True),
        ([1, 1, 1], True, False),
        ([1, 0], False, False),
        ([3], None, True),
        ([1, 2, 1], None, False),
        ([None], None, False),
    ],
)
def test_what_the_counters_of_an_old_kernel_tell(
    moved: list[int | None],
    told: bool | None,  # noqa: FBT001
    more: bool,  # noqa: FBT001
) -> None:
    assert rejected(moved) is told
    assert undecided(moved) is more


def test_the_counter_counts_both_ip_versions(client: Namespace, server: Namespace) -> None:
    """Of the messages that refused: none for a RST, one each for a rejection."""
    tables = client.inside(LocalNetworkTables)
    for ip, _ in FAMILIES:
        before = client.inside(tables.unreachable_count)
        connected(client, ip)
        assert client.inside(tables.unreachable_count) == before
    server.filter("input", f"{TO_THE_PORT} reject with icmpx port-unreachable")
    for ip, _ in FAMILIES:
        before = client.inside(tables.unreachable_count)
        assert before is not None
        connected(client, ip)
        assert client.inside(tables.unreachable_count) == before + 1
