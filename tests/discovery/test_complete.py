"""What becomes a target: which wins, what is left out, what it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.airflow.discovery.choosing import CONNECTIONS_LIMIT, SKIPPED_LIMIT
from agent.airflow.discovery.complete import complete
from agent.config import Config, DiscoverOptions, load
from agent.config.sections import MetadataDb, Source
from agent.model import Role, Scope, Target
from tests.discovery.finding import CLUSTER, addresses, discovered, reasons, resolv_conf

DB = "postgresql+psycopg2://airflow:secret@airflow-pgbouncer.airflow:6543/airflow-metadata?sslmode=disable"
API = {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://airflow-api-server:8080/execution/"}


def configured(tmp_path: Path, text: str, environ: dict[str, str]) -> tuple[Config, dict[str, str]]:
    """A configuration from text, completed; and why something was skipped, by source."""
    path = tmp_path / "netprobe.yaml"
    path.write_text(text, encoding="utf-8")
    config, found = complete(load(path, {}), environ)
    return config, {item.source: item.why for item in found.skipped}


# --- the configuration's own targets --------------------------------------------------------------------------------


def test_without_the_section_nothing_is_added(tmp_path: Path) -> None:
    """Discovery is asked for; it never surprises."""
    text = "targets: [{name: a, type: tcp, address: 'a:1'}]"

    config, skipped = configured(tmp_path, text, {"AIRFLOW_CONN_X": "redis://db"})

    assert [target.name for target in config.targets] == ["a"]
    assert skipped == {}


def test_targets_of_the_configuration_come_first_and_win(tmp_path: Path) -> None:
    """By their name, and by the host and port they ask, whatever their type."""
    text = """
    discover: airflow
    targets:
      - {name: conn-one, type: tcp, address: elsewhere:1}
      - {name: orders, type: tcp, address: "Orders.example.com.:5432"}
    """
    environ = {
        "AIRFLOW_CONN_ONE": "redis://one",
        "AIRFLOW_CONN_TWO": "postgres://u:p@orders.example.com/app",
        "AIRFLOW_CONN_THREE": "postgres://orders.example.com:5433/app",
    }

    config, skipped = configured(tmp_path, text, environ)

    assert [target.name for target in config.targets] == ["conn-one", "orders", "conn-three"]
    assert skipped == {
        "AIRFLOW_CONN_ONE": "a target of the configuration has its name, conn-one",
        "AIRFLOW_CONN_TWO": "the target orders has its host and port",
    }


def test_defaults_of_the_configuration_count_for_what_is_found(tmp_path: Path) -> None:
    """Nobody configures a slow rhythm to have half of the targets ignore it."""
    text = "{discover: [airflow], defaults: {interval: 2m, timeout: 3s, family: 4}}"

    config, _ = configured(tmp_path, text, {"AIRFLOW_CONN_X": "redis://db"})

    (target,) = config.targets
    assert (target.interval_seconds, target.timeout_seconds, target.options.family) == (120.0, 3.0, "4")


def test_without_defaults_a_found_target_is_probed_like_any_other() -> None:
    """Every 15 seconds, by the defaults of the reference."""
    (target,) = discovered({"AIRFLOW_CONN_X": "redis://db"}).targets

    assert (target.interval_seconds, target.timeout_seconds, target.role) == (15.0, 6.0, Role.CONNECTION)


# --- the same place twice -------------------------------------------------------------------------------------------


def test_what_is_named_twice_is_one_target_with_the_most_particular_role() -> None:
    """The chart hands the metadata database on as a connection, too."""
    environ = {
        "AIRFLOW_CONN_AIRFLOW_DB": DB.replace("+psycopg2", ""),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": DB,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{DB.replace('+psycopg2', '')}",
    }

    found = discovered(environ)

    assert [(target.name, target.role) for target in found.targets] == [("metadata-db", Role.METADATA_DB)]
    assert dict(found.sources) == {"metadata-db": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"}
    assert {item.source: item.why for item in found.skipped} == {
        "AIRFLOW__CELERY__RESULT_BACKEND": "the target metadata-db has its host and port",
        "AIRFLOW_CONN_AIRFLOW_DB": "the target metadata-db has its host and port",
    }


def test_names_are_unique_readable_and_stable() -> None:
    """Ids that differ in what a name cannot hold get numbers, in the order of their variables."""
    environ = {
        "AIRFLOW_CONN_ORDERS_DB": "redis://one",
        "AIRFLOW_CONN_ORDERS-DB": "redis://two",
        "AIRFLOW_CONN__SALES___ORDERS_DB": "redis://three",
        "AIRFLOW_CONN__ODD": "redis://four",
        "AIRFLOW_CONN_ŻÓŁĆ": "redis://five",
        "AIRFLOW_CONN_" + "A" * 300: "redis://six",
    }

    names = addresses(environ)

    assert names == {
        "conn-orders-db": "tcp two:6379",
        "conn-orders-db-2": "tcp one:6379",
        "conn-sales.orders-db": "tcp three:6379",
        "conn-odd": "tcp four:6379",
        "conn": "tcp five:6379",
        "conn-" + "a" * 75: "tcp six:6379",
    }
    assert names == addresses(dict(reversed(environ.items())))


# --- servers that shut out who does not log in ----------------------------------------------------------------------


@pytest.mark.parametrize("conn_type", ["mysql", "ssh", "sftp", "starrocks"])
def test_a_server_that_shuts_strangers_out_is_not_connected_to(conn_type: str) -> None:
    """A probe that has a node's address blocked would be the end of every task there."""
    (target,) = discovered({"AIRFLOW_CONN_X": f"{conn_type}://u:p@server.example.com"}).targets

    assert (target.type, target.address) == ("dns", "server.example.com A @pod")
    assert target.options.expect.min_answers == 0


