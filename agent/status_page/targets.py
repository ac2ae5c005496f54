"""The table of targets: those that fail first, each with as much detail as there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Protocol

from agent.model import DETAIL_LIMIT, Outcome, Phase, Target
from agent.remarks import remarks, starved
from agent.status_page.markup import lasting, size, text
from agent.wording import count, seconds

STEP_TARGETS = 4
"""Targets whose rows are made without a pause."""
REST_BYTES = 250
"""For the sentence that counts what is left out."""
COMPACT_BYTES = 420
"""What a row with its last times may take above the least, where all rows are to have them."""
ADDRESS_LIMIT = 90
DETAIL_CUT = 100
_PITCH = 7
_HEIGHT = 18
_BAR = 100
_PHASES = {phase: number for number, phase in enumerate(Phase)}


class Known(Protocol):
    """What is known of a target."""

    @property
    def target(self) -> Target[Any]: ...

    @property
    def last(self) -> Outcome | None: ...

    @property
    def since(self) -> float | None: ...

    @property
    def recent(self) -> Sequence[Outcome]: ...


async def collected(targets: Iterable[Known]) -> list[tuple[int, Known]]:
    """All targets with their places in the configuration: those that fail first, then those without a result."""
    everybody = []
    for number, known in enumerate(targets):
        if number % STEP_TARGETS == 0:
            await asyncio.sleep(0)
        everybody.append((number, known))
    return sorted(everybody, key=lambda entry: _urgency(entry[1]))


def fails(known: Known) -> bool:
    return known.last is not None and not known.last.success


def _urgency(known: Known) -> int:
    return 0 if fails(known) else 1 if known.last is None else 2


async def targets_section(targets: Sequence[tuple[int, Known]], now: float, room: int) -> str:
    """The table, in at most so many bytes."""
    opening = f"<section aria-labelledby=targets id=all><h2 id=targets tabindex=-1>Targets</h2>{_summary(targets)}"
    if not targets:
        return f"{opening}</section>"
    opening += _HEAD
    room -= size(opening) + size(_TAIL) + REST_BYTES
    least = []
    for place, (number, known) in enumerate(targets):
        if place % STEP_TARGETS == 0:
            await asyncio.sleep(0)
        least.append(size(_least(number, known)))
    # What all the rows behind each one need at least. Where there is room, that is a row with its last times.
    extra = COMPACT_BYTES if sum(least) + COMPACT_BYTES * len(least) <= room else 0
    behind = list(accumulate((amount + extra for amount in reversed(least)), initial=0))[-2::-1]
    rows: list[str] = []
    level = 0
    for place, (number, known) in enumerate(targets):
        if place % STEP_TARGETS == 0:
            await asyncio.sleep(0)
        for level in range(level, len(_LEVELS)):  # noqa: B020 - details once left out stay out: rows look alike
            row = _LEVELS[level](number, known, now)
            if size(row) + behind[place] <= room:
                break
        else:
            if size(row) > room:
                break
        rows.append(row)
        room -= size(row)
    left = targets[len(rows) :]
    return f"{opening}{''.join(rows)}{_TAIL}{_left_out(left)}</section>"


_HEAD = (
    "<table><caption class=away>What is probed, those that fail first</caption><thead><tr><th scope=col>State"
    "<th scope=col>Target<th scope=col>For<th scope=col class=number>Last run<th scope=col>Recent"
    "<th scope=col>Phases of the last run</thead>"
)
_TAIL = "</table>"


def _summary(targets: Sequence[tuple[int, Known]]) -> str:
    failing = sum(fails(known) for _, known in targets)
    waiting = sum(known.last is None for _, known in targets)
    working = len(targets) - failing - waiting
    parts = [
        f"{failing} {'fails' if failing == 1 else 'fail'}" if failing else "",
        f"{waiting} without a result yet" if waiting else "",
        f"{working} {'works' if working == 1 else 'work'}" if working else "",
    ]
    return f"<p class=quiet>{', '.join(filter(None, parts)) or 'None.'}</p>"


def _left_out(left: Sequence[tuple[int, Known]]) -> str:
    if not left:
        return ""
    failing = sum(fails(known) for _, known in left)
    which = f" ({failing} of them {'fails' if failing == 1 else 'fail'})" if failing else ""
    return (
        f'<p class=more>And {count(len(left), "more target")}{which}: <a href="targets">targets</a> has them all.</p>'
    )


def _complete(number: int, known: Known, now: float) -> str:
    last = known.last
    if last is None:
        return _row(number, known, now, times=_times(known), phases="", below="")
    phases = _phases(last, legend=True) + _details(number, last)
    return _row(number, known, now, times=_times(known), phases=phases, below=_sentence(last))


def _without_details(number: int, known: Known, now: float) -> str:
    last = known.last
    if last is None:
        return _row(number, known, now, times=_times(known), phases="", below="")
    return _row(number, known, now, times=_times(known), phases=_phases(last, legend=False), below=_sentence(last))


def _compact(number: int, known: Known, now: float) -> str:
    last = known.last
    below = _sentence(last, DETAIL_CUT) if last is not None else ""
    return _row(number, known, now, times=_times(known), phases="", below=below, address=False)


def _minimal(number: int, known: Known, now: float) -> str:  # noqa: ARG001 - a level like the others
    return _least(number, known)


_LEVELS = (_complete, _without_details, _compact, _minimal)


def _least(number: int, known: Known) -> str:
    tone, state = _state(known)
    failure = known.last.failure if known.last is not None else None
    why = f"{failure.phase.value}/{failure.reason.value}" if failure else ""
    name = text(known.target.name)
    return f"<tbody id=t{number} class={tone}><tr>{state}<th scope=row>{name}<td colspan=4>{why}</tbody>"


def _state(known: Known) -> tuple[str, str]:
    if known.last is None:
        return "calm", "<td><i aria-hidden=true>…</i>no result"
    if known.last.success:
        return "good", "<td><i aria-hidden=true>✓</i>works"
    return "bad", "<td><i aria-hidden=true>✕</i>fails"


def _row(number: int, known: Known, now: float, *, times: str, phases: str, below: str, address: bool = True) -> str:
    tone, state = _state(known)
    target = known.target
    where = f" <small>{text(target.type)} · <bdi>{text(target.address, ADDRESS_LIMIT)}</bdi></small>" if address else ""
    held = lasting(known.since, now) if known.since is not None else ""
    under = f"<tr class=under><td><td colspan=4>{below}" if below else ""
    return (
        f"<tbody id=t{number} class={tone}><tr>{state}<th scope=row><bdi>{text(target.name)}</bdi>{where}"
        f"<td class=for>{held}{times}<td{' rowspan=2' if below else ''}>{phases}{under}</tbody>"
    )


def _sentence(last: Outcome, limit: int = DETAIL_LIMIT) -> str:
    failure = last.failure
    if failure is None:
        return ""
    return f"<p class=why><b>{failure.phase.value}/{failure.reason.value}</b> {text(failure.detail, limit)}</p>"


def _details(number: int, last: Outcome) -> str:
    """What the last run has learned."""
    said = [remark.text for remark in remarks(last)]
    excuse = starved(last)
    if excuse is not None:
        said.insert(0, excuse)
    if not said:
        return ""
    items = "".join(f"<li>{text(sentence)}</li>" for sentence in said)
    return f"<details id=d{number}><summary>What it saw</summary><ul>{items}</ul></details>"


def _times(known: Known) -> str:
    last = known.last
    if last is None:
        return "<td class=number><td>"
    return f"<td class=number>{text(seconds(last.duration_seconds))}<td>{_sparkline(known.recent)}"


def _sparkline(recent: Sequence[Outcome]) -> str:
    """The last runs, the newest on the right: a bar for how long one that worked took, a cross for one that failed."""
    worked = [outcome.duration_seconds for outcome in recent if outcome.success]
    longest = max(worked, default=0.0) or 1.0
    bars, crosses = [], []
    for place, outcome in enumerate(reversed(recent)):
        x = place * _PITCH + _PITCH // 2
        if outcome.success:
            bars.append(f"M{x} {_HEIGHT}v-{max(2, round(outcome.duration_seconds / longest * (_HEIGHT - 2)))}")
        else:
            crosses.append(f"M{x - 2} 6l5 6m0-6l-5 6")
    failed = len(recent) - len(worked)
    parts = [f"{failed} failed"] if failed else []
    if worked:
        fastest, slowest = seconds(min(worked)), seconds(max(worked))
        took = fastest if fastest == slowest else f"{fastest} to {slowest}"
        parts.append(f"{len(worked)} worked, {took}")
    drawn = (f'<path d="{"".join(bars)}"/>' if bars else "") + (
        f'<path class=x d="{"".join(crosses)}"/>' if crosses else ""
    )
    title = text(f"last {count(len(recent), 'run')}: {'; '.join(parts)}")
    return f"<svg class=runs role=img width={len(recent) * _PITCH} height={_HEIGHT}><title>{title}</title>{drawn}</svg>"


def _phases(last: Outcome, *, legend: bool) -> str:
    """Where the time of the last run went."""
    whole = sum(last.phases.values())
    if not last.phases or whole <= 0:
        return ""
    drawn, at = [], 0.0
    for phase, spent in last.phases.items():
        wide = spent / whole * _BAR
        drawn.append(f'<rect class=p{_PHASES[phase]} x="{at:.3g}" width="{max(wide, 0.5):.3g}" height=8 />')
        at += wide
    told = [f"{phase.value} {seconds(spent)}" for phase, spent in last.phases.items()]
    bar = f'<svg class=bar viewBox="0 0 {_BAR} 8" preserveAspectRatio=none '
    if not legend:
        return f"{bar}role=img><title>{text(', '.join(told))}</title>{''.join(drawn)}</svg>"
    failed = last.failure.phase if last.failure else None
    words = "".join(
        f"<li{' class=x' if phase is failed else ''}><i class=p{_PHASES[phase]}></i>{text(said)}"
        for phase, said in zip(last.phases, told, strict=True)
    )
    return f"{bar}aria-hidden=true>{''.join(drawn)}</svg><ul class=phases>{words}</ul>"
