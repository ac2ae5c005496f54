"""The course of an outage: all is well, names are not resolved any more, somebody is paged, it is mended.

What was seen on the way is kept, to be judged afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

from agent.starvation import LAG_THRESHOLD_SECONDS
from tests.lab.alertmanager import Document, Notification
from tests.lab.fleet.dags import DAGS, TASKS
from tests.lab.fleet.fleet import Fleet
from tests.lab.fleet.monitoring import MESSAGE, PAGE
from tests.lab.pace import Pace

T = TypeVar("T")

PODS: Final = len(DAGS) * len(TASKS)
NEARLY_ALL: Final = PODS * 9 // 10
"""On a machine that is short of CPU, one or another has a verdict of its own: packet_loss."""
TARGETS: Final = frozenset(str(target["name"]) for dag in DAGS for target in dag.targets)
CAUSE: Final = "dns_unreachable"
SYMPTOM: Final = "NetprobeTargetFailing"

SHORT_OF_CPU: Final = frozenset({"prober_starved", "packet_loss", "slow", "dns_slow", "flapping"})
"""Causes that may be true of agents which share two cores with others, and no matter of an outage."""

Phase = Literal["healthy", "broken", "mended"]

_PATIENCE_SECONDS: Final = 1200.0
"""For each step at the real pace. Nothing is said about speed by it."""
_PATIENCE_AT_LEAST_SECONDS: Final = 180.0
_POLL_SECONDS: Final = 0.1
_REPLACED: Final = ("orders-extract", "billing-load", "fraud-transform", "reporting-load")
"""Tasks that end during the outage, so that others of their kind follow: the last of them pushes."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A notification, and when it was seen."""

    notification: Notification
    at: float
    """Seconds since the fault."""


@dataclass(slots=True)
class Story(Generic[T]):
    """What was seen."""

    looked: dict[Phase, T] = field(default_factory=dict)
    firing_in_health: list[Document] = field(default_factory=list)
    """The alerts that fired before the fault: their labels."""
    notified_in_health: list[Notification] = field(default_factory=list)
    silenced: list[Document] = field(default_factory=list)
    """What Alertmanager had when all symptoms were there."""
    arrived: list[Arrived] = field(default_factory=list)
    """All notifications since the fault."""
    verdicts_at: float = 0.0
    """When nearly all agents had their verdict, in seconds since the fault, as all that follows."""
    mended_at: float = 0.0
    healthy_at: float = 0.0
    over_at: float = 0.0
    """When the last alert had ended."""
    fired: list[Document] = field(default_factory=list)
    """The labels of every alert of netprobe that fired at any time."""
    short_of_cpu: list[Document] = field(default_factory=list)
    """Those of them that have a cause of `SHORT_OF_CPU`, and whose pods were short of it when they said so."""
    cpu_share: dict[str, float] = field(default_factory=dict)
    """Of one core, from the beginning of the healthy phase to the end."""
    replaced: list[str] = field(default_factory=list)
    """The names of the pods that ended during the outage."""

    def sent(self, receiver: str, status: Literal["firing", "resolved"]) -> list[Arrived]:
        """The notifications a receiver got."""
        return [
            one
            for one in self.arrived
            if one.notification.path == receiver and one.notification.body["status"] == status
        ]

    @property
    def messages(self) -> list[str]:
        """The pages as the template of messages words them."""
        return [
            "\n".join((attachment["title"], attachment["text"]))
            for one in self.arrived
            if one.notification.path == MESSAGE
            for attachment in one.notification.body["attachments"]
        ]


