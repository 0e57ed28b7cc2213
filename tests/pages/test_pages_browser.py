"""What a real browser makes of the pages: its policy, its layout, its keyboard, its fragment."""

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import Literal

import pytest
from pagekit import NOON, access_pages, launcher, sign_ins
from parts import in_browser, keep_screenshot
from playwright.async_api import Browser, BrowserContext, Page, Route

from tailchat_gate.pages.language import choose_language
from tailchat_gate.pages.render import Pages

pytestmark = in_browser

ORIGIN = "http://gate.test"
HOSTILE = "<b>\u202e" + "W" * 5000
PAGES = Pages(contact="ops@example.com")  # it reads files, so not within the event loop

VALUES: dict[str, dict[str, object]] = {
    **access_pages(HOSTILE),
    "clear_cookies": {},
    "sign_in_again": {"start_url": "/oauth2/start"},
    "embedded": {
        "start_url": "/oauth2/start?rd=%2Fd",
        "arrive_url": "/oauth2/arrive",
        "tab_url": "/d",
    },
    "handed_over": {"tab_url": "/"},
    "sign_in": {"start_url": "/oauth2/start?rd=%2Fd%3Fa%3D1", "tool": HOSTILE, "return_to": "/d"},
    "sign_out": {"csrf": "c", "nickname": HOSTILE},
    "signed_out": {"start_url": "/oauth2/start?rd=%2F"},
    "problem": {
        "reason": "denied",
        "request_id": HOSTILE,
        "time": NOON,
        "status": 403,
        "retry_url": "/",
        "detail": dict.fromkeys(("nickname", "discriminator", "sub", "tool", HOSTILE), HOSTILE),
    },
    "launcher": launcher(HOSTILE),
    "userinfo": {
        "nickname": HOSTILE,
        "discriminator": HOSTILE,
        "sub": HOSTILE,
        "groups": (HOSTILE, HOSTILE),
        "signed_in_at": NOON,
        "until": NOON,
        "csrf": "c",
        "sessions": sign_ins(HOSTILE),
    },
}


#: The same pages as people mostly see them, and as they are in other cases.
USUAL: dict[str, tuple[str, dict[str, object]]] = {
    "who-am-i": (
        "userinfo",
        {
            "nickname": "\u661f\u91ce Hoshino",
            "discriminator": "0042",
            "sub": "660000000000000000000001",
            "groups": ("ops", "wiki"),
            "sessions": sign_ins("Firefox, Linux"),
        },
    ),
    "signed-out-everywhere": ("signed_out", {"everywhere": True}),
    "locked": (
        "problem",
        {
            "reason": "locked",
            "request_id": "7c9e6679f0b4c2d100000001",
            "retry_url": "/",
            "detail": {
                "nickname": "\u661f\u91ce Hoshino",
                "discriminator": "0042",
                "sub": "660000000000000000000001",
                "notice": "Your laptop was reported as stolen. Please call the help desk.",
                "until": "2027-01-17T08:00:00Z",
            },
        },
    ),
    "locked-without-end": (
        "problem",
        {"reason": "locked", "request_id": "r", "retry_url": "/", "detail": {"sub": "66"}},
    ),
    "locked-hostile": (
        "problem",
        {"reason": "locked", "detail": dict.fromkeys(("notice", "until", "sub"), HOSTILE)},
    ),
}


#: A heading's colour, by what the person prefers.
COLOURS: dict[Literal["light", "dark"], str] = {
    "light": "rgb(28, 37, 50)",
    "dark": "rgb(231, 236, 243)",
}
#: How wide a page is, how high what can be pressed, and what colour the heading has.
MEASURED = """() => [
    document.documentElement.scrollWidth,
    Array.from(document.querySelectorAll('.button, summary'), e => e.offsetHeight),
    getComputedStyle(document.querySelector('h1')).color,
]"""
#: Of addresses, so that no page is the one before with another fragment.
NUMBERS = count()


async def _listened(context: BrowserContext, complaints: list[str]) -> Page:
    """Return a tab whose complaints are kept."""
    tab = await context.new_page()
    tab.on("console", lambda message: complaints.append(f"{tab.url}: {message.text}"))
    tab.on("pageerror", lambda error: complaints.append(f"{tab.url}: {error}"))
    return tab


async def _show(
    tab: Page, name: str, language: str, complaints: list[str], **values: object
) -> None:
    """Show a page in a tab as the gate would send it, fragment and all."""
    html = PAGES.render(name, accept_language=language, here="/", **VALUES[name] | values)

    async def answer(route: Route) -> None:
        if not route.request.is_navigation_request():
            complaints.append(f"{name} fetched {route.request.url}")
        await route.fulfill(body=html, headers=PAGES.headers(choose_language(language)))

    await tab.unroute_all()
    await tab.route("**/*", answer)
    await tab.goto(f"{ORIGIN}/{next(NUMBERS)}/oauth2/{name}#a=1&b=%E6/c")


