"""Names with several addresses of which some do not answer; IPv6 beside IPv4; addresses without a route."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.diagnosis.experiment import Connect
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnosis.rules.places import address, all_called, by_host, histories_of
from agent.diagnosis.rules.reading import Endpoint, all_seen, brief, direct, endpoint, names, settled, some, unsettled
from agent.diagnosis.rules.standing import BARRED, Way, attempts
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Phase, Scope
from agent.networks import ip_address

_OTHERS = 2
"""How many other addresses of a name are asked."""
_CHANGES = 2


def _version(ip: str) -> int:
    found = ip_address(ip)
    return found.version if found is not None else 4


class Split:
    """The addresses of one target's name: those that do not answer, and those that do."""

    def __init__(self, history: History, case: Case) -> None:
        self.history = history
        self.dead, self.alive = attempts(history)
        self.asked = False
        """Whether an experiment found the dead address dead as well, and not a single run alone."""
        standing = case.standings[history.name]
        if not self.dead and standing is not None and standing.endpoint is not None and standing.way is not Way.ANSWERS:
            self.dead = [standing.endpoint]
            port = standing.endpoint[1]
            for ip in history.outcomes[0].facts.get(Fact.ADDRESSES, ()):
                way = case.standings.way(ip, port) if ip != standing.ip else None
                if way is Way.ANSWERS:
                    self.alive.append((ip, port))
                    self.asked = standing.agreed

    @property
    def is_split(self) -> bool:
        return bool(self.dead) and bool(self.alive)


def _splits(case: Case) -> list[Split]:
    failing = [
        h
        for h in case.unexplained
        if h.failure is not None
        and h.failure.phase is Phase.CONNECT
        and direct(h.outcomes[0])
        and not h.target.negative
    ]
    return [split for h in failing if (split := Split(h, case)).is_split]


def ipv6_broken(case: Case) -> Iterator[Verdict]:
    """IPv6 addresses fail, and IPv4 ones of the same names answer; or the pod has no IPv6 at all."""
    splits = {
        split.history.name: split
        for split in _splits(case)
        if {_version(ip) for ip, _ in split.dead} == {6} and {_version(ip) for ip, _ in split.alive} == {4}
    }
    tables = case.standings.tables
    without = tables is not None and not tables.global_ipv6
    only_six = [
        s
        for s in case.standings.all
        if case.is_open(s.name) and s.ip and _version(s.ip) == 6 and s.barred  # noqa: PLR2004
    ]
    elsewhere = any(s.way is Way.ANSWERS and s.ip and _version(s.ip) == 4 for s in case.standings.all)  # noqa: PLR2004
    if any(s.way is Way.ANSWERS and s.ip and _version(s.ip) == 6 for s in case.standings.all):  # noqa: PLR2004
        return  # IPv6 as such works
    found = [
        h
        for h in case.snapshot.histories
        if h.name in splits or (((without and elsewhere) or splits) and any(s.history is h for s in only_six))
    ]
    if not found:
        return
    evidence = []
    if without:
        evidence.append("this pod has no IPv6 address that reaches beyond its link")
    for split in list(splits.values())[:3]:
        dead, alive = some(map(address, split.dead)), some(map(address, split.alive))
        evidence.append(f"{split.history.name}: {dead} does not answer, {alive} does")
    hosts = {str(h.target.options.host) for h in found}
    certain = without or len(hosts) > 1
    agreed = any(split.asked for split in splits.values())
    reading = (
        "the pod has no working IPv6"
        if without
        else "consistent with IPv6 being broken between here and there"
        + ("" if certain else ", or with this one host's IPv6 being broken")
    )
    yield Verdict(
        cause=Cause.IPV6_BROKEN,
        confidence=settled(found, agreed=agreed) if certain else unsettled(found, agreed=agreed),
        targets=names(found),
        summary=f"IPv6 addresses of {some(names(found))} fail, and IPv4 answers: {reading}.",
        evidence=tuple(evidence + all_seen(found, 3)),
        advice="Give the pod's network IPv6 end to end, or keep clients from it: `family: 4` in the target shows "
        "whether that helps; in the task, prefer IPv4 by /etc/gai.conf (`precedence ::ffff:0:0/96 100`) or by the "
        "client's own option; in the name, by dropping its AAAA record.",
    )


def one_address_dead(case: Case) -> Iterator[Verdict]:
    """Some addresses of a name answer and some do not."""
    for split in _splits(case):
        yield _one_dead(split.history, split.dead, split.alive, sure=settled([split.history], agreed=split.asked))
    for history in (*case.unexplained, *case.unremarked):
        dead, alive = _by_turns(history)
        if dead and alive:
            yield _one_dead(history, dead, alive, sure=Confidence.HIGH)


