"""The demo from its beginning to its end: servers, configuration, agent, and what people are told about it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from agent import logs
from agent.app import Agent
from agent.config import Config, load
from agent.config.environment import expand
from agent.demo.faults import LASTS_SECONDS, QUIET_SECONDS, cycle
from agent.demo.ports import LOOPBACK
from agent.demo.world import World, world
from agent.keys import HostPort
from agent.listening import DEFAULT_PORT
from agent.server import CannotListen

_TEMPLATE = Path(__file__).with_name("demo.yaml")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def show(listen: HostPort | None, duration_seconds: float | None) -> None:
    """Run the demo until a signal, or for a time. Whatever it started or wrote is gone afterwards.

    A second signal hurries what is being ended. Raises CannotListen, OSError.
    """
    loop = asyncio.get_running_loop()
    showing = asyncio.create_task(_show(listen))
    for number in _SIGNALS:
        loop.add_signal_handler(number, showing.cancel)
    try:
        await asyncio.wait({showing}, timeout=duration_seconds)
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _show(listen: HostPort | None) -> None:
    _say("Starting servers on loopback …")
    with _directory() as directory:
        async with world(directory) as servers:
            path = directory / "demo.yaml"
            _write_configuration(path, servers)
            config = load(path, {})
            logs.configure(config.log)
            async with _agent(config, listen) as agent:
                _say(_introduction(agent, servers, config, path))
                await cycle(servers.faults, lambda what: _say(f"\n--- {what}"))


@contextmanager
def _directory() -> Iterator[Path]:
    """A directory of our own, for as long as the demo lasts."""
    with TemporaryDirectory(prefix="netprobe-demo-") as name:
        directory = Path(name)
        if os.geteuid() == 0:
            directory.chmod(0o711)  # Postgres, as another user, has to find its own directory inside
        yield directory


def _write_configuration(path: Path, servers: World) -> None:
    """Write config/demo.yaml with its variables filled in, less the targets there is no server for."""
    document: Any = yaml.safe_load(expand(_TEMPLATE.read_text(encoding="utf-8"), servers.variables))
    document["targets"] = [target for target in document["targets"] if target["type"] not in servers.left_out]
    path.write_text("# config/demo.yaml, filled in\n" + yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


@asynccontextmanager
async def _agent(config: Config, listen: HostPort | None) -> AsyncIterator[Agent]:
    """The agent on the address that was asked for; if none was, on the usual port or on any."""
    at = listen or HostPort(LOOPBACK, DEFAULT_PORT)
    agent = _agent_at(config, at)
    try:
        await agent.start()
    except CannotListen:
        if listen is not None:
            raise
        _say(f"Port {DEFAULT_PORT} is taken; the agent listens on another.")
        agent = _agent_at(config, HostPort(LOOPBACK, 0))
        await agent.start()
    try:
        yield agent
    finally:
        await agent.aclose()


def _agent_at(config: Config, listen: HostPort) -> Agent:
    return Agent(dataclasses.replace(config, server=dataclasses.replace(config.server, listen=listen)))


def _introduction(agent: Agent, servers: World, config: Config, path: Path) -> str:
    every = f"{QUIET_SECONDS + LASTS_SECONDS:g}"
    notes = [*servers.remarks, *(f"Left out: {kind}, because {why}." for kind, why in servers.left_out.items())]
    return f"""
netprobe watches {len(config.targets)} targets. Every {every} seconds something breaks, for {LASTS_SECONDS:g} seconds.

  {agent.url}/                         the status page, for a browser
  {agent.url}/targets                  what the agent knows about each of them
  {agent.url}/diagnosis?format=text    why some of them fail
  {agent.url}/metrics                  what Prometheus reads

In another terminal, ask for yourself:

  {_this_command()} explain --url {agent.url}
  {_this_command()} check --config {shlex.quote(str(path))}
  curl -s {agent.url}/metrics | grep ^netprobe_probe_failures_total

{"".join(f"{note}{chr(10)}" for note in notes)}\
Below: what breaks and heals (---), and what the agent then says of targets and causes. Ctrl-C ends it."""


def _this_command() -> str:
    """How whoever started the demo can start netprobe again."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m agent"
    return shlex.quote(str(started))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
