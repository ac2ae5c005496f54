"""Hosts that refuse: nobody listens, somebody listens elsewhere, or a Service has nobody behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent.diagnosis.experiment import Mesh, MeshProxy
from agent.diagnosis.rules.case import Case
from agent.diagnosis.rules.places import all_called, are_several, by_endpoint, called, histories_of, who_refused
from agent.diagnosis.rules.reading import all_seen, brief, literal, names, settled, some, unsettled, within_pod
from agent.diagnosis.rules.standing import BARRED, Standing, Way
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Verdict
from agent.model import Scope

_USUAL: Mapping[str, tuple[int, ...]] = {
    "http": (443, 80, 8080, 8443),
    "postgres": (5432, 6432, 6543),
}
"""Ports of the types of targets."""
_RELATED: Sequence[frozenset[int]] = (
    frozenset({80, 443, 8080, 8443}),
    frozenset({5432, 6432, 6543}),  # PgBouncer's own default, and where Airflow's chart puts it
    frozenset({3306, 33060}),
    frozenset({6379, 6380}),
    frozenset({5671, 5672}),
    frozenset({9092, 9093}),
    frozenset({1433, 1434}),
    frozenset({27017, 27018}),
    frozenset({9000, 9001}),
)
"""Ports that are mistaken for each other: with and without TLS, with and without a pooler."""


def usual_ports(standing: Standing) -> list[int]:
    """Other ports that somebody may have meant."""
    port = standing.endpoint[1] if standing.endpoint is not None else None
    related = [sorted(ports) for ports in _RELATED if port in ports]
    usual = [*_USUAL.get(standing.history.target.type, ()), *(other for ports in related for other in ports)]
    return [other for other in dict.fromkeys(usual) if other != port]


def open_ports(standing: Standing, case: Case) -> list[int]:
    """Those of them that take connections, by other targets and by experiments."""
    if standing.endpoint is None:
        return []
    ip = standing.endpoint[0]
    taken = {port for _, port in _beside(standing, case)}
    asked = mesh_here(case) is None  # its proxy takes every connection, whoever listens
    return [
        port
        for port in usual_ports(standing)
        if port in taken or (asked and case.standings.way(ip, port) is Way.ANSWERS)
    ]


def _beside(standing: Standing, case: Case) -> list[tuple[str, int]]:
    """Other targets that answer at the same address, and their ports."""
    answering = (s for s in case.standings.all if s.way is Way.ANSWERS and s.ip == standing.ip)
    return [(s.name, s.endpoint[1]) for s in answering if s.endpoint is not None]


def mesh_here(case: Case) -> str | None:
    """The mesh whose proxy is in this pod."""
    return next((a.kind for _, a in case.snapshot.asked(MeshProxy) if isinstance(a, Mesh) and a.kind is not None), None)


def worked_before(history: History) -> bool:
    """Whether any of the runs that are remembered succeeded."""
    return any(outcome.success for outcome in history.outcomes)


def wrong_port(case: Case) -> Iterator[Verdict]:
    """Nobody on this port, ever, and somebody on the usual one of the same host."""
    for standings in by_endpoint(case, {*BARRED, Way.REFUSED, Way.CLOSED}):
        first = standings[0]
        histories = histories_of(standings, case)
        is_open = open_ports(first, case)
        if not is_open or first.endpoint is None or are_several(standings) or any(map(worked_before, histories)):
            continue
        port = first.endpoint[1]
        if first.way is Way.CLOSED:
            how = "the port is not the server's, or what should listen there does not run"
        elif first.scope is Scope.CLUSTER:
            how = "a Service answers on the ports it declares only; a policy that leaves this port out looks the same"
        elif first.way is Way.SILENT:
            continue  # firewalls leave ports out: agent.diagnosis.rules.hosts.target_blocked says both
        else:
            how = "refused, by its host or by a filter"
        host = brief(str(histories[0].target.options.host))
        yield Verdict(
            cause=Cause.WRONG_PORT,
            confidence=unsettled(histories, agreed=True),
            targets=names(histories),
            summary=f"{host} does not answer on port {port}, and does on {some(map(str, is_open))}: {how}.",
            evidence=(
                *(f"{first.ip} takes connections on port {other}" for other in is_open),
                f"no run on port {port} has succeeded so far",
                *who_refused(first),
                *all_seen(histories, 2),
            ),
            advice=f"Write port {is_open[0]} in the address, or have the server listen on {port}. For a Service, "
            "`kubectl get service NAME -o yaml`: `port` is what clients use, `targetPort` what the container listens "
            "on.",
        )


def nothing_listening(case: Case) -> Iterator[Verdict]:
    """The host itself says that nobody listens; or nobody knows who refused."""
    for standings in by_endpoint(case, {Way.CLOSED, Way.REFUSED}):
        first = standings[0]
        histories = histories_of(standings, case)
        agreed = any(s.agreed for s in standings)
        near = first.scope is Scope.CLUSTER or within_pod(first.history)
        sure = settled if first.way is Way.CLOSED and near else unsettled
        if first.way is Way.CLOSED:
            reading = "the host is up and nobody listens on the port: the server is stopped, starting, or it listens "
            reading += "elsewhere"
            # Firewalls outside refuse by a RST as well, and so do balancers.
            reading += "" if near else "; or a firewall or a balancer answers in its place"
        else:
            reading = "by the host, where nobody listens, or by a packet filter" + (
                ", or for a Service without endpoints" if first.scope is Scope.CLUSTER else ""
            )
        before = [h.name for h in histories if worked_before(h)]
        evidence = who_refused(first)
        if before:
            evidence.append(f"{some(before)} worked before, within the runs that are remembered")
        evidence += [f"{name} answers on port {port} of the same address" for name, port in _beside(first, case)[:2]]
        yield Verdict(
            cause=Cause.NOTHING_LISTENING,
            confidence=sure(histories, agreed=agreed),
            targets=names(histories),
            summary=f"{all_called(standings)} {'refuse' if are_several(standings) else 'refuses'} connections: "
            f"{reading}.",
            evidence=(*evidence, *all_seen(histories, 3)),
            advice="Start the server, or see why it ended: `kubectl get pods` and `kubectl logs POD --previous`. If "
            "it runs, see where it listens (`ss -ltn` beside it): on 127.0.0.1 it is out of reach for other pods.",
        )


def service_without_endpoints(case: Case) -> Iterator[Verdict]:
    """What refuses a ClusterIP by an ICMP message is the node: kube-proxy does for a Service without ready pods."""
    for standings in by_endpoint(case, {Way.REJECTED}):
        first = standings[0]
        if first.scope is not Scope.CLUSTER:
            continue
        histories = histories_of(standings, case)
        if literal(first.history.target) is None:
            service, _, rest = str(first.history.target.options.host).removesuffix(".").partition(".")
        else:
            service, rest = "NAME", "NAMESPACE"
        namespace = rest.partition(".")[0]
        where = f"-n {namespace} " if namespace else ""
        several = are_several(standings)
        subject = f"{all_called(standings)} {'exist' if several else 'exists'}, and the node refuses"
        yield Verdict(
            cause=Cause.SERVICE_WITHOUT_ENDPOINTS,
            confidence=unsettled(histories, agreed=True),
            targets=names(histories),
            summary=f"{subject} {'them' if several else 'it'}: consistent with a Service without a ready pod behind "
            "it, and with a policy that rejects instead of dropping.",
            evidence=(*who_refused(first), *(called(s) for s in standings[1:3] if several), *all_seen(histories, 3)),
            advice=f"`kubectl {where}get endpointslices -l kubernetes.io/service-name={service}`: if it lists nothing "
            f"ready, compare the Service's selector with the pods' labels (`kubectl {where}describe service "
            f"{service}`) and their readiness. A port the Service does not declare looks the same on some clusters.",
        )
