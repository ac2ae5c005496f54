"""What an HTTP answer gives away about who made it: the server, a proxy, a service mesh; and what time it is there.

Everything is bounded, and most of it costs a look into the headers that are there anyway.
"""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

from agent.model import Fact
from agent.net.http1 import Head
from agent.prober import Recorder

SQUID_ERROR = "X-Squid-Error"
"""What squid puts into an answer of its own: `ERR_CONNECT_FAIL 111`, with the number of the system's error."""

_LIMIT = 120
"""Characters of a fact: enough to recognise who speaks."""
_PAGE_BYTES = 4096
"""Where the title of a page, or the sentence of a proxy, is looked for."""
_ERRORS_FROM = 400
_BAD_GATEWAY, _UNAVAILABLE = 502, 503

_ENVOYS = ("envoy", "istio-envoy")
_ENVOY_HEADERS = "x-envoy-"
_UPSTREAM_ANSWERED = "x-envoy-upstream-service-time"
_LINKERD_HEADERS = "l5d-"
_LINKERD_ERROR = "l5d-proxy-error"

_ENVOY_SAYS = (
    b"upstream connect error or disconnect/reset before headers",
    b"no healthy upstream",
    b"upstream request timeout",
    b"RBAC: access denied",
)
"""The bodies of Envoy's own answers begin so (source/common/http/utility.cc, router.cc, rbac_filter.cc)."""

_TLS_WANTED = (
    b"The plain HTTP request was sent to HTTPS port",  # nginx
    b"Client sent an HTTP request to an HTTPS server",  # Go's net/http
    b"speaking plain HTTP to an SSL-enabled server port",  # Apache's httpd
    b"This combination of host and port requires TLS",  # Tomcat
)

_TITLE = re.compile(rb"<title[^>]*>\s*([^<]+)", re.IGNORECASE)


def note_head(head: Head, notes: Recorder) -> None:
    """Write down what the headers of the target's answer tell."""
    headers, facts = head.headers, notes.facts
    if server := headers.get("Server"):
        facts[Fact.HTTP_SERVER] = _bounded(server)
    if media_type := headers.get("Content-Type", "").partition(";")[0].strip():
        facts[Fact.HTTP_CONTENT_TYPE] = _bounded(media_type.lower())
    there = server_time(head)
    if there is not None:
        facts[Fact.CLOCK_AHEAD_SECONDS] = round(time.time() - there)
    if mesh := _mesh_proxy(head):
        facts[Fact.MESH_PROXY] = mesh
    if error := headers.get(_LINKERD_ERROR):
        facts[Fact.MESH_ERROR] = _bounded(error)


def note_proxy(head: Head, notes: Recorder) -> None:
    """Write down what the headers of an answer tell that a proxy made, or let through."""
    if error := head.headers.get(SQUID_ERROR):
        notes.facts[Fact.PROXY_ERROR] = _bounded(error)


def note_page(head: Head, body: bytes | bytearray, notes: Recorder) -> None:
    """Write down what the body of the final answer tells."""
    beginning = bytes(body[:_PAGE_BYTES])
    if notes.facts.get(Fact.HTTP_CONTENT_TYPE) == "text/html" and (title := _TITLE.search(beginning)):
        notes.facts[Fact.HTTP_TITLE] = _bounded(title[1].decode("utf-8", "replace"))
    if head.status < _ERRORS_FROM:
        return
    if any(text in beginning for text in _TLS_WANTED):
        notes.facts[Fact.TLS_WANTED] = True
    if beginning.startswith(_ENVOY_SAYS):
        notes.facts[Fact.MESH_ERROR] = _bounded(beginning.decode("utf-8", "replace"))
    elif head.status in {_BAD_GATEWAY, _UNAVAILABLE} and not body and _answers_for_nobody(head):
        notes.facts[Fact.MESH_ERROR] = f"{head.status_line} without a word more"


def _bounded(text: str) -> str:
    """One line. What is left of a word that is cut through here is recognised as such where secrets are taken out."""
    line = " ".join(text.split())
    return line if len(line) <= _LIMIT else f"{line[:_LIMIT]}…"


def _answers_for_nobody(head: Head) -> bool:
    """Whether Envoy made an answer, and no server behind it."""
    return head.headers.get("Server") in _ENVOYS and _UPSTREAM_ANSWERED not in head.headers


def _mesh_proxy(head: Head) -> str | None:
    server = head.headers.get("Server", "").lower()
    if server in _ENVOYS:
        return server
    for name in head.headers:
        lower = name.lower()
        if lower.startswith(_ENVOY_HEADERS):
            return "envoy"
        if lower.startswith(_LINKERD_HEADERS):
            return "linkerd"
    return None


def server_time(head: Head) -> float | None:
    """Unix time at the server when it answered, by its Date, to which a cache adds an Age (RFC 9111, section 5.1).

    None where there is no such date. It is the middle of a second: the header leaves out the fraction.
    """
    try:
        date = parsedate_to_datetime(head.headers.get("Date", ""))
        age = int(head.headers.get("Age", "0"))
        return None if date.tzinfo is None else date.timestamp() + age + 0.5
    except (ValueError, OverflowError):
        return None
