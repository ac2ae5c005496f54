"""CPU and wall time of one `netprobe check` from start to end, as a ratio against `curl` asking the same server.

    python -m tests.benchmarks.check_cost [ROUNDS]

The two take turns, and the median counts. What is compared is what a person waits for who types either in a pod: the
start of the interpreter and its imports are nearly all of it.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.lab.command import COMMAND, environment


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process, in seconds."""

    cpu: float
    wall: float


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"ok"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """A web server on loopback: its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def cost(command: Sequence[str]) -> Cost:
    """Run a command that has to succeed, and measure it."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(cpu=usage.ru_utime + usage.ru_stime, wall=time.perf_counter() - began)


def main(rounds: int) -> None:
    """Print the medians."""
    curl = shutil.which("curl")
    if curl is None:
        sys.exit("expected curl on the PATH, found none")
    with serving() as port:
        url = f"http://127.0.0.1:{port}/"
        commands = {
            "curl http": [curl, "--silent", "--show-error", "--fail", url],
            "python -c pass": [sys.executable, "-c", "pass"],
            "check tcp": [*COMMAND, "check", f"tcp://127.0.0.1:{port}"],
            "check http": [*COMMAND, "check", url],
            "check http, json": [*COMMAND, "check", "--output", "json", url],
        }
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                costs[name].append(cost(command))
    base_cpu = statistics.median(cost.cpu for cost in costs["curl http"])
    base_wall = statistics.median(cost.wall for cost in costs["curl http"])
    print(f"{'median of ' + str(rounds):<18} {'CPU':>8} {'x curl':>7} {'wall':>8} {'x curl':>7}")
    for name, several in costs.items():
        cpu = statistics.median(cost.cpu for cost in several)
        wall = statistics.median(cost.wall for cost in several)
        print(f"{name:<18} {cpu * 1000:5.0f} ms {cpu / base_cpu:7.1f} {wall * 1000:5.0f} ms {wall / base_wall:7.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
