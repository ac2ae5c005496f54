"""The sections of a configuration file that are not targets, and the configuration as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from yarl import URL

from agent.config.push import PushgatewayOptions, RemoteWriteOptions
from agent.diagnosis.verdict import RUNBOOK
from agent.keys import BOOLEAN, NON_EMPTY, HostPort, Kind, choice, duration, host_port, integer, key, list_of
from agent.listening import DEFAULT_PORT, EVERYWHERE
from agent.model import Role, Target
from agent.probers.http_options import URL_KIND

LISTEN: Kind[HostPort] = host_port(DEFAULT_PORT, lowest=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where the agent's own HTTP server listens."""

    listen: HostPort = key(
        LISTEN,
        default=HostPort(EVERYWHERE, DEFAULT_PORT),  # Prometheus and the kubelet come from outside the pod
        doc="Address and port to listen on; `[::]` is every address, IPv6 and IPv4. Port 0 takes a free one.",
    )


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    AUTO = "auto"
    JSON = "json"
    PRETTY = "pretty"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is logged, and how."""

    level: LogLevel = key(
        choice(LogLevel),
        default=LogLevel.INFO,
        doc="Least severe events to log: info has one event per state change of a target, debug one per outcome.",
    )
    format: LogFormat = key(
        choice(LogFormat),
        default=LogFormat.AUTO,
        doc="json is one object a line, pretty is for people; auto is pretty on a terminal and json elsewhere.",
    )


class Detail(StrEnum):
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsOptions:
    """What `/metrics` carries."""

    detail: Detail = key(
        choice(Detail),
        default=Detail.NORMAL,
        doc="normal is at most 32 series a target, low at most 12.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    """How much happens at once."""

    concurrency: int = key(integer(1, 1000), default=50, doc="Most probes that run at the same time.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosisOptions:
    """How much is asked to explain a failure, and where the explanation leads."""

    experiments: bool = key(
        BOOLEAN,
        default=True,
        doc="Ask a few more questions when targets fail, which tell causes apart: of their hosts, of the nameservers, "
        "of the Kubernetes API and of this pod, and of nobody else. They are no outcomes: no metric of a target "
        "counts them.",
    )
    experiments_per_minute: int = key(
        integer(1, 600), default=30, doc="Most experiments within a minute. One failing target is worth up to ten."
    )
    experiments_per_pod: int = key(
        integer(1, 100_000), default=1000, doc="Most experiments of one agent, from its start to its end."
    )
    runbook_url: URL | None = key(
        URL_KIND,
        default=None,
        doc="Where the runbook is to be read, such as https://runbooks.example.com/netprobe/runbook.md: each verdict "
        "links to it, with its cause for an anchor. The path in the repository, docs/runbook.md, where left out.",
    )

    @property
    def runbook(self) -> str:
        """What the anchor of a cause is appended to."""
        return str(self.runbook_url) if self.runbook_url is not None else RUNBOOK


class Source(StrEnum):
    AIRFLOW = "airflow"
    KUBERNETES = "kubernetes"


_SOURCE_LIST = list_of(choice(Source), minimum=1)


def _sources(raw: Any) -> tuple[Source, ...]:
    return tuple(dict.fromkeys(_SOURCE_LIST.read([raw] if isinstance(raw, str) else raw)))


SOURCES: Kind[tuple[Source, ...]] = Kind(
    expected=f"{' or '.join(Source)}, or a non-empty list of them",
    read=_sources,
    show=_SOURCE_LIST.show,
    schema={"anyOf": [{"enum": list(Source)}, _SOURCE_LIST.schema]},
)


class MetadataDb(StrEnum):
    AUTO = "auto"
    PROBE = "probe"
    NEGATIVE = "negative"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoverOptions:
    """Targets that the environment names, beside those of `targets`. `discover: [airflow]` stands for its `sources`."""

    SHORT_FOR = "sources"

    sources: tuple[Source, ...] = key(
        SOURCES,
        default=tuple(Source),
        doc="Where to look. airflow: the variables AIRFLOW__* and AIRFLOW_CONN_*, and airflow.cfg where AIRFLOW_CONFIG "
        "or AIRFLOW_HOME leads to one; kubernetes: the nameservers of the pod and the Kubernetes API.",
    )
    allow: tuple[str, ...] = key(
        list_of(NON_EMPTY),
        default=(),
        doc="Patterns such as conn-* or *.example.com: only targets whose name or host one of them matches as a whole, "
        "letter case aside. Every target where left out.",
    )
    deny: tuple[str, ...] = key(
        list_of(NON_EMPTY), default=(), doc="Patterns of names and hosts that are left out, whatever allow says."
    )
    limit: int = key(
        integer(1, 1000),
        default=32,
        doc="Most targets that are added. Connections come last, in the order of their names.",
    )
    credentials: bool = key(
        BOOLEAN,
        default=False,
        doc="Log in to Postgres databases with the user and password of their connection. Otherwise no password is "
        "kept, and nothing but reachability is asked.",
    )
    metadata_db: MetadataDb = key(
        choice(MetadataDb),
        default=MetadataDb.AUTO,
        doc="auto: the metadata database is a target, unless this is Airflow 3, whose tasks do not need it. probe: it "
        "is one. negative: it is one that must not be reachable.",
    )


class GateMode(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """What the start of the other containers waits for: `/startupz` says so to the kubelet."""

    mode: GateMode = key(
        choice(GateMode),
        default=GateMode.OPEN,
        doc="open: they start once every gate has answered, and after `timeout` whatever happens. closed: only once "
        "every gate has answered, so that one that never does keeps the task from starting. off: at once.",
    )
    timeout: float = key(
        duration("100ms", "10m"),
        default=10.0,
        doc="How long they wait at most with mode open. Airflow gives a pod 10m to start (task_queued_timeout).",
    )
    roles: tuple[Role, ...] = key(
        list_of(choice(Role)),
        default=(),
        doc="Targets with one of these roles are gates too, without `gate: true`.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A configuration, checked and complete: nothing downstream applies a default."""

    targets: tuple[Target[Any], ...]
    server: ServerOptions = field(default_factory=ServerOptions)
    log: LogOptions = field(default_factory=LogOptions)
    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)
    diagnosis: DiagnosisOptions = field(default_factory=DiagnosisOptions)
    gate: GateOptions = field(default_factory=GateOptions)
    remote_write: RemoteWriteOptions = field(default_factory=RemoteWriteOptions)
    pushgateway: PushgatewayOptions = field(default_factory=PushgatewayOptions)
    discover: DiscoverOptions | None = None
    """None where nothing but `targets` is probed."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What `defaults` gives, by key: for targets that are found later."""
