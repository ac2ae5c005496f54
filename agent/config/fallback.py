"""A configuration whatever happens: what is there, or what needs none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.config.load import SUFFIXES, load
from agent.config.problem import ConfigError, Mark, Problem
from agent.config.sections import Config, DiscoverOptions


def without_configuration() -> Config:
    """What is used where nobody configured anything: every default, and the targets that the environment names."""
    return Config(targets=(), discover=DiscoverOptions())


def load_or_default(path: Path | None, environ: Mapping[str, str]) -> tuple[Config, Sequence[Problem]]:
    """The configuration of a path, or the one that needs none, and what is wrong with the one that is there.

    Nothing is used of a configuration that has a problem. That there is none is no problem: a volume without files is
    what an optional ConfigMap leaves (Kubernetes 1.29, `configMap.optional`).
    """
    try:
        if path is None or absent(path):
            return without_configuration(), ()
        return load(path, environ), ()
    except ConfigError as error:
        return without_configuration(), error.problems
    except OSError as error:
        message = f"expected a readable file or directory, got an error: {error.strerror}"
        return without_configuration(), (Problem(mark=Mark(str(path), line=0), path="", message=message),)
    except Exception as error:  # noqa: BLE001 - a defect of ours must not cost the pod its task
        message = f"internal error: {type(error).__name__}"
        return without_configuration(), (Problem(mark=Mark(str(path), line=0), path="", message=message),)


def absent(path: Path) -> bool:
    """Whether there is no file, or a directory without a configuration in it. Raises OSError."""
    if path.is_dir():
        return not any(file.suffix in SUFFIXES for file in path.iterdir() if not file.name.startswith("."))
    return not path.exists()
