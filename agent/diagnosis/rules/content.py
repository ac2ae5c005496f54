"""The target, or something in its place, was reached and gave an answer nobody can use: errors, portals, logins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import SplitResult, urlsplit

from agent.diagnosis.rules.case import Case
from agent.diagnosis.rules.reading import names, settled, some, unsettled
from agent.diagnosis.rules.saying import domain, endpoint, fact, failures, grouped, host, latest
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Phase, Reason, Scope
from agent.wording import seconds

_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _PORTAL = 401, 403, 404, 429, 511
_ERRORS_FROM = 500
_OF_A_GATEWAY = {502: "bad gateway", 504: "gateway timeout"}
_UNAVAILABLE = 503
_HTML = "text/html"
_INSUFFICIENT_PRIVILEGE = "42501"
_RBAC = "RBAC:"
_SEVERAL = 2

_LOGIN_PATH = re.compile(r"/(?:log-?in|sign-?in|sso|saml2?|oauth2?|oidc|auth|adfs|idp|cas)(?:[/._-]|$)", re.IGNORECASE)
_LOGIN_TITLE = re.compile(r"\b(?:log ?in|sign ?in|log ?on|anmeld\w*|single sign|authenticat\w*)\b", re.IGNORECASE)
_WANTS_PASSWORD = re.compile(r"^-?(?:NOAUTH|WRONGPASS|ERR (?:invalid password|operation not permitted))", re.IGNORECASE)
"""How Redis and its kin say that they want a password, or another."""

_BROKEN_OFF = frozenset({Reason.CLOSED, Reason.RESET})
_CONVERSATION = frozenset({Phase.LOGIN, Phase.REQUEST, Phase.TRANSFER})


def captive_portal(case: Case) -> Iterator[Verdict]:
    """Plain HTTP to unrelated public names ends at one and the same place."""
    plain = [
        history
        for history in (*case.unexplained, *case.unremarked)
        if history.target.address.startswith("http://")
        and history.target.scope is Scope.PUBLIC
        and not history.target.negative
        and fact(history, Fact.PROXY) is None
    ]
    declared = [history for history in plain if _status(history) == _PORTAL]
    led = [history for history in plain if history not in declared and _led_to(history) is not None]
    alike = [history for history in plain if history not in declared and history not in led and _page(history)]
    # Unrelated sites may well show the same page of a server nobody has set up: one of them has to fail by it.
    failing = set(names(case.unexplained))
    pages = [group for group in grouped(alike, _page).values() if not failing.isdisjoint(names(group))]
    groups = [*grouped(led, _led_to).values(), *pages]
    showing = [*declared, *(h for group in groups if len(_domains(group)) >= _SEVERAL for h in group)]
    if not showing:
        return
    showing = [history for history in case.snapshot.histories if history in showing]
    where = some(sorted({place for h in showing if (place := _led_to(h)) is not None}))
    yield Verdict(
        cause=Cause.WRONG_CONTENT,
        confidence=Confidence.HIGH if declared or where else Confidence.MEDIUM,
        targets=names(showing),
        summary=f"A captive portal answers plain HTTP in the place of {some(map(host, showing))}"
        f"{f', and leads them to {where}' if where else ''}.",
        evidence=tuple(_what_came(history) for history in showing),
        advice="Somebody has to log in at the portal, or have this node exempted: `curl -v http://"
        f"{host(showing[0])}/` from the node shows its page. Until then TLS to the same names fails or shows another "
        "certificate.",
    )


def login_page(case: Case) -> Iterator[Verdict]:
    """Where data was expected, a page to log in came, or the way to one."""
    for history in case.unexplained:
        failure = latest(history)[1]
        if failure.phase is Phase.VERIFY and history.target.type == "http" and _asks_to_log_in(history):
            yield Verdict(
                cause=Cause.WRONG_CONTENT,
                confidence=settled([history]),
                targets=(history.name,),
                summary=f"{host(history)} answers with a login page in place of what was expected: the request carries "
                "no session or token that it accepts.",
                evidence=(*failures([history]), _what_came(history)),
                advice="Use an address that takes tokens (an API's, in place of the pages people see) and give it one: "
                "`bearer_token_file`, `basic_auth` or a header here, and the same in the connection the task uses. Or "
                f"have the path exempted from single sign-on. To see it: `curl -vL {history.target.address}`.",
            )


def credentials(case: Case) -> Iterator[Verdict]:
    """401, and a password that Redis wants."""
    rejected = [history for history in case.unexplained if _wants_credentials(history)]
    for histories in grouped(rejected, endpoint).values():
        history = histories[0]
        yield Verdict(
            cause=Cause.CREDENTIALS_REJECTED,
            confidence=settled(histories),
            targets=names(histories),
            summary=f"{host(history)} wants credentials, or does not accept those it is sent"
            f"{' (HTTP 401)' if _status(history) == _UNAUTHORIZED else ''}.",
            evidence=failures(histories),
            advice="Check the token or password: is it set, has it expired, was it rotated on one side only? A pod "
            "keeps the environment it was started with, a mounted Secret follows. "
            + (
                f"To try it: `curl -sS -o /dev/null -D - -H @FILE {history.target.address}`, FILE holding the line "
                "`Authorization: Bearer …`; the header WWW-Authenticate of the answer says what is wanted."
                if history.target.type == "http"
                else f"To try it: `redis-cli -h {host(history)} -p {history.target.options.port} --askpass ping`."
            ),
        )


def denied(case: Case) -> Iterator[Verdict]:
    """403, and a query without the right to what it reads."""
    forbidden = [history for history in case.unexplained if _forbidden(history)]
    for histories in grouped(forbidden, endpoint).values():
        history = histories[0]
        by_mesh = str(fact(history, Fact.MESH_ERROR) or "").startswith(_RBAC)
        if by_mesh:
            what = f"A mesh's proxy forbids access to {host(history)} (RBAC: access denied)"
            advice = (
                "An AuthorizationPolicy at the target denies this pod's identity: `kubectl get authorizationpolicy "
                "-A`, and allow `cluster.local/ns/NAMESPACE/sa/SERVICEACCOUNT` there; `istioctl x authz check POD` at "
                "the target."
            )
        elif history.target.type == "postgres":
            what = f"The user may not do at {endpoint(history)} what the query asks for"
            advice = "Grant it what it reads: `GRANT SELECT ON ALL TABLES IN SCHEMA public TO airflow`."
        else:
            what = f"{host(history)} was reached and forbids this (HTTP 403){_or_the_proxy(history)}"
            advice = (
                "Check the rights of the account or key, an allow-list of source addresses (the pod leaves by its NAT "
                "gateway's), a web application firewall that dislikes the client, and a bucket's or API's policy. To "
                f"see its words: `curl -v {history.target.address}`."
            )
        yield Verdict(
            cause=Cause.ACCESS_DENIED,
            confidence=unsettled(histories) if _or_the_proxy(history) else settled(histories),
            targets=names(histories),
            summary=f"{what}.",
            evidence=(*failures(histories), *_who_answered(histories)),
            advice=advice,
        )


def server_error(case: Case) -> Iterator[Verdict]:
    """5xx, 429, and queries that fail."""
    erring = [history for history in case.unexplained if _errs(history)]
    for (_, status), histories in grouped(erring, lambda h: (endpoint(h), _status(h))).items():
        history = histories[0]
        if status in _OF_A_GATEWAY:
            what = f"A gateway in front of {host(history)} answers {status} ({_OF_A_GATEWAY[status]}): the application "
            what += "behind it is down, not ready or too slow"
        elif status == _UNAVAILABLE:
            what = (
                f"{host(history)} answers 503 (unavailable): it is overloaded, starts or drains, or a gateway in front "
            )
            what += "has nobody ready behind it"
        elif status == _TOO_MANY:
            what = f"{host(history)} answers 429: it limits how often it is asked"
        elif status:
            what = f"{host(history)} was reached and failed by itself: HTTP {status}"
        else:
            what = f"{endpoint(history)} was reached, and the query failed there"
        yield Verdict(
            cause=Cause.SERVER_ERROR,
            confidence=unsettled(histories) if _or_the_proxy(history) else settled(histories),
            targets=names(histories),
            summary=f"{what}{_or_the_proxy(history)}.",
            evidence=(*failures(histories), *_who_answered(histories)),
            advice="The network is fine: look at the application's log and health (`kubectl get pods`, `kubectl "
            "logs`), for a gateway at the readiness of the pods behind it (`kubectl get endpointslices`). Tasks should "
            f"try again, with `retries` and exponential backoff. To see it: `curl -v {history.target.address}`."
            if history.target.type == "http"
            else "The network is fine: the server's words are in the evidence; run the same query by hand with `psql "
            f"postgresql://USER@{history.target.address}`, and look at the server's log.",
        )


def broken_off(case: Case) -> Iterator[Verdict]:
    """The other side ended the connection before its answer was complete."""
    ended = [
        history
        for history in case.unexplained
        if latest(history)[1].phase in _CONVERSATION and latest(history)[1].reason in _BROKEN_OFF
    ]
    for histories in grouped(ended, endpoint).values():
        history = histories[0]
        outcome, failure = latest(history)
        partly = failure.phase is Phase.TRANSFER
        yield Verdict(
            cause=Cause.SERVER_ERROR,
            confidence=settled(histories) if partly else Confidence.MEDIUM,
            targets=names(histories),
            summary=f"{endpoint(history)} accepts connections and "
            + ("breaks its answers off." if partly else "ends them before it answers: it crashes, drains or refuses to "
               "serve, or a balancer or filter in between does."),
            evidence=(
                *failures(histories),
                f"{history.name}: it ended after {seconds(outcome.phases.get(failure.phase, 0.0))} in {failure.phase}.",
            ),
            advice="Look at the server's log at that moment: crashes (`kubectl describe pod`: Last State, OOMKilled), "
            "worker timeouts, connection limits, allow-lists that hang up. A port that expects TLS hangs up on plain "
            f"text as well: `openssl s_client -connect {endpoint(history)} </dev/null`.",
        )  # fmt: skip


def another_language(case: Case) -> Iterator[Verdict]:
    """What answers does not speak the protocol."""
    foreign = [
        history
        for history in case.unexplained
        if latest(history)[1].reason is Reason.PROTOCOL_ERROR
        and latest(history)[1].phase in _CONVERSATION | {Phase.PROXY}
    ]
    for histories in grouped(foreign, endpoint).values():
        history = histories[0]
        broken = latest(history)[1].phase is Phase.TRANSFER
        yield Verdict(
            cause=Cause.SERVER_ERROR if broken else Cause.WRONG_CONTENT,
            confidence=settled(histories),
            targets=names(histories),
            summary=f"{endpoint(history)} sends an answer that cannot be read to its end."
            if broken
            else f"What answers at {endpoint(history)} does not speak {_LANGUAGES.get(history.target.type, 'this')}: "
            "the port belongs to another service.",
            evidence=failures(histories),
            advice="Compare the port with the Service's: `kubectl get service -A | grep "
            f"{history.target.options.port}`; see "
            f"what speaks there: `curl -v --max-time 5 telnet://{endpoint(history)}`.",
        )


_LANGUAGES = {"http": "HTTP", "postgres": "the Postgres protocol"}


def unexpected(case: Case) -> Iterator[Verdict]:
    """The network works and the answer is another one than was expected."""
    for history in case.unexplained:
        failure = latest(history)[1]
        # Each answer is compared with the expectations of one target.
        if failure.reason not in _UNEXPECTED or failure.phase not in {Phase.VERIFY, Phase.TRANSFER}:
            continue
        what = _UNEXPECTED[failure.reason]
        if _status(history) == _NOT_FOUND and failure.reason is Reason.UNEXPECTED_STATUS:
            what = "{host} was reached and has no such path (HTTP 404): another application, virtual host or version"
        yield Verdict(
            cause=Cause.WRONG_CONTENT,
            confidence=settled([history]),
            targets=(history.name,),
            summary=f"{what.format(host=host(history) or history.name)}.",
            evidence=(*failures([history]), *_who_answered([history])),
            advice="The network is fine. Compare what came with what the target expects: "
            + (
                f"`curl -vL {history.target.address}`; the wrong path, host header, version or environment; or correct "
                "`expect` in the target."
                if history.target.type == "http"
                else "the sentence has both; then correct the server, or `expect` in the target."
            ),
        )


_UNEXPECTED = {
    Reason.UNEXPECTED_STATUS: "{host} was reached and answers with another status than expected",
    Reason.UNEXPECTED_HEADER: "{host} was reached and answers with other headers than expected",
    Reason.UNEXPECTED_BODY: "{host} was reached and answers with another body than expected",
    Reason.UNEXPECTED_ANSWER: "{host} was reached and answers something else than expected",
    Reason.UNEXPECTED_REPLY: "{host} was reached and the dialogue went another way than expected",
    Reason.TOO_MANY_REDIRECTS: "{host} redirects more often than allowed, most likely in a circle",
    Reason.TOO_LARGE: "{host} was reached and sends more than the target's body_limit",
}


def _status(history: History) -> int:
    return int(fact(history, Fact.HTTP_STATUS_CODE) or 0)


def _led_to(history: History) -> str | None:
    """The unrelated host a redirect led to."""
    there = _parts(history).hostname
    return there if there and domain(there) != domain(host(history)) else None


def _page(history: History) -> tuple[object, ...] | None:
    """What an HTML page that was not redirected to is recognised by."""
    title = fact(history, Fact.HTTP_TITLE)
    if fact(history, Fact.HTTP_CONTENT_TYPE) != _HTML or not title or fact(history, Fact.HTTP_LOCATION):
        return None
    if _status(history) >= _UNAUTHORIZED:
        return None  # error pages look alike everywhere
    return title, _status(history), fact(history, Fact.HTTP_SERVER)


def _domains(histories: Sequence[History]) -> set[str]:
    return {domain(host(history)) for history in histories}


def _asks_to_log_in(history: History) -> bool:
    titled = _LOGIN_TITLE.search(str(fact(history, Fact.HTTP_TITLE) or "")) is not None
    page = titled and fact(history, Fact.HTTP_CONTENT_TYPE) == _HTML
    led = _LOGIN_PATH.search(_parts(history).path) is not None
    return _status(history) < _UNAUTHORIZED and (led or page)


def _parts(history: History) -> SplitResult:
    """Where the last redirect led; all empty where there was none, or to no URL."""
    try:
        return urlsplit(str(fact(history, Fact.HTTP_LOCATION) or ""))
    except ValueError:
        return urlsplit("")


def _wants_credentials(history: History) -> bool:
    failure = latest(history)[1]
    if failure.reason is Reason.UNEXPECTED_STATUS:
        return _status(history) == _UNAUTHORIZED
    said = str(fact(history, Fact.SERVER_SIGNATURE) or "")
    # A pattern that did not come is waited for until the deadline.
    waited = failure.phase is Phase.REQUEST and failure.reason is Reason.TIMEOUT
    return (waited or failure.reason is Reason.UNEXPECTED_REPLY) and _WANTS_PASSWORD.match(said) is not None


def _forbidden(history: History) -> bool:
    failure = latest(history)[1]
    if failure.reason is Reason.UNEXPECTED_STATUS:
        return _status(history) == _FORBIDDEN
    return failure.reason is Reason.QUERY_FAILED and fact(history, Fact.SQLSTATE) == _INSUFFICIENT_PRIVILEGE


def _errs(history: History) -> bool:
    failure = latest(history)[1]
    if failure.reason is Reason.UNEXPECTED_STATUS:
        return _status(history) >= _ERRORS_FROM or _status(history) == _TOO_MANY
    return failure.reason is Reason.QUERY_FAILED


def _what_came(history: History) -> str:
    """The final answer, so that it can be recognised."""
    parts = [f"status {_status(history)}"]
    if (location := fact(history, Fact.HTTP_LOCATION)) is not None:
        parts.append(f"after a redirect to {location}")
    if (media_type := fact(history, Fact.HTTP_CONTENT_TYPE)) is not None:
        parts.append(str(media_type))
    if (title := fact(history, Fact.HTTP_TITLE)) is not None:
        parts.append(f"titled {str(title)!r}")
    return f"{history.name}: {host(history)} gave {', '.join(parts)}."


def _or_the_proxy(history: History) -> str:
    """The other reading of an answer to plain HTTP that a proxy passed on: not every proxy signs its own pages."""
    proxy = fact(history, Fact.PROXY)
    if proxy is None or not history.target.address.startswith("http://"):
        return ""
    return f"; or the proxy {proxy} answers so in its place"


def _who_answered(histories: Sequence[History]) -> tuple[str, ...]:
    servers = sorted({str(server) for history in histories if (server := fact(history, Fact.HTTP_SERVER))})
    return (f"The answer calls its server {some(servers)}.",) if servers else ()
