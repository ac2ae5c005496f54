"""A headless Chromium that reaches loopback and nothing else, and takes note of whatever is amiss on a page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import axe_playwright_python
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

EXECUTABLE = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--proxy-server=direct://",
)
PATIENCE_MILLISECONDS = 60_000
Scheme = Literal["light", "dark"]

_AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
_VIOLATIONS = """
async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  const where = node => `${node.html} ${node.failureSummary}`;
  return found.violations.map(v => `${v.id} (${v.impact}): ${v.nodes.map(where).join("; ")}`);
}
"""
_LISTENER = """
addEventListener("securitypolicyviolation", e => console.error("policy:", e.violatedDirective, e.blockedURI));
"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=EXECUTABLE, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


class Tab:
    """A page, and what went wrong on it: errors, dialogs, violations of its policy, requests to elsewhere."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.amiss: list[str] = []
        self.asked: list[str] = []
        """Paths, in the order in which they were asked for."""
        self._origin = origin
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.amiss.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.amiss.append(f"dialog: {dialog.message}"))
        page.on("request", self._requested)

    def _said(self, message: ConsoleMessage) -> None:
        # Chromium itself reports a request that nobody answered; what the page makes of it is another matter.
        if message.type in {"error", "warning"} and "net::ERR_" not in message.text:
            self.amiss.append(f"console: {message.text}")

    def _requested(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme == "data":
            return
        self.asked.append(parts.path)
        if f"{parts.scheme}://{parts.netloc}" != self._origin:
            self.amiss.append(f"request: {request.url}")

    async def violations(self) -> list[str]:
        """What axe-core finds, as text."""
        if not await self.page.evaluate("typeof axe === 'object'"):
            await self.page.evaluate(_AXE.read_text("utf-8"))
        found: list[str] = await self.page.evaluate(_VIOLATIONS)
        return found

    async def beyond_the_edge(self) -> int:
        """Pixels by which the page is wider than its window."""
        wider: int = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return wider


@asynccontextmanager
async def tab(
    browser: Browser,
    url: str,
    *,
    width: int = 1280,
    height: int = 900,
    scheme: Scheme = "light",
    script: bool = True,
    **options: Any,
) -> AsyncIterator[Tab]:
    """The page at a URL in a window of its own. Nothing may have been amiss on it when it is closed."""
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=script, **options
    )
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    try:
        page = await context.new_page()
        parts = urlsplit(url)
        opened = Tab(page, f"{parts.scheme}://{parts.netloc}")
        await page.add_init_script(_LISTENER)
        await page.goto(url)
        yield opened
        assert opened.amiss == []
    finally:
        await context.close()
