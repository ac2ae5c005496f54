"""One host that does not let us in: filtered, moved, without endpoints, or with nobody on the port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent.diagnosis.experiment import Connect, Mesh, MeshProxy
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnosis.rules.reading import (
    Endpoint,
    all_seen,
    brief,
    direct,
    literal,
    names,
    seen,
    settled,
    some,
    unsettled,
    within_pod,
)
from agent.diagnosis.rules.standing import BARRED, Standing, Way
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Phase, Reason, Scope
from agent.networks import ip_address, is_private
from agent.wording import seconds

_HOSTS = 8
"""How many hosts are looked into at a time: each costs a handful of questions."""
_PORTS = 3
"""How many other ports of a host are asked."""

_USUAL: Mapping[str, tuple[int, ...]] = {
    "http": (443, 80, 8080, 8443),
    "postgres": (5432, 6432, 6543),
}
"""Ports of the types of targets. PgBouncer listens on 6432 by itself, and on 6543 in Airflow's Helm chart."""
_RELATED: Sequence[frozenset[int]] = (
    frozenset({80, 443, 8080, 8443}),
    frozenset({5432, 6432, 6543}),
    frozenset({3306, 33060}),
    frozenset({6379, 6380}),
    frozenset({5671, 5672}),
    frozenset({9092, 9093}),
    frozenset({1433, 1434}),
    frozenset({27017, 27018}),
    frozenset({9000, 9001}),
)
"""Ports that are mistaken for each other: with and without TLS, with and without a pooler."""


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
    mesh = next((a.kind for _, a in case.snapshot.asked(MeshProxy) if isinstance(a, Mesh) and a.kind is not None), None)
    mere_connects = mesh is not None and all(h.target.type == "tcp" for h in found)
    yield Verdict(
        cause=Cause.POLICY_NOT_ENFORCED,
        confidence=unsettled(found) if mere_connects else settled(found),
        targets=names(found),
        summary=f"{some(names(found))} must not be reachable from this pod, and {'is' if len(found) == 1 else 'are'}: "
        "consistent with the NetworkPolicy being absent, not selecting this pod, or not being enforced by the "
        "cluster's CNI" + (f" (behind the {mesh} proxy a connection alone proves little)." if mere_connects else "."),
        evidence=tuple(all_seen(found)),
        advice="`kubectl get networkpolicy -o yaml`: the podSelector must match this pod's labels "
        "(`kubectl get pod POD --show-labels`), and policyTypes must hold Egress. A CNI without support for policies "
        "(flannel alone, for one) accepts them and enforces nothing.",
    )


# --- nobody on the port ----------------------------------------------------------------------------------------------


def _others_open(standing: Standing, case: Case) -> list[int]:
    """Other ports of the same address that take connections, by experiments."""
    if standing.endpoint is None:
        return []
    ip, port = standing.endpoint
    candidates = _usual_ports(standing)
    return [other for other in candidates if other != port and case.standings.way(ip, other) is Way.ANSWERS]


def _usual_ports(standing: Standing) -> list[int]:
    port = standing.endpoint[1] if standing.endpoint is not None else None
    related = [sorted(ports) for ports in _RELATED if port in ports]
    usual = [*_USUAL.get(standing.history.target.type, ()), *(other for ports in related for other in ports)]
    return [other for other in dict.fromkeys(usual) if other != port]


def _worked_before(history: History) -> bool:
    return any(outcome.success for outcome in history.outcomes)


