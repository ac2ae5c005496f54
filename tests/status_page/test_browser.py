"""The status page in a real browser, with real agents behind it that watch real servers."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.lab.agents import Running, eventually, running
from tests.lab.browser import PATIENCE_MILLISECONDS, Scheme, Tab, chromium, tab
from tests.lab.http_client import request
from tests.lab.http_servers import HttpServer, Received, response
from tests.lab.misbehaving import echoing, refusing_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDENTITY = {
    "NETPROBE_ANNOTATION_DAG_ID": "nightly_orders",
    "NETPROBE_ANNOTATION_TASK_ID": "load_warehouse",
    "NETPROBE_ANNOTATION_TRY_NUMBER": "2",
    "NETPROBE_POD_NAME": "nightly-orders-load-warehouse-x7k2p",
    "NETPROBE_POD_NAMESPACE": "airflow",
    "NETPROBE_NODE_NAME": "node-4",
}
REFRESH = "document.dispatchEvent(new Event('visibilitychange'))"
"""What a browser says when its tab is looked at again: the page then does not wait for its turn."""

expect.set_options(timeout=PATIENCE_MILLISECONDS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


def configuration(*targets: dict[str, Any], **sections: Any) -> str:
    """Targets that are probed every second, as YAML."""
    defaults = {"interval": "1s", "timeout": "1s"}
    return json.dumps({"defaults": defaults, "targets": targets, **sections})


def refused(name: str) -> dict[str, Any]:
    return {"name": name, "type": "tcp", "address": f"127.0.0.1:{refusing_port()}"}


class Site(HttpServer):
    """A web site that can be broken and repaired."""

    def __init__(self) -> None:
        super().__init__(self._reply_as_it_is)
        self.status = "200 OK"

    def _reply_as_it_is(self, _: Received) -> bytes:
        return response(self.status, b"hello")


async def saying(agent: Running, words: str) -> str:
    """The page, once it says this."""

    async def says() -> str | None:
        text = (await request(agent.url + "/")).text
        return text if words in text else None

    page: str = await eventually(says, f"a page with {words}")
    return page


VIEWS: dict[Scheme, int] = {"light": 1280, "dark": 360}
"""A desk and a telephone, by colour scheme."""


async def looks_right(browser: Browser, url: str) -> None:
    """Nothing that axe-core minds, nothing beyond the edge."""
    for scheme, width in VIEWS.items():
        async with tab(browser, url, scheme=scheme, width=width) as opened:
            assert await opened.violations() == []
            assert await opened.beyond_the_edge() <= 0


async def colour(opened: Tab) -> tuple[int, ...]:
    shown = await opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    return tuple(map(int, re.findall(r"\d+", shown)))[:3]


async def test_healthy(browser: Browser, tmp_path: Path) -> None:
    async with Site() as site, echoing() as echo:
        web = {"name": "web", "type": "http", "url": site.url()}
        cache = {"name": "cache", "type": "tcp", "address": echo.address}
        async with running(tmp_path, configuration(web, cache), env=IDENTITY) as agent:
            await saying(agent, "2 work")
            await looks_right(browser, agent.url)
            for scheme in VIEWS:
                async with tab(browser, agent.url, scheme=scheme) as opened:
                    assert (max(await colour(opened)) < 64) is (scheme == "dark")
            async with tab(browser, agent.url, reduced_motion="reduce") as opened:
                page = opened.page
                assert await page.title() == "✓ healthy · load_warehouse · netprobe"
                await expect(page.get_by_role("heading", level=1)).to_have_text(
                    "No target fails, and nothing stands out."
                )
                await expect(page.get_by_role("banner")).to_contain_text("task load_warehouse")
                await expect(page.get_by_role("rowheader", name="web")).to_be_visible()
                await expect(page.get_by_role("row").filter(has_text="web")).to_contain_text("works")
                assert (
                    await page.evaluate("getComputedStyle(document.querySelector('.verdict')).transitionDuration")
                    == "0s"
                )
                await page.emulate_media(media="print")
                await expect(page.get_by_role("button", name="Pause")).to_be_hidden()
                await expect(page.get_by_role("heading", level=1)).to_be_visible()


class AReader:
    """Somebody who has scrolled to a row, opened its details, and selected its name: with the focus on the details."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.row = page.locator("tbody", has=page.get_by_role("rowheader", name=name))
        self.name = name
        self.seen_at = 0.0

    async def settle(self) -> None:
        summary = self.row.locator("summary")
        await summary.scroll_into_view_if_needed()
        await summary.focus()
        await self.page.keyboard.press("Enter")
        await self.row.locator("th").select_text()
        await self.page.evaluate("window.loaded = 'once'")
        self.seen_at = await self._top()

    async def _top(self) -> float:
        top: float = await self.row.locator("summary").evaluate("e => e.getBoundingClientRect().top")
        return top

    async def is_undisturbed(self) -> None:
        assert await self.page.evaluate("window.loaded") == "once"
        assert abs(await self._top() - self.seen_at) < 2
        assert await self.row.locator("summary").evaluate("e => document.activeElement === e")
        assert await self.row.locator("details").evaluate("e => e.open")
        assert self.name in await self.page.evaluate("getSelection().toString()")


