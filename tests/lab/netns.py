"""Network namespaces of a test's own: two hosts and the wire between them, with no link to the machine's network.

Run as a module inside one of them, it probes the target that standard input describes and prints the outcome as JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.model import Outcome
from tests.lab.targets import probe

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENT_IP, SERVER_IP = "192.0.2.1", "192.0.2.2"
CLIENT_IP6, SERVER_IP6 = "2001:db8::1", "2001:db8::2"
PATIENCE_SECONDS = 60.0

_number = itertools.count()
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000  # sched.h; os.setns and os.CLONE_NEWNET come with Python 3.12


@dataclass(frozen=True, slots=True)
class Namespace:
    """A host of its own: interfaces, routes, packet filter."""

    name: str

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a command inside and return what it wrote."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=PATIENCE_SECONDS,
            cwd=REPOSITORY,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def ip(self, *arguments: str) -> None:
        """`ip …` inside: `ip route add prohibit 203.0.113.0/24`."""
        self.run("ip", *arguments)

    def filter(self, hook: str, *rules: str) -> None:
        """Filter packets at a hook of this host (input, output) by nftables rules, in place of earlier ones."""
        chain = "".join(f"add rule inet {hook} {hook} {rule}\n" for rule in rules)
        self.run(
            "nft",
            "-f",
            "-",
            stdin=f"add table inet {hook}\n"
            f"delete table inet {hook}\n"
            f"add table inet {hook}\n"
            f"add chain inet {hook} {hook} {{ type filter hook {hook} priority 0; }}\n{chain}",
        )

    def inside(self, work: Callable[[], T]) -> T:
        """Call something inside, in a thread of its own: a thread may be in another network than its process."""

        def enter() -> T:
            with Path("/run/netns", self.name).open() as handle:
                if _LIBC.setns(handle.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return work()

        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(enter).result(timeout=PATIENCE_SECONDS)

    def probe_in_thread(self, kind: str, **keys: Any) -> Outcome:
        """One run of a target with this host's network and the machine's own files: quick."""
        return self.inside(lambda: asyncio.run(probe(kind, **keys)))

    def probe(self, kind: str, **keys: Any) -> dict[str, Any]:
        """One run of a target in a process on this host, which sees its /etc/netns: the outcome in its JSON form."""
        answer = self.run(sys.executable, "-m", "tests.lab.netns", stdin=json.dumps({"kind": kind, **keys}))
        outcome: dict[str, Any] = json.loads(answer)
        return outcome

    @contextmanager
    def serving(self, *command: str, port: int) -> Iterator[None]:
        """Keep a server running inside; it is ready when something listens on the port."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            waits = 'until ss -Hlnt "sport = :$0" | grep -q .; do sleep 0.02; done'
            self.run("sh", "-c", waits, str(port))
            yield
        finally:
            process.kill()
            process.wait()


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A host with nothing but loopback."""
    name = f"netprobe-{os.getpid()}-{next(_number)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        host = Namespace(name)
        host.ip("link", "set", "lo", "up")
        # Otherwise a host sends one refusal a second, and the tests' packets get no answer.
        host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/icmp_ratelimit; echo 0 >/proc/sys/net/ipv6/icmp/ratelimit")
        yield host
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@contextmanager
def two_hosts() -> Iterator[tuple[Namespace, Namespace]]:
    """A client and a server, and the wire between them."""
    with ExitStack() as hosts:
        client, server = hosts.enter_context(namespace()), hosts.enter_context(namespace())
        client.ip("link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", server.name)
        for host, ip, ip6 in ((client, CLIENT_IP, CLIENT_IP6), (server, SERVER_IP, SERVER_IP6)):
            host.ip("address", "add", f"{ip}/24", "dev", "wire")
            host.ip("-6", "address", "add", f"{ip6}/64", "dev", "wire", "nodad")
            host.ip("link", "set", "wire", "up")
        yield client, server


if __name__ == "__main__":
    json.dump(asyncio.run(probe(**json.load(sys.stdin))).as_dict(), sys.stdout)
