"""The agent: configuration in, probes on a schedule, outcomes to the sinks, all of it on show over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import structlog

from agent import __version__, logs, termination
from agent.airflow.discovery.complete import complete
from agent.airflow.identity import POD_UID_VARIABLE, Place, Task, read_place, read_task
from agent.airflow.tasks import Tasks
from agent.config import Config, DiagnosisOptions, Problem, ServerOptions, hardcoded_addresses
from agent.config.targets import show_target
from agent.diagnosis.document import document
from agent.diagnostician import Diagnostician
from agent.exit_codes import FINE, NOT_STARTED
from agent.experiments import Budget, Experimenter, read_pod
from agent.gate import EAGER_INTERVAL_SECONDS, Gate
from agent.keys import HostPort
from agent.lifecycle import first_of, signals, unless
from agent.model import Outcome, Reason, Target
from agent.prober import ProbeFailure, Prober, Recorder
from agent.probers import PROBERS
from agent.runner import run as run_once
from agent.scheduler import Scheduler
from agent.server import CannotListen, Pages, Server
from agent.sinks import Sink
from agent.sinks.diagnosis_history import DiagnosisHistory
from agent.sinks.diagnosis_log import DiagnosisLog
from agent.sinks.exposition import Exposition
from agent.sinks.log import LogSink
from agent.sinks.metrics import Metrics
from agent.sinks.push import Pusher
from agent.sinks.pushers import pushers
from agent.sinks.refresh import Refresh
from agent.sinks.status import StatusSink, entry
from agent.starvation import Starvation, Throttling

NOWHERE = Place()
PUSHED_LABELS = frozenset({"namespace", "pod", "node", "dag_id", "task_id"})
"""What may stand on a pushed series. Never a run: each would leave series of its own behind."""
READY_SECONDS = 10.0
"""After this the agent calls itself ready, whatever the targets do: a dead target must not look like a dead agent."""
PREPARATION_SECONDS = 1.0
"""How long the first runs wait for what can be made before them. Beyond that, a run makes what it needs."""
DRAIN_SECONDS = 1.0
"""How long runs may go on after a SIGTERM: most need less, and a pod that has done its work should end."""
LAST_ROUND_SECONDS = 5.0
"""What would be due within this time is run once more at the end, where there is somebody to tell."""
CUT_OFF_SECONDS = 1.0
"""From here on a first run that has to be cut off is a result: nearly all that works answers sooner."""
FLUSH_SECONDS = 3.0
"""How long it may take to push the last results. All in all a pod is kept for five seconds, of the thirty it has."""
FLUSH_GRACE_SECONDS = 0.25
"""How much longer a pusher is waited for that does not keep to its time."""

_log = structlog.get_logger(__name__)


class Agent:
    """A running agent. An asynchronous context manager; `aclose` is the orderly end."""

    def __init__(
        self,
        config: Config,
        *,
        pod: str | None = None,
        task: Task | None = None,
        place: Place = NOWHERE,
        problems: Sequence[Problem] = (),
    ) -> None:
        """Use within a running event loop.

        `pod` tells this agent from others of its fleet: its UID by default. `task` and `place` are whose pod it is.
        `problems` are those of a configuration of which nothing is used.
        """
        self._config = config
        self._task, self._place, self._problems = task, place, problems
        self._tasks = Tasks()
        self.leave: asyncio.Event = asyncio.Event()
        """Set once somebody in the pod has asked the agent to end."""
        targets = config.targets
        self._starvation = Starvation(Throttling.find())
        self.metrics = Metrics(targets, detail=config.metrics.detail, starvation=self._starvation)
        self.metrics.configuration_usable = not problems
        self.metrics.tasks = self._known_tasks
        self.status = StatusSink(targets)
        self._gate = Gate(config.gate, targets, self.metrics.gate_opened)
        self._probers: Mapping[str, Prober] = {kind: PROBERS[kind].prober() for kind in {t.type for t in targets}}
        self._experimenter = _experimenter(config.diagnosis, self._probers)
        self._diagnosis_log = DiagnosisLog(config.diagnosis.runbook)
        self._diagnosis_history = DiagnosisHistory(self.status)
        self._scheduler = Scheduler(
            targets,
            self._probe,
            self.metrics,
            pod=pod or os.environ.get(POD_UID_VARIABLE) or socket.gethostname(),
            concurrency=config.scheduler.concurrency,
            eager_seconds=lambda target: EAGER_INTERVAL_SECONDS if self._gate.awaits(target) else None,
        )
        self._refresh = Refresh(self.status, self._scheduler.hasten)
        self._diagnostician = Diagnostician(
            self.status,
            read_pod(targets, time.time()),
            self._starvation,
            asker=self._experimenter,
            listeners=(self.metrics, self._diagnosis_history, self._diagnosis_log, self._refresh),
        )
        self._sinks: Sequence[Sink] = (
            self.metrics,
            self.status,
            LogSink(targets),
            self._refresh,
            self._diagnostician,
            self._gate,
        )
        self._cut_off: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        exposition = Exposition(self.metrics.slices)
        self._server = Server(
            Pages(
                metrics=exposition.render,
                targets=self._entries,
                statuses=self.status.statuses,
                diagnosis=self._diagnosis,
                broken=self._broken,
                unready=self._unready,
                unstarted=lambda: self._gate.closed,
                refresh=self._refresh,
                told=self._tasks.tell,
                leave=self.leave.set,
            )
        )
        self._pushers = self._pushers_of(config)
        self._ready_at = 0.0

    @property
    def url(self) -> str:
        """Where the agent's server is to be found."""
        return self._server.url

    async def start(self, *, fail_open: bool = False) -> None:
        """Listen, then probe. Raises CannotListen, with nothing left behind, unless it is to work without a server."""
        await self._listen(fail_open=fail_open)
        try:
            await self._begin()
        except BaseException:
            # Whoever takes over needs the port.
            await self._server.aclose()
            raise

    async def _begin(self) -> None:
        self._ready_at = asyncio.get_running_loop().time() + READY_SECONDS
        self._gate.start()
        await self._prepare()
        self._starvation.lag.start()
        self._scheduler.start()
        for pusher in self._pushers:
            pusher.start()
        for remark in hardcoded_addresses(self._config.targets):
            target = remark.target
            _log.warning(
                "target_address_hardcoded",
                target=target.name,
                type=target.type,
                address=target.address,
                detail=remark.text,
            )
        url = self._server.url if self._server.listening else None
        _log.info("agent_started", version=__version__, url=url, targets=len(self._config.targets))

    async def _listen(self, *, fail_open: bool) -> None:
        """Raises CannotListen, unless it fails open: then it works unseen."""
        try:
            await self._server.start(self._config.server.listen)
        except CannotListen as error:
            if not fail_open:
                raise
            _log.error("agent_cannot_listen", detail=str(error))

    async def aclose(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Probe once more what is worth it, and no more; settle, tell, push, and stop serving last: it can all be read.

        Runs have `drain_seconds`, and pushes FLUSH_SECONDS after that. Being cancelled shortens it: the runs are cut
        off, nothing is pushed, and what has to be closed is closed.
        """
        _log.info("agent_stopping", drain_seconds=drain_seconds)
        self._gate.stop()
        self._diagnostician.ask_no_more()
        try:
            try:
                cut = await self._scheduler.stop(drain_seconds, last=self._deserves_a_last_run, cut=self._cut)
            finally:
                self._settle()
            await self._flush()
        finally:
            self._starvation.lag.stop()
            for prober in self._probers.values():
                await prober.aclose()
            await self._server.aclose()
        _log.info("agent_stopped", cut_off=list(cut))

    def _deserves_a_last_run(self, target: Target[Any], due_seconds: float) -> bool:
        """Whether a target is run now that the agent ends.

        One that has no result is: a pod may live for less than a second. So is one that is due soon, where the result
        goes to somebody, or tells whether what has failed still does.
        """
        if target.name in self.status.waiting:
            return True
        heard = bool(self._pushers) or not self._diagnostician.current.diagnosis.healthy
        return heard and due_seconds <= LAST_ROUND_SECONDS

    def _cut(self) -> None:
        if not self._cut_off.done():
            self._cut_off.set_result(None)

    def _settle(self) -> None:
        """Say what is known in the end, in the log and to Kubernetes."""
        self._diagnostician.close()
        self._diagnosis_log.flush()
        try:
            termination.leave(termination.message(self._diagnosis()))
        except Exception:  # noqa: BLE001 - no defect here may keep the pod from ending
            _log.error("termination_message_raised", exc_info=True)

    async def _flush(self) -> None:
        """Have every pusher send what is left, all at the same time and within one time."""
        closing = {asyncio.create_task(pusher.aclose(FLUSH_SECONDS)) for pusher in self._pushers}
        if not closing:
            return
        try:
            _, late = await asyncio.wait(closing, timeout=FLUSH_SECONDS + FLUSH_GRACE_SECONDS)
        finally:
            for task in closing:
                task.cancel()
        for task in closing - late:
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("push_raised", exc_info=error)
        if late:
            _log.warning("push_unfinished", pushers=len(late))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _prepare(self) -> None:
        """Build TLS contexts now: within a run they would count as time of its network, and of its neighbours'."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PREPARATION_SECONDS
        for target in self._config.targets:
            with suppress(ProbeFailure):  # the run will say it
                self._probers[target.type].prepare(target)
            await asyncio.sleep(0)
            if loop.time() > until:
                return

    async def _probe(self, target: Target[Any]) -> Outcome:
        recorder = Recorder()
        with self._starvation.watch(recorder.facts):
            outcome = await run_once(
                self._probers[target.type], self._gate.eager(target), recorder=recorder, until=self._cut_off
            )
        if not self._cut_off.done() or self._counts(outcome):
            for sink in self._sinks:
                sink.write(outcome)
        return outcome

    def _counts(self, outcome: Outcome) -> bool:
        """Whether the outcome of a run that may have been cut off says more than what is known without it."""
        if outcome.failure is None or outcome.failure.reason is not Reason.TIMEOUT:
            return True
        return outcome.target.name in self.status.waiting and outcome.duration_seconds >= CUT_OFF_SECONDS

    def _entries(self) -> Iterator[Mapping[str, Any]]:
        for status in self.status.statuses():
            yield entry(status, show_target(status.target))

    def _diagnosis(self) -> Mapping[str, Any]:
        current = self._diagnostician.current
        found = document(
            current.diagnosis,
            since=current.since,
            held_seconds=current.held_seconds,
            waiting=self.status.waiting,
            experiments=current.experiments,
            budget=self._budget(),
            began_at=self._diagnosis_history.began_at,
            recent=self._diagnosis_history.recent,
            runbook=self._config.diagnosis.runbook,
        )
        return found | self._whose()

    def _whose(self) -> dict[str, Any]:
        """Whose diagnosis it is, and whether it is made of what was configured."""
        return {
            "task": self._task.as_dict() if self._task else None,
            "tasks": [task.as_dict() for task in self._tasks.running],
            "place": self._place.as_dict(),
            "configuration_usable": not self._problems,
            "targets": len(self._config.targets),
        }

    def _known_tasks(self) -> Iterator[Mapping[str, str]]:
        for task in (self._task,) if self._task else self._tasks.running:
            yield task.as_dict()

    def _pushers_of(self, config: Config) -> Sequence[Pusher]:
        try:
            return pushers(config, self.metrics, pushed_labels(self._task, self._place))
        except Exception:  # noqa: BLE001 - what is not pushed is probed and scraped all the same
            _log.error("push_raised", exc_info=True)
            return ()

    def _budget(self) -> Mapping[str, int] | None:
        if self._experimenter is None:
            return None
        options = self._config.diagnosis
        return {
            "asked": self._experimenter.asked,
            "left_out": self._experimenter.left_out,
            "refused": self._experimenter.refused,
            "per_minute": options.experiments_per_minute,
            "per_pod": options.experiments_per_pod,
        }

    def _broken(self) -> str | None:
        ended = self._scheduler.ended
        return f"expected every target to be probed, but nobody probes {', '.join(ended)}" if ended else None

    def _unready(self) -> str | None:
        waiting = self.status.waiting
        if not waiting or asyncio.get_running_loop().time() >= self._ready_at:
            return None
        return f"waiting for the first result of {', '.join(waiting)}"


def _experimenter(options: DiagnosisOptions, probers: Mapping[str, Prober]) -> Experimenter | None:
    if not options.experiments:
        return None
    budget = Budget(per_minute=options.experiments_per_minute, per_pod=options.experiments_per_pod)
    return Experimenter(probers, budget)


def pushed_labels(task: Task | None, place: Place) -> dict[str, str]:
    """What a pushed series may say of whose it is, as far as known."""
    identity = {**place.as_dict(), **(task.as_dict() if task else {})}
    return {label: value for label, value in identity.items() if label in PUSHED_LABELS}


async def run(
    config: Config,
    *,
    problems: Sequence[Problem] = (),
    listen: HostPort | None = None,
    fail_open: bool = False,
    end_with_task: bool = False,
) -> int:
    """Run the agent until SIGTERM or SIGINT, or until somebody in the pod asks it to end, and return the exit code.

    It listens where `listen` says, else the configuration. One that fails open obeys that only where a start-up probe
    finds it, and works without a server where it cannot listen. One that ends with the task ends by itself once
    the task's container has ended.
    """
    logs.configure(config.log)
    task, place = read_task(os.environ), read_place(os.environ)
    logs.bind({**(task.as_dict() if task else {}), **place.as_dict()})
    for problem in problems:
        mark = problem.mark
        _log.error("configuration_unusable", file=mark.file, line=mark.line, path=problem.path, detail=problem.message)
    if listen is not None:
        config = _listening_at(listen, config)
    elif fail_open and not end_with_task:
        config = _within_reach(config)
    config = _with_discovered(config)
    with signals() as shutdown:
        agent = Agent(config, task=task, place=place, problems=problems)
        try:
            await agent.start(fail_open=fail_open)
        except CannotListen as error:
            sys.stderr.write(f"netprobe: {error}\n")
            return NOT_STARTED
        # What exists by now stays for good; the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        watching = asyncio.create_task(_leave_with_task(agent), name="task container") if end_with_task else None
        await first_of(shutdown.requested, agent.leave)
        if watching is not None:
            watching.cancel()
        shutdown.requested.set()  # from here on a signal is the second one
        try:
            await unless(shutdown.forced, agent.aclose())
        except Exception:  # noqa: BLE001 - it was told to end: to stay with what is left would keep the pod
            _log.error("agent_end_raised", exc_info=True)
        if shutdown.forced.is_set():
            _log.warning("agent_forced")
    return FINE


def _listening_at(listen: HostPort, config: Config) -> Config:
    return dataclasses.replace(config, server=dataclasses.replace(config.server, listen=listen))


def _within_reach(config: Config) -> Config:
    """A configuration that listens where the sidecar's start-up probe asks: elsewhere it would keep a task waiting."""
    wanted, found = config.server.listen, ServerOptions().listen
    if wanted == found:
        return config
    if wanted != HostPort("0.0.0.0", found.port):  # noqa: S104 - the same to whoever has no cluster of IPv6 alone
        _log.warning("listen_address_overridden", configured=str(wanted), listen=str(found))
    return _listening_at(found, config)


async def _leave_with_task(agent: Agent) -> None:
    from agent.airflow import task_container  # noqa: PLC0415 - most pods have native sidecars

    try:
        await task_container.ended(task_container.TaskContainer())
    except Exception:  # noqa: BLE001 - nobody else would tell it to end, and the pod would stay
        _log.error("task_container_raised", exc_info=True)
    agent.leave.set()


def _with_discovered(config: Config) -> Config:
    """A configuration with the targets that the environment names, if it asks for them."""
    try:
        config, discovery = complete(config, os.environ)
    except Exception:  # noqa: BLE001 - what was configured can be probed all the same
        _log.error("discovery_raised", exc_info=True)
        return config
    for skipped in discovery.skipped:
        _log.info("target_skipped", source=skipped.source, why=skipped.why)
    return config