def wrong_port(case: Case) -> Iterator[Verdict]:
    """Nobody on this port, ever, and somebody on the usual one of the same host."""
    for standings in _by_endpoint(case):
        first = standings[0]
        histories = [s.history for s in standings]
        if histories[0].target.type == "dns":
            continue  # asked over UDP, of which open TCP ports say nothing
        if any(_worked_before(h) for h in histories) or first.way not in {*BARRED, Way.REFUSED, Way.CLOSED}:
            continue
        is_open = _others_open(first, case)
        if not is_open or first.endpoint is None:
            continue
        ip, port = first.endpoint
        host = brief(str(histories[0].target.options.host))
        if first.way is Way.CLOSED:
            how, sure = "its host says that nobody listens there", settled(histories, agreed=True)
        elif first.scope is Scope.CLUSTER:
            how = "a Service answers on the ports it declares only; a policy that leaves this port out looks the same"
            sure = unsettled(histories, agreed=True)
        elif first.way is Way.SILENT:
            continue  # firewalls leave ports out: agent.diagnosis.rules.hosts.target_blocked says both
        else:
            how, sure = "refused, by its host or by a filter", unsettled(histories, agreed=True)
        yield Verdict(
            cause=Cause.WRONG_PORT,
            confidence=sure,
            targets=names(histories),
            summary=f"{host} does not answer on port {port}, and does on {some(map(str, is_open))}: {how}.",
            evidence=tuple(
                [f"{ip}:{other} takes connections" for other in is_open]
                + [f"no run on port {port} has succeeded so far"]
                + _who_refused(first)
                + all_seen(histories, 2)
            ),
            advice=f"Write port {is_open[0]} in the address, or have the server listen on {port}. For a Service, "
            "`kubectl get service NAME -o yaml`: `port` is what clients use, `targetPort` what the container listens "
            "on.",
        )


def nothing_listening(case: Case) -> Iterator[Verdict]:
    """The host itself says that nobody listens; or nobody knows who refused."""
    for standings in _by_endpoint(case):
        first = standings[0]
        if first.way not in {Way.CLOSED, Way.REFUSED} or first.endpoint is None:
            continue
        histories = [s.history for s in standings]
        known = first.way is Way.CLOSED
        reading = (
            "the host is up and nobody listens on the port: the server is stopped, starting, or listens elsewhere"
            if known
            else "by its host, where nobody listens, or by a packet filter"
            + (", or for a Service without endpoints" if first.scope is Scope.CLUSTER else "")
        )
        before = [h.name for h in histories if _worked_before(h)]
        yield Verdict(
            cause=Cause.NOTHING_LISTENING,
            confidence=settled(histories, agreed=first.agreed) if known else unsettled(histories, agreed=first.agreed),
            targets=names(histories),
            summary=f"{_shown(first.endpoint)} ({some(names(histories))}) refuses connections: {reading}.",
            evidence=tuple(
                _who_refused(first)
                + ([f"{some(before)} worked before, within the runs that are remembered"] if before else [])
                + all_seen(histories, 3)
            ),
            advice="Start the server, or see why it ended: `kubectl get pods` and `kubectl logs POD --previous`. If "
            "it runs, "
            "see where it listens (`ss -ltn` beside it): on 127.0.0.1 it is out of reach for other pods.",
        )


def _who_refused(standing: Standing) -> list[str]:
    if standing.way is Way.CLOSED:
        return ["the refusal came as a RST, as a host's own does"]
    if standing.icmp is not None:
        return [f"the refusal came as an ICMP message from {standing.icmp_from or 'somebody'}: {standing.icmp}"]
    if standing.way is Way.REJECTED:
        return ["the refusal came as an ICMP message"]
    return []


# --- Services --------------------------------------------------------------------------------------------------------


