"""The alerts of netprobe-causes.yaml, in every situation.

All alerts of a level are played together: each scene has pods which say every cause there is, and each alert fires for
its own causes and for no other. So every pod has several causes, and counts once all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.rules.pods import Pod, Says, all_series, glimpsed, scraped, short_lived
from tests.rules.promtool import Case, Firing, Series, Situation, series

END = 600
RUNBOOK = "https://runbooks.example.com/netprobe/runbook.md"
GRAFANA = "https://grafana.example.com/d"

SayAt = Callable[[int], Says]


def always(what: Says) -> SayAt:
    return lambda _: what


def during(begins: int, ends: int, what: Says) -> SayAt:
    """So from the first second on and before the last, and well before and afterwards."""
    well = healthy(what.targets)
    return lambda now: what if begins <= now < ends else well


def healthy(targets: Iterable[str]) -> Says:
    return Says(targets=dict.fromkeys(targets))


def some_of(
    bad: int,
    good: int,
    says: Says | SayAt,
    *,
    counters: bool = False,
    namespace: str = "airflow",
    dag_id: str = "orders",
    task_id: str = "load",
) -> list[Series]:
    """Pods of one task that live through the whole test: some of which say something, and some that are well."""

    def pods(what: str, number: int) -> list[Pod]:
        return [
            scraped(f"{dag_id}-{task_id}-{what}-{one}", 0, END, namespace=namespace, dag_id=dag_id, task_id=task_id)
            for one in range(number)
        ]

    say = always(says) if isinstance(says, Says) else says
    well = healthy(say(0).targets)
    return [*all_series(pods("bad", bad), say, counters=counters), *all_series(pods("good", good), always(well))]


def without_target_diagnosis(found: Iterable[Series]) -> list[Series]:
    """As of pods that cannot say which target a cause is about."""
    return [one for one in found if not one.name.startswith("netprobe_target_diagnosis")]


def late_push(name: str) -> Pod:
    """A pod that is heard of once a minute, and once only after two minutes less a few seconds."""
    return Pod(name=name, heard=(0, 60, 120, 180, 295, 355, 415, 475, 535, 595))


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is expected of an alert, written down apart from the rules."""

    name: str
    severity: str
    family: str
    level: str
    causes: Mapping[str, str]
    """Its causes, and how the summary of each ends, or what it is."""
    runs_for: int = 150
    """Its `for`."""

    def labels(self, cause: str) -> dict[str, str]:
        explains = {"explains": "targets"} if self.level == "fleet" and self.severity == "page" else {}
        target = {"target": target_of(cause)} if self.level == "target" else {}
        return {
            "severity": self.severity,
            "level": self.level,
            "family": self.family,
            **explains,
            "namespace": "airflow",
            "cause": cause,
            **target,
        }

    def firing(self) -> list[Firing]:
        """For each of its causes."""
        return [Firing(self.labels(cause)) for cause in self.causes]


def target_of(cause: str) -> str:
    """The target that a cause is said of."""
    return f"{cause}-db"


