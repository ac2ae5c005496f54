"""Certificates: out of date, for other names, of authorities nobody knows; and whoever opens TLS on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.diagnosis.rules.case import Case
from agent.diagnosis.rules.reading import names, settled, some
from agent.diagnosis.rules.saying import (
    date,
    domain,
    endpoint,
    fact,
    failed_in_tls,
    failures,
    grouped,
    host,
    latest,
    validity,
)
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Reason, Scope
from agent.wording import period

_DATES = frozenset({Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_NOT_YET_VALID})
_CERTIFICATE = _DATES | {
    Reason.CERTIFICATE_NAME_MISMATCH,
    Reason.CERTIFICATE_UNTRUSTED,
    Reason.CLIENT_CERTIFICATE_REQUIRED,
}
_UNRELATED = 2
_BEYOND_DOUBT = 3
"""Unrelated names by one issuer nobody knows: two may be one company's."""


def interception(case: Case) -> Iterator[Verdict]:
    """Unrelated public names whose certificates one unknown issuer has signed."""
    untrusted = [
        history
        for history in case.unexplained
        if failed_in_tls(history, {Reason.CERTIFICATE_UNTRUSTED})
        and history.target.scope is Scope.PUBLIC
        and _issuer(history)
    ]
    for issuer, histories in grouped(untrusted, _issuer).items():
        domains = {domain(host(history)) for history in histories}
        if len(domains) < _UNRELATED:
            continue
        proxies = {str(proxy) for history in histories if (proxy := fact(history, Fact.PROXY)) is not None}
        way = f" on the way through {some(sorted(proxies))}" if proxies else ""
        sure = len(domains) >= _BEYOND_DOUBT
        yield Verdict(
            cause=Cause.TLS_INTERCEPTION,
            confidence=Confidence.HIGH if sure else Confidence.MEDIUM,
            targets=names(histories),
            summary=f"{len(domains)} unrelated public names show certificates of one issuer that nobody here knows, "
            f"{issuer!r}: something{way} opens TLS and signs by itself{'' if sure else ', or they have one owner'}.",
            evidence=(
                *(
                    f"{history.name}: {host(history)} shows {fact(history, Fact.CERTIFICATE_SUBJECT)!r}, issued by "
                    f"{fact(history, Fact.CERTIFICATE_ISSUER)!r}."
                    for history in histories
                ),
                *failures(histories),
            ),
            advice="Ask the network's owners for the authority's certificate and trust it where it belongs: mount it, "
            "and set `tls.ca_file` of these targets and SSL_CERT_FILE, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE of the "
            "task's container to a bundle that holds it; or have these names exempted from inspection. To see the "
            f"chain: `openssl s_client -connect {endpoint(histories[0])} -servername {host(histories[0])} -showcerts "
            "</dev/null`.",
        )


def certificates(case: Case) -> Iterator[Verdict]:
    """Certificates that are expired, early, for other names or of unknown authorities; and client certificates."""
    failing = [history for history in case.unexplained if failed_in_tls(history, _CERTIFICATE)]
    for (reason, _), histories in grouped(failing, _same_certificate).items():
        yield _CERTIFICATE_VERDICTS[reason](histories, case.snapshot.at)


def _same_certificate(history: History) -> tuple[Reason, str]:
    reason = latest(history)[1].reason
    if reason is Reason.CERTIFICATE_UNTRUSTED:
        return reason, _issuer(history) or host(history)
    if reason in _DATES and (subject := fact(history, Fact.CERTIFICATE_SUBJECT)):
        return reason, str(subject)
    return reason, host(history)


def _out_of_date(histories: Sequence[History], at: float) -> Verdict:
    history = histories[0]
    begins, ends = fact(history, Fact.CERTIFICATE_NOT_BEFORE), fact(history, Fact.CERTIFICATE_EXPIRES_AT)
    expired = latest(history)[1].reason is Reason.CERTIFICATE_EXPIRED
    which, advice = "certificate", "Renew the server's certificate and have the server load it"
    if expired and ends is not None and ends <= at:
        old = [
            link["subject"]
            for link in (fact(history, Fact.CERTIFICATE_CHAIN) or ())[1:]
            if link.get("expires_at") is not None and link["expires_at"] <= ends
        ]
        if old:
            which = f"intermediate certificate {old[0]!r}"
            advice = "Have the server send the authority's present intermediate"
        when = f"expired {period(at - ends)} ago"
    elif not expired and begins is not None and begins > at:
        when = f"is not valid for another {period(begins - at)}"
        advice = "Check the node's clock first, then have the server use a certificate that is valid already"
    else:
        when = "expired" if expired else "is not yet valid"
    return Verdict(
        cause=Cause.TLS_CERTIFICATE,
        confidence=settled(histories),
        targets=names(histories),
        summary=f"The {which} of {some(map(host, histories))} {when}.",
        evidence=(*failures(histories), *map(validity, histories)),
        advice=f"{advice}; with cert-manager `kubectl describe certificate` says why it did not. {_show(history)}",
    )


