"""Too many cookies for any request: the page of the refusal clears them, and no other site can."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from gatekit import (
    Clock,
    RawClient,
    RawUpstream,
    Response,
    RunningGate,
    make_settings,
    running_gate,
)
from parts import in_browser, keep_screenshot
from playwright._impl._api_structures import SetCookieParam
from playwright.async_api import Browser, BrowserContext, Page, Route, expect

Start = Callable[..., Any]

WIKI = "wiki.gate.localhost"
EVIL = "evil.gate.localhost"
PATH = "/oauth2/clear_cookies"
CLEAR = '"cookies"'


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGate]:
    """Serve a gate on loopback, where browsers heed what https alone may say elsewhere."""
    settings = make_settings(
        server={"public_url": "http://gate.localhost"},
        route=[
            {"name": "wiki", "host": WIKI, "upstream": "static:204"},
            {"name": "evil", "host": EVIL, "upstream": "static:204"},
        ],
    )
    log = tmp_path_factory.mktemp("gate") / "access.log"
    async with running_gate(settings, log, Clock()) as found:
        yield found


async def _fill(context: BrowserContext, gate: RunningGate, count: int) -> None:
    """Give a browser cookies of 4 kB each, half of them of the host, half of its domain."""
    url = f"http://{WIKI}:{gate.port}"
    for number in range(count):
        cookie = SetCookieParam(name=f"c{number}", value="x" * 4000, httpOnly=True)
        if number % 2:
            cookie["url"] = url
        else:
            cookie["domain"], cookie["path"] = ".gate.localhost", "/"
        await context.add_cookies([cookie])


@in_browser
@pytest.mark.parametrize(("language", "count"), [("en", 6), ("zh-CN", 6), ("en", 60)])
async def test_a_person_clears_them_with_one_click(
    browser: Browser, gate: RunningGate, language: str, count: int
) -> None:
    """Also those that no script sees, and where they are more than the gate reads at all."""
    context = await browser.new_context(locale=language)
    try:
        await _fill(context, gate, count)
        tab = await context.new_page()
        refused = await tab.goto(f"http://{WIKI}:{gate.port}/x")
        assert refused is not None
        assert refused.status == 431
        await keep_screenshot(tab, f"too-many-cookies-{language}")
        async with tab.expect_navigation():
            await tab.get_by_role("button").click()
        await keep_screenshot(tab, f"cookies-cleared-{language}")

        assert tab.url == f"http://{WIKI}:{gate.port}{PATH}"
        assert await context.cookies() == []
        line = (await gate.log())[-1]
        assert (line["status"], line["reason"]) == (200, "own-path")
        again = await tab.reload()
        assert again is not None
        assert again.status == 200
    finally:
        await context.close()


async def _page_of_another(tab: Page, origin: str, action: str) -> None:
    """Open a page of an origin that sends a form to the gate."""
    html = f'<form method="post" action="{action}"><button>go</button></form>'

    async def answer(route: Route) -> None:
        await route.fulfill(body=html, content_type="text/html")

    await tab.route(f"{origin}/**", answer)
    await tab.goto(f"{origin}/page")


@in_browser
@pytest.mark.parametrize("origin", [f"http://{EVIL}:81", "http://elsewhere.localhost"])
@pytest.mark.parametrize("count", [1, 6])
async def test_no_other_page_clears_them(
    browser: Browser, gate: RunningGate, origin: str, count: int
) -> None:
    """Neither of a sibling, whose form takes the cookies along, nor of another site."""
    context = await browser.new_context()
    try:
        await _fill(context, gate, count)
        tab = await context.new_page()
        await _page_of_another(tab, origin, f"http://{WIKI}:{gate.port}{PATH}")
        async with tab.expect_navigation():
            await tab.get_by_role("button").click()

        await expect(tab.locator("h1")).to_be_visible()
        assert len(await context.cookies()) == count
    finally:
        await context.close()


@in_browser
async def test_a_link_clears_nothing(browser: Browser, gate: RunningGate) -> None:
    """The address shows the form, which clears the cookies of who sends it."""
    context = await browser.new_context()
    try:
        await _fill(context, gate, 1)
        tab = await context.new_page()
        await tab.goto(f"http://{WIKI}:{gate.port}{PATH}")
        assert len(await context.cookies()) == 1
        async with tab.expect_navigation():
            await tab.get_by_role("button", name="Clear the cookies").click()
        assert await context.cookies() == []
    finally:
        await context.close()


OWN = (
    b"Host: gate.test\r\nAccept: text/html\r\nOrigin: https://gate.test\r\n"
    b"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"
)
OLD = OWN[: OWN.index(b"Sec-Fetch")]
LINE = b"POST /oauth2/clear_cookies HTTP/1.1\r\n"


@pytest.fixture
async def secure(start_gate: Start, upstream: RawUpstream) -> RunningGate:
    """Return a gate that visitors reach over https."""
    found = await start_gate(upstream.url, server={"public_url": "https://gate.test"})
    assert isinstance(found, RunningGate)
    return found


async def _answers(gate: RunningGate, line: bytes, fields: bytes) -> tuple[Response, Response]:
    """Return the answers to a request that is small, and to one with too many cookies."""
    found = []
    for more in (b"Content-Length: 0\r\n\r\n", b"Cookie: " + b"a" * 200_000 + b"\r\n\r\n"):
        async with RawClient.connect(gate.port) as client:
            client.send(line + fields + more)
            found.append(await client.response())
    return found[0], found[1]


@pytest.mark.parametrize("fields", [OWN, OLD], ids=["fetch metadata", "origin alone"])
async def test_an_own_form_clears(secure: RunningGate, fields: bytes) -> None:
    """By what the browser says of the page that sent it, whether the head can be read or not."""
    for answer in await _answers(secure, LINE, fields):
        assert (answer.status, answer.value("Clear-Site-Data")) == (200, CLEAR)


FOREIGN = {
    "a sibling": OWN.replace(b"same-origin", b"same-site"),
    "another site": OWN.replace(b"same-origin", b"cross-site"),
    "a script": OWN.replace(b"navigate", b"cors").replace(b"document", b"empty"),
    "a frame": OWN.replace(b"document", b"iframe"),
    "twice": OWN.replace(b"same-origin", b"same-site\r\nSec-Fetch-Site: same-origin"),
    "an origin": OLD.replace(b"https://gate.test", b"https://a.gate.test"),
    "null": OLD.replace(b"https://gate.test", b"null"),
    "another scheme": OLD.replace(b"https://", b"http://"),
    "nothing": OLD.replace(b"Origin: https://gate.test\r\n", b""),
}


@pytest.mark.parametrize("kind", FOREIGN)
async def test_what_no_own_form_sends_clears_nothing(secure: RunningGate, kind: str) -> None:
    """Nor does a browser that says nothing of the page."""
    for answer in await _answers(secure, LINE, FOREIGN[kind]):
        assert answer.status in {400, 403, 431}
        assert answer.value("Clear-Site-Data") == ""


@pytest.mark.parametrize("line", [b"GET" + LINE[4:], LINE.replace(b"cookies", b"cookies/")])
async def test_only_the_very_request_clears(secure: RunningGate, line: bytes) -> None:
    """By its line, to the byte."""
    for answer in await _answers(secure, line, OWN):
        assert answer.value("Clear-Site-Data") == ""


async def test_it_is_not_offered_where_browsers_would_not_heed_it(
    start_gate: Start, upstream: RawUpstream
) -> None:
    """Over plain http the page says to clear them by hand, as to a program of any kind."""
    gate = await start_gate(upstream.url)
    fields = OWN.replace(b"https", b"http")
    small, large = await _answers(gate, LINE, fields)

    assert (small.status, large.status) == (404, 431)
    assert b'action="/oauth2/clear_cookies"' not in small.body + large.body
    assert b"Clear the cookies of this site in your browser" in large.body