def quorum_cases(alerts: Sequence[Expected], says: Says) -> Iterator[Case]:
    """What is so of fleet and target alike: 3 pods at least, or all of 2, and more than a quarter of them."""

    def never(situation: Situation, name: str, scene: Sequence[Series]) -> Iterator[Case]:
        for alert in alerts:
            yield Case(alert=alert.name, situation=situation, name=name, series=scene, firing={END: []}, never_from=0)

    scene = [
        *some_of(3, 8, says),
        *some_of(2, 8, says, namespace="airflow-test"),
        *some_of(0, 9, says, namespace=""),
    ]
    for alert in alerts:
        begins = alert.runs_for
        yield Case(
            alert=alert.name,
            situation=Situation.FIRES,
            name="3 pods of 11, in one of several namespaces",
            series=scene,
            firing={begins - 30: [], begins: alert.firing(), END: alert.firing()},
            without_gap=(begins, END),
        )
    scene = [
        *all_series([late_push(f"bad-{n}") for n in range(3)], always(says)),
        *all_series([late_push(f"good-{n}") for n in range(8)], always(healthy(says.targets))),
    ]
    for alert in alerts:
        yield Case(
            alert=alert.name,
            situation=Situation.FIRES,
            name="heard of once a minute, and once late",
            series=scene,
            firing={END: alert.firing()},
            without_gap=(alert.runs_for, END),
        )
    yield from never(Situation.BELOW, "3 pods of 12", some_of(3, 9, says))
    yield from never(Situation.BELOW, "2 pods of 3", some_of(2, 1, says))
    yield from never(
        Situation.BELOW,
        "a blip that ended every pod that saw it",
        all_series([glimpsed(f"{n}", 5 * (n % 2)) for n in range(12)], always(says)),
    )
    yield from never(Situation.BELOW, "a blip that all pods survived", some_of(12, 0, during(300, 315, says)))
    scene = some_of(5, 3, during(0, 360, says))
    for alert in alerts:
        # Two minutes longer than the cause, which is over at 360.
        yield Case(
            alert=alert.name,
            situation=Situation.RESOLVES,
            name="when pods recover",
            series=scene,
            firing={330: alert.firing(), 450: alert.firing(), 480: [], END: []},
            never_from=480,
        )
    yield from never(
        Situation.MISSING,
        "nothing but Prometheus itself",
        [series("up", {"job": "netprobe", "namespace": "airflow"}, dict.fromkeys(range(0, END, 15), 1))],
    )
    yield from never(
        Situation.MISSING,
        "pods that have no result yet",
        [
            series(
                "netprobe_diagnosis",
                {"namespace": "airflow", "pod": f"{n}", "cause": cause},
                dict.fromkeys(range(0, END, 15), 0),
            )
            for n in range(4)
            for cause in (*says.causes, "healthy")
        ],
    )
    scene = all_series([scraped(f"bad-{n}", 0, 360, ended=True) for n in range(4)], always(says))
    for alert in alerts:
        yield Case(
            alert=alert.name,
            situation=Situation.MISSING,
            name="pods that all vanish",
            series=scene,
            # Their last word, of second 345, counts for two minutes, and the alert goes on for two more.
            firing={450: alert.firing(), 570: alert.firing(), 600: [], 720: []},
            never_from=600,
        )
    scene = all_series(short_lived(0, 800), during(0, 500, says))
    for alert in alerts:
        # Two of them are there at 20 seconds, which are enough where they are all.
        begins = 30 + alert.runs_for
        yield Case(
            alert=alert.name,
            situation=Situation.SHORT_PODS,
            name="one after the other",
            series=scene,
            firing={begins - 30: [], begins: alert.firing(), 510: alert.firing(), 780: []},
            without_gap=(begins, 510),
            never_from=750,
        )


# --- what all pods have in common -----------------------------------------------------------------------------------

FLEET: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "NetprobeNetworkDown": (
        "page",
        "network",
        {
            "network_down": "get no answer from anything: their network is down",
            "no_route": "have no route to what they need",
        },
    ),
    "NetprobeEgressBlocked": (
        "page",
        "egress",
        {
            "egress_blocked": "reach nothing outside the cluster",
            "cluster_blocked": "reach nothing in the cluster but what is outside",
            "private_network_unreachable": "do not reach the private network, as behind a VPN or a peering",
        },
    ),
    "NetprobeDNSDown": (
        "page",
        "dns",
        {
            "dns_unreachable": "get no answer from any nameserver",
            "dns_failing": "get errors from their nameservers",
        },
    ),
    "NetprobeDNSSlow": (
        "ticket",
        "dns",
        {
            "dns_slow": "wait long for their lookups",
            "dns_nameserver_down": "ask a nameserver that does not answer, before one that does",
        },
    ),
    "NetprobeProxyDown": (
        "page",
        "proxy",
        {
            "proxy_unreachable": "do not reach their proxy",
            "proxy_auth": "are refused by their proxy, which wants other credentials",
        },
    ),
    "NetprobeTLSIntercepted": (
        "page",
        "tls",
        {
            "tls_interception": "are shown certificates of one unknown issuer for unrelated names: "
            "something on the way opens TLS",
        },
    ),
    "NetprobeClockSkew": ("ticket", "clock", {"clock_skew": "run on nodes with a wrong clock"}),
    "NetprobeMeshNotReady": (
        "page",
        "mesh",
        {"mesh_not_ready": "cannot send anything, because the proxy of the mesh in the pod is not ready"},
    ),
    "NetprobePacketLoss": ("ticket", "performance", {"packet_loss": "lose packets on the way"}),
}


