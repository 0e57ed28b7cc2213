"""People without a mouse, and with a browser that runs no scripts: in, to a tool, and out again."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from accounts import user_named
from gatekit import Clock, running_gate
from parts import in_browser
from playwright.async_api import Browser, Locator, Page, expect
from storykit import registered, served

from tailchat_gate.demo.tool import SampleTool

pytestmark = in_browser

HOSHINO = user_named("hoshino")
#: Nothing on these pages is as many steps away.
MOST_TABS = 40


@pytest_asyncio.fixture(loop_scope="session")
async def url(tmp_path: Path, clock: Clock) -> AsyncIterator[str]:
    """Serve a gate with a tool for everybody and one for others, and return where it is."""
    app = SampleTool(ticks=0.05).app()
    async with registered("127.0.0.1", clock) as at, served(app) as tool_port:
        settings = at.settings(
            f"http://127.0.0.1:{tool_port}",
            pages={"sign_in": "page"},
            access={"requests": True, "approvers": [f"sub:{HOSHINO.sub}"]},
            route=[
                {"name": "desk", "title": "Front desk"},
                {"name": "vault", "path": "/vault", "allow": ["sub:660000000000000000000099"]},
            ],
        )
        async with running_gate(settings, tmp_path / "access.log", clock):
            yield at.url


@dataclass
class Mouse:
    """Clicks, as everybody can whose browser runs no scripts."""

    tab: Page

    async def use(self, what: Locator) -> None:
        """Follow a link, or press a button."""
        async with self.tab.expect_navigation():
            await what.click()

    async def write(self, what: Locator, text: str) -> None:
        """Write into a field."""
        await what.fill(text)


@dataclass
class Keys:
    """Presses keys alone: Tab until something has the focus, which shows."""

    tab: Page

    async def use(self, what: Locator) -> None:
        """Follow a link, or press a button."""
        await self._reach(what)
        async with self.tab.expect_navigation():
            await self.tab.keyboard.press("Enter")

    async def write(self, what: Locator, text: str) -> None:
        """Write into a field."""
        await self._reach(what)
        await self.tab.keyboard.type(text)

    async def _reach(self, what: Locator) -> None:
        for _ in range(MOST_TABS):
            await self.tab.keyboard.press("Tab")
            if await what.evaluate("one => one === document.activeElement"):
                break
        shown = await what.evaluate(
            "one => one === document.activeElement && getComputedStyle(one).outlineStyle"
        )
        assert shown not in {False, "none"}, what


@pytest.mark.parametrize("how", ["by keys", "without scripts"])
async def test_a_walk_through_the_front_door(browser: Browser, url: str, how: str) -> None:
    """Sign-in, launcher, tool, refusal, a request for access, who-am-I and sign-out all work."""
    scripts = how == "by keys"
    context = await browser.new_context(locale="en", java_script_enabled=scripts)
    try:
        tab = await context.new_page()
        person = Keys(tab) if scripts else Mouse(tab)
        await tab.goto(f"{url}/oauth2/")
        await person.use(tab.get_by_role("link", name="Sign in with Tailchat"))
        await person.write(tab.locator("input[name=email]").first, HOSHINO.email)
        await person.write(tab.locator("input[name=password]").first, HOSHINO.password)
        async with tab.expect_navigation():
            await tab.keyboard.press("Enter")
        await person.use(tab.get_by_role("button", name="授权"))

        await expect(tab).to_have_title("Your tools · Tailchat Gate", timeout=40_000)
        await person.use(tab.get_by_role("link", name="Front desk"))
        assert tab.url == f"{url}/"

        await tab.goto(f"{url}/vault")
        await expect(tab.locator("h1")).to_have_text(
            "This account has no access here", timeout=40_000
        )
        await person.write(tab.get_by_label("What do you need it for?"), "on call")
        await person.use(tab.get_by_role("button", name="Ask for access"))
        await expect(tab.locator("h1")).to_have_text("You asked for access", timeout=40_000)

        await tab.goto(f"{url}/oauth2/")
        await expect(tab.get_by_role("listitem").filter(has_text="vault")).to_be_visible()
        await person.use(tab.get_by_role("link", name="Your sign-in"))
        await person.use(tab.get_by_role("link", name="Sign out", exact=True))
        await person.use(tab.get_by_role("button", name="Sign out", exact=True))
        await expect(tab.locator("h1")).to_have_text("You are signed out", timeout=40_000)
        await person.use(tab.get_by_role("link", name="Sign in again"))
        await tab.wait_for_url(f"{url}/", timeout=40_000)
    finally:
        await context.close()
