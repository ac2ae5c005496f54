"""Where a sidecar goes: the pods of a file, or the values of Airflow's official chart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.airflow.inject.document import Document, Node, Source
from agent.airflow.inject.sidecar import CONTAINER, NOTE_VARIABLE, VOLUME, Mode, Options, shareable
from agent.airflow.inject.splice import Note, Path
from agent.config.problem import Problem
from agent.listening import DEFAULT_PORT

BASE = "base"
_LONG_LIVED_BASES = ("worker", "airflow-worker", BASE)
"""The container of a Celery worker in the official chart, and in the community's."""

_POD: Path = ("spec",)
_TEMPLATE: Path = ("spec", "template", "spec")
KINDS: Mapping[str, Path] = {
    "Pod": _POD,
    "PodTemplate": ("template", "spec"),
    "Deployment": _TEMPLATE,
    "StatefulSet": _TEMPLATE,
}
"""Where each kind of Kubernetes object has the `spec` of its pods."""

SHARING = "shareProcessNamespace"
QUIT_VARIABLE = "NETPROBE_QUIT_WITH_TASK"
"""Where it is `true`, deploy/airflow/plugins/netprobe_listener.py tells the sidecar to end when the task has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """The paths, from the home of a place, of the lists that a sidecar goes into."""

    init_containers: Path
    containers: Path
    volumes: Path


POD_LISTS = Lists(init_containers=("initContainers",), containers=("containers",), volumes=("volumes",))


def chart_lists(*prefix: str) -> Lists:
    """Those of the official chart's values."""
    return Lists(
        init_containers=(*prefix, "extraInitContainers"),
        containers=(*prefix, "extraContainers"),
        volumes=(*prefix, "extraVolumes"),
    )


CHART_LISTS = chart_lists("workers", "kubernetes")
"""From chart 1.21 on, for the pods of KubernetesExecutor."""
OLD_CHART_LISTS = chart_lists("workers")
"""Before; Celery workers get them, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place for a sidecar. Paths begin at its home: the `spec` of a pod, or the root of the values."""

    document: Document
    home: Node
    data: Any
    at: Path
    """Where the home is in the document."""
    kind: str
    lists: Lists
    every: Sequence[Lists]
    """Where a sidecar may have been put before."""

    @property
    def ends_with_task(self) -> bool:
        """Whether the pod is made for one task."""
        return self.kind in {"Pod", "PodTemplate", CHART}


CHART = "values"


@dataclass(frozen=True, slots=True)
class Ours:
    """A sidecar that was injected before."""

    note: Note
    items: frozenset[int]
    """Where its list items begin: the container and the volume."""
    keys: frozenset[str]


