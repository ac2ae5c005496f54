"""Names that are not found, not answered for, or found too late."""

from __future__ import annotations

from agent.diagnosis import Cause
from tests.lab.nameservers import Script, answering, by_name, late, silent
from tests.lab.scenarios.base import ANY, NOT_HIGH, Expected, Scenario
from tests.lab.world import World, places, target

BY_NAME = ("cluster-dns", "kubernetes-api", "database", "broker", "web", "warehouse", "wiki", "api", "shop", "hooks")
"""All of the standard targets: each has to be looked up."""
FIRST, SECOND = places.NAMESERVER_SERVICES
SEARCHED = "airflow.svc.cluster.local svc.cluster.local cluster.local"


def both_nameservers_stop(world: World) -> None:
    world.stop("nameserver-1")
    world.stop("nameserver-2")


def lose_questions(world: World, percent: int) -> None:
    """Of the questions to both nameservers, some get lost, and nothing else."""
    world.execute(
        "node",
        "nft",
        "-f",
        "-",
        stdin="table inet losses {\n"
        "  chain forward {\n"
        "    type filter hook forward priority filter\n"
        f'    iifname "pod" udp dport 53 numgen random mod 100 < {percent} drop\n'
        "  }\n"
        "}\n",
    )
    world.undo(lambda: world.execute("node", "nft", "delete", "table", "inet", "losses"))


def resolv_conf(search: str) -> str:
    return (
        f"nameserver {FIRST}\nnameserver {SECOND}\n"
        + (f"search {search}\n" if search else "")
        + "options ndots:5 timeout:1 attempts:2\n"
    )


def mostly(script: Script, name: str, otherwise: Script) -> Script:
    """One name is answered otherwise."""
    return by_name({name: otherwise}, otherwise=script)


