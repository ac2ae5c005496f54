"""Any template, in any handwriting: what comes in goes out again, and nothing else changes."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from agent.airflow.inject.injecting import Refused
from agent.airflow.inject.places import CHART_LISTS, OLD_CHART_LISTS, Lists
from agent.airflow.inject.sidecar import Mode, Options, Position
from tests.inject.files import expected, injected, loaded, removed, without_note
from tests.inject.writing import Hand

QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking: each example takes a good part of a second, and shows what it was."""

words = st.sampled_from(["a", "second", "7", "true", "~", "x: y", "with # hash", "it's", 'a "b"', "é", "", "{{ x }}"])
texts = words | st.sampled_from(["line\nline\n", "exec \\\nairflow", "a\n\nb\n", "\ttab", " space "])
names = st.sampled_from(["clone", "wait", "proxy", "certificates"])
variables = st.lists(st.fixed_dictionaries({"name": names, "value": texts}), max_size=2)
containers = st.fixed_dictionaries(
    {"name": names},
    optional={
        "image": words,
        "args": st.lists(texts, max_size=3),
        "env": variables,
        "resources": st.just({}) | st.just({"limits": {"cpu": "1"}}),
        "command": st.none(),
    },
)
bases = containers.map(lambda made: {**made, "name": "base"})
volumes = st.fixed_dictionaries(
    {"name": words}, optional={"emptyDir": st.just({}), "configMap": st.just({"name": "x"})}
)


def maybe_none(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.just([]) | st.lists(values, min_size=1, max_size=2)


specs = st.fixed_dictionaries(
    {"containers": st.builds(lambda base, others: [base, *others], bases, st.lists(containers, max_size=2))},
    optional={
        "initContainers": maybe_none(containers),
        "volumes": maybe_none(volumes),
        "restartPolicy": st.just("Never"),
        "nodeSelector": st.none() | st.just({}) | st.just({"disk": "ssd"}),
        "tolerations": st.none() | st.just([{"key": "a"}]),
        "hostname": texts,
    },
)


@st.composite
def shuffled(draw: st.DrawFn, values: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """A mapping in any order of its keys."""
    made = draw(values)
    return {key: made[key] for key in draw(st.permutations(list(made)))}


pods = st.fixed_dictionaries(
    {"kind": st.just("Pod"), "spec": shuffled(specs)},
    optional={"metadata": st.just({"name": "x"}) | st.none(), "apiVersion": st.just("v1"), "x": texts},
)

options_of_pods = st.builds(
    Options,
    mode=st.sampled_from(Mode),
    position=st.sampled_from(Position),
    startup_probe=st.booleans(),
    image=st.sampled_from(["netprobe:1", "registry.example.com/a/b@sha256:00"]),
)


@st.composite
def files(draw: st.DrawFn, documents: st.SearchStrategy[dict[str, Any]], most: int) -> tuple[list[Any], bytes]:
    """What a file says, and the file."""
    said = draw(st.lists(shuffled(documents), min_size=1, max_size=most))
    random = Random(draw(st.integers(0, 1 << 32)))
    step = draw(st.sampled_from([1, 2, 2, 3, 4, 8]))
    hand = Hand(
        random=random,
        step=step,
        dash=draw(st.integers(0, step)),
        gap=draw(st.sampled_from([1, 1, 1, 3])),
        noise=draw(st.sampled_from([0.0, 0.1, 0.3, 0.6])),
    )
    style = draw(st.sampled_from(["block", "block", "block", "json", "pretty", "tabs"]))
    if style == "block":
        written = ["\n".join(hand.write(document)) for document in said]
    else:
        indent = {"json": None, "pretty": 2, "tabs": "\t"}[style]
        written = [json.dumps(document, indent=indent) for document in said]
        written, said = (written[:1], said[:1]) if style == "tabs" else (written, said)
    text = "\n---\n".join(written) + draw(st.sampled_from(["\n", "\n", "\n\n", "", "\n...\n"]))
    return said, text.replace("\n", draw(st.sampled_from(["\n", "\n", "\r\n"]))).encode()


@settings(max_examples=40, deadline=None, phases=QUICK, report_multiple_bugs=False)
@given(file=files(pods, 2), first=options_of_pods, second=options_of_pods)
def test_any_pod(file: tuple[list[Any], bytes], first: Options, second: Options) -> None:
    """Injected, injected again, injected otherwise, removed."""
    said, data = file
    # But for a block of text that ends with the file, the writer writes what was said.
    assert loaded(data) == said or not data.endswith(b"\n")
    assume(loaded(data) == said)

    once = injected(data, first)
    changed = loaded(once)
    assert [without_note(pod["spec"]) for pod in changed] == [expected(pod["spec"], first) for pod in said]
    assert [{**pod, "spec": None} for pod in changed] == [{**pod, "spec": None} for pod in said]
    assert injected(once, first) == once
    assert injected(once, second) == injected(data, second)
    assert removed(once) == data


extras = {"extraInitContainers": maybe_none(containers), "extraVolumes": maybe_none(volumes)}
kubernetes = st.none() | st.fixed_dictionaries({}, optional={**extras, "env": variables})
workers = st.none() | st.fixed_dictionaries({}, optional={**extras, "kubernetes": kubernetes, "replicas": st.just(1)})
values = st.fixed_dictionaries({"executor": words}, optional={"workers": workers, "env": variables, "dags": st.none()})


def hides_a_list(said: dict[str, Any]) -> bool:
    """Whether a list for the sidecar alone would be the newer one that the chart takes instead of an older one."""
    older = said.get("workers") or {}
    newer = older.get("kubernetes") or {}
    return any(older.get(key) and not newer.get(key) for key in extras)


@settings(max_examples=30, deadline=None, phases=QUICK, report_multiple_bugs=False)
@given(file=files(values, 1), old=st.booleans(), last=st.booleans())
def test_any_values_of_the_chart(file: tuple[list[Any], bytes], *, old: bool, last: bool) -> None:
    """Injected, injected again, removed; of either age of the chart."""
    said, data = file
    (said,) = said if loaded(data) == said else loaded(data)
    lists: Lists = OLD_CHART_LISTS if old else CHART_LISTS
    options = Options(position=Position.LAST if last else Position.FIRST)

    if not old and hides_a_list(said):
        with pytest.raises(Refused, match="the chart takes one of them"):
            injected(data, options, lists)
        return
    once = injected(data, options, lists)
    (changed,) = loaded(once)
    wanted = copy.deepcopy(said)
    place = wanted
    for key in ("workers",) if old else ("workers", "kubernetes"):
        place[key] = place.get(key) or {}
        place = place[key]
    pod = {"containers": [], "initContainers": place.get("extraInitContainers"), "volumes": place.get("extraVolumes")}
    with_sidecar = expected(pod, options)
    place["extraInitContainers"], place["extraVolumes"] = with_sidecar["initContainers"], with_sidecar["volumes"]
    for key in ("workers",) if old else ("workers", "kubernetes"):
        changed, wanted = ({**holder, **holder.pop(key)} for holder in (changed, wanted))
    changed["initContainers"], changed["containers"] = changed.pop("extraInitContainers"), []
    wanted["initContainers"], wanted["containers"] = wanted.pop("extraInitContainers"), []
    assert without_note(changed) == wanted
    assert injected(once, options, lists) == once
    assert removed(once, CHART_LISTS) == data
