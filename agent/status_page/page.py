"""The whole page, within its bytes: whose pod, the verdict, the targets, the experiments, where else to look."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import __version__
from agent.status_page.experiments import experiments_section
from agent.status_page.markup import clock, size, text
from agent.status_page.targets import Known, collected, fails, targets_section
from agent.status_page.verdicts import State, past_section, state_of, verdict_section
from agent.wording import count

PAGE_BYTES = 49_500
"""The whole page at most: it travels through a port-forward every few seconds."""
WHOSE_LIMIT = 80
"""Characters of each name of a pod's or a task's."""
TASKS = 3
"""Tasks named, where several run in one pod."""

Links = Sequence[tuple[str, str, str]]
"""Method, path, and what is there."""


def _source(name: str) -> str:
    """A file beside this one as it is sent: without its indentation, and without lines that are comments alone."""
    lines = Path(__file__).with_name(name).read_text("utf-8").splitlines()
    return "\n".join(bare for line in lines if (bare := line.strip()) and not bare.startswith(("//", "/*")))


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


_STYLE, _SCRIPT = _source("style.css"), _source("script.js")
_VERSION = hashlib.sha256((_STYLE + _SCRIPT).encode()).hexdigest()[:12]
"""A page that is open when another version answers is loaded anew."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(_SCRIPT)}",
            f"style-src {_hash(_STYLE)}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""What goes with the page: nothing is loaded, sent or framed, and nothing runs but the script that is part of it."""


@dataclass(frozen=True, slots=True)
class StatusPage:
    """The page, complete."""

    chunks: tuple[bytes, ...]
    content_type: str = "text/html; charset=utf-8"
    encoding: None = None


async def render(document: Mapping[str, Any], targets: Iterable[Known], links: Links) -> StatusPage:
    """Make the page of a diagnosis in its JSON form and of every target, in small steps."""
    now = time.time()
    everybody = await collected(targets)
    failing = frozenset(known.target.name for _, known in everybody if fails(known))
    state = state_of(document, failing)
    above = f"{_head(document, state)}{_header(document, now)}<main>{verdict_section(document, failing, now)}"
    below = f"{experiments_section(document, now)}{past_section(document)}</main>{_footer(links)}"
    room = PAGE_BYTES - size(above) - size(below)
    return StatusPage((above.encode(), (await targets_section(everybody, now, room)).encode(), below.encode()))


_COLOURS = {"good": "%231a7f4b", "warn": "%23b26a00", "bad": "%23c62828", "calm": "%23667085"}


def _head(document: Mapping[str, Any], state: State) -> str:
    verdicts = document["verdicts"]
    what = f"{count(len(verdicts), 'verdict')}: {state.word}" if len(verdicts) > 1 else state.word
    task = document.get("task") or {}
    whose = task.get("task_id") or document.get("place", {}).get("pod") or ""
    title = " · ".join(filter(None, (f"{state.mark} {what}", whose, "netprobe")))
    icon = f"<rect width='16' height='16' rx='{8 if state.tone == 'good' else 3}' fill='{_COLOURS[state.tone]}'/>"
    return (
        f"<!doctype html><html lang=en data-version={_VERSION}><head><meta charset=utf-8><title>{text(title)}</title>"
        '<meta name=viewport content="width=device-width,initial-scale=1"><meta name=color-scheme content="light dark">'
        f"<link rel=icon id=icon href=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>"
        f'{icon}</svg>"><style>{_STYLE}</style></head><body><a class=skip href="#targets">Skip to the targets</a>'
    )


def _header(document: Mapping[str, Any], now: float) -> str:
    whose = "".join(
        f"<li><span>{name}</span> <bdi>{text(value, WHOSE_LIMIT)}</bdi>" for name, value in _whose(document)
    )
    return (
        f"<header><p class=brand>netprobe</p><ul class=whose>{whose}</ul>"
        f"<p class=live><span>as of <span id=asof>{clock(now)}</span></span> "
        "<button type=button id=pause data-keep hidden>Pause</button> "
        '<a href="">Reload</a></p></header>'
    )


def _whose(document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    task = document.get("task") or {}
    for key, name in (("dag_id", "dag"), ("task_id", "task"), ("map_index", "map index"), ("try_number", "try")):
        if key in task:
            yield name, task[key]
    running: Sequence[Mapping[str, str]] = () if task else document.get("tasks", ())
    for told in running[:TASKS]:
        yield "task", f"{told['dag_id']} / {told['task_id']}"
    if len(running) > TASKS:
        yield "and", f"{count(len(running) - TASKS, 'more task')}"
    place = document.get("place") or {}
    if "pod" in place:
        yield "pod", "/".join(filter(None, (place.get("namespace"), place["pod"])))
    if "node" in place:
        yield "node", place["node"]


def _footer(links: Links) -> str:
    items = "".join(
        f'<li><a href="{path.lstrip("/")}">{path}</a> <span>{text(what)}</span>'
        if method == "GET"
        else f"<li><code>{method} {path}</code> <span>{text(what)}</span>"
        for method, path, what in links
    )
    return (
        "<footer><nav aria-labelledby=endpoints><h2 id=endpoints>Endpoints</h2>"
        f"<ul>{items}</ul></nav><p class=quiet>netprobe {text(__version__)}</p></footer>"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )
