"""The value of an `AIRFLOW_CONN_*` variable, read as Airflow reads it.

The rules are those of `airflow.models.Connection` (2.11.2) and `airflow.sdk.Connection` (3.3.2), which agree but for
what JSON may hold under `uri`: JSON where the stripped value begins with a brace, else a URI. What Airflow refuses is
refused here. Nothing quotes the value: any part of it may be a password, above all where it is malformed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from agent.model import Secret

VALUE_LIMIT = 64 * 1024
"""Characters of a value that are looked at. Keys and certificates in `extra` stay far below that."""

_PLACES = frozenset(
    {
        "account",
        "account_name",
        "account_url",
        "blob_endpoint",
        "bootstrap.servers",
        "disable_ssl",
        "domain",
        "dsn",
        "endpoint_url",
        "host",
        "instance_url",
        "region",
        "region_name",
        "service_config",
        "sslcert",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "srv",
        "srv_lookup",
        "use_ssl",
        "verify",
    }
)
"""All that is kept of `extra`. The rest may hold secrets, and names no endpoint."""

STRAY_AT = "an @ stands behind its host: it is written as %40, as every such character of a user and password is"

_KEYS = frozenset({"conn_type", "description", "host", "login", "password", "schema", "port", "extra", "uri"})
_EXTRA_KEY = "__extra__"


class Unreadable(Exception):  # noqa: N818 - a reason, not a defect
    """What is not probed, and why: a sentence that quotes no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a connection says, in Airflow's words, less its password."""

    conn_type: str
    host: str = ""
    """Percent-decoded. It may be a URL, a path, or several hosts."""
    port: int | None = None
    login: str = ""
    password: Secret | None = None
    """None unless it was asked for."""
    schema: str = ""
    extra: Mapping[str, Any]
    """The keys of `extra` that may lead to an endpoint."""


def read_parts(value: str, *, keep_password: bool = False) -> Parts:
    """Read the value of a variable. Raises Unreadable."""
    if len(value) > VALUE_LIMIT:
        raise Unreadable(f"its value is longer than {VALUE_LIMIT // 1024} KiB")
    if not value.isprintable() and not all(c.isprintable() or c in "\t\r\n" for c in value):
        raise Unreadable("its value holds characters that are no text")
    text = value.strip()
    if not text:
        raise Unreadable("it is empty")
    try:
        read = _from_json if text.startswith("{") else _from_uri
        return read(text, keep_password=keep_password)
    except (ValueError, RecursionError):
        # What a library says may quote the value.
        raise Unreadable("Airflow cannot read it either: it is malformed") from None


def _from_json(text: str, *, keep_password: bool) -> Parts:
    try:
        given = json.loads(text)
    except ValueError:
        raise Unreadable("it begins with { and is no JSON") from None
    if not isinstance(given, dict):
        raise Unreadable("it is no JSON object")
    if not given.keys() <= _KEYS:
        raise Unreadable(f"Airflow refuses it: its keys are not all among {', '.join(sorted(_KEYS))}")
    if given.get("uri"):
        if any(given.get(key) for key in _KEYS - {"uri", "description"}):
            raise Unreadable("Airflow refuses it: it has a uri and other keys")
        return _from_uri(_text(given["uri"], "uri"), keep_password=keep_password)
    port = given.get("port") or None
    if port is not None:
        try:
            port = int(port)
        except (TypeError, ValueError, OverflowError):
            raise Unreadable("its port is no number") from None
    password = _text(given.get("password"), "password")
    return Parts(
        conn_type=_normal(_text(given.get("conn_type"), "conn_type")),
        host=_text(given.get("host"), "host"),
        port=port,
        login=_text(given.get("login"), "login"),
        password=Secret(password) if keep_password and password else None,
        schema=_text(given.get("schema"), "schema"),
        extra=_places(given.get("extra") or {}),
    )


def _from_uri(uri: str, *, keep_password: bool) -> Parts:
    schemes = uri.count("://")
    if schemes > 2:  # noqa: PLR2004 - of the connection, and of a host that is a URL
        raise Unreadable("Airflow refuses it: :// stands in it more than twice")
    scheme = urlsplit(uri).scheme
    rest = uri.replace(f"{scheme}://", "" if schemes == 2 else "//")  # noqa: PLR2004 - see above
    protocol = ""
    if schemes == 2:  # noqa: PLR2004 - see above
        before, _, _ = rest.partition("://")
        if "@" in before or ":" in before:
            raise Unreadable("Airflow refuses it: a user or a port stands before the second ://")
    try:
        parts = urlsplit(rest)
        port = parts.port
    except ValueError:
        raise Unreadable("its host or port is malformed: perhaps a character is not percent-encoded") from None
    # Airflow takes it as it stands; here what it takes for the host may be a piece of a password.
    behind = (parts.path, parts.query, parts.fragment) if set("@:") & set(parts.netloc) else (parts.path,)
    if any("@" in text for text in behind):
        raise Unreadable(STRAY_AT)
    protocol = parts.scheme if schemes == 2 else ""  # noqa: PLR2004 - see above
    host = _host(parts)
    return Parts(
        conn_type=_normal(scheme),
        host=f"{protocol}://{host}" if protocol and host else host,
        port=port,
        login=unquote(parts.username or ""),
        password=Secret(unquote(parts.password)) if keep_password and parts.password else None,
        schema=unquote(parts.path[1:]),
        extra=_places_of_query(parts.query),
    )


def _host(parts: SplitResult) -> str:
    """The host as `_parse_netloc_to_hostname` has it: in lower case, unless it is a path."""
    host = unquote(parts.hostname or "")
    if "/" in host:
        host = unquote(parts.netloc.rpartition("@")[2].partition(":")[0])
    return host


def _normal(conn_type: str) -> str:
    return "postgres" if conn_type == "postgresql" else conn_type.replace("-", "_")


def _text(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"its {name} is no string")
    return value


def _places_of_query(query: str) -> Mapping[str, Any]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    return _places(given[_EXTRA_KEY]) if _EXTRA_KEY in given else _places(given)


def _places(extra: object) -> Mapping[str, Any]:
    """The keys of `extra` that may lead to an endpoint; `extra__TYPE__key`, as Airflow before 2.3 had it, is `key`."""
    if isinstance(extra, str):
        with suppress(ValueError):
            extra = json.loads(extra)
    if not isinstance(extra, dict):
        return {}  # hooks find nothing in it either
    found: dict[str, Any] = {}
    for name, value in extra.items():
        plain = name.split("__", 2)[2] if name.startswith("extra__") and name.count("__") > 1 else name
        if plain in _PLACES and value not in (None, "") and plain not in found:
            found[plain] = value
        elif plain == "connection_string" and isinstance(value, str):
            found |= _storage_account(value)
        elif plain in {"keyfile_dict", "key_path"} and value:
            found["keyfile"] = True
    return found


def _storage_account(text: str) -> dict[str, str]:
    """What an Azure connection string says of the place, less its keys."""
    pairs = dict(pair.partition("=")[::2] for pair in text.split(";"))
    wanted = {"AccountName": "account_name", "BlobEndpoint": "blob_endpoint"}
    return {wanted[name]: value for name, value in pairs.items() if name in wanted and value}
