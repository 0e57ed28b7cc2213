"""The recipe of Gradio."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, expect
from recipeinstall import FromPyPI
from recipekit import Applications, Scene, recipe
from storykit import HOSHINO

pytestmark = [*recipe]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve the page's application."""
    async with applications.serve("gradio", FromPyPI(("gradio",))) as found:
        yield found


async def test_a_person_gets_an_answer_by_events(scene: Scene, browser: Browser) -> None:
    """The function that answers knows the person who asked."""
    await scene.refuse_strangers()
    async with scene.tab(browser) as tab:
        await tab.get_by_label("Text").fill("Hello")
        await tab.get_by_role("button", name="Submit").click()
        answer = tab.get_by_label("Answer")
        await expect(answer).to_have_value(f"Hello from {HOSHINO.sub}", timeout=60_000)
        await scene.sign_out_in(tab)
