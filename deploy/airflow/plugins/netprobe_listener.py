"""Writes netprobe's verdict into the log of a task that failed, where its owner is looking already.

An Airflow plugin for 2.7 to 3.x, of this file and the standard library alone: put it into the plugins folder of the
image that tasks run in. Where no netprobe runs beside the task it does nothing and says nothing. It asks loopback
only, by address, without a proxy, for two seconds at most; whatever happens meanwhile, the task's state is not its
business. docs/task-log.md shows what it writes.

| variable | meaning |
| --- | --- |
| NETPROBE_URL | where netprobe answers; http://127.0.0.1:9733 by default. An address, no name: nothing is looked up |
| NETPROBE_QUIT_WITH_TASK | `true`: netprobe is told to end when the task has (a sidecar in `containers`) |
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any, Iterator, Mapping
from urllib.parse import urlsplit

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

URL = "http://127.0.0.1:9733"
PATIENCE_SECONDS = 2.0
"""For everything that is asked when a task has failed, together."""
READING_SECONDS = 0.3
"""Of those, what is kept for reading what a second look has found."""
ENDING_SECONDS = 0.2
"""Of those, what is kept for telling netprobe that the task has ended."""
TELLING_SECONDS = 0.5
"""For telling netprobe which task runs, or that it has ended: nothing depends on it."""
ANSWER_BYTES = 1 << 20
"""A longer answer is not read."""
WRITTEN_BYTES = 8192
"""Of all verdicts together."""
LINE_CHARACTERS = 600
LINES = 40
"""Of one verdict."""
VERDICTS = 5

_log = logging.getLogger("airflow.task.netprobe")
"""Below the logger of tasks: what it takes is part of the task's log, in Airflow 2 and 3."""


class NetprobeListener:
    """What Airflow calls. No hook takes more arguments than every version has (`session` and `error` come and go)."""

    def __init__(self) -> None:
        self._held: socket.socket | None = None
        """A connection that lasts as long as the task's process: no hook tells of a task that is killed or deferred."""

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:  # noqa: ARG002
        try:
            if _runs_here(task_instance):
                deadline = time.monotonic() + TELLING_SECONDS
                if _quits_with_task():
                    self._release()
                    self._held = _hold(deadline)
                if not _pod_says_which_task():
                    _tell_task("running", task_instance, deadline)
        except Exception as error:
            # Airflow 2.7 has an ordinary exception for the SIGTERM that ends a task: it is not ours to swallow.
            if type(error).__module__.startswith("airflow."):
                raise
            _log.debug("netprobe was not told which task runs: %s", _why(error))

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:  # noqa: ARG002
        _ended(task_instance)
        self._release()

    @hookimpl
    def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:  # noqa: ARG002
        _ended(task_instance)
        self._release()

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any) -> None:  # noqa: ARG002
        failed_at = time.time()
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            if not _runs_here(task_instance):
                return
            answers = True
            try:
                answers = _say(task_instance, failed_at, deadline - ENDING_SECONDS)
            finally:
                # Whatever netprobe has to say, it may have to be told.
                if answers:
                    _tell_end(task_instance, deadline)
        # Airflow 2 has not yet written down that the task has failed. Whatever comes here now, a SIGTERM's exception
        # included, would keep it from doing so, and leave the task running until somebody calls it a zombie.
        except BaseException as error:  # noqa: BLE001
            _hush("netprobe's verdict is not known: %s", error)
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            with suppress(OSError):
                held.close()


class NetprobePlugin(AirflowPlugin):
    """What Airflow finds in this file."""

    name = "netprobe"
    listeners = [NetprobeListener()]  # noqa: RUF012 - the form that Airflow reads


# --- when, and for which task ---------------------------------------------------------------------------------------


