"""The configuration as a whole: what amtool says to it, as it is, within another, and in the words of the operator."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, check, kustomized
from tests.lab.alertmanager import SHIPPED, Document, milliseconds, shipped
from tests.lab.newer import VERSIONS, programs_of

TEMPLATES = SHIPPED.parent / "templates/netprobe.tmpl"
OPERATED = yaml.safe_load((SHIPPED.parent / "alertmanagerconfig.yaml").read_text("utf-8"))
RETENTION = milliseconds("120h")
"""For how long Alertmanager remembers what it has sent, where it is not told otherwise."""


def complaints(file: Path, version: str = "stable") -> str:
    """What amtool says to a configuration, where it refuses it."""
    command = [programs_of(version).amtool, "check-config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr if done.returncode else ""


def receivers(file: Path, *labels: str) -> str:
    command = ["amtool", "config", "routes", "test", f"--config.file={file}", *labels]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.parametrize("version", VERSIONS)
def test_alertmanager_takes_it(version: str, tmp_path: Path) -> None:
    assert complaints(SHIPPED, version) == ""

    misspelt = tmp_path / "alertmanager.yml"
    misspelt.write_text(SHIPPED.read_text("utf-8").replace("group_wait", "group_delay"), "utf-8")
    assert "group_delay" in complaints(misspelt, version)


# --- what amtool does not see ----------------------------------------------------------------------------------------


def routes(route: Document, inherited: Document) -> Iterator[Document]:
    """Every route with all that holds for it."""
    own = {**inherited, **{key: value for key, value in route.items() if key not in {"routes", "matchers", "continue"}}}
    yield own
    for inner in route.get("routes", []):
        yield from routes(inner, own)


def test_times_go_together() -> None:
    """Alertmanager looks whether to repeat something at each `group_interval`, and forgets what it has sent."""
    (ours,) = shipped()["route"]["routes"]
    for route in routes(ours, {}):
        wait, interval, repeat = (
            milliseconds(route[key]) for key in ("group_wait", "group_interval", "repeat_interval")
        )
        assert wait < interval < repeat < RETENTION
        assert repeat % interval == 0
        assert {"cluster", "namespace"} < set(route["group_by"])


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)


def test_secrets_are_in_files() -> None:
    secrets = {
        "api_url",
        "slack_api_url",
        "routing_key",
        "service_key",
        "password",
        "smtp_auth_password",
        "auth_password",
    }

    assert secrets.isdisjoint(keys(shipped()))
    assert {"slack_api_url_file", "smtp_auth_password_file", "routing_key_file"} <= set(keys(shipped()))


def test_every_template_is_there_and_is_used() -> None:
    """What is missing, Alertmanager would notice when it has to write."""
    text = TEMPLATES.read_text("utf-8")
    defined = re.findall(r'\{\{ define "([^"]+)"', text)
    used = set(re.findall(r'\{\{-? *template "([^"]+)"', text + SHIPPED.read_text("utf-8")))

    assert len(defined) == len(set(defined))
    assert set(defined) == used


# --- within another configuration ------------------------------------------------------------------------------------

EXISTING = """\
global:
  slack_api_url_file: /etc/alertmanager/secrets/slack-url
  smtp_smarthost: smtp.example.com:587
  smtp_from: alertmanager@example.com
templates:
  - {templates}
route:
  receiver: mine
  routes:
{route}
    - matchers: [severity = "critical"]
      receiver: mine
inhibit_rules:
{rules}
  - source_matchers: [severity = "critical"]
    target_matchers: [severity = "warning"]
    equal: [alertname]
