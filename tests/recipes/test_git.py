"""The recipe of git over HTTP."""

import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from recipeinstall import FromDebian
from recipekit import TOKEN, Applications, Scene, recipe

pytestmark = [*recipe, pytest.mark.quick]

AS_CI = ("-c", "user.name=ci", "-c", "user.email=ci@example.com")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve a repository."""
    async with applications.serve("git", FromDebian(("git", "apache2-bin"))) as found:
        yield found


async def test_clone_and_push_with_a_token(scene: Scene) -> None:
    """A large file is pushed and cloned again; without the token nobody gets the repository."""
    at = urlsplit(scene.url).netloc
    names = ("-c", f"http.curloptResolve={at}:127.0.0.1")
    url = f"http://ci:{TOKEN}@{at}/wiki.git"
    (scene.directory / "large.bin").write_bytes(os.urandom(2**24))

    await scene.refuse_strangers("/wiki.git/info/refs?service=git-upload-pack")
    await scene.run("git", *names, "clone", "-q", url, "first")
    await scene.run("mv", "large.bin", "first/")
    await scene.run("git", "-C", "first", "add", "large.bin")
    await scene.run("git", *AS_CI, "-C", "first", "commit", "-q", "-m", "a large file")
    await scene.run("git", *names, "-C", "first", "push", "-q", "origin", "HEAD:main")
    await scene.run("git", *names, "clone", "-q", url, "second")
    await scene.run("cmp", "first/large.bin", "second/large.bin")
    said = await scene.run(
        *("git", *names, "clone", f"{scene.url}/wiki.git", "third"),
        fails=True,
        variables={"GIT_TERMINAL_PROMPT": "0"},
    )

    assert "could not read Username" in said