def service_without_endpoints(case: Case) -> Iterator[Verdict]:
    """What refuses a ClusterIP by an ICMP message is the node: kube-proxy does for a Service without ready pods."""
    for standings in _by_endpoint(case):
        first = standings[0]
        if first.way is not Way.REJECTED or first.scope is not Scope.CLUSTER or first.endpoint is None:
            continue
        histories = [s.history for s in standings]
        host = str(histories[0].target.options.host)
        service, _, rest = host.removesuffix(".").partition(".")
        namespace = rest.partition(".")[0]
        where = f"-n {namespace} " if namespace else ""
        yield Verdict(
            cause=Cause.SERVICE_WITHOUT_ENDPOINTS,
            confidence=unsettled(histories, agreed=True),
            targets=names(histories),
            summary=f"{brief(host)} has an address ({_shown(first.endpoint)}) and the node refuses it: consistent "
            f"with a "
            f"Service "
            "without a ready pod behind it, and also with a policy that rejects instead of dropping.",
            evidence=(*_who_refused(first), *all_seen(histories, 3)),
            advice=f"`kubectl {where}get endpointslices -l kubernetes.io/service-name={service}`: if it lists nothing "
            f"ready, "
            f"compare the Service's selector with the pods' labels (`kubectl {where}describe service {service}`) and "
            f"their "
            "readiness. A port the Service does not declare looks the same on some clusters.",
        )


# --- addresses written down ------------------------------------------------------------------------------------------


def hardcoded_address(case: Case) -> Iterator[Verdict]:
    """A private address as target, which fails."""
    for standings in _by_endpoint(case):
        first = standings[0]
        histories = [s.history for s in standings]
        written = literal(histories[0].target)
        address = ip_address(written) if written is not None else None
        if address is None or not is_private(address) or first.endpoint is None:
            continue
        if histories[0].target.type == "dns":
            continue  # resolv.conf has addresses too
        alternatives = [
            h.name
            for h in case.snapshot.working
            if h.target.options.port == first.endpoint[1] and literal(h.target) is None and not h.target.negative
        ]
        evidence = [f"{some(alternatives)} answers on port {first.endpoint[1]} by name"] if alternatives else []
        evidence += _who_refused(first)
        yield Verdict(
            cause=Cause.HARDCODED_ADDRESS,
            confidence=unsettled(histories, agreed=first.agreed),
            targets=names(histories),
            summary=f"{_shown(first.endpoint)} is a private address written down as a number, and {_WAYS[first.way]}: "
            "addresses of pods, Services and hosts move; or its host is down, or a policy is in the way.",
            evidence=tuple(evidence + all_seen(histories, 3)),
            advice="Use a name: in the cluster that of a Service; for a database outside, make a Service for it "
            "(deploy/examples/service-external-database.yaml). `kubectl get pods,services,endpointslices -A -o wide | "
            "grep "
            f"{first.endpoint[0]}` shows who has that address now, if anybody.",
        )


_WAYS: Mapping[Way, str] = {
    Way.SILENT: "does not answer",
    Way.REFUSED: "refuses connections",
    Way.CLOSED: "has nobody listening",
    Way.REJECTED: "is refused on the way",
    Way.FORBIDDEN: "is forbidden on the way",
    Way.UNREACHABLE: "cannot be reached",
    Way.ANSWERS: "answers",
}


# --- filtered --------------------------------------------------------------------------------------------------------


