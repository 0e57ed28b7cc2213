"""What an organisation puts on the pages: what it may be, and that every page shows it."""

import asyncio
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from configkit import good, refused, write_smallest
from gatekit import RawUpstream, RunningGate, ask, request_bytes
from visitor import NAVIGATION

from tailchat_gate.pages.brand import (
    DARK_GROUNDS,
    LIGHT_GROUNDS,
    Brand,
    contrast,
    least_contrast,
)
from tailchat_gate.pages.catalogues import replaceable
from tailchat_gate.pages.render import Pages
from tailchat_gate.serving.wiring.config_parts import brand_of

replaceable()  # it reads files, so not within the event loop

Start = Callable[..., Any]

DOT = b64decode("R0lGODlhAQABAAAAACwAAAAAAQABAAA=")
HOSTILE = '<script>alert(1)</script>"{{ 7 * 7 }}'
BRAND: dict[str, Any] = {
    "title": f"Example {HOSTILE}",
    "accent": "#8A1C4A",
    "accent_dark": "#f0a3c4",
    "texts": {
        "en": {"sign_out.who": f"You: {{nickname}} {HOSTILE[:25]}", "launcher.title": "Start"},
        "de": {"sign_out.who": "Angemeldet: {nickname}"},
    },
    "footer": {f"Imprint {HOSTILE}"[:40]: 'https://example.com/?a="<b>', "Help": "mailto:a@b.test"},
}


def _variables(brand: dict[str, Any]) -> dict[str, str]:
    return {
        f"PAGES__{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in brand.items()
    }


@pytest.fixture
async def gate(start_gate: Start, upstream: RawUpstream, tmp_path: Path) -> RunningGate:
    """Return a gate with a brand, of texts that would be markup elsewhere."""
    logo = tmp_path / "logo.gif"
    await asyncio.to_thread(logo.write_bytes, DOT)
    found = await start_gate(upstream.url, pages={**BRAND, "logo": str(logo)})
    assert isinstance(found, RunningGate)
    return found


async def test_every_page_says_the_name_of_the_organisation(gate: RunningGate) -> None:
    """In its title and at its head, with the logo and the links, and never the gate's own name."""
    page = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}
    for target in ("sign_in", "sign_out", "userinfo", "", "nowhere", "back"):
        response = await ask(
            gate.port, request_bytes(f"/oauth2/{target}", Cookie=gate.cookie(), **page)
        )
        html = response.body.decode()

        assert "Tailchat Gate" not in html, target
        assert html.count("Example &lt;script&gt;alert(1)&lt;/script&gt;") == 2, target
        assert html.count("data:image/gif;base64,R0lGOD") == 2
        assert 'href="https://example.com/?a=&#34;&lt;b&gt;"' in html
        assert 'href="mailto:a@b.test"' in html
        assert "<script>alert" not in html
        policy = response.value("Content-Security-Policy")
        (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
        hashed = b64encode(sha256(style.encode()).digest()).decode()
        assert f"style-src 'sha256-{hashed}';" in policy
        assert style.count("#8a1c4a") == style.count("#f0a3c4") == 3


async def test_texts_are_the_organisations_by_language(gate: RunningGate) -> None:
    """As text and never as markup; a language that is not named keeps its own."""
    page = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}
    said = {}
    for language in ("en", "de", "zh"):
        fields = {**page, "Cookie": gate.cookie(), "Accept_Language": language}
        response = await ask(gate.port, request_bytes("/oauth2/sign_out", **fields))
        said[language] = response.body.decode()

    assert "You: <bdi>Alice</bdi> &lt;script&gt;alert(1)" in said["en"]
    assert "Angemeldet: <bdi>Alice</bdi>" in said["de"]
    assert "Sign out?" in said["en"]
    assert "当前登录账号" in said["zh"]


def test_texts_may_be_tables_of_the_file(tmp_path: Path) -> None:
    """A dotted key, a quoted one and a table of its own are the same."""
    file = write_smallest(tmp_path)
    with file.open("a", encoding="utf-8") as more:
        more.write(
            '[pages.texts.en]\nsign_in.text = "one"\n"sign_in.action" = "two"\n'
            '[pages.texts.en.reason.denied]\ntitle = "three"\n'
        )

    assert dict(good(file).settings.pages.texts["en"]) == {
        "sign_in.text": "one",
        "sign_in.action": "two",
        "reason.denied.title": "three",
    }


