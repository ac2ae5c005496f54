"""Service meshes: everything the pod sends by TCP goes through a proxy in the pod, which accepts it in any case.

So a connection that stands proves nothing about the target, and one that is refused at once nothing either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.diagnosis.experiment import Connect, Connected, Mesh, MeshProxy
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnosis.rules.reading import names, peer, settled, some, within_pod
from agent.diagnosis.rules.saying import fact, failures, host, latest
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Phase, Reason, Scope
from agent.wording import seconds

AT_ONCE_SECONDS = 0.005
"""Loopback takes less, also on a busy node; a host in another zone takes about as long."""
_MANY_HOSTS, _MANY_SCOPES = 3, 2
"""So much has to be refused at once before that alone is a reason to speak of a mesh."""

_CONVERSATION = frozenset({Phase.PROXY, Phase.TLS, Phase.LOGIN, Phase.REQUEST})
_BROKEN_OFF = frozenset({Reason.CLOSED, Reason.RESET, Reason.TIMEOUT})
_NOT_CONNECTED = frozenset({Reason.REFUSED, Reason.CLOSED, Reason.RESET, Reason.TIMEOUT})
_HEARD = frozenset(
    {
        Fact.TLS_VERSION,
        Fact.CERTIFICATE_SUBJECT,
        Fact.HTTP_STATUS_CODE,
        Fact.SERVER_SIGNATURE,
        Fact.AUTHENTICATION,
        Fact.TLS_DECLINED,
        Fact.SQLSTATE,
    }
)
"""Facts that only the far end can have told."""
_GATEWAY_ERRORS = frozenset({502, 503, 504})
_RBAC, _TOO_SLOW = "RBAC:", "upstream request timeout"

PROVES_NOTHING = "behind a mesh a TCP connect proves nothing"


@dataclass(frozen=True, slots=True)
class _Here:
    """What is known of a proxy in this pod that everything goes through."""

    kind: str | None = None
    ready: bool | None = None
    evidence: tuple[str, ...] = ()
    accepts: bool = False
    """A connection to a host further away was accepted in this pod."""
    refuses: bool = False
    """A connection to a host further away was refused in this pod."""
    absent: bool = False
    """Connections leave the pod: nothing here takes them."""

    @property
    def present(self) -> bool:
        return self.kind is not None or self.accepts

    @property
    def name(self) -> str:
        return {"istio": "Istio's", "linkerd": "Linkerd's"}.get(self.kind or "", "a mesh's")


def not_ready(case: Case) -> Iterator[Verdict]:
    """The mesh's proxy does not serve yet, or any more, and nothing gets past it."""
    here = _here(case)
    over_tcp = [history for history in case.unexplained if _over_tcp(history)]
    stopped = [history for history in over_tcp if _stopped_by_proxy(history)]
    if here.kind is not None and here.ready is False and stopped:
        yield Verdict(
            cause=Cause.MESH_NOT_READY,
            confidence=settled(stopped, agreed=True),
            targets=names(stopped),
            summary=f"This pod has {here.name} proxy, and it is not ready: whatever the pod sends by TCP ends there.",
            evidence=(*here.evidence, *failures(stopped)),
            advice=_START_ORDER,
        )
        return
    refused = [history for history in over_tcp if _refused_at_once(history)]
    if here.absent or here.present or not refused or not _everything_is_refused(case, refused):
        return
    if not here.refuses and not _beyond_chance(refused):
        return
    yield Verdict(
        cause=Cause.MESH_NOT_READY,
        confidence=Confidence.HIGH if here.refuses and len(_hosts(refused)) > 1 else Confidence.MEDIUM,
        targets=names(refused),
        summary="Every TCP connection of this pod is refused at once, whatever its "
        f"target{', and the refusal comes from within the pod' if here.refuses else ''}: consistent with a mesh's "
        "redirection whose proxy does not run.",
        evidence=(*here.evidence, *(_how_fast(history) for history in refused[:3]), *failures(refused)),
        advice=_START_ORDER,
    )


_START_ORDER = (
    "Have the mesh's proxy start first: annotate the pod with `proxy.istio.io/config: "
    "'{\"holdApplicationUntilProxyStarts\": true}'` (Istio) or `config.linkerd.io/proxy-await: enabled` (Linkerd), or "
    "run it as a native sidecar. If it never gets ready: `kubectl logs POD -c istio-proxy`, `istioctl proxy-status`, "
    '`kubectl describe pod POD`. For a task that needs no mesh: the label `sidecar.istio.io/inject: "false"`, or '
    "`linkerd.io/inject: disabled`."
)


