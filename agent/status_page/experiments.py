"""Experiments in words: what was asked of whom, and what came back. Made of their JSON form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.explanation import EXPERIMENTS_OFF
from agent.status_page.markup import lasting, listed, size, text, unix_seconds
from agent.wording import count, period, seconds

EXPERIMENTS_BYTES = 5_000
_NAMES = 3
_ALIKE_SECONDS = 2.0
"""Clocks that differ by less are the same, as a Date has whole seconds."""

Json = Mapping[str, Any]


def experiments_section(document: Json, now: float) -> str:
    """The questions that the verdicts rest on beside the outcomes; nothing where there is nothing to ask about."""
    experiments: Sequence[Json] = document["experiments"]
    if document["budget"] is None:
        body = f"<p class=quiet>{text(EXPERIMENTS_OFF)}</p>"
    elif not experiments:
        return ""
    else:
        body = _list(experiments, now)
    return f"<section aria-labelledby=asked id=experiments><h2 id=asked>Experiments</h2>{body}</section>"


def _list(experiments: Sequence[Json], now: float) -> str:
    room = EXPERIMENTS_BYTES
    items = []
    for experiment in experiments:
        item = _item(experiment, now)
        room -= size(item)
        if room < 0:
            break
        items.append(item)
    rest = len(experiments) - len(items)
    more = f'<p class=more>And {rest} more: <a href="diagnosis">diagnosis</a> has them all.</p>' if rest else ""
    return f"<dl class=asked>{''.join(items)}</dl>{more}"


def _item(experiment: Json, now: float) -> str:
    asked, answered = in_words(experiment)
    ago = lasting(unix_seconds(experiment["started_at"]), now)
    whom = f", for {listed(experiment['targets'], _NAMES)}" if experiment["targets"] else ""
    return f"<div><dt>{text(asked, 300)}</dt><dd>{text(answered, 500)} <small>{ago} ago{whom}</small></dd></div>"


def in_words(experiment: Json) -> tuple[str, str]:
    """Question and answer, a sentence each."""
    question, answer = experiment["question"], experiment["answer"]
    return WORDS[question["kind"]](question, answer)


def _lookup(question: Json, answer: Json) -> tuple[str, str]:
    what, how = f"{question['record']} of {question['name']}", question["transport"]
    asked = f"What does {question['server']} say to {what}, over {how}?"
    if answer["rcode"] is None:
        return asked, f"No answer ({answer['error'] or 'unknown'})."
    records = f": {', '.join(answer['records'])}" if answer["records"] else ", without records"
    return asked, f"{answer['rcode']}{records}."


def _connect(question: Json, answer: Json) -> tuple[str, str]:
    host = f"[{question['ip']}]" if ":" in question["ip"] else question["ip"]
    asked = f"Does {host}:{question['port']} take a connection"
    if question["hops"] is not None:
        asked += f" that passes no more than {count(question['hops'], 'hop')}"
    said = _outcome("It does", answer)
    if answer["icmp"]:
        source = f" from {answer['icmp_from']}" if answer["icmp_from"] else ""
        said += f" An ICMP message{source} said: {answer['icmp']}."
    elif answer["rejected"]:
        said += " An ICMP message said so."
    return f"{asked}?", said


def _outcome(worked: str, answer: Json) -> str:
    failure, took = answer["failure"], seconds(answer["seconds"])
    if failure is None:
        return f"{worked}, in {took}."
    return f"{failure['phase']}/{failure['reason']} after {took}: {failure['detail']}."


def _small_segments(question: Json, answer: Json) -> tuple[str, str]:
    return f"Does {question['target']} answer where TCP segments are small?", _outcome("It does", answer)


def _server_clock(question: Json, answer: Json) -> tuple[str, str]:
    ahead = answer["ahead_seconds"]
    if ahead is None:
        said = "It does not tell."
    elif abs(ahead) < _ALIKE_SECONDS:
        said = "The same as here."
    else:
        said = f"Its clock is {period(abs(ahead))} {'behind' if ahead > 0 else 'ahead of'} ours."
    return f"What time is it for {question['target']}?", said


def _mesh_proxy(_: Json, answer: Json) -> tuple[str, str]:
    asked = "Is the proxy of a mesh in this pod, and is it ready?"
    if answer["kind"] is None:
        return asked, "None was found."
    ready = {True: "ready", False: "not ready", None: "and does not tell whether it is ready"}[answer["ready"]]
    return asked, f"{answer['kind']}, {ready}: {answer['detail']}."


def _local_network(_: Json, answer: Json) -> tuple[str, str]:
    known = {True: "has answered", False: "does not answer", None: "is not in the neighbour table"}
    said = [f"gateway {gateway['ip']} {known[gateway['resolved']]}" for gateway in answer["gateways"]]
    if answer["default_routes"] is not None:
        versions = " and ".join(f"IPv{version}" for version in answer["default_routes"])
        said.append(f"default route for {versions}" if versions else "no default route")
    if answer["unrouted"]:
        said.append(f"no route to {', '.join(answer['unrouted'])}")
    if answer["sent_segments"]:
        said.append(f"{answer['retransmitted_segments']} of {count(answer['sent_segments'], 'TCP segment')} sent again")
    sentence = "; ".join(said) or "nothing that stands out"
    return "What do this pod's own tables say?", f"{sentence[0].upper()}{sentence[1:]}."


WORDS: Mapping[str, Callable[[Json, Json], tuple[str, str]]] = {
    "lookup": _lookup,
    "connect": _connect,
    "small_segments": _small_segments,
    "server_clock": _server_clock,
    "mesh_proxy": _mesh_proxy,
    "local_network": _local_network,
}
"""By kind of question."""
