"""A real Prometheus on loopback that scrapes one agent, and promtool."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.lab.agents import eventually
from tests.lab.http_client import request

_CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: netprobe
    scheme: http
    static_configs: [{{targets: ["{address}"]}}]
"""


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector an expression has now: `metric` (labels) and `value` of each series."""
        answer = await self._get("/api/v1/query", query=expression)
        result: list[dict[str, Any]] = answer["result"]
        return result

    async def names(self) -> set[str]:
        """The names of all series it has."""
        return set(await self._get("/api/v1/label/__name__/values"))

    async def metadata(self) -> dict[str, dict[str, str]]:
        """What it has been told of each metric: type, help and unit."""
        answer = await self._get("/api/v1/metadata")
        return {name: entries[0] for name, entries in answer.items()}

    async def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, and how that goes."""
        answer = await self._get("/api/v1/targets")
        active: list[dict[str, Any]] = answer["activeTargets"]
        return active

    async def _get(self, path: str, **parameters: str) -> Any:
        answer = await request(f"{self._url}{path}?{urllib.parse.urlencode(parameters)}")
        assert answer.status == 200, answer
        # Go sends longer answers in chunks.
        body = _joined(answer.body) if answer.headers.get("transfer-encoding") == "chunked" else answer.body
        return json.loads(body)["data"]


def _joined(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        whole += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return whole


@asynccontextmanager
async def prometheus(directory: Path, scraped: str) -> AsyncIterator[Prometheus]:
    """Prometheus scraping an address every second, once it is ready."""
    async with configured_prometheus(directory, _CONFIG.format(address=scraped)) as server:
        yield server


@asynccontextmanager
async def configured_prometheus(directory: Path, configuration: str) -> AsyncIterator[Prometheus]:
    """Prometheus with this configuration, once it is ready."""
    file = directory / "prometheus.yml"
    file.write_text(configuration)
    port = await _free_port()
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"

        async def ready() -> bool:
            assert process.returncode is None, "prometheus has ended"
            try:
                return (await request(f"{url}/-/ready")).status == 200
            except (OSError, IndexError):
                return False

        await eventually(ready, "a ready Prometheus")
        yield Prometheus(url)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _free_port() -> int:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


def promtool_complaints(exposition: str) -> str:
    """What `promtool check metrics` says to a document; empty where it has nothing to say."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr + (f"exit code {done.returncode}" if done.returncode else "")
