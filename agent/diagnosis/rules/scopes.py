"""Whole parts of the network that do not answer: all of it, the internet, the cluster, a private network."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from agent.diagnosis.experiment import Connect, LocalNetwork, Lookup
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnosis.rules.names import answered_meanwhile
from agent.diagnosis.rules.reading import (
    UNANSWERED,
    all_seen,
    direct,
    ended_at,
    failing_since,
    literal,
    names,
    settled,
    some,
    unsettled,
    within_pod,
)
from agent.diagnosis.rules.saying import domain, host
from agent.diagnosis.rules.standing import UNHEARD, Standing, Way, newest_change
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Verdict
from agent.model import Phase, Reason, Scope
from agent.networks import ip_address
from agent.wording import count

_NEIGHBOURS = 2
"""How many hosts of a scope are asked whether they still answer."""


# --- everything ------------------------------------------------------------------------------------------------------


def network_down(case: Case) -> Iterator[Verdict]:
    """Nothing answers: no nameserver, no address inside or outside the cluster."""
    outside = [h for h in case.snapshot.histories if h.last is not None and not h.target.negative and not within_pod(h)]
    failing = [h for h in outside if _unheard(h, case)]
    if not failing or len(failing) < len(outside) or any(map(_answered_all_the_same, case.snapshot.failing)):
        return
    found = [h for h in failing if case.is_open(h.name)]
    if not found or len(found) < len(failing):
        return  # an earlier rule knows better
    since = newest_change(found)
    api = case.standings.kubernetes_api(found)
    if api not in {None, *UNHEARD}:
        return
    lookups = [h for h in found if case.lookup_failed(h)]
    if case.nameservers.answered_since(since) or (lookups and answered_meanwhile(case, lookups)):
        return
    dead = [s for s in case.standings.all if s.way in UNHEARD]
    scopes = {s.scope for s in dead} | ({Scope.CLUSTER} if api is not None else set())
    nameservers = [server for server in case.nameservers.known if case.nameservers.answers(server) is False]
    tables = case.standings.tables
    cut_off = tables is not None and any(gateway.resolved is False for gateway in tables.gateways)
    routeless = _without_route(case)
    if not (cut_off or routeless or (nameservers and scopes) or len(scopes) > 1):
        return
    evidence = [f"nameserver {server} does not answer" for server in nameservers[:3]]
    if (address := case.snapshot.pod.kubernetes_api) is not None and api is not None:
        evidence.append(f"the Kubernetes API at {address[0]}:{address[1]}: {_AS_SEEN[api]}")
    if tables is not None:
        evidence += _link(case)
    yield Verdict(
        cause=Cause.NETWORK_DOWN,
        confidence=settled(found, agreed=api is not None or cut_off or routeless),
        targets=names(found),
        summary=f"Nothing answers this pod, inside the cluster or outside: {_why_down(case)}.",
        evidence=tuple(evidence + all_seen(found, 3)),
        advice=f"No policy takes a route away: {_LOOK_AT_NODE}"
        if routeless
        else "`kubectl get networkpolicy` in this namespace: a policy that denies all egress must allow DNS and what "
        f"the pod needs (deploy/examples/networkpolicy-dns.yaml). If there is none, {_LOOK_AT_NODE}",
    )


_LOOK_AT_NODE = (
    "look at the node's network: `kubectl get pods -o wide --field-selector spec.nodeName=NODE`, and the logs of "
    "its CNI pod."
)
_AS_SEEN = {
    Way.SILENT: "no answer",
    Way.REFUSED: "refused",
    Way.REJECTED: "refused by an ICMP message",
    Way.FORBIDDEN: "forbidden by a packet filter",
    Way.UNREACHABLE: "there is no way to it",
    Way.CLOSED: "its host refuses",
    Way.ANSWERS: "answers",
}


def _answered_all_the_same(history: History) -> bool:
    """Whether a target that must not be reachable, or a proxy on the way to it, answered."""
    failure = history.failure
    if failure is None or not history.target.negative or within_pod(history):
        return False
    return failure.phase not in {Phase.RESOLVE, Phase.CONNECT} and failure.reason is not Reason.INTERNAL


def _unheard(history: History, case: Case) -> bool:
    """Whether its latest run heard nothing of anybody."""
    failure = history.failure
    if failure is None:
        return False
    if case.lookup_failed(history):
        return failure.reason in UNANSWERED
    if failure.phase is Phase.CONNECT and not direct(history.outcomes[0]):
        return failure.reason in {Reason.TIMEOUT, Reason.UNREACHABLE, Reason.DENIED}
    standing = case.standings[history.name]
    return failure.phase in {Phase.CONNECT, Phase.RESOLVE} and standing is not None and standing.way in UNHEARD


def _without_route(case: Case) -> bool:
    """Whether the pod has lost its way out: addresses without a route, and no default route of their kind."""
    tables = case.standings.tables
    if tables is None or tables.default_routes is None:
        return False
    versions = {address.version for ip in tables.unrouted if (address := ip_address(ip)) is not None}
    return not tables.default_routes or (bool(versions) and versions.isdisjoint(tables.default_routes))


def _why_down(case: Case) -> str:
    tables = case.standings.tables
    if tables is None:
        return "consistent with a policy that denies all egress, or with a broken network of the pod"
    if _without_route(case):
        return "the pod has no default route"
    if any(gateway.resolved is False for gateway in tables.gateways):
        return "its gateway does not answer on the link either, so that the pod's own network is broken"
    if any(gateway.resolved for gateway in tables.gateways):
        return "its gateway is there on the link, which is consistent with a policy that denies all egress"
    return "consistent with a policy that denies all egress, or with a broken network of the pod"


def _link(case: Case) -> Iterator[str]:
    tables = case.standings.tables
    for gateway in tables.gateways if tables is not None else ():
        if gateway.resolved is not None:
            known = "answers on the link" if gateway.resolved else "does not answer on the link"
            yield f"the gateway {gateway.ip} {known}"


# --- one scope -------------------------------------------------------------------------------------------------------


def egress_blocked(case: Case) -> Iterator[Verdict]:
    """All that is public is silent or turned away, while something inside answers."""
    public = list(case.standings.of(Scope.PUBLIC))
    found = _blocked(public, case)
    if not found:
        return
    histories = [s.history for s in found]
    since = newest_change(histories)
    api = case.standings.kubernetes_api(histories)
    others = [s for s in case.standings.all if s.scope is not Scope.PUBLIC]
    inside = [s.name for s in others if s.way in {Way.ANSWERS, Way.CLOSED}]
    named = case.nameservers.answered_since(since)
    if not inside and api is not Way.ANSWERS and not named:
        if len(_hosts(found)) < 2 or others:  # noqa: PLR2004 - one host alone says nothing about a scope
            return
    elif not inside and api in UNHEARD and all(s.way in UNHEARD for s in others):
        rest = [s for s in others if case.is_open(s.name)]
        yield _all_but_names([*found, *rest], case)
        return
    proxied = [h.name for h in case.snapshot.working if not direct(h.outcomes[0])]
    evidence = []
    if api is Way.ANSWERS:
        evidence.append("the Kubernetes API answers at its address")
    if inside:
        evidence.append(f"inside, {some(inside)} {'answers' if len(inside) == 1 else 'answer'}")
    if named:
        evidence.append("nameservers answer")
    if proxied:
        evidence.append(f"through the proxy, {some(proxied)} {'answers' if len(proxied) == 1 else 'answer'}")
    # Also those whose last run succeeded, where an experiment found since that they do not answer any more.
    answering = "what is inside answers" if inside or api is Way.ANSWERS else "nameservers answer" if named else None
    meanwhile = f", while {answering}" if answering else ""
    doubt = _doubt(public, compared=answering is not None)
    yield Verdict(
        cause=Cause.EGRESS_BLOCKED,
        confidence=unsettled(histories, agreed=_agreed(found)) if doubt else settled(histories),
        targets=names(histories),
        summary=f"{_all_of(public, 'public')} {_how(public)}{meanwhile}: consistent with an egress policy or a "
        f"firewall{doubt}.",
        evidence=tuple(evidence + _details(found) + all_seen(histories, 3)),
        advice=(
            "Public targets that go through the proxy answer: set HTTPS_PROXY and HTTP_PROXY for these as well. "
            if proxied
            else ""
        )
        + "Look for a NetworkPolicy that selects this pod (`kubectl get networkpolicy`) and allow egress to these "
        "addresses and ports (deploy/examples/networkpolicy-target.yaml); then at the firewall or NAT gateway behind "
        "the nodes. Where only a proxy may leave, set HTTPS_PROXY.",
    )


def _doubt(public: Sequence[Standing], *, compared: bool) -> str:
    """What else it may be; empty where there is nothing."""
    if len(_hosts(public)) == 1:
        return ", or with this one host being down: no other public target is there to compare"
    if not _barred(public):
        return " that refuses in their place, or with nobody listening at any of them"
    if len({domain(host(s.history)) for s in public}) == 1:
        return ", or with all hosts of one owner being down: no other public target is there to compare"
    return "" if compared else ", or with the whole network being down: nothing inside is there to compare"


def _all_but_names(found: Sequence[Standing], case: Case) -> Verdict:
    order = {h.name: place for place, h in enumerate(case.snapshot.histories)}
    histories = sorted((s.history for s in found), key=lambda h: order[h.name])
    several = len(_hosts(found)) > 1
    one = "" if several else "; or this one host is down, and the Kubernetes API is kept from tasks"
    return Verdict(
        cause=Cause.EGRESS_BLOCKED,
        confidence=settled(histories) if several else unsettled(histories, agreed=_agreed(found)),
        targets=names(histories),
        summary="Nameservers answer and nothing else does, inside the cluster or outside: consistent with an egress "
        f"policy that allows DNS and nothing more{one}.",
        evidence=("the Kubernetes API does not answer at its address", *_details(found), *all_seen(histories, 4)),
        advice="Allow egress to what this pod needs in the NetworkPolicy that selects it: `kubectl get "
        "networkpolicy`; deploy/examples/networkpolicy-target.yaml is one.",
    )


def cluster_blocked(case: Case) -> Iterator[Verdict]:
    """All that is in the cluster is silent or turned away, while something outside answers."""
    found = _blocked(list(case.standings.of(Scope.CLUSTER)), case)
    if not found:
        return
    histories = [s.history for s in found]
    if not case.unexplained:
        return
    outside = [
        s.name for s in case.standings.all if s.scope is not Scope.CLUSTER and s.way in {Way.ANSWERS, Way.CLOSED}
    ]
    if not outside:
        return
    api = case.standings.kubernetes_api(histories)
    several = len(_hosts(found)) > 1
    if api in UNHEARD:
        also = "the Kubernetes API does not answer at its address either"
    elif several and all(s.way is Way.SILENT for s in found):
        also = "the Kubernetes API answers at its address" if api is not None else "nobody has asked the Kubernetes API"
    else:
        return  # Services of their own, each with a trouble of its own
    # Policies keep the Kubernetes API from tasks on purpose: that it is silent as well proves little about one host.
    certain = several and api in UNHEARD
    one = "" if several else ", or with this one being down: no other target of the cluster is there to compare"
    yield Verdict(
        cause=Cause.CLUSTER_BLOCKED,
        confidence=settled(histories) if certain else unsettled(histories, agreed=_agreed(found)),
        targets=names(histories),
        summary=f"{_all_of(found, 'cluster')} {_how(found)}, while what is outside answers: consistent with an egress "
        f"policy that leaves the cluster's own pods and Services out{one}.",
        evidence=(
            also,
            f"outside, {some(outside)} {'answers' if len(outside) == 1 else 'answer'}",
            *_details(found),
            *all_seen(histories, 3),
        ),
        advice="Look for a NetworkPolicy that selects this pod (`kubectl get networkpolicy`): its egress rules must "
        "name the namespaces and pods behind these Services, by labels (a rule sees the pod's address, not the "
        "ClusterIP): deploy/examples/networkpolicy-target.yaml. Services that fail on one node only point to its "
        "kube-proxy.",
    )


def private_unreachable(case: Case) -> Iterator[Verdict]:
    """What lies in one private network is silent, while something elsewhere answers."""
    private = list(case.standings.of(Scope.PRIVATE))
    elsewhere = [
        s.name for s in case.standings.all if s.scope is not Scope.PRIVATE and s.way in {Way.ANSWERS, Way.CLOSED}
    ]
    answering = {_network(s) for s in private if not s.barred}
    groups: dict[str, list[Standing]] = {}
    for standing in private:
        if standing.barred and case.is_open(standing.name) and _network(standing) not in answering:
            groups.setdefault(_network(standing), []).append(standing)
    for network, found in groups.items():
        histories = [s.history for s in found]
        since = newest_change(histories)
        api = case.standings.kubernetes_api(histories)
        if not elsewhere and not answering and api is not Way.ANSWERS and not case.nameservers.answered_since(since):
            continue
        several = len(_hosts(found)) > 1
        if not several and (answering or len(groups) > 1 or literal(found[0].history.target) is not None):
            continue  # one host of several private ones, or an address written down: see agent.diagnosis.rules.hosts
        others = elsewhere or [s.name for s in private if not s.barred]
        yield _private(network, found, others or ["the Kubernetes API" if api is Way.ANSWERS else "DNS"])


def _private(network: str, found: Sequence[Standing], elsewhere: Sequence[str]) -> Verdict:
    histories = [s.history for s in found]
    several = len(_hosts(found)) > 1
    unreachable = [s for s in found if s.way is Way.UNREACHABLE]
    who = "a router" if any(s.icmp is not None for s in unreachable) else "a router or this pod"
    reading = (
        f"{who} says that there is no way: a route to it is missing, or its hosts are down"
        if len(unreachable) == len(found)
        else "consistent with the VPN or peering being down, a missing route back, or a firewall or policy on the way"
    )
    one = "" if several else " (or this one host is down: no other target lies there)"
    return Verdict(
        cause=Cause.PRIVATE_NETWORK_UNREACHABLE,
        confidence=settled(histories) if several else unsettled(histories, agreed=_agreed(found)),
        targets=names(histories),
        summary=f"Nothing answers in the private network {network}{one}, while {some(elsewhere)} "
        f"{'does' if len(elsewhere) == 1 else 'do'}: {reading}.",
        evidence=(*_details(found), *all_seen(histories, 4)),
        advice=f"Look at the VPN or peering that leads to {network}: its state, its routes on both sides (the other "
        "side needs one back to the pods' or nodes' network), and its firewall. `traceroute -T -p PORT ADDRESS` from "
        "a node shows how far it goes. If a NetworkPolicy selects this pod, allow egress to that network.",
    )


def _network(standing: Standing) -> str:
    """The private network an address lies in, as far as that can be guessed: /16, or /48 of IPv6."""
    address = ip_address(standing.ip or "")
    if address is None:
        return standing.host
    return str(ipaddress.ip_network(f"{address}/{16 if address.version == 4 else 48}", strict=False))  # noqa: PLR2004


def _blocked(scope: Sequence[Standing], case: Case) -> list[Standing]:
    """Those of a scope that fail without an explanation, if all of it does."""
    unexplained = set(names(case.unexplained))
    found = [s for s in scope if s.fails and s.name in unexplained and s.way is not Way.ANSWERS]
    if not found or any(s.way is Way.ANSWERS for s in scope):
        return []
    refused = [s for s in scope if s.way in {Way.REFUSED, Way.CLOSED}]
    if not refused:
        return found
    # A filter may answer in the hosts' place, with a RST of its own: then every host does the same.
    alike = len(refused) == len(scope) and scope[0].scope is Scope.PUBLIC and len(_hosts(scope)) > 1
    return found if alike else []


def _hosts(found: Sequence[Standing]) -> list[str]:
    return sorted({s.host for s in found})


def _barred(found: Sequence[Standing]) -> bool:
    return all(s.barred for s in found)


def _agreed(found: Sequence[Standing]) -> bool:
    return any(s.agreed for s in found)


def _all_of(found: Sequence[Standing], what: str) -> str:
    hosts = len(_hosts(found))
    if len(found) == 1:
        return f"The only {what} target, {found[0].name},"
    return f"All {len(found)} {what} targets ({count(hosts, 'host')})"


def _how(found: Sequence[Standing]) -> str:
    ways = {s.way for s in found}
    one = len(found) == 1
    if ways == {Way.SILENT}:
        return "is silent" if one else "are silent"
    if ways <= {Way.REJECTED, Way.REFUSED, Way.CLOSED, Way.FORBIDDEN}:
        return "is refused" if one else "are refused"
    return "cannot be reached"


def _details(found: Sequence[Standing]) -> list[str]:
    """What experiments tell beyond the runs: who sent which ICMP message."""
    said = sorted({(s.icmp, s.icmp_from or "somebody") for s in found if s.icmp is not None})
    return [f"{sender} says: {what}" for what, sender in said[:2]]


# --- what to ask -----------------------------------------------------------------------------------------------------


def planner(case: Case) -> Iterator[Wanted]:
    """The controls every pod has for free, and whether what answered a while ago still does."""
    failing = [s for s in case.standings.all if s.fails and s.way in UNHEARD]
    if not failing:
        return
    targets = names(s.history for s in failing)
    pod = case.snapshot.pod
    yield Wanted(LocalNetwork(), targets)
    if pod.kubernetes_api is not None:
        yield Wanted(Connect(*pod.kubernetes_api), targets)
    since = min(failing_since(s.history) for s in failing)
    if not case.nameservers.answered_since(since):
        name = f"kubernetes.default.svc.{pod.cluster_domain or 'cluster.local'}"
        for server in pod.resolver.nameservers[:1]:
            yield Wanted(Lookup(name, "A", server), targets)
    for scope in Scope:
        yield from _still_there(scope, case)


def _still_there(scope: Scope, case: Case) -> Iterator[Wanted]:
    """Ask hosts of a scope whose last answer is older than a failure there."""
    standings = list(case.standings.of(scope))
    failing = [s for s in standings if s.fails and s.barred]
    if not failing:
        return
    first = min(failing_since(s.history) for s in failing)
    hosts = {s.ip for s in failing}
    asked = 0
    for standing in standings:
        last = standing.history.outcomes[0]
        stale = not standing.fails and ended_at(last) < first
        if stale and standing.endpoint is not None and standing.ip not in hosts and asked < _NEIGHBOURS:
            hosts.add(standing.ip)
            asked += 1
            yield Wanted(Connect(*standing.endpoint), names([failing[0].history]))
