"""The values everything else speaks in: targets, phases, reasons, failures, outcomes. Frozen, and free of I/O."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

DETAIL_LIMIT = 256
"""Characters of a failure's sentence: long enough to recognise a cause, short enough not to leak a body."""


class Phase(StrEnum):
    """The steps of a run, in the order in which a run can reach them."""

    RESOLVE = "resolve"
    """A name becomes addresses; for a dns target, the whole exchange with the nameservers."""
    CONNECT = "connect"
    """The TCP handshake, with the target or with the proxy that leads to it."""
    PROXY = "proxy"
    """The proxy is asked for a tunnel."""
    TLS = "tls"
    """The TLS handshake."""
    LOGIN = "login"
    """A database decides who we are."""
    REQUEST = "request"
    """The question is sent, up to the first part of the answer."""
    TRANSFER = "transfer"
    """The rest of the answer."""
    VERIFY = "verify"
    """The network worked; the answer is compared with what was expected."""


class Reason(StrEnum):
    """Why a run failed. Closed, and safe as a label value; `REASONS` says which phase can give which."""

    TIMEOUT = "timeout"
    CLOSED = "closed"
    RESET = "reset"
    PROTOCOL_ERROR = "protocol_error"
    INTERNAL = "internal"
    """A defect of netprobe's own, or a file of its configuration that cannot be used: the sentence names it."""

    NAME_NOT_FOUND = "name_not_found"
    NO_RECORDS = "no_records"
    SERVER_FAILURE = "server_failure"
    QUERY_REFUSED = "query_refused"

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    DENIED = "denied"
    AUTH_REQUIRED = "auth_required"

    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    CERTIFICATE_NAME_MISMATCH = "certificate_name_mismatch"
    CERTIFICATE_UNTRUSTED = "certificate_untrusted"
    CLIENT_CERTIFICATE_REQUIRED = "client_certificate_required"
    NOT_TLS = "not_tls"

    CREDENTIALS_REJECTED = "credentials_rejected"
    ACCESS_DENIED = "access_denied"
    DATABASE_NOT_FOUND = "database_not_found"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    SERVER_STARTING = "server_starting"
    TLS_REQUIRED = "tls_required"
    TLS_UNSUPPORTED = "tls_unsupported"

    TOO_LARGE = "too_large"

    UNEXPECTED_STATUS = "unexpected_status"
    UNEXPECTED_HEADER = "unexpected_header"
    UNEXPECTED_BODY = "unexpected_body"
    UNEXPECTED_ANSWER = "unexpected_answer"
    UNEXPECTED_REPLY = "unexpected_reply"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    QUERY_FAILED = "query_failed"
    UNEXPECTED_SUCCESS = "unexpected_success"


_ANY_PHASE = frozenset({Reason.TIMEOUT, Reason.CLOSED, Reason.RESET, Reason.PROTOCOL_ERROR, Reason.INTERNAL})
_UNREACHED = frozenset({Reason.REFUSED, Reason.UNREACHABLE, Reason.DENIED})