FLEET_ALERTS = [
    Expected(name=name, severity=severity, family=family, level="fleet", causes=causes)
    for name, (severity, family, causes) in FLEET.items()
]
FLEET_CAUSES = [cause for alert in FLEET_ALERTS for cause in alert.causes]


def fleet_firing(alert: Expected, share: str, description: str) -> list[Firing]:
    """With what it says, in which `{cause}` is the cause."""
    return [
        Firing(
            alert.labels(cause),
            {
                "summary": f"{share} of the pods in namespace airflow {what}.",
                "description": description.format(cause=cause),
                "runbook_url": f"{RUNBOOK}#{cause}",
                "dashboard_url": f"{GRAFANA}/netprobe-fleet?var-namespace=airflow",
            },
        )
        for cause, what in alert.causes.items()
    ]


def fleet_cases() -> Iterator[Case]:
    said = Says(FLEET_CAUSES, {target_of(cause): cause for cause in FLEET_CAUSES})
    yield from quorum_cases(FLEET_ALERTS, said)

    scene = [*some_of(2, 0, said), *some_of(1, 0, said, namespace="staging")]
    for alert in FLEET_ALERTS:
        yield Case(
            alert=alert.name,
            situation=Situation.FIRES,
            name="two pods of two, and not the only one of another namespace",
            series=scene,
            firing={alert.runs_for - 30: [], alert.runs_for: alert.firing(), END: alert.firing()},
        )

    more = Says(said.causes, {**said.targets, **{f"{cause}-api": cause for cause in said.causes}})
    scene = [*some_of(3, 5, more, counters=True), *some_of(1, 2, said, counters=True, task_id="send")]
    for alert in FLEET_ALERTS:
        yield Case(
            alert=alert.name,
            situation=Situation.FIRES,
            name="says two targets and one DAG",
            series=scene,
            firing={
                END: fleet_firing(
                    alert,
                    "36%",
                    "4 of 11 pods in namespace airflow say {cause}. It shows at the targets {cause}-db and "
                    "{cause}-api. The DAG orders is affected. Most failures of the last five minutes are "
                    "connect/refused.",
                )
            },
        )
    (dns,) = (alert for alert in FLEET_ALERTS if alert.name == "NetprobeDNSDown")
    yield Case(
        alert=dns.name,
        situation=Situation.FIRES,
        name="says several, all of whom are named",
        series=[
            one
            for number, dag in enumerate("abcdefg")
            for one in some_of(
                8 - number,
                0,
                Says(
                    list(dns.causes),
                    {f"{cause}-{target}": cause for cause in dns.causes for target in "tuvwxyz"[number:]},
                ),
                dag_id=f"dag_{dag}",
            )
        ],
        firing={
            END: fleet_firing(
                dns,
                "100%",
                "35 of 35 pods in namespace airflow say {cause}. "
                "It shows at the targets {cause}-z, {cause}-y, {cause}-x, {cause}-w, {cause}-v, {cause}-u and "
                "{cause}-t. The DAGs dag_a, dag_b, dag_c, dag_d, dag_e, dag_f and dag_g are affected.",
            )
        },
    )
    scene = without_target_diagnosis(some_of(3, 2, said, dag_id="", task_id=""))
    for alert in FLEET_ALERTS:
        yield Case(
            alert=alert.name,
            situation=Situation.MISSING,
            name="no DAG, no target, no counter: nothing is said of them",
            series=scene,
            firing={0: [], END: fleet_firing(alert, "60%", "3 of 5 pods in namespace airflow say {cause}.")},
        )