def test_programs_read_the_gates_own_words() -> None:
    """A text of the organisation's is for people: what a program reads stays as documented."""
    brand = Brand(texts={"en": {"reason.denied.text": "Go away"}})
    pages = Pages(brand=brand)

    assert b"The sign-in worked" in pages.problem_json("denied", "r")
    assert "Go away" in pages.render(
        "problem", accept_language="en", reason="denied", request_id="r", time=0, status=403
    )


def test_the_admin_page_says_it_too() -> None:
    """Its template has the name in the place of its own."""
    text = files("tailchat_gate.pages").joinpath("admin", "layout.html").read_text("utf-8")

    assert text.count("{{ site or t.title }}") == 2


def test_a_brand_comes_from_the_environment_too(tmp_path: Path) -> None:
    """Each key has a variable; the links are JSON in one."""
    loaded = good(write_smallest(tmp_path), **_variables(BRAND))
    brand = brand_of(loaded.settings.pages)

    assert brand.name == BRAND["title"]
    assert (brand.accent, brand.accent_dark) == ("#8a1c4a", "#f0a3c4")
    assert dict(brand.links) == BRAND["footer"]
    assert {one: dict(texts) for one, texts in brand.texts.items()} == BRAND["texts"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("title", "x" * 61, "one line of at most 60 characters"),
        ("title", "a\nb", "one line of at most 60 characters"),
        ("logo", "logo.png", "absolute path"),
        ("logo", "/etc/hostname", "a .gif, .ico, .jpg, .png, .svg, .webp file"),
        ("logo", "/nowhere/logo.png", "a picture of at most 32 KiB"),
        ("accent", "red", 'a colour such as "#1f5fbf"'),
        ("accent", "#12345g", 'a colour such as "#1f5fbf"'),
        ("accent", "#ff8800", 'to the light pages (WCAG 2.2 AA), such as "#a85a00"'),
        ("accent", "#8fbaf7", "this one has 1.8"),
        ("accent_dark", "#1f5fbf", 'to the dark pages (WCAG 2.2 AA), such as "#6b95d5"'),
        ("texts", {"xx": {}}, "a language of the pages: en, de,"),
        ("texts", {"en": {"sign_in.titel": "a"}}, 'did you mean "sign_in.title"?'),
        ("texts", {"en": {"tag": "fr"}}, "the key of a text of the pages"),
        ("texts", {"en": {"sign_in": "a"}}, "the key of a text of the pages"),
        ("texts", {"en": {"sign_in.title": " "}}, "one line of at most 1000 characters"),
        ("texts", {"en": {"sign_in.title": "a\nb"}}, "one line of at most 1000 characters"),
        ("texts", {"en": {"sign_in.title": "{tool}"}}, "for sign_in.title a text without braces"),
        ("texts", {"en": {"sign_in.title_tool": "a"}}, "a text with {tool}, and no other braces"),
        ("texts", {"en": {"contact": "{contact} {x}"}}, "a text with {contact}, and no other"),
        ("texts", {"en": {"contact": "{contact} {"}}, "a text with {contact}, and no other"),
        ("texts", {"en": {"contact": "{contact!r}"}}, "a text with {contact}, and no other"),
        ("footer", {"Home": "javascript:alert(1)"}, "a web address that begins with https://"),
        ("footer", {"Home": "https://a b"}, "a web address that begins with https://"),
        ("footer", {" ": "https://a"}, "a text in one line of at most 40 characters"),
        ("footer", {str(n): "https://a" for n in range(9)}, "at most 8 links"),
    ],
)
def test_what_cannot_be_shown_well_is_refused(
    tmp_path: Path, key: str, value: object, expected: str
) -> None:
    """With what would be right, such as the nearest colour that can be read."""
    (problem,) = refused(write_smallest(tmp_path), **_variables({key: value}))

    assert problem.key_path.startswith(f"TAILCHAT_GATE_PAGES__{key.upper()}")
    assert expected in problem.expected


def test_the_grounds_are_those_of_the_pages() -> None:
    """The colours that a colour is compared with are in the style, and the pages' own pass."""
    style = files("tailchat_gate.pages").joinpath("templates", "style.css").read_text("utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root {(.*?)}", style, re.DOTALL)
    )

    for own, grounds in ((light, LIGHT_GROUNDS), (dark, DARK_GROUNDS)):
        assert (own["card"], own["hover"]) == grounds
        assert least_contrast(own["link"], grounds) >= 4.5
        # What has that contrast to the card has as much to the text of a button, or more.
        assert contrast(own["on-button"], "#808080") >= contrast(own["card"], "#808080")
