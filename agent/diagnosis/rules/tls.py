"""TLS spoken where plain text is meant, the reverse, and two sides that find no version or cipher in common."""

from __future__ import annotations

from collections.abc import Iterator

from agent.diagnosis.experiment import Exchanged, SmallSegments
from agent.diagnosis.rules.case import Case
from agent.diagnosis.rules.reading import names, settled
from agent.diagnosis.rules.saying import endpoint, fact, failed_in_tls, failures, grouped, host, latest
from agent.diagnosis.snapshot import History
from agent.diagnosis.verdict import Cause, Confidence, Verdict
from agent.model import Fact, Phase, Reason

_ENDED = frozenset({Reason.CLOSED, Reason.RESET})
_TLS_PORTS = frozenset({443, 6443, 8443, 9443})


def plain_text_on_tls_port(case: Case) -> Iterator[Verdict]:
    """The answer to plain text says that TLS was wanted."""
    wanted = [history for history in case.unexplained if fact(history, Fact.TLS_WANTED)]
    for histories in grouped(wanted, endpoint).values():
        yield Verdict(
            cause=Cause.PLAIN_TEXT_ON_TLS_PORT,
            confidence=settled(histories),
            targets=names(histories),
            summary=f"{_spoken_to(histories[0])} speaks TLS, and is spoken to in plain text.",
            evidence=failures(histories),
            advice=_speak_tls(histories[0]),
        )


def plain_text_on_tls_port_suspected(case: Case) -> Iterator[Verdict]:
    """Plain HTTP to a usual port of TLS, where the server hung up without a word."""
    for history in case.unexplained:
        outcome, failure = latest(history)
        plain = history.target.address.startswith("http://") and history.target.options.port in _TLS_PORTS
        if plain and failure.phase is Phase.REQUEST and failure.reason in _ENDED and Fact.PROXY not in outcome.facts:
            yield Verdict(
                cause=Cause.PLAIN_TEXT_ON_TLS_PORT,
                confidence=Confidence.MEDIUM,
                targets=(history.name,),
                summary=f"{endpoint(history)} hung up on plain HTTP without a word: on port "
                f"{history.target.options.port} it most likely expects TLS.",
                evidence=failures([history]),
                advice=_speak_tls(history),
            )


def _speak_tls(history: History) -> str:
    if history.target.type == "http" and not fact(history, Fact.PROXY):
        return (
            f"Write https:// in place of http:// in the target's URL and in the connection the task uses. To see it: "
            f"`curl -vk https://{endpoint(history)}/`."
        )
    where = fact(history, Fact.PROXY)
    if where and latest(history)[1].phase is Phase.PROXY:
        return f"Write https:// in place of http:// in the proxy's URL, {where} (HTTPS_PROXY, HTTP_PROXY)."
    return (
        "Configure TLS: `tls: {}` for a tcp target, https:// for an http one, and the same in the connection the task "
        f"uses. To see it: `openssl s_client -connect {endpoint(history)} </dev/null`."
    )


def _spoken_to(history: History) -> str:
    proxy = fact(history, Fact.PROXY)
    return f"The proxy {proxy}" if proxy and latest(history)[1].phase is Phase.PROXY else endpoint(history)


def tls_on_plain_text_port(case: Case) -> Iterator[Verdict]:
    """What answered the TLS handshake is not TLS."""
    failing = [history for history in case.unexplained if failed_in_tls(history, {Reason.NOT_TLS})]
    for histories in grouped(failing, endpoint).values():
        history = histories[0]
        proxy = fact(history, Fact.PROXY)
        to_proxy = proxy is not None and Phase.PROXY not in latest(history)[0].phases
        who = f"The proxy {proxy}" if to_proxy else endpoint(history)
        yield Verdict(
            cause=Cause.TLS_ON_PLAIN_TEXT_PORT,
            confidence=settled(histories),
            targets=names(histories),
            summary=f"{who} answers a TLS handshake with something that is not TLS: the port speaks plain text.",
            evidence=failures(histories),
            advice="Write http:// in place of https:// in the proxy's URL (HTTPS_PROXY, HTTP_PROXY): its scheme says "
            "how the proxy is spoken to, not what it leads to."
            if to_proxy
            else "Use the port on which the server speaks TLS, or write http:// in place of https:// (for a tcp "
            f"target, leave out `tls`) where plain text is meant. To see it: `curl -v http://{endpoint(history)}/`.",
        )