def _pod_says_which_task() -> bool:
    """Whether this is a pod of KubernetesExecutor: one task, and netprobe knows which from the pod itself."""
    return bool(os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD"))


def _runs_here(task_instance: Any) -> bool:
    """Whether this process is the one that runs the task.

    Hooks are called in the scheduler and in the API server as well (a task marked as failed, a zombie), whose network
    is another one.
    """
    if _pod_says_which_task() or _is_airflow_3(task_instance):
        return True
    values = _loaded(task_instance)
    if values.get("pid") == os.getpid():
        return True
    names = ("AIRFLOW_CTX_DAG_ID", "dag_id"), ("AIRFLOW_CTX_TASK_ID", "task_id")
    return all(
        variable in os.environ and values.get(key, os.environ[variable]) == os.environ[variable]
        for variable, key in names
    )


def _is_airflow_3(task_instance: Any) -> bool:
    """Whether this is the task instance of Airflow 3's task process; its servers have one of the database."""
    return any(kind.__name__ == "RuntimeTaskInstance" for kind in type(task_instance).__mro__)


def _loaded(task_instance: Any) -> Mapping[str, Any]:
    """What is known of the task instance. In Airflow 2 an attribute may be a query to the database instead."""
    return vars(task_instance)


def _task(task_instance: Any) -> dict[str, Any]:
    """Which task this is, in Airflow's words."""
    values = _loaded(task_instance)
    variables = {"run_id": "DAG_RUN_ID"}
    found = {}
    for key in ("dag_id", "task_id", "run_id", "try_number", "map_index"):
        # Before Airflow 2.10 the number of the try is a property over this.
        value = values.get(key, values.get(f"_{key}"))
        if value is None:
            value = os.environ.get(f"AIRFLOW_CTX_{variables.get(key, key.upper())}")
        if isinstance(value, (str, int)):
            found[key] = value
    return found


# --- what netprobe is told ------------------------------------------------------------------------------------------


def _ended(task_instance: Any) -> None:
    """A task is through, and its state no longer in question."""
    try:
        if _runs_here(task_instance):
            _tell_end(task_instance, time.monotonic() + TELLING_SECONDS)
    except BaseException as error:  # noqa: BLE001 - as for a task that has failed
        _hush("netprobe was not told that the task has ended: %s", error)


def _tell_end(task_instance: Any, deadline: float) -> None:
    if not _pod_says_which_task():
        _tell_task("ended", task_instance, deadline)
    if _quits_with_task():
        _request("POST", "/quitquitquit", b"", deadline)


def _quits_with_task() -> bool:
    return os.environ.get("NETPROBE_QUIT_WITH_TASK", "").strip().lower() in ("true", "1", "yes")


def _tell_task(state: str, task_instance: Any, deadline: float) -> None:
    _request("POST", "/task", json.dumps({"state": state, **_task(task_instance)}).encode(), deadline)


# --- what it says ---------------------------------------------------------------------------------------------------


def _say(task_instance: Any, failed_at: float, deadline: float) -> bool:
    """Write down what netprobe says. False where there is no netprobe."""
    document = _diagnosis(deadline)
    if document is None:
        return False
    started_at = _loaded(task_instance).get("start_date")
    started = started_at.timestamp() if isinstance(started_at, datetime) else None
    if not any(_since(verdict, started) for verdict in document["verdicts"]):
        document = _looked_again(document, deadline)
    records = list(islice(_records(document, started, failed_at), VERDICTS))
    if not records:
        _log.debug("netprobe: %s", "nothing is wrong" if document.get("since") else "no target has a result yet")
        return True
    if _is_airflow_3(task_instance):
        # Airflow 3 has opened a group of lines, which its pages show folded.
        _log.info("::endgroup::")
    room = WRITTEN_BYTES
    for level, lines in records:
        text = _joined(lines, room)
        room -= len(text.encode())
        if text:
            _log.log(level, "%s", text)
    return True


def _diagnosis(deadline: float) -> Mapping[str, Any] | None:
    """None where there is no netprobe."""
    answer = _request("GET", "/diagnosis", b"", deadline)
    return None if answer is None else json.loads(answer)


def _since(verdict: Mapping[str, Any], started: float | None) -> bool:
    """Whether a verdict began while the task ran."""
    began = _time(verdict.get("began_at"))
    return began is not None and (started is None or began >= started)


def _looked_again(document: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
    """What netprobe says once it has looked at its targets anew: the fault may be younger than its last round."""
    try:
        _request("POST", "/refresh", b"", deadline - READING_SECONDS)
        return _diagnosis(deadline) or document
    except (OSError, ValueError) as error:
        _log.debug("netprobe did not look again: %s", _why(error))
        return document


def _records(document: Mapping[str, Any], started: float | None, failed: float) -> Iterator[tuple[int, list[str]]]:
    """Every verdict that holds, and every one that was over before the task failed: level and lines."""
    present = document["verdicts"]
    for verdict in present:
        # A network that was not ready is by now: the verdict stands for some minutes all the same.
        mild = verdict["confidence"] == "low" or verdict["cause"] == "network_not_ready"
        level = logging.WARNING if mild else logging.ERROR
        when = _when(_time(verdict.get("began_at")), None, started, failed)
        yield level, list(_lines(verdict, f"{verdict['cause']} ({verdict['confidence']} confidence)", when))
    told = {verdict["cause"] for verdict in present}
    for verdict in document.get("recent", ()):
        ended = _time(verdict.get("ended_at"))
        if ended is None or verdict["cause"] in told or (started is not None and ended < started):
            continue
        told.add(verdict["cause"])
        when = _when(_time(verdict.get("began_at")), ended, started, failed)
        title = f"{verdict['cause']} ({verdict['confidence']} confidence, over by now)"
        yield logging.WARNING, list(_lines(verdict, title, when))


def _lines(verdict: Mapping[str, Any], title: str, when: str) -> Iterator[str]:
    """One verdict, as `netprobe explain` prints it; log viewers break long lines themselves."""
    yield f"netprobe: {_clean(title)}: {_clean(verdict['summary'])}"
    yield from _part("when", [when] if when else [])
    yield from _part("targets", [", ".join(map(str, verdict["targets"]))])
    yield from _part("evidence", [f"- {sentence}" for sentence in verdict.get("evidence", ())])
    yield from _part("next", str(verdict.get("advice", "")).splitlines())
    yield from _part("runbook", [verdict["runbook"]] if "runbook" in verdict else [])


def _part(heading: str, texts: list[str]) -> Iterator[str]:
    first = f"  {heading:<10}"
    for text in texts:
        yield f"{first}{_clean(str(text))}".rstrip()
        first = " " * len(first)


def _clean(text: str) -> str:
    """Text on one line, of bounded length. Servers have a hand in it: nothing that a terminal or a page would obey."""
    text = "".join(c if c.isprintable() else " " for c in text[:LINE_CHARACTERS])
    # A space in its place: what stands around one must not become another.
    return re.sub(r"::(end)?group::|##\[(end)?group\]", " ", text)


def _joined(lines: list[str], room: int) -> str:
    """As many lines as there is room for."""
    kept: list[str] = []
    for line in lines[:LINES]:
        room -= len(line.encode()) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join(kept)


# --- when it was ----------------------------------------------------------------------------------------------------


def _when(began: float | None, ended: float | None, started: float | None, failed: float) -> str:
    """`began 3 s after the task started, 41 s before it failed`."""
    parts = []
    if began is not None:
        if started is None:
            parts.append(f"began {_span(failed - began)} before the task failed")
        elif began < started:
            parts.append(f"began {_span(started - began)} before the task started")
        else:
            parts.append(f"began {_span(began - started)} after the task started")
            if ended is None:
                parts.append(f"{_span(failed - began)} before it failed")
    if ended is not None:
        parts.append(f"was over {_span(failed - ended)} before it failed")
    return ", ".join(parts)


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _time(text: Any) -> float | None:
    """Unix time of `2026-11-22T13:18:33.289Z`."""
    if not isinstance(text, str):
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


# --- one request ----------------------------------------------------------------------------------------------------


def _request(method: str, path: str, body: bytes, deadline: float) -> bytes | None:
    """The body of the answer; None where nobody listens: there is no netprobe. Raises whatever else goes wrong.

    A client of its own, as those of the standard library can be held up by a server that sends a byte now and then.
    """
    family, address, host = _place(os.environ.get("NETPROBE_URL") or URL)
    head = f"{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
    if body:
        head += "Content-Type: application/json\r\n"
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(_left(deadline))
        try:
            connection.connect(address)
        except ConnectionRefusedError:
            return None
        connection.settimeout(_left(deadline))
        connection.sendall(f"{head}\r\n".encode() + body)
        received = bytearray()
        while not _complete(received):
            connection.settimeout(_left(deadline))
            chunk = connection.recv(65536)
            if not chunk:
                break
            received += chunk
            if len(received) > ANSWER_BYTES:
                raise ValueError(f"an answer of more than {ANSWER_BYTES} bytes")
    headers, _, answer = bytes(received).partition(b"\r\n\r\n")
    line = headers.partition(b"\r\n")[0]
    if not re.match(rb"HTTP/1\.[01] 2\d\d\b", line):
        raise ValueError(f"expected HTTP status 200 of {path}, got {line[:60]!r}")
    return answer


def _hold(deadline: float) -> socket.socket | None:
    """A request to end whose body is kept back: netprobe obeys once the connection is gone. None where nobody listens.

    The kernel closes it with the last process that has it, however that ends.
    """
    family, address, host = _place(os.environ.get("NETPROBE_URL") or URL)
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(_left(deadline))
        connection.connect(address)
        connection.sendall(f"POST /quitquitquit HTTP/1.0\r\nHost: {host}\r\nContent-Length: 1\r\n\r\n".encode())
    except ConnectionRefusedError:
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return connection


def _complete(received: bytearray) -> bool:
    """Whether an answer is there as a whole; one that does not say how long it is ends with its connection."""
    headers, end, answer = received.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d{1,9})\r\n", bytes(headers + b"\r\n").lower()) if end else None
    return length is not None and len(answer) >= int(length[1])


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def _place(url: str) -> tuple[int, tuple[str, int], str]:
    """Address family, address, and the header Host. ValueError where the host is a name: that would be looked up."""
    expected = ValueError("NETPROBE_URL: expected something like http://127.0.0.1:9733")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        host = "127.0.0.1" if host == "localhost" else host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        raise expected from None
    if parts.scheme != "http":
        raise expected
    return family, (host, port), parts.netloc


def _why(error: BaseException) -> str:
    return _clean(f"{type(error).__name__}: {error}")


def _hush(message: str, error: BaseException) -> None:
    """Mention an error to those who debug, and to nobody else."""
    with suppress(BaseException):
        _log.debug(message, _why(error))
