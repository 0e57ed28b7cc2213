"""A tool in a frame of Tailchat's pages: a real browser, two sites, a sign-in of its own there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from accounts import user_named
from aiohttp import web
from gatekit import Clock, RunningGate, running_gate
from parts import in_browser, keep_screenshot
from playwright.async_api import Browser, BrowserContext, FrameLocator, Page, expect
from process import free_port
from storykit import log_in, registered, served

from tailchat_gate.demo.tool import SampleTool

pytestmark = in_browser

HOSHINO = user_named("hoshino")


@dataclass
class Stage:
    """The gate's tool on a site of its own, and pages of other sites with it in a frame."""

    gate: RunningGate
    tool: str
    #: Pages with the tool in a frame: that of the site which may, and that of one which may not.
    panel: str
    elsewhere: str


def _panel(url: str) -> web.Application:
    async def page(_: web.Request) -> web.Response:
        text = f'<!DOCTYPE html><title>panel</title><iframe src="{url}" width="800" height="500">'
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    return app


@pytest.fixture
def host() -> str:
    """Return the host of the tool, which is not the public one."""
    return "tool.localhost"


@pytest_asyncio.fixture(loop_scope="session")
async def stage(host: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Stage]:
    """Serve the tool, and pages of two sites around it."""
    panel_port = free_port()
    panel = f"http://chat.localhost:{panel_port}"
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(
            registered("gate.localhost", clock, tailchat_host="chat.localhost")
        )
        tool = f"http://{host}:{at.port}"
        tool_port = await stack.enter_async_context(served(SampleTool(ticks=0.05).app()))
        await stack.enter_async_context(served(_panel(f"{tool}/?from=panel"), panel_port))
        settings = at.settings(
            f"http://127.0.0.1:{tool_port}",
            tailchat={"internal_url": at.api_url.replace("chat.localhost", "127.0.0.1")},
            route=[
                {"name": "tool", "host": host, "embed": [panel]},
                {"name": "other", "host": host, "path": "/other"},
            ],
        )
        async with running_gate(settings, tmp_path / "access.log", clock) as gate:
            yield Stage(gate, tool, panel, f"http://evil.localhost:{panel_port}")


async def _sign_in_within(tab: Page, stage: Stage) -> FrameLocator:
    """Sign in from the frame, in the window that it opens; return the frame."""
    await tab.goto(stage.panel)
    frame = tab.frame_locator("iframe")
    async with tab.expect_popup() as opened:
        await frame.get_by_role("link", name="Sign in with Tailchat").click()
    window = await opened.value
    async with window.expect_event("close"):
        await log_in(window)
    return frame


async def _session_cookies(context: BrowserContext, stage: Stage) -> list[tuple[str, str]]:
    """Return (SameSite, partition) of the session cookies on the tool's host."""
    found = [
        (cookie.get("sameSite", ""), str(cookie.get("partitionKey", "")))
        for cookie in await context.cookies(stage.tool)
        if cookie.get("name") == "tailchat_gate"
    ]
    return sorted(found)


@pytest.mark.parametrize("host", ["tool.localhost", "gate.localhost"])
async def test_a_person_signs_in_within_a_frame(browser: Browser, stage: Stage) -> None:
    """The window closes by itself, and the tool is in the frame, at the address asked for."""
    context = await browser.new_context()
    tab = await context.new_page()
    await tab.goto(stage.panel)
    await expect(tab.frame_locator("iframe").locator("h1")).to_contain_text("Sign in")
    await keep_screenshot(tab, "embedded-1-sign-in")
    frame = await _sign_in_within(tab, stage)

    await expect(frame.get_by_text("星野 Hoshino ☆").first).to_be_visible()
    await keep_screenshot(tab, "embedded-2-tool")
    assert ("None", "http://chat.localhost") in await _session_cookies(context, stage)
    await tab.reload()
    await expect(frame.get_by_text("星野 Hoshino ☆").first).to_be_visible()


