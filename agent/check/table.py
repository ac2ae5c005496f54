"""The table: one block a target, then the verdicts, as wide as the terminal, coloured where there are colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from agent.check.lines import NARROWEST, aligned, flow, indented, pad, wrap
from agent.check.running import Run
from agent.explanation import Tone, verdict_lines
from agent.model import Failure, Phase
from agent.remarks import Remark, remarks, starved, steps
from agent.wording import Wording, count, seconds

OK, FAIL, STOP = "OK", "FAIL", "STOP"
_TONES = {Tone.PLAIN: "", Tone.GOOD: "green", Tone.BAD: "bold red", Tone.DIM: "dim"}
_STYLES = {OK: "green", FAIL: "bold red", STOP: "yellow"}
_INDENT = 6
_GAP = 2
_NARROWEST_PHASES = 48


def as_table(runs: Sequence[Run], verdicts: Sequence[Mapping[str, Any]], stream: TextIO) -> str:
    """What the stream is to get, escape sequences included where it is a terminal that takes them."""
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    wording = Wording(ascii_only=not console.encoding.startswith("utf"))
    with console.capture() as capture:
        for line in _Layout(runs, verdicts, wording, console.width).lines():
            console.print(line, overflow="ignore", no_wrap=True, crop=False)
    return capture.get()


class _Layout:
    """The widths every row shares, and the lines."""

    def __init__(
        self, runs: Sequence[Run], verdicts: Sequence[Mapping[str, Any]], wording: Wording, width: int
    ) -> None:
        self._runs = runs
        self._verdicts = verdicts
        self._wording = wording
        self._width = width
        self._separator = Text(wording(" · "), "dim")
        self._type = max(cell_len(text) for text in ("TYPE", *(run.target.type for run in runs)))
        self._time = max(cell_len(text) for text in ("TIME", *(_time(run) for run in runs)))
        beside_name = _INDENT + _GAP + self._type + _GAP + self._time
        longest = max(cell_len(text) for text in ("TARGET", *(wording(run.target.name) for run in runs)))
        self._name = max(min(longest, width - beside_name), NARROWEST)
        self._phases = width - beside_name - self._name - _GAP
        """What is left for the phases in the row; below _NARROWEST_PHASES they get lines of their own."""

    @property
    def _wide(self) -> bool:
        return self._phases >= _NARROWEST_PHASES

    def lines(self) -> Iterator[Text]:
        yield from self._row(Text(""), Text("TARGET"), kind="TYPE", time="TIME", phases=[Text("PHASES")], style="bold")
        for run in self._runs:
            yield from self._block(run)
        for line in verdict_lines(self._verdicts, width=self._width, wording=self._wording):
            yield Text(line.text, _TONES[line.tone])
        yield Text("")
        yield _summary(self._runs)

    def _block(self, run: Run) -> Iterator[Text]:
        verdict = _verdict(run)
        phases = self._times(run)
        name = Text(self._wording(run.target.name), "bold")
        yield from self._row(
            Text(verdict, _STYLES[verdict]), name, kind=run.target.type, time=_time(run), phases=phases
        )
        if not self._wide:
            yield from self._below(phases)
        outcome = run.outcome
        if outcome is None:
            yield from self._below([Text(_how_far(run), _STYLES[STOP])])
            return
        if outcome.failure is not None:
            yield from self._below([self._sentence(outcome.failure)])
        excuse = starved(outcome)
        if excuse is not None:
            yield from self._below([self._remark(Remark(excuse, warning=True))])
        yield from self._below([self._remark(remark) for remark in remarks(outcome)])
        rows = [[self._wording(cell) for cell in row] for row in steps(outcome)]
        if rows:
            yield from (indented(line, _INDENT) for line in aligned(rows, self._width - _INDENT, "dim"))

    def _row(
        self, verdict: Text, name: Text, *, kind: str, time: str, phases: Sequence[Text], style: str = ""
    ) -> Iterator[Text]:
        names = wrap(name, self._name)
        times = flow(phases, self._separator, self._phases) if self._wide else []
        for number, (part, spent) in enumerate(zip_longest(names, times, fillvalue=Text(""))):
            first = number == 0
            line = Text.assemble(
                pad(verdict if first else Text(""), _INDENT),
                pad(part, self._name + _GAP),
                f"{kind if first else '':<{self._type + _GAP}}{time if first else '':>{self._time}}{'':{_GAP}}",
                spent,
                style=style,
            )
            line.rstrip()
            yield line

    def _below(self, pieces: Sequence[Text]) -> Iterator[Text]:
        return (indented(line, _INDENT) for line in flow(pieces, self._separator, self._width - _INDENT))

    def _times(self, run: Run) -> list[Text]:
        failure = run.outcome.failure if run.outcome else None
        spent = run.outcome.phases if run.outcome else run.recorder.phases
        return [
            Text(f"{phase} {seconds(amount)}", _STYLES[FAIL] if _failed_in(failure, phase) else "")
            for phase, amount in spent.items()
        ]

    def _sentence(self, failure: Failure) -> Text:
        return Text.assemble(
            (f"{failure.phase}/{failure.reason}: ", _STYLES[FAIL]), (self._wording(failure.detail), "red")
        )

    def _remark(self, remark: Remark) -> Text:
        return Text(self._wording(remark.text), "yellow" if remark.warning else "dim")


def _failed_in(failure: Failure | None, phase: Phase) -> bool:
    return failure is not None and failure.phase is phase


def _verdict(run: Run) -> str:
    if run.outcome is None:
        return STOP
    return OK if run.outcome.success else FAIL


def _time(run: Run) -> str:
    return "-" if run.seconds is None else seconds(run.seconds)


def _how_far(run: Run) -> str:
    return "not begun" if run.seconds is None else f"stopped in the phase {run.recorder.current}"


def _summary(runs: Sequence[Run]) -> Text:
    fine = sum(_verdict(run) == OK for run in runs)
    stopped = sum(_verdict(run) == STOP for run in runs)
    text = f"{fine} of {count(len(runs), 'target')} {'is' if 1 in {fine, len(runs)} else 'are'} fine"
    if stopped:
        text += f", {stopped} not done"
    return Text(text, "green" if fine == len(runs) else _STYLES[FAIL])