# --- what is wrong with one target ----------------------------------------------------------------------------------

TARGETS: Mapping[str, tuple[str, str, int, Mapping[str, str]]] = {
    "NetprobeServiceDown": (
        "page",
        "service",
        150,
        {
            "service_without_endpoints": "{target} fails for {}: the Service has no ready pod behind it.",
            "nothing_listening": "{target} fails for {}: nobody listens on its port.",
            "stalled_after_connect": "{target} fails for {}: it takes connections and then says nothing.",
        },
    ),
    "NetprobeTargetBlocked": (
        "page",
        "egress",
        150,
        {
            "target_blocked": "{target} fails for {}: it alone is silent or refused by a filter, and its "
            "neighbours answer."
        },
    ),
    "NetprobeDatabaseDown": (
        "page",
        "database",
        300,
        {
            "database_full": "{target} fails for {}: the database server has no connection left.",
            "database_starting": "{target} fails for {}: the database server starts, recovers or shuts down.",
        },
    ),
    "NetprobeCredentialsRejected": (
        "page",
        "credentials",
        150,
        {
            "credentials_rejected": "{target} fails for {}: it does not accept the credentials.",
            "access_denied": "{target} fails for {}: it knows us and does not let us in.",
        },
    ),
    "NetprobeTLSFailing": (
        "page",
        "tls",
        150,
        {
            "tls_certificate": "{target} fails for {}: its certificate is expired, for another name, or of an "
            "authority that is not trusted.",
        },
    ),
    "NetprobeMeshNoUpstream": (
        "page",
        "mesh",
        150,
        {
            "mesh_no_upstream": "{target} fails for {}: the proxy of the mesh takes the connection and has nowhere to "
            "send it.",
        },
    ),
    "NetprobeNameNotFound": (
        "ticket",
        "dns",
        150,
        {"name_not_found": "{target} fails for {}: the nameservers say that there is no such name."},
    ),
    "NetprobeAddressWrong": (
        "ticket",
        "address",
        150,
        {
            "wrong_port": "{target} fails for {}: nobody listens on this port, but on another one of the same host.",
            "hardcoded_address": "{target} fails for {}: its address is written down as a number, and such "
            "addresses move.",
        },
    ),
    "NetprobeAddressDead": (
        "ticket",
        "address",
        150,
        {
            "one_address_dead": "{target} fails at some of its addresses for {}: others of the same name answer.",
            "ipv6_broken": "{target} fails at some of its addresses for {}: those of IPv6 fail and those of IPv4 "
            "answer.",
        },
    ),
    "NetprobeDatabaseMissing": (
        "ticket",
        "database",
        150,
        {"database_missing": "{target} fails for {}: the server has no such database."},
    ),
    "NetprobeTLSMismatch": (
        "ticket",
        "tls",
        150,
        {
            "tls_protocol": "{target} fails for {}: the two sides find no version or cipher of TLS in common.",
            "plain_text_on_tls_port": "{target} fails for {}: its port speaks TLS and is spoken to in plain text.",
            "tls_on_plain_text_port": "{target} fails for {}: its port speaks plain text and is spoken to in TLS.",
        },
    ),
    "NetprobeProxyDenied": (
        "ticket",
        "proxy",
        150,
        {"proxy_denied": "{target} fails for {}: the rules of the proxy forbid it."},
    ),
    "NetprobeAnswerWrong": (
        "ticket",
        "content",
        150,
        {
            "server_error": "{target} fails for {}: it was reached and failed by itself.",
            "wrong_content": "{target} fails for {}: its answer is not the one expected.",
        },
    ),
    "NetprobeTargetSlow": (
        "ticket",
        "performance",
        300,
        {"slow": "{target} is slow for {}: it answers, and takes most of the time it has."},
    ),
    "NetprobeTargetFlapping": (
        "ticket",
        "performance",
        300,
        {"flapping": "{target} fails and answers by turns for {}: and nothing explains each failure."},
    ),
    "NetprobePolicyNotEnforced": (
        "ticket",
        "policy",
        150,
        {"policy_not_enforced": "{target} can be reached by {}, and must not: a policy is missing or not enforced."},
    ),
    "NetprobeUnexplained": (
        "ticket",
        "unknown",
        150,
        {"unknown": "{target} fails for {}: what was seen fits no cause."},
    ),
}
TARGET_ALERTS = [
    Expected(name=name, severity=severity, family=family, level="target", causes=causes, runs_for=runs_for)
    for name, (severity, family, runs_for, causes) in TARGETS.items()
]
TARGET_CAUSES = [cause for alert in TARGET_ALERTS for cause in alert.causes]
WORKING = "slow"
"""The cause of targets that answer."""


