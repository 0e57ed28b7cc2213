"""The script in docs/tool-authors.md, as it is printed there, in a page of a tool."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio
from gatekit import Clock, running_gate
from parts import in_browser
from playwright.async_api import Browser
from recipepage import block
from storykit import HOSHINO, log_in, registered, served

from tailchat_gate.demo.tool import SampleTool

pytestmark = in_browser


@dataclass
class Stage:
    """Where the tool is to be found, and the gate's clock."""

    url: str
    clock: Clock


@pytest_asyncio.fixture(loop_scope="session")
async def stage(tmp_path: Path, clock: Clock) -> AsyncIterator[Stage]:
    """Serve a tool behind the gate."""
    async with registered("127.0.0.1", clock) as at, served(SampleTool().app()) as port:
        settings = at.settings(f"http://127.0.0.1:{port}")
        async with running_gate(settings, tmp_path / "access.log", clock):
            yield Stage(at.url, clock)


async def test_a_call_of_a_script_leads_back_to_its_page(browser: Browser, stage: Stage) -> None:
    """While the session lives it answers; then it leads over the sign-in to the same page."""
    tab = await (await browser.new_context()).new_page()
    await tab.goto(f"{stage.url}/api/whoami?page=2")
    await log_in(tab)
    await tab.wait_for_url(f"{stage.url}/api/whoami?page=2")
    script = block("tool: fetch")
    status = "call('/api/whoami').then((answer) => answer.status)"
    assert await tab.evaluate(f"() => {{ {script} return {status}; }}") == 200

    stage.clock.now += 43_201
    await tab.evaluate(f"() => {{ {script} call('/api/whoami'); }}")
    await tab.get_by_role("link", name="Sign in with Tailchat").click()
    await tab.wait_for_url(f"{stage.url}/api/whoami?page=2")

    shown = json.loads(await tab.locator("pre").inner_text())
    assert shown["who"]["sub"] == HOSHINO.sub