@pytest.mark.parametrize("host", ["10.0.0.1", "[2001:db8::1]", "localhost"])
def test_without_a_name_to_look_up_it_is_left_alone(host: str) -> None:
    """An address needs no lookup, and a name of the hosts file has none."""
    environ = {"AIRFLOW_CONN_X": f"mysql://u:p@{host}/db"}

    assert addresses(environ) == {}
    assert "shuts out who connects without a login" in reasons(environ)["AIRFLOW_CONN_X"]


# --- allow, deny, limit ---------------------------------------------------------------------------------------------

SEVERAL = {
    "AIRFLOW__CELERY__BROKER_URL": "redis://redis:6379/0",
    "AIRFLOW_CONN_A": "redis://a.example.com",
    "AIRFLOW_CONN_B": "redis://b.example.org",
    "AIRFLOW_CONN_C": "redis://c.example.com",
}


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, ["broker", "conn-a", "conn-b", "conn-c"]),
        ({"allow": ("conn-*",)}, ["conn-a", "conn-b", "conn-c"]),
        ({"allow": ("CONN-A", "*.Example.ORG")}, ["conn-a", "conn-b"]),
        ({"allow": ("conn-",)}, []),
        ({"deny": ("*.example.com",)}, ["broker", "conn-b"]),
        ({"deny": ("conn-[ab]",)}, ["broker", "conn-c"]),
        ({"allow": ("conn-*",), "deny": ("conn-b",)}, ["conn-a", "conn-c"]),
        ({"limit": 2}, ["broker", "conn-a"]),
    ],
)
def test_allow_deny_and_limit(options: dict[str, Any], left: list[str]) -> None:
    """Patterns match whole names and hosts, whatever their case; deny beats allow; connections go first."""
    assert list(addresses(SEVERAL, **options)) == left


def test_what_a_rule_leaves_out_is_told_with_the_rule() -> None:
    """Whoever misses a target finds the line of the configuration."""
    assert reasons(SEVERAL, allow=("conn-*",), deny=("conn-a",), limit=1) == {
        "AIRFLOW__CELERY__BROKER_URL": "no pattern of discover.allow matches broker or redis",
        "AIRFLOW_CONN_A": "the pattern conn-a of discover.deny matches",
        "AIRFLOW_CONN_C": "discover.limit: 1 targets have been found before it",
    }


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_an_environment_of_any_size_ends_in_a_bounded_list() -> None:
    """Ten thousand connections are a mistake somewhere; the agent starts all the same."""
    environ = {f"AIRFLOW_CONN_C{number:05}": f"redis://host{number}" for number in range(10_000)}

    found = discovered(environ, limit=10)

    assert [target.name for target in found.targets] == [f"conn-c{number:05}" for number in range(10)]
    assert len(found.skipped) == SKIPPED_LIMIT + 1
    assert found.skipped[-1].why == f"{CONNECTIONS_LIMIT - 10 - SKIPPED_LIMIT + 1} more are left out"


@pytest.mark.parametrize(
    "value",
    [
        "{" * 60_000,
        '{"extra": ' + "[" * 30_000,
        "postgres://" + "a" * 1_000_000,
        "postgres://" + ",".join(f"h{n}" for n in range(10_000)),
        "postgres://\udcff@host/db",
        "postgres://ho\x1b[31mst/db",
        "postgres://h℀st/db",
        "://",
        "{}",
        "[]",
        " ",
    ],
    ids=range(11),
)
def test_no_value_raises(value: str) -> None:
    """A value that makes no sense is a line about its variable, in every place where it may stand."""
    environ = {
        "AIRFLOW_CONN_X": value,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": value,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": value,
        "AIRFLOW__CELERY__BROKER_URL": value,
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": value,
        "OTEL_EXPORTER_OTLP_ENDPOINT": value,
    }

    found = discovered(environ, metadata_db=MetadataDb.PROBE)

    assert found.targets == ()
    assert "AIRFLOW_CONN_X" in {item.source for item in found.skipped}
    assert not [item for item in found.skipped if "internal error" in item.why]


