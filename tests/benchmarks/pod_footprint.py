"""What the sidecar costs a pod: the real image within its usual limits, and blackbox_exporter within the same.

    python -m tests.benchmarks.pod_footprint [SECONDS]

The pod is one of the fault lab's, with ten targets of the usual kinds (DNS, the Kubernetes API, two databases, a
broker, HTTP in the cluster, behind a VPN and on an internet), the default interval, and a scrape every 15 seconds.
The figures of an hour are those of SECONDS (120 by default) times what an hour has of them. What many rounds do to
memory is seen with the shortest interval there is, and no limit of CPU.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.image import cgroups
from tests.image.containers import HARDENED, Container, Limits
from tests.image.images import BASE, base_image, bytes_of, netprobe_image
from tests.lab import postgres
from tests.lab.http_client import Answer, request
from tests.lab.world import World, places
from tests.lab.world.hosts import Host, until
from tests.lab.world.servers import template

PATIENCE_SECONDS = 120.0
HOUR_SECONDS, INTERVAL_SECONDS, SHORT_INTERVAL_SECONDS, SCRAPE_SECONDS = 3600.0, 15.0, 1.0, 15.0
PROBES_PER_HOUR = HOUR_SECONDS / INTERVAL_SECONDS * len(places.STANDARD)
STARTS = 3
PEER_ROUNDS = 100
LIMITS = (0.1, 0.25, 0.5, None)
NETPROBE, BLACKBOX = 9733, 9115
MEMORY_MIB = 64
MIB = 1 << 20

_BLACKBOX = """
modules:
  http: {prober: http, timeout: 6s, http: {preferred_ip_protocol: ip4, tls_config: {ca_file: /etc/blackbox/ca.pem}}}
  tcp: {prober: tcp, timeout: 6s, tcp: {preferred_ip_protocol: ip4}}
  dns: {prober: dns, timeout: 6s, dns: {query_name: kubernetes.default.svc.cluster.local, query_type: A}}
"""


class Pod:
    """Where containers are started, one at a time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.host: Host = world.hosts["pod"]

    @contextmanager
    def container(self, image: str, *arguments: str, cpu: float | None, **keys: Any) -> Iterator[Container]:
        """A container in the pod's network, with the memory of a sidecar."""
        resolv_conf = Path("/etc/netns", self.host.name, "resolv.conf")
        mounts = {resolv_conf: "/etc/resolv.conf", **keys.pop("mounts", {})}
        network = f"ns:/run/netns/{self.host.name}"
        limits = Limits(cpu=cpu, memory_mib=MEMORY_MIB)
        options = (*HARDENED, "--user=65532:65532", *keys.pop("options", ()))
        with Container(
            image, *arguments, options=options, limits=limits, network=network, mounts=mounts, **keys
        ) as running:
            yield running

    def ask(self, port: int, path: str) -> Answer | None:
        """An answer from loopback, or None where nobody listens yet."""
        try:
            return self.host.call(request(f"http://127.0.0.1:{port}{path}"))
        except OSError:
            return None

    def wait(self, container: Container, port: int, path: str) -> Answer:
        """Ask until the answer is 200."""
        found: list[Answer] = []

        def answers() -> bool:
            assert container.running, container.log
            answer = self.ask(port, path)
            found.extend([answer] if answer is not None and answer.status == 200 else [])
            return bool(found)

        until(answers, f"200 of {path}: {container.log}", PATIENCE_SECONDS)
        return found[0]

    def wait_for_result(self, container: Container) -> None:
        """Wait until one target has a result."""

        def has_result() -> bool:
            assert container.running, container.log
            answer = self.ask(NETPROBE, "/targets")
            if answer is None or answer.status != 200:
                return False
            entries = json.loads(answer.body)["targets"]
            assert len(entries) == len(places.STANDARD), container.log
            return any(entry["last"] is not None for entry in entries)

        until(has_result, f"a result: {container.log}", PATIENCE_SECONDS)


def configuration(world: World, name: str, targets: Sequence[Mapping[str, Any]], **defaults: str) -> Path:
    directory = world.directory / name
    directory.mkdir()
    shutil.copy(world.certificates.ca_file, directory / "ca.pem")
    content = {"defaults": defaults, "targets": [_plain(target) for target in targets]}
    (directory / "netprobe.yaml").write_text(yaml.safe_dump(content))
    return directory


def _plain(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _plain(inner) for key, inner in value.items() if inner is not None}


def variables() -> dict[str, str]:
    return {
        "CA_FILE": "/etc/netprobe/ca.pem",
        "DATABASE_PASSWORD": postgres.PASSWORD,
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
    }


def main(seconds: float) -> None:
    image = netprobe_image()
    added = bytes_of(image) - bytes_of(BASE)
    print(f"image: {added / 1e6:.0f} MB unpacked, beside the {bytes_of(BASE) / 1e6:.0f} MB of its base")
    with postgres.directory() as directory, World(template(directory)) as world:
        pod = Pod(world)
        # Without a dialogue: one with a line's end in it could hold a start gate as far as is known before it is read.
        targets = [{**places.TARGETS[name], "dialogue": None} for name in places.STANDARD]
        usual = configuration(world, "usual", targets, interval=f"{INTERVAL_SECONDS:g}s")
        quick = configuration(world, "quick", targets, interval=f"{SHORT_INTERVAL_SECONDS:g}s", timeout="1s")
        for cpu in LIMITS:
            print_start(pod, image, usual, cpu)
        print_hour(pod, image, usual, seconds)
        print_rounds(pod, image, quick, seconds)
        print_peer(pod, world)


