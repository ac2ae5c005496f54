"""What Prometheus would know of the days before a fleet was started: that all its targets were well.

Error budgets are reckoned over days. Without a past, the first failing minute would be most of what there is.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.lab.fleet.dags import DAGS, NAMESPACE, TASKS
from tests.lab.pace import Pace

DAYS: Final = 3
"""The longest window of the rules."""
_STEP_MINUTES: Final = 5
_LOOKS_PER_MINUTE: Final = 4 * len(TASKS)
"""Scrapes of the pods that probe a target."""


def write(storage: Path, pace: Pace) -> None:
    """Put it into the storage of a Prometheus that is not running yet."""
    file = storage.with_suffix(".openmetrics")
    file.write_text("".join(f"{line}\n" for line in _lines(pace)), "utf-8")
    command = ("promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", file, storage)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _lines(pace: Pace) -> Iterator[str]:
    """A sample has what was seen in the minutes since the one before."""
    until, step = time.time(), pace.seconds(_STEP_MINUTES * 60)
    looks = _STEP_MINUTES * _LOOKS_PER_MINUTE
    for name in ("netprobe:target_success:sum1m", "netprobe:target_success:count1m"):
        yield f"# TYPE {name} gauge"
        for target in (target["name"] for dag in DAGS for target in dag.targets):
            labels = f'{{namespace="{NAMESPACE}",target="{target}"}}'
            for number in range(DAYS * 24 * 60 // _STEP_MINUTES, 0, -1):
                yield f"{name}{labels} {looks} {until - number * step:.3f}"
    yield "# EOF"
