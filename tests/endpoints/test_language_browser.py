"""The switch of the pages' language in a real browser: by keyboard, without a script."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from gatekit import Clock, RunningGate, make_settings, running_gate
from parts import in_browser, keep_screenshot
from playwright.async_api import Browser, BrowserContext, Page, expect

from tailchat_gate.pages.catalogues import catalogues

pytestmark = in_browser

TEXTS = catalogues("locales")
#: A sign-in page, a refusal and the launcher, by address: the part of a catalogue with the title.
TITLES = {
    "/oauth2/sign_in": ("sign_in",),
    "/ops/a?b=c": ("reason", "denied"),
    "/oauth2/": ("launcher",),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGate]:
    """Serve a tool for everybody who is signed in, and one for nobody."""
    folder: Path = tmp_path_factory.mktemp("gate")
    settings = make_settings(
        groups={"ops": []},
        route=[{"name": "wiki"}, {"name": "ops", "path": "/ops", "allow": ["group:ops"]}],
    )
    async with running_gate(settings, folder / "access.log", Clock()) as found:
        yield found


async def _sign_in(context: BrowserContext, gate: RunningGate) -> None:
    name, _, value = gate.cookie().partition("=")
    url = f"http://gate.test:{gate.port}"
    await context.add_cookies([{"name": name, "value": value, "url": url}])


async def _is_in(tab: Page, path: str, language: str) -> None:
    part = TEXTS[language]
    for key in TITLES[path]:
        part = part[key]
    await expect(tab.locator("h1")).to_have_text(part["title"])
    await expect(tab.locator("html")).to_have_attribute("lang", language)
    await expect(tab.locator(".languages summary")).to_contain_text(TEXTS[language]["name"])


@pytest.mark.parametrize("path", TITLES)
async def test_a_choice_by_keyboard_is_remembered(
    browser: Browser, gate: RunningGate, path: str
) -> None:
    """It holds on the other pages, and for a browser that begins again with the same cookies."""
    url = f"http://gate.test:{gate.port}"
    context = await browser.new_context(locale="fr-CA")
    try:
        await _sign_in(context, gate)
        tab = await context.new_page()
        await tab.goto(url + path)
        await _is_in(tab, path, "fr")
        await tab.locator(".languages summary").focus()
        await tab.keyboard.press("Enter")
        await tab.keyboard.press("Tab")
        await expect(tab.get_by_role("link", name="English")).to_be_focused()
        await tab.keyboard.press("Tab")
        await tab.keyboard.press("Enter")
        await _is_in(tab, path, "de")
        assert tab.url == url + path
        state = await context.storage_state()
    finally:
        await context.close()

    again = await browser.new_context(locale="fr-CA", storage_state=state)
    try:
        tab = await again.new_page()
        for other in TITLES:
            await tab.goto(url + other)
            await _is_in(tab, other, "de")
    finally:
        await again.close()


@pytest.mark.parametrize("language", ["de", "ja"])
async def test_without_a_script_on_a_phone(
    browser: Browser, gate: RunningGate, language: str
) -> None:
    """The switch opens and leads on, no page scrolls sideways, and no link is too small to hit."""
    context = await browser.new_context(
        locale="fr-FR", java_script_enabled=False, viewport={"width": 375, "height": 667}
    )
    try:
        await _sign_in(context, gate)
        tab = await context.new_page()
        for path in TITLES:
            await tab.goto(f"http://gate.test:{gate.port}{path}")
            await tab.locator(".languages summary").click()
            link = tab.get_by_role("link", name=TEXTS[language]["name"])
            await expect(link).to_have_attribute("lang", language)
            box = await link.bounding_box()
            assert box is not None
            assert box["height"] >= 44
            await link.click()
            await _is_in(tab, path, language)
            await tab.locator(".languages summary").click()
            current = tab.locator(".languages [aria-current=true]")
            await expect(current).to_have_text(TEXTS[language]["name"])
            assert await tab.evaluate("document.documentElement.scrollWidth") <= 375
            await keep_screenshot(tab, f"language-{language}-{TITLES[path][-1]}")
    finally:
        await context.close()
