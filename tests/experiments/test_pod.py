"""What is known of the pod: its resolver, namespace and Kubernetes API server."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.diagnosis.snapshot import Resolver
from agent.experiments import read_pod
from agent.experiments.pod import resolv_confs
from tests.lab.targets import target

KUBELET = """search airflow.svc.cluster.local svc.cluster.local cluster.local eu-west-1.compute.internal
nameserver 10.96.0.10
options ndots:5 timeout:1
"""


def written(directory: Path, text: str, name: str = "resolv.conf") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_a_pod_as_the_kubelet_makes_it(tmp_path: Path) -> None:
    conf = written(tmp_path, KUBELET)
    pod = read_pod(
        [target("tcp", address="db.example.com:5432", resolv_conf=str(conf))],
        1_700_000_000.0,
        {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"},
    )
    assert pod.started_at == 1_700_000_000.0
    assert pod.resolver == Resolver(
        nameservers=("10.96.0.10",),
        search=("airflow.svc.cluster.local", "svc.cluster.local", "cluster.local", "eu-west-1.compute.internal"),
        ndots=5,
        timeout_seconds=1.0,
    )
    assert (pod.namespace, pod.cluster_domain) == ("airflow", "cluster.local")
    assert pod.kubernetes_api == ("10.96.0.1", 443)


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("airflow.svc.k8s.example.com", ("airflow", "k8s.example.com")),
        ("example.com team-1.svc.cluster.local svc.cluster.local", ("team-1", "cluster.local")),
        ("svc.cluster.local cluster.local", (None, None)),
        ("a.b.svc.cluster.local", (None, None)),
        ("example.com", (None, None)),
        (".", (None, None)),
    ],
)
def test_namespace_and_cluster_domain_are_those_of_the_search_list(
    tmp_path: Path, search: str, expected: tuple[str | None, str | None]
) -> None:
    conf = written(tmp_path, f"search {search}\nnameserver 10.0.0.10\n")
    pod = read_pod([target("dns", query="db.example.com", resolv_conf=str(conf))], 0.0, {})
    assert (pod.namespace, pod.cluster_domain) == expected


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("10.96.0.1", "443", ("10.96.0.1", 443)),
        ("fd00:10:96::1", "6443", ("fd00:10:96::1", 6443)),
        ("[fd00:10:96::1]", "443", ("fd00:10:96::1", 443)),
        ("kubernetes.example.com", "443", None),
        ("", "443", None),
        ("10.96.0.1", "", None),
        ("10.96.0.1", "0", None),
        ("10.96.0.1", "65536", None),
        ("10.96.0.1", "https", None),
        ("10.96.0.1", "٤٤٣", None),  # digits, but of another script
    ],
)
def test_the_kubernetes_api_is_an_address_and_a_port_of_the_environment(
    host: str, port: str, expected: tuple[str, int] | None
) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    assert read_pod([], 0.0, environment).kubernetes_api == expected


def test_outside_a_cluster_there_is_none() -> None:
    assert read_pod([], 0.0, {}).kubernetes_api is None


def test_the_resolver_is_the_one_most_targets_use(tmp_path: Path) -> None:
    one, other = written(tmp_path, "nameserver 10.0.0.1\n", "one"), written(tmp_path, "nameserver 10.0.0.2\n", "other")
    targets = [target("tcp", address="db.example.com:1", resolv_conf=str(conf)) for conf in (one, other, other)]
    assert resolv_confs(targets) == (other, one)
    assert read_pod(targets, 0.0, {}).resolver.nameservers == ("10.0.0.2",)


def test_a_resolv_conf_that_is_missing_means_what_it_means_to_libc(tmp_path: Path) -> None:
    targets = [target("tcp", address="db.example.com:1", resolv_conf=str(tmp_path / "missing"))]
    assert read_pod(targets, 0.0, {}).resolver.nameservers == ("127.0.0.1",)
