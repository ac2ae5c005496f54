"""The committed dashboards: what the code makes, whole, and nothing that Prometheus or Grafana would not understand."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from agent.diagnosis.verdict import Cause
from agent.sinks.metrics import FAMILIES, SELF_FAMILIES
from grafana import causes, look
from grafana.panels import WIDTH
from grafana.variables import RUNBOOK
from grafana.write import FOLDER, documents
from tests.grafana.queries import LABEL_VALUES, NEEDS, Query, dashboards, panels, queries
from tests.lab.newer import VERSIONS, programs_of

ROOT = Path(__file__).parents[2]
DASHBOARDS = dashboards()
UIDS = sorted(DASHBOARDS)
EVERYWHERE = [pytest.param(document, id=uid) for uid, document in DASHBOARDS.items()]
QUERIES = queries({"dag_id": "orders", "target": "api"})

UNBOUNDED = {"pod", "instance", "run_id", "try_number", "map_index", "node", "address"}
"""Labels that each pod or run adds values to: nothing may be joined by them."""
OF_GRAFANA = {
    "__all",
    "__data",
    "__field",
    "__interval",
    "__interval_ms",
    "__range",
    "__rate_interval",
    "__url_time_range",
}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
OF_PROMETHEUS = {
    "scrape_duration_seconds",
    "scrape_samples_post_metric_relabeling",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_rule_group_interval_seconds",
    "prometheus_rule_group_last_duration_seconds",
}
OF_PROCESSES = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def test_the_files_are_what_the_code_makes() -> None:
    """They are not edited: whoever changes a dashboard runs `make dashboards`."""
    made = dict(documents())

    assert sorted(FOLDER.glob("*.json")) == sorted(made)
    for file, text in made.items():
        assert file.read_text("utf-8") == text, "make dashboards"


def test_there_is_one_for_each_question() -> None:
    assert UIDS == ["netprobe-fleet", "netprobe-self", "netprobe-target", "netprobe-task"]
    assert all(document["title"].endswith("?") for document in DASHBOARDS.values())


# --- panels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", EVERYWHERE)
def test_every_panel_says_what_it_shows(document: dict[str, Any]) -> None:
    for panel in panels(document):
        title = panel["title"]
        assert title
        assert panel["description"].endswith("."), title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["targets"], title
        for held in (panel, *panel["targets"]):
            assert held["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, title
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references), title
        assert "thresholds" in panel["fieldConfig"]["defaults"] or panel["type"] == "heatmap", title
    titles = [panel["title"] for panel in panels(document)]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("document", EVERYWHERE)
def test_panels_have_numbers_and_places_of_their_own(document: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in document["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in document["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= WIDTH, panel["title"]
    for one, other in combinations(document["panels"], 2):
        assert not overlapping(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def overlapping(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_places_would_be_seen_to_overlap() -> None:
    """The test above can fail."""
    assert overlapping({"x": 0, "y": 0, "w": 12, "h": 8}, {"x": 11, "y": 7, "w": 12, "h": 8})
    assert not overlapping({"x": 0, "y": 0, "w": 12, "h": 8}, {"x": 12, "y": 0, "w": 12, "h": 8})


@pytest.mark.parametrize("document", EVERYWHERE)
def test_the_first_row_answers_in_numbers(document: dict[str, Any]) -> None:
    """One look is enough: what stands on top are numbers at the end of the time range, with colours."""
    (top, *_) = (panel["gridPos"]["y"] for panel in panels(document))
    first = [panel for panel in panels(document) if panel["gridPos"]["y"] == top]

    assert len(first) > 3
    assert {panel["type"] for panel in first} == {"stat"}
    assert sum(len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1 for panel in first) >= 3


@pytest.mark.parametrize("document", EVERYWHERE)
def test_queries_over_time_see_every_sample(document: dict[str, Any]) -> None:
    """A pod of a few seconds leaves one sample; points are no closer than recording rules and scrapes."""
    for panel in panels(document):
        for target in panel["targets"]:
            if target.get("range"):
                assert target["interval"] in {"30s", "1m"}, panel["title"]
            else:
                assert target["instant"] is True, panel["title"]


def said(panel: dict[str, Any], value: float | None) -> tuple[str, str] | None:
    """In which words, and in which colour, a panel says a value; None where it shows the number."""
    for mapping in panel["fieldConfig"]["defaults"].get("mappings", ()):
        options = mapping["options"]
        if mapping["type"] == "value":
            found = options.get(f"{value:g}") if value is not None else None
        else:
            null = options.get("match") == "null+nan"
            applies = null if value is None else not null and options["from"] <= value <= options["to"]
            found = options["result"] if applies else None
        if found:
            return found["text"], found["color"]
    return None


def test_the_answers_are_in_words() -> None:
    shown = {(uid, panel["title"]): panel for uid, document in DASHBOARDS.items() for panel in panels(document)}
    hurting = shown["netprobe-fleet", "Is the network hurting my DAGs?"]
    hurt = shown["netprobe-task", "Did the network hurt it?"]

    answers = [said(hurting, share) for share in (0.0, 1 / 10_000, 0.249, 0.25, 1.0)]
    assert answers == [("No", "green"), *[("For some pods", "orange")] * 2, *[("Yes", "red")] * 2]
    assert [said(hurt, share) for share in (0.0, 0.1, 0.5)] == [
        ("No", "green"),
        ("Some of its pods", "orange"),
        ("Yes", "red"),
    ]
    assert said(shown["netprobe-target", "Fails for"], 0) == ("nobody", "green")


@pytest.mark.parametrize("document", EVERYWHERE)
def test_what_nobody_knows_is_neither_good_nor_bad(document: dict[str, Any]) -> None:
    for panel in panels(document):
        configured = panel["fieldConfig"]["defaults"]
        if panel["type"] == "stat" and "noValue" in configured and len(configured["thresholds"]["steps"]) > 1:
            assert said(panel, None) == (configured["noValue"], look.GREY), panel["title"]


def test_no_agent_is_not_shown_as_well() -> None:
    """On the page about agents a number is of agents that are there, or there is none."""
    for panel in panels(DASHBOARDS["netprobe-self"]):
        if panel["type"] == "stat" and len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1:
            assert "vector(" not in panel["targets"][0]["expr"], panel["title"]
            assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]


# --- variables ------------------------------------------------------------------------------------------------------


def strings(value: Any) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def references(text: str) -> set[str]:
    return {braced or bare for braced, bare in re.findall(r"\$\{(\w+)[^}]*\}|\$([a-z_]\w*)", text)}


@pytest.mark.parametrize("document", EVERYWHERE)
def test_every_variable_is_defined_and_used(document: dict[str, Any]) -> None:
    defined = [variable["name"] for variable in document["templating"]["list"]]
    used = set().union(*(references(text) for text in strings(document)))

    assert defined[0] == "datasource"
    assert used - OF_GRAFANA == set(defined)


@pytest.mark.parametrize("document", EVERYWHERE)
def test_what_is_chosen_first_narrows_down_what_can_be_chosen_next(document: dict[str, Any]) -> None:
    """A variable may refer to those before it, or Grafana would have to guess an order."""
    known: set[str] = set()
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            asked = LABEL_VALUES.fullmatch(variable["query"])
            assert asked is not None
            assert references(variable["query"]) <= known
            assert asked["label"] == variable["name"], "what an alert's link names var-… is called like its label"
            assert bool(variable["includeAll"]) == bool(variable["multi"])
        known.add(variable["name"])


@pytest.mark.parametrize("document", EVERYWHERE)
def test_a_variable_of_several_values_is_matched_as_a_pattern(document: dict[str, Any]) -> None:
    several = {variable["name"]: bool(variable["multi"]) for variable in document["templating"]["list"]}
    for text in strings(document):
        for name, operator in re.findall(r'(\w+)(=~|=|!=|!~)"\$\w+"', text):
            assert operator == ("=~" if several[name] else "="), text


# --- links ----------------------------------------------------------------------------------------------------------


def urls(document: dict[str, Any]) -> Iterator[str]:
    for panel in panels(document):
        configured = panel["fieldConfig"]
        for held in (configured["defaults"], *(p for o in configured.get("overrides", ()) for p in o["properties"])):
            for link in held.get("links", ()) or (held.get("value", ()) if held.get("id") == "links" else ()):
                yield link["url"]


@pytest.mark.parametrize("document", EVERYWHERE)
def test_links_lead_to_dashboards_that_exist_and_to_the_runbook(document: dict[str, Any]) -> None:
    """With the time range, the data source and variables that the other dashboard has."""
    for url in urls(document):
        if url.startswith("${runbook:raw}#"):
            assert "cause}" in url
            continue
        found = re.fullmatch(r"/d/(?P<uid>[\w-]+)\?(?P<query>.+)", url)
        assert found is not None, url
        there = {variable["name"] for variable in DASHBOARDS[found["uid"]]["templating"]["list"]}
        carried = set(re.findall(r"var-(\w+)=|\$\{(\w+):queryparam\}", found["query"]))
        assert {one or other for one, other in carried} <= there, url
        assert "${__url_time_range}" in url
        assert "${datasource:queryparam}" in url
        assert re.findall(r"\$\{__[^}]+\}", url.replace(":percentencode}", "")) == ["${__url_time_range}"], (
            "a + in a run_id"
        )


@pytest.mark.parametrize("document", EVERYWHERE)
def test_each_dashboard_leads_to_the_others_and_to_those_of_airflow(document: dict[str, Any]) -> None:
    others = [link for link in document["links"] if link["type"] == "link"]
    by_tag = [link for link in document["links"] if link["type"] == "dashboards"]

    assert [link["tags"] for link in by_tag] == [["apache-airflow-mixin"], ["airflow"]]
    for link in by_tag:
        assert link["keepTime"] is True
        assert link["asDropdown"] is False, "a list of nothing where there is none"
    here = {variable["name"]: bool(variable["multi"]) for variable in document["templating"]["list"]}
    led = set()
    for link in others:
        assert link["keepTime"] is True
        uid, _, carried = link["url"].removeprefix("/d/").partition("?")
        led.add(uid)
        there = {variable["name"]: bool(variable["multi"]) for variable in DASHBOARDS[uid]["templating"]["list"]}
        names = re.findall(r"\$\{(\w+):queryparam\}", carried)
        assert {"datasource", "namespace"} <= set(names)
        for name in names:
            assert there[name] >= here[name], f'"All" of {name} would be taken for a value'
    assert led == set(UIDS) - {document["uid"]}


def test_cells_and_series_lead_from_one_question_to_the_next() -> None:
    leads = {
        (uid, found[0])
        for uid, document in DASHBOARDS.items()
        for url in urls(document)
        if (found := re.findall(r"^/d/([\w-]+)", url))
    }
    assert {
        ("netprobe-fleet", "netprobe-target"),
        ("netprobe-fleet", "netprobe-task"),
        ("netprobe-target", "netprobe-task"),
        ("netprobe-task", "netprobe-target"),
    } <= leads


def test_the_runbook_is_where_alerts_say_it_is() -> None:
    for document in DASHBOARDS.values():
        for variable in document["templating"]["list"]:
            if variable["name"] == "runbook":
                assert variable["query"] == RUNBOOK
    assert RUNBOOK == "https://runbooks.example.com/netprobe/runbook.md"


def test_alerts_lead_to_dashboards_with_the_variables_that_these_need() -> None:
    """Where one value has to be chosen, Grafana would choose the first of the alphabet."""
    urls = {rule["annotations"]["dashboard_url"] for rule in rules() if "alert" in rule}

    assert urls
    for url in urls:
        found = re.fullmatch(r"https://grafana[.]example[.]com/d/(?P<uid>[\w-]+)(?P<query>\?.*)?", url)
        assert found is not None, url
        there = [one for one in DASHBOARDS[found["uid"]]["templating"]["list"] if one["type"] == "query"]
        given = set(re.findall(r"var-(\w+)=", found["query"] or ""))
        assert given <= {variable["name"] for variable in there}, url
        assert {variable["name"] for variable in there if not variable["includeAll"]} <= given, url


def test_links_of_certificates_reach_back_to_what_was_seen_of_them() -> None:
    """A DAG of once a week has seen it last, and Grafana offers no target that is not within the time range."""
    urls = {
        rule["alert"]: rule["annotations"]["dashboard_url"]
        for rule in rules()
        if rule.get("alert", "").startswith("NetprobeCertificate")
    }

    assert len(urls) == 3
    for url in urls.values():
        assert re.search(r"&from=now-8d(&|$)", url), url


# --- causes ---------------------------------------------------------------------------------------------------------


def test_every_cause_has_one_colour() -> None:
    coloured = [cause for family in causes.FAMILIES.values() for cause in family.causes]

    assert sorted(coloured) == sorted(Cause)
    assert len({family.colour for family in causes.FAMILIES.values()}) == len(causes.FAMILIES)


def test_panels_of_causes_have_these_colours() -> None:
    shown = 0
    for document in DASHBOARDS.values():
        for panel in panels(document):
            if panel["type"] == "timeseries" and "sum by (cause)" in panel["targets"][0]["expr"]:
                shown += 1
                patterns = [o["matcher"]["options"].strip("/") for o in panel["fieldConfig"]["overrides"]]
                for cause in Cause:
                    assert sum(re.fullmatch(pattern, cause) is not None for pattern in patterns) == 1, panel["title"]
    assert shown == 3


# --- queries --------------------------------------------------------------------------------------------------------


@cache
def rules() -> list[dict[str, Any]]:
    """Every rule that is shipped, of recordings and of alerts."""
    files = [yaml.safe_load(file.read_text("utf-8")) for file in (ROOT / "deploy/prometheus/rules").glob("*.yaml")]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


@cache
def known_names() -> set[str]:
    """Of every series that a dashboard may ask for."""
    of_agents = {
        family.name + suffix for family in (*FAMILIES, *SELF_FAMILIES) for suffix in SUFFIXES.get(family.type, ("",))
    }
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert recorded
    return of_agents | recorded | OF_PROMETHEUS | OF_PROCESSES


def within(expression: promql_parser.Expr) -> Iterator[promql_parser.Expr]:
    """An expression and everything in it."""
    found: list[promql_parser.Expr] = []

    def collect(part: promql_parser.Expr) -> bool:
        found.append(part)
        return True

    promql_parser.walk(expression, collect)
    yield from found


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_queries_ask_for_series_that_exist(query: Query) -> None:
    names = set()
    for part in within(promql_parser.parse(query.expr)):
        if isinstance(part, promql_parser.VectorSelector):
            alternatives = [m.value.split("|") for m in part.matchers.matchers if m.name == "__name__"]
            names |= {part.name} if part.name else {name for some in alternatives for name in some}
    assert names <= known_names()


def joined_by(expr: str) -> set[str]:
    """The labels by which an expression joins series of different kinds.

    Where it does not say by which, by all that both sides have. `or` joins nothing then: it adds what is not there yet.
    """
    labels: set[str] = set()
    for part in within(promql_parser.parse(expr)):
        if isinstance(part, promql_parser.BinaryExpr):
            matching = part.modifier.matching if part.modifier is not None else None
            if matching is not None:
                assert str(matching.type).endswith("Include"), "on (…) says by what; ignoring (…) does not"
                labels |= set(matching.labels)
            elif str(part.op) != "or" and metrics_of(part.lhs) != metrics_of(part.rhs):
                labels |= labels_of(part.lhs) & labels_of(part.rhs)
    return labels


def metrics_of(expression: promql_parser.Expr) -> set[str]:
    """The names of all that an expression selects."""
    return {part.name or str(part) for part in within(expression) if isinstance(part, promql_parser.VectorSelector)}


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_no_query_joins_by_a_label_that_pods_or_runs_add_values_to(query: Query) -> None:
    assert not UNBOUNDED & joined_by(query.expr)


def test_such_a_join_would_be_seen() -> None:
    """The test above can fail."""
    assert joined_by("sum(a * on (namespace, pod) group_left (run_id) netprobe_task_info) or vector(0)") & UNBOUNDED
    for expr in ("a / b", "topk(10, sum by (pod) (rate(a[5m]) or a / (timestamp(a) - b)))", "a unless b", "a > bool b"):
        assert joined_by(expr) & UNBOUNDED, expr
    for expr in ("a - a offset 5m", "a or b", "sum(a) / sum(b)", "a * 2", "netprobe:a / netprobe:b"):
        assert not joined_by(expr) & UNBOUNDED, expr
    with pytest.raises(AssertionError, match="ignoring"):
        joined_by("a / ignoring (cause) b")


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_what_is_told_apart_by_pod_is_limited(query: Query) -> None:
    """A panel may show pods: so many. All else is the same size for ten pods and for ten thousand."""
    expression = promql_parser.parse(query.expr)
    shown = labels_of(expression)
    if shown & UNBOUNDED and query.kind == "panel":
        assert query.expr.startswith("topk("), query.expr


def labels_of(expression: promql_parser.Expr) -> set[str]:
    """The labels that tell the series of an answer apart, as far as an aggregation on top names them."""
    if isinstance(expression, promql_parser.ParenExpr):
        return labels_of(expression.expr)
    if isinstance(expression, promql_parser.BinaryExpr):
        if str(expression.op) in {"and", "unless"}:
            return labels_of(expression.lhs)
        return labels_of(expression.lhs) | labels_of(expression.rhs)
    if isinstance(expression, promql_parser.Call):
        return set().union(*map(labels_of, expression.args))
    if isinstance(expression, promql_parser.AggregateExpr):
        if str(expression.op) in {"topk", "bottomk"}:
            return labels_of(expression.expr)
        return set(expression.modifier.labels) if expression.modifier else set()
    if isinstance(expression, promql_parser.VectorSelector | promql_parser.MatrixSelector):
        # A recorded series has no pod.
        return set() if "netprobe:" in str(expression) else UNBOUNDED
    return set()


def test_pods_without_a_limit_would_be_seen() -> None:
    """The test above can fail."""
    for expr in ("sum by (pod) (a)", "rate(process_cpu_seconds_total[5m])", "label_replace(a, 'b', '', '', '') > 0"):
        assert labels_of(promql_parser.parse(expr)) & UNBOUNDED, expr
    assert labels_of(promql_parser.parse("sum by (target) (a) / netprobe:target_pods:count2m")) == {"target"}


@pytest.mark.parametrize("version", VERSIONS)
def test_prometheus_itself_can_read_every_query(version: str, tmp_path: Path) -> None:
    made = [{"record": f"query:{number}", "expr": query.expr} for number, query in enumerate(QUERIES)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}), "utf-8")
    command = [programs_of(version).promtool, "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(QUERIES)} rules found" in done.stdout


def test_panels_that_may_be_empty_say_why() -> None:
    shown = {(uid, panel["title"]): panel for uid, document in DASHBOARDS.items() for panel in panels(document)}
    others = {
        (uid, entry["name"])
        for uid, document in DASHBOARDS.items()
        for entry in (*document["templating"]["list"], *document["annotations"]["list"])
    }
    for place in NEEDS:
        if place not in others:
            assert shown[place]["fieldConfig"]["defaults"]["noValue"], place
