"""Names that do not exist, and the nearest name that does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agent.diagnosis.experiment import Looked, Lookup
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnosis.rules.nameservers import messages_of
from agent.diagnosis.rules.reading import all_seen, brief, direct, names, settled, some, sought, unsettled
from agent.diagnosis.snapshot import History, Pod, Snapshot
from agent.diagnosis.verdict import Cause, Verdict
from agent.model import Fact, Phase, Reason, Scope
from agent.networks import ip_address
from agent.wording import count

_NAMESPACES = 4
"""In how many other namespaces a Service is looked for."""
_NAMES = 8
"""How many missing names are looked into: each costs a handful of questions."""
_MANY = 4
"""From so many names on that are nowhere to be found, one verdict is about all of them: nobody reads twenty."""
_CLUSTER_DOMAIN = "cluster.local"
"""Where nothing says otherwise: the default of every installer."""
_LABELS_OF_SERVICE = 2


@dataclass(frozen=True, slots=True)
class Missing:
    """One name that was not found, and what it may have been meant to be."""

    name: str
    """As it is configured, without a dot at its end; in lower case."""
    rooted: bool
    """It was written with a dot at its end, which keeps the search list from it."""
    foreign: bool
    """A redirect led to it: nobody is asked about it."""
    histories: tuple[History, ...]
    tried: frozenset[str]
    """Full names that were asked for."""
    expanded: tuple[str, ...] = field(default=())
    """With each domain of the search list."""
    elsewhere: tuple[tuple[str, str], ...] = field(default=())
    """Namespaces and full names, if it is meant to be a Service: its own namespace first."""

    @property
    def candidates(self) -> tuple[str, ...]:
        """Full names worth asking for, the likeliest first."""
        if self.foreign:
            return ()
        names_of_services = tuple(full for _, full in self.elsewhere if full not in self.tried)
        expanded = tuple(full for full in self.expanded if full not in self.tried) if self.rooted else ()
        return tuple(dict.fromkeys((*expanded, *names_of_services)))


def missing(case: Case) -> Iterator[Missing]:
    """Names of unexplained targets that nameservers say do not exist, or have no address."""
    groups: dict[tuple[str, bool], list[History]] = {}
    for history in case.unexplained:
        failure = history.failure
        if failure is None or failure.phase is not Phase.RESOLVE or not direct(history.outcomes[0]):
            continue
        if failure.reason not in {Reason.NAME_NOT_FOUND, Reason.NO_RECORDS}:
            continue
        groups.setdefault(_sought(history), []).append(history)
    for (name, foreign), histories in groups.items():
        yield _missing(name, foreign, histories, case.snapshot)


def _sought(history: History) -> tuple[str, bool]:
    """The name a run looked for, and whether it is one that a redirect led to."""
    configured = (sought(history.target) or history.name).lower()
    asked = [message.name.lower() for message in messages_of(history.outcomes[0])]
    plain = configured.removesuffix(".")
    if asked and not any(name == plain or name.startswith(f"{plain}.") for name in asked):
        return min(asked, key=lambda name: (len(name), name)), True
    return configured, False


def _missing(written: str, foreign: bool, histories: Sequence[History], snapshot: Snapshot) -> Missing:  # noqa: FBT001
    pod = snapshot.pod
    name, rooted = written.removesuffix("."), written.endswith(".")
    search = (
        ()
        if any(h.target.type == "dns" and h.target.options.port is not None for h in histories)
        else pod.resolver.search
    )
    tried = {m.name.lower() for h in histories for m in messages_of(h.outcomes[0])}
    # A walk goes through all of them before it gives up, whether or not the run wrote them down.
    tried |= {name} | ({f"{name}.{domain.lower()}" for domain in search} if not rooted else set())
    return Missing(
        name=name,
        rooted=rooted,
        foreign=foreign,
        histories=tuple(histories),
        tried=frozenset(tried),
        expanded=tuple(f"{name}.{domain.lower()}" for domain in search if domain),
        elsewhere=tuple(_services(name, histories, snapshot)),
    )


def _services(name: str, histories: Sequence[History], snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """If a name may mean a Service: the namespaces it may be in, and its full name there."""
    if ip_address(name) is not None:
        return
    pod = snapshot.pod
    if pod.namespace is None and not any(h.target.scope is Scope.CLUSTER for h in histories):
        return  # no cluster, as far as anybody knows
    domain = (pod.cluster_domain or _CLUSTER_DOMAIN).lower()
    plain = name.removesuffix(f".{domain}").removesuffix(".svc")
    labels = plain.split(".")
    if len(labels) > _LABELS_OF_SERVICE or (len(labels) == _LABELS_OF_SERVICE and plain != name and ".svc" not in name):
        return
    own = labels[1:] or [pod.namespace or "default"]
    others = [namespace for namespace in _namespaces(snapshot) if namespace not in own]
    for namespace in (*own, *others[:_NAMESPACES]):
        yield namespace, f"{labels[0]}.{namespace}.svc.{domain}"


def _namespaces(snapshot: Snapshot) -> list[str]:
    """The pod's own, `default`, and those that targets name, or were found in."""
    found = [snapshot.pod.namespace or "default", "default"]
    for history in snapshot.histories:
        full = str(history.outcomes[0].facts.get(Fact.DNS_NAME, "")) if history.outcomes else ""
        for name in (str(history.target.options.host or ""), full):
            labels = name.lower().split(".")
            if labels[_LABELS_OF_SERVICE : _LABELS_OF_SERVICE + 1] == ["svc"]:
                found.append(labels[1])
    return list(dict.fromkeys(found))