COUNT_WHAT_IS_ANNOUNCED = """
window.told = 0;
const changes = {childList: true, characterData: true, subtree: true};
new MutationObserver(seen => window.told += seen.length).observe(document.querySelector("[aria-live]"), changes);
"""


async def test_it_follows_what_happens_by_itself(browser: Browser, tmp_path: Path) -> None:
    """Broken and repaired while somebody reads: the page is not loaded anew, and nothing moves under the reader."""
    async with Site() as site, echoing() as echo:
        web = {"name": "web", "type": "http", "url": site.url()}
        caches = [{"name": f"cache-{n}", "type": "tcp", "address": echo.address} for n in range(8)]
        text = configuration(*caches, web, refused("warehouse"))
        async with running(tmp_path, text) as agent:
            await saying(agent, "nothing_listening")
            async with tab(browser, agent.url, height=500) as opened:
                page = opened.page
                await page.evaluate(COUNT_WHAT_IS_ANNOUNCED)
                reader = AReader(page, "cache-5")
                await reader.settle()
                scrolled = await page.evaluate("scrollY")
                assert scrolled > 0

                site.status = "503 Service Unavailable"
                # By itself: no word from here, only the time that the page takes between two looks.
                await expect(page.locator(".verdict", has_text="answers 503")).to_be_attached()
                await reader.is_undisturbed()
                assert await page.evaluate("scrollY") > scrolled, "what grows above pushes nothing down"
                broken = page.locator("tbody", has=page.get_by_role("rowheader", name="web"))
                await expect(broken).to_contain_text("verify/unexpected_status expected status 2xx, got 503")
                assert await page.evaluate("window.told") > 0
                assert await opened.violations() == []

                site.status = "200 OK"
                await saying(agent, "server_error</b> of")
                await page.evaluate(REFRESH)
                await expect(page.locator("#past")).to_contain_text("server_error of web")
                await reader.is_undisturbed()
                told = await page.evaluate("window.told")
                before = await page.locator("#asof").inner_text()
                await expect(page.locator("#asof")).not_to_have_text(before)
                assert await page.evaluate("window.told") == told, "nobody is told twice what has not changed"
                assert set(opened.asked) == {"/"}


async def test_who_pauses_it_is_left_alone(browser: Browser, tmp_path: Path) -> None:
    async with Site() as site:
        text = configuration({"name": "web", "type": "http", "url": site.url()})
        async with running(tmp_path, text) as agent:
            await saying(agent, "1 works")
            async with tab(browser, agent.url) as opened:
                page = opened.page
                await page.clock.install()
                await page.reload()
                await page.clock.run_for(5_100)
                await expect(page.locator("html")).to_have_class("scripted")
                looked = len(opened.asked)
                assert looked >= 3
                await page.get_by_role("button", name="Pause").click()
                await page.clock.run_for(60_000)
                paused = len(opened.asked)
                await page.clock.run_for(60_000)
                assert len(opened.asked) == paused <= looked + 1
                async with page.expect_response(agent.url + "/"):
                    await page.get_by_role("button", name="Resume").click()
                await page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
                await page.evaluate(REFRESH)
                await page.clock.run_for(60_000)
                hidden = len(opened.asked)
                await page.clock.run_for(60_000)
                assert len(opened.asked) == hidden
                await page.evaluate("Object.defineProperty(document, 'hidden', {value: false, configurable: true})")
                async with page.expect_response(agent.url + "/"):
                    await page.evaluate(REFRESH)


