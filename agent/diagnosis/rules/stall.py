"""Connections that stand, and then silence: large packets that get lost, or a server that does not answer."""

from __future__ import annotations

from collections.abc import Iterator

from agent.diagnosis.experiment import Exchanged, SmallSegments
from agent.diagnosis.rules.case import Case, Wanted
from agent.diagnosis.rules.reading import names, some, unsettled
from agent.diagnosis.rules.saying import endpoint, failures, grouped, latest
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Phase, Reason
from agent.wording import seconds

_CONVERSATION = frozenset({Phase.PROXY, Phase.TLS, Phase.LOGIN, Phase.REQUEST, Phase.TRANSFER})
_ASKED = 3
"""Stalled targets that are asked again with small segments: the others of the same way fare the same."""


def large_packets_lost(case: Case) -> Iterator[Verdict]:
    """The same exchange works in small segments."""
    stalled = [history for history in case.unexplained if _stalled(history)]
    cured = {
        history.name: again for history in stalled if (again := _again(case, history)) and _further(history, again)
    }
    if not cured:
        return
    # Whoever was not asked again and stalls in the same phase is on the same way, as far as anybody knows.
    phases = {latest(history)[1].phase for history in stalled if history.name in cured}
    alike = [
        history
        for history in stalled
        if history.name in cured or (_again(case, history) is None and latest(history)[1].phase in phases)
    ]
    yield Verdict(
        cause=Cause.STALLED_AFTER_CONNECT,
        confidence=Confidence.HIGH,
        targets=names(alike),
        summary=f"Large packets to or from {some(map(endpoint, alike))} get lost on the way: connections stand, small "
        "exchanges work, large ones stall. The path MTU is smaller than the pod's, and nobody tells the senders.",
        evidence=(
            *failures(alike),
            *(
                f"{name}: the same in TCP segments of 536 bytes took {seconds(again.seconds)} and "
                f"{'succeeded' if again.failure is None else f'got as far as {again.failure.phase}'}."
                for name, again in cured.items()
            ),
        ),
        advice="Find the size that passes: `ping -M do -s 1372 HOST` from the node, smaller until it answers. Then set "
        "the CNI's MTU to it (Calico: `mtu` of the FelixConfiguration, Cilium: `mtu`, Flannel follows its interface), "
        "or clamp where the tunnel begins: `iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS "
        "--clamp-mss-to-pmtu`; and let ICMP `fragmentation needed` (type 3, code 4) through firewalls.",
    )


def silence(case: Case) -> Iterator[Verdict]:
    """The connection stands, and no answer comes."""
    stalled = [history for history in case.unexplained if _stalled(history)]
    for where, histories in grouped(stalled, endpoint).items():
        outcome, failure = latest(histories[0])
        small = [again for history in histories if (again := _again(case, history)) is not None]
        proxy = outcome.facts.get(Fact.PROXY)
        peer = f"The proxy {proxy}" if proxy and failure.phase is Phase.PROXY else where
        asked = histories[0].target.type == "http" and failure.phase in {Phase.REQUEST, Phase.TRANSFER}
        slow = f"slower than the {histories[0].target.timeout_seconds:g} s it has"
        suspect = (
            f"the server hangs or is {slow}; it does not answer small packets either, so that the path MTU is no "
            "suspect"
            if small
            else f"the server hangs or is {slow}, something in between swallows what is sent, or large packets get "
            "lost (path MTU)"
        )
        yield Verdict(
            cause=Cause.STALLED_AFTER_CONNECT,
            confidence=Confidence.MEDIUM if small else unsettled(histories),
            targets=names(histories),
            summary=f"{peer} accepts connections and then says nothing{_DURING[failure.phase]}: {suspect}.",
            evidence=(
                *failures(histories),
                *(_connected(history) for history in histories[:2]),
                *(
                    f"The same in TCP segments of 536 bytes: {again.failure.phase}/{again.failure.reason} after "
                    f"{seconds(again.seconds)}."
                    for again in small
                    if again.failure is not None
                ),
            ),
            advice="Look at the server: its log, its load, its accept queue (`ss -ltn` shows Recv-Q), threads or "
            f"workers that are all busy. Compare with another client: {_other_client(histories[0], where, asked=asked)}"
            ". Behind a balancer or a mesh it may be that which accepts, with nobody behind it.",
        )


def _other_client(history: History, where: str, *, asked: bool) -> str:
    if asked:
        return (
            f"`curl -v --max-time 20 {history.target.address}` shows how long the answer takes; where that is usual, "
            "raise the target's `timeout`"
        )
    outcome, failure = latest(history)
    if failure.phase is Phase.TLS or Phase.TLS in outcome.phases:
        return f"`openssl s_client -connect {where}`"
    return f"`curl -v --max-time 20 telnet://{where}`"


_DURING = {
    Phase.PROXY: " to the request for a tunnel",
    Phase.TLS: " to the TLS handshake",
    Phase.LOGIN: " to the login",
    Phase.REQUEST: " to the request",
    Phase.TRANSFER: " in the middle of its answer",
}


def try_small_segments(case: Case) -> Iterator[Wanted]:
    """The same probe over connections whose packets fit any path."""
    stalled = [h for h in case.unexplained if _stalled(h) and _repeatable(h)]
    # One of each host first: what holds for one target of a host holds for the others.
    firsts = [histories[0] for histories in grouped(stalled, endpoint).values()]
    for history in firsts[:_ASKED]:
        yield Wanted(SmallSegments(history.name), (history.name,))


def _repeatable(history: History) -> bool:
    """Whether to ask again does no more than to ask: a request with a body may have been carried out."""
    return history.target.type != "dns" and not getattr(history.target.options, "sends_body", False)


def _stalled(history: History) -> bool:
    outcome, failure = latest(history)
    stands = Phase.CONNECT in outcome.phases
    return stands and failure.phase in _CONVERSATION and failure.reason is Reason.TIMEOUT


def _again(case: Case, history: History) -> Exchanged | None:
    """How the same probe went in small segments."""
    for question, answer in case.snapshot.asked(SmallSegments):
        if question.target == history.name and isinstance(answer, Exchanged):
            return answer
    return None


def _further(history: History, again: Exchanged) -> bool:
    """Whether it got past the phase in which the usual run stalls, whatever came of it there."""
    phases = list(Phase)
    return again.failure is None or phases.index(again.failure.phase) > phases.index(latest(history)[1].phase)


def _connected(history: History) -> str:
    outcome, _ = latest(history)
    return f"{history.name}: the connection stood after {seconds(outcome.phases[Phase.CONNECT])}."
