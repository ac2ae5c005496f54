"""URLs of SQLAlchemy and of Celery: the metadata database, the broker, the result backend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote

from agent.airflow.discovery.endpoint import HOSTS_LIMIT, SCHEMES, Endpoint, Login, endpoint, split, with_login
from agent.airflow.discovery.parts import STRAY_AT, VALUE_LIMIT, Unreadable
from agent.model import Secret

_FORM = re.compile(
    r"""
    (?P<scheme>[\w+.-]+)://
    (?:(?P<user>[^:/@]*)(?::(?P<password>[^@]*))?@)?
    (?P<where>\[[^/?\]]+\](?::[^/?]*)?|[^/?]*)
    (?:/(?P<database>[^?]*))?
    (?:\?(?P<query>.*))?
    """,
    re.VERBOSE | re.DOTALL,
)
"""As SQLAlchemy 1.4 and 2.0 split a URL: a password may hold a slash, and no @."""

_LIBPQ = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_NO_NETWORK = {
    "sqlite": "it is a file",
    "filesystem": "it is a directory",
    "memory": "it is no place on the network",
    "rpc": "results go through the broker",
    "sqs": "which of AWS's addresses it stands for is not named",
    "s3": "which of AWS's addresses it stands for is not named",
    "dynamodb": "which of AWS's addresses it stands for is not named",
}


def read_url(value: str, *, keep_password: bool = False) -> Iterator[Endpoint]:
    """The endpoints of one URL, or of several with semicolons between, as Celery takes them. Raises Unreadable."""
    if len(value) > VALUE_LIMIT:
        raise Unreadable(f"its value is longer than {VALUE_LIMIT // 1024} KiB")
    text = value.strip()
    if not text:
        raise Unreadable("it is empty")
    if not text.isprintable():
        raise Unreadable("its value holds characters that are no text")
    for url in re.split(r";(?=[\w+.-]+://)", text):
        yield from _read_one(url, keep_password=keep_password)


def _read_one(url: str, *, keep_password: bool) -> Iterator[Endpoint]:
    match = _FORM.fullmatch(url)
    if match is None:
        raise Unreadable("it is no URL")
    if "@" in f"{match['where']}{match['database']}{match['query']}":
        # What SQLAlchemy takes for the host may be a piece of a password.
        raise Unreadable(STRAY_AT)
    scheme = match["scheme"].lower()
    scheme = scheme.removeprefix("db+").removeprefix("sqla+").removeprefix("cache+").partition("+")[0]
    if scheme in _NO_NETWORK:
        raise Unreadable(_NO_NETWORK[scheme])
    if scheme not in SCHEMES:
        raise Unreadable("what listens at a URL of its scheme is not known")
    query = parse_qs(match["query"] or "")
    hosts = [match["where"]] if match["where"] else query.get("host", [])
    if not hosts:
        raise Unreadable("it names no host")
    ask, usual = SCHEMES[scheme]
    login = Login(
        user=unquote(match["user"] or ""),
        database=unquote(match["database"] or ""),
        password=Secret(unquote(match["password"])) if keep_password and match["password"] else None,
        parameters=tuple((name, query[name][0]) for name in _LIBPQ if query.get(name)),
    )
    items = [item for host in hosts for item in re.split(r"[,;]", host, maxsplit=HOSTS_LIMIT)]
    if len(items) > HOSTS_LIMIT:
        raise Unreadable(f"it names more than {HOSTS_LIMIT} hosts")
    for item in items:
        name, port = split(unquote(item))
        if name.startswith("/"):
            raise Unreadable("it is a socket of its container, not a place on the network")
        if not (port or usual):
            raise Unreadable("it names no port, and none is usual for its scheme")
        yield with_login(endpoint(ask, name, port or usual or 0), login)