class Search:
    """Looks for places, and keeps what is wrong with them."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []

    # --- pods --------------------------------------------------------------------------------------------------------

    def pods(self) -> list[Place]:
        """The pods of the file, and what makes pods."""
        places: list[Place] = []
        for document in self.source.documents:
            kind = _kind(document)
            if kind is None:
                continue
            home: Node | None = document.root
            data = document.data
            for key in KINDS[kind]:
                home, data = _child(home, key), data.get(key) if isinstance(data, dict) else None
            if home is None or home.entries is None:
                path = ".".join(KINDS[kind])
                self._add(document.root, f"expected {path} of a {kind} to be a mapping that is written here, got none")
                continue
            lists = POD_LISTS
            place = Place(
                document=document, home=home, data=data, at=KINDS[kind], kind=kind, lists=lists, every=(lists,)
            )
            places.append(place)
        if not places and not self.problems:
            self._no_pod()
        return places

    def workers(self, places: Sequence[Place], options: Options, name: str | None) -> list[Place]:
        """Those of the places that run tasks. `name` is that of the task's container, where it is not Airflow's."""
        fit: list[Place] = []
        others: list[Problem] = []
        for place in places:
            if place.kind == CHART:
                self.problems.extend(self._hidden(place, options))
            problem = (None if place.kind == CHART else self._misfit(place, options, name)) or self._endless(
                place, options, name
            )
            if problem is None:
                fit.append(place)
            elif place.ends_with_task:
                self.problems.append(problem)
            else:
                others.append(problem)
        if not fit and not self.problems:
            self.problems.extend(others)
        return fit

    def _misfit(self, place: Place, options: Options, name: str | None) -> Problem | None:
        """Why a pod runs no task, or cannot get the sidecar."""
        containers = place.data.get("containers")
        node = place.home.get("containers") or place.home
        if not isinstance(containers, list) or not all(isinstance(container, dict) for container in containers):
            return self.source.problem(node, f"expected a list of containers in the {place.kind}, got none")
        names = [container.get("name") for container in containers]
        listed = ", ".join(str(each) for each in names) or "none"
        found = base_of(place, name)
        if found is None:
            wanted = " or ".join(_bases(place, name))
            message = f"expected a container called {wanted} in the {place.kind}, got {listed}"
            return self.source.problem(node, f"{message} (--container NAME names another)")
        if name is None and place.ends_with_task and found is not containers[0]:
            # Airflow merges what it runs into the first container and calls it base: there would be two of that name.
            return self.source.problem(
                node, f"expected base to be the first container, as Airflow wants it, got {listed}"
            )
        if place.data.get("hostNetwork"):
            # Kubernetes makes its port one of the node's, and starts no second pod with it there.
            node = place.home.get("hostNetwork") or place.home
            message = (
                f"expected a {place.kind} with a network of its own, got hostNetwork: port {DEFAULT_PORT} is the node's"
            )
            return self.source.problem(node, message)
        shared = place.data.get(SHARING, True)
        if options.watches_processes and place.ends_with_task and shared is not True:
            message = f"expected {SHARING} to be true or left out, got {json.dumps(shared)}"
            node = place.home.get(SHARING) or place.home
            return self.source.problem(node, f"{message} (--no-share-process-namespace does without)")
        for key, system in _systems(place.data):
            if system != "linux":
                node = place.home.get(key) or place.home
                return self.source.problem(node, f"expected a {place.kind} for linux, got one for {system}")
        return None

    def _endless(self, place: Place, options: Options, name: str | None) -> Problem | None:
        """Why the sidecar would never end, and the pod with it."""
        if options.mode is Mode.NATIVE or options.share_process_namespace or not place.ends_with_task:
            return None
        base = base_of(place, name) or {}
        told = any(entry["name"] == QUIT_VARIABLE for entry in shareable(base)) or base.get("envFrom")
        if told or (place.kind == CHART and QUIT_VARIABLE in json.dumps(place.data, default=str)):
            return None
        where = "the env of the chart's workers" if place.kind == CHART else "the env of the task's container"
        message = f"expected {QUIT_VARIABLE} in {where}, so that Airflow's listener ends the sidecar, got none"
        return self.source.problem(place.home.get("containers") or place.home, message)

    def _no_pod(self) -> None:
        root = self.source.documents[0].root if self.source.documents else 0
        keys = [key for document in self.source.documents for key in document.root.names()]
        if {"workers", "executor", "dags", "airflowVersion", "images"} & set(keys):
            hint = "; for values of Airflow's official chart, use --format chart-values"
        else:
            hint = ""
        kinds = [str(data["kind"]) for data in (each.data for each in self.source.documents) if _has_kind(data)]
        seen = f"got {', '.join(kinds)}" if kinds else "got nothing of that kind"
        self._add(root, f"expected a Pod, or what makes pods, {seen}{hint}")

    # --- the official chart -------------------------------------------------------------------------------------------

    def chart(self, lists: Lists) -> list[Place]:
        """The values of the chart."""
        if not self.source.documents:
            end = len(self.source.text)
            self.source.documents.append(Document(Node(start=end, end=end, column=0), None))
        document, *others = self.source.documents
        data = document.data if document.data is not None else {}
        if others:
            self._add(others[0].root, "expected the values of a chart, got a second document")
        elif not isinstance(data, dict) or _has_kind(data):
            seen = f"got a {data['kind']}" if _has_kind(data) else "got no mapping"
            self._add(document.root, f"expected the values of a chart, {seen}")
        else:
            every = (CHART_LISTS, OLD_CHART_LISTS)
            return [
                Place(document=document, home=document.root, data=data, at=(), kind=CHART, lists=lists, every=every)
            ]
        return []

    def _hidden(self, place: Place, options: Options) -> Iterator[Problem]:
        """Lists that the chart would take no longer, since it finds newer ones made for the sidecar (chart 1.21)."""
        if place.lists is not CHART_LISTS:
            return
        containers = "init_containers" if options.mode is Mode.NATIVE else "containers"
        for which in (containers, "volumes"):
            new, old = getattr(CHART_LISTS, which), getattr(OLD_CHART_LISTS, which)
            held = list(_items(place, old))
            if held and not list(_items(place, new)):
                names = ".".join(new), ".".join(old)
                yield self.source.problem(
                    held[0][0],
                    f"expected {names[0]} to hold what {names[1]} holds, got nothing there: the chart takes one of "
                    "them, and the sidecar goes into the first. Move it, or say --chart-version 1.20 to use the second",
                )

    # --- what is there already ----------------------------------------------------------------------------------------

    def ours(self, place: Place) -> Ours | None:
        """The sidecar that was injected before. One that was not, and a volume of its name, are problems."""
        found: Ours | None = None
        items: set[int] = set()
        for lists in place.every:
            for path in (lists.init_containers, lists.containers):
                for item, data in _items(place, path):
                    if not isinstance(data, dict) or data.get("name") != CONTAINER:
                        continue
                    note = _note(data)
                    if note is None:
                        message = f"expected no container called {CONTAINER} but one that netprobe inject made"
                        self._add(item, f"{message}, got one without {NOTE_VARIABLE}")
                        continue
                    keys = frozenset({SHARING} & set(note.new))
                    found = Ours(note, frozenset(), keys)
                    items.add(item.start)
        for lists in place.every:
            for item, data in _items(place, lists.volumes):
                if isinstance(data, dict) and data.get("name") == VOLUME:
                    if found is None:
                        self._add(item, f"expected no volume called {VOLUME} without its container, got one")
                    items.add(item.start)
        return Ours(found.note, frozenset(items), found.keys) if found else None

    def _add(self, node: Node | int, message: str) -> None:
        self.problems.append(self.source.problem(node, message))


def _systems(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The operating systems that a pod says it is for, and where."""
    for key, inner in (("os", "name"), ("nodeSelector", "kubernetes.io/os")):
        said = spec.get(key)
        if isinstance(said, dict) and isinstance(said.get(inner), str):
            yield key, said[inner]


