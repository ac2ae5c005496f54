"""Who answers now: the newest that is known of each target's host, by its own runs and by experiments."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.diagnosis.experiment import Connect, Connected, LocalTables
from agent.diagnosis.rules.reading import (
    UNANSWERED,
    Endpoint,
    direct,
    ended_at,
    endpoint,
    failing_since,
    is_reached,
    own_nameserver,
    peer,
    within_pod,
)
from agent.diagnosis.snapshot import History, Snapshot
from agent.model import Fact, Outcome, Phase, Reason, Scope
from agent.networks import ip_address, is_on_node, is_private


class Way(StrEnum):
    """What became of the last connection."""

    ANSWERS = "answers"
    """It stood, or the nameserver that is the target answered."""
    SILENT = "silent"
    """No answer: dropped packets, or a host that is gone."""
    REFUSED = "refused"
    """By whom is not known."""
    CLOSED = "closed"
    """By the host itself: nobody listens on the port."""
    REJECTED = "rejected"
    """By an ICMP message: a packet filter, or a Service without endpoints."""
    FORBIDDEN = "forbidden"
    """By a packet filter, for certain: an ICMP message said "prohibited", or this pod's own kernel."""
    UNREACHABLE = "unreachable"
    """A router, or this pod's own kernel, said that there is no way."""


BARRED = frozenset({Way.SILENT, Way.REJECTED, Way.FORBIDDEN, Way.UNREACHABLE})
"""Nothing of the host itself was heard."""
UNHEARD = BARRED | {Way.REFUSED}
"""The same, or whoever refused is not known."""

_BY_REASON = {
    Reason.TIMEOUT: Way.SILENT,
    Reason.REFUSED: Way.REFUSED,
    Reason.UNREACHABLE: Way.UNREACHABLE,
    Reason.DENIED: Way.FORBIDDEN,
    Reason.RESET: Way.CLOSED,
    Reason.CLOSED: Way.CLOSED,
}

_SAYS_MORE = {
    Way.REFUSED: {Way.CLOSED, Way.REJECTED, Way.FORBIDDEN},
    Way.UNREACHABLE: {Way.FORBIDDEN},
}
"""What a connection of ours, which hears more, may have seen where a run saw the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One target's host."""

    history: History
    scope: Scope
    """Where the address lives: a name that looks public may lead to a private one."""
    endpoint: Endpoint | None
    """IP address and port; None where no run has told."""
    way: Way
    at: float
    """Unix time at which this was so."""
    agreed: bool = False
    """An experiment found what the run had found."""
    again: bool = False
    """The run failed, and an experiment found afterwards that it answers."""
    icmp: str | None = None
    icmp_from: str | None = None

    @property
    def name(self) -> str:
        return self.history.name

    @property
    def ip(self) -> str | None:
        return self.endpoint[0] if self.endpoint is not None else None

    @property
    def host(self) -> str:
        """What tells hosts apart."""
        return self.ip or str(self.history.target.options.host)

    @property
    def fails(self) -> bool:
        """Whether its latest run heard nothing of it. One that failed later on is no matter of reaching it."""
        failure = self.history.failure
        return failure is not None and failure.phase in {Phase.RESOLVE, Phase.CONNECT}

    @property
    def barred(self) -> bool:
        return self.way in BARRED


