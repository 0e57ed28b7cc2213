"""The recipe of a Docker registry."""

import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest_asyncio
from recipeinstall import FromGo
from recipekit import TOKEN, Applications, Scene, recipe

pytestmark = [*recipe]

PROGRAMS = (
    "github.com/distribution/distribution/v3/cmd/registry",
    "github.com/google/go-containerregistry/cmd/crane",
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve a registry."""
    async with applications.serve("docker-registry", FromGo(PROGRAMS)) as found:
        yield found


async def test_an_image_is_pushed_and_pulled_with_a_token(scene: Scene) -> None:
    """A large layer comes back byte-equal; without the login nobody gets it."""
    at = urlsplit(scene.url).netloc
    by_gate = {"HTTP_PROXY": scene.gate_url}
    image = f"{at}/app:1"
    (scene.directory / "large.bin").write_bytes(os.urandom(2**24))

    await scene.refuse_strangers("/v2/")
    await scene.run("tar", "-cf", "layer.tar", "large.bin")
    await scene.run("crane", "auth", "login", at, "--insecure", "-u", "ci", "-p", TOKEN)
    await scene.run(
        *("crane", "append", "--insecure", "--oci-empty-base", "-f", "layer.tar", "-t", image),
        variables=by_gate,
    )
    await scene.run("crane", "export", "--insecure", image, "back.tar", variables=by_gate)
    await scene.run("mv", "large.bin", "sent.bin")
    await scene.run("tar", "-xf", "back.tar", "large.bin")
    await scene.run("cmp", "sent.bin", "large.bin")
    await scene.run("crane", "auth", "logout", at)
    said = await scene.run("crane", "manifest", "--insecure", image, fails=True, variables=by_gate)

    assert "UNAUTHORIZED" in said.upper()
