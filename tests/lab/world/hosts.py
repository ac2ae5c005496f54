"""A host of the world: a network namespace, an event loop that lives in it, and the processes started in it."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar

from tests.lab.world.change import Change

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
_NAMESPACES = Path("/run/netns")
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000  # sched.h; os.setns and os.CLONE_NEWNET come with Python 3.12
_SIOCETHTOOL = 0x8946
_OFFLOADS = (0x1F, 0x24, 0x2C)  # ethtool.h: ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO

# Otherwise a host sends one refusal a second, and the rest of the packets get no answer. Addresses are used at once.
_SETTINGS = """
echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
"""


class Host:
    """A network namespace that this object has made. `close` removes it and whatever runs in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._path = _NAMESPACES / name
        subprocess.run(["ip", "netns", "add", name], check=True)
        self._loop = asyncio.new_event_loop()
        self._closed = False
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._live, args=(started,), name=name, daemon=True)
        self._thread.start()
        try:
            started.result(PATIENCE_SECONDS)
            self.run("sh", "-c", _SETTINGS)
            self.run("ip", "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def _live(self, started: Future[None]) -> None:
        try:
            _enter(self._path)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            started.set_exception(error)
            return
        asyncio.set_event_loop(self._loop)
        started.set_result(None)
        self._loop.run_forever()

    def close(self) -> None:
        """Stop the event loop, end every process of the namespace, and remove it."""
        if self._closed:
            return
        self._closed = True
        if self._thread.is_alive():
            with suppress(TimeoutError):
                self._submit(_cancel_all()).result(PATIENCE_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE_SECONDS)
        if not self._loop.is_running():
            self._loop.close()
        remove(self.name)

    # --- commands and processes -----------------------------------------------------------------------------------

    def run(self, *command: str | Path, stdin: str | None = None) -> str:
        """Run a command inside and return what it wrote."""
        done = subprocess.run(
            ["nsenter", f"--net={self._path}", *map(str, command)],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == 0, f"{' '.join(map(str, command))} on {self.name}: {done.stderr}{stdin or ''}"
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Several `ip …` commands at once: `link set lo up`."""
        self.run("ip", "-batch", "-", stdin="".join(f"{line}\n" for line in lines))

    def start(
        self,
        *command: str | Path,
        log: Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        etc: bool = False,
    ) -> Process:
        """Start a process inside. With `etc` it sees the files of /etc/netns.

        The kernel kills it when the calling thread ends without having stopped it (that of a world, or the process
        as a whole): PR_SET_PDEATHSIG.
        """
        enter = ["ip", "netns", "exec", self.name] if etc else ["nsenter", f"--net={self._path}"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*enter, "setpriv", "--pdeathsig", "KILL", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        return Process(process, log)

    # --- asyncio inside -----------------------------------------------------------------------------------------------

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop inside, and return its result: its sockets belong to this host."""
        return self._submit(work).result(PATIENCE_SECONDS)

    def inside(self, work: Callable[[], T]) -> T:
        """Call something quick inside."""

        async def called() -> T:
            return work()

        return self.call(called())

    def enter(self, manager: Callable[[], AbstractAsyncContextManager[Any]]) -> Change:
        """Enter an asynchronous context manager in the event loop inside, and leave it at the undoing.

        Both happen in one task, as managers that cancel or time out expect.
        """
        entered: Future[asyncio.Event] = Future()

        async def hold() -> None:
            leave = asyncio.Event()
            try:
                async with manager():
                    entered.set_result(leave)
                    await leave.wait()
            except BaseException as error:
                if entered.done():
                    raise
                entered.set_exception(error)

        held = self._submit(hold())
        leave = entered.result(PATIENCE_SECONDS)

        def undo() -> None:
            self._loop.call_soon_threadsafe(leave.set)
            held.result(PATIENCE_SECONDS)

        return Change(undo)

    # --- links ----------------------------------------------------------------------------------------------------

    def link(self, device: str, other: Host, other_device: str) -> None:
        """A wire to another host. Packets on it are as long as they would be on a real one: nothing is offloaded."""
        self.run(
            *("ip", "link", "add", device, "type", "veth"),
            *("peer", "name", other_device, "netns", other.name),
        )
        self.inside(lambda: _no_offload(device))
        other.inside(lambda: _no_offload(other_device))
        self.run("ip", "link", "set", device, "up")
        other.run("ip", "link", "set", other_device, "up")


class Process:
    """A server process, and what it has written."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self, signal: int = 15) -> None:
        """End it: asked first, by SIGTERM or another signal, and killed after that."""
        if self._process.poll() is None:
            self._process.send_signal(signal)
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def kill(self) -> None:
        """End it without asking."""
        self._process.kill()
        self._process.wait()

    def until(self, ready: Callable[[], object]) -> None:
        """Wait until this is true, as long as the process lives."""

        def look() -> object:
            assert self._process.poll() is None, f"{self._process.args!r} has ended: {self.log}"
            return ready()

        until(look, f"{self._process.args!r} to be ready: {self.log}")


def until(holds: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for something that happens elsewhere."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"expected {what} within {seconds:g} s"
        time.sleep(0.01)


def remove(name: str) -> None:
    """Kill every process of a namespace, and remove the namespace."""
    if not (_NAMESPACES / name).exists():
        return
    pids = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True).stdout.split()
    for pid in pids:
        if int(pid) != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(int(pid), 9)
    subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _enter(namespace: Path) -> None:
    """Move the calling thread: a thread may be in another network than its process."""
    with namespace.open() as handle:
        if _LIBC.setns(handle.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def _no_offload(device: str) -> None:
    """What ethtool -K does: a packet must not cross a router as one of 64 KB that would be many on a real wire."""
    with socket.socket() as any_socket:
        for command in _OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP8x", device.encode(), ctypes.addressof(value))
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