class Standings:
    """Every target that was spoken to without a proxy, over the network, and that may be reached."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._connects = _newest(snapshot)
        self._pod = snapshot.pod
        compared = snapshot.histories if snapshot.failing else ()
        found = (self._standing(history) for history in compared)
        self.all = tuple(standing for standing in found if standing is not None)
        self.own = tuple(s for h in compared if within_pod(h) and (s := self._standing(h, own=True)) is not None)
        """The same for what never leaves the pod, and says nothing about the network."""
        self._by_name: Mapping[str, Standing] = {standing.name: standing for standing in self.all}
        tables = [e for e in snapshot.experiments if isinstance(e.answer, LocalTables)]
        newest = max(tables, key=lambda e: (e.started_at, repr(e.answer)), default=None)
        self.tables = newest.answer if newest is not None and isinstance(newest.answer, LocalTables) else None

    def __getitem__(self, name: str) -> Standing | None:
        return self._by_name.get(name)

    def of(self, scope: Scope) -> Iterator[Standing]:
        return (standing for standing in self.all if standing.scope is scope)

    def connected(self, ip: str, port: int) -> tuple[float, Connected] | None:
        """The newest experiment that connected, or tried to, and when it began."""
        return self._connects.get((ip, port))

    def way(self, ip: str, port: int, since: float = float("-inf")) -> Way | None:
        """What an experiment found then or later; None where none was made."""
        found = self.connected(ip, port)
        return None if found is None or found[0] < since else _way(found[1])

    def kubernetes_api(self, histories: Sequence[History]) -> Way | None:
        """How the control every pod has for free does while all of these fail; None where that is not known.

        That it did not answer counts since the first of them failed; that it did, only since all of them do.
        """
        api = self._pod.kubernetes_api
        if api is None or not histories:
            return None
        way = self.way(*api, min(failing_since(history) for history in histories))
        return way if way is None or way in UNHEARD else self.way(*api, newest_change(histories))

    def _standing(self, history: History, *, own: bool = False) -> Standing | None:
        last = history.last
        if last is None or not direct(last) or within_pod(history) is not own:
            return None
        if history.target.negative and not is_reached(history):
            return None  # that it is silent is as it should be
        way = self._by_run(history)
        if way is None:
            return None
        if own and way is Way.REFUSED:
            way = Way.CLOSED  # no filter is between a pod and itself
        tried = peer(history)
        scope = self._scope(history, tried)
        _, alive = attempts(history)
        if alive:
            # Some of its addresses answer, whatever the others do.
            return Standing(history=history, scope=scope, endpoint=alive[0], way=Way.ANSWERS, at=ended_at(last))
        standing = Standing(history=history, scope=scope, endpoint=tried, way=way, at=ended_at(last))
        return self._with_experiment(standing, last)

    def _by_run(self, history: History) -> Way | None:
        failure = history.failure
        if history.target.type == "dns":
            return self._by_own_nameserver(history)
        if failure is None:
            return Way.ANSWERS
        if failure.reason is Reason.INTERNAL or failure.phase is Phase.RESOLVE:
            return None
        if failure.phase is Phase.CONNECT:
            tried = peer(history)
            if Fact.NO_LOCAL_PORT in history.outcomes[0].facts and tried is not None and ":" not in tried[0]:
                return None  # the pod had no port left to find out; of IPv6 it may have no address
            return _BY_REASON.get(failure.reason)
        return None if failure.phase is Phase.TLS and Phase.TLS not in history.outcomes[0].phases else Way.ANSWERS

    def _by_own_nameserver(self, history: History) -> Way | None:
        """Those of resolv.conf are looked at elsewhere."""
        failure = history.failure
        if own_nameserver(history.target, self._pod.resolver.nameservers) is None:
            return None
        if failure is None or failure.phase is not Phase.RESOLVE:
            return Way.ANSWERS
        if failure.reason not in UNANSWERED:
            return Way.ANSWERS if failure.reason is not Reason.INTERNAL else None
        # Over UDP a port that nobody has open is an ICMP message too.
        return Way.REFUSED if failure.reason is Reason.UNREACHABLE else _BY_REASON[failure.reason]

    def _with_experiment(self, standing: Standing, last: Outcome) -> Standing:
        """What a connection found after the run, or what it tells more about the way the run failed."""
        found = self.connected(*standing.endpoint) if standing.endpoint is not None else None
        if found is None or standing.history.target.type == "dns":
            return standing
        at, answer = found
        way = _way(answer)
        agrees = standing.fails and (way is standing.way or way in _SAYS_MORE.get(standing.way, ()))
        if at < (failing_since(standing.history) if agrees else ended_at(last)):
            return standing
        return dataclasses.replace(
            standing,
            way=way,
            at=max(at, standing.at),
            agreed=agrees,
            again=standing.way is not Way.ANSWERS and way is Way.ANSWERS,
            icmp=answer.icmp,
            icmp_from=answer.icmp_from,
        )

    def _scope(self, history: History, tried: Endpoint | None) -> Scope:
        last, scope = history.outcomes[0], history.target.scope
        name = (last.facts.get(Fact.DNS_NAME) or "").lower()
        if self._pod.cluster_domain is not None and name.endswith(f".svc.{self._pod.cluster_domain.lower()}"):
            return Scope.CLUSTER
        address = ip_address(tried[0]) if tried is not None else None
        if scope is Scope.PUBLIC and address is not None and (is_private(address) or is_on_node(address)):
            return Scope.PRIVATE
        return scope


def _newest(snapshot: Snapshot) -> Mapping[Endpoint, tuple[float, Connected]]:
    found: dict[Endpoint, tuple[float, Connected]] = {}
    for experiment in snapshot.experiments:
        question, answer = experiment.question, experiment.answer
        if isinstance(question, Connect) and isinstance(answer, Connected):
            key, one = (question.ip, question.port), (experiment.started_at, answer)
            if key not in found or (one[0], repr(answer)) > (found[key][0], repr(found[key][1])):
                found[key] = one
    return found


def _way(answer: Connected) -> Way:
    if answer.failure is None:
        return Way.ANSWERS
    if answer.icmp is not None and "prohibited" in answer.icmp:
        return Way.FORBIDDEN
    way = _BY_REASON.get(answer.failure.reason, Way.SILENT)
    if way is Way.REFUSED and answer.rejected is not None:
        return Way.REJECTED if answer.rejected else Way.CLOSED
    return way


def newest_change(histories: Iterable[History]) -> float:
    """Unix time since which all of these fail: what was asked before it says nothing about them together."""
    return max(failing_since(history) for history in histories)


def attempts(history: History) -> tuple[list[Endpoint], list[Endpoint]]:
    """With `addresses: all`, the addresses that failed to connect in the latest run, and those that answered."""
    dead: list[Endpoint] = []
    alive: list[Endpoint] = []
    for attempt in history.outcomes[0].facts.get(Fact.ATTEMPTS, ()):
        tried = endpoint(attempt["address"])
        if tried is not None and (attempt["success"] or attempt["phase"] != Phase.CONNECT.value):
            alive.append(tried)
        elif tried is not None:
            dead.append(tried)
    return dead, alive
