"""The recipe of pgAdmin."""

from collections.abc import AsyncIterator

import pytest_asyncio
from recipeinstall import FromPyPI
from recipekit import FORGED, Applications, Scene, recipe
from storykit import HOSHINO
from visitor import NAVIGATION

pytestmark = [*recipe]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve pgAdmin."""
    async with applications.serve("pgadmin", FromPyPI(("pgadmin4",))) as found:
        yield found


async def test_pgadmin_makes_an_account_of_the_person(scene: Scene) -> None:
    """Whatever headers they send; its WebSocket opens, and ends at sign-out."""
    await scene.refuse_strangers("/browser/")
    socket = f"{scene.url}/socket.io/?EIO=4&transport=websocket"
    async with scene.signed_in("/browser/") as visitor:
        about = f"{scene.url}/user_management/current_user.js"
        page = await visitor.open(about, headers={**NAVIGATION, **FORGED})
        async with visitor.session.ws_connect(socket, origin=scene.url) as opened:
            assert (await opened.receive_str()).startswith('0{"sid":')
            await scene.sign_out(visitor)
            while not opened.closed:
                await opened.receive()

    assert f"'name': '{HOSHINO.sub}'" in page.text