def target_firing(alert: Expected, share: str, description: str, failures: str = "") -> list[Firing]:
    """With what it says, in which `{cause}` and `{target}` stand for those; `failures` is said of what fails."""
    return [
        Firing(
            alert.labels(cause),
            {
                "summary": summary.format(f"{share} of the pods in namespace airflow", target=target_of(cause)),
                "description": description.format(cause=cause, target=target_of(cause))
                + (failures if cause != WORKING else ""),
                "runbook_url": f"{RUNBOOK}#{cause}",
                "dashboard_url": f"{GRAFANA}/netprobe-target?var-namespace=airflow&var-target={target_of(cause)}",
            },
        )
        for cause, summary in alert.causes.items()
    ]


def target_cases() -> Iterator[Case]:
    said = Says(TARGET_CAUSES, {target_of(cause): cause for cause in TARGET_CAUSES}, slow=(target_of(WORKING),))
    # They probe something else, and have no part in the share.
    others = some_of(0, 20, healthy(["another"]), dag_id="another")
    yield from quorum_cases(TARGET_ALERTS, said)

    scene = [*some_of(2, 0, said, counters=True), *others]
    for alert in TARGET_ALERTS:
        yield Case(
            alert=alert.name,
            situation=Situation.FIRES,
            name="where two pods probe the target, and both say so; says one DAG",
            series=scene,
            firing={
                END: target_firing(
                    alert,
                    "100%",
                    "2 of 2 pods that probe {target} in namespace airflow say {cause}. The DAG orders is affected.",
                    " Most of its failures of the last five minutes are connect/refused.",
                )
            },
        )
    scene = [*some_of(1, 0, said), *others]
    for alert in TARGET_ALERTS:
        yield Case(
            alert=alert.name,
            situation=Situation.BELOW,
            name="the only pod that probes it",
            series=scene,
            firing={END: []},
            never_from=0,
        )
    (service,) = (alert for alert in TARGET_ALERTS if alert.name == "NetprobeServiceDown")
    yield Case(
        alert=service.name,
        situation=Situation.FIRES,
        name="says many, of whom ten are named",
        series=[
            one
            for number, dag in enumerate("abcdefghijk")
            for one in some_of(
                12 - number,
                1,
                Says(list(service.causes), {target_of(cause): cause for cause in service.causes}),
                dag_id=f"dag_{dag}",
            )
        ],
        firing={
            END: target_firing(
                service,
                "88%",
                "77 of 88 pods that probe {target} in namespace airflow say {cause}. The DAGs dag_a, dag_b, dag_c, "
                "dag_d, dag_e, dag_f, dag_g, dag_h, dag_i, dag_j and 1 more are affected.",
            )
        },
    )
    scene = some_of(3, 2, said, dag_id="", task_id="")
    for alert in TARGET_ALERTS:
        yield Case(
            alert=alert.name,
            situation=Situation.MISSING,
            name="no DAG and no counter: nothing is said of them",
            series=scene,
            firing={
                0: [],
                END: target_firing(alert, "60%", "3 of 5 pods that probe {target} in namespace airflow say {cause}."),
            },
        )