# --- verdicts --------------------------------------------------------------------------------------------------------


def not_found(case: Case) -> Iterator[Verdict]:
    """One verdict a name; one for all that a domain of the search list would find, and one for many without a trace."""
    unsearched: dict[str, list[tuple[Missing, str]]] = {}
    without_trace: list[Missing] = []
    for one in missing(case):
        found = _found(one, case.snapshot)
        domain = _missing_domain(one, found, case.snapshot.pod)
        if domain is not None:
            unsearched.setdefault(domain, []).append((one, found[0]))
        elif not found and _knowing(one, case.snapshot) is None and not _lacks_records(one):
            without_trace.append(one)
        else:
            yield _verdict(one, found, case)
    for domain, names_in_it in unsearched.items():
        yield _unsearched(domain, names_in_it, case)
    for services in (True, False):
        of_a_kind = [one for one in without_trace if bool(one.elsewhere) is services]
        if len(of_a_kind) < _MANY:
            for one in of_a_kind:
                yield _verdict(one, (), case)
        else:
            yield _many(of_a_kind, case, services=services)


def _many(found: Sequence[Missing], case: Case, *, services: bool) -> Verdict:
    histories = _in_order([h for one in found for h in one.histories], case)
    known = [*_neighbours(found[0], case)] or ["no other name of that kind is found either"]
    if services:
        summary = (
            "are not known as Services: consistent with a namespace that is not the one they are in, or was emptied"
        )
        advice = "`kubectl get services --all-namespaces` shows where they are; write the namespace in the address "
        "(NAME.NAMESPACE)."
    else:
        summary = (
            "do not exist for the nameservers: they may lack a forward for these zones, or for all outside the cluster"
        )
        advice = (
            "Ask a nameserver outside (`dig NAME @NAMESERVER`). Where it knows them, the cluster's DNS lacks a "
            "forward: `kubectl -n kube-system get configmap coredns -o yaml`, the `forward` lines."
        )
    return Verdict(
        cause=Cause.NAME_NOT_FOUND,
        confidence=unsettled(histories, agreed=True),
        targets=names(histories),
        summary=f"{count(len(found), 'name')} ({some(one.name for one in found)}) {summary}.",
        evidence=(*known, *all_seen(histories)),
        advice=advice,
    )


def _found(one: Missing, snapshot: Snapshot) -> list[str]:
    """Of the names it may have been meant to be, those that exist, the likeliest first."""
    existing = {
        question.name.lower()
        for question, answer in snapshot.asked(Lookup)
        if isinstance(answer, Looked) and answer.rcode == "NOERROR" and answer.records
    }
    return [name for name in one.candidates if name in existing]


def _missing_domain(one: Missing, found: Sequence[str], pod: Pod) -> str | None:
    """The domain that the search list would need to find this name as it is written."""
    for full in found:
        domain = full.removeprefix(f"{one.name}.")
        if full.startswith(f"{one.name}.") and not one.rooted:
            namespace = domain.partition(".svc.")[0] if ".svc." in domain else None
            if namespace in {None, pod.namespace or "default"} and domain not in pod.resolver.search:
                return domain
    return None


