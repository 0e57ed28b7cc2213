"""axe-core finds nothing in any page: light and dark, in two scripts, with a brand and without."""

from typing import Any, Final, Literal, NamedTuple

import pytest
from axekit import findings, load_axe, write_page
from pagekit import NOON, access_pages, launcher, sign_ins
from parts import in_browser
from playwright.async_api import Browser

from tailchat_gate.pages.brand import Brand
from tailchat_gate.pages.render import Pages

pytestmark = in_browser

DOT: Final = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
#: The gate's own look, and that of an organisation; they read files, so not within the event loop.
PLAIN: Final = Pages(contact="ops@example.com", tailchat="chat.example.com")
OF_A_BRAND: Final = Pages(
    contact="https://example.com/help",
    brand=Brand(
        "Example Ltd",
        DOT,
        "#8a1c4a",
        "#f0a3c4",
        {"Imprint": "https://example.com/imprint", "Privacy": "https://example.com/privacy"},
    ),
)
PERSON: Final = {"nickname": "Hoshino", "discriminator": "0042", "sub": "660000000000000000000001"}
PROBLEM: Final = {
    "request_id": "7c9e6679f0b4c2d100000001",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "time": NOON,
    "status": 403,
    "retry_url": "/",
    "home_url": "/oauth2/",
}
UNTIL: Final = {"notice": "Back at ten", "until": "2027-01-17T08:00:00Z"}


def _problem(reason: str, **values: object) -> tuple[str, dict[str, object]]:
    return "problem", {**PROBLEM, "reason": reason, **values}


def _requests() -> list[dict[str, Any]]:
    asked = {**PERSON, "tool": "wiki", "reason": "on call", "at": NOON}
    return [{**asked, "id": "a", "own": False}, {**asked, "id": "b", "tool": "ci", "own": True}]


#: Every page, and the parts that it has in some cases alone.
CASES: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "sign_in": ("sign_in", {"start_url": "/s", "tool": "wiki", "return_to": "/d"}),
    "sign_out": ("sign_out", {"csrf": "c", "nickname": "Hoshino"}),
    "signed_out": ("signed_out", {"start_url": "/s", "everywhere": True}),
    "sign_in_again": ("sign_in_again", {"start_url": "/s"}),
    "clear_cookies": ("clear_cookies", {}),
    "cookies_cleared": ("clear_cookies", {"done": True}),
    "embedded": ("embedded", {"start_url": "/s", "arrive_url": "/a", "tab_url": "/d"}),
    "handed_over": ("handed_over", {"tab_url": "/"}),
    "frame": ("frame", {"reason": "not-signed-in", "open_url": "/d", "elsewhere": "frame"}),
    "launcher": ("launcher", launcher("Wiki")),
    "no tools": ("launcher", {"tools": []}),
    "onward": ("onward", {"next_url": "/"}),
    **{f"asked {state}": ("request", {**access_pages("wiki")["request"], "state": state})
       for state in ("open", "declined", "too_many")},
    "approvals": ("approvals", {"csrf": "c", "requests": _requests()}),
    "no requests": ("approvals", {"csrf": "c", "requests": []}),
    "userinfo": (
        "userinfo",
        {
            **PERSON,
            "groups": ("ops", "wiki"),
            "grants": (("wiki", NOON),),
            "signed_in_at": NOON,
            "until": NOON + 3600,
            "csrf": "c",
            "sessions": sign_ins("Firefox, Linux"),
        },
    ),
    "denied": _problem(
        "denied",
        detail={**PERSON, "tool": "wiki", "groups": "ops", "error": "no"},
        ask={"tool": "wiki", "csrf": "c", "back": "/"},
    ),
    "locked": _problem("locked", detail={**PERSON, **UNTIL}),
    "maintenance": _problem("maintenance", detail=UNTIL),
    "head-too-large": _problem("head-too-large", clears=True),
    "upstream-down": _problem("upstream-down", retries=True),
    "a form of elsewhere": _problem("not-signed-in", elsewhere="form"),
}  # fmt: skip


class Look(NamedTuple):
    """How a person sees the pages."""

    language: str
    scheme: Literal["light", "dark"]
    pages: Pages


LOOKS: Final = {
    "en light": Look("en", "light", PLAIN),
    "en dark": Look("en", "dark", PLAIN),
    "zh light": Look("zh", "light", OF_A_BRAND),
    "zh dark": Look("zh", "dark", OF_A_BRAND),
}


@pytest.mark.parametrize("look", LOOKS)
async def test_axe_finds_nothing(browser: Browser, look: str) -> None:
    """No page has a finding of any rule, with everything open that can be opened."""
    language, scheme, pages = LOOKS[look]
    context = await browser.new_context(
        viewport={"width": 375, "height": 667}, color_scheme=scheme, reduced_motion="reduce"
    )
    try:
        tab = await context.new_page()
        await load_axe(tab)
        for case, (page, values) in CASES.items():
            html = pages.render(page, accept_language=language, here="/oauth2/", **values)
            await write_page(tab, html)
            await tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")

            assert (case, await findings(tab)) == (case, [])
    finally:
        await context.close()


async def test_axe_would_find_something(browser: Browser) -> None:
    """A page without a language, with an image without a text and pale words, has findings."""
    tab = await browser.new_page()
    try:
        await load_axe(tab)
        await write_page(tab, f'<p style="color: #999">pale</p><img src="{DOT}">')
        found = " ".join(await findings(tab))
    finally:
        await tab.close()

    assert all(rule in found for rule in ("html-has-lang", "image-alt", "color-contrast"))