def _for_other_names(histories: Sequence[History], _at: float) -> Verdict:
    history = histories[0]
    shown = fact(history, Fact.CERTIFICATE_NAMES) or [fact(history, Fact.CERTIFICATE_SUBJECT) or "no name at all"]
    return Verdict(
        cause=Cause.TLS_CERTIFICATE,
        confidence=settled(histories),
        targets=names(histories),
        summary=f"The certificate that {host(history)} shows is for other names: {some(map(str, shown))}.",
        evidence=(
            *failures(histories),
            f"{history.name}: expected a certificate for {host(history)}, got one for {some(map(str, shown))}.",
        ),
        advice="Use a name that the certificate has, set `tls.server_name` where the target is reached by another "
        "address on purpose, or have the name added to the certificate. Another virtual host or a middlebox may have "
        f"answered: compare the address with the one the name should have. {_show(history)}",
    )


def _untrusted(histories: Sequence[History], _at: float) -> Verdict:
    history = histories[0]
    subject, issuer = fact(history, Fact.CERTIFICATE_SUBJECT), fact(history, Fact.CERTIFICATE_ISSUER)
    chain = fact(history, Fact.CERTIFICATE_CHAIN) or ()
    public = any(h.target.scope is Scope.PUBLIC for h in histories)
    if subject and subject == issuer:
        why = f"signed itself ({subject})"
    elif len(chain) == 1:
        why = f"is signed by {issuer!r}, not trusted here: a private authority, or an intermediate is missing"
    else:
        why = f"leads to an authority that is not trusted here, {_issuer(history)!r}"
    aside = ", or something on the way opens TLS" if public else ""
    return Verdict(
        cause=Cause.TLS_CERTIFICATE,
        confidence=Confidence.MEDIUM if public else settled(histories),
        targets=names(histories),
        summary=f"The certificate of {some(map(host, histories))} {why}{aside}.",
        evidence=(*failures(histories), f"{history.name}: subject {subject!r}, issuer {issuer!r}."),
        advice="Where the authority is yours, mount its certificate and set `tls.ca_file` here and SSL_CERT_FILE and "
        "REQUESTS_CA_BUNDLE in the task's container; where an intermediate is missing, have the server send its whole "
        f"chain. {_show(history)}",
    )


def _client_certificate(histories: Sequence[History], at: float) -> Verdict:
    history = histories[0]
    ours = fact(history, Fact.CLIENT_CERTIFICATE_EXPIRES_AT)
    evidence: tuple[str, ...] = failures(histories)
    if ours is None:
        what = "wants a client certificate, and none is configured"
        advice = "Set `tls.certificate_file` and `tls.key_file` to a certificate of an authority the server accepts"
    elif ours <= at:
        what = f"does not take our client certificate, which expired {period(at - ours)} ago"
        evidence += (f"Our client certificate expired on {date(ours)}.",)
        advice = "Renew the client certificate and mount the new one"
    else:
        what = "does not take our client certificate"
        evidence += (f"Our client certificate is valid until {date(ours)}.",)
        advice = "Use a client certificate of an authority the server accepts"
    return Verdict(
        cause=Cause.TLS_CERTIFICATE,
        confidence=settled(histories),
        targets=names(histories),
        summary=f"{host(history)} {what}.",
        evidence=evidence,
        advice=f"{advice}. Which those are it says itself: `openssl s_client -connect {endpoint(history)} "
        "</dev/null | grep -A5 'Acceptable client'`.",
    )


_CERTIFICATE_VERDICTS = {
    Reason.CERTIFICATE_EXPIRED: _out_of_date,
    Reason.CERTIFICATE_NOT_YET_VALID: _out_of_date,
    Reason.CERTIFICATE_NAME_MISMATCH: _for_other_names,
    Reason.CERTIFICATE_UNTRUSTED: _untrusted,
    Reason.CLIENT_CERTIFICATE_REQUIRED: _client_certificate,
}


def _issuer(history: History) -> str:
    """Who vouches for the last certificate that was sent; empty where a certificate signed itself, or none was."""
    chain = fact(history, Fact.CERTIFICATE_CHAIN) or ()
    issuer, subject = fact(history, Fact.CERTIFICATE_ISSUER), fact(history, Fact.CERTIFICATE_SUBJECT)
    if not issuer or issuer == subject:
        return ""
    return str(chain[-1]["issuer"]) if chain else str(issuer)


def _show(history: History) -> str:
    return (
        f"To see it: `openssl s_client -connect {endpoint(history)} -servername {host(history)} </dev/null | openssl "
        "x509 -noout -subject -issuer -dates -ext subjectAltName`."
    )