async def opened(
    context: BrowserContext, name: str, language: str, complaints: list[str], **values: object
) -> Page:
    """Return a new tab that shows a page."""
    tab = await _listened(context, complaints)
    await _show(tab, name, language, complaints, **values)
    return tab


@pytest.mark.parametrize("language", ["en", "zh", "de", "ja", "ru"])
async def test_pages_fit_a_narrow_screen_without_a_complaint(
    browser: Browser, language: str
) -> None:
    """At 320 pixels nothing sticks out, no button is small, and the policy stops nothing."""
    context = await browser.new_context(viewport={"width": 320, "height": 568})
    complaints: list[str] = []
    every = {**{name: (name, {}) for name in VALUES}, **USUAL}
    tab = await _listened(context, complaints)
    for name, (page, values) in every.items():
        await _show(tab, page, language, complaints, **values)
        for scheme, wanted in COLOURS.items():
            await tab.emulate_media(color_scheme=scheme)
            await keep_screenshot(tab, f"pages-{name}-{language}-{scheme}")
            width, heights, colour = await tab.evaluate(MEASURED)

            assert width <= 320, (name, scheme)
            assert heights, (name, scheme)
            assert min(heights) >= 44, (name, scheme)
            assert colour == wanted, name

    assert complaints == []


async def test_the_fragment_goes_into_the_login(browser: Browser) -> None:
    """The link of the sign-in page carries the address's fragment, also one that changes later."""
    context = await browser.new_context()
    complaints: list[str] = []
    tab = await opened(context, "sign_in", "en", complaints)

    read = "new URL(document.getElementById('start').href).searchParams.get('rd')"
    assert await tab.evaluate(read) == "/d?a=1#a=1&b=%E6/c"
    for fragment, rd in {"#two": "/d?a=1#two", "#" + "x" * 2000: "/d?a=1", "": "/d?a=1"}.items():
        await tab.evaluate("hash => { location.hash = hash; }", fragment)
        await tab.wait_for_function(f"expected => {read} === expected", arg=rd, timeout=40_000)
    assert complaints == []


async def test_a_fragment_that_is_on_its_way_stays(browser: Browser) -> None:
    """A return address with a fragment of its own gets no second one."""
    start_url = "/oauth2/start?rd=%2Fd%23own"
    tab = await opened(await browser.new_context(), "sign_in", "en", [], start_url=start_url)

    href = await tab.evaluate("document.getElementById('start').href")
    assert href == ORIGIN + start_url


async def test_without_scripts_the_sign_in_link_still_works(browser: Browser) -> None:
    """Without JavaScript the link leads to the login as it was written."""
    context = await browser.new_context(java_script_enabled=False)
    tab = await opened(context, "sign_in", "en", [])

    assert await tab.get_attribute("#start", "href") == VALUES["sign_in"]["start_url"]


async def test_the_first_key_reaches_a_button_and_shows_it(browser: Browser) -> None:
    """The Tab key goes to the main button first and draws a ring around it."""
    tab = await opened(await browser.new_context(), "signed_out", "en", [])
    await tab.keyboard.press("Tab")

    seen = "[document.activeElement.textContent, getComputedStyle(document.activeElement).outline]"
    text, outline = await tab.evaluate(seen)
    assert text == "Sign in again"
    assert "3px" in outline


async def test_times_are_said_in_the_readers_zone(browser: Browser) -> None:
    """With a script a time has the zone of the browser and how far away it is; else it is UTC."""
    shown: dict[bool, str] = {}
    until = time.time() + 2 * 86_400 + 60
    for scripts in (True, False):
        context = await browser.new_context(
            timezone_id="Asia/Tokyo", locale="en", java_script_enabled=scripts
        )
        tab = await opened(context, "userinfo", "en", [], until=until)
        shown[scripts] = await tab.locator("dd time").last.inner_text()

    assert shown[True].endswith("(in 2 days)")
    assert re.fullmatch(r"[-\d]{10} [:\d]{8} UTC", shown[False])
    written = datetime.strptime(shown[False], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    local = written.astimezone(timezone(timedelta(hours=9)))
    assert f"{local:%b} {local.day}, {local.year}, {local.hour % 12 or 12}:" in shown[True]


async def test_a_tool_that_is_away_is_asked_again_by_the_page(browser: Browser) -> None:
    """Later each time, and no longer once it has tried twelve times."""
    context = await browser.new_context()
    tab = await _listened(context, [])
    await tab.clock.install()
    html = PAGES.render("problem", accept_language="en", **VALUES["problem"] | {"retries": True})
    asked = 0

    async def answer(route: Route) -> None:
        nonlocal asked
        asked += 1
        await route.fulfill(body=html, headers=PAGES.headers("en"))

    await tab.route("**/*", answer)
    await tab.goto(f"{ORIGIN}/tool")
    for number in range(12):
        assert asked == number + 1
        assert await tab.is_visible("#retry")
        async with tab.expect_navigation():
            await tab.clock.run_for(int(min(10_000 * 1.4**number, 60_000)) + 10)
    assert not await tab.is_visible("#retry")
    await tab.clock.run_for(100_000)
    assert asked == 13
