"""The configuration keys of an http target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import unquote_plus

import voluptuous as vol
from yarl import URL

from agent.keys import (
    SECRET,
    SECRET_FILE,
    TEXT,
    Check,
    Kind,
    Unexpected,
    choice,
    collect,
    integer,
    key,
    section,
    size,
)
from agent.model import Secret
from agent.net.addressing import Addressing
from agent.net.proxy import PROXY, ProxyMode, ProxyServer, basic
from agent.net.tls import TlsOptions
from agent.net.urls import host_of, port_of, printable, read_url
from agent.probers.http_expect import HEADER_NAME, HttpExpectations


class Method(StrEnum):
    GET = "GET"
    HEAD = "HEAD"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"
    OPTIONS = "OPTIONS"


# --- kinds of values ------------------------------------------------------------------------------------------------

_URL_EXPECTED = "a URL such as https://api.example.com/health"


def _url(raw: Any) -> URL:
    if not isinstance(raw, str):
        raise Unexpected
    try:
        url = read_url(raw)
    except ValueError as error:
        # Not shown as it is: what it holds in front of an @ may be a password.
        seen = repr(raw) if "@" not in raw else "another text"
        raise vol.Invalid(f"expected {_URL_EXPECTED}, got {seen}: {error}") from None
    if url.raw_user is not None or url.raw_password is not None:
        raise vol.Invalid(f"expected {_URL_EXPECTED}, got one with a user name in it: that belongs under basic_auth")
    return url.with_fragment(None)


def _show_url(url: URL) -> str:
    return f"{printable(url)}?***" if url.raw_query_string else printable(url)


URL_KIND: Kind[URL] = Kind(
    expected=_URL_EXPECTED, read=_url, show=_show_url, schema={"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"}
)

_SECRET_WORDS = ("auth", "cookie", "token", "secret", "key", "password", "credential", "session", "signature")
_OURS = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "upgrade", "te", "trailer"})
"""They frame the message or belong to the connection, which are the prober's own."""


Headers = tuple[tuple[str, str | Secret], ...]


def holds_secret(header: str) -> bool:
    """Whether a header of this name is likely to hold a credential."""
    return any(word in header.lower() for word in _SECRET_WORDS)


def _header_value(raw: Any) -> str:
    if not isinstance(raw, str) or any(ord(c) < 0x20 or ord(c) == 0x7F for c in raw.replace("\t", "")):  # noqa: PLR2004 - control characters
        raise Unexpected
    return raw.strip()


_HEADER_VALUE: Kind[str] = Kind(
    expected="a string on one line", read=_header_value, schema={"type": "string"}, secret=True
)


def _headers(raw: Any) -> Headers:
    if not isinstance(raw, Mapping):
        raise Unexpected
    names = collect((name, name, HEADER_NAME) for name in raw)
    for name in names:
        if name.lower() in _OURS:
            message = "expected a header that does not frame the message, got one that netprobe sets itself"
            raise vol.Invalid(message, path=[name])
    values = collect((name, value, _HEADER_VALUE) for name, value in raw.items())
    return tuple(
        (name, Secret(value) if holds_secret(name) else value) for name, value in zip(names, values, strict=True)
    )


HEADERS: Kind[Headers] = Kind(
    expected="a mapping of header names to strings",
    read=_headers,
    show=lambda headers: {name: "***" if isinstance(value, Secret) else value for name, value in headers},
    schema={"type": "object", "additionalProperties": {"type": "string"}},
)


_LONG = 16
"""Characters of a value that is likely to be a credential, whatever its name."""
_SHORT = 4
"""Characters of a value below which it is none: hiding it would make every sentence unreadable."""


def _secrets_of_query(query: str) -> Iterator[Secret]:
    """The values of a query string that are likely to be credentials, as they were sent and as a server reads them."""
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if len(value) >= (_SHORT if holds_secret(unquote_plus(name)) else _LONG):
            yield from map(Secret, {value, unquote_plus(value)})


_WITH_BODY = frozenset({Method.POST, Method.PUT, Method.PATCH})

# --- keys -----------------------------------------------------------------------------------------------------------


