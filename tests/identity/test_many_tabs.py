"""Many tabs that sign in at the same time: every one of them arrives. In Chromium."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from accounts import user_named
from gatekit import Clock, running_gate
from parts import in_browser
from playwright.async_api import Browser, BrowserContext, CDPSession, Page
from storykit import registered, served

from tailchat_gate.demo.tool import SampleTool

pytestmark = in_browser

HOSHINO = user_named("hoshino")
TABS = 10
MORNINGS = 2
ONE_HOST = ("gate.test",)
SEVERAL_HOSTS = ("gate.test", "wiki.test", "git.test", "ci.lab.test")


@asynccontextmanager
async def many_hosts(log_file: Path, clock: Clock) -> AsyncIterator[int]:
    """Serve a tool on the host of public_url and on others; yields the gate's port."""
    async with registered("gate.test", clock) as at, served(SampleTool().app()) as tool_port:
        settings = at.settings(
            f"http://127.0.0.1:{tool_port}",
            route=[
                {"name": "home", "host": "gate.test"},
                {"name": "wiki", "host": "wiki.test"},
                {"name": "git", "host": "git.test"},
                {"name": "lab", "host": "*.lab.test"},
            ],
        )
        async with running_gate(settings, log_file, clock):
            yield at.port


class Window:
    """A window of tabs, which the tests of the file share: to open one takes long."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self._tabs: list[tuple[Page, CDPSession]] = []

    async def tabs(self, count: int, latency: int = 0) -> list[Page]:
        """Return empty tabs whose every request takes `latency` milliseconds more."""
        await self.context.clear_cookies()
        while len(self._tabs) < count:
            tab = await self.context.new_page()
            session = await self.context.new_cdp_session(tab)
            await session.send("Network.enable")
            self._tabs.append((tab, session))
        conditions = {"offline": False, "latency": latency}
        conditions |= {"downloadThroughput": -1, "uploadThroughput": -1}
        for tab, session in self._tabs[:count]:
            await tab.goto("about:blank")
            await session.send("Network.emulateNetworkConditions", conditions)
        return [tab for tab, _ in self._tabs[:count]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def window(_chromium: Browser) -> AsyncIterator[Window]:
    """Return a window."""
    context = await _chromium.new_context()
    # Ten tabs at once take a busy machine longer than the usual 30 seconds.
    context.set_default_timeout(120_000)
    try:
        yield Window(context)
    finally:
        await context.close()


async def _sign_in(tab: Page) -> None:
    """Fill in Tailchat's pages, those of them that come."""
    if await tab.locator("input[name=email]").count():
        await tab.locator("input[name=email]").first.fill(HOSHINO.email)
        await tab.locator("input[name=password]").first.fill(HOSHINO.password)
        await tab.locator("input[name=password]").first.press("Enter")
        await tab.wait_for_url(lambda url: "/login" not in url)
    consent = tab.get_by_role("button", name="授权")
    if await consent.count():
        await consent.click()


async def _forget_the_gate(context: BrowserContext) -> None:
    """Let every session at the gate be over, and keep the one at Tailchat."""
    for host in SEVERAL_HOSTS:
        await context.clear_cookies(domain=host)


@pytest.mark.parametrize("hosts", [ONE_HOST, SEVERAL_HOSTS], ids=["one-host", "several-hosts"])
@pytest.mark.parametrize("latency", [0, 60])
async def test_ten_tabs_at_once_with_a_session_at_tailchat(
    window: Window, tmp_path: Path, clock: Clock, latency: int, hosts: tuple[str, ...]
) -> None:
    """A window of tabs that is restored in the morning: each ends where it was, every time."""
    async with many_hosts(tmp_path / "access.log", clock) as port:
        tabs = await window.tabs(TABS, latency)
        await tabs[0].goto(f"http://gate.test:{port}/")
        await _sign_in(tabs[0])
        await tabs[0].wait_for_url(f"http://gate.test:{port}/")
        wanted = [
            f"http://{hosts[number % len(hosts)]}:{port}/api/whoami?tab={number}"
            for number in range(TABS)
        ]
        for _ in range(MORNINGS):
            await _forget_the_gate(window.context)
            await asyncio.gather(*(tab.goto(url) for tab, url in zip(tabs, wanted, strict=True)))

            assert [tab.url for tab in tabs] == wanted


@pytest.mark.parametrize("hosts", [ONE_HOST, SEVERAL_HOSTS], ids=["one-host", "several-hosts"])
async def test_ten_tabs_at_once_where_each_signs_in_by_hand(
    window: Window, tmp_path: Path, clock: Clock, hosts: tuple[str, ...]
) -> None:
    """Ten tabs wait at Tailchat's login page; whichever is filled in, each ends where it was."""
    async with many_hosts(tmp_path / "access.log", clock) as port:
        tabs = await window.tabs(TABS, 60)
        wanted = [
            f"http://{hosts[number % len(hosts)]}:{port}/api/whoami?tab={number}"
            for number in range(TABS)
        ]
        await asyncio.gather(*(tab.goto(url) for tab, url in zip(tabs, wanted, strict=True)))
        assert all("/open/interaction/" in tab.url for tab in tabs)
        for tab, url in reversed(list(zip(tabs, wanted, strict=True))):
            await _sign_in(tab)
            await tab.wait_for_url(url)


async def test_a_tab_whose_cookie_is_gone_begins_once_more_by_itself(
    window: Window, tmp_path: Path, clock: Clock
) -> None:
    """Where more began than cookies are kept, the oldest tabs arrive nevertheless."""
    async with many_hosts(tmp_path / "access.log", clock) as port:
        tabs = await window.tabs(3)
        context = window.context
        wanted = [f"http://wiki.test:{port}/api/whoami?tab={number}" for number in range(3)]
        await asyncio.gather(*(tab.goto(url) for tab, url in zip(tabs, wanted, strict=True)))
        kept = [c for c in await context.cookies() if "_login_" in c["name"]]
        assert kept
        await context.clear_cookies(domain="gate.test")
        await context.clear_cookies(domain="wiki.test")
        # Another login that began meanwhile shows that the browser keeps cookies.
        await tabs[2].goto(wanted[2])
        for tab, url in zip(tabs, wanted, strict=True):
            await _sign_in(tab)
            await tab.wait_for_url(url)