REASONS: Mapping[Phase, frozenset[Reason]] = types.MappingProxyType(
    {
        Phase.RESOLVE: _ANY_PHASE
        | {
            Reason.NAME_NOT_FOUND,
            Reason.NO_RECORDS,
            Reason.SERVER_FAILURE,
            Reason.QUERY_REFUSED,
            Reason.UNREACHABLE,
        },
        Phase.CONNECT: _ANY_PHASE | _UNREACHED,
        Phase.PROXY: _ANY_PHASE | _UNREACHED | {Reason.AUTH_REQUIRED},
        Phase.TLS: _ANY_PHASE
        | {
            Reason.CERTIFICATE_EXPIRED,
            Reason.CERTIFICATE_NOT_YET_VALID,
            Reason.CERTIFICATE_NAME_MISMATCH,
            Reason.CERTIFICATE_UNTRUSTED,
            Reason.CLIENT_CERTIFICATE_REQUIRED,
            Reason.NOT_TLS,
        },
        Phase.LOGIN: _ANY_PHASE
        | {
            Reason.CREDENTIALS_REJECTED,
            Reason.ACCESS_DENIED,
            Reason.DATABASE_NOT_FOUND,
            Reason.TOO_MANY_CONNECTIONS,
            Reason.SERVER_STARTING,
            Reason.TLS_REQUIRED,
            Reason.TLS_UNSUPPORTED,
        },
        Phase.REQUEST: _ANY_PHASE,
        Phase.TRANSFER: _ANY_PHASE | {Reason.TOO_LARGE},
        Phase.VERIFY: _ANY_PHASE
        | {
            Reason.UNEXPECTED_STATUS,
            Reason.UNEXPECTED_HEADER,
            Reason.UNEXPECTED_BODY,
            Reason.UNEXPECTED_ANSWER,
            Reason.UNEXPECTED_REPLY,
            Reason.TOO_MANY_REDIRECTS,
            Reason.QUERY_FAILED,
            Reason.UNEXPECTED_SUCCESS,
        },
    }
)
"""Every (phase, reason) pair a failure may carry.

Those of `_ANY_PHASE` stay in every phase although some cannot occur (a connection is closed or reset only once it
stands, and verify waits for nobody): the list is a contract, and a pair that never comes costs its readers nothing.
"""


class Scope(StrEnum):
    """Where a target lives, seen from the pod."""

    CLUSTER = "cluster"
    PRIVATE = "private"
    PUBLIC = "public"


class Role(StrEnum):
    """What a target is to the pod."""

    NAMESERVER = "nameserver"
    KUBERNETES_API = "kubernetes_api"
    EXECUTION_API = "execution_api"
    METADATA_DB = "metadata_db"
    BROKER = "broker"
    REMOTE_LOG_STORE = "remote_log_store"
    CONNECTION = "connection"
    CUSTOM = "custom"


class Family(StrEnum):
    """Which IP versions a name may resolve to."""

    ANY = "any"
    V4 = "4"
    V6 = "6"


class Addresses(StrEnum):
    """How many of a name's addresses one run tries."""

    FIRST = "first"
    ALL = "all"


