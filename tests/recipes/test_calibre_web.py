"""The recipe of calibre-web."""

import re
from collections.abc import AsyncIterator

import pytest_asyncio
from recipeinstall import FromPyPI
from recipekit import FORGED, Applications, Scene, recipe
from storykit import HOSHINO
from visitor import NAVIGATION, Visitor

pytestmark = [*recipe]

#: Makes an empty library, as Calibre does.
LIBRARY = """
import os, sqlite3, sys
import calibreweb
sys.path.insert(0, calibreweb.__path__[0])
from cps import db
from sqlalchemy import create_engine
os.mkdir("library")
engine = create_engine("sqlite:///library/metadata.db")
with engine.begin() as connection:
    inside = connection.execution_options(schema_translate_map={"calibre": None})
    db.Base.metadata.create_all(inside)
    connection.exec_driver_sql("insert into library_id (uuid) values ('made')")
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve calibre-web with an empty library."""
    by = FromPyPI(("calibreweb",))
    async with applications.serve("calibre-web", by, ("python", "-c", LIBRARY)) as found:
        yield found


async def _post(visitor: Visitor, url: str, **fields: str) -> str:
    page = await visitor.open(url)
    csrf = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert csrf is not None, page.text
    data = {"csrf_token": csrf[1], **fields}
    headers = {**NAVIGATION, "Referer": url}
    return (await visitor.open(url, method="POST", data=data, headers=headers)).text


async def test_the_account_of_a_person_is_the_one_that_is_named_by_their_id(scene: Scene) -> None:
    """Whatever headers they send; without an account calibre-web asks for a password."""
    await scene.refuse_strangers("/me")
    async with scene.signed_in() as admin:
        assert "Login" in (await admin.open(f"{scene.url}/me")).text
        await _post(admin, f"{scene.url}/login", username="admin", password="Change-me-7")
        new = {
            "default_language": "all",
            "name": HOSHINO.sub,
            "email": "hoshino@example.com",
            "password": "Never-used-7",
        }
        made = await _post(admin, f"{scene.url}/admin/user/new", locale="en", **new)
        assert f"User &#39;{HOSHINO.sub}&#39; created" in made
    async with scene.signed_in() as visitor:
        page = await visitor.open(f"{scene.url}/me", headers={**NAVIGATION, **FORGED})
        await scene.sign_out(visitor)

    assert f"{HOSHINO.sub}&#39;s Profile" in page.text
