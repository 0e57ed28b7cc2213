"""The admin page in a real browser: its policy, its layout, without a script, and up to date."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio
from axekit import findings, load_axe
from dashboardkit import BOB, DASH, ROUTES, SECTIONS, WIKI, at_route, explain_url
from gatekit import (
    ALICE,
    SUB,
    Clock,
    RunningGate,
    ask,
    make_settings,
    request_bytes,
    running_gate,
    until,
)
from parts import in_browser, keep_screenshot
from playwright.async_api import Browser, BrowserContext, expect

from tailchat_gate.identity.grants import Grant
from tailchat_gate.identity.revocation.state import Lock
from tailchat_gate.identity.sessions.record import SessionRecord

pytestmark = in_browser

PAGES = {
    "overview": "/",
    "people": "/people",
    "configuration": "/configuration",
    "checks": explain_url(f"http://{WIKI}/x"),
}
HOSTILE = "<b>\u202e" + "W" * 400


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGate]:
    """Serve the admin page on a route, with something of everything on it."""
    folder: Path = tmp_path_factory.mktemp("gate")
    settings = make_settings(
        server={"admin_listen": "127.0.0.1:0", "admin_orders": True},
        pages={"title": "Example Ltd", "accent": "#8a1c4a", "accent_dark": "#f0a3c4"},
        **{
            **SECTIONS,
            "route": [
                {**ROUTES[0], "title": "Team notes"},
                *ROUTES[1:],
                {"name": "home", "host": "home.test"},
            ],
        },
    )
    async with running_gate(settings, folder / "access.log", Clock()) as found:
        state, now = found.generation.process_state, int(found.clock())
        for host in (WIKI, "home.test"):
            cookie = found.cookie_for(host, ALICE)
            await ask(found.port, request_bytes("/x", host=host, Cookie=cookie))
        record = SessionRecord.begin(ALICE, now=now, login="x")
        await state.access_requests.ask(record, "wiki", HOSTILE)
        await state.locks.order(Lock("sub:660000000000000000000009", now, None, HOSTILE))
        await state.grants.put(Grant(SUB, "wiki", now, now + 3600, HOSTILE, BOB.sub))
        state.metrics.login("signed-in")
        yield found


async def _signed_in(context: BrowserContext, gate: RunningGate) -> str:
    """Sign Bob in; return the address of the admin page on its route."""
    name, _, value = at_route(gate).cookie.partition("=")
    url = f"http://{DASH}:{gate.port}"
    await context.add_cookies([{"name": name, "value": value, "url": url}])
    return url


@pytest.mark.parametrize(
    ("language", "scheme"),
    [
        *((language, "light") for language in ("en", "zh-CN", "de")),
        *((language, "dark") for language in ("en", "zh-CN", "ru")),
    ],
)
async def test_pages_fit_a_phone_without_a_complaint(
    browser: Browser, gate: RunningGate, language: str, scheme: Literal["light", "dark"]
) -> None:
    """At 375 pixels nothing sticks out or is too small to hit, and axe-core finds nothing."""
    context = await browser.new_context(
        viewport={"width": 375, "height": 667}, color_scheme=scheme, locale=language
    )
    try:
        url, complaints = await _signed_in(context, gate), list[str]()
        tab = await context.new_page()
        tab.on("console", lambda message: complaints.append(f"{tab.url}: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(f"{tab.url}: {error}"))
        for name, path in PAGES.items():
            await tab.goto(url + path)
            await keep_screenshot(tab, f"admin-{name}-{language}-{scheme}")
            assert await tab.evaluate("document.documentElement.scrollWidth") <= 375, name
            heights = await tab.evaluate(
                "Array.from(document.querySelectorAll('.button, input:not([type=hidden]), select, "
                "nav a'), e => e.offsetHeight)"
            )
            assert min(heights) >= 44, name
            ends = await tab.evaluate(
                "Array.from(document.querySelectorAll('.button'), "
                "e => e.getBoundingClientRect().right)"
            )
            assert max(ends, default=0) <= 375, name
            tag = {"zh-CN": "zh-Hans"}.get(language, language)
            assert await tab.evaluate("document.documentElement.lang") == tag
            if language in {"en", "zh-CN"}:
                await load_axe(tab)
                assert (name, await findings(tab)) == (name, [])
        assert complaints == []
    finally:
        await context.close()


async def test_an_explanation_is_whole_on_a_phone(browser: Browser, gate: RunningGate) -> None:
    """A long line wraps below its text instead of being cut, and is copied as one line."""
    context = await browser.new_context(locale="en", viewport={"width": 375, "height": 812})
    try:
        tab = await context.new_page()
        await tab.goto(await _signed_in(context, gate) + PAGES["checks"])
        steps = tab.locator(".steps")
        assert await steps.evaluate("e => e.scrollWidth <= e.clientWidth")
        lines = (await steps.inner_text()).splitlines()
        assert all(line[11:12] == " " for line in lines), lines
        assert any(len(line) > 60 for line in lines)
    finally:
        await context.close()


async def test_an_order_without_a_script(browser: Browser, gate: RunningGate) -> None:
    """The keyboard reaches the form, the form works without JavaScript, and the page says so."""
    context = await browser.new_context(java_script_enabled=False, locale="en")
    try:
        tab = await context.new_page()
        url = await _signed_in(context, gate)
        await tab.goto(f"{url}/people")
        locks = tab.locator("section", has=tab.get_by_role("heading", name="Locks", exact=True))
        await locks.get_by_label("Target").fill("token:ci")
        await locks.get_by_label("For how long").press("Enter")
        await expect(tab.get_by_role("status")).to_contain_text(
            "Done: token:ci is locked out", timeout=40_000
        )
        row = tab.get_by_role("row", name="token:ci")
        await row.get_by_role("button", name="Unlock").click()
        await expect(tab.get_by_role("row", name="token:ci")).to_have_count(0, timeout=40_000)
    finally:
        await context.close()


async def test_an_open_page_shows_what_changes(browser: Browser, gate: RunningGate) -> None:
    """A grant appears without a reload; a form that somebody fills in stays as it is."""
    context = await browser.new_context(locale="en")
    try:
        tab = await context.new_page()
        url = await _signed_in(context, gate)
        await tab.goto(f"{url}/people")
        await tab.get_by_label("Target").fill("sub:6600")
        state, now = gate.generation.process_state, int(gate.clock())
        page = gate.server._page
        assert page is not None
        await until(lambda: len(page.events) > 0)
        await state.grants.put(Grant("660000000000000000000004", "wiki", now, now + 60, "later"))
        await expect(tab.get_by_role("cell", name="later")).to_be_visible(timeout=40_000)
        await expect(tab.get_by_label("Target")).to_have_value("sub:6600")
        await expect(tab.locator("#updated")).to_contain_text("Updated at")
    finally:
        await context.close()