def tls_on_plain_text_port_suspected(case: Case) -> Iterator[Verdict]:
    """TLS to a usual port of plain text, where the server hung up, or waits for something it understands."""
    for history in case.unexplained:
        outcome, failure = latest(history)
        speaks = _PLAIN_PORTS.get(history.target.options.port or 0)
        hung_up = failure.reason in _ENDED
        waits = failure.reason is Reason.TIMEOUT and _small_segments_stall(case, history)
        if speaks is None or failure.phase is not Phase.TLS or Fact.PROXY in outcome.facts or not (hung_up or waits):
            continue
        yield Verdict(
            cause=Cause.TLS_ON_PLAIN_TEXT_PORT,
            confidence=Confidence.MEDIUM,
            targets=(history.name,),
            summary=f"{endpoint(history)} {'hangs up on' if hung_up else 'does not answer'} a TLS handshake: on port "
            f"{history.target.options.port} it most likely speaks {speaks} in plain text.",
            evidence=failures([history]),
            advice="Leave out `tls` (or write http:// in place of https://), or use the port on which the server "
            "speaks TLS; for Postgres use the type postgres with sslmode, which begins in plain text and asks for TLS. "
            f"A server that should speak TLS here: `openssl s_client -connect {endpoint(history)} </dev/null`.",
        )


_PLAIN_PORTS = {
    80: "HTTP",
    2181: "ZooKeeper's protocol",
    5432: "Postgres",
    6379: "Redis",
    6432: "Postgres (pgbouncer)",
    8080: "HTTP",
    9092: "Kafka's protocol",
    11211: "memcached's protocol",
    27017: "MongoDB's protocol",
}


def _small_segments_stall(case: Case, history: History) -> bool:
    """Whether large packets that get lost have been ruled out."""
    return any(
        isinstance(answer, Exchanged) and answer.failure is not None and answer.failure.reason is Reason.TIMEOUT
        for question, answer in case.snapshot.asked(SmallSegments, history.name)
        if question.target == history.name
    )


def protocol(case: Case) -> Iterator[Verdict]:
    """The two sides find no TLS version or cipher in common."""
    failing = [history for history in case.unexplained if failed_in_tls(history, {Reason.PROTOCOL_ERROR})]
    for histories in grouped(failing, endpoint).values():
        history = histories[0]
        yield Verdict(
            cause=Cause.TLS_PROTOCOL,
            confidence=settled(histories),
            targets=names(histories),
            summary=f"{endpoint(history)} speaks TLS, but the two sides do not agree on how: "
            f"{latest(history)[1].detail}",
            evidence=failures(histories),
            advice=f"See what it offers: `openssl s_client -connect {endpoint(history)} -servername {host(history)} "
            "-tls1_2 </dev/null`, then -tls1_3 (a server of TLS 1.0 or 1.1 only has to be upgraded: current clients "
            "refuse these). Where both versions fail, compare ciphers and curves: `nmap --script ssl-enum-ciphers` "
            "from a machine of yours. An alert `unrecognized name` means that it knows no such host name.",
        )


def ended_handshakes(case: Case) -> Iterator[Verdict]:
    """The server, or something before it, hung up in the handshake without a word."""
    failing = [history for history in case.unexplained if failed_in_tls(history, _ENDED)]
    for histories in grouped(failing, endpoint).values():
        history = histories[0]
        yield Verdict(
            cause=Cause.TLS_PROTOCOL,
            confidence=Confidence.LOW,
            targets=names(histories),
            summary=f"{endpoint(history)} accepts the connection and ends it in the TLS handshake: consistent with a "
            "server that finds no common version or cipher, with a filter that goes by the host's name, and with a "
            "balancer that has nobody behind it.",
            evidence=failures(histories),
            advice=f"Compare with another name and with older versions: `openssl s_client -connect {endpoint(history)} "
            f"-servername {host(history)} </dev/null`, the same with -noservername, with -tls1_2. If it answers "
            "without the name, a filter on the way goes by it: have the name allowed.",
        )
