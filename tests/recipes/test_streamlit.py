"""The recipe of Streamlit."""

import os
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser
from recipeinstall import FromPyPI
from recipekit import Applications, Scene, recipe, shows
from storykit import HOSHINO

pytestmark = [*recipe]

FILE = os.urandom(2**24)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve the page's application."""
    async with applications.serve("streamlit", FromPyPI(("streamlit",))) as found:
        yield found


async def test_a_person_uses_the_application(scene: Scene, browser: Browser) -> None:
    """It knows the person, answers a button and an upload, and loses its WebSocket at sign-out."""
    (scene.directory / "large.bin").write_bytes(FILE)
    await scene.refuse_strangers()
    async with scene.tab(browser) as tab:
        await shows(tab, f"You are {HOSHINO.claims['nickname']}, {HOSHINO.sub}.")
        await tab.get_by_role("button", name="Multiply").click()
        await shows(tab, "3 times seven is 21.")
        await tab.locator("input[type=file]").set_input_files(scene.directory / "large.bin")
        await shows(tab, f"large.bin has {len(FILE)} bytes.")
        assert not scene.websockets[-1].is_closed()
        await scene.sign_out_in(tab)
