"""The recipe of Radicale."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from recipeinstall import FromPyPI
from recipekit import FORGED, OTHER_SUB, Applications, Scene, recipe
from storykit import HOSHINO
from visitor import FETCH

pytestmark = [*recipe, pytest.mark.quick]

HOME = f"/{HOSHINO.sub}/"
PRINCIPAL = """<?xml version="1.0"?>
<propfind xmlns="DAV:"><prop><current-user-principal/></prop></propfind>"""
REPORT = """<?xml version="1.0"?>
<calendar-query xmlns="urn:ietf:params:xml:ns:caldav" xmlns:D="DAV:">
<D:prop><calendar-data/></D:prop>
<filter><comp-filter name="VCALENDAR"/></filter></calendar-query>"""
EVENT = """BEGIN:VCALENDAR\r
VERSION:2.0\r
PRODID:-//test//EN\r
BEGIN:VEVENT\r
UID:1\r
DTSTAMP:20260101T000000Z\r
DTSTART:20260101T100000Z\r
SUMMARY:Standup 星\r
END:VEVENT\r
END:VCALENDAR\r
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(applications: Applications) -> AsyncIterator[Scene]:
    """Serve Radicale."""
    async with applications.serve("radicale", FromPyPI(("radicale",))) as found:
        yield found


async def test_a_person_has_calendars_of_their_own(scene: Scene) -> None:
    """The principal is the person's ID, whatever headers they send; MKCALENDAR, PUT and REPORT."""
    await scene.refuse_strangers("/")
    async with scene.signed_in("/.web/") as visitor:

        async def send(method: str, path: str, data: str = "") -> tuple[int, str]:
            async with visitor.session.request(
                method,
                scene.url + path,
                data=data.encode(),
                headers={**FETCH, **FORGED, "Depth": "1", "Content-Type": "text/xml"},
            ) as response:
                return response.status, await response.text()

        _, principal = await send("PROPFIND", "/", PRINCIPAL)
        made, _ = await send("MKCALENDAR", f"{HOME}work/")
        put, _ = await send("PUT", f"{HOME}work/1.ics", EVENT)
        _, found = await send("REPORT", f"{HOME}work/", REPORT)
        others, _ = await send("MKCALENDAR", f"/{OTHER_SUB}/work/")
        await scene.sign_out(visitor)

    assert f"<href>{HOME}</href>" in principal
    assert (made, put, others) == (201, 201, 403)
    assert "Standup 星" in found
