"""Where something listens, and how it is asked: what all sources come down to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from agent.airflow.discovery.parts import STRAY_AT, Unreadable
from agent.keys import HostPort, valid_host
from agent.model import Secret
from agent.networks import ip_address

HOSTS_LIMIT = 16
"""Hosts of one value that are looked at."""
HIGHEST_PORT = 65_535

_ANSWERS = "200-501"
"""Statuses that show that somebody is there. 502 to 504 are how proxies and load balancers say that nobody is."""


class Ask(StrEnum):
    """How an endpoint is asked. None of them logs in or sends a request that could change anything."""

    TCP = "tcp"
    """A connection, and nothing on it."""
    HTTP = "http"
    """`HEAD /`: any status up to 501 will do."""
    HTTPS = "https"
    """The same over TLS. The certificate is read and not verified: the authorities of another container count."""
    POSTGRES = "postgres"
    """A handshake, up to the demand for a password."""
    SRV = "srv"
    """A lookup of the SRV records of a name."""
    NAME = "name"
    """A lookup of its name and no connection: the server counts those that do not log in, and shuts their host out.

    MySQL does after 100 (max_connect_errors), OpenSSH 9.8 by its PerSourcePenalties. With a node's or a NAT's address,
    all pods behind it would be shut out, and their tasks.
    """


SHUTTING_OUT = {22, 3306}
"""Ports where such a server listens, whatever the type of the connection that leads there."""
DEFAULT_PORTS = {Ask.HTTP: 80, Ask.HTTPS: 443, Ask.POSTGRES: 5432}


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a Postgres database is asked with."""

    user: str = ""
    database: str = ""
    password: Secret | None = None
    """None: the handshake alone."""
    parameters: tuple[tuple[str, str], ...] = ()
    """libpq's, about TLS. They matter where a password follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A host, a port, and a way to ask."""

    ask: Ask
    host: str
    port: int
    login: Login = Login()
    path: str = "/"
    """What is asked for over HTTP."""

    @property
    def place(self) -> tuple[str, int]:
        """What makes two endpoints the same."""
        return place(self.host, self.port)

    def keys(self) -> dict[str, Any]:
        """The keys of a target that asks this endpoint, less its name, role and scope."""
        where = str(HostPort(self.host, self.port))
        if self.ask is Ask.SRV:
            return {"type": "dns", "query": self.host, "record": "SRV"}
        if self.ask is Ask.NAME:
            # A name with IPv6 addresses alone is there as well.
            return {"type": "dns", "query": self.host, "expect": {"min_answers": 0}}
        if self.ask is Ask.POSTGRES:
            return {"type": "postgres", **self._login(where)}
        if self.ask in {Ask.HTTP, Ask.HTTPS}:
            return {
                "type": "http",
                "url": f"{self.ask}://{where}{self.path}",
                "method": "HEAD",
                "max_redirects": 0,
                "tls": {"verify": False},
                "expect": {"status": [_ANSWERS]},
            }
        return {"type": "tcp", "address": where}

    def _login(self, where: str) -> dict[str, Any]:
        login = self.login
        user = f"{quote(login.user, safe='')}@" if login.user else ""
        database = f"/{quote(login.database, safe='')}" if login.database else ""
        dsn = f"postgresql://{user}{where}{database}"
        if login.password is None or not login.user:
            return {"dsn": dsn}
        parameters = "&".join(f"{name}={quote(value, safe='')}" for name, value in login.parameters)
        dsn = f"{dsn}?{parameters}" if parameters else dsn
        return {"dsn": dsn, "mode": "login", "password": login.password.reveal()}


def place(host: str, port: int | None) -> tuple[str, int]:
    """A host and port in the form in which they are compared."""
    return host.lower().removesuffix("."), port or 0


_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)

