"""One host that does not let us in: filtered, moved, or open although it must not be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.diagnosis.experiment import Connect
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnosis.rules.places import (
    address,
    all_called,
    are_several,
    by_endpoint,
    by_host,
    histories_of,
    who_refused,
)
from agent.diagnosis.rules.ports import mesh_here, open_ports, usual_ports, worked_before
from agent.diagnosis.rules.reading import all_seen, literal, names, seen, settled, some, unsettled
from agent.diagnosis.rules.standing import BARRED, UNHEARD, Standing, Way
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Phase, Reason, Scope
from agent.networks import ip_address, is_private
from agent.wording import seconds

_HOSTS = 8
"""How many hosts are looked into at a time: each costs a handful of questions."""
_PORTS = 3
"""How many other ports of a host are asked."""


# --- must not be reachable, and is -----------------------------------------------------------------------------------


def policy_not_enforced(case: Case) -> Iterator[Verdict]:
    """A target that must not be reachable answers."""
    found = [
        h
        for h in case.unexplained
        if h.target.negative
        and h.failure is not None
        and (h.failure.phase, h.failure.reason) == (Phase.VERIFY, Reason.UNEXPECTED_SUCCESS)
    ]
    if not found:
        return
    mesh = mesh_here(case)
    mere_connects = mesh is not None and all(h.target.type == "tcp" for h in found)
    proves = f" (behind the {mesh} proxy a connection alone proves little)" if mere_connects else ""
    yield Verdict(
        cause=Cause.POLICY_NOT_ENFORCED,
        confidence=unsettled(found) if mere_connects else settled(found),
        targets=names(found),
        summary=f"{some(names(found))} must not be reachable from this pod, and {'is' if len(found) == 1 else 'are'}: "
        "consistent with the NetworkPolicy that forbids it being absent, selecting other pods, or not being enforced "
        f"by the CNI{proves}.",
        evidence=tuple(all_seen(found)),
        advice="`kubectl get networkpolicy -A -o yaml`: either an Ingress policy selects the pods of what is to be "
        "protected, in their namespace, and leaves this pod's labels out (deploy/examples has one), or an Egress "
        "policy selects this pod (`kubectl get pod POD --show-labels`). A CNI without support for policies (flannel "
        "alone, for one) accepts them and enforces nothing.",
    )


# --- addresses written down ------------------------------------------------------------------------------------------


def hardcoded_address(case: Case) -> Iterator[Verdict]:
    """A private address as target, which fails."""
    for group in by_endpoint(case, {*UNHEARD, Way.CLOSED}):
        standings = [s for s in group if _is_written_down(s)]
        if not standings:
            continue
        first = standings[0]
        histories = histories_of(standings, case)
        port = histories[0].target.options.port
        by_name = [
            h.name
            for h in case.snapshot.working
            if h.target.options.port == port and literal(h.target) is None and not h.target.negative
        ]
        evidence = [f"by name, {some(by_name)} {'answers' if len(by_name) == 1 else 'answer'} on port {port}"]
        several = are_several(standings)
        other = "the server does not run" if first.way is Way.CLOSED else "the host is down, or a policy is in the way"
        what = (
            "are private addresses written down as numbers" if several else "is a private address written as a number"
        )
        yield Verdict(
            cause=Cause.HARDCODED_ADDRESS,
            confidence=unsettled(histories, agreed=any(s.agreed for s in standings)),
            targets=names(histories),
            summary=f"{all_called(standings)} {what}, and {_WAYS[first.way]}: addresses of pods, Services and hosts "
            f"move; or {other}.",
            evidence=(*(evidence if by_name else ()), *who_refused(first), *all_seen(histories, 3)),
            advice="Use a name: in the cluster that of a Service; for a database outside, make a Service for it "
            "(deploy/examples/service-external-database.yaml). `kubectl get pods,services,endpointslices -A -o wide | "
            f"grep {first.ip}` shows who has that address now, if anybody.",
        )


def _is_written_down(standing: Standing) -> bool:
    written = literal(standing.history.target)
    found = ip_address(written) if written is not None else None
    # resolv.conf has addresses too: a nameserver is no case of it.
    return found is not None and is_private(found) and standing.history.target.type != "dns"


_WAYS: Mapping[Way, str] = {
    Way.SILENT: "no answer comes",
    Way.REFUSED: "connections are refused",
    Way.CLOSED: "nobody listens there",
    Way.REJECTED: "connections are refused on the way",
    Way.FORBIDDEN: "connections are forbidden on the way",
    Way.UNREACHABLE: "there is no way to it",
}


# --- filtered --------------------------------------------------------------------------------------------------------


def target_blocked(case: Case) -> Iterator[Verdict]:
    """One host is silent or turned away, and its neighbours answer."""
    answering = [s for s in case.standings.all if s.way is Way.ANSWERS and not s.again]
    for standings in by_host(case, BARRED):
        first = standings[0]
        histories = histories_of(standings, case)
        several = are_several(standings)
        neighbours = [s.name for s in answering if s.scope is first.scope] or [s.name for s in answering]
        is_open = [] if several else open_ports(first, case)
        if is_open:
            neighbours = [f"port {is_open[0]} of the same host", *neighbours]
        agreed = any(s.agreed for s in standings)
        certain = first.way is Way.FORBIDDEN and (first.icmp is not None or first.scope is not Scope.CLUSTER)
        also = f", while {some(neighbours)} {'does' if len(neighbours) == 1 else 'do'}" if neighbours else ""
        verb = "do not answer" if several else "does not answer"
        yield Verdict(
            cause=Cause.TARGET_BLOCKED,
            confidence=settled(histories, agreed=agreed) if certain else unsettled(histories, agreed=agreed),
            targets=names(histories),
            summary=f"{all_called(standings)} {verb}{also}: {_reading(first, certain=certain, port=bool(is_open))}.",
            evidence=(*who_refused(first), *all_seen(histories, 3)),
            advice="`kubectl get networkpolicy` here (egress) and in the namespace of the target (ingress): allow "
            "this pod's labels and the port (deploy/examples/networkpolicy-target.yaml). For a host outside, ask its "
            "firewall and the NAT gateway for this address and port. `nc -vz HOST PORT` from a node tells a policy "
            "from a dead host.",
        )


def _reading(standing: Standing, *, certain: bool, port: bool) -> str:
    if certain:
        return "consistent with a policy or a firewall that rejects it, and says so"
    if standing.way is Way.FORBIDDEN:
        # Cilium's hook in the kernel has no better word for a Service that has nobody behind it.
        return "consistent with a policy that rejects it, and with a Service without a ready pod"
    if standing.way is Way.REJECTED:
        return "consistent with a firewall that rejects it, and with a load balancer without a ready pod behind it"
    if port:
        return "consistent with a policy or a firewall that leaves this port out, or with the wrong port"
    if standing.scope is Scope.CLUSTER:
        return (
            "consistent with a policy (of its namespace or of ours), with its pod being gone, or with endpoints that "
            "do not answer"
        )
    return "consistent with a policy or a firewall on the way, or with this host being down"


# --- over again ------------------------------------------------------------------------------------------------------


def momentary(case: Case) -> Iterator[Verdict]:
    """A run failed in the network, and a connection made right after it succeeds."""
    found = [s for s in case.standings.all if s.again and case.is_open(s.name)]
    found = [s for s in found if s.history.failure is not None and s.history.failure.phase is Phase.CONNECT]
    if not found:
        return
    histories = [s.history for s in found]
    yield Verdict(
        cause=Cause.FLAPPING,
        confidence=Confidence.LOW,
        targets=names(histories),
        summary=f"{some(names(histories))} failed to connect, and a connection made right after that succeeded: a lost "
        "packet, a restart, or one of several hosts behind the address.",
        evidence=(*(_took_connection(s) for s in found[:2]), *(seen(h) for h in histories[:3])),
        advice="Wait for the next runs: they tell whether it comes back.",
    )


def _took_connection(standing: Standing) -> str:
    place = address(standing.endpoint) if standing.endpoint is not None else standing.host
    after = max(0.0, standing.at - standing.history.outcomes[0].started_at)
    return f"{place} took a connection {seconds(after)} after the failed run began"


# --- what to ask -----------------------------------------------------------------------------------------------------


def planner(case: Case) -> Iterator[Wanted]:
    """The address itself again, which tells who refuses; then the usual ports of the same host."""
    failing = {
        s.endpoint: s
        for s in reversed(case.standings.all)
        if s.fails
        and s.endpoint is not None
        and s.history.target.type != "dns"
        and s.way is not Way.ANSWERS
        and not s.history.outcomes[0].facts.get(Fact.HTTP_REDIRECTS)
    }
    chosen = list(reversed(failing.items()))[:_HOSTS]
    for place, standing in chosen:
        yield Wanted(Connect(*place), (standing.name,))
    for place, standing in chosen:
        if not worked_before(standing.history):
            for port in usual_ports(standing)[:_PORTS]:
                yield Wanted(Connect(place[0], port), (standing.name,))
