"""HTTP proxies: one that cannot be reached, forbids, wants credentials, or finds no way onwards itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.diagnosis.rules.case import Case
from agent.diagnosis.rules.reading import names, settled, some, unsettled
from agent.diagnosis.rules.saying import domain, endpoint, fact, failures, grouped, host, latest
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Outcome, Phase, Reason, Scope

_OWN_PAGES = ("squid", "tinyproxy", "mcafee web gateway", "zscaler")
"""Server headers begin so on pages that a proxy made by itself: what it passes on keeps the origin's header."""
_UNAUTHORIZED, _FORBIDDEN, _AUTH_REQUIRED, _ERRORS_FROM = 401, 403, 407, 500
_NO_SUCH_NAME = frozenset({Reason.NAME_NOT_FOUND, Reason.NO_RECORDS})


def unknown_proxy(case: Case) -> Iterator[Verdict]:
    """The proxy's name is in no nameserver: the name that is missing is not the target's."""
    yield from _unreachable(
        case,
        [
            history
            for history in _proxied(case)
            if latest(history)[1].phase is Phase.RESOLVE and latest(history)[1].reason in _NO_SUCH_NAME
        ],
    )


def unreachable_proxy(case: Case) -> Iterator[Verdict]:
    """Nobody got as far as asking the proxy for anything."""
    yield from _unreachable(case, [history for history in _proxied(case) if _before_the_proxy_was_asked(history)])


def _unreachable(case: Case, failing: Sequence[History]) -> Iterator[Verdict]:
    for proxy, histories in grouped(failing, _proxy).items():
        failure = latest(histories[0])[1]
        past = [h for h in case.snapshot.working if fact(h, Fact.PROXY) == proxy]
        direct = [h for h in case.snapshot.working if fact(h, Fact.PROXY) is None]
        evidence = list(failures(histories))
        if direct:
            evidence.append(f"Without a proxy {some(names(direct))} can be reached.")
        if past:
            evidence.append(f"Through the same proxy {some(names(past))} can be reached.")
        yield Verdict(
            cause=Cause.PROXY_UNREACHABLE,
            confidence=unsettled(histories) if past else settled(histories),
            targets=names(histories),
            summary=f"The proxy {proxy} {_WHAT.get((failure.phase, failure.reason), 'cannot be reached')}, and "
            f"{some(names(histories))} {'is' if len(histories) == 1 else 'are'} asked through it.",
            evidence=tuple(evidence),
            advice="Check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY of the pod (`kubectl exec POD -c netprobe -- env | "
            "grep -i _proxy | sed 's#//[^/]*@#//***@#'`, which hides a password) and the proxy itself: `curl -v -x "
            f"{proxy} https://{host(histories[0])}/`. An egress NetworkPolicy has to allow the proxy's port. What "
            "needs no proxy belongs into NO_PROXY: .svc,.cluster.local, the networks of pods and Services.",
        )


_WHAT = {
    (Phase.RESOLVE, Reason.NAME_NOT_FOUND): "has a name that no nameserver knows",
    (Phase.RESOLVE, Reason.NO_RECORDS): "has a name without addresses",
    (Phase.CONNECT, Reason.REFUSED): "refuses connections",
    (Phase.CONNECT, Reason.TIMEOUT): "does not answer (consistent with a policy that drops, or a dead host)",
    (Phase.CONNECT, Reason.UNREACHABLE): "has an address to which there is no way",
}


def denied(case: Case) -> Iterator[Verdict]:
    """The proxy's rules forbid the target."""
    forbidden = [history for history in _proxied(case) if _said(history, Reason.DENIED, {_FORBIDDEN})]
    for proxy, histories in grouped(forbidden, _proxy).items():
        yield Verdict(
            cause=Cause.PROXY_DENIED,
            confidence=settled(histories),
            targets=names(histories),
            summary=f"The proxy {proxy} forbids {some(map(host, histories))}.",
            evidence=(*failures(histories), *_in_its_words(histories)),
            advice=f"Have {some(map(endpoint, histories))} allowed in the proxy's access list (squid: `acl airflow "
            f"dstdomain {host(histories[0])}`, `http_access allow airflow` before the deny). What should not go "
            f"through the proxy belongs into NO_PROXY: `NO_PROXY=$NO_PROXY,{host(histories[0])}`.",
        )