def no_upstream(case: Case) -> Iterator[Verdict]:
    """The mesh's proxy took the connection, and has nowhere to send it."""
    here = _here(case)
    said = [history for history in case.unexplained if _said_no_upstream(history)]
    if said:
        whose = f"{here.name[0].upper()}{here.name[1:]} proxy in this pod" if here.present else "A mesh's proxy"
        reading = "" if here.present else ", in this pod or in front of the target,"
        words = some(str(fact(history, Fact.MESH_ERROR)) for history in said)
        yield Verdict(
            cause=Cause.MESH_NO_UPSTREAM,
            confidence=settled(said) if here.present else Confidence.MEDIUM,
            targets=names(said),
            summary=f"{whose}{reading} answers in the place of {some(map(host, said))}: {words}.",
            evidence=(*here.evidence, *failures(said), *_connects_that_prove_nothing(case, here)),
            advice=_FIND_UPSTREAM,
        )
    if not here.present:
        return
    dropped = [history for history in case.unexplained if _dropped_by_proxy(history)]
    if dropped:
        yield Verdict(
            cause=Cause.MESH_NO_UPSTREAM,
            confidence=Confidence.MEDIUM,
            targets=names(dropped),
            summary=f"{here.name[0].upper()}{here.name[1:]} proxy in this pod accepts connections to "
            f"{some(map(host, dropped))}, and nothing comes of them: it most likely has nowhere to send them; "
            f"{PROVES_NOTHING}.",
            evidence=(
                *here.evidence,
                *(_how_fast(history) for history in dropped[:2]),
                *failures(dropped),
                *_connects_that_prove_nothing(case, here),
            ),
            advice=_FIND_UPSTREAM,
        )


def connect_alone(case: Case) -> Iterator[Verdict]:
    """Targets that must not be reachable and are tried by a connection alone: the proxy accepts it for anybody."""
    here = _here(case)
    reached = [history for history in case.unexplained if here.present and _present_by_connect_alone(history)]
    if reached:
        yield Verdict(
            cause=Cause.PROBE_MISCONFIGURED,
            confidence=Confidence.MEDIUM,
            targets=names(reached),
            summary=f"{some(names(reached))} must not be reachable, and a connection alone cannot tell: in this pod "
            f"{here.name} proxy accepts it, whatever the policy says; {PROVES_NOTHING}.",
            evidence=(*here.evidence, *failures(reached)),
            advice="Give these targets something to say, so that the far end has to answer: `tls: {}`, a `dialogue`, "
            "or the type http or postgres. `openssl s_client -connect HOST:PORT` shows whether anybody answers.",
        )


_FIND_UPSTREAM = (
    "Ask the proxy: `kubectl exec POD -c istio-proxy -- pilot-agent request GET clusters | grep HOST` (health_flags), "
    "`istioctl proxy-config endpoints POD --cluster …`, its access log's response flags (UH no healthy upstream, UF "
    "connection failure, NR or BlackHoleCluster no route); Linkerd: `linkerd viz tap pod/POD`. A host outside the mesh "
    "needs a ServiceEntry where outboundTrafficPolicy is REGISTRY_ONLY; a database can bypass the mesh: "
    '`traffic.sidecar.istio.io/excludeOutboundPorts: "5432"`, `config.linkerd.io/skip-outbound-ports: "5432"`.'
)


def look_for_proxy(case: Case) -> Iterator[Wanted]:
    """Whether a mesh's proxy is here, and whether packets with one hop to go leave the pod."""
    suspicious = [history for history in case.unexplained if _suspicious(history)]
    if not suspicious:
        return
    yield Wanted(MeshProxy(), names(suspicious))
    # The further away, the surer: a pod of the same node may be one hop from here.
    farthest = sorted(suspicious, key=lambda h: [Scope.PUBLIC, Scope.PRIVATE, Scope.CLUSTER].index(h.target.scope))
    for history in farthest:
        tried = peer(history)
        if tried is not None:
            yield Wanted(Connect(*tried, hops=1), names(suspicious))
            return


def _suspicious(history: History) -> bool:
    if _present_by_connect_alone(history):
        return True
    as_by_mesh = _refused_at_once(history) or _dropped_by_proxy(history) or _said_no_upstream(history)
    return as_by_mesh and _over_tcp(history)