class Unsteady(dict[str, str]):
    """An environment one of whose values cannot be read."""

    def __getitem__(self, name: str) -> str:
        if name == "AIRFLOW_CONN_B":
            raise OSError("secret")
        return super().__getitem__(name)


def test_a_defect_costs_one_source_and_quotes_nothing() -> None:
    """Whatever goes wrong in here, what was found stays found."""
    environ = Unsteady({f"AIRFLOW_CONN_{name}": f"redis://{name}" for name in "ABC"})

    found = discovered(environ)

    assert [target.name for target in found.targets] == ["conn-a", "conn-c"]
    assert [(item.source, item.why) for item in found.skipped] == [("AIRFLOW_CONN_B", "internal error: OSError")]


def test_a_defect_costs_one_setting() -> None:
    """The ones before and after it are read all the same."""

    class Without(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            if name == "AIRFLOW__LOGGING__REMOTE_LOGGING":
                raise OSError("secret")
            return super().get(name, default)

    environ = Without(
        {"AIRFLOW__CELERY__BROKER_URL": "redis://redis", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318"}
    )

    found = discovered(environ)

    assert [target.name for target in found.targets] == ["broker", "otel-collector"]
    assert [(item.source, item.why) for item in found.skipped] == [("AIRFLOW__*", "internal error: OSError")]


# --- kubernetes -----------------------------------------------------------------------------------------------------


def in_cluster(tmp_path: Path, environ: dict[str, str], search: str | None = None) -> dict[str, Target[Any]]:
    path = resolv_conf(tmp_path) if search is None else resolv_conf(tmp_path, search)
    options = DiscoverOptions(sources=(Source.KUBERNETES,))
    config = Config(targets=(), discover=options, defaults={"resolv_conf": path})
    return {target.name: target for target in complete(config, environ)[0].targets}


def test_a_pod_has_nameservers_and_an_api_server(tmp_path: Path) -> None:
    """One lookup walks all nameservers as libc would; the API server is asked for a connection and nothing else."""
    targets = in_cluster(tmp_path, CLUSTER)

    assert {name: (t.type, t.address, t.role, t.scope) for name, t in targets.items()} == {
        "nameservers": ("dns", "kubernetes.default.svc A @pod", Role.NAMESERVER, Scope.CLUSTER),
        "kubernetes-api": ("tcp", "10.96.0.1:443", Role.KUBERNETES_API, Scope.CLUSTER),
    }
    assert targets["nameservers"].options.resolv_conf == tmp_path / "resolv.conf"


def test_an_api_server_may_have_an_ipv6_address(tmp_path: Path) -> None:
    """Without brackets in the variable, with them in the address."""
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}

    assert in_cluster(tmp_path, environ)["kubernetes-api"].address == "[fd00::1]:6443"


@pytest.mark.parametrize("port", ["", "0", "tcp://10.0.0.1:443", "99999", "\u0661"])
def test_an_api_server_without_a_port_is_none(tmp_path: Path, port: str) -> None:
    """`99999` and digits of other scripts are no ports."""
    assert list(in_cluster(tmp_path, {**CLUSTER, "KUBERNETES_SERVICE_PORT": port})) == ["nameservers"]


def test_outside_a_cluster_there_is_neither(tmp_path: Path) -> None:
    """A laptop has nameservers too; none of the names a cluster has is theirs."""
    assert in_cluster(tmp_path, {}) == {}


def test_a_pod_with_the_resolver_of_its_node_has_no_name_to_ask_for(tmp_path: Path) -> None:
    """`dnsPolicy: Default`: kubernetes.default.svc does not exist there, and is no fault."""
    assert list(in_cluster(tmp_path, CLUSTER, search="eu-west-1.compute.internal")) == ["kubernetes-api"]


def test_a_lookup_that_is_configured_is_not_found_again(tmp_path: Path) -> None:
    """The same question to the same nameservers is one target."""
    text = f"""
    discover: kubernetes
    defaults: {{resolv_conf: "{resolv_conf(tmp_path)}"}}
    targets: [{{name: dns, type: dns, query: kubernetes.default.svc}}]
    """

    config, skipped = configured(tmp_path, text, CLUSTER)

    assert [target.name for target in config.targets] == ["dns", "kubernetes-api"]
    assert list(skipped.values()) == ["the target dns has its host and port"]