def wants_credentials(case: Case) -> Iterator[Verdict]:
    """The proxy wants credentials, or others."""
    asked = [
        history for history in _proxied(case) if _said(history, Reason.AUTH_REQUIRED, {_UNAUTHORIZED, _AUTH_REQUIRED})
    ]
    for proxy, histories in grouped(asked, _proxy).items():
        yield Verdict(
            cause=Cause.PROXY_AUTH,
            confidence=settled(histories),
            targets=names(histories),
            summary=f"The proxy {proxy} wants credentials, or does not take those it is sent.",
            evidence=(*failures(histories), *_in_its_words(histories)),
            advice="Put user and password into the proxy's URL, with special characters percent-encoded: "
            f"HTTPS_PROXY={proxy.replace('://', '://USER:PASSWORD@', 1)}, from a Secret (`valueFrom.secretKeyRef`). To "
            f"try them: `curl -I -x {proxy} -U USER https://{host(histories[0])}/`, which asks for the password (-v "
            "would show it). Proxies that want Kerberos or NTLM need a local helper such as cntlm.",
        )


def no_way_onwards(case: Case) -> Iterator[Verdict]:
    """The proxy was asked, and could not connect to the target itself."""
    stuck = [history for history in _proxied(case) if _stuck_beyond(history)]
    for proxy, histories in grouped(stuck, _proxy).items():
        if _own_way_out_is_down(case, proxy, histories):
            yield Verdict(
                cause=Cause.EGRESS_BLOCKED,
                confidence=Confidence.MEDIUM,
                targets=names(histories),
                summary=f"The proxy {proxy} answers and reaches none of {len(histories)} targets beyond it: consistent "
                "with its own way out being blocked or down.",
                evidence=(*failures(histories), *_in_its_words(histories)),
                advice="The pod's side is fine. Ask whoever runs the proxy; on its host: `curl -v --noproxy '*' "
                f"https://{host(histories[0])}/`, and its log.",
            )
            continue
        for (name, _), same in grouped(histories, lambda h: (host(h), _how_far(h))).items():
            met = _how_far(same[0])
            yield Verdict(
                cause=_ONWARDS[met],
                confidence=unsettled(same),
                targets=names(same),
                summary=f"The proxy {proxy} was reached and {_MET[met].format(name=name)}.",
                evidence=(*failures(same), *_in_its_words(same)),
                advice=f"Look at {endpoint(same[0])} from where the proxy stands: `curl -v --noproxy '*' "
                f"{same[0].target.address}` on its host, and the proxy's log. If {name} is inside the cluster or the "
                f"private network, the pod may reach it without the proxy: `NO_PROXY=$NO_PROXY,{name}`.",
            )


def hangs_up(case: Case) -> Iterator[Verdict]:
    """The proxy was asked for a tunnel, and ended the connection instead of answering."""
    ended = [h for h in _proxied(case) if latest(h)[1].phase is Phase.PROXY and latest(h)[1].reason in _ENDED]
    for proxy, histories in grouped(ended, _proxy).items():
        past = [h for h in case.snapshot.working if fact(h, Fact.PROXY) == proxy]
        yield Verdict(
            cause=Cause.PROXY_DENIED,
            confidence=unsettled(histories),
            targets=names(histories),
            summary=f"The proxy {proxy} ends the connection when it is asked for a tunnel to "
            f"{some(map(endpoint, histories))}: consistent with rules that forbid it without a word, or with a proxy "
            "that fails or speaks another protocol.",
            evidence=(
                *failures(histories),
                *((f"Through the same proxy {some(names(past))} can be reached.",) if past else ()),
            ),
            advice=f"The proxy's log says why. To see it: `curl -v -x {proxy} https://{host(histories[0])}/`. Many "
            "proxies open tunnels to port 443 alone.",
        )