class Fact(StrEnum):
    """What a run can learn. Facts are never labels; the type of each value stands behind its name."""

    ADDRESS = "address"
    """str: the IP address and port that were tried, `192.0.2.1:443` or `[2001:db8::1]:443`."""
    NO_LOCAL_PORT = "no_local_port"
    """bool: this pod had no address or no port left to connect from (EADDRNOTAVAIL)."""
    ADDRESSES = "addresses"
    """list[str]: the addresses the name resolved to, best first: 32 of them at most."""
    ATTEMPTS = "attempts"
    """list[dict]: with `addresses: all`, one entry an address: address, success, phase, reason, detail, phases."""
    PROXY = "proxy"
    """str: the proxy used, without credentials."""
    BLOCKED_BY = "blocked_by"
    """str: for a negative target, the `phase/reason` that shows it cannot be reached."""
    STARVED = "starved"
    """bool: this process was short of CPU during the run; its times say little about the network."""
    EVENT_LOOP_LAG_SECONDS = "event_loop_lag_seconds"
    """float: the longest the event loop was late during the run."""

    RETRANSMITTED_SEGMENTS = "retransmitted_segments"
    """int: TCP segments of the run's last connection that had to be sent again; absent where none had."""

    TLS_VERSION = "tls_version"
    TLS_CIPHER = "tls_cipher"
    CERTIFICATE_SUBJECT = "certificate_subject"
    """str: RFC 4514-like, `CN=db.example.com,O=Example`."""
    CERTIFICATE_ISSUER = "certificate_issuer"
    CERTIFICATE_NAMES = "certificate_names"
    """list[str]: subject alternative names."""
    CERTIFICATE_NOT_BEFORE = "certificate_not_before"
    """float: Unix time in seconds."""
    CERTIFICATE_EXPIRES_AT = "certificate_expires_at"
    """float: Unix time in seconds: the earliest expiry in the chain the server sent."""
    CERTIFICATE_CHAIN = "certificate_chain"
    """list[dict]: leaf first: subject, issuer, expires_at."""
    CERTIFICATE_VERIFIED = "certificate_verified"
    """bool: absent where verification was switched off."""
    CERTIFICATE_ERROR = "certificate_error"
    """str: why verification failed."""
    CLIENT_CERTIFICATE_EXPIRES_AT = "client_certificate_expires_at"
    """float: Unix time in seconds: the expiry of the certificate we present."""
    CLIENT_CERTIFICATE_REQUESTED = "client_certificate_requested"
    """bool: the server asked for a client certificate, whether or not it insists on one; absent where it did not."""

    HTTP_STATUS_CODE = "http_status_code"
    HTTP_VERSION = "http_version"
    HTTP_REDIRECTS = "http_redirects"
    """list[dict]: one entry a hop that redirected: url, status."""
    HTTP_LOCATION = "http_location"
    """str: where the last redirect of the run led, followed or not: a URL without its query."""
    HTTP_BODY_BYTES = "http_body_bytes"
    """int: after decompression."""
    HTTP_SERVER = "http_server"
    """str: the Server header."""
    HTTP_CONTENT_TYPE = "http_content_type"
    """str: the media type alone, in lower case."""
    HTTP_TITLE = "http_title"
    """str: the title of a page in HTML, its beginning."""
    CLOCK_AHEAD_SECONDS = "clock_ahead_seconds"
    """int: how far this node's clock is ahead of the server's, by the Date of its answer."""
    PROXY_ERROR = "proxy_error"
    """str: what a proxy answered by itself, in squid's words: `ERR_CONNECT_FAIL 111`."""
    MESH_PROXY = "mesh_proxy"
    """str: whose signature the headers bear: envoy, istio-envoy or linkerd. It may stand in this pod or far away."""
    MESH_ERROR = "mesh_error"
    """str: what a proxy of a mesh answered by itself, where the target never said a word: `no healthy upstream`."""
    TLS_WANTED = "tls_wanted"
    """bool: what was answered to plain text says that TLS was wanted; absent where it does not."""

    DNS_SERVER = "dns_server"
    """str: the server whose answer counts."""
    DNS_RCODE = "dns_rcode"
    DNS_NAME = "dns_name"
    """str: the name that was answered, after search and ndots."""
    HOSTS_FILE = "hosts_file"
    """bool: /etc/hosts, or the name being localhost, gave the addresses: no nameserver was asked; absent otherwise."""
    DNS_TRUNCATED = "dns_truncated"
    """bool: the UDP answer had TC set, so that TCP was asked as well."""
    DNS_ANSWERS = "dns_answers"
    """list[str]: record data in presentation form."""
    DNS_TTL_SECONDS = "dns_ttl_seconds"
    """int: the smallest TTL in the answer."""
    DNS_AUTHENTICATED = "dns_authenticated"
    """bool: the AD bit."""
    DNS_QUERIES = "dns_queries"
    """int: messages sent for this lookup."""
    DNS_ATTEMPTS = "dns_attempts"
    """list[dict]: one entry a message: server, name, record, transport, edns, rcode or error, duration_seconds,
    truncated, ignored (messages received meanwhile that answer another question; left out where there were none).

    Where c-ares asks, for targets of other types than dns, an entry is one question: c-ares tells neither edns nor
    ignored, and may have sent more than one message. There a lookup that found addresses leaves them out, unless a
    question went unanswered or many took long."""
    DNS_NAMESERVERS = "dns_nameservers"
    """list[dict]: one entry a nameserver of resolv.conf, about the name that was answered: server, and error, or rcode,
    answers and same_answer (the rcode and the records are those of the answer that counts)."""

    SERVER_VERSION = "server_version"
    IN_RECOVERY = "in_recovery"
    SQLSTATE = "sqlstate"
    AUTHENTICATION = "authentication"
    """str: what a database asks for: none, password, md5, gss, sspi, or the SASL mechanisms it offers."""
    TLS_DECLINED = "tls_declined"
    """bool: whether the database offers no TLS; absent where it was not asked."""
    UNENCRYPTED_REFUSAL = "unencrypted_refusal"
    """str: with `sslmode: allow`, what the database said to the connection without TLS, before it was asked for TLS."""
    SERVER_SIGNATURE = "server_signature"
    """str: the first bytes a TCP dialogue received, printable."""


