"""The recipe of a WebDAV server."""

import io
import os
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from recipeinstall import FromPyPI
from recipekit import TOKEN, Applications, Scene, recipe
from visitor import Visitor

pytestmark = [*recipe, pytest.mark.quick]

LAPTOP = {"Authorization": aiohttp.encode_basic_auth("laptop", TOKEN)}
BIG = os.urandom(2**24)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve files."""
    async with applications.serve("webdav", FromPyPI(("wsgidav", "cheroot"))) as found:
        yield found


async def test_a_person_sees_the_files(scene: Scene) -> None:
    """A browser gets the list after the sign-in, and nothing after the sign-out."""
    (scene.directory / "files/readme.txt").write_text("hello")
    await scene.refuse_strangers()
    async with scene.signed_in() as visitor:
        page = await visitor.open(scene.url)
        await scene.sign_out(visitor)

    assert "readme.txt" in page.text


async def test_a_program_has_the_files_with_a_token(scene: Scene) -> None:
    """Bodies with a length and in chunks come back byte-equal; MKCOL, MOVE and PROPFIND."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(BIG), 2**16):
            yield BIG[start : start + 2**16]

    async with Visitor() as program:

        async def send(
            method: str, path: str, data: object = None, **fields: str
        ) -> tuple[int, bytes]:
            request = program.session.request(
                method, scene.url + path, data=data, headers={**fields, **LAPTOP}
            )
            async with request as response:
                return response.status, await response.read()

        assert (await send("PUT", "/length.bin", io.BytesIO(BIG)))[0] == 201
        assert (await send("PUT", "/chunks.bin", chunks()))[0] == 201
        assert (await send("MKCOL", "/kept"))[0] == 201
        moved, _ = await send("MOVE", "/length.bin", Destination=f"{scene.url}/kept/moved.bin")
        _, listed = await send("PROPFIND", "/kept/", Depth="1")

        assert (moved, b"/kept/moved.bin" in listed) == (201, True)
        for path in ("/kept/moved.bin", "/chunks.bin"):
            assert (await send("GET", path)) == (200, BIG)
