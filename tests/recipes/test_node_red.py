"""The recipe of Node-RED."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser
from recipeinstall import FromNpm
from recipekit import FORGED, Applications, Scene, recipe, shows
from storykit import HOSHINO
from visitor import FETCH

pytestmark = [*recipe]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve the page's flow."""
    async with applications.serve("node-red", FromNpm(("node-red",))) as found:
        yield found


async def test_a_flow_knows_the_person(scene: Scene) -> None:
    """A flow sees the person, whatever headers they send."""
    await scene.refuse_strangers("/who")
    async with scene.signed_in("/who") as visitor:
        page = await visitor.open(f"{scene.url}/who", headers={**FETCH, **FORGED})
        await scene.sign_out(visitor)

    assert page.text == HOSHINO.sub


async def test_a_person_sees_messages_and_deploys(scene: Scene, browser: Browser) -> None:
    """Debug messages come over a WebSocket, a flow is deployed, and the sign-out ends both."""
    async with scene.tab(browser) as tab:
        await tab.get_by_text("Deploy").first.wait_for()
        await tab.evaluate("() => RED.sidebar.show('debug')")
        await shows(tab, "tick of the flow")
        deployed = await tab.evaluate(
            """async () => {
                const found = await (await fetch("flows")).json();
                return (await fetch("flows", {
                    method: "POST",
                    headers: {"Content-Type": "application/json"},
                    body: JSON.stringify(found),
                })).status;
            }"""
        )
        assert deployed == 204
        assert not scene.websockets[-1].is_closed()
        await scene.sign_out_in(tab)
