"""Values of pages, for tests that render every page."""

from tailchat_gate.pages.render import draw_tile

#: 2026-03-01 12:00:00 UTC.
NOON = 1_772_366_400.0


def access_pages(text: str) -> dict[str, dict[str, object]]:
    """Return the values of the pages about access, `text` wherever a person's words may be."""
    person = dict.fromkeys(("sub", "nickname", "discriminator", "tool"), text)
    asked = {**person, "id": "k", "reason": text, "at": NOON}
    return {
        "request": {**person, "state": "open", "back_url": "/d"},
        "approvals": {
            "csrf": "c",
            "requests": [{**asked, "own": own} for own in (False, True)],
            "said": {"code": "approved", "who": text, "tool": text, "until": NOON},
        },
    }


def launcher(text: str) -> dict[str, object]:
    """Return the values of the launcher, `text` wherever somebody's words may be."""
    url = "https://wiki.test/"
    dot = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
    return {
        "nickname": text,
        "tools": [
            {"html": draw_tile(text, text, url, icon="", picture=""), "until": 0},
            {"html": draw_tile(text, text, url, icon="\N{OPEN BOOK}", picture=""), "until": NOON},
            {"html": draw_tile(text, "", url, icon="", picture=dot), "until": 0},
        ],
        "waiting": ({"title": text, "url": "/oauth2/request?route=x", "at": 1_800_000_000},),
        "query": text,
        "filters": True,
        "decisions": 2,
        "approvals_url": "https://gate.test/oauth2/approvals",
    }


def sign_ins(text: str) -> tuple[dict[str, object], ...]:
    """Return a person's sign-ins, `text` as the browser of the first."""
    times = {"signed_in_at": NOON, "seen_at": NOON}
    return (
        {**times, "id": "one", "browser": text, "is_this": True},
        {**times, "id": "two", "browser": "Safari, iPhone", "is_this": False},
        {**times, "id": "three", "browser": "", "is_this": False},
    )