def hostile_cases() -> Iterator[Case]:
    """Names are whatever somebody wrote: a quotation mark ends no query, and braces are no template."""
    target, dag_id = 'a"b\\c{{.}} &ä', 'x"} or up{y="'
    says = Says(["nothing_listening"], {target: "nothing_listening"})
    labels = {
        "severity": "page",
        "level": "target",
        "family": "service",
        "namespace": "airflow",
        "cause": "nothing_listening",
        "target": target,
    }
    yield Case(
        alert="NetprobeServiceDown",
        situation=Situation.FIRES,
        name="names that nobody should give",
        series=some_of(4, 0, says, dag_id=dag_id),
        firing={
            END: [
                Firing(
                    labels,
                    {
                        "summary": f"{target} fails for 100% of the pods in namespace airflow: nobody listens on its "
                        "port.",
                        "description": f"4 of 4 pods that probe {target} in namespace airflow say nothing_listening. "
                        f"The DAG {dag_id} is affected.",
                        "runbook_url": f"{RUNBOOK}#nothing_listening",
                        "dashboard_url": f"{GRAFANA}/netprobe-target?var-namespace=airflow"
                        "&var-target=a%22b%5Cc%7B%7B.%7D%7D+%26%C3%A4",
                    },
                )
            ]
        },
    )


# --- the symptom ----------------------------------------------------------------------------------------------------

FAILING = "NetprobeTargetFailing"
FAILING_LABELS = {
    "severity": "ticket",
    "level": "target",
    "family": "availability",
    "namespace": "airflow",
    "target": "db",
}
UNRESOLVED = Says(["dns_unreachable"], {"db": "dns_unreachable", "api": None})
"""A cause that is not the target's own."""


def failing(share: str, description: str) -> list[Firing]:
    """With what it says."""
    annotations = {
        "summary": f"db fails for {share} of the pods in namespace airflow that probe it.",
        "description": description,
        "runbook_url": f"{RUNBOOK}#netprobetargetfailing",
        "dashboard_url": f"{GRAFANA}/netprobe-target?var-namespace=airflow&var-target=db",
    }
    return [Firing(FAILING_LABELS, annotations)]


