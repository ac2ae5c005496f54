"""The sections of what brings results out of a pod by itself: remote write, and the Pushgateway."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarl import URL

from agent.keys import (
    NON_EMPTY,
    PATH,
    REGEX,
    SECRET,
    SECRET_FILE,
    Check,
    Kind,
    Unexpected,
    collect,
    duration,
    integer,
    key,
    list_of,
    section,
)
from agent.model import Secret
from agent.net.addressing import RESOLV_CONF
from agent.net.proxy import PROXY, ProxyMode, ProxyServer
from agent.net.tls import TlsOptions
from agent.net.urls import printable
from agent.probers.http_options import HEADERS, URL_KIND, BasicAuth, Headers

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OURS = frozenset(
    {"namespace", "pod", "dag_id", "task_id", "target", "type", "job", "le", "quantile", "sink"}
    | {"result", "phase", "reason", "cause", "scope", "role", "address", "version", "python", "run_id"}
)
"""Labels that netprobe gives by itself, and the one that would multiply every series by the runs of its DAG."""
_RESERVED = "__"
"""Labels that begin so belong to Prometheus."""


def _label_name(raw: Any) -> str:
    if not isinstance(raw, str) or _LABEL.fullmatch(raw) is None or raw.startswith(_RESERVED) or raw in _OURS:
        raise Unexpected
    return raw


_LABEL_NAME: Kind[str] = Kind(
    expected="a label's name that netprobe does not use itself", read=_label_name, schema={"type": "string"}
)
Labels = tuple[tuple[str, str], ...]


def _labels(raw: Any) -> Labels:
    if not isinstance(raw, Mapping):
        raise Unexpected
    names = collect((name, name, _LABEL_NAME) for name in raw)
    values = collect((name, value, NON_EMPTY) for name, value in raw.items())
    return tuple(zip(names, values, strict=True))


LABELS: Kind[Labels] = Kind(
    expected="a mapping of label names to non-empty strings",
    read=_labels,
    show=dict,
    schema={"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
)


def _one_authorization(basic_auth: object, token: object, token_file: object, headers: Headers) -> str | None:
    ways = {"basic_auth": basic_auth, "bearer_token": token, "bearer_token_file": token_file}
    given = [name for name, value in ways.items() if value is not None]
    given += [f"the header {name}" for name, _ in headers if name.lower() == "authorization"]
    return f"expected one way to authenticate, got {' and '.join(given)}" if len(given) > 1 else None


_OF_THE_CONTENT = frozenset({"content-type", "content-encoding", "x-prometheus-remote-write-version"})


def _no_content_headers(headers: Headers) -> str | None:
    taken = [name for name, _ in headers if name.lower() in _OF_THE_CONTENT]
    return f"expected headers that do not describe the content, got {' and '.join(taken)}" if taken else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """How a receiver is reached, and how often: what every way to push has in common."""

    CHECKS = (
        Check(
            at="basic_auth",
            needs=("basic_auth", "bearer_token", "bearer_token_file", "headers"),
            problem=_one_authorization,
        ),
        Check(at="headers", needs=("headers",), problem=_no_content_headers),
    )

    url: URL | None = key(URL_KIND, default=None, doc="Where to push to. Nothing is pushed where it is left out.")
    interval: float = key(
        duration("5s", "1h"),
        default=60.0,
        doc="Time between two pushes of a pod that lives longer. Each pod has its own place within the interval, and "
        "pushes once more at its end.",
    )
    timeout: float = key(duration("100ms", "1m"), default=10.0, doc="How long one request may take.")
    job: str = key(NON_EMPTY, default="netprobe", doc="The label `job` of everything that is pushed.")
    dag_ids: tuple[re.Pattern[str], ...] = key(
        list_of(REGEX),
        default=(),
        doc="Patterns of whole dag_ids. Where there are any, a dag_id that none of them fits is pushed as `__other__`.",
    )
    task_ids: tuple[re.Pattern[str], ...] = key(
        list_of(REGEX),
        default=(),
        doc="The same for task_ids.",
    )
    headers: Headers = key(
        HEADERS, default=(), doc="Further headers, such as `X-Scope-OrgID` of Mimir and Cortex. Secrets as for http."
    )
    basic_auth: BasicAuth | None = key(section(BasicAuth), default=None, doc="Authenticate by user name and password.")
    bearer_token: Secret | None = key(SECRET, default=None, doc="Authenticate with this token.")
    bearer_token_file: Secret | None = key(
        SECRET_FILE, default=None, doc="Authenticate with the token in this file, read at each push."
    )
    tls: TlsOptions = key(section(TlsOptions), default=TlsOptions(), doc="How TLS connections are made.")
    resolv_conf: Path = key(PATH, default=RESOLV_CONF, doc="Resolver configuration to resolve names by.")
    proxy: ProxyMode | ProxyServer = key(
        PROXY,
        default=ProxyMode.ENVIRONMENT,
        doc="Proxy: a URL; the one that HTTP_PROXY, HTTPS_PROXY and NO_PROXY give (environment); or none.",
    )

    @property
    def printable_address(self) -> str:
        """The receiver, for people: no credentials, no query string."""
        return printable(self.url) if self.url is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteWriteOptions(PushOptions):
    """Push every pod's series to a receiver of Prometheus remote write (1.0), with a zero at their beginning."""

    labels: Labels = key(
        LABELS, default=(), doc="Further labels of every series, such as the cluster's name. Never one a run has."
    )
    zeros: int = key(
        integer(1, 1000),
        default=100,
        doc="How many zeros, a millisecond apart, a counter begins with. Over the whole life of a short pod, "
        "Prometheus' `increase()` is too high by 1 / (2 * zeros): half a percent with 100. Receivers that do not "
        "extrapolate, such as VictoriaMetrics, need 1.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PushgatewayOptions(PushOptions):
    """Leave the last result of each task in a Prometheus Pushgateway."""