async def test_two_hundred_targets(browser: Browser, tmp_path: Path) -> None:
    async with echoing() as echo:
        fine = [{"name": f"target-{n:03}", "type": "tcp", "address": echo.address} for n in range(140)]
        dead = [refused(f"{'a-rather-long-name-of-a-target-' * 2}{n:03}") for n in range(60)]
        text = configuration(*fine, *dead, defaults={"interval": "60s", "timeout": "5s"})
        async with running(tmp_path, text) as agent:
            page = await saying(agent, "60 fail, 140 work")
            assert len(page.encode()) < 50_000
            await looks_right(browser, agent.url)
            async with tab(browser, agent.url) as opened:
                assert await opened.page.get_by_role("rowheader").count() == 200
                first = opened.page.locator("tbody").first
                await expect(first).to_contain_text("fails")
                before = await opened.page.locator("tbody").all_inner_texts()
                async with opened.page.expect_response(agent.url + "/"):
                    await opened.page.evaluate(REFRESH)
                await expect(opened.page.get_by_role("rowheader")).to_have_count(200)
                after = await opened.page.locator("tbody").all_inner_texts()
                assert [row.split()[1:3] for row in after] == [row.split()[1:3] for row in before]


async def test_hostile_words(browser: Browser, tmp_path: Path) -> None:
    """In names, answers, addresses and identities: shown, and not obeyed."""
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    reply = f"HTTP/1.1 503 {evil}\r\nServer: {evil}\r\nContent-Type: text/html\r\nContent-Length: 300\r\n\r\n"
    body = f"<title>{evil}</title><svg onload=alert(3)>\x1b[31m\u202e\u2066".encode().ljust(300, b"!")
    env = IDENTITY | {
        "NETPROBE_ANNOTATION_DAG_ID": f"{evil}\u202egnp.exe",
        "NETPROBE_ANNOTATION_TASK_ID": "\"><svg/onload=alert(4)>' onmouseover='alert(5)",
        "NETPROBE_NODE_NAME": "</title></style></script><base href=//evil.example/><form action=//evil.example/>",
    }
    async with HttpServer(reply.encode() + body) as server:
        path = "/'onmouseover=alert(6)/<script>alert(7)</script>/javascript:alert(8)"
        text = configuration({"name": "a/b:_.c", "type": "http", "url": server.url(path)}, refused("--"))
        async with running(tmp_path, text.replace('"--"', '"x--y"'), env=env) as agent:
            await saying(agent, "2 fail")
            await saying(agent, "server_error")
            async with tab(browser, agent.url) as opened:
                page = opened.page
                for _ in range(2):
                    await expect(page.get_by_role("banner")).to_contain_text(r"onerror=alert(2)>\u202egnp.exe")
                    await expect(page.locator("body")).to_contain_text("<base href=//evil.example/>")
                    await expect(page.locator("tbody").filter(has_text="a/b:_.c")).to_contain_text(
                        "503 <script>alert(1)"
                    )
                    assert "svg/onload=alert(4)" in await page.title()
                    assert await page.locator("script").count() == 1
                    assert await page.locator("img, base, form, iframe, object").count() == 0
                    assert not re.search("[\x1b\u202e\u2066]", await page.locator("body").inner_text())
                    async with page.expect_response(agent.url + "/"):
                        await page.evaluate(REFRESH)
                for place in await page.locator("bdi, code").all():
                    await place.dispatch_event("mouseover")
                assert opened.amiss == []
                assert set(opened.asked) == {"/"}
            await looks_right(browser, agent.url)


