"""What a push costs: the pod's CPU and memory, the bytes on the wire, and the CPU of the Prometheus that takes it.

    python -m tests.benchmarks.push_cost [PODS]

A pod has ten targets, each of which has succeeded and failed, been through four phases and been diagnosed. The codecs
are compared with what they could have been, cramjam and protobuf, each imported by a process of its own that has loaded
the agent. The receiver's CPU is that of a real Prometheus over so many short pods.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import cramjam
from yarl import URL

from agent.config.push import RemoteWriteOptions
from agent.diagnosis import Cause
from agent.model import Phase, Reason
from agent.sinks.remote_write import RemoteWrite
from tests.lab.outcomes import diagnosis, outcome
from tests.lab.pushing import IDENTITY, Pod
from tests.lab.receivers import remote_write_receiver

TARGETS = 10
PHASES = (Phase.RESOLVE, Phase.CONNECT, Phase.TLS, Phase.REQUEST)
ROUNDS = 30

_IMPORT = """
import time, sys
import agent.app, agent.probers.http
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096
before, began = resident(), time.process_time()
exec(sys.argv[1])
print(time.process_time() - began, resident() - before)
"""


def filled(pod: Pod) -> Pod:
    for target in pod.targets:
        for _ in range(3):
            pod.metrics.write(outcome(target, phases=PHASES))
        pod.metrics.write(outcome(target, (Phase.CONNECT, Reason.REFUSED)))
    pod.metrics.diagnosed(diagnosis((Cause.NOTHING_LISTENING, *(target.name for target in pod.targets))))
    return pod


def imported(code: str) -> tuple[float, float]:
    """Median CPU seconds and bytes of memory of an import."""
    found = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", _IMPORT, code], capture_output=True, text=True, check=True)
        found.append(tuple(map(float, done.stdout.split())))
    return median(seconds for seconds, _ in found), median(size for _, size in found)


async def composing(zeros: int) -> None:
    pod = filled(Pod(remote_write="http://127.0.0.1", targets=TARGETS))
    seconds, packing = [], []
    for _ in range(ROUNDS):
        contents = RemoteWrite(
            RemoteWriteOptions(zeros=zeros),
            URL("http://127.0.0.1"),
            pod.metrics.slices,
            {**IDENTITY, "job": "netprobe"},
        )
        began = time.process_time()
        (parcel,) = await contents.compose(last=True)
        seconds.append(time.process_time() - began)
        raw = bytes(cramjam.snappy.decompress_raw(parcel.body))
        began = time.process_time()
        theirs = bytes(cramjam.snappy.compress_raw(raw))
        packing.append(time.process_time() - began)
    parcel.taken()
    series = len(contents._begun)
    print(
        f"  {zeros:4} zeros: {series} series, {parcel.samples} samples, {len(parcel.body) / 1024:.1f} KiB sent "
        f"({len(raw) / 1024:.0f} KiB unpacked), {median(seconds) * 1000:.1f} ms of CPU; cramjam makes "
        f"{len(theirs) / 1024:.1f} KiB of it in {median(packing) * 1000:.2f} ms more"
    )


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def receiving(zeros: int, pods: int) -> tuple[float, float, float]:
    """Per short pod: CPU seconds of Prometheus and of this process, and bytes by which Prometheus has grown."""
    with tempfile.TemporaryDirectory() as directory:
        async with remote_write_receiver(Path(directory)) as receiver:
            before, ours, size = cpu_of(receiver.pid), time.process_time(), resident(receiver.pid)
            for number in range(pods):
                identity = {**IDENTITY, "pod": f"pod-{number}"}
                async with Pod(
                    remote_write=f"{receiver.url}/api/v1/write", targets=TARGETS, identity=identity, zeros=zeros
                ) as pod:
                    filled(pod)
                assert not pod.metrics.pushes["remote_write"].failures
            theirs = (cpu_of(receiver.pid) - before) / pods
            return theirs, (time.process_time() - ours) / pods, (resident(receiver.pid) - size) / pods


async def main() -> None:
    pods = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print("Codecs, in a process that has loaded the agent:")
    for what, code in {
        "ours, and all of remote write": "import agent.sinks.remote_write, agent.sinks.periodic",
        "cramjam": "import cramjam",
        "protobuf": "from google.protobuf import descriptor_pb2, message_factory",
    }.items():
        seconds, size = imported(code)
        print(f"  {what}: {seconds * 1000:.0f} ms of CPU, {size / 2**20:.1f} MiB")
    print(f"The push of a short pod with {TARGETS} targets:")
    for zeros in (1, 100, 1000):
        await composing(zeros)
    print(f"CPU of Prometheus for each of {pods} such pods, and of the pod, with its connection:")
    for zeros in (1, 100, 1000):
        theirs, ours, size = await receiving(zeros, pods)
        print(f"  {zeros:4} zeros: {theirs * 1000:.1f} ms, {ours * 1000:.1f} ms; it grew by {size / 1024:.0f} KiB")


if __name__ == "__main__":
    asyncio.run(main())