receivers:
  - name: mine
{receivers}
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_marked_parts_go_into_another_configuration(version: str, tmp_path: Path) -> None:
    """As they stand: three of them, each into the list of its name."""
    parts = re.findall(r"^ *# --- netprobe: this|^ *# --- netprobe: these", SHIPPED.read_text("utf-8"), re.MULTILINE)
    route, rules, its_receivers = re.findall(
        r"^( *# --- netprobe: (?:this|these) .*?)^ *# --- netprobe: end of ",
        SHIPPED.read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert len(parts) == 3
    file = tmp_path / "alertmanager.yml"
    file.write_text(EXISTING.format(templates=TEMPLATES, route=route, rules=rules, receivers=its_receivers), "utf-8")

    assert complaints(file, version) == ""
    assert receivers(file, "alertname=NetprobeDNSDown", "severity=page", "level=fleet") == "netprobe-page"
    assert receivers(file, "alertname=Other", "severity=critical") == "mine"


# --- in the words of the operator ------------------------------------------------------------------------------------

SECRET = "netprobe-alertmanager"
NAMES = {"apiURL": "api_url", "clientURL": "client_url"}
"""Keys whose capitals say nothing about words."""
GLOBALLY = {"from", "smarthost", "auth_username", "auth_password", "api_url", "routing_key"}
"""What the operator's resource has in each receiver, and the configuration in `global` or in a file."""


def generated(value: Any) -> Any:
    """A part of the resource as the operator writes it for Alertmanager; secrets stay references."""
    if isinstance(value, list):
        if value and all(isinstance(entry, dict) and "matchType" in entry for entry in value):
            return [f'{entry["name"]} {entry["matchType"]} "{entry["value"]}"' for entry in value]
        if value and all(isinstance(entry, dict) and entry.keys() == {"key", "value"} for entry in value):
            return {entry["key"]: entry["value"] for entry in value}
        return [generated(entry) for entry in value]
    if isinstance(value, dict):
        renamed = {"sourceMatch": "source_matchers", "targetMatch": "target_matchers", **NAMES}
        return {
            renamed.get(key, re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", key)): generated(inner)
            for key, inner in value.items()
        }
    return value


def without_what_is_global(receiver: Document) -> Document:
    return {
        kind: [
            {key: value for key, value in entry.items() if key not in GLOBALLY and not key.endswith("_file")}
            for entry in entries
        ]
        if isinstance(entries, list)
        else entries
        for kind, entries in receiver.items()
    }


def test_the_operator_is_told_the_same() -> None:
    document, spec = shipped(), generated(OPERATED["spec"])
    (route,) = document["route"]["routes"]
    _, *ours = document["receivers"]

    assert (OPERATED["apiVersion"], OPERATED["kind"]) == ("monitoring.coreos.com/v1alpha1", "AlertmanagerConfig")
    assert spec.keys() == {"route", "inhibit_rules", "receivers"}
    assert spec["route"] == route
    assert spec["inhibit_rules"] == document["inhibit_rules"]
    assert [*map(without_what_is_global, spec["receivers"])] == [*map(without_what_is_global, ours)]
    for receiver in OPERATED["spec"]["receivers"]:
        for mail in receiver.get("emailConfigs", []):
            assert (mail["smarthost"], mail["from"], mail["authUsername"]) == (
                document["global"]["smtp_smarthost"],
                document["global"]["smtp_from"],
                document["global"]["smtp_auth_username"],
            )


def test_its_secrets_are_those_that_its_first_lines_make() -> None:
    text = (SHIPPED.parent / "alertmanagerconfig.yaml").read_text("utf-8")
    made = set(re.findall(r"--from-file (\S+)", text))

    assert f"create secret generic {SECRET} " in text
    assert {(key, name) for name, key in re.findall(r"\{name: ([\w-]+), key: ([\w-]+)\}", text)} == {
        (key, SECRET) for key in made
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_alertmanager_takes_what_the_operator_makes_of_it(version: str, tmp_path: Path) -> None:
    """With the namespace that it adds to the route and to each rule, and a route of the operator's own before it."""
    spec = generated(OPERATED["spec"])
    namespace = 'namespace = "airflow"'
    spec["route"]["matchers"].append(namespace)
    for rule in spec["inhibit_rules"]:
        rule["source_matchers"].append(namespace)
        rule["target_matchers"].append(namespace)
    for receiver in spec["receivers"]:
        for slack in receiver.get("slack_configs", []):
            slack["api_url"] = "https://slack.example.com/"
        for mail in receiver.get("email_configs", []):
            mail["auth_password"] = "secret"
        for pager in receiver.get("pagerduty_configs", []):
            pager["routing_key"] = "secret"
    spec["route"] = {"receiver": "null", "routes": [{**spec["route"], "continue": True}]}
    spec["receivers"].append({"name": "null"})
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump({**spec, "templates": [str(TEMPLATES)]}), "utf-8")

    assert complaints(file, version) == ""
    page = ("alertname=NetprobeDNSDown", "severity=page", "level=fleet")
    assert receivers(file, *page, "namespace=airflow") == "netprobe-page"
    assert receivers(file, *page, "namespace=etl") == "null"


def test_the_templates_are_a_config_map() -> None:
    (made,) = kustomized(DEPLOY / "alertmanager")

    check(made)
    assert made["metadata"]["name"] == "netprobe-alertmanager"
    assert made["data"] == {TEMPLATES.name: TEMPLATES.read_text("utf-8")}
