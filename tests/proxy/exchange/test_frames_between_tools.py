"""Frames and calls between the tools of one site, and what pages of other sites see."""

import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from accounts import user_named
from aiohttp import web
from gatekit import Clock, Response, RunningGate, ask, make_settings, request_bytes, running_gate
from parts import in_browser, keep_screenshot
from playwright.async_api import Browser, BrowserContext, Page, expect
from storykit import log_in, registered, served

pytestmark = in_browser

HOSHINO = user_named("hoshino")
ROOT = Path(__file__).parents[3]
SITE = "site.localhost"
#: What a frame of a page on a sibling's host asks for.
FRAME = {
    "Accept": "text/html",
    "Sec-Fetch-Dest": "iframe",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-site",
}
CALL = {"Accept": "*/*", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors"}


async def _tool(request: web.Request) -> web.Response:
    """Show a frame of what a query names, answer questions, or tell who asks."""
    origin = request.headers.get("Origin", "")
    fields = {}
    if origin:
        fields = {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Allow-Methods": "PUT",
            "Access-Control-Allow-Headers": "X-Asked",
        }
    if request.method == "OPTIONS":
        return web.Response(status=204, headers=fields)
    if "frame" in request.query:
        page = f'<h1>around</h1><iframe src="{request.query["frame"]}" width="600" height="500">'
        return web.Response(text=page, content_type="text/html")
    name = request.headers.get("X-Tailchat-Sub", "nobody")
    text = f"<h1>{request.method} {request.path} for {name}</h1>"
    return web.Response(text=text, content_type="text/html", headers=fields)


@dataclass
class Site:
    """Two tools on two hosts of one site, and a page elsewhere."""

    gate: RunningGate
    public: str
    one: str
    two: str
    elsewhere: str


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Path, clock: Clock) -> AsyncIterator[Site]:
    """Serve them with a Tailchat; browsers take names below localhost for trustworthy."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _tool)
    async with registered(f"gate.{SITE}", clock) as at, served(app) as tool_port:
        one, two = f"http://one.{SITE}:{at.port}", f"http://two.{SITE}:{at.port}"
        settings = at.settings(
            f"http://127.0.0.1:{tool_port}",
            route=[
                {"name": "one", "host": f"one.{SITE}"},
                {"name": "closed", "host": f"two.{SITE}", "path": "/closed", "allow": ["sub:1"]},
                {"name": "two", "host": f"two.{SITE}", "origins": [one], "preflight": True},
            ],
        )
        async with running_gate(settings, tmp_path / "access.log", clock) as gate:
            yield Site(gate, at.url, one, two, f"http://other.localhost:{tool_port}")


#: Sends a form of the page to an address, into its frame or in its own place.
_SEND_FORM: Final = """([action, framed]) => {
    const form = document.createElement("form");
    Object.assign(form, {action, method: "POST", target: framed ? "shown" : "_self"});
    if (framed) document.querySelector("iframe").contentWindow.name = "shown";
    document.body.append(form);
    form.submit();
}"""


async def _signed_in(
    browser: Browser,
    site: Site,
    **options: Any,  # noqa: ANN401 - as Playwright has them
) -> tuple[BrowserContext, Page]:
    context = await browser.new_context(**options)
    tab = await context.new_page()
    await tab.goto(f"{site.one}/")
    await log_in(tab)
    await tab.wait_for_url(f"{site.one}/")
    return context, tab


async def test_a_frame_of_a_sibling_signs_itself_in(browser: Browser, site: Site) -> None:
    """A tool that was never opened shows itself in a frame of another's page at once."""
    _, tab = await _signed_in(browser, site)

    await tab.goto(f"{site.one}/?frame={site.two}/page%3Fa=1")

    frame = tab.frame_locator("iframe")
    await expect(frame.get_by_role("heading")).to_have_text(f"GET /page for {HOSHINO.sub}")
    assert [one.url for one in tab.frames][1] == f"{site.two}/page?a=1"


