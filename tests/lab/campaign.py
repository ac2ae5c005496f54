"""Plays the scenarios of the fault lab, several worlds side by side, and tells what the agent said and how soon.

python -m tests.lab.campaign [--worlds N] [--write README.md] [NAME …]
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from tests.lab import matrix
from tests.lab.scenarios import every_scenario
from tests.lab.scenarios.base import Expected, Scenario
from tests.lab.world import TARGETS, World, leftovers, servers
from tests.lab.world.agent import Agent

WORLDS_VARIABLE = "NETPROBE_LAB_WORLDS"
HOLD_SECONDS = 2.0
"""How long the right verdicts have to stay as they are."""
START_SECONDS = 30.0
"""How long an agent may take until all its targets have succeeded."""
POLL_SECONDS = 0.1

Diagnosis = Mapping[str, Any]


class Interrupted(Exception):  # noqa: N818 - an order, not an error
    """The campaign is to end."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the agent said."""

    scenario: Scenario
    verdicts: tuple[Mapping[str, Any], ...]
    """As /diagnosis has them."""
    seconds: float | None
    """From the fault until causes and targets were right, and stayed so; None where there was no fault."""


class Campaign:
    """Scenarios, and the worlds they are played in. A context manager: its end removes everything, at any time."""

    def __init__(
        self, scenarios: Sequence[Scenario], *, worlds: int | None = None, when_asked_for: bool = False
    ) -> None:
        """Play all of them in order, or each when its result is asked for."""
        self._scenarios = {scenario.name: scenario for scenario in scenarios}
        self._futures: dict[str, Future[Result]] = {scenario.name: Future() for scenario in scenarios}
        self._when_asked_for = when_asked_for
        self._waiting: queue.SimpleQueue[Scenario] = queue.SimpleQueue()
        if not when_asked_for:
            for scenario in scenarios:
                self._waiting.put(scenario)
        self._stopping = threading.Event()
        self.unhealed: list[str] = []
        """Scenarios whose world had to be built anew, and why."""
        count = min(worlds or int(os.environ.get(WORLDS_VARIABLE, "0")) or 3 * (os.cpu_count() or 1), len(scenarios))
        self._threads = [threading.Thread(target=self._work, name=f"world-{number}") for number in range(count)]

    def __enter__(self) -> Self:
        leftovers.sweep()
        self._directory = Path(tempfile.gettempdir(), leftovers.new_name())
        self._directory.mkdir(mode=0o711)
        try:
            self.database = servers.template(self._directory)
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        shutil.rmtree(self._directory, ignore_errors=True)

    def result(self, name: str) -> Result:
        """What came of a scenario, once it has been played. Raises AssertionError where the agent was wrong."""
        if self._when_asked_for:
            self._waiting.put(self._scenarios[name])
        return self._futures[name].result()

    def results(self) -> list[Result]:
        """What has come of those that went well so far."""
        done = (future for future in self._futures.values() if future.done() and not future.exception())
        return [future.result() for future in done]

    def _work(self) -> None:
        """Play what is waiting, in a world that is built when it is first needed, and anew when one has not healed."""
        world: World | None = None
        try:
            while not self._stopping.is_set():
                try:
                    scenario = self._waiting.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    if self._when_asked_for:
                        continue
                    return
                future = self._futures[scenario.name]
                try:
                    world = world or World(self.database)
                    result = play(world, scenario, self._stopping)
                except BaseException as error:  # noqa: BLE001 - whoever waits for the result is told
                    future.set_exception(error)
                else:
                    future.set_result(result)
                if world is not None and not self._healed(world, scenario):
                    world.__exit__(None, None, None)
                    world = None
        finally:
            if world is not None:
                world.__exit__(None, None, None)

    def _healed(self, world: World, scenario: Scenario) -> bool:
        """Undo what a scenario has done. That it cannot be undone says nothing about the agent, but is told."""
        try:
            world.heal()
        except Exception as error:  # noqa: BLE001 - the next scenario gets another world
            self.unhealed.append(f"{scenario.name}: {error}")
        return world.is_healed


def play(world: World, scenario: Scenario, stopping: threading.Event) -> Result:
    """Break a healthy world, and wait for the right verdicts. The world is left broken."""
    scenario.prepare(world)
    agent = world.start_agent(
        [TARGETS[target] if isinstance(target, str) else target for target in scenario.targets],
        scenario.environment,
        scenario.settings,
    )
    watch = _Watch(agent, scenario, stopping)
    started_at = time.monotonic()
    if not scenario.from_start:
        watch.until_all_is_well()
    broken_at = started_at if scenario.from_start else time.monotonic()
    before = world.mark()
    scenario.break_(world)
    if not scenario.expected:
        watch.stays_healthy(scenario.healthy_seconds)
        return Result(scenario, (), None)
    verdicts, right_at = watch.until_right()
    if scenario.recovers:
        world.undo_since(before)
        watch.until_all_is_well()
    return Result(scenario, verdicts, max(0.0, right_at - broken_at))