def print_start(pod: Pod, image: str, config: Path, cpu: float | None) -> None:
    started, first, spent = [], [], []
    for _ in range(STARTS):
        with pod.container(image, cpu=cpu, environment=variables(), mounts={config: "/etc/netprobe"}) as container:
            pod.wait(container, NETPROBE, "/startupz")
            started.append(cgroups.age_seconds(container.pid))
            pod.wait_for_result(container)
            first.append(cgroups.age_seconds(container.pid))
            spent.append(cgroups.cpu_seconds(container.pid))
    limit = f"{cpu * 1000:.0f}m" if cpu is not None else "none"
    print(
        f"start, CPU limit {limit}: /startupz after {statistics.median(started):.1f} s, first result after "
        f"{statistics.median(first):.1f} s, {statistics.median(spent):.2f} s of CPU by then (median of {STARTS})"
    )


def print_hour(pod: Pod, image: str, config: Path, seconds: float) -> None:
    with pod.container(image, cpu=LIMITS[0], environment=variables(), mounts={config: "/etc/netprobe"}) as container:
        pod.wait(container, NETPROBE, "/readyz")
        pod.wait_for_result(container)
        begun, spent = time.monotonic(), cgroups.cpu_seconds(container.pid)
        at_start = cgroups.memory(container.pid)
        while time.monotonic() < begun + seconds:
            pod.wait(container, NETPROBE, "/metrics")
            time.sleep(SCRAPE_SECONDS)
        took = time.monotonic() - begun
        hourly = (cgroups.cpu_seconds(container.pid) - spent) / took * HOUR_SECONDS
        print_memory("after the first results", at_start)
        print_memory(f"after {took:.0f} s", cgroups.memory(container.pid))
        print(f"CPU: {hourly:.0f} s an hour ({hourly / HOUR_SECONDS * 1000:.1f}m) at every {INTERVAL_SECONDS:g} s")


def print_rounds(pod: Pod, image: str, config: Path, seconds: float) -> None:
    with pod.container(image, cpu=None, environment=variables(), mounts={config: "/etc/netprobe"}) as container:
        pod.wait(container, NETPROBE, "/readyz")
        pod.wait_for_result(container)

        def probes() -> float:
            page = pod.wait(container, NETPROBE, "/metrics").text
            return sum(
                float(line.split()[-1]) for line in page.splitlines() if line.startswith("netprobe_probes_total{")
            )

        spent, before = cgroups.cpu_seconds(container.pid), probes()
        time.sleep(seconds)
        done = probes() - before
        hours = done / PROBES_PER_HOUR
        print_memory(f"after {done:.0f} probes, as many as {hours:.1f} h have", cgroups.memory(container.pid))
        print(f"CPU: {(cgroups.cpu_seconds(container.pid) - spent) / done * 1e3:.2f} ms a probe")


def print_memory(when: str, memory: cgroups.Memory) -> None:
    print(f"memory {when}: {memory.working_set / MIB:.0f} MiB working set, {memory.anonymous / MIB:.0f} MiB anonymous")


def print_peer(pod: Pod, world: World) -> None:
    """The same kinds of targets by blackbox_exporter: where it has no prober, by a TCP connection."""
    exporter = shutil.which("prometheus-blackbox-exporter")
    if exporter is None:
        print("blackbox_exporter: not installed (Debian's prometheus-blackbox-exporter)")
        return
    directory = world.directory / "blackbox"
    directory.mkdir()
    (directory / "blackbox.yml").write_text(_BLACKBOX)
    shutil.copy(world.certificates.ca_file, directory / "ca.pem")
    urls = (str(places.TARGETS[name].get("url", "")) for name in places.STANDARD)
    asked = [
        ("dns", places.NAMESERVER_SERVICES[0]),
        *(("http", url) for url in urls if url),
        *(("tcp", address) for address in ("internal-database:5432", "broker:6379", "warehouse.corp.internal:5432")),
    ]
    command = ("--config.file=/etc/blackbox/blackbox.yml", f"--web.listen-address=127.0.0.1:{BLACKBOX}")
    mounts = {Path("/usr"): "/usr", directory: "/etc/blackbox"}
    options = (f"--entrypoint={exporter}",)
    with pod.container(base_image(), *command, cpu=LIMITS[0], mounts=mounts, options=options) as container:
        pod.wait(container, BLACKBOX, "/-/healthy")
        started = cgroups.age_seconds(container.pid)
        at_start = cgroups.memory(container.pid)
        spent, done = cgroups.cpu_seconds(container.pid), 0
        for _ in range(PEER_ROUNDS):
            for module, target in asked:
                answer = pod.ask(BLACKBOX, f"/probe?module={module}&target={target}")
                assert answer is not None
                assert "\nprobe_success 1" in answer.text, (module, target, answer.text)
                done += 1
        print(f"blackbox_exporter, CPU limit 100m: answers after {started:.1f} s")
        print_memory("of blackbox_exporter at its start", at_start)
        print_memory(f"of blackbox_exporter after {done} probes", cgroups.memory(container.pid))
        per_probe = (cgroups.cpu_seconds(container.pid) - spent) / done
        print(f"CPU of blackbox_exporter: {per_probe * 1e3:.2f} ms a probe, scrape included")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 120.0)