async def test_a_frame_without_a_session_leads_to_a_tab(browser: Browser, site: Site) -> None:
    """The frame shows a link; who signs in in the new tab sees the tool in the frame again."""
    context, tab = await _signed_in(browser, site)
    await context.clear_cookies(name="tailchat_gate", domain=f"gate.{SITE}")
    await tab.goto(f"{site.one}/?frame={site.two}/page")
    frame = tab.frame_locator("iframe")
    await expect(frame.get_by_role("heading")).to_have_text("Please sign in")
    await keep_screenshot(tab, "frame-sign-in")

    async with context.expect_page() as opened:
        await frame.get_by_role("link", name="Open in a new tab").click()
    new = await opened.value
    # Tailchat knows the person still, and asks for nothing.
    await expect(new.get_by_role("heading")).to_contain_text("GET /page for")
    await tab.reload()

    await expect(frame.get_by_role("heading")).to_contain_text("GET /page for")


async def test_a_frame_of_another_site_leads_to_a_tab(browser: Browser, site: Site) -> None:
    """No cookie reaches a frame there: it says so, and shows the link, which opens the tool."""
    context, tab = await _signed_in(browser, site)
    await tab.goto(f"{site.elsewhere}/?frame={site.two}/page")
    frame = tab.frame_locator("iframe")
    await expect(frame.get_by_role("heading")).to_have_text("Open this page in a tab of its own")
    await expect(frame.locator("body")).to_contain_text("signing in again does not help")
    await keep_screenshot(tab, "frame-elsewhere")

    async with context.expect_page() as opened:
        await frame.get_by_role("link").click()

    new = await opened.value
    await expect(new.get_by_role("heading")).to_have_text(f"GET /page for {HOSHINO.sub}")


#: The way to a tool, shown in a page of another site, or after its form.
_DEVICES: Final[dict[str, dict[str, Any]]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 360, "height": 640}, "device_scale_factor": 2},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "chinese": {"viewport": {"width": 360, "height": 640}, "locale": "zh-CN"},
}


@pytest.mark.parametrize("device", _DEVICES)
async def test_a_form_of_another_site_leads_to_the_tool(
    browser: Browser, site: Site, device: str
) -> None:
    """Who is signed in reads that the form came without them, in a tab and in a frame."""
    _, tab = await _signed_in(browser, site, **_DEVICES[device])
    for where in ("", "/?frame=about:blank"):
        await tab.goto(f"{site.elsewhere}{where or '/'}")
        await tab.evaluate(_SEND_FORM, [f"{site.two}/act", bool(where)])
        shown = tab.frame_locator("iframe") if where else tab
        link = shown.get_by_role("link")
        await expect(link).to_have_attribute("href", f"{site.two}/")
        title = "此表单来自其他网站的页面" if device == "chinese" else "A page of another site sent"
        await expect(shown.get_by_role("heading").first).to_contain_text(title)
        await keep_screenshot(tab, f"form-elsewhere-{'frame' if where else 'tab'}-{device}")
    lines = [x for x in await site.gate.log() if x["method"] == "POST"]
    assert {(x["status"], x["reason"]) for x in lines} == {(401, "not-signed-in")}
    await tab.goto(f"{site.two}/")
    await expect(tab.get_by_role("heading")).to_have_text(f"GET / for {HOSHINO.sub}")


async def test_a_refusal_in_a_frame_can_be_read(browser: Browser, site: Site) -> None:
    """Who may not enter reads so in the frame, without the account, and asks in a tab."""
    _, tab = await _signed_in(browser, site)
    await tab.goto(f"{site.two}/")
    await tab.goto(f"{site.one}/?frame={site.two}/closed")

    frame = tab.frame_locator("iframe")
    await expect(frame.get_by_role("link")).to_have_attribute("href", f"{site.two}/closed")
    await expect(frame.locator("body")).not_to_contain_text(HOSHINO.sub)


