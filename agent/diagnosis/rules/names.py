"""Why names are not looked up, or slowly: what nameservers do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.diagnosis.experiment import Connect, LocalNetwork, Lookup
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnosis.rules.nameservers import ended_unanswered, messages_of, stuck
from agent.diagnosis.rules.reading import (
    UNANSWERED,
    all_seen,
    ended_at,
    names,
    settled,
    some,
    sought,
)
from agent.diagnosis.rules.standing import Way, newest_change
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Outcome, Phase, Reason
from agent.networks import ip_address
from agent.wording import count, seconds

_SAYS_IT_FAILED = frozenset({Reason.SERVER_FAILURE, Reason.QUERY_REFUSED, Reason.PROTOCOL_ERROR})

_ALLOW_DNS = (
    "If a NetworkPolicy selects this pod, allow egress to the cluster's DNS on port 53, UDP and TCP (the manifest is "
    "deploy/examples/networkpolicy-dns.yaml): `kubectl get networkpolicy`."
)
_LOOK_AT_DNS = (
    "See whether the cluster's DNS runs: `kubectl -n kube-system get pods -l k8s-app=kube-dns` and `kubectl -n "
    "kube-system get endpointslices -l k8s-app=kube-dns`."
)


def unanswered(case: Case) -> list[History]:
    """Unexplained targets whose lookup ended without an answer."""
    return [
        h
        for h in case.unexplained
        if case.lookup_failed(h)
        and h.outcomes[0].failure is not None
        and h.outcomes[0].failure.reason in UNANSWERED
        and ended_unanswered(h.outcomes[0])
    ]


_STRAY = 10
"""How many rounds without an answer outweigh one that was answered: connection tracking lets a datagram through whose
port was used before the fault."""


def answered_meanwhile(case: Case, histories: Sequence[History]) -> bool:
    """Whether nameservers have answered anybody since all of these began to fail.

    That is since the last of them was asked, or more than a stray question before that.
    """
    if case.nameservers.answered_since(max(h.outcomes[0].started_at for h in histories)):
        return True
    since = max(min(h.outcomes[0].started_at, ended_at(h.outcomes[h.failures_in_a_row - 1])) for h in histories)
    answered, silent = case.nameservers.rounds_since(since)
    return answered > 0 and answered * _STRAY >= silent


# --- no nameserver answers -------------------------------------------------------------------------------------------


def unreachable(case: Case) -> Iterator[Verdict]:
    """Nobody answers lookups, while something else answers, or has not been asked."""
    found = unanswered(case)
    if not found or answered_meanwhile(case, found):
        return
    nameservers = case.nameservers
    asked = [server for server in nameservers.known if nameservers.answers(server) is False]
    rejecting = [server for server in asked if nameservers.rejects(server)]
    over_tcp = [server for server in asked if nameservers.answers_over_tcp(server)]
    which = some(asked or nameservers.known, 4) or "no nameserver at all"
    api = case.standings.kubernetes_api(found)
    if over_tcp:
        reading = "over TCP they answer, which is consistent with a policy that allows port 53 for TCP only"
    elif rejecting:
        reading = (
            "the questions are turned away, which is consistent with the cluster's DNS having no ready pod or with a "
            "policy that rejects port 53"
        )
    else:
        reading = "consistent with egress to port 53 being blocked by a policy, or with the cluster's DNS being down"
    evidence = [_unanswered_by(server, case) for server in asked]
    evidence += [f"{server} answers over TCP" for server in over_tcp]
    if api is Way.ANSWERS:
        evidence.append("the Kubernetes API answers at its address, so that the pod has a network")
    elif alive := [s.name for s in case.standings.all if s.way is Way.ANSWERS and s.at >= newest_change(found)]:
        evidence.append(f"what needs no lookup answers: {some(alive)}")
    elif api is not None:
        reading = f"{reading}; the Kubernetes API does not answer either, so that it may be the whole network"
        evidence.append("the Kubernetes API does not answer at its address")
    # The tries of one lookup are one run: what agrees with it is a question asked since.
    again = any(answer.rcode is None for _, answer in case.snapshot.asked(Lookup))
    agreed = again and bool(asked) and all(nameservers.unanswered(server) > 1 for server in asked)
    sure = settled(found, agreed=agreed)
    yield Verdict(
        cause=Cause.DNS_UNREACHABLE,
        confidence=sure if api in {None, Way.ANSWERS} or sure is not Confidence.HIGH else Confidence.MEDIUM,
        targets=names(found),
        summary=f"No nameserver answers ({which}), so that {count(len(found), 'target')} cannot be looked up: "
        f"{reading}.",
        evidence=tuple(evidence + all_seen(found, 2)),
        advice=" ".join([*([_LOOK_AT_DNS, _ALLOW_DNS] if rejecting else [_ALLOW_DNS, _LOOK_AT_DNS]), *_on_node(asked)]),
    )


def _on_node(nameservers: Sequence[str]) -> Iterator[str]:
    """What else there is to see where the nameserver is a cache on the node."""
    if any((address := ip_address(server)) is not None and address.is_link_local for server in nameservers):
        yield (
            "A link-local nameserver is the node's own cache: `kubectl -n kube-system get pods -o wide -l "
            "k8s-app=node-local-dns`; a policy allows it by its address, and not by the labels of a pod."
        )


def _unanswered_by(server: str, case: Case) -> str:
    rounds = count(case.nameservers.unanswered(server), "round")
    if case.nameservers.rejects(server):
        return f"nameserver {server} turned the last question away ({rounds} of questions without an answer)"
    return f"nameserver {server} left the last {rounds} of questions without an answer"


# --- one of several --------------------------------------------------------------------------------------------------


def nameserver_down(case: Case) -> Iterator[Verdict]:
    """One nameserver is silent and another answers; targets fail by it where their time does not suffice for both."""
    nameservers = case.nameservers
    dead = [server for server in nameservers.dead if nameservers.gone(server)]
    alive = [server for server in nameservers.alive if server not in dead]
    if not dead or not alive:
        return
    failing = [h for h in case.unexplained if _ran_out_of_time_by(h, dead, case)]
    working = [h for h in case.unremarked if _met(h.outcomes[0], dead) or _surveyed(h.outcomes[0], dead)]
    if not failing and not working:
        return
    shown = set(names(failing + working))
    found = [h for h in case.snapshot.histories if h.name in shown]
    patience = case.snapshot.pod.resolver.timeout_seconds
    first = nameservers.known[0] in dead
    cost = (
        f"each lookup waits {seconds(patience)} for it before the next one is asked"
        if first and not any(nameservers.rejects(server) for server in dead)
        else "lookups succeed as long as the others answer"
    )
    failed = f", and {count(len(failing), 'target fails', 'targets fail')} by it" if failing else ""
    silent = " and ".join(
        f"{server} {'turns questions away' if nameservers.rejects(server) else 'does not answer'}" for server in dead
    )
    yield Verdict(
        cause=Cause.DNS_NAMESERVER_DOWN,
        confidence=Confidence.HIGH,
        targets=names(found),
        summary=f"Of the nameservers, {silent}, while {some(alive)} {'do' if len(alive) > 1 else 'does'}: "
        f"{cost}{failed}.",
        evidence=tuple(
            [_unanswered_by(server, case) for server in dead]
            + [f"nameserver {server} answers" for server in alive]
            + [_slowed(h.outcomes[0]) if h.failure is None else _shown(h) for h in (failing or working)[:3]]
        ),
        advice=f"See what {some(dead)} is in resolv.conf for (the cluster's DNS Service, a node-local cache, a company "
        f"nameserver) and bring it up, or take it out by the pod's dnsConfig. `dig @{dead[0]} "
        "kubernetes.default.svc.cluster.local` asks it alone.",
    )


def _ran_out_of_time_by(history: History, dead: Sequence[str], case: Case) -> bool:
    last = history.outcomes[0]
    if not case.lookup_failed(history) or last.failure is None or last.failure.reason not in UNANSWERED:
        return False
    return _met(last, dead) or Fact.DNS_ATTEMPTS not in last.facts


def _met(outcome: Outcome, dead: Sequence[str]) -> bool:
    return any(message.server in dead and not message.answered for message in messages_of(outcome))


def _surveyed(outcome: Outcome, dead: Sequence[str]) -> bool:
    """A dns target hears every nameserver, also those its lookup did not need."""
    return any(
        "error" in said and said["server"].rpartition(":")[0].strip("[]") in dead
        for said in outcome.facts.get(Fact.DNS_NAMESERVERS, ())
    )


def _slowed(outcome: Outcome) -> str:
    return f"{outcome.target.name}: its lookup took {seconds(outcome.phases.get(Phase.RESOLVE, 0.0))}"


def _shown(history: History) -> str:
    last = history.outcomes[0]
    detail = last.failure.detail if last.failure is not None else ""
    return f"{history.name}: its lookup failed after {seconds(last.phases.get(Phase.RESOLVE, 0.0))}: {detail}"


# --- they answer that they fail --------------------------------------------------------------------------------------


def failing(case: Case) -> Iterator[Verdict]:
    """SERVFAIL, REFUSED, answers that cannot be read: a verdict each."""
    for reason in sorted(_SAYS_IT_FAILED):
        found = [h for h in case.unexplained if _failed_by(h, reason) and h.outcomes[0].facts.get(Fact.PROXY) is None]
        if found:
            yield _failing(case, found, reason)


def _failed_by(history: History, reason: Reason) -> bool:
    failure = history.failure
    return failure is not None and failure.phase is Phase.RESOLVE and failure.reason is reason


def _failing(case: Case, found: Sequence[History], reason: Reason) -> Verdict:
    said = (
        _rcodes(found)
        or {
            Reason.SERVER_FAILURE: "a failure",
            Reason.QUERY_REFUSED: "REFUSED",
            Reason.PROTOCOL_ERROR: "what is no answer",
        }[reason]
    )
    others = case.nameservers.resolved_at >= min(h.outcomes[0].started_at for h in found)
    asked = sorted({name for h in found if (name := sought(h.target)) is not None})
    sources = sorted({m.server for h in found for m in messages_of(h.outcomes[0]) if m.rcode in said.split(" and ")})
    who = some(sources) if sources else "The nameservers"
    verb = "answers" if len(sources) == 1 else "answer"
    evidence = [f"the names: {some(asked, 5)}"] if asked else []
    if others:
        evidence.append("other names are found, so that the nameserver itself is up")
    if reason is Reason.QUERY_REFUSED:
        meaning = "it will not serve this pod, or not this zone"
        advice = (
            "Let the nameserver serve this pod's address (its access list: allow-query, access-control, a view), or "
            "name another one for this zone in the pod's dnsConfig or in CoreDNS' `forward`."
        )
    elif reason is Reason.SERVER_FAILURE:
        meaning = "it got no answer itself from whom it asks, or a broken one"
        advice = (
            "Look at the nameserver's own view: `kubectl -n kube-system logs -l k8s-app=kube-dns` and the `forward` "
            "line of `kubectl -n kube-system get configmap coredns -o yaml`: the servers it forwards to may be down, "
            "or unreachable from its pods; for a zone signed with DNSSEC, its signatures may have expired."
        )
    else:
        meaning = "something else may listen on port 53, or rewrite what passes"
        advice = "Ask by hand what comes back: `dig +tcp @NAMESERVER NAME` and `dig @NAMESERVER NAME`."
    return Verdict(
        cause=Cause.DNS_FAILING,
        confidence=settled(found, agreed=_agrees(case, said)),
        targets=names(found),
        summary=f"{who} {verb} {said} for {some(asked, 2) or count(len(found), 'lookup')}: {meaning}.",
        evidence=tuple(evidence + all_seen(found)),
        advice=advice,
    )


def _rcodes(found: Sequence[History]) -> str:
    """What they were, of those that are failures."""
    fine = {"", "NOERROR", "NXDOMAIN"}
    return " and ".join(sorted({m.rcode for h in found for m in messages_of(h.outcomes[0])} - fine))


def _agrees(case: Case, said: str) -> bool:
    codes = set(said.split(" and "))
    return any(answer.rcode in codes for _, answer in case.snapshot.asked(Lookup))


# --- they answer others ----------------------------------------------------------------------------------------------


def silent_for_some(case: Case) -> Iterator[Verdict]:
    """No nameserver answers for these names, and for others they do, also since then."""
    silent = {h.name for h in unanswered(case)}
    found = [h for h in case.unexplained if h.name in silent or _stuck(h, case)]
    if not found:
        return
    asked = sorted({name for h in found if (name := sought(h.target)) is not None})
    again = any(h.failures_in_a_row > 1 for h in found)
    reading = (
        "consistent with the servers they forward these names to being silent"
        if again
        else "consistent with lost messages, or with the servers they forward these names to being silent"
    )
    yield Verdict(
        cause=Cause.DNS_FAILING,
        confidence=Confidence.MEDIUM if again else Confidence.LOW,
        targets=names(found),
        summary=f"The nameservers leave {some(asked) or some(names(found))} without an answer, and answer for other "
        f"names: {reading}.",
        evidence=(
            *(f"nameserver {server} answers other questions" for server in case.nameservers.alive[:3]),
            *all_seen(found, 4),
        ),
        advice="Look at the nameserver's own view: `kubectl -n kube-system logs -l k8s-app=kube-dns` (timeouts toward "
        "its forwarders) and the `forward` lines of `kubectl -n kube-system get configmap coredns -o yaml`.",
    )


def _stuck(history: History, case: Case) -> bool:
    """It got answers for names on the way, and none for the one it ended at."""
    failure = history.failure
    if failure is None or failure.reason is not Reason.TIMEOUT or not case.lookup_failed(history):
        return False
    return stuck(history.outcomes[0])


# --- what to ask -----------------------------------------------------------------------------------------------------


def planner(case: Case) -> Iterator[Wanted]:
    """Each nameserver in turn, over TCP where it is silent; and whether anything else answers."""
    silent = [
        h
        for h in case.unexplained
        if case.lookup_failed(h) and h.failure is not None and h.failure.reason in UNANSWERED
    ]
    broken = [
        h
        for h in case.unexplained
        if case.lookup_failed(h) and h.failure is not None and h.failure.reason in _SAYS_IT_FAILED
    ]
    if silent:
        targets = names(silent)
        yield Wanted(LocalNetwork(), targets)
        if (api := case.snapshot.pod.kubernetes_api) is not None:
            yield Wanted(Connect(*api), targets)
    suspects = [server for server in case.nameservers.dead if server in case.snapshot.pod.resolver.nameservers]
    if suspects and not silent and case.snapshot.pod.cluster_domain is not None:
        met = [h for h in case.snapshot.histories if h.outcomes and _met(h.outcomes[0], suspects)]
        for server in suspects if met else ():
            known = f"kubernetes.default.svc.{case.snapshot.pod.cluster_domain}"
            yield Wanted(Lookup(known, "A", server), names(met[:1]))
    for found in (silent, broken):
        wanted = [name for h in found if (name := _full_name(h, case)) is not None]
        if found is silent and case.snapshot.pod.cluster_domain is not None:
            wanted = [f"kubernetes.default.svc.{case.snapshot.pod.cluster_domain}"]  # any name does that exists
        if not wanted:
            continue
        asked = {question.name for question, _ in case.snapshot.asked(Lookup)}
        chosen = next((one for one in wanted if one in asked), wanted[0])
        for server in case.snapshot.pod.resolver.nameservers:
            yield Wanted(Lookup(chosen, "A", server), names(found))
            if found is silent and any(
                question.server == server and question.transport == "udp" and answer.rcode is None
                for question, answer in case.snapshot.asked(Lookup)
            ):
                yield Wanted(Lookup(chosen, "A", server, "tcp"), names(found))


def _full_name(history: History, case: Case) -> str | None:
    """A name this target asks for, in full."""
    if history.outcomes[0].facts.get(Fact.PROXY) is not None:
        return None  # it asked for the name of the proxy
    written = sought(history.target)
    asks_one = history.target.type == "dns" and history.target.options.port is not None
    if written is None or asks_one or ip_address(written) is not None:
        return None
    plain = written.removesuffix(".")
    asked = (m.name for m in messages_of(history.outcomes[0]) if m.name.partition(".")[0] == plain.partition(".")[0])
    search = case.snapshot.pod.resolver.search
    whole = plain if plain != written or "." in plain or not search else f"{plain}.{search[0]}"
    return next(asked, whole).removesuffix(".") or None