class Secret:
    """A value that shows itself to nobody by accident: not in repr, str, format, pickle or asdict.

    It holds the value, or the file to read it from at each use, so that a rotated secret needs no reload.
    """

    __slots__ = ("_path", "_value")

    def __init__(self, value: str | None = None, *, path: Path | None = None) -> None:
        """Hold a value, or the path of a file whose content (less trailing line ends) is the value."""
        if (value is None) == (path is None):
            raise ValueError("a secret is a value or a path")
        self._value = value
        self._path = path

    def reveal(self) -> str:
        """Return the value. OSError or UnicodeDecodeError where its file cannot be read."""
        if self._path is not None:
            return self._path.read_text(encoding="utf-8").rstrip("\r\n")
        return self._value or ""

    @property
    def path(self) -> Path | None:
        return self._path

    def __repr__(self) -> str:
        return f"Secret(path={str(self._path)!r})" if self._path is not None else "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._value, self._path) == (other._value, other._path)

    def __hash__(self) -> int:
        return hash((self._value, self._path))

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not serialised")


class Options(Protocol):
    """What one type of target is configured with: a frozen dataclass beside its prober."""

    @property
    def printable_address(self) -> str:
        """What is probed, for people and for `netprobe_target_info`: no credentials, no query string."""

    @property
    def host(self) -> str | None:
        """The host the address names, for deriving the scope; None where there is none."""

    @property
    def port(self) -> int | None:
        """The port the address names; None where there is none."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Every secret a failure's sentence must not contain."""


OptionsT_co = TypeVar("OptionsT_co", bound=Options, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(Generic[OptionsT_co]):
    """What is probed. Fully resolved: nothing downstream applies a default."""

    name: str
    type: str
    interval_seconds: float
    timeout_seconds: float
    confirm_interval_seconds: float
    """Time between runs after a failure, while it is being confirmed."""
    confirm_runs: int
    """How many runs at the confirmation interval before the target returns to its own."""
    negative: bool
    """The target must not be reachable."""
    gate: bool
    """The pod's other containers start once it has answered."""
    role: Role
    scope: Scope
    options: OptionsT_co

    @property
    def address(self) -> str:
        return self.options.printable_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    phase: Phase
    reason: Reason
    detail: str
    """One sentence, redacted, at most DETAIL_LIMIT characters, with what was expected and what was seen."""

    def __post_init__(self) -> None:
        if self.reason not in REASONS[self.phase]:
            raise ValueError(f"{self.phase} cannot fail with {self.reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run found. The only thing that crosses to sinks."""

    target: Target[Options]
    started_at: float
    """Unix time in seconds."""
    duration_seconds: float
    phases: Mapping[Phase, float]
    """Seconds spent in each phase that was reached; a phase that was not reached is absent."""
    facts: Mapping[Fact, Any]
    failure: Failure | None = None

    @property
    def success(self) -> bool:
        return self.failure is None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, version 1: the keys are a contract."""
        failure = self.failure
        return {
            "target": self.target.name,
            "type": self.target.type,
            "success": self.success,
            "phase": failure.phase.value if failure else None,
            "reason": failure.reason.value if failure else None,
            "detail": failure.detail if failure else None,
            "started_at": rfc3339(self.started_at),
            "duration_seconds": round(self.duration_seconds, 6),
            "phases": {phase.value: round(seconds, 6) for phase, seconds in self.phases.items()},
            "facts": {fact.value: value for fact, value in self.facts.items()},
        }


def rfc3339(unix_seconds: float) -> str:
    """Format a Unix time as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def secrets_of(value: object) -> tuple[Secret, ...]:
    """Every Secret inside a frozen dataclass, its nested dataclasses, tuples and mappings."""
    if isinstance(value, Secret):
        return (value,)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(s for f in dataclasses.fields(value) for s in secrets_of(getattr(value, f.name)))
    if isinstance(value, tuple):
        return tuple(s for item in value for s in secrets_of(item))
    if isinstance(value, Mapping):
        return tuple(s for item in value.values() for s in secrets_of(item))
    return ()
