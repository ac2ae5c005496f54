"""The hosts of a world, and the wires, addresses and routes between them.

    pod -- node -- cluster
            |-- vpn -- private
            |-- internet

Every namespace is made here and linked only to others made here. `internet` has routes back to the pod and none
beyond: a packet for an address nobody has ends there.
"""

from __future__ import annotations

from contextlib import ExitStack

from tests.lab.world import places
from tests.lab.world.hosts import Host

ROLES = ("pod", "node", "cluster", "vpn", "private", "internet")

CLUSTER_IPS = tuple(f"10.244.2.{last}" for last in (10, 11, 12, 13, 20, 30, 31, 40, 50, 51, 70, 71, 80, 90, 99))
"""The addresses of the cluster's other pods: 12 and 13 are the scripted nameservers', 99 is for scenarios."""
PRIVATE_IPS = (places.WAREHOUSE_IP, places.WIKI_IP, "10.50.0.99")
INTERNET_IPS = (
    *(places.API_IP, places.SHOP_IP, places.HOOKS_IP, places.WEBSITE_IP, *places.MIRROR_IPS),
    *(places.DUAL_IP, "203.0.113.99"),
)
INTERNET_IPS6 = (places.DUAL_IP6, places.SIX_IP6)

_FORWARD = """
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
"""

POD_ROUTES = (f"route replace default via {places.NODE_IP}",)
POD_ROUTES6 = (f"route replace ::/0 via {places.NODE_IP6}",)


def build(name: str, undo: ExitStack) -> dict[str, Host]:
    """Make the hosts and wire them; each is removed by `undo`."""
    hosts: dict[str, Host] = {}
    for role in ROLES:
        hosts[role] = Host(f"{name}-{role}")
        undo.callback(hosts[role].close)
    pod, node, cluster = hosts["pod"], hosts["node"], hosts["cluster"]
    vpn, private, internet = hosts["vpn"], hosts["private"], hosts["internet"]
    for router in (node, vpn):
        router.run("sh", "-c", _FORWARD)
    pod.link("eth0", node, "pod")
    cluster.link("eth0", node, "cluster")
    vpn.link("node", node, "vpn")
    private.link("eth0", vpn, "private")
    internet.link("node", node, "internet")
    pod.ip(
        f"address add {places.POD_IP}/24 dev eth0",
        f"address add {places.POD_IP6}/64 dev eth0 nodad",
        *POD_ROUTES,
        *POD_ROUTES6,
    )
    node.ip(
        f"address add {places.NODE_IP}/24 dev pod",
        f"address add {places.NODE_IP6}/64 dev pod nodad",
        "address add 10.244.2.1/24 dev cluster",
        "address add 172.31.1.1/30 dev vpn",
        "address add 172.31.2.1/30 dev internet",
        "address add fd00:31:2::1/64 dev internet nodad",
        f"route add {places.PRIVATE_NETWORK} via 172.31.1.2",
        "route add default via 172.31.2.2",
        "route add ::/0 via fd00:31:2::2",
    )
    cluster.ip(
        "address add 10.244.2.2/24 dev eth0",
        *(f"address add {ip}/24 dev eth0" for ip in CLUSTER_IPS),
        "route add default via 10.244.2.1",
    )
    vpn.ip(
        "address add 172.31.1.2/30 dev node",
        "address add 10.50.0.1/16 dev private",
        "route add 10.244.0.0/16 via 172.31.1.1",
    )
    private.ip(
        "address add 10.50.0.2/16 dev eth0",
        *(f"address add {ip}/16 dev eth0" for ip in PRIVATE_IPS),
        "route add default via 10.50.0.1",
    )
    internet.ip(
        "address add 172.31.2.2/30 dev node",
        "address add fd00:31:2::2/64 dev node nodad",
        *(f"address add {ip}/32 dev lo" for ip in INTERNET_IPS),
        *(f"address add {ip}/128 dev lo" for ip in INTERNET_IPS6),
        "route add 10.244.0.0/16 via 172.31.2.1",
        "route add fd00:244:1::/64 via fd00:31:2::1",
    )
    return hosts
