"""`netprobe run` in the pod of a world."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.lab import postgres
from tests.lab.agents import events_of
from tests.lab.command import environment
from tests.lab.http_client import request
from tests.lab.world.hosts import Host, Process

URL = "http://127.0.0.1:9733"
INTERVAL_SECONDS, TIMEOUT_SECONDS, CONFIRM_INTERVAL_SECONDS = 2.0, 1.5, 2.0

_SECTIONS: Mapping[str, Mapping[str, Any]] = {
    "defaults": {
        "interval": f"{INTERVAL_SECONDS:g}s",
        "timeout": f"{TIMEOUT_SECONDS * 1000:g}ms",
        "confirm_interval": f"{CONFIRM_INTERVAL_SECONDS:g}s",
    },
    "server": {"listen": "127.0.0.1:9733"},
    "log": {"format": "json"},
}


class Agent:
    """A running agent."""

    def __init__(
        self,
        pod: Host,
        directory: Path,
        *,
        targets: Sequence[Mapping[str, Any]],
        ca_file: Path,
        variables: Mapping[str, str],
        settings: Mapping[str, Any],
    ) -> None:
        self._pod = pod
        sections = {name: {**section, **settings.get(name, {})} for name, section in _SECTIONS.items()}
        file = directory / "netprobe.yaml"
        file.write_text(
            yaml.safe_dump({**settings, **sections, "targets": [dict(target) for target in targets]}, sort_keys=False)
        )
        env = environment(
            KUBERNETES_SERVICE_HOST="10.96.0.1",
            KUBERNETES_SERVICE_PORT="443",
            CA_FILE=str(ca_file),
            DATABASE_PASSWORD=postgres.PASSWORD,
            **variables,
        )
        log = directory / "agent.log"
        log.unlink(missing_ok=True)
        command = (sys.executable, "-m", "agent", "run", "--config", file)
        self._process: Process = pod.start(*command, log=log, cwd=directory, env=env, etc=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._process.log

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return events_of(self.log)

    def wait_until_started(self) -> None:
        """Wait until it serves."""
        self._process.until(lambda: '"agent_started"' in self.log)

    def stop(self) -> None:
        self._process.kill()

    def get(self, path: str) -> Any:
        """What a page of its server says, from JSON."""
        answer = self._pod.call(request(f"{URL}{path}"))
        assert answer.status == 200, answer
        return json.loads(answer.body)