def _by_turns(history: History) -> tuple[list[Endpoint], list[Endpoint]]:
    """Where runs used one address or another: those that always failed, more than once, and those that never did."""
    failed: list[Endpoint] = []
    answered: set[Endpoint] = set()
    if history.changes < _CHANGES or history.target.negative:
        return [], []
    for outcome in history.outcomes:
        tried = endpoint(outcome.facts.get(Fact.ADDRESS))
        if tried is None or not direct(outcome) or Fact.STARVED in outcome.facts:
            continue
        if outcome.failure is None:
            answered.add(tried)
        elif outcome.failure.phase is Phase.CONNECT:
            failed.append(tried)
        else:
            return [], []
    dead = sorted(set(failed))
    if len(failed) == 1 or not answered.isdisjoint(dead):
        return [], []  # a packet that was lost, or an address that comes and goes
    return dead, sorted(answered)


def _one_dead(history: History, dead: Sequence[Endpoint], alive: Sequence[Endpoint], *, sure: Confidence) -> Verdict:
    host = brief(str(history.target.options.host))
    return Verdict(
        cause=Cause.ONE_ADDRESS_DEAD,
        confidence=sure,
        targets=(history.name,),
        summary=f"Of the {len(dead) + len(alive)} addresses of {host} that were tried, {some(map(address, dead))} "
        f"{'does' if len(dead) == 1 else 'do'} not answer and {some(map(address, alive))} "
        f"{'does' if len(alive) == 1 else 'do'}: clients fail by chance.",
        evidence=tuple(
            [f"{address(one)} does not answer" for one in dead[:3]]
            + [f"{address(one)} answers" for one in alive[:3]]
            + all_seen([history] if history.failure is not None else [], 1)
        ),
        advice=f"Take the dead address out of the name's records (`dig {host}`), or bring its host up. For a headless "
        "Service, `kubectl get endpointslices` shows which pod it is and whether it is ready. Clients that try every "
        "address (happy eyeballs) hide this; most database drivers do not.",
    )


def no_route_here(case: Case) -> Iterator[Verdict]:
    """This pod's own routing table has no way to the address."""
    tables = case.standings.tables
    if tables is None:
        return
    found = [
        s.history
        for s in case.standings.all
        if case.is_open(s.name)
        and s.way in {Way.UNREACHABLE, Way.FORBIDDEN}
        and any(ip_address(ip) == ip_address(s.ip or "") for ip in tables.unrouted)
    ]
    if not found:
        return
    addresses = [s.ip for s in case.standings.all if s.history in found and s.ip]
    without = tables.default_routes == ()
    yield Verdict(
        cause=Cause.NO_ROUTE,
        confidence=settled(found, agreed=True),
        targets=names(found),
        summary=f"This pod has no route to {some(addresses)}"
        + (": it has no default route at all." if without else ", so that nothing is even sent."),
        evidence=tuple(all_seen(found, 4)),
        advice=f"`ip route get {addresses[0]}` in the pod (a debug container: `kubectl debug POD -it --image=IMAGE`) "
        "shows it. The CNI makes a pod's routes: look at its logs on the node, and at what else changes routes in the "
        "pod (a VPN client, an init container).",
    )


def no_route(case: Case) -> Iterator[Verdict]:
    """A router says that there is no way."""
    for standings in by_host(case, {Way.UNREACHABLE}):
        histories = histories_of(standings, case)
        said = sorted({(s.icmp, s.icmp_from or "a router") for s in standings if s.icmp})
        missing = any(what == "network unreachable" for what, _ in said)
        agreed = any(s.agreed for s in standings)
        who = f"On the way to {all_called(standings)} a router says that it cannot go on"
        if missing:
            reading = "a route to it is missing"
        elif said:
            reading = "its host is down or a route is missing; some firewalls say the same to what they forbid"
        else:
            who = f"There is no way to {all_called(standings)}"
            reading = "by the word of a router or of this pod's own kernel: its host is down or a route is missing"
            if standings[0].scope is Scope.CLUSTER:
                # Cilium's hook in the kernel has no better word for that.
                reading += ", or it is a Service without a ready pod"
        others = ", while other targets answer" if any(s.way is Way.ANSWERS for s in case.standings.all) else ""
        yield Verdict(
            cause=Cause.NO_ROUTE,
            confidence=settled(histories, agreed=agreed) if missing else unsettled(histories, agreed=agreed),
            targets=names(histories),
            summary=f"{who}{others}: {reading}.",
            evidence=(*(f"{sender} says: {what}" for what, sender in said[:2]), *all_seen(histories, 3)),
            advice=f"`ip route get {standings[0].host}` in the pod and on the node shows where packets go; the router "
            "that answers is the place to look. For a network behind a VPN or peering, its routes must be announced "
            "to the nodes.",
        )


def planner(case: Case) -> Iterator[Wanted]:
    """Other addresses of the name, IPv4 before IPv6."""
    for standing in case.standings.all:
        if not standing.fails or standing.way not in BARRED | {Way.REFUSED, Way.CLOSED} or standing.endpoint is None:
            continue
        last = standing.history.outcomes[0]
        if attempts(standing.history)[0] or last.facts.get(Fact.HTTP_REDIRECTS):
            continue
        others = [ip for ip in last.facts.get(Fact.ADDRESSES, ()) if ip != standing.ip and ip_address(ip) is not None]
        for ip in sorted(others, key=_version)[:_OTHERS]:
            yield Wanted(Connect(ip, standing.endpoint[1]), (standing.name,))
