"""Configuration: files, the environment and URLs become frozen values, or every problem at once."""

from agent.config.fallback import load_or_default, without_configuration
from agent.config.load import load, targets_from_urls
from agent.config.problem import ConfigError, Mark, Problem
from agent.config.remarks import hardcoded_addresses
from agent.config.schema import json_schema
from agent.config.sections import (
    Config,
    Detail,
    DiagnosisOptions,
    DiscoverOptions,
    GateMode,
    GateOptions,
    LogFormat,
    LogLevel,
    LogOptions,
    MetricsOptions,
    SchedulerOptions,
    ServerOptions,
)
from agent.config.show import show

__all__ = [
    "Config",
    "ConfigError",
    "Detail",
    "DiagnosisOptions",
    "DiscoverOptions",
    "GateMode",
    "GateOptions",
    "LogFormat",
    "LogLevel",
    "LogOptions",
    "Mark",
    "MetricsOptions",
    "Problem",
    "SchedulerOptions",
    "ServerOptions",
    "hardcoded_addresses",
    "json_schema",
    "load",
    "load_or_default",
    "show",
    "targets_from_urls",
    "without_configuration",
]