_ENDED = frozenset({Reason.CLOSED, Reason.RESET})
_ONWARDS = {
    Reason.REFUSED: Cause.NOTHING_LISTENING,
    Reason.NAME_NOT_FOUND: Cause.TARGET_BLOCKED,
    Reason.UNREACHABLE: Cause.TARGET_BLOCKED,
    Reason.TIMEOUT: Cause.TARGET_BLOCKED,
}
_MET = {
    Reason.REFUSED: "says that {name} refuses connections: nobody listens there",
    Reason.NAME_NOT_FOUND: "cannot look {name} up: consistent with a name that its nameservers do not know, or with "
    "nameservers it cannot reach",
    Reason.UNREACHABLE: "cannot reach {name}: consistent with a rule on its way out, or with {name} being down",
    Reason.TIMEOUT: "got no answer from {name}: consistent with a filter behind it that drops, or with {name} being "
    "down",
}


def _own_way_out_is_down(case: Case, proxy: str, stuck: Sequence[History]) -> bool:
    """Whether several unrelated public targets fail beyond a proxy, and none works beyond it or elsewhere."""
    unrelated = {domain(host(history)) for history in stuck if history.target.scope is Scope.PUBLIC}
    working = [h for h in case.snapshot.working if h.target.scope is Scope.PUBLIC or fact(h, Fact.PROXY) == proxy]
    silent = all(_how_far(history) is not Reason.REFUSED for history in stuck)
    return len(unrelated) >= 2 and not working and silent  # noqa: PLR2004 - several


def _stuck_beyond(history: History) -> bool:
    outcome, failure = latest(history)
    if failure.phase is Phase.PROXY:
        return failure.reason in _ONWARDS
    return failure.phase is Phase.VERIFY and _answered_by_itself(outcome) and _status(outcome) >= _ERRORS_FROM


def _how_far(history: History) -> Reason:
    """What stopped the proxy: by squid's own words where it has any, otherwise by how the run failed."""
    outcome, failure = latest(history)
    said = str(outcome.facts.get(Fact.PROXY_ERROR, ""))
    if said.startswith("ERR_DNS_FAIL"):
        return Reason.NAME_NOT_FOUND
    number = said.rpartition(" ")[2]
    if number in _BY_ERRNO:
        return _BY_ERRNO[number]
    return failure.reason if failure.phase is Phase.PROXY and failure.reason in _ONWARDS else Reason.UNREACHABLE


_BY_ERRNO = {"101": Reason.UNREACHABLE, "110": Reason.TIMEOUT, "111": Reason.REFUSED, "113": Reason.UNREACHABLE}
"""What squid's connect(2) met: ENETUNREACH, ETIMEDOUT, ECONNREFUSED, EHOSTUNREACH."""


def _proxied(case: Case) -> list[History]:
    return [history for history in case.unexplained if fact(history, Fact.PROXY) is not None]


def _proxy(history: History) -> str:
    return str(fact(history, Fact.PROXY))


def _before_the_proxy_was_asked(history: History) -> bool:
    outcome, failure = latest(history)
    if failure.phase in {Phase.RESOLVE, Phase.CONNECT}:
        return True
    # TLS with the proxy itself; how it fails is another question than whether anything answers.
    silent = failure.reason in {Reason.TIMEOUT, Reason.CLOSED, Reason.RESET}
    secured = _proxy(history).startswith("https://")
    return failure.phase is Phase.TLS and secured and Phase.PROXY not in outcome.phases and silent


def _said(history: History, reason: Reason, statuses: set[int]) -> bool:
    """Whether the proxy said so, to a request for a tunnel or to one it should have passed on."""
    outcome, failure = latest(history)
    if failure.phase is Phase.PROXY:
        return failure.reason is reason
    return failure.phase is Phase.VERIFY and _answered_by_itself(outcome) and _status(outcome) in statuses


def _status(outcome: Outcome) -> int:
    return int(outcome.facts.get(Fact.HTTP_STATUS_CODE, 0))


def _answered_by_itself(outcome: Outcome) -> bool:
    server = str(outcome.facts.get(Fact.HTTP_SERVER, "")).lower()
    return Fact.PROXY_ERROR in outcome.facts or server.startswith(_OWN_PAGES)


def _in_its_words(histories: Sequence[History]) -> tuple[str, ...]:
    said = {str(fact(h, Fact.PROXY_ERROR)) for h in histories if fact(h, Fact.PROXY_ERROR)}
    return (f"The proxy says {some(sorted(said))}.",) if said else ()
