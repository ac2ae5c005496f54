"""Puts the sidecar into a file, or takes it out, and holds the result against what it was meant to be."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent import __version__
from agent.airflow.inject.document import Source, Unreadable, reread
from agent.airflow.inject.edits import Edits
from agent.airflow.inject.meant import added, taken_out, without_nothing
from agent.airflow.inject.places import SHARING, Lists, Place, Search, base_of
from agent.airflow.inject.sidecar import NOTE_VARIABLE, Mode, Options, Position, container, volume, with_shared
from agent.airflow.inject.splice import Addition, Misfit, Note, Path, Splice
from agent.config.problem import Problem


class Refused(Exception):  # noqa: N818 - not an error of the program
    """Nothing was done; its arguments are the problems, in the order of their lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Injector:
    """What is done to files."""

    options: Options
    chart: Lists | None = None
    """The values of a chart, and where in them; otherwise pods."""
    base: str | None = None
    """The name of the task's container, where it is not Airflow's."""

    def inject(self, source: Source) -> Source:
        """The file with the sidecar in every place, and no other that was injected before. Raises Refused."""
        search = Search(source)
        places = self._places(search)
        for place in places:
            search.ours(place)
        search.workers(places, self.options, self.base)
        _stop_at(search.problems)
        clean = self.remove(source)
        search = Search(clean)
        places = search.workers(self._places(search), self.options, self.base)
        edits = Edits(clean.text)
        expected = _data(clean)
        problems: list[Problem] = []
        for place in places:
            splice = Splice(clean, place.document, place.home, edits)
            try:
                splice.plan(self._additions(place, splice.note))
            except Misfit as misfit:
                problems.extend(misfit.args)
                continue
            additions = self._additions(place, splice.note)
            splice.add(additions)
            _set(expected, clean, place, added(place.data, additions))
        _stop_at(problems)
        result = self._reread(clean, edits.applied())
        if _data(result) != expected:
            _stop_at([_not_as_meant(source)])
        if self.remove(result).text != clean.text:
            _stop_at([_not_as_meant(source)])
        return result

    def remove(self, source: Source) -> Source:
        """The file without a sidecar that was injected before. Raises Refused."""
        search = Search(source)
        found = [(place, search.ours(place)) for place in self._places(search)]
        _stop_at(search.problems)
        edits = Edits(source.text)
        expected = _data(source)
        changed: list[Place] = []
        for place, ours in found:
            if ours is not None:
                Splice(source, place.document, place.home, edits, ours.note).take_out(ours.items, ours.keys)
                changed.append(place)
                _set(expected, source, place, taken_out(place.data, _paths(place), ours.keys))
        if not changed:
            return source
        result = self._reread(source, edits.applied())
        actual = _data(result)
        # What a key without a sidecar comes back to (null, [], {}) is for its text to say.
        for documents in (actual, expected):
            for place in changed:
                index = source.documents.index(place.document)
                documents[index] = without_nothing(documents[index], [(*place.at, *path) for path in _paths(place)])
        if actual != expected:
            _stop_at([_not_as_meant(source)])
        return result

    def _places(self, search: Search) -> list[Place]:
        return search.pods() if self.chart is None else search.chart(self.chart)

    def _reread(self, source: Source, text: str) -> Source:
        try:
            result = reread(source, text)
        except Unreadable as unreadable:
            raise Refused(_not_as_meant(source)) from unreadable
        if self.chart is not None and not result.documents:
            Search(result).chart(self.chart)
        return result

    def _additions(self, place: Place, note: Note) -> list[Addition]:
        """What is put into one place. The container carries the note, which `Splice.plan` fills."""
        options = self.options
        native = options.mode is Mode.NATIVE
        made = container(options, ends_with_task=place.ends_with_task)
        made = with_shared(made, base_of(place, self.base) or {}, options)
        made["env"] = [{"name": NOTE_VARIABLE, "value": note.written(__version__)}, *made["env"]]
        lists = place.lists
        additions = [
            Addition(
                path=lists.init_containers if native else lists.containers,
                value=made,
                first=native and options.position is Position.FIRST,
                before="containers",
            )
        ]
        if options.watches_processes and place.ends_with_task and SHARING not in place.data:
            additions.append(Addition(path=(SHARING,), value=True, item=False, before="containers"))
        additions.append(Addition(path=lists.volumes, value=volume(options)))
        return additions


def _paths(place: Place) -> list[Path]:
    return [path for lists in place.every for path in (lists.init_containers, lists.containers, lists.volumes)]


def _data(source: Source) -> list[Any]:
    return copy.deepcopy([document.data for document in source.documents])


def _set(documents: list[Any], source: Source, place: Place, home: Any) -> None:
    """Put other data in the place of a home."""
    index = source.documents.index(place.document)
    if not place.at:
        documents[index] = home
        return
    *parents, last = place.at
    holder = documents[index]
    for key in parents:
        holder = holder[key]
    holder[last] = home


def _stop_at(problems: Sequence[Problem]) -> None:
    if problems:
        raise Refused(*sorted(problems, key=lambda problem: (problem.mark.line, problem.mark.column)))


def _not_as_meant(source: Source) -> Problem:
    """For what anchors, merged keys and unusual forms may do: nothing is changed that was not meant to be."""
    message = "expected a sidecar to fit in without another change, got a form of YAML that does not allow it"
    if not source.text.endswith(("\n", "\r")):
        why = "a block of text (|) at the end of a file without a line end"
    else:
        why = "anchors, aliases and merged keys (<<) around the lists of a pod"
    return source.problem(0, f"{message}; {why} may be why")