SCENARIOS = (
    Scenario(
        name="dns-dropped",
        title="A policy drops what goes to port 53",
        break_=lambda world: world.drop(places.NAMESERVER_SERVICES, port=53),
        expected=(Expected(Cause.DNS_UNREACHABLE, BY_NAME, says=("consistent with", "the Kubernetes API answers")),),
        recovers=True,
    ),
    Scenario(
        name="dns-stopped",
        title="Both nameservers are stopped: their hosts turn questions away",
        break_=both_nameservers_stop,
        expected=(Expected(Cause.DNS_UNREACHABLE, BY_NAME, says=("turned",)),),
        recovers=True,
    ),
    Scenario(
        name="dns-dropped-over-udp",
        title="A policy drops port 53 over UDP and allows it over TCP",
        break_=lambda world: world.drop(places.NAMESERVER_SERVICES, port=53, protocol="udp"),
        expected=(Expected(Cause.DNS_UNREACHABLE, BY_NAME, says=("answers over TCP",)),),
    ),
    Scenario(
        name="dns-without-endpoints",
        title="The Services of both nameservers have no endpoints: the node refuses",
        break_=lambda world: [world.endpoints("nameserver-1"), world.endpoints("nameserver-2")],
        expected=(Expected(Cause.DNS_UNREACHABLE, BY_NAME),),
    ),
    Scenario(
        name="nameserver-down",
        title="The first of two nameservers is silent",
        targets=("cluster-dns", "kubernetes-api", "database", "broker"),
        break_=lambda world: world.drop(FIRST),
        expected=(
            Expected(
                Cause.DNS_NAMESERVER_DOWN,
                ("cluster-dns", "kubernetes-api", "database", "broker"),
                says=(f"{FIRST} does not answer", SECOND),
            ),
        ),
        recovers=True,
    ),
    Scenario(
        name="nameserver-down-second",
        title="The second of two nameservers is stopped: only what asks both can see it",
        targets=("cluster-dns", "kubernetes-api", "database", "api"),
        break_=lambda world: world.stop("nameserver-2"),
        expected=(Expected(Cause.DNS_NAMESERVER_DOWN, ("cluster-dns",), says=(f"{SECOND} turns questions away",)),),
        recovers=True,
    ),
    Scenario(
        name="dns-servfail",
        title="Both nameservers answer SERVFAIL for everything",
        break_=lambda world: world.script_nameservers(answering("SERVFAIL")),
        expected=(Expected(Cause.DNS_FAILING, BY_NAME, says=("SERVFAIL",)),),
        recovers=True,
    ),
    Scenario(
        name="dns-refused",
        title="Both nameservers answer REFUSED for everything",
        break_=lambda world: world.script_nameservers(answering("REFUSED")),
        expected=(Expected(Cause.DNS_FAILING, BY_NAME, says=("REFUSED",)),),
    ),
    Scenario(
        name="dns-silent-for-one-name",
        title="The nameservers leave one name without an answer, as when their forwarder is gone",
        targets=("cluster-dns", "kubernetes-api", "database", "api", "shop", "hooks"),
        break_=lambda world: world.script_nameservers(mostly(world.zone, "hooks.example.org", silent)),
        expected=(Expected(Cause.DNS_FAILING, ("hooks",), NOT_HIGH, says=("without an answer",)),),
    ),
    Scenario(
        name="dns-loses-questions",
        title="A third of the questions to the nameservers gets lost: lookups take a second try",
        targets=("cluster-dns", "kubernetes-api", "database", "broker"),
        settings={"defaults": {"timeout": "2s"}},
        break_=lambda world: lose_questions(world, 33),
        expected=(
            Expected(
                Cause.DNS_SLOW, ("cluster-dns", "kubernetes-api", "database", "broker"), ANY, says=("lose messages",)
            ),
        ),
        patience_seconds=40.0,
    ),
    Scenario(
        name="dns-search-storm",
        title="Each answer takes 150 ms, and a public name is searched for in three domains first",
        targets=("database", "web", "api", "shop"),
        break_=lambda world: world.script_nameservers(late(0.15, world.zone)),
        expected=(Expected(Cause.DNS_SLOW, ("api", "shop"), says=("ndots",)),),
        recovers=True,
    ),
    Scenario(
        name="name-in-another-namespace",
        title="A Service is asked for by its bare name, and is in another namespace",
        targets=("cluster-dns", "kubernetes-api", "ledger", "api", target("ledger", name="bare", url="http://ledger/")),
        from_start=True,
        expected=(Expected(Cause.NAME_NOT_FOUND, ("bare",), says=("in the namespace finance", "ledger.finance")),),
    ),
    Scenario(
        name="name-of-no-service",
        title="There is no such Service",
        targets=("cluster-dns", "kubernetes-api", "database", "api", target("web", name="missing", url="http://wbe/")),
        from_start=True,
        expected=(Expected(Cause.NAME_NOT_FOUND, ("missing",), says=("no Service wbe",)),),
    ),
    Scenario(
        name="name-gone",
        title="A public name is deleted",
        break_=lambda world: world.records({"hooks.example.org": ()}),
        expected=(Expected(Cause.NAME_NOT_FOUND, ("hooks",), says=("hooks.example.org does not exist",)),),
        recovers=True,
    ),
    Scenario(
        name="name-needs-a-search-domain",
        title="resolv.conf has no search list: names of Services are known in full only",
        targets=(
            {"name": "full", "type": "dns", "query": "kubernetes.default.svc.cluster.local"},
            "api",
            target("web", url="http://web.airflow/", scope="cluster"),
            target("ledger", scope="cluster"),
        ),
        prepare=lambda world: world.resolv_conf(resolv_conf("")),
        from_start=True,
        expected=(Expected(Cause.NAME_NOT_FOUND, ("web", "ledger"), says=("svc.cluster.local is missing",)),),
    ),
    Scenario(
        name="name-with-a-dot-at-its-end",
        title="A Service's name ends with a dot, which keeps the search list from it",
        targets=("cluster-dns", "kubernetes-api", "api", target("web", name="rooted", url="http://web.airflow.svc./")),
        from_start=True,
        expected=(Expected(Cause.NAME_NOT_FOUND, ("rooted",), says=("the dot at the end",)),),
    ),
    Scenario(
        name="name-without-ipv4",
        title="A name has IPv6 addresses only, and IPv4 is asked for",
        targets=("cluster-dns", "kubernetes-api", "api", target("six", family="4")),
        from_start=True,
        expected=(Expected(Cause.NAME_NOT_FOUND, ("six",), says=("AAAA records only",)),),
    ),
    Scenario(
        name="nameservers-disagree",
        title="The first nameserver does not know a name that the second one knows",
        targets=("cluster-dns", "kubernetes-api", "database", "api", "wiki"),
        break_=lambda world: world.script_nameserver(
            1, mostly(world.zone, "wiki.corp.internal", answering("NXDOMAIN"))
        ),
        expected=(Expected(Cause.NAME_NOT_FOUND, ("wiki",), says=(f"for the nameserver {SECOND} only",)),),
    ),
)