def _unsearched(domain: str, found: Sequence[tuple[Missing, str]], case: Case) -> Verdict:
    histories = _in_order([h for one, _ in found for h in one.histories], case)
    resolver = case.snapshot.pod.resolver
    written = some(one.name for one, _ in found)
    return Verdict(
        cause=Cause.NAME_NOT_FOUND,
        confidence=settled(histories, agreed=True),
        targets=names(histories),
        summary=f"{written} {'exist' if len(found) > 1 else 'exists'} only in full, as "
        f"{some(full for _, full in found)}: {domain} is missing from the pod's search list.",
        evidence=(
            f"resolv.conf searches {some(resolver.search, 6) or 'nothing'} (ndots:{resolver.ndots})",
            *(f"{full} has an address" for _, full in found),
            *all_seen(histories, 2),
        ),
        advice=f"Write the name in full ({found[0][1]}), or give the pod `dnsPolicy: ClusterFirst` (with hostNetwork: "
        f"`ClusterFirstWithHostNet`), or `dnsConfig: {{searches: [{domain}]}}`.",
    )


def _verdict(one: Missing, found: Sequence[str], case: Case) -> Verdict:
    histories = one.histories
    summary, evidence, advice = _explain(one, found, case)
    before = [h.name for h in histories if any(outcome.success for outcome in h.outcomes)]
    if before:
        evidence.append(
            f"it was found before: {some(before)} succeeded within the last {count(len(histories[0].outcomes), 'run')}"
        )
    return Verdict(
        cause=Cause.NAME_NOT_FOUND,
        confidence=settled(histories, agreed=bool(found) or _agrees(one, case.snapshot)),
        targets=names(histories),
        summary=summary,
        evidence=tuple(evidence + all_seen(histories, 2)),
        advice=advice,
    )


def _explain(one: Missing, found: Sequence[str], case: Case) -> tuple[str, list[str], str]:
    shown = brief(f"{one.name}." if one.rooted else one.name)
    answers = [f"{full} has an address" for full in found]
    absent = [name for name in one.candidates if name not in found and _denied(name, case.snapshot)]
    if absent:
        answers.append(f"neither here nor there: {some(absent, 4)}")
    if one.rooted and any(full in one.expanded for full in found):
        full = next(full for full in found if full in one.expanded)
        return (
            f"{shown} does not exist, and {full} does: the dot at the end of the name keeps the search list from it.",
            answers,
            f"Write {one.name} without the dot at its end, or {full} in full.",
        )
    namespaces = {full: namespace for namespace, full in one.elsewhere}
    if found and found[0] in namespaces:
        namespace = namespaces[found[0]]
        service = found[0].partition(".")[0]
        return (
            (
                f"There is no Service {service} in the namespace it is looked for, and there is one in the namespace "
                f"{namespace}."
            ),
            answers,
            f"Write {service}.{namespace} in the address; `kubectl -n {namespace} get service {service}` shows it.",
        )
    other = _knowing(one, case.snapshot)
    if other is not None:
        knowing, other_name = other
        return (
            (
                f"{shown} exists for the nameserver {knowing} only: the nameservers of this pod know different names, "
                "and the first that answers is believed."
            ),
            [f"nameserver {knowing} has an address for {other_name}"],
            (
                "Have all nameservers of resolv.conf forward that zone (CoreDNS: a server block with `forward`); a "
                "list of nameservers that know different names does not work."
            ),
        )
    if _lacks_records(one):
        return _without_record(one, shown, answers, case.snapshot)
    if one.elsewhere:
        service, namespace = one.name.partition(".")[0], one.elsewhere[0][0]
        if one.name == f"{service}.{namespace}":
            return (
                (
                    f"The nameservers say that {shown} does not exist, neither as a Service {service} in a namespace "
                    f"{namespace} nor as a name outside the cluster."
                ),
                [*answers, *_neighbours(one, case)],
                (
                    f"`kubectl -n {namespace} get services` lists the Services there. For a name outside, look for a "
                    f"misspelling and ask a nameserver outside (`dig {one.name} @NAMESERVER`): if it is known there, "
                    "the cluster's DNS lacks a forward for it (`kubectl -n kube-system get configmap coredns -o yaml`)."
                ),
            )
        return (
            (
                f"There is no Service {service} in the namespace {namespace}: the nameservers say that {shown} does "
                "not exist."
            ),
            answers,
            (
                f"`kubectl -n {namespace} get services` lists them; `kubectl get services --all-namespaces | grep -w "
                f"{service}` looks everywhere. For a database outside the cluster, make a Service with its name "
                "(deploy/examples/service-external-database.yaml)."
            ),
        )
    return (
        f"The nameservers say that {shown} does not exist.",
        [*answers, *_neighbours(one, case)],
        (
            f"Look for a misspelling; ask a nameserver outside (`dig {one.name} @NAMESERVER`). If it is known there, "
            "the cluster's DNS lacks a forward for that zone: `kubectl -n kube-system get configmap coredns -o yaml`."
        ),
    )