async def test_the_policy_would_stop_what_got_through(browser: Browser, tmp_path: Path) -> None:
    """The listener above sees what it is to see: a script, an image and a style that the page has not brought along."""
    async with running(tmp_path, configuration(refused("a"))) as agent, tab(browser, agent.url) as opened:
        await opened.page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.textContent = "document.title = 'run'";
                document.body.append(script);
                const image = document.createElement("img");
                image.src = "/healthz";
                document.body.append(image);
                document.body.setAttribute("style", "color: red");
            }"""
        )

        async def stopped() -> bool:
            said = " ".join(opened.amiss)
            return all(f"policy: {directive}" in said for directive in ("script-src-elem", "img-src", "style-src-attr"))

        await eventually(stopped, "three violations")
        assert await opened.page.title() != "run"
        opened.amiss.clear()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_an_agent_that_has_gone_is_missed(browser: Browser, tmp_path: Path) -> None:
    """It is said where it is seen, what was known stays, and whoever comes back is shown."""
    port = free_port()
    text = configuration(refused("warehouse"))
    async with running(tmp_path, text, env=IDENTITY, port=port) as agent:
        await saying(agent, "nothing_listening")
        async with tab(browser, agent.url) as opened:
            page = opened.page
            await expect(page.locator("#gone")).to_be_hidden()
            agent.process.kill()
            await agent.process.wait()
            await page.evaluate(REFRESH)
            await expect(page.locator("#gone")).to_contain_text("The agent cannot be reached any more.")
            lower_edge = await page.locator("#gone").evaluate("e => innerHeight - e.getBoundingClientRect().bottom")
            assert lower_edge == 0, "it is seen wherever somebody has scrolled to"
            assert (await page.title()).startswith("unreachable · ")
            await expect(page.get_by_role("heading", level=1)).to_contain_text("refuses connections")
            assert await opened.violations() == []
            await page.set_viewport_size({"width": 360, "height": 700})
            assert await opened.beyond_the_edge() <= 0
            async with running(tmp_path, text, env=IDENTITY, port=port) as again:
                await saying(again, "nothing_listening")
                await expect(page.locator("#gone")).to_be_hidden()
                assert "unreachable" not in await page.title()
            assert opened.amiss == []


async def test_another_version_is_loaded_anew(browser: Browser, tmp_path: Path) -> None:
    """And whoever else answers there, once the agent has gone, is not taken for it."""
    async with running(tmp_path, configuration(refused("warehouse"))) as agent:
        page_of_another = (await saying(agent, "nothing_listening")).replace("data-version=", "data-version=0", 1)
        async with tab(browser, agent.url) as opened:
            page = opened.page
            await page.evaluate("window.loaded = 'once'")
            await page.route("**/*", lambda route: route.fulfill(body="<h1>It works!</h1>", content_type="text/html"))
            await page.evaluate(REFRESH)
            await expect(page.locator("#gone")).to_contain_text("cannot be reached")
            await expect(page.get_by_role("heading", level=1)).to_contain_text("refuses connections")
            await page.unroute("**/*")
            await page.route(
                "**/*", lambda route: route.fulfill(body=page_of_another, content_type="text/html"), times=1
            )
            async with page.expect_navigation():
                await page.evaluate(REFRESH)
            assert await page.evaluate("window.loaded") is None
            await expect(page.get_by_role("heading", level=1)).to_contain_text("refuses connections")


async def test_it_works_without_a_script(browser: Browser, tmp_path: Path) -> None:
    async with Site() as site:
        text = configuration({"name": "web", "type": "http", "url": site.url()}, refused("warehouse"))
        async with running(tmp_path, text) as agent:
            await saying(agent, "nothing_listening")
            async with tab(browser, agent.url, script=False, width=360) as opened:
                page = opened.page
                await expect(page.get_by_role("button")).to_have_count(0)
                await expect(page.get_by_role("heading", level=1)).to_contain_text("refuses connections")
                await expect(page.get_by_role("rowheader", name="web")).to_be_visible()
                site.status = "503 Service Unavailable"
                await saying(agent, "server_error")
                await page.get_by_role("link", name="Reload").click()
                await expect(page.locator("body")).to_contain_text("server_error")


async def test_everything_can_be_reached_with_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    url = "https://runbooks.example.com/netprobe/runbook.md"
    text = configuration(refused("warehouse"), diagnosis={"runbook_url": url})
    async with running(tmp_path, text) as agent:
        await saying(agent, "nothing_listening")
        async with tab(browser, agent.url) as opened:
            page = opened.page
            names = []
            while True:
                await page.keyboard.press("Tab")
                told = await page.evaluate(
                    """() => {
                        const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
                        const seen = style.outlineStyle !== "none" && box.width > 20 && box.height > 10;
                        const within = box.top >= 0 && box.bottom <= innerHeight;
                        return e === document.body ? null : [e.textContent, seen && within];
                    }"""
                )
                if told is None or told[0] in names:
                    break
                assert told[1], f"the focus is on {told[0]} and cannot be seen"
                names.append(told[0])
            assert names[:4] == ["Skip to the targets", "Pause", f"{url}#nothing_listening", "Evidence"]
            assert names[-6:] == ["/metrics", "/targets", "/diagnosis", "/healthz", "/readyz", "/startupz"]
            await page.locator("summary", has_text="Evidence").focus()
            await page.keyboard.press("Enter")
            assert await page.locator(".verdict details").evaluate("e => e.open") is False
            async with page.expect_response(agent.url + "/"):
                await page.evaluate(REFRESH)
            await expect(page.locator("#asof")).to_be_visible()
            assert await page.locator(".verdict details").evaluate("e => e.open") is False
            await page.reload()
            await page.keyboard.press("Tab")
            await page.keyboard.press("Enter")
            assert await page.evaluate("document.activeElement.id") == "targets"