async def test_a_call_of_a_sibling_hears_why(browser: Browser, site: Site) -> None:
    """A fetch from another tool's page reads the gate's refusal; from another site it fails."""
    _, tab = await _signed_in(browser, site)
    read = """(url) => fetch(url, {credentials: "include"}).then(
        async (reply) => [reply.status, (await reply.json()).error], (error) => [0, error.name])"""

    refused = await tab.evaluate(read, f"{site.two}/api")
    await tab.goto(f"{site.elsewhere}/")
    unread = await tab.evaluate(read, f"{site.two}/api")

    assert refused == [401, "not-signed-in"]
    assert unread == [0, "TypeError"]


async def test_a_call_with_a_preflight_arrives(browser: Browser, site: Site) -> None:
    """With `preflight` and `origins` a page of a sibling may PUT with a field of its own."""
    _, tab = await _signed_in(browser, site)
    await tab.goto(f"{site.two}/")
    await tab.goto(f"{site.one}/")
    put = """(url) => fetch(url, {method: "PUT", credentials: "include",
        headers: {"X-Asked": "1"}}).then((reply) => reply.text(), String)"""

    done = await tab.evaluate(put, f"{site.two}/x")
    await tab.goto(f"{site.two}/")
    back = await tab.evaluate(put, f"{site.one}/x")

    assert done == f"<h1>PUT /x for {HOSHINO.sub}</h1>"
    assert "Failed to fetch" in back
    lines = [(x["route"], x["method"], x["reason"]) for x in await site.gate.log()]
    assert ("two", "OPTIONS", "preflight") in lines
    assert ("one", "OPTIONS", "not-signed-in") in lines


async def test_what_a_frame_is_told(site: Site) -> None:
    """A frame of the site goes to the sign-in; others get a page that any page may show."""
    asked = f"two.{SITE}"

    sibling = await ask(site.gate.port, request_bytes("/p?q=1", host=asked, **FRAME))
    cross = {**FRAME, "Sec-Fetch-Site": "cross-site"}
    other = await ask(site.gate.port, request_bytes("/p?q=1", host=asked, **cross))
    step = await ask(site.gate.port, request_bytes("/oauth2/start?rd=/p", host=asked, **cross))
    html = request_bytes("/oauth2/nothing", host=asked, Accept="text/html")
    tab = await ask(site.gate.port, html)

    assert (sibling.status, sibling.value("Location")[-13:]) == (302, "rd=/p%3Fq%3D1")
    assert (other.status, other.value("X-Frame-Options")) == (401, "")
    assert other.value("Content-Security-Policy").endswith("frame-ancestors *")
    assert b'target="_blank" rel="noopener"' in other.body
    assert step.values("Set-Cookie") == []
    assert tab.value("X-Frame-Options") == "DENY"
    assert tab.value("Content-Security-Policy").endswith("frame-ancestors 'none'")


async def test_what_a_form_of_another_site_is_told(site: Site) -> None:
    """The page leads to the tool and not to a sign-in; one of the same site is as it was."""
    port, asked = site.gate.port, f"two.{SITE}"
    form = {**FRAME, "Sec-Fetch-Dest": "document", "Accept-Language": "en"}

    async def sent(where: str, **fields: str) -> Response:
        fields = {**form, "Sec-Fetch-Site": where, **fields}
        return await ask(port, request_bytes("/act", method="POST", host=asked, **fields))

    other, sibling = await sent("cross-site"), await sent("same-site")
    framed = await sent("cross-site", **{"Sec-Fetch-Dest": "iframe"})
    call = await sent("cross-site", **CALL)
    for response in (other, sibling, framed, call):
        assert (response.status, response.value("WWW-Authenticate")[:13]) == (401, "TailchatGate ")
    assert f'href="{site.two}/"'.encode() in other.body
    assert b"/oauth2/start" not in other.body
    assert b"/oauth2/sign_in" not in other.body
    assert other.value("X-Frame-Options") == "DENY"
    assert b"/oauth2/start?rd=/" in sibling.body
    assert f'href="{site.two}/" target="_blank"'.encode() in framed.body
    assert framed.value("Content-Security-Policy").endswith("frame-ancestors *")
    assert call.json["error"] == "not-signed-in"


