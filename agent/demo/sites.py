"""A web site over HTTP and an API over HTTPS, which can be told to misbehave."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from agent.demo.ports import LOOPBACK

SLOW_SECONDS = 5.0
"""Longer than any target of the demo waits."""


class Sites:
    """Both of them, on ports the system chose."""

    def __init__(self, certificate: Path) -> None:
        """Serve HTTPS with a certificate chain and its key, one PEM file."""
        self.in_maintenance = False
        """The web site answers 503."""
        self.slow = False
        """The API takes its time."""
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.show_certificate(certificate)
        application = web.Application()
        application.add_routes([web.get("/", self._page), web.get("/orders", self._orders)])
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        self.web_port = 0
        self.api_port = 0

    def show_certificate(self, certificate: Path) -> None:
        """Present another certificate on every connection made from now on."""
        self._tls.load_cert_chain(certificate)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        self.web_port = await self._listen(None)
        self.api_port = await self._listen(self._tls)
        return self

    async def _listen(self, tls: ssl.SSLContext | None) -> int:
        site = web.TCPSite(self._runner, LOOPBACK, 0, ssl_context=tls)
        await site.start()
        port: int = self._runner.addresses[-1][1]
        return port

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _page(self, _: web.Request) -> web.Response:
        if self.in_maintenance:
            return web.Response(status=503, text="Back soon.\n")
        return web.Response(text="Welcome.\n")

    async def _orders(self, _: web.Request) -> web.Response:
        if self.slow:
            await asyncio.sleep(SLOW_SECONDS)
        return web.json_response({"status": "ok", "orders": 3})
