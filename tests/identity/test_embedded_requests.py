"""Sessions of tools in frames of other sites, as the requests of browsers say what they are for."""

from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession
from gatekit import ALICE, RawUpstream, RunningGate

from tailchat_gate.identity.sessions.record import SessionRecord

PANEL = "https://chat.example.com"
SERVER = {"public_url": "https://gate.example.com"}
FRAME = {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
OWN = {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def gate(start_gate: Callable[..., Any], upstream: RawUpstream) -> RunningGate:
    """Return a gate with a tool that may be embedded, and one that may not."""
    routes = [
        {"name": "tool", "path": "/tool", "embed": [PANEL]},
        {"name": "other", "path": "/other"},
    ]
    found = await start_gate(upstream.url, server=SERVER, session={"idle": "2h"}, route=routes)
    assert isinstance(found, RunningGate)
    return found


def _embedded(gate: RunningGate) -> str:
    record = SessionRecord.begin(ALICE, now=gate.clock(), login="x")
    return gate.seal(record._replace(embedded=True))


async def _ask(gate: RunningGate, path: str, method: str = "GET", **headers: str) -> ClientResponse:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with ClientSession() as session:
        response = await session.request(
            method,
            f"http://127.0.0.1:{gate.port}{path}",
            headers={"Host": "gate.example.com", **fields},
            allow_redirects=False,
        )
        await response.read()
        return response


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**FRAME, "Sec-Fetch-Site": "cross-site"}, 200),
        ({**FRAME, "Sec-Fetch-Site": "same-origin"}, 200),
        (OWN, 200),
        ({}, 200),
        ({**OWN, "Sec-Fetch-Site": "cross-site"}, 403),
        ({**OWN, "Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Dest": "image", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": PANEL}, 403),
        ({**FRAME, "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_a_frames_session_counts_for_the_frame_alone(
    gate: RunningGate, headers: dict[str, str], status: int
) -> None:
    """The cookie comes with what any page around the frame sends, reads too."""
    answer = await _ask(gate, "/tool", Cookie=_embedded(gate), **headers)

    assert answer.status == status


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_foreign_page_changes_nothing_by_a_frames_session(
    gate: RunningGate, method: str
) -> None:
    """A form that another page sends into the frame is a navigation of it, too."""
    headers = {**FRAME, "Sec-Fetch-Site": "cross-site", "Origin": PANEL}
    answer = await _ask(gate, "/tool", method, Cookie=_embedded(gate), **headers)

    assert answer.status == 403


@pytest.mark.parametrize("headers", [{**FRAME, "Sec-Fetch-Site": "cross-site"}, OWN, {}])
async def test_a_frames_session_counts_for_no_other_route(
    gate: RunningGate, headers: dict[str, str]
) -> None:
    """The admin allowed frames of one tool."""
    answer = await _ask(gate, "/other", Cookie=_embedded(gate), **headers)

    assert answer.status == 403


async def test_a_tool_that_may_be_embedded_says_by_whom(gate: RunningGate) -> None:
    """Every response says it; those of other routes say nothing."""
    told = [
        (await _ask(gate, path, Cookie=gate.cookie())).headers.getall("Content-Security-Policy", [])
        for path in ("/tool", "/other")
    ]

    assert told == [[f"frame-ancestors 'self' {PANEL}"], []]


async def test_a_renewed_session_of_a_frame_stays_in_its_frame(gate: RunningGate) -> None:
    """With other attributes the browser would drop the cookie, or keep it for every page."""
    cookie = _embedded(gate)
    gate.clock.now += 3600
    answer = await _ask(gate, "/tool", Cookie=cookie, **OWN)

    (line,) = answer.headers.getall("Set-Cookie")
    attributes = {part.strip() for part in line.split(";")[1:]}
    assert {"SameSite=None", "Secure", "Partitioned", "HttpOnly", "Path=/"} <= attributes


async def test_a_frame_without_a_session_gets_the_page_that_signs_in(gate: RunningGate) -> None:
    """Only pages of the named origins may frame it, and its login cookie is the frame's."""
    headers = {**FRAME, "Sec-Fetch-Site": "cross-site"}
    first = await _ask(gate, "/tool?a=1", **headers)
    assert first.headers["Location"] == "https://gate.example.com/oauth2/frame?rd=/tool%3Fa%3D1"
    page = await _ask(gate, "/oauth2/frame?rd=/tool", **headers)

    assert page.status == 200
    assert f"frame-ancestors {PANEL}" in page.headers["Content-Security-Policy"]
    assert "X-Frame-Options" not in page.headers
    assert page.headers["Set-Cookie"].endswith("; SameSite=None; Secure; Partitioned")
    elsewhere = await _ask(gate, "/other", **headers)
    assert "Location" not in elsewhere.headers


async def test_the_page_of_a_frame_is_for_frames(gate: RunningGate) -> None:
    """A tab goes on to the usual sign-in, and gets no cookie of a frame."""
    headers = {**FRAME, "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}
    answer = await _ask(gate, "/oauth2/frame?rd=/tool", **headers)

    assert answer.headers["Location"] == "/oauth2/start?rd=/tool"
    assert "Set-Cookie" not in answer.headers