async def test_a_callback_is_no_frames(site: Site) -> None:
    """Tailchat's pages and what follows them are for a tab alone."""
    response = await ask(
        site.gate.port,
        request_bytes("/oauth2/callback?code=c&state=s", host=f"gate.{SITE}", **FRAME),
    )
    begun = await ask(
        site.gate.port, request_bytes("/oauth2/start?rd=/", host=f"gate.{SITE}", **FRAME)
    )

    assert (response.status, response.values("Set-Cookie")) == (303, [])
    assert (begun.status, begun.values("Set-Cookie")) == (401, [])
    assert begun.value("Location") == ""


async def test_what_a_sibling_reads_of_a_refusal(site: Site) -> None:
    """The gate's JSON is for the site's own tools to read, without who the visitor is."""
    port, host = site.gate.port, f"two.{SITE}"
    cookie = site.gate.cookie_for(host)

    async def origin_read(origin: str) -> tuple[str, bool]:
        fields = {**CALL, "Cookie": cookie, "Origin": origin}
        response = await ask(port, request_bytes("/closed", host=host, **fields))
        assert (response.status, response.value("Vary")) == (403, "Origin")
        allowed = response.value("Access-Control-Allow-Origin")
        assert response.value("Access-Control-Allow-Credentials") == ("true" if allowed else "")
        return allowed, "sub" in response.json

    assert await origin_read(site.one) == (site.one, False)
    assert await origin_read(site.public) == (site.public, False)
    assert await origin_read(site.two) == (site.two, True)
    for origin in (site.elsewhere, "null", "https://one." + SITE, site.one + ".evil.test"):
        assert await origin_read(origin) == ("", True)


async def test_a_manifest_by_the_documented_routes(tmp_path: Path, clock: Clock) -> None:
    """A manifest, which browsers fetch without cookies, comes by the routes of the document."""
    text = (ROOT / "docs" / "configure" / "access.md").read_text(encoding="utf-8")
    start = text.index('[[route]]\nname = "wiki-manifest"')
    routes = tomllib.loads(text[start : text.index("```", start)])["route"]
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _tool)
    asked = {"Sec-Fetch-Dest": "manifest", "Sec-Fetch-Mode": "cors", "Accept": "*/*"}
    async with served(app) as port:
        url = f"http://127.0.0.1:{port}"
        settings = make_settings(route=[{**route, "upstream": url} for route in routes])
        async with running_gate(settings, tmp_path / "access.log", clock) as gate:
            for target, method, status in (
                ("/manifest.json", "GET", 200),
                ("/manifest.json", "POST", 405),
                ("/manifest.json/x", "GET", 200),
                ("/", "GET", 401),
                ("/manifest.json/../x", "GET", 401),
            ):
                request = request_bytes(target, method=method, host="wiki.example.com", **asked)
                assert (await ask(gate.port, request)).status == status, target


PREFLIGHT = {"Origin": "https://app.test", "Access-Control-Request-Method": "PUT"}


@pytest.mark.parametrize(
    ("fields", "target", "status"),
    [
        (PREFLIGHT, "/x", 204),
        ({**PREFLIGHT, "Access-Control-Request-Headers": "x-asked"}, "/x", 204),
        ({"Origin": "https://app.test"}, "/x", 401),
        ({"Access-Control-Request-Method": "PUT"}, "/x", 401),
        ({**PREFLIGHT, "Cookie": "a=b"}, "/x", 401),
        ({**PREFLIGHT, "Authorization": "Basic eDp5"}, "/x", 401),
        ({**PREFLIGHT, "Content-Length": "1"}, "/x", 401),
        ({**PREFLIGHT, "X-HTTP-Method-Override": "DELETE"}, "/x", 401),
        (PREFLIGHT, "/x?_method=DELETE", 401),
        # The strictest of the readings: /closed takes no preflights.
        (PREFLIGHT, "/closed", 401),
        (PREFLIGHT, "/x/..%2fclosed", 401),
    ],
)
async def test_preflights(site: Site, fields: dict[str, str], target: str, status: int) -> None:
    """Only the question that a browser asks passes without a session, where every reading may."""
    request = request_bytes(target, method="OPTIONS", host=f"two.{SITE}", **fields)

    assert (await ask(site.gate.port, request)).status == status