def _here(case: Case) -> _Here:
    kind, ready, evidence = None, None, []
    found = next((answer for _, answer in case.snapshot.asked(MeshProxy)), None)
    if isinstance(found, Mesh) and found.kind is not None:
        kind, ready = found.kind, found.ready
        evidence.append(f"In this pod, {found.detail}.")
    accepts = refuses = absent = False
    public = {tried[0] for h in case.snapshot.histories if h.target.scope is Scope.PUBLIC and (tried := peer(h))}
    for question, answer in case.snapshot.asked(Connect):
        if question.hops != 1 or not isinstance(answer, Connected):
            continue
        refused = answer.failure is not None and answer.failure.reason is Reason.REFUSED and not answer.rejected
        if answer.failure is not None and not refused:
            absent = True
        elif question.ip in public:
            # Anybody else may be the node itself, or on the same bridge: no router is in between.
            accepts, refuses = accepts or not refused, refuses or refused
            evidence.append(
                f"A connection to {question.ip}:{question.port} whose packets may not pass a router was "
                f"{'refused' if refused else 'accepted'} in {seconds(answer.seconds)}: by this pod itself."
            )
    return _Here(kind, ready, tuple(evidence), accepts, refuses and not accepts, absent and not (accepts or refuses))


def _over_tcp(history: History) -> bool:
    return history.target.type != "dns" and not history.target.negative and not within_pod(history)


def _stopped_by_proxy(history: History) -> bool:
    """Whether a run failed as it does at a proxy that takes nothing, or takes it and has no configuration."""
    _, failure = latest(history)
    if failure.phase is Phase.CONNECT:
        return failure.reason in _NOT_CONNECTED
    return _dropped_by_proxy(history) or _said_no_upstream(history)


def _refused_at_once(history: History) -> bool:
    outcome, failure = latest(history)
    quick = outcome.phases.get(Phase.CONNECT, AT_ONCE_SECONDS) < AT_ONCE_SECONDS
    return failure.phase is Phase.CONNECT and failure.reason is Reason.REFUSED and quick


def _everything_is_refused(case: Case, refused: Sequence[History]) -> bool:
    """Whether no target that needs TCP works, and none fails in another way that took a connection."""
    mine = set(names(refused))
    others = [h for h in case.snapshot.histories if h.last is not None and _over_tcp(h) and h.name not in mine]
    reached = [h for h in others if Phase.CONNECT in h.outcomes[0].phases]
    controls = [
        answer
        for question, answer in case.snapshot.asked(Connect)
        if question.hops is None and isinstance(answer, Connected) and answer.failure is None
    ]
    return not reached and not controls


def _beyond_chance(refused: Sequence[History]) -> bool:
    return len(_hosts(refused)) >= _MANY_HOSTS and len({h.target.scope for h in refused}) >= _MANY_SCOPES


def _hosts(histories: Sequence[History]) -> set[str]:
    return {host(history) for history in histories}


def _said_no_upstream(history: History) -> bool:
    said = fact(history, Fact.MESH_ERROR)
    if said is None or str(said).startswith((_RBAC, _TOO_SLOW)):
        return False
    return fact(history, Fact.HTTP_STATUS_CODE) in _GATEWAY_ERRORS


def _dropped_by_proxy(history: History) -> bool:
    """Whether a connection stood, and ended or stayed silent before the far end said a word."""
    outcome, failure = latest(history)
    return (
        failure.phase in _CONVERSATION
        and failure.reason in _BROKEN_OFF
        and Phase.CONNECT in outcome.phases
        and Fact.PROXY not in outcome.facts
        and _HEARD.isdisjoint(outcome.facts)
    )


def _present_by_connect_alone(history: History) -> bool:
    """Whether a target that must not be reachable accepted a connection, and nobody has said a word on it."""
    outcome, failure = latest(history)
    return (
        history.target.negative
        and failure.reason is Reason.UNEXPECTED_SUCCESS
        and history.target.type == "tcp"
        and not within_pod(history)
        and Phase.CONNECT in outcome.phases
        and _HEARD.isdisjoint(outcome.facts)
    )


def _how_fast(history: History) -> str:
    outcome, failure = latest(history)
    took = seconds(outcome.phases.get(Phase.CONNECT, 0.0))
    address = outcome.facts.get(Fact.ADDRESS, history.target.address)
    return f"{history.name}: {address} {'refused' if failure.phase is Phase.CONNECT else 'accepted'} within {took}."


def _connects_that_prove_nothing(case: Case, here: _Here) -> tuple[str, ...]:
    """Targets that work and are no more than a connection."""
    only = [
        history.name
        for history in case.snapshot.working
        if here.present and _over_tcp(history) and history.target.type == "tcp" and _only_connected(history)
    ]
    return (f"{some(only)} only connect, which says nothing here: {PROVES_NOTHING}.",) if only else ()


def _only_connected(history: History) -> bool:
    outcome = history.outcomes[0]
    return Phase.CONNECT in outcome.phases and _HEARD.isdisjoint(outcome.facts)