async def test_another_site_shows_nothing_in_its_frame(browser: Browser, stage: Stage) -> None:
    """Neither the sign-in nor, for a person who is signed in, the tool: it could be covered."""
    context = await browser.new_context()
    tab = await context.new_page()
    await tab.goto(stage.elsewhere)
    await tab.wait_for_load_state("networkidle")
    assert await tab.frame_locator("iframe").get_by_role("link").count() == 0

    frame = await _sign_in_within(tab, stage)
    await expect(frame.get_by_text("星野 Hoshino ☆").first).to_be_visible()
    await tab.goto(stage.elsewhere)
    await tab.wait_for_load_state("networkidle")
    assert await tab.frame_locator("iframe").get_by_text("星野").count() == 0


async def test_the_page_around_a_frame_cannot_use_its_session(
    browser: Browser, stage: Stage
) -> None:
    """The cookie of the frame comes with that page's own requests too: they are refused."""
    tab = await (await browser.new_context()).new_page()
    frame = await _sign_in_within(tab, stage)
    await expect(frame.get_by_text("星野 Hoshino ☆").first).to_be_visible()

    script = """async (url) => {
        await fetch(url, {mode: "no-cors", credentials: "include"});
        await fetch(url, {method: "POST", body: "x", mode: "no-cors", credentials: "include"});
    }"""
    await tab.evaluate(script, f"{stage.tool}/api/whoami?by=the-page")
    lines = [line for line in await stage.gate.log() if "/api/whoami" in line["path"]]
    assert [(line["method"], line["reason"]) for line in lines] == [
        ("GET", "cross-origin"),
        ("POST", "cross-origin"),
    ]


async def test_a_frame_reaches_only_tools_that_may_be_embedded(
    browser: Browser, stage: Stage
) -> None:
    """Another route of the same host refuses the session of a frame."""
    tab = await (await browser.new_context()).new_page()
    frame = await _sign_in_within(tab, stage)
    await expect(frame.get_by_text("星野 Hoshino ☆").first).to_be_visible()

    status = await tab.frames[1].evaluate("async () => (await fetch('/other')).status")
    assert status == 403


async def test_a_sign_out_in_the_tab_ends_the_frame(browser: Browser, stage: Stage) -> None:
    """Both sessions are one sign-in."""
    context = await browser.new_context()
    tab = await context.new_page()
    frame = await _sign_in_within(tab, stage)
    await expect(frame.get_by_text("星野 Hoshino ☆").first).to_be_visible()
    second = await context.new_page()
    await second.goto(f"{stage.gate.generation.settings.server.public_url}/oauth2/sign_out")
    await second.get_by_role("button", name="Sign out").click()
    await expect(second.get_by_role("heading", name="You are signed out")).to_be_visible()

    await tab.reload()
    await expect(frame.get_by_role("link", name="Sign in with Tailchat")).to_be_visible()


async def test_a_pass_of_another_frame_signs_nobody_in(browser: Browser, stage: Stage) -> None:
    """What a stranger's window handed over is bound to the stranger's frame."""
    strangers, tab = [await (await browser.new_context()).new_page() for _ in range(2)]
    await strangers.goto(stage.panel)
    link = strangers.frame_locator("iframe").get_by_role("link", name="Sign in with Tailchat")
    address = await link.get_attribute("href")
    assert address is not None
    frame = await _sign_in_within(tab, stage)
    await expect(frame.get_by_text("星野 Hoshino ☆").first).to_be_visible()

    # The victim's browser follows the stranger's link, without the stranger's cookie.
    await tab.context.clear_cookies(name="tailchat_gate", domain=stage.tool[7:].split(":")[0])
    window = await tab.context.new_page()
    await window.goto(address)
    if await window.locator("input[name=email]").count():
        pytest.fail("the victim is signed in at the gate or at Tailchat")
    handed = window.url
    assert "/oauth2/handed_over?pass=" in handed
    await tab.goto(stage.panel)
    await tab.frames[1].goto(handed.replace("handed_over", "arrive"))
    await asyncio.sleep(0)
    assert ("None", "http://chat.localhost") not in await _session_cookies(tab.context, stage)