SCHEMES = {
    "http": (Ask.HTTP, 80),
    "https": (Ask.HTTPS, 443),
    "amqp": (Ask.TCP, 5672),
    "amqps": (Ask.TCP, 5671),
    "grpc": (Ask.TCP, None),
    "hive2": (Ask.TCP, 10000),
    "ldap": (Ask.TCP, 389),
    "ldaps": (Ask.TCP, 636),
    "mariadb": (Ask.NAME, 3306),
    "memcached": (Ask.TCP, 11211),
    "mongodb": (Ask.TCP, 27017),
    "mssql": (Ask.TCP, 1433),
    "mysql": (Ask.NAME, 3306),
    "oracle": (Ask.TCP, 1521),
    "postgres": (Ask.POSTGRES, 5432),
    "postgresql": (Ask.POSTGRES, 5432),
    "pyamqp": (Ask.TCP, 5672),
    "redis": (Ask.TCP, 6379),
    "rediss": (Ask.TCP, 6379),
    "redshift": (Ask.TCP, 5439),
    "sentinel": (Ask.TCP, 26379),
    "snowflake": (Ask.HTTPS, 443),
    "spark": (Ask.TCP, 7077),
    "sqlserver": (Ask.TCP, 1433),
    "trino": (Ask.TCP, 8080),
}
"""How the schemes of URLs are asked, and on which port where the URL names none."""


def listed(text: str, *, ask: Ask, port: int | None = None, usual: int | None = None) -> Iterator[Endpoint]:
    """The endpoints of a host, a URL, or several of them with commas or semicolons between.

    `port` is for hosts without one, `usual` for those whose scheme does not say more. What stands in a URL behind the
    port is left out: it may be a token. Raises Unreadable.
    """
    if text.startswith("/"):
        raise Unreadable("it is a socket or a file of its container, not a place on the network")
    shared = _URL.match(text)
    scheme = shared["scheme"] if shared else ""
    body = shared["rest"] if shared else text
    # Commas may also stand in a path or a query, which are none of the host's.
    items = [item.strip() for item in re.split(r"[,;]", body, maxsplit=HOSTS_LIMIT) if item.strip()]
    if not items:
        raise Unreadable("it names no host")
    if any("@" in item for item in items[1:]):
        raise Unreadable(STRAY_AT)
    if len(items) > HOSTS_LIMIT:
        raise Unreadable(f"it names more than {HOSTS_LIMIT} hosts")
    for item in items:
        own = _URL.match(item)
        yield _one(own["rest"] if own else item, own["scheme"] if own else scheme, ask, port, usual)
        if "/" in (own["rest"] if own else item):
            return


def _one(text: str, scheme: str, ask: Ask, port: int | None, usual: int | None) -> Endpoint:
    if scheme:
        plain = scheme.lower().partition("+")[0]
        if plain not in SCHEMES:
            raise Unreadable("its host is a URL of an unknown scheme")
        ask, usual = SCHEMES[plain]
    authority, *behind = re.split(r"[/?#\\]", text, maxsplit=1)
    if behind and "@" in behind[0]:
        raise Unreadable(STRAY_AT)
    host, own_port = split(authority.rpartition("@")[2])
    final = own_port or port or usual or DEFAULT_PORTS.get(ask)
    if final is None:
        raise Unreadable("it names no port, and none is usual for its type")
    return endpoint(ask, host, final)


def endpoint(ask: Ask, host: str, port: int) -> Endpoint:
    """An endpoint whose host and port can be one. Raises Unreadable."""
    if not valid_host(host):
        raise Unreadable("its host is no host name and no IP address")
    if not 0 < port <= HIGHEST_PORT:
        raise Unreadable("its port is no port")
    if ask is Ask.TCP and port in SHUTTING_OUT:
        ask = Ask.NAME
    if ask is Ask.NAME and ip_address(host) is not None:
        raise Unreadable("it has no name to look up, and its server shuts out who connects without a login")
    return Endpoint(ask=ask, host=host, port=port)


def split(authority: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `[2001:db8::1]:port` or a bare IPv6 address. Raises Unreadable."""
    if authority.startswith("["):
        host, _, rest = authority[1:].partition("]")
        port = rest.removeprefix(":")
    elif authority.count(":") > 1:
        host, port = authority, ""
    else:
        host, _, port = authority.partition(":")
    if not port:
        return host, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5):  # noqa: PLR2004 - digits of 65535
        raise Unreadable("its port is no port")
    return host, int(port)


def with_login(found: Endpoint, login: Login) -> Endpoint:
    """A Postgres endpoint with who asks; another as it is."""
    return replace(found, login=login) if found.ask is Ask.POSTGRES else found
