"""Worlds that are odd and healthy: the agent must have nothing to say, at no time."""

from __future__ import annotations

from tests.lab.http_servers import response
from tests.lab.nameservers import late
from tests.lab.scenarios.base import Scenario
from tests.lab.scenarios.first_dags import BY_ADDRESS, WAREHOUSE_BY_ADDRESS
from tests.lab.world import World, places, target
from tests.lab.world.forward_proxy import PROXY_URL, squid

MANY_ADDRESSES = tuple(f"203.0.113.{last}" for last in range(100, 200))


def large_answer(world: World) -> None:
    world.records({"many.example.com": MANY_ADDRESSES})


SCENARIOS = (
    Scenario(
        name="healthy",
        title="Nothing: every kind of target, all well",
        targets=tuple(places.TARGETS),
        from_start=True,
    ),
    Scenario(
        name="healthy-slow-link",
        title="Nothing: the internet is 100 ms away, one way",
        prepare=lambda world: world.slow_link(places.PUBLIC_NETWORKS[:2], 0.1),
        from_start=True,
    ),
    Scenario(
        name="healthy-slow-servers",
        title="Nothing: servers take 0.4 s of the 1.5 s they have",
        prepare=lambda world: [world.site(name, seconds=0.4) for name in ("api", "shop", "wiki", "kubernetes")],
        from_start=True,
    ),
    Scenario(
        name="healthy-slow-nameservers",
        title="Nothing: nameservers take 50 ms for each answer, and each name takes several",
        prepare=lambda world: world.script_nameservers(late(0.05, world.zone)),
        from_start=True,
    ),
    Scenario(
        name="healthy-without-ipv6",
        title="Nothing: the pod has no IPv6, some names have",
        targets=("cluster-dns", "kubernetes-api", "database", "api", target("dual", addresses="first")),
        prepare=World.pod_without_ipv6,
        from_start=True,
    ),
    Scenario(
        name="healthy-ipv6-only-site",
        title="Nothing: a site has IPv6 addresses only, another is asked over IPv4 only",
        targets=("cluster-dns", "kubernetes-api", "api", "six", target("dual", family="4")),
        from_start=True,
    ),
    Scenario(
        name="healthy-single-nameserver",
        title="Nothing: resolv.conf names one nameserver",
        prepare=lambda world: world.resolv_conf(
            f"nameserver {places.NAMESERVER_SERVICES[0]}\n"
            "search airflow.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
        ),
        from_start=True,
    ),
    Scenario(
        name="healthy-negative-targets",
        title="Nothing: what must not be reachable is dropped, rejected, or gone",
        targets=(
            "cluster-dns",
            "kubernetes-api",
            "api",
            "metadata",
            {"name": "rejected", "type": "tcp", "address": "203.0.113.99:443", "negative": True},
            target("ledger", negative=True),
        ),
        prepare=lambda world: [
            world.reject("203.0.113.99"),
            world.reject("10.244.2.80", how="port-unreachable"),
        ],
        from_start=True,
    ),
    Scenario(
        name="healthy-expected-answers",
        title="Nothing: NXDOMAIN, 401 and a redirect are what is expected",
        targets=(
            "cluster-dns",
            "kubernetes-api",
            "api",
            {
                "name": "gone",
                "type": "dns",
                "query": "gone.example.com.",
                "expect": {"rcodes": ["NXDOMAIN"]},
            },
            target("shop", expect={"status": [401]}),
            target("website", url="http://www.example.com/moved"),
        ),
        prepare=lambda world: world.site("shop", reply=response("401 Unauthorized", b"who are you?")),
        from_start=True,
    ),
    Scenario(
        name="healthy-large-answers",
        title="Nothing: a hundred addresses come over TCP, a page of 64 KiB in many segments",
        targets=(
            "cluster-dns",
            "kubernetes-api",
            {
                "name": "many",
                "type": "dns",
                "query": "many.example.com",
                "expect": {"min_answers": len(MANY_ADDRESSES)},
            },
            target("api", name="page", url="https://api.example.com/large", expect={"status": ["2xx"]}),
        ),
        prepare=large_answer,
        from_start=True,
    ),
    Scenario(
        name="healthy-addresses-by-number",
        title="Nothing: two databases by their addresses, which hold",
        targets=("cluster-dns", "kubernetes-api", "database", "warehouse", BY_ADDRESS, WAREHOUSE_BY_ADDRESS, "api"),
        from_start=True,
    ),
    Scenario(
        name="healthy-behind-proxy",
        title="Nothing: squid is the only way to the internet",
        targets=("cluster-dns", "kubernetes-api", "database", "wiki", "api", "shop", "hooks", "website"),
        prepare=lambda world: [squid(world), world.drop(places.PUBLIC_NETWORKS)],
        environment={
            "HTTP_PROXY": PROXY_URL,
            "HTTPS_PROXY": PROXY_URL,
            "http_proxy": PROXY_URL,
            "NO_PROXY": ".svc,.cluster.local,.internal",
        },
        from_start=True,
    ),
    Scenario(
        name="healthy-without-experiments",
        title="Nothing: the agent may ask no question of its own",
        settings={"diagnosis": {"experiments": False}},
        from_start=True,
    ),
)