def base_of(place: Place, name: str | None) -> Mapping[str, Any] | None:
    """The task's container; of the values of a chart, what they say of it."""
    if place.kind == CHART:
        return {"env": list(_chart_env(place.data))}
    containers: list[Mapping[str, Any]] = place.data["containers"]
    wanted = _bases(place, name)
    return next((each for each in containers if each.get("name") in wanted), None)


def _bases(place: Place, name: str | None) -> tuple[str, ...]:
    if name is not None:
        return (name,)
    return (BASE,) if place.ends_with_task else _LONG_LIVED_BASES


def _kind(document: Document) -> str | None:
    """The kind of object that has pods; a file without one is read as a pod, as Airflow does."""
    data = document.data
    if not isinstance(data, dict):
        return None
    if "kind" not in data:
        spec = data.get("spec")
        return "Pod" if isinstance(spec, dict) and "containers" in spec else None
    return data["kind"] if _has_kind(data) and data["kind"] in KINDS else None


def _has_kind(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("kind"), str)


def _child(node: Node | None, key: str) -> Node | None:
    return node.get(key) if node is not None else None


def _chart_env(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The variables that the values give to workers, from the most general on."""
    workers = data.get("workers")
    workers = workers if isinstance(workers, dict) else {}
    kubernetes = workers.get("kubernetes")
    for part in (data, workers, kubernetes if isinstance(kubernetes, dict) else {}):
        yield from shareable(part)


def _items(place: Place, path: Path) -> list[tuple[Node, Any]]:
    """The items of a list that is written in the place itself, with their data."""
    node: Node | None = place.home
    data: Any = place.data
    for key in path:
        node = _child(node, key)
        data = data.get(key) if isinstance(data, dict) else None
    if node is None or node.items is None or not isinstance(data, list):
        return []
    return list(zip(node.items, data, strict=True))


def _note(container: Mapping[str, Any]) -> Note | None:
    for entry in shareable(container):
        if entry["name"] == NOTE_VARIABLE:
            return Note.read(str(entry.get("value")))
    return None