def one_of(first: str, second: str) -> Check:
    """The rule that two keys exclude each other."""

    def problem(one: object, other: object) -> str | None:
        return f"expected {first} or {second}, got both" if one is not None and other is not None else None

    return Check(at=second, needs=(first, second), problem=problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicAuth:
    """User name and password, RFC 7617."""

    CHECKS = (one_of("password", "password_file"),)

    username: str = key(TEXT, doc="User name.")
    password: Secret | None = key(SECRET, default=None, doc="Password.")
    password_file: Secret | None = key(SECRET_FILE, default=None, doc="File with the password, read at each run.")

    @property
    def authorization(self) -> Secret:
        """The header's value. OSError where the password's file cannot be read."""
        return basic(self.username, self.password or self.password_file)


def _one_authorization(basic_auth: object, token: object, token_file: object, headers: Headers) -> str | None:
    ways = {"basic_auth": basic_auth, "bearer_token": token, "bearer_token_file": token_file}
    given = [name for name, value in ways.items() if value is not None]
    given += [f"the header {name}" for name, _ in headers if name.lower() == "authorization"]
    return f"expected one way to authenticate, got {' and '.join(given)}" if len(given) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions(Addressing):
    CHECKS = (
        one_of("body", "body_file"),
        Check(
            at="basic_auth",
            needs=("basic_auth", "bearer_token", "bearer_token_file", "headers"),
            problem=_one_authorization,
        ),
    )

    url: URL = key(URL_KIND, doc="What to ask for.")
    method: Method = key(choice(Method), default=Method.GET, doc="Request method.")
    headers: Headers = key(
        HEADERS,
        default=(),
        doc=f"Headers to send. Values of those whose name holds one of {', '.join(_SECRET_WORDS)} are secrets.",
    )
    body: Secret | None = key(SECRET, default=None, doc="Request body; treated as a secret.")
    body_file: Secret | None = key(SECRET_FILE, default=None, doc="File with the request body, read at each run.")
    basic_auth: BasicAuth | None = key(section(BasicAuth), default=None, doc="Authenticate by user name and password.")
    bearer_token: Secret | None = key(SECRET, default=None, doc="Authenticate with this token.")
    bearer_token_file: Secret | None = key(
        SECRET_FILE, default=None, doc="Authenticate with the token in this file, read at each run."
    )
    tls: TlsOptions = key(section(TlsOptions), default=TlsOptions(), doc="How TLS connections are made.")
    max_redirects: int = key(
        integer(0, 20),
        default=10,
        doc="Redirects to follow; more are a failure. With 0 the redirecting answer itself is judged.",
    )
    proxy: ProxyMode | ProxyServer = key(
        PROXY,
        default=ProxyMode.ENVIRONMENT,
        doc="Proxy: a URL; the one that HTTP_PROXY, HTTPS_PROXY and NO_PROXY give (environment); or none.",
    )
    body_limit: int = key(
        size("1B", "256MiB"), default=1 << 20, doc="The largest body that is read, after decompression."
    )
    expect: HttpExpectations = key(
        section(HttpExpectations), default=HttpExpectations(), doc="What the final answer must be."
    )

    @property
    def printable_address(self) -> str:
        return printable(self.url)

    @property
    def host(self) -> str:
        return host_of(self.url)

    @property
    def port(self) -> int:
        return port_of(self.url)

    @property
    def authorization(self) -> Secret | None:
        """The value of the Authorization header that basic_auth or a bearer token stands for. OSError."""
        if self.basic_auth is not None:
            return self.basic_auth.authorization
        token = self.bearer_token or self.bearer_token_file
        return Secret(f"Bearer {token.reveal()}") if token is not None else None

    @property
    def sends_body(self) -> bool:
        """Whether the request has a body, be it an empty one."""
        return bool(self.body or self.body_file) or self.method in _WITH_BODY

    @property
    def request_body(self) -> bytes:
        """The body of the request. OSError or UnicodeDecodeError where its file cannot be read."""
        body = self.body or self.body_file
        return body.reveal().encode() if body is not None else b""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        # By name, not by secrets_of(self): it is asked for at every run, and to look through all keys takes 0.05 ms.
        found = [self.body, self.body_file, self.bearer_token, self.bearer_token_file]
        found += [value for _, value in self.headers if isinstance(value, Secret)]
        if self.basic_auth is not None:
            found += [self.basic_auth.password, self.basic_auth.password_file]
        if isinstance(self.proxy, ProxyServer):
            found += self.proxy.secrets
        if query := self.url.raw_query_string:
            # It may be a signature or a key, and is shown nowhere else either.
            found += [Secret(query), *_secrets_of_query(query)]
        if self.basic_auth is not None:
            # A server that echoes its request quotes what was sent, not what was configured.
            with suppress(OSError, UnicodeDecodeError):
                found.append(Secret(self.basic_auth.authorization.reveal().removeprefix("Basic ")))
        return tuple(secret for secret in found if secret is not None)


def from_url(url: str) -> dict[str, Any]:
    """`https://user:password@host/path` as the configuration it stands for. ValueError names no secret."""
    try:
        read = URL(url)
        user, password = read.user, read.password
    except ValueError:
        raise ValueError("it is not a URL") from None
    if user is None and password is None:
        return {"url": url}
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    credentials = {"username": user or "", **({"password": password} if password else {})}
    return {"url": f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}", "basic_auth": credentials}
