"""The sections of a configuration file that are not targets, and the configuration as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.keys import BOOLEAN, HostPort, Kind, choice, host_port, integer, key
from agent.model import Target

DEFAULT_PORT = 9733
LISTEN: Kind[HostPort] = host_port(DEFAULT_PORT, lowest=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where the agent's own HTTP server listens."""

    listen: HostPort = key(
        LISTEN,
        default=HostPort("0.0.0.0", DEFAULT_PORT),  # noqa: S104 - Prometheus and the kubelet come from outside the pod
        doc="Address and port to listen on; `[::]` takes IPv6 and, as Linux comes, IPv4 too. Port 0 takes a free one.",
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
    """How much is asked to explain a failure."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A configuration, checked and complete: nothing downstream applies a default."""

    targets: tuple[Target[Any], ...]
    server: ServerOptions = field(default_factory=ServerOptions)
    log: LogOptions = field(default_factory=LogOptions)
    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)
    diagnosis: DiagnosisOptions = field(default_factory=DiagnosisOptions)