def target_blocked(case: Case) -> Iterator[Verdict]:
    """One host is silent or turned away, and its neighbours answer."""
    answering = [s for s in case.standings.all if s.way is Way.ANSWERS and not s.again]
    for standings in _by_endpoint(case, by_host=True):
        first = standings[0]
        if first.way not in BARRED:
            continue
        histories = [s.history for s in standings]
        neighbours = [s.name for s in answering if s.scope is first.scope] or [s.name for s in answering]
        is_open = _others_open(first, case)
        if is_open:
            neighbours = [f"port {is_open[0]} of the same host", *neighbours]
        certain = first.way is Way.FORBIDDEN or (first.way is Way.REJECTED and first.scope is not Scope.CLUSTER)
        if certain:
            reading = "consistent with a policy or a firewall that rejects it, and says so"
        elif is_open:
            reading = "consistent with a policy or a firewall that leaves this port out (or with the wrong port)"
        elif first.scope is Scope.CLUSTER:
            reading = (
                "consistent with a policy (of its namespace or of ours), with its pod being gone, or with a Service "
                "whose "
                "endpoints do not answer"
            )
        else:
            reading = "consistent with a policy or a firewall on the way, or with this host being down"
        also = f", while {some(neighbours)} {'does' if len(neighbours) == 1 else 'do'}" if neighbours else ""
        agreed = any(s.agreed for s in standings)
        yield Verdict(
            cause=Cause.TARGET_BLOCKED,
            confidence=settled(histories, agreed=agreed) if certain else unsettled(histories, agreed=agreed),
            targets=names(histories),
            summary=f"{_named(first)} {_DOES_NOT[first.way]}{also}: {reading}.",
            evidence=tuple(_who_refused(first) + all_seen(histories, 3)),
            advice="`kubectl get networkpolicy` here (egress) and in the namespace of the target (ingress): allow "
            "this pod's "
            "labels and the port (deploy/examples/networkpolicy-target.yaml). For a host outside, ask its firewall "
            "and the "
            "NAT gateway for this address and port. `nc -vz HOST PORT` from a node tells a policy from a dead host.",
        )


_DOES_NOT: Mapping[Way, str] = {
    Way.SILENT: "does not answer",
    Way.REJECTED: "is refused by an ICMP message, which does not answer for a host that takes connections",
    Way.FORBIDDEN: "is forbidden by a packet filter and does not answer",
    Way.UNREACHABLE: "cannot be reached and does not answer",
}


def _named(standing: Standing) -> str:
    host = brief(str(standing.history.target.options.host or ""))
    shown = _shown(standing.endpoint) if standing.endpoint is not None else str(host)
    return f"{host} ({shown})" if host and host != standing.ip else shown


def _shown(address: Endpoint) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


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
        evidence=tuple(
            [
                f"{_shown(s.endpoint)} took a connection {seconds(max(0.0, s.at - s.history.outcomes[0].started_at))} "
                f"after "
                "the failed run began"
                for s in found[:2]
                if s.endpoint is not None
            ]
            + [seen(h) for h in histories[:3]]
        ),
        advice="Wait for the next runs: they tell whether it comes back.",
    )


# --- what belongs together, and what to ask --------------------------------------------------------------------------


def _by_endpoint(case: Case, *, by_host: bool = False) -> list[list[Standing]]:
    """Standings of unexplained targets that failed to connect, together where they are about the same address."""
    unexplained = set(names(case.unexplained))
    groups: dict[tuple[object, Way], list[Standing]] = {}
    for standing in (*case.standings.all, *case.standings.own):
        if standing.fails and standing.name in unexplained and standing.way is not Way.ANSWERS:
            place = standing.host if by_host or standing.endpoint is None else standing.endpoint
            groups.setdefault((place, standing.way), []).append(standing)
    return list(groups.values())


def planner(case: Case) -> Iterator[Wanted]:
    """The address itself again, which tells who refuses; then the usual ports of the same host."""
    failing = [
        s
        for s in case.standings.all
        if s.fails
        and s.endpoint is not None
        and s.history.target.type != "dns"
        and s.way is not Way.ANSWERS
        and direct(s.history.outcomes[0])
        and not within_pod(s.history)
        and not s.history.outcomes[0].facts.get(Fact.HTTP_REDIRECTS)
    ]
    by_host: dict[str, Standing] = {}
    for standing in failing:
        by_host.setdefault(f"{standing.host} {standing.endpoint}", standing)
    chosen = list(by_host.values())[:_HOSTS]
    for standing in chosen:
        if standing.endpoint is not None:
            yield Wanted(Connect(*standing.endpoint), (standing.name,))
    for standing in chosen:
        if standing.endpoint is None or _worked_before(standing.history):
            continue
        for port in _usual_ports(standing)[:_PORTS]:
            yield Wanted(Connect(standing.endpoint[0], port), (standing.name,))
