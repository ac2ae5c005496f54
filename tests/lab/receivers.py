"""Real receivers of what is pushed, on loopback: Prometheus with its remote write receiver, and the Pushgateway."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.lab.agents import eventually

_CONFIG = "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"


class Receiver:
    """A program that listens on a port of its own, and can be killed and started again with what it has stored."""

    def __init__(
        self, command: tuple[str, ...], *, tls: Path | None = None, auth: tuple[str, str] | None = None
    ) -> None:
        """`{port}` in the command is its port. With `tls`, an authority to trust, it speaks TLS."""
        self._command = command
        self._context = ssl.create_default_context(cafile=tls) if tls else None
        credentials = base64.b64encode(":".join(auth).encode()).decode() if auth else ""
        self._headers = {"Authorization": f"Basic {credentials}"} if auth else {}
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, on the same port as before, and wait until it is ready."""
        self.port = self.port or await free_port()
        self._process = await asyncio.create_subprocess_exec(
            *(part.format(port=self.port) for part in self._command),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

        async def ready() -> bool:
            assert self._process is not None
            assert self._process.returncode is None, f"{self._command[0]} has ended"
            try:
                return (await self._get("/-/ready"))[0] == 200
            except OSError:
                return False

        await eventually(ready, f"a ready {self._command[0]}")

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def query(self, expression: str, **parameters: str) -> list[dict[str, Any]]:
        """The series an expression has: `metric` (labels) and `value`, or `values` of a range."""
        data = await self.api("/api/v1/query", query=expression, **parameters)
        result: list[dict[str, Any]] = data["result"]
        return result

    async def value(self, expression: str, **parameters: str) -> float | None:
        """The value of the one series an expression has, None where it has none."""
        found = await self.query(expression, **parameters)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    async def api(self, path: str, **parameters: str) -> Any:
        status, _, document = await self._get(path, parameters)
        assert status == 200, document
        return document["data"]

    async def page(self, path: str) -> str:
        return (await self._get(path))[1]

    async def _get(self, path: str, parameters: Mapping[str, str] | None = None) -> tuple[int, str, Any]:
        async with (
            aiohttp.ClientSession(headers=self._headers, trust_env=False) as session,
            session.get(self.url + path, params=parameters, ssl=self._context or True) as answer,
        ):
            text = await answer.text()
            return answer.status, text, await answer.json() if answer.content_type == "application/json" else None


@asynccontextmanager
async def remote_write_receiver(
    directory: Path,
    *,
    web_config: str = "",
    tls: Path | None = None,
    auth: tuple[str, str] | None = None,
    configuration: str = _CONFIG,
) -> AsyncIterator[Receiver]:
    """Prometheus that scrapes nobody and takes what is written to it at /api/v1/write."""
    (directory / "receiver.yml").write_text(configuration, "utf-8")
    (directory / "web.yml").write_text(web_config, "utf-8")
    receiver = Receiver(
        (
            "prometheus",
            f"--config.file={directory / 'receiver.yml'}",
            f"--web.config.file={directory / 'web.yml'}",
            f"--storage.tsdb.path={directory / 'received'}",
            "--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
        ),
        tls=tls,
        auth=auth,
    )
    try:
        await receiver.start()
        yield receiver
    finally:
        await receiver.kill()


@asynccontextmanager
async def pushgateway() -> AsyncIterator[Receiver]:
    """The Pushgateway, empty."""
    receiver = Receiver(("prometheus-pushgateway", "--web.listen-address=127.0.0.1:{port}"))
    try:
        await receiver.start()
        yield receiver
    finally:
        await receiver.kill()


async def free_port() -> int:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
