"""The types of target: a new one is a module in this package and one line in PROBERS.

Configuration keys, messages, schema, reference and command line derive from that list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from agent.model import Options
from agent.prober import Prober
from agent.probers import dns, dns_options, http, http_options, postgres, postgres_options, tcp


@dataclass(frozen=True, slots=True, kw_only=True)
class ProberSpec:
    """Everything the rest of netprobe needs to know about one type."""

    options: type[Options]
    """The dataclass whose fields are the configuration keys of the type (see agent.keys)."""
    prober: Callable[[], Prober]
    url_schemes: tuple[str, ...]
    """The schemes `netprobe check URL` takes for the type."""
    from_url: Callable[[str], dict[str, Any]]
    """A URL of one of those schemes as the configuration keys of a target, unchecked. Raises ValueError."""
    doc: str


PROBERS: Mapping[str, ProberSpec] = MappingProxyType(
    {
        "dns": ProberSpec(
            options=dns_options.DnsOptions,
            prober=dns.DnsProber,
            url_schemes=dns_options.URL_SCHEMES,
            from_url=dns_options.from_url,
            doc="A DNS question to the pod's nameservers, to libc, or to one nameserver.",
        ),
        "http": ProberSpec(
            options=http_options.HttpOptions,
            prober=http.HttpProber,
            url_schemes=("http", "https"),
            from_url=http_options.from_url,
            doc="An HTTP request, through redirects and proxies, and what is expected of the answer.",
        ),
        "tcp": ProberSpec(
            options=tcp.TcpOptions,
            prober=tcp.TcpProber,
            url_schemes=tcp.URL_SCHEMES,
            from_url=tcp.from_url,
            doc="A TCP connection, TLS, and a dialogue in bytes.",
        ),
        "postgres": ProberSpec(
            options=postgres_options.PostgresOptions,
            prober=postgres.PostgresProber,
            url_schemes=("postgres", "postgresql"),
            from_url=postgres_options.from_url,
            doc="A Postgres server or a pooler: its demand for credentials, a login, or a query.",
        ),
    }
)