class Outage(Generic[T]):
    """One outage, to be played once."""

    def __init__(
        self,
        fleet: Fleet,
        pace: Pace,
        look: Callable[[Fleet, Phase], T],
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        """`look` is called while all is well, and while it is broken. `tell` is told how it goes."""
        self._fleet = fleet
        self._pace = pace
        self._look = look
        self._tell = tell
        self._story: Story[T] = Story()
        self._broken_at = 0.0

    def play(self) -> Story[T]:
        """From the healthy fleet to the healthy fleet."""
        story, fleet = self._story, self._fleet
        self._until(lambda: self._pods_that_say("healthy") >= NEARLY_ALL, "the pods to be counted as healthy")
        began, before = time.monotonic(), fleet.cpu_seconds()
        story.looked["healthy"] = self._look(fleet, "healthy")
        story.firing_in_health = [one["metric"] for one in fleet.query('ALERTS{alertstate="firing"}')]
        story.notified_in_health = fleet.notifications
        self._tell(f"{self._pods_that_say('healthy')} of {PODS} pods are healthy")

        self._broken_at = time.monotonic()
        fault = fleet.silence_nameservers()
        self._until(lambda: self._pods_that_say(CAUSE) >= NEARLY_ALL, f"the pods to be counted as {CAUSE}")
        story.verdicts_at = self._now
        self._tell(f"{self._now:.1f} s after the fault {self._pods_that_say(CAUSE)} pods are counted as {CAUSE}")
        self._until(lambda: story.sent(PAGE, "firing"), "a page")
        self._tell(f"{self._now:.1f} s after the fault: a page")
        self._until(self._every_symptom_is_silenced, f"{len(TARGETS)} silenced symptoms")
        self._tell(f"{self._now:.1f} s after the fault: {len(TARGETS)} symptoms are silenced")
        self._replace_some()
        story.looked["broken"] = self._look(fleet, "broken")

        fault.undo()
        story.mended_at = self._now
        self._until(lambda: not self._pods_that_say(CAUSE), f"no pod to be counted as {CAUSE}")
        story.healthy_at = self._now
        self._tell(f"{self._now - story.mended_at:.1f} s after the mend no pod is counted as {CAUSE}")
        self._until(lambda: story.sent(PAGE, "resolved"), "the page to be resolved")
        self._tell(f"{self._now - story.mended_at:.1f} s after the mend: the page is resolved")
        story.looked["mended"] = self._look(fleet, "mended")
        self._until(lambda: not self._firing(), "no alert of the outage to fire")
        story.over_at = self._now
        self._tell(f"{self._now - story.mended_at:.1f} s after the mend no alert fires")
        lasted = f"{time.monotonic() - began:.0f}s"
        ever = fleet.query(f'max_over_time(ALERTS{{alertname=~"Netprobe.+",alertstate="firing"}}[{lasted}])')
        story.fired = [one["metric"] for one in ever]
        story.short_of_cpu = [labels for labels in story.fired if self._were_short_of_cpu(labels, lasted)]
        after = fleet.cpu_seconds()
        story.cpu_share = {who: (after[who] - before[who]) / (time.monotonic() - began) for who in after}
        return story

    def _replace_some(self) -> None:
        old = [pod for pod in self._fleet.pods.running if f"{pod.dag.dag_id}-{pod.task_id}" in _REPLACED]
        self._story.replaced = [pod.name for pod in old]
        self._fleet.pods.replace(old)
        self._tell(f"{self._now:.1f} s after the fault {len(old)} pods have ended, and others have started")

    def _every_symptom_is_silenced(self) -> bool:
        alerts = self._fleet.alerts()
        silenced = {alert["labels"].get("target") for alert in alerts if _is_symptom(alert) and _is_silenced(alert)}
        self._story.silenced = alerts
        return silenced == TARGETS

    def _pods_that_say(self, cause: str) -> int:
        return self._pods_by_cause().get(cause, 0)

    def _pods_by_cause(self) -> dict[str, int]:
        found = self._fleet.query("sum by (cause) (netprobe:diagnosis_pods:count2m)")
        return {one["metric"]["cause"]: int(float(one["value"][1])) for one in found}

    def _were_short_of_cpu(self, labels: Document, lasted: str) -> bool:
        """Whether at least half of the pods that gave an alert its cause were late at that time, or starved."""
        if labels.get("cause") not in SHORT_OF_CPU:
            return False
        metric = "netprobe_target_diagnosis" if "target" in labels else "netprobe_diagnosis"
        where = ",".join(f'{name}="{labels[name]}"' for name in ("cause", "target", "dag_id") if name in labels)
        said = f"{metric}{{{where}}} == 1"
        late = (
            f"(max_over_time(netprobe_event_loop_lag_seconds[{self._pace.duration('2m')}]) > {LAG_THRESHOLD_SECONDS}"
            ' or netprobe_diagnosis{cause="prober_starved"} == 1)'
        )
        pods = self._fleet.query(f"group by (pod) (last_over_time(({said})[{lasted}:1s]))")
        were_late = self._fleet.query(
            f"group by (pod) (last_over_time(({said} and on (namespace, pod) {late})[{lasted}:1s]))"
        )
        return 0 < len(pods) <= 2 * len(were_late)

    def _firing(self) -> Sequence[Document]:
        selected = 'alertname=~"Netprobe.+",cause!~"' + "|".join(sorted(SHORT_OF_CPU)) + '"'
        return self._fleet.query(f"ALERTS{{{selected}}}")

    @property
    def _now(self) -> float:
        return time.monotonic() - self._broken_at

    def _take_notifications(self) -> None:
        seen = len(self._story.notified_in_health) + len(self._story.arrived)
        new = self._fleet.notifications[seen:]
        self._story.arrived += [Arrived(notification, self._now) for notification in new]

    def _until(self, holds: Callable[[], Any], what: str) -> None:
        patience = max(_PATIENCE_AT_LEAST_SECONDS, self._pace.seconds(_PATIENCE_SECONDS))
        deadline = time.monotonic() + patience
        while True:
            if self._broken_at:
                self._take_notifications()
            if holds():
                return
            assert time.monotonic() < deadline, (
                f"expected {what} within {patience:g} s; {self._pods_by_cause()}; Alertmanager has "
                f"{_shown(self._fleet.alerts())}, and has sent {[one.notification.path for one in self._story.arrived]}"
            )
            time.sleep(_POLL_SECONDS)


def _is_symptom(alert: Document) -> bool:
    return bool(alert["labels"]["alertname"] == SYMPTOM)


def _is_silenced(alert: Document) -> bool:
    return bool(alert["status"]["state"] == "suppressed" and alert["status"]["inhibitedBy"])


def _shown(alerts: Sequence[Document]) -> list[str]:
    return sorted(
        " ".join((alert["status"]["state"], *(f"{name}={value}" for name, value in alert["labels"].items())))
        for alert in alerts
    )
