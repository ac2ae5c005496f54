"""The last words of the pod: what Kubernetes keeps of a container that has ended, and Airflow shows of a failed pod."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.explanation import title, verdict_lines
from agent.wording import Wording, count

TERMINATION_LOG = Path("/dev/termination-log")
"""Where Kubernetes looks (`terminationMessagePath`). The kubelet makes the file; where it is missing, nobody looks."""
MESSAGE_LIMIT_BYTES = 4096
"""What the kubelet reads of it (Kubernetes 1.29, `MaxContainerTerminationMessageLength`)."""
WIDTH = 100


def message(document: Mapping[str, Any]) -> str:
    """What `/diagnosis` says, as much of it as there is room for: every verdict in one sentence, then what backs it."""
    return _cut("".join(f"{line}\n" for line in _lines(document)), MESSAGE_LIMIT_BYTES)


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    wording = Wording(ascii_only=False)
    verdicts = document["verdicts"]
    for verdict in verdicts:
        yield wording(f"netprobe: {title(verdict)}")
    ended = document.get("recent", ())
    for verdict in ended:
        yield wording(f"netprobe: until {verdict['ended_at']}: {title(verdict)}")
    waiting = document["waiting"]
    if not verdicts and document["since"] is None:
        yield "netprobe: nothing is known, as no target has a result."
    elif not verdicts:
        now = " now" if ended else ""
        yield f"netprobe: no target fails{now}, and nothing stands out."
    if waiting:
        yield wording(f"netprobe: {count(len(waiting), 'target')} without a result: {', '.join(waiting)}")
    # Their sentences have been said.
    for line in verdict_lines(({**verdict, "summary": ""} for verdict in verdicts), width=WIDTH, wording=wording):
        yield line.text


def _cut(text: str, limit: int) -> str:
    """As many whole characters as the limit has bytes for."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def leave(text: str, path: Path = TERMINATION_LOG) -> bool:
    """Write the message where it is looked for, and say whether that could be done.

    Nothing is made that is not there, and nothing is waited for: a file system that is full, or a path that leads
    elsewhere, is none of the task's business.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        os.ftruncate(descriptor, 0)
        data = text.encode("utf-8", "replace")
        return os.write(descriptor, data) == len(data)
    except OSError:
        return False
    finally:
        os.close(descriptor)
