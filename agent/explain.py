"""`netprobe explain`: asks a running agent what is wrong, and prints what it says."""

from __future__ import annotations

import http.client
import json
import queue
import shutil
import ssl
import sys
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agent import __version__
from agent.exit_codes import A_TARGET_FAILED, FINE, NOT_STARTED
from agent.explanation import as_text
from agent.listening import DEFAULT_PORT
from agent.wording import Wording

PATH = "/diagnosis"
VERSION = 1
"""Of the JSON form that is understood."""
PATIENCE_SECONDS = 5.0
"""For everything: the name, the connection, the answer to its last byte."""
ANSWER_LIMIT_BYTES = 8 << 20
WIDEST = 120
"""Longer lines are hard to read, however wide the terminal."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent is to be asked."""

    tls: bool
    host: str
    port: int | None
    """None for the port of the scheme."""
    path: str
    """What stands before `/diagnosis`, where something in between serves it below a path."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port is not None else ""
        return f"{'https' if self.tls else 'http'}://{host}{port}{self.path}"


class NoDiagnosis(Exception):  # noqa: N818 - what happened, not what kind of thing it is
    """Why there is none, as the end of a sentence: what came instead."""


def place_of(url: str) -> Place:
    """Read `http://host:port`, `https://host/path`, `host` or `host:port`. ValueError says what is expected."""
    expected = ValueError(f"expected the URL of an agent, such as http://localhost:{DEFAULT_PORT}")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise expected from None
    if parts.scheme not in {"http", "https"} or not host or "@" in parts.netloc or parts.query or parts.fragment:
        raise expected
    if any(character.isspace() or not character.isprintable() for character in url) or not parts.path.isascii():
        raise expected
    if port is None and "://" not in url:
        port = DEFAULT_PORT
    return Place(parts.scheme == "https", host, port, parts.path.rstrip("/").removesuffix(PATH))


def explain(place: Place, *, output: str) -> int:
    """Print what the agent says, as `text` or as `json`. Exit code 0: it is healthy; 1: it is not; 3: nobody says."""
    try:
        document = _asked(place)
        text = _shown(document)
    except NoDiagnosis as why:
        sys.stderr.write(f"netprobe: expected the diagnosis of an agent at {place}, got {why}\n")
        return NOT_STARTED
    sys.stdout.write(f"{json.dumps(document, indent=2)}\n" if output == "json" else text)
    return FINE if document["healthy"] else A_TARGET_FAILED


def _shown(document: dict[str, Any]) -> str:
    """The diagnosis in words. Raises NoDiagnosis where it is none."""
    width = min(shutil.get_terminal_size((100, 24)).columns, WIDEST)
    wording = Wording(ascii_only=not sys.stdout.encoding.lower().startswith("utf"))
    try:
        return as_text(document, width=width, wording=wording)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise NoDiagnosis("a diagnosis that lacks something") from None


def _asked(place: Place) -> dict[str, Any]:
    """The agent's answer. Raises NoDiagnosis, within PATIENCE_SECONDS whatever the other side does."""
    answers: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_fetched(place))
        except Exception as error:  # noqa: BLE001 - raised again where it can be seen
            answers.put(error)

    # No timeout of a socket covers the lookup of a name, or an answer that comes byte by byte. Nobody waits for the
    # thread: it ends with the process.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE_SECONDS)
    except queue.Empty:
        raise NoDiagnosis(f"no answer within {PATIENCE_SECONDS:g} s") from None
    if isinstance(answer, Exception):
        raise _translated(answer) from None
    return _read(answer)


def _fetched(place: Place) -> bytes:
    """The body of a GET. It goes to the place itself: the proxies of the environment are for the world outside."""
    kind = http.client.HTTPSConnection if place.tls else http.client.HTTPConnection
    connection = kind(place.host, place.port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", place.path + PATH, headers={"User-Agent": f"netprobe/{__version__}"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise NoDiagnosis(f"HTTP status {response.status}")
        body = response.read(ANSWER_LIMIT_BYTES + 1)
        if len(body) > ANSWER_LIMIT_BYTES:
            raise NoDiagnosis(f"more than {ANSWER_LIMIT_BYTES >> 20} MiB")
        if response.length:  # a read of so many bytes at most does not say that some are missing
            raise http.client.IncompleteRead(body, response.length)
    finally:
        connection.close()
    return body


def _translated(error: Exception) -> Exception:
    """What a failed request means."""
    match error:
        case NoDiagnosis():
            return error
        case ssl.SSLCertVerificationError():
            return NoDiagnosis(f"a certificate that cannot be trusted: {error.verify_message}")
        case ssl.SSLError():
            return NoDiagnosis(f"a TLS error: {error.reason or error}")
        case TimeoutError():
            return NoDiagnosis(f"no answer within {PATIENCE_SECONDS:g} s")
        case http.client.RemoteDisconnected() | http.client.IncompleteRead():
            return NoDiagnosis("a connection that was closed too early")
        case http.client.HTTPException():
            return NoDiagnosis("an answer that is not HTTP")
        case OSError():
            return NoDiagnosis(f"an error: {error.strerror or error}")
        case UnicodeError():
            return NoDiagnosis("an error: no such host name is possible")
        case _:
            return error


def _read(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise NoDiagnosis("an answer that is not JSON") from None
    if not isinstance(document, dict) or "version" not in document or not isinstance(document.get("healthy"), bool):
        raise NoDiagnosis("JSON that is no diagnosis")
    if document["version"] != VERSION:
        raise NoDiagnosis(f"version {json.dumps(document['version'])[:20]} of its form, and this knows {VERSION}")
    return document