class _Watch:
    """What an agent says, time and again."""

    def __init__(self, agent: Agent, scenario: Scenario, stopping: threading.Event) -> None:
        self._agent = agent
        self._scenario = scenario
        self._stopping = stopping
        self._diagnosis: Diagnosis = {"healthy": True, "verdicts": []}

    def until_all_is_well(self) -> None:
        """Wait until every target has succeeded and there is no verdict."""

        def well() -> bool:
            targets = self._agent.get("/targets")["targets"]
            return bool(self._diagnosis["healthy"]) and all(_last(target).get("success") for target in targets)

        self._until(well, START_SECONDS, "every target to succeed and the agent to be healthy")

    def until_right(self) -> tuple[tuple[Mapping[str, Any], ...], float]:
        """Wait for the expected verdicts to hold for a while: they, and since when causes and targets are right."""
        right_at: float | None = None
        held_since: float | None = None

        def held() -> bool:
            nonlocal right_at, held_since
            now, verdicts, expected = time.monotonic(), self._diagnosis["verdicts"], self._scenario.expected
            right_at = (right_at or now) if _same(verdicts, expected) else None
            held_since = (held_since or now) if _matches(verdicts, expected) else None
            return held_since is not None and now - held_since >= HOLD_SECONDS

        wanted = "\n".join(
            f"  {one.cause} ({' or '.join(one.confidences)}): {', '.join(one.targets)} {list(one.says) or ''}"
            for one in self._scenario.expected
        )
        self._until(held, self._scenario.patience_seconds, f"for {HOLD_SECONDS:g} s exactly\n{wanted}\n")
        assert right_at is not None
        return tuple(self._diagnosis["verdicts"]), right_at

    def stays_healthy(self, seconds: float) -> None:
        """Look for so long whether there is a verdict."""
        deadline = time.monotonic() + seconds
        self._until(lambda: time.monotonic() > deadline, seconds + START_SECONDS, "to get there")

    def _until(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while True:
            if self._stopping.wait(POLL_SECONDS):
                raise Interrupted
            answered = False
            with suppress(OSError, TimeoutError):  # an agent that is kept from running does not answer
                self._diagnosis = self._agent.get("/diagnosis")
                answered = True
            if not self._scenario.expected:
                assert self._diagnosis["healthy"], f"{self._scenario.name}: expected no verdict at any time{self._seen}"
            if answered and holds():
                return
            assert time.monotonic() < deadline, (
                f"{self._scenario.name}: expected within {seconds:g} s {what}{self._seen}"
            )

    @property
    def _seen(self) -> str:
        """What the agent says at this moment, for people."""
        lines = [", but it said"]
        for verdict in self._diagnosis["verdicts"]:
            lines.append(f"  {verdict['cause']} ({verdict['confidence']}): {', '.join(verdict['targets'])}")
            lines += [f"      {verdict['summary']}", *(f"      - {line}" for line in verdict["evidence"])]
        lines += [] if self._diagnosis["verdicts"] else ["  healthy"]
        for experiment in self._diagnosis.get("experiments", ()):
            lines.append(f"  asked {json.dumps(experiment['question'])}: {json.dumps(experiment['answer'])}")
        with suppress(OSError, TimeoutError):
            for target in self._agent.get("/targets")["targets"]:
                last = _last(target)
                state = "ok" if last.get("success") else f"{last.get('phase')}/{last.get('reason')}"
                phases = " ".join(f"{phase}={took:.3f}" for phase, took in last.get("phases", {}).items())
                lines.append(f"  {last.get('target')}: {state} {last.get('detail') or ''} {phases}")
        lines += [f"  log: {line}" for line in self._agent.log.splitlines() if '"error"' in line][-5:]
        return "\n".join(lines)


def _last(target: Mapping[str, Any]) -> Mapping[str, Any]:
    last: Mapping[str, Any] | None = target.get("last")
    return last or {}


def _same(verdicts: Sequence[Mapping[str, Any]], expected: Sequence[Expected]) -> bool:
    """Whether causes and targets are the expected ones."""
    return sorted((verdict["cause"], sorted(verdict["targets"])) for verdict in verdicts) == sorted(
        (str(one.cause), sorted(one.targets)) for one in expected
    )


def _matches(verdicts: Sequence[Mapping[str, Any]], expected: Sequence[Expected]) -> bool:
    """Whether the verdicts are the expected ones in everything that is expected of them."""
    return _same(verdicts, expected) and all(
        any(
            verdict["cause"] == one.cause
            and sorted(verdict["targets"]) == sorted(one.targets)
            and verdict["confidence"] in one.confidences
            and all(
                text in "\n".join((verdict["summary"], *verdict["evidence"], verdict["advice"])) for text in one.says
            )
            for verdict in verdicts
        )
        for one in expected
    )


def interrupt(signal_number: int, frame: FrameType | None) -> None:
    """A signal handler: end as Ctrl-C does."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Play all scenarios, or those that are named; print the matrix, and write it where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.campaign", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenarios; all of them where left out")
    parser.add_argument("--worlds", type=int, help="how many side by side; three a CPU where left out")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the matrix between its marks in this file")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    scenarios = [scenario for scenario in every_scenario() if not options.names or scenario.name in options.names]
    began, wrong = time.monotonic(), 0
    with Campaign(scenarios, worlds=options.worlds) as campaign:
        for scenario in scenarios:
            try:
                result = campaign.result(scenario.name)
            except Exception as error:  # noqa: BLE001 - whatever it was, the others go on
                wrong += 1
                print(f"WRONG {scenario.name}\n{error}", flush=True)
            else:
                print("right", matrix.line(result), flush=True)
        results = campaign.results()
    for told in campaign.unhealed:
        print(f"not healed: {told}")
    print(f"{len(results)} of {len(scenarios)} right in {time.monotonic() - began:.0f} s; {matrix.summary(results)}")
    if options.write is not None and not wrong and not options.names:
        matrix.write(options.write, results)
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
