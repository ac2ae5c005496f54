"""Airflow's settings as its own parser finds them: the environment first, then airflow.cfg."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.airflow.discovery.parts import VALUE_LIMIT
from agent.airflow.identity import AIRFLOW_VERSION_VARIABLE

FILE_LIMIT_BYTES = 1024 * 1024
"""Of airflow.cfg. The one that Airflow 3.3 writes with all its comments has 120 KiB."""
_INDIRECT = {
    "_CMD": "its value is the output of a command, which is never run",
    "_SECRET": "its value is in a secrets backend, which is not asked",
}
VERSION_VARIABLES = (AIRFLOW_VERSION_VARIABLE, "AIRFLOW_VERSION")
"""What the downward API hands on, and what Airflow's images set."""
_OF_AIRFLOW_3 = ("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "AIRFLOW__API__BASE_URL", "AIRFLOW__API_AUTH__JWT_SECRET")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and where it stands: the variable, or the section and key of airflow.cfg."""

    source: str
    value: str


@dataclass(frozen=True, slots=True)
class Indirect:
    """A value that stands somewhere else, and why it is not fetched from there."""

    source: str
    why: str


class Settings:
    """What is set. `problem` says why airflow.cfg could not be read, where there is one that could not."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problem: Indirect | None = None
        self._file = self._read(_file_of(environ))

    def get(self, section: str, key: str) -> Setting | Indirect | None:
        """A setting, as it stands; None where it is not set, or empty."""
        variable = f"AIRFLOW__{section}__{key}".upper()
        for name, found in self._places(variable, section, key):
            for suffix in ("", *_INDIRECT):
                value = found.get(f"{name}{suffix}" if name == variable else f"{name}{suffix.lower()}")
                where = f"{name}{suffix}" if name == variable else f"airflow.cfg [{section}] {name}{suffix.lower()}"
                if value and value.strip():
                    return Setting(where, value.strip()) if not suffix else Indirect(where, _INDIRECT[suffix])
        return None

    def text(self, section: str, key: str) -> str:
        """The value of a setting; empty where there is none."""
        found = self.get(section, key)
        return found.value if isinstance(found, Setting) else ""

    def on(self, section: str, key: str) -> bool:
        """Whether a setting is switched on (`AirflowConfigParser.getboolean`)."""
        return self.text(section, key).lower() in {"t", "true", "1"}

    @property
    def airflow_3(self) -> bool:
        """Whether this is Airflow 3, by its version, or by settings that only it has."""
        for name in VERSION_VARIABLES:
            major = self._environ.get(name, "").partition(".")[0]
            if major.isascii() and major.isdigit():
                return int(major) >= 3  # noqa: PLR2004 - Airflow 3
        if any(self._environ.get(f"{name}{suffix}") for name in _OF_AIRFLOW_3 for suffix in ("", *_INDIRECT)):
            return True
        return bool(self.text("core", "execution_api_server_url") or self.text("api_auth", "jwt_secret"))

    def _places(self, variable: str, section: str, key: str) -> Iterator[tuple[str, Mapping[str, str]]]:
        yield variable, self._environ
        yield key, self._file.get(section, {})

    def _read(self, path: Path | None) -> Mapping[str, Mapping[str, str]]:
        if path is None:
            return {}
        try:
            if not path.is_file():  # to open a pipe might never end
                if path.exists():
                    self.problem = Indirect("airflow.cfg", "it is no file")
                return {}
            with path.open("rb") as stream:
                data = stream.read(FILE_LIMIT_BYTES + 1)
        except (OSError, ValueError) as error:
            self.problem = Indirect("airflow.cfg", f"it cannot be read: {getattr(error, 'strerror', 'bad path')}")
            return {}
        if len(data) > FILE_LIMIT_BYTES:
            self.problem = Indirect("airflow.cfg", f"it is larger than {FILE_LIMIT_BYTES >> 20} MiB")
            return {}
        import configparser  # noqa: PLC0415 - most pods have no such file

        parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
        try:
            parser.read_string(data.decode("utf-8", "replace"))
        except configparser.Error:  # its text quotes the line, which may hold a password
            self.problem = Indirect("airflow.cfg", "it is malformed")
            return {}
        return {
            name: {key: value.replace("%%", "%") for key, value in parser.items(name) if value}
            for name in parser.sections()
        }


def _file_of(environ: Mapping[str, str]) -> Path | None:
    """Where airflow.cfg is, if the environment says so."""
    if named := environ.get("AIRFLOW_CONFIG"):
        return Path(named)
    home = environ.get("AIRFLOW_HOME")
    return Path(home) / "airflow.cfg" if home else None


def at_hand(path: Path) -> bool:
    """Whether there is a file that this process may read."""
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except OSError:
        return False


def readable(value: str) -> bool:
    """Whether a value is text of a length that is looked at."""
    return len(value) <= VALUE_LIMIT and value.isprintable()
