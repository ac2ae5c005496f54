"""Failing targets by the place they fail at: what is one endpoint, what fails alike, and how both are called."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from agent.diagnosis.rules.case import Case
from agent.diagnosis.rules.reading import Endpoint, brief, literal, some
from agent.diagnosis.rules.standing import Standing, Way
from agent.diagnosis.snapshot import History
from agent.wording import count

_SEVERAL = 4
"""From so many places on that fail alike, one verdict is about all of them: nobody reads twenty."""


def by_endpoint(case: Case, ways: Iterable[Way]) -> list[list[Standing]]:
    """Unexplained targets that failed so: together where they are about one address and port, or are many alike."""
    wanted = set(ways)
    failing = [
        s for s in (*case.standings.all, *case.standings.own) if case.is_open(s.name) and s.way in wanted and s.fails
    ]
    return together(_grouped(failing, lambda s: (s.endpoint or s.host, s.way)))


def by_host(case: Case, ways: Iterable[Way]) -> list[list[Standing]]:
    """The same by address alone, whatever the port."""
    wanted = set(ways)
    failing = [s for s in case.standings.all if case.is_open(s.name) and s.way in wanted and s.fails]
    return together(_grouped(failing, lambda s: (s.host, s.way)))


def together(places: Sequence[list[Standing]]) -> list[list[Standing]]:
    """Places that fail in the same way in the same scope as one, if there are many."""
    alike = _grouped([found[0] for found in places], lambda s: (s.scope, s.way))
    merged = {(found[0].scope, found[0].way) for found in alike if len(found) >= _SEVERAL}
    separate = [found for found in places if (found[0].scope, found[0].way) not in merged]
    return [
        *separate,
        *([s for found in places if (found[0].scope, found[0].way) == key for s in found] for key in sorted(merged)),
    ]


def _grouped(standings: Iterable[Standing], key: Callable[[Standing], Hashable]) -> list[list[Standing]]:
    groups: dict[Hashable, list[Standing]] = {}
    for standing in standings:
        groups.setdefault(key(standing), []).append(standing)
    return list(groups.values())


def histories_of(standings: Sequence[Standing], case: Case) -> list[History]:
    """In the order of the configuration."""
    shown = {s.name for s in standings}
    return [h for h in case.snapshot.histories if h.name in shown]


def address(place: Endpoint) -> str:
    """`192.0.2.1:443`, `[2001:db8::1]:443`."""
    return f"[{place[0]}]:{place[1]}" if ":" in place[0] else f"{place[0]}:{place[1]}"


def called(standing: Standing) -> str:
    """`db.example.com (192.0.2.1:5432)`, or the address alone where there is no name."""
    host = standing.history.target.options.host
    if standing.endpoint is None:
        return brief(str(host))
    shown = address(standing.endpoint)
    return f"{brief(str(host))} ({shown})" if host and literal(standing.history.target) is None else shown


def all_called(standings: Sequence[Standing]) -> str:
    """One place by its name and address; several by their number and some of their names."""
    places = list(dict.fromkeys(called(s) for s in standings))
    if len(places) == 1:
        return places[0]
    hosts = [brief(str(s.history.target.options.host)) for s in standings]
    return f"{count(len(places), 'address', 'addresses')} ({some(hosts)})"


def are_several(standings: Sequence[Standing]) -> bool:
    """Whether they are about more than one address."""
    return len({s.endpoint or s.host for s in standings}) > 1


def who_refused(standing: Standing) -> list[str]:
    """How the refusal came, as evidence."""
    if standing.way is Way.CLOSED:
        return ["the refusal came as a RST, as a host's own does"]
    if standing.icmp is not None:
        return [f"the refusal came as an ICMP message from {standing.icmp_from or 'somebody'}: {standing.icmp}"]
    if standing.way is Way.REJECTED:
        return ["the refusal came as an ICMP message"]
    return []