def _lacks_records(one: Missing) -> bool:
    return all(h.failure is not None and h.failure.reason is Reason.NO_RECORDS for h in one.histories)


def _without_record(one: Missing, shown: str, answers: list[str], snapshot: Snapshot) -> tuple[str, list[str], str]:
    others = sorted(
        {
            question.record
            for question, answer in snapshot.asked(Lookup)
            if question.name.lower() in one.tried and answer.rcode == "NOERROR" and answer.records
        }
    )
    if others:
        return (
            f"{shown} exists, and has {' and '.join(others)} records only, which is not what is asked for.",
            answers,
            "Set `family` (or `record`) of the target to what there is, or have the missing record added.",
        )
    return (
        f"{shown} exists, and has no record of the type that is asked for.",
        answers,
        (
            f"`dig {one.name} ANY` shows what there is: a headless Service without ready pods has no address, and an "
            "alias may lead nowhere."
        ),
    )


def _neighbours(one: Missing, case: Case) -> list[str]:
    """Whether names like this are found at all."""
    others = [
        h.name
        for h in case.snapshot.working
        if h.target.scope is one.histories[0].target.scope and Phase.RESOLVE in h.outcomes[0].phases
    ]
    return [f"other names of that kind are found: {some(others)}"] if others else []


def _denied(name: str, snapshot: Snapshot) -> bool:
    return any(
        question.name.lower() == name and answer.rcode == "NXDOMAIN" for question, answer in snapshot.asked(Lookup)
    )


def _knowing(one: Missing, snapshot: Snapshot) -> tuple[str, str] | None:
    """A nameserver that does know the name, and the full name; the first in alphabetical order."""
    about = [(q, a) for q, a in snapshot.asked(Lookup) if q.name.lower() in one.tried and q.record == "A"]
    found = sorted((q.server, q.name) for q, a in about if a.rcode == "NOERROR" and a.records)
    denying = {q.server for q, a in about if a.rcode == "NXDOMAIN"}
    return found[0] if found and denying - {server for server, _ in found} else None


def _agrees(one: Missing, snapshot: Snapshot) -> bool:
    return any(
        question.name.lower() in one.tried and answer.rcode == "NXDOMAIN" for question, answer in snapshot.asked(Lookup)
    )


def _in_order(histories: Sequence[History], case: Case) -> list[History]:
    shown = set(names(histories))
    return [h for h in case.snapshot.histories if h.name in shown]


# --- what to ask -----------------------------------------------------------------------------------------------------


def planner(case: Case) -> Iterator[Wanted]:
    """The names it may have been meant to be, and each nameserver for the name as it is."""
    servers = case.snapshot.pod.resolver.nameservers
    if not servers:
        return
    gone = {server for server in servers if case.nameservers.gone(server)}
    first = next((server for server in servers if server not in gone), servers[0])
    found = [one for one in missing(case) if one.name and not one.foreign]
    for one in found[:_NAMES]:
        targets = names(one.histories)
        for full in one.candidates:
            yield Wanted(Lookup(full, "A", first), targets)
    for one in found[:_NAMES]:
        targets = names(one.histories)
        # The name itself, which every nameserver was to know: a single label is a Service's, in the pod's namespace.
        full = one.name if "." in one.name or one.rooted or not one.expanded else one.expanded[0]
        for server in servers:
            yield Wanted(Lookup(full, "A", server), targets)
        if any(h.failure is not None and h.failure.reason is Reason.NO_RECORDS for h in one.histories):
            yield Wanted(Lookup(full, "AAAA", first), targets)
