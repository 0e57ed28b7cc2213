"""The recipe of Gitea."""

from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import urlsplit

import pytest_asyncio
from recipeinstall import FromGoSource
from recipekit import FORGED, TOKEN, Applications, Scene, recipe
from storykit import HOSHINO
from visitor import NAVIGATION

pytestmark = [*recipe]

#: The newest release all of whose modules can be had.
GITEA = FromGoSource(
    ("code.gitea.io/gitea@v1.26.0",),
    tags="sqlite sqlite_unlock_notify",
    place="code.gitea.io/gitea/modules/setting.StaticRootPath",
)
AS_ROOT = {"GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT": "true"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve Gitea."""
    async with applications.serve("gitea", GITEA) as found:
        yield found


async def test_gitea_makes_an_account_which_pushes_with_two_tokens(scene: Scene) -> None:
    """The account is the person's, whatever headers they send; git has a token for each side."""
    await scene.refuse_strangers("/user/settings")
    async with scene.signed_in("/user/settings") as visitor:
        url = f"{scene.url}/user/settings"
        page = await visitor.open(url, headers={**NAVIGATION, **FORGED})
        await scene.sign_out(visitor)
    assert f"Signed in as <strong>{HOSHINO.sub}</strong>" in page.text
    assert str(HOSHINO.claims["nickname"]) in unescape(page.text)

    made = await scene.run(
        *("gitea", "--config", "app.ini", "admin", "user", "generate-access-token", "--raw"),
        *("--username", HOSHINO.sub, "--scopes", "write:repository"),
        variables=AS_ROOT,
    )
    at = urlsplit(scene.url).netloc
    git = ("git", "-c", f"http.curloptResolve={at}:127.0.0.1")
    by_token = (*git, "-c", f"http.extraHeader=X-Tailchat-Token: {TOKEN}")
    repository = f"http://{HOSHINO.sub}:{made.split()[-1]}@{at}/{HOSHINO.sub}/wiki.git"
    (scene.directory / "page.md").write_text("# Page")
    await scene.run("git", "init", "-q", "-b", "main", "first")
    await scene.run("mv", "page.md", "first/")
    await scene.run("git", "-C", "first", "add", "page.md")
    who = ("-c", "user.name=h", "-c", "user.email=h@example.com")
    await scene.run("git", *who, "-C", "first", "commit", "-q", "-m", "a page")
    await scene.run(*by_token, "-C", "first", "push", "-q", repository, "main")
    await scene.run(*by_token, "clone", "-q", repository, "second")
    await scene.run("cmp", "first/page.md", "second/page.md")
    await scene.run(
        *(*git, "clone", "-q", repository, "third"),
        fails=True,
        variables={"GIT_TERMINAL_PROMPT": "0"},
    )
