"""The recipe of marimo."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser
from recipeinstall import FromPyPI
from recipekit import Applications, Scene, recipe, shows
from storykit import HOSHINO

pytestmark = [*recipe, pytest.mark.quick]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve a notebook."""
    async with applications.serve("marimo", FromPyPI(("marimo",))) as found:
        yield found


async def test_a_person_runs_a_cell(scene: Scene, browser: Browser) -> None:
    """The notebook knows the person, runs a changed cell, and loses its WebSocket at sign-out."""
    await scene.refuse_strangers()
    async with scene.tab(browser) as tab:
        await tab.locator(".cm-content").first.click()
        await tab.keyboard.press("Control+Enter")
        await shows(tab, f"You are {HOSHINO.sub}.")
        await tab.keyboard.press("Control+a")
        await tab.keyboard.type("print(6 * 7, 'from the kernel')")
        await tab.keyboard.press("Control+Enter")
        await shows(tab, "42 from the kernel")
        assert not scene.websockets[-1].is_closed()
        await scene.sign_out_in(tab)
