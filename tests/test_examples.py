"""The manifests in deploy/examples hold by Kubernetes' own schemas, and by what those do not look at."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from agent.diagnosis import Cause
from tests.deploy.manifests import VERSIONS

DIRECTORY = Path(__file__).resolve().parent.parent / "deploy" / "examples"
FILES = sorted(DIRECTORY.glob("*.yaml"))
README = (DIRECTORY / "README.md").read_text(encoding="utf-8")

Manifest = Mapping[str, Any]

WORKER = {"tier": "airflow", "component": "worker"}
"""Labels that Airflow's official Helm chart gives worker pods."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")  # RFC 1123
_QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def read(path: Path) -> list[Manifest]:
    return [manifest for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")) if manifest]


def of_kind(kind: str) -> list[Any]:
    """Every manifest of a kind with those that stand in its file."""
    return [
        pytest.param(manifest, read(path), id=f"{path.name}-{manifest['metadata']['name']}")
        for path in FILES
        for manifest in read(path)
        if manifest["kind"] == kind
    ]


def one_of(kind: str, others: list[Manifest], name: str) -> Manifest:
    found = [other for other in others if (other["kind"], other["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"the file has {len(found)} of {kind} {name}"
    return found[0]


ALL = [
    pytest.param(manifest, id=f"{path.name}-{manifest['kind']}-{manifest['metadata']['name']}")
    for path in FILES
    for manifest in read(path)
]
STANDARD = [param for param in ALL if ".istio.io/" not in param.values[0]["apiVersion"]]  # type: ignore[index]


# --- what the schemas say --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", STANDARD)
def test_a_manifest_fits_the_schema(manifest: Manifest, version: str) -> None:
    """No unknown key, no wrong type, nothing left out that is required."""
    assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_the_schemas_would_notice() -> None:
    """A key that is misspelt does not pass."""
    (manifest, *_) = read(DIRECTORY / "networkpolicy-dns.yaml")
    misspelt = {**manifest, "spec": {**manifest["spec"], "policyType": ["Egress"]}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, VERSIONS[0], strict=True)


# --- what they do not ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manifest", ALL)
def test_names_labels_and_annotations_are_legal(manifest: Manifest) -> None:
    """An API server refuses others; every value is a string, also where it looks like a number or a truth value."""
    metadata = manifest["metadata"]

    assert _LABEL.fullmatch(metadata["name"])
    assert metadata["namespace"] == "airflow"
    for key, value in {**metadata.get("labels", {}), **metadata.get("annotations", {})}.items():
        assert _QUALIFIED.fullmatch(key), key
        assert isinstance(value, str), f"{key}: {value!r}"
    for key, value in metadata.get("labels", {}).items():
        assert _LABEL_VALUE.fullmatch(value), f"{key}: {value}"


@pytest.mark.parametrize(("manifest", "others"), of_kind("EndpointSlice"))
def test_an_endpoint_slice_belongs_to_a_service(manifest: Manifest, others: list[Manifest]) -> None:
    """To one without a selector, in its file and namespace, with the same ports, and with addresses that may be."""
    service = one_of("Service", others, manifest["metadata"]["labels"]["kubernetes.io/service-name"])
    version = {"IPv4": 4, "IPv6": 6}[manifest["addressType"]]
    addresses = [ipaddress.ip_address(ip) for endpoint in manifest["endpoints"] for ip in endpoint["addresses"]]

    assert "selector" not in service["spec"], "the cluster would write slices of its own beside it"
    assert service["metadata"]["namespace"] == manifest["metadata"]["namespace"]
    assert ports_of(manifest["ports"]) == ports_of(service["spec"]["ports"])
    assert addresses
    for address in addresses:
        assert address.version == version
        assert not any((address.is_loopback, address.is_link_local, address.is_multicast, address.is_unspecified))


def ports_of(ports: list[Manifest]) -> set[tuple[str, str]]:
    return {(port["name"], port.get("protocol", "TCP")) for port in ports}


@pytest.mark.parametrize(("manifest", "others"), of_kind("Service"))
def test_a_service_leads_somewhere(manifest: Manifest, others: list[Manifest]) -> None:
    """To a name, to a slice in its file, or to pods in its file that have its labels and its port."""
    spec = manifest["spec"]
    if spec.get("type") == "ExternalName":
        name = spec["externalName"]
        assert all(_LABEL.fullmatch(label) for label in name.split("."))
        assert not name.rpartition(".")[2].isdigit(), "an address is looked up as a name"
    elif "selector" in spec:
        (template,) = [other["spec"]["template"] for other in others if other["kind"] == "Deployment"]
        assert spec["selector"].items() <= template["metadata"]["labels"].items()
        named = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in spec["ports"]} <= named
    else:
        name = manifest["metadata"]["name"]
        assert name in [
            other["metadata"]["labels"]["kubernetes.io/service-name"]
            for other in others
            if other["kind"] == "EndpointSlice"
        ]


@pytest.mark.parametrize(("manifest", "others"), of_kind("Deployment"))
def test_a_deployment_selects_its_own_pods(manifest: Manifest, others: list[Manifest]) -> None:
    """And its probes name a port it has."""
    template = manifest["spec"]["template"]

    assert manifest["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    for container in template["spec"]["containers"]:
        assert container["readinessProbe"]["httpGet"]["port"] in {port["name"] for port in container["ports"]}


@pytest.mark.parametrize(("manifest", "others"), of_kind("NetworkPolicy"))
def test_a_policy_selects_pods_and_says_what_it_does(manifest: Manifest, others: list[Manifest]) -> None:
    """Not every pod of the namespace; a list for each of its types; in each rule somebody, and ports."""
    spec = manifest["spec"]
    rules = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}

    assert spec["podSelector"]["matchLabels"]
    assert {rules[kind][0] for kind in spec["policyTypes"]} == spec.keys() - {"podSelector", "policyTypes"}
    if "Egress" in spec["policyTypes"]:
        assert spec["podSelector"]["matchLabels"].items() <= WORKER.items(), "it would not select a worker pod"
    for kind in spec["policyTypes"]:
        direction, peers = rules[kind]
        for rule in spec[direction]:
            assert rule[peers], "nobody in particular is everybody"
            assert all(peer for peer in rule[peers])
            assert rule["ports"]
            assert all(port["protocol"] in {"TCP", "UDP"} and 1 <= port["port"] <= 65535 for port in rule["ports"])
            for peer in rule[peers]:
                check_block(peer.get("ipBlock"))


def check_block(block: Manifest | None) -> None:
    if block is not None:
        network = ipaddress.ip_network(block["cidr"], strict=True)
        for inner in block.get("except", ()):
            # An exception that lies outside is refused by the API server.
            assert ipaddress.ip_network(inner, strict=True).subnet_of(network)  # type: ignore[arg-type]


def test_the_policy_for_dns_allows_both_protocols() -> None:
    """A lookup needs TCP as well."""
    (manifest,) = read(DIRECTORY / "networkpolicy-dns.yaml")

    (rule,) = manifest["spec"]["egress"]
    assert {(port["protocol"], port["port"]) for port in rule["ports"]} == {("UDP", 53), ("TCP", 53)}


def test_the_policy_for_the_metadata_database_does_not_admit_workers() -> None:
    """That is all it is for."""
    (manifest,) = read(DIRECTORY / "networkpolicy-metadata-database.yaml")

    for rule in manifest["spec"]["ingress"]:
        for peer in rule["from"]:
            (expression,) = peer["podSelector"]["matchExpressions"]
            assert expression["operator"] == "In"
            assert WORKER[expression["key"]] not in expression["values"]


# --- pods ------------------------------------------------------------------------------------------------------------

PODS = of_kind("Pod")
_DNS_OPTIONS = {"ndots": int, "timeout": int, "attempts": int, "single-request-reopen": None}
"""Those of resolv.conf(5) in use here, and what their value is."""


@pytest.mark.parametrize(("manifest", "others"), PODS)
def test_a_pod_can_be_the_base_of_a_pod_template_file(manifest: Manifest, others: list[Manifest]) -> None:
    """Airflow replaces the name and merges into the first container, which has to be `base`."""
    assert manifest["metadata"]["name"] == "placeholder-name"
    assert manifest["spec"]["containers"][0]["name"] == "base"
    assert manifest["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(("manifest", "others"), PODS)
def test_what_a_pod_refers_to_is_there(manifest: Manifest, others: list[Manifest]) -> None:
    """Volumes that are mounted are declared and used; a ConfigMap is in the file, or the file says how to make it."""
    volumes = {volume["name"]: volume for volume in manifest["spec"].get("volumes", ())}
    mounts = [mount for container in containers(manifest) for mount in container.get("volumeMounts", ())]

    assert {mount["name"] for mount in mounts} == volumes.keys()
    for mount in mounts:
        name = volumes[mount["name"]]["configMap"]["name"]
        if any(other["kind"] == "ConfigMap" for other in others):
            held = one_of("ConfigMap", others, name)
            assert held["metadata"]["namespace"] == manifest["metadata"]["namespace"]
            assert mount.get("subPath", "") in {"", *held["data"]}
        else:
            assert f"kubectl create configmap {name} " in file_of(manifest, others)


def file_of(manifest: Manifest, others: list[Manifest]) -> str:
    (path,) = [path for path in FILES if read(path) == others and manifest in others]
    return path.read_text(encoding="utf-8")


def containers(pod: Manifest) -> Iterator[Manifest]:
    yield from pod["spec"].get("initContainers", ())
    yield from pod["spec"]["containers"]


@pytest.mark.parametrize(("manifest", "others"), PODS)
def test_variables_are_defined_before_they_are_used(manifest: Manifest, others: list[Manifest]) -> None:
    """Kubernetes leaves `$(NAME)` as it is where NAME comes later, or not at all."""
    for container in containers(manifest):
        known: set[str] = set()
        for variable in container.get("env", ()):
            assert set(re.findall(r"\$\(([^)]*)\)", variable.get("value", ""))) <= known, variable
            assert ("value" in variable) != ("valueFrom" in variable)
            assert variable["name"] not in known
            known.add(variable["name"])


def test_proxy_variables_come_in_both_cases_and_spare_the_cluster() -> None:
    """Some programs read one case only, and no list of exceptions is read by all in the same way."""
    (manifest,) = read(DIRECTORY / "pod-proxy.yaml")
    variables = {variable["name"]: variable.get("value", "") for variable in manifest["spec"]["containers"][0]["env"]}
    exceptions = variables["NO_PROXY"].split(",")

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        assert variables[name.lower()] == f"$({name})"
    assert {"localhost", "127.0.0.1", ".svc", ".cluster.local"} <= set(exceptions)
    assert all(entry == entry.strip() and "*" not in entry for entry in exceptions)


@pytest.mark.parametrize(("manifest", "others"), PODS)
def test_options_of_the_resolver_exist(manifest: Manifest, others: list[Manifest]) -> None:
    """What libc does not know it ignores in silence."""
    for option in manifest["spec"].get("dnsConfig", {}).get("options", ()):
        kind = _DNS_OPTIONS[option["name"]]
        assert ("value" in option) == (kind is not None)
        assert kind is None or isinstance(option["value"], str)
        assert kind is None or kind(option["value"]) > 0


@pytest.mark.parametrize(("manifest", "others"), PODS)
def test_scripts_of_init_containers_can_be_read(manifest: Manifest, others: list[Manifest]) -> None:
    """And end well: an init container that fails keeps the task from starting."""
    for container in manifest["spec"].get("initContainers", ()):
        if container["command"][:2] == ["bash", "-c"]:
            (script,) = container["args"]
            assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
            assert re.match(r"exit 0\b", script.strip().splitlines()[-1])


def test_the_order_of_addresses_puts_ipv4_first() -> None:
    """gai.conf: one row replaces the whole table, so that all of it has to be there."""
    config, _ = read(DIRECTORY / "pod-prefer-ipv4.yaml")
    rows = [line.split() for line in config["data"]["gai.conf"].splitlines() if not line.startswith("#")]
    precedence = {ipaddress.IPv6Network(prefix): int(value) for _, prefix, value in rows}

    assert {word for word, _, _ in rows} == {"precedence"}
    assert len(precedence) == 5
    assert max(precedence, key=lambda prefix: precedence[prefix]) == ipaddress.IPv6Network("::ffff:0:0/96")


# --- meshes ----------------------------------------------------------------------------------------------------------


def numbers(text: str) -> bool:
    return all(port.isdigit() and 0 < int(port) <= 65535 for port in text.split(","))


def networks(text: str) -> bool:
    return all(ipaddress.ip_network(network, strict=True) for network in text.split(","))


ANNOTATIONS: Mapping[str, Callable[[str], bool]] = {
    "sidecar.istio.io/nativeSidecar": {"true", "false"}.__contains__,
    "proxy.istio.io/config": lambda text: yaml.safe_load(text) == {"holdApplicationUntilProxyStarts": True},
    "traffic.sidecar.istio.io/excludeOutboundPorts": numbers,
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": networks,
    "linkerd.io/inject": {"enabled", "disabled"}.__contains__,
    "config.beta.linkerd.io/proxy-enable-native-sidecar": {"true", "false"}.__contains__,
    "config.linkerd.io/skip-outbound-ports": numbers,
}
"""Annotations that Istio and Linkerd document, and what their values are: a misspelt one does nothing, in silence."""


@pytest.mark.parametrize(("manifest", "others"), PODS)
def test_annotations_are_those_that_meshes_read(manifest: Manifest, others: list[Manifest]) -> None:
    """By name and by form."""
    for key, value in manifest["metadata"].get("annotations", {}).items():
        assert ANNOTATIONS[key](value), f"{key}: {value}"


@pytest.mark.parametrize(("manifest", "others"), of_kind("ServiceEntry"))
def test_a_service_entry_has_its_shape(manifest: Manifest, others: list[Manifest]) -> None:
    """Istio's reference for networking.istio.io/v1; its schema is not among those of Kubernetes."""
    spec = manifest["spec"]

    assert manifest["apiVersion"] == "networking.istio.io/v1"
    assert spec.keys() <= {"hosts", "addresses", "location", "ports", "resolution", "endpoints"}
    assert spec["hosts"]
    assert spec["location"] in {"MESH_EXTERNAL", "MESH_INTERNAL"}
    assert spec["resolution"] in {"NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"}
    for port in spec["ports"]:
        assert port.keys() == {"number", "name", "protocol"}
        assert port["protocol"] in {"HTTP", "HTTPS", "TLS", "TCP", "GRPC", "HTTP2", "MONGO"}
        # A TCP port is told from another by addresses alone.
        assert port["protocol"] != "TCP" or spec["addresses"]
    assert (spec["resolution"] == "STATIC") == ("endpoints" in spec)
    assert all(ipaddress.ip_address(endpoint["address"]) for endpoint in spec.get("endpoints", ()))


# --- what is said about them -----------------------------------------------------------------------------------------


def rows() -> list[list[str]]:
    """The cells of the table in the README, less its head."""
    lines = [line for line in README.splitlines() if line.startswith("| [")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_readme_lists_every_file_and_what_it_fixes() -> None:
    """One row a file, and causes that netprobe names."""
    causes = {cause.value for cause in Cause} - {Cause.HEALTHY, Cause.UNKNOWN}

    assert sorted(re.findall(r"\(([\w.-]+)\)", row[0])[0] for row in rows()) == [path.name for path in FILES]
    for _, fixes, changes in rows():
        assert re.findall(r"`(\w+)`", fixes)
        assert set(re.findall(r"`(\w+)`", fixes)) <= causes
        assert changes


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_says_what_it_is_for(path: Path) -> None:
    """Its first line is a comment, and its lines are short enough to be read beside another window."""
    lines = path.read_text(encoding="utf-8").splitlines()

    assert lines[0].startswith("# ")
    assert max(map(len, lines)) <= 120
