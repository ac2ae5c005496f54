"""Text, times and commands as HTML. Whatever a peer, a server or a configuration said is text and stays text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from datetime import datetime

from agent.model import rfc3339
from agent.wording import Wording, period

_wording = Wording(ascii_only=False)
_CODE = re.compile(r"`([^`]*)`")


def text(value: str, limit: int | None = None) -> str:
    """Foreign text: controls and marks that turn the direction of writing are spelled out, all else is escaped."""
    shown = _wording(value)
    if limit is not None and len(shown) > limit:
        shown = f"{shown[: limit - 1]}…"
    return html.escape(shown)


def prose(value: str) -> str:
    """A paragraph in which commands stand between backticks."""
    pieces = _CODE.split(value)
    return "".join(f"<code>{text(piece)}</code>" if n % 2 else text(piece) for n, piece in enumerate(pieces))


def moment(unix_seconds: float, shown: str) -> str:
    """Words for a point in time, which programs can read."""
    return f'<time datetime="{rfc3339(unix_seconds)}">{shown}</time>'


def clock(unix_seconds: float) -> str:
    """A time of the day, in UTC as all that netprobe prints."""
    return moment(unix_seconds, f"{rfc3339(unix_seconds)[11:19]} UTC")


def unix_seconds(stamp: str) -> float:
    """The Unix time of a JSON form's RFC 3339."""
    return datetime.fromisoformat(stamp).timestamp()


def lasting(since: float, now: float) -> str:
    """For how long something has been as it is."""
    return moment(since, period(max(0.0, now - since)))


def listed(names: Iterable[str], limit: int) -> str:
    """Names, so many at most; the others are counted."""
    everybody = list(names)
    shown = ", ".join(f"<bdi>{text(name)}</bdi>" for name in everybody[:limit])
    rest = len(everybody) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown


def size(markup: str) -> int:
    """Bytes on the wire."""
    return len(markup) if markup.isascii() else len(markup.encode())


def fitting(room: int, variants: Iterable[str]) -> str | None:
    """The first of the variants, the most detailed one first, for which there is room. None where there is for none."""
    return next((made for made in variants if size(made) <= room), None)