def failing_cases() -> Iterator[Case]:
    says, firing = UNRESOLVED, [Firing(FAILING_LABELS)]

    def never(situation: Situation, name: str, scene: Sequence[Series]) -> Case:
        return Case(alert=FAILING, situation=situation, name=name, series=scene, firing={END: []}, never_from=0)

    yield Case(
        alert=FAILING,
        situation=Situation.FIRES,
        name="half of the pods",
        series=some_of(2, 2, says, counters=True),
        firing={
            150: [],
            180: firing,
            END: failing(
                "50%",
                "2 of 4 pods that probe db in namespace airflow fail at it. They say dns_unreachable. "
                "The DAG orders is affected. Most of its failures of the last five minutes are connect/refused.",
            ),
        },
        without_gap=(180, END),
    )
    yield Case(
        alert=FAILING,
        situation=Situation.FIRES,
        name="pods that disagree about the cause",
        series=[
            *some_of(4, 0, Says(["dns_failing"], {"db": "dns_failing"}), dag_id="billing"),
            *some_of(3, 0, Says(["packet_loss"], {"db": "packet_loss"}), dag_id="orders"),
            *some_of(2, 0, Says(["unknown"], {"db": "unknown"}), dag_id="users"),
        ],
        firing={
            END: failing(
                "100%",
                "9 of 9 pods that probe db in namespace airflow fail at it. They say dns_failing, packet_loss and "
                "unknown. The DAGs billing, orders and users are affected.",
            )
        },
    )
    yield Case(
        alert=FAILING,
        situation=Situation.FIRES,
        name="in one of two namespaces",
        series=[*some_of(3, 1, says), *some_of(1, 3, says, namespace="airflow-test")],
        firing={END: firing},
    )
    yield Case(
        alert=FAILING,
        situation=Situation.FIRES,
        name="heard of once a minute, and once late",
        series=all_series([late_push(f"{n}") for n in range(3)], always(says)),
        firing={END: firing},
        without_gap=(180, END),
    )
    yield never(Situation.BELOW, "3 pods of 7", some_of(3, 4, says))
    yield never(Situation.BELOW, "the only pod", some_of(1, 0, says))
    blip = [glimpsed(f"{n}", 5 * (n % 2)) for n in range(12)]
    yield never(Situation.BELOW, "a blip that ended every pod that saw it", all_series(blip, always(says)))
    yield never(
        Situation.BELOW,
        "where enough pods agree on a cause of its own, which has an alert",
        some_of(6, 2, Says(["database_full"], {"db": "database_full"})),
    )
    yield Case(
        alert=FAILING,
        situation=Situation.RESOLVES,
        name="when pods recover",
        series=some_of(5, 3, during(0, 360, says)),
        firing={330: firing, 450: firing, 480: [], END: []},
        never_from=480,
    )
    yield never(Situation.MISSING, "nothing at all", [series("up", {}, {0: 1})])
    yield Case(
        alert=FAILING,
        situation=Situation.MISSING,
        name="no DAG, no cause, no counter: nothing is said of them",
        series=[one for one in some_of(3, 2, says, dag_id="", task_id="") if "diagnosis" not in one.name],
        firing={0: [], END: failing("60%", "3 of 5 pods that probe db in namespace airflow fail at it.")},
    )
    yield Case(
        alert=FAILING,
        situation=Situation.MISSING,
        name="pods that all vanish",
        series=all_series([scraped(f"bad-{n}", 0, 360, ended=True) for n in range(4)], always(says)),
        firing={570: firing, 600: [], 720: []},
        never_from=600,
    )
    yield Case(
        alert=FAILING,
        situation=Situation.SHORT_PODS,
        name="one after the other",
        series=all_series(short_lived(0, 800), during(0, 500, says)),
        # The second is there at 20 seconds.
        firing={180: [], 210: firing, 510: firing, 780: []},
        without_gap=(210, 510),
    )


# --- one DAG --------------------------------------------------------------------------------------------------------

AFFECTED = "NetprobeDAGAffected"
AFFECTED_LABELS = {
    "severity": "ticket",
    "level": "dag",
    "family": "dag",
    "namespace": "airflow",
    "dag_id": "orders",
    "cause": "name_not_found",
}
MISSPELT = Says(["name_not_found"], {"db": "name_not_found"})


def affected(share: str, description: str) -> list[Firing]:
    """With what it says, less what they all begin with."""
    annotations = {
        "summary": f"{share} of the pods of DAG orders in namespace airflow said name_not_found last.",
        "description": description,
        "runbook_url": f"{RUNBOOK}#name_not_found",
        "dashboard_url": f"{GRAFANA}/netprobe-task?var-namespace=airflow&var-dag_id=orders",
    }
    return [Firing(AFFECTED_LABELS, annotations)]


def dag_cases() -> Iterator[Case]:
    says, firing = MISSPELT, [Firing(AFFECTED_LABELS)]
    others = some_of(0, 9, healthy(["db"]), dag_id="billing")

    def never(situation: Situation, name: str, scene: Sequence[Series]) -> Case:
        return Case(alert=AFFECTED, situation=situation, name=name, series=scene, firing={END: []}, never_from=0)

    yield Case(
        alert=AFFECTED,
        situation=Situation.FIRES,
        name="half of a DAG's pods, which have another cause as well",
        series=[
            *some_of(2, 2, Says([*says.causes, "prober_starved"], {**says.targets, "api": None}), counters=True),
            *others,
        ],
        firing={
            210: [],
            240: firing,
            END: affected(
                "50%",
                "2 of 4 pods that DAG orders in namespace airflow had within a quarter of an hour said name_not_found "
                "last. It shows at the target db. The task load is affected. Most failures of these minutes are "
                "connect/refused.",
            ),
        },
        without_gap=(240, END),
    )
    both = Says(["name_not_found"], {"db": "name_not_found", "api": "name_not_found"})
    yield Case(
        alert=AFFECTED,
        situation=Situation.FIRES,
        name="says which tasks",
        series=[*some_of(3, 0, says, task_id="load"), *some_of(2, 0, both, task_id="send"), *others],
        firing={
            END: affected(
                "100%",
                "5 of 5 pods that DAG orders in namespace airflow had within a quarter of an hour said name_not_found "
                "last. It shows at the targets db and api. The tasks load and send are affected.",
            )
        },
    )
    yield Case(
        alert=AFFECTED,
        situation=Situation.FIRES,
        name="a pod every ten minutes",
        series=all_series([glimpsed(f"{n}", 600 * n) for n in range(6)], always(says)),
        firing={3600: firing},
        without_gap=(840, 3600),
    )
    yield Case(
        alert=AFFECTED,
        situation=Situation.FIRES,
        name="in one of two namespaces, where the other has a DAG of the same name",
        series=[*some_of(2, 1, says), *some_of(1, 3, says, namespace="airflow-test")],
        firing={END: firing},
    )
    yield never(Situation.BELOW, "2 pods of 5", some_of(2, 3, says))
    yield never(Situation.BELOW, "the only pod", some_of(1, 0, says))
    yield never(Situation.BELOW, "a blip that all pods survived", some_of(4, 0, during(300, 315, says)))
    yield never(
        Situation.BELOW,
        "what is netprobe's own trouble",
        some_of(4, 0, Says(["prober_starved", "probe_misconfigured"], {"db": None})),
    )
    outage = Says(["dns_unreachable"], {"db": "dns_unreachable"})
    ending = [glimpsed(f"{n}", 10 * n) for n in range(60)]
    yield Case(
        alert=AFFECTED,
        situation=Situation.BELOW,
        name="what the whole namespace has, also when that is over",
        series=[*all_series(ending, always(outage)), *some_of(1, 1, healthy(["db"]), dag_id="billing")],
        firing={1800: []},
        never_from=0,
    )
    yield Case(
        alert=AFFECTED,
        situation=Situation.RESOLVES,
        name="when the pods recover",
        series=some_of(3, 1, during(0, 300, says)),
        firing={300: firing, 870: firing, 960: [], 1200: []},
        never_from=960,
    )
    yield never(Situation.MISSING, "nothing at all", [series("up", {}, {0: 1})])
    yield never(Situation.MISSING, "nobody says whose pods they are", some_of(5, 0, says, dag_id="", task_id=""))
    yield Case(
        alert=AFFECTED,
        situation=Situation.MISSING,
        name="no task, no target, no counter: nothing is said of them",
        series=without_target_diagnosis(some_of(3, 2, says, task_id="")),
        firing={
            0: [],
            END: affected(
                "60%",
                "3 of 5 pods that DAG orders in namespace airflow had within a quarter of an hour said name_not_found "
                "last.",
            ),
        },
    )
    yield Case(
        alert=AFFECTED,
        situation=Situation.SHORT_PODS,
        name="one after the other",
        series=all_series(short_lived(0, 2400), during(0, 900, says)),
        # The second is there at 20 seconds. Half of the window is healthy seven and a half minutes after the first of
        # them is, and the alert goes on for ten minutes more.
        firing={240: [], 270: firing, 1290: firing, 1920: firing, 2010: [], 2400: []},
        without_gap=(270, 1920),
        never_from=2010,
    )


CASES = [*fleet_cases(), *target_cases(), *hostile_cases(), *failing_cases(), *dag_cases()]
