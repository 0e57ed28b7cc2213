"""The launcher: a person's tools as tiles, and the page that addresses without a tool lead to."""

import html
import json
import re
from collections.abc import AsyncIterator, Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from accounts import user_named
from configkit import problems, write_smallest
from gatekit import Clock, RawUpstream, ask, make_settings, request_bytes
from pagekit import NOON
from parts import in_browser, keep_screenshot
from playwright.async_api import Browser, expect
from storykit import Story, story
from visitor import FETCH, NAVIGATION, Page, Visitor

from tailchat_gate.demo.users import User
from tailchat_gate.endpoints.launcher import drawn, make_tiles
from tailchat_gate.identity.grants import Grant
from tailchat_gate.identity.machine_tokens import hash_of, make_token
from tailchat_gate.pages.render import Pages
from tailchat_gate.serving.wiring.build import build

HOSHINO, BOB = user_named("hoshino"), user_named("bob")
Start = Callable[..., Any]
PAGE = {name.replace("-", "_"): value for name, value in NAVIGATION.items()}
TOKEN = make_token(bytes(32))
DOT = bytes.fromhex("47494638396101000100000000002c00000000010001000002003b")


def _routes(icon: str) -> list[dict[str, Any]]:
    return [
        {"name": "home", "launch": "/start?a=1", "title": "Home", "icon": "\N{HOUSE BUILDING}"},
        {"name": "wiki", "host": "wiki.localhost", "title": "Wiki & notes", "icon": icon},
        {"name": "ops", "path": "/ops", "allow": ["group:ops"], "description": "For on call"},
        {"name": "mail", "path": "/mail", "allow": ["group:ops"]},
        {"name": "public", "path": "/public", "allow": ["public"]},
        {"name": "hidden", "path": "/hidden", "launch": False},
        {"name": "denied", "path": "/denied", "deny": [f"sub:{HOSHINO.sub}"]},
        {"name": "below", "host": "*.lab.localhost"},
        {"name": "gone", "path": "/gone", "upstream": "static:404"},
        {"name": "hook", "path": "/hook", "methods": ["POST"]},
        # The rule of a reading of this path refuses: nobody opens it.
        {"name": "strict", "path": "/public/strict", "allow": ["group:ops"]},
    ]


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[Story]:
    """Return the usual setting with tools of all kinds."""
    icon = tmp_path / "wiki.gif"
    icon.write_bytes(DOT)
    sections: dict[str, Any] = {
        "groups": {"ops": [BOB.sub]},
        "access": {"requests": True, "approvers": ["group:ops"]},
        "route": _routes(str(icon)),
    }
    async with story(tmp_path / "access.log", clock, **sections) as found:
        yield found


class _Tiles(HTMLParser):
    """The addresses of the tiles of a page."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.urls: list[str] = []
        self._inside = False
        self.feed(page.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a link within the list."""
        values = dict(attrs)
        self._inside = self._inside or values.get("id") == "tiles"
        if tag == "a" and self._inside:
            self.urls.append(values["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        """Note the end of the list."""
        self._inside = self._inside and tag != "ul"


async def _sign_in(visitor: Visitor, scene: Story, user: User, path: str = "/oauth2/") -> Page:
    return await visitor.sign_in(scene.url + path, user.email, user.password)


def _wiki(scene: Story) -> str:
    return scene.url.replace("//127.0.0.1", "//wiki.localhost") + "/"


async def test_the_launcher_has_the_tools_that_a_person_may_open(scene: Story) -> None:
    """By the rules of the routes: no tool of others, no wildcard, no fixed status, no form."""
    async with scene.visitor() as mine:
        page = await _sign_in(mine, scene, HOSHINO)

    assert page.url == scene.url + "/oauth2/"
    assert _Tiles(page).urls == [scene.url + "/start?a=1", _wiki(scene), scene.url + "/public"]
    assert "Wiki &amp; notes" in page.text
    assert "\N{HOUSE BUILDING}" in page.text
    assert "data:image/gif;base64,R0lGODlh" in page.text


async def test_a_program_reads_the_same_list(scene: Story) -> None:
    """A script of a page gets names, texts and addresses as JSON."""
    async with scene.visitor() as bobs:
        await _sign_in(bobs, scene, BOB)
        answer = await bobs.open(scene.url + "/oauth2/", headers=FETCH)

    found = json.loads(answer.text)
    assert [one["name"] for one in found] == [
        *("home", "wiki", "ops", "mail", "public", "denied", "strict")
    ]
    assert found[2]["description"] == "For on call"


async def test_grants_and_waiting_requests_are_shown(scene: Story) -> None:
    """A tool for a while has the time of its end; one that was asked for stands below."""
    process_state = scene.gate.generation.process_state
    async with scene.visitor() as mine:
        await _sign_in(mine, scene, HOSHINO)
        now = int(scene.clock())
        await process_state.grants.put(Grant(HOSHINO.sub, "ops", now, now + 3600))
        refused = await mine.open(scene.url + "/mail")
        await mine.submit(refused, "/request", reason="holidays")
        page = await mine.open(scene.url + "/oauth2/")

    assert scene.url + "/ops" in _Tiles(page).urls
    assert '<time data-local datetime="2027-01-15T09:00:00Z">' in page.text
    place = html.escape(f"/oauth2/request?route=mail&rd={quote(scene.url + '/mail', safe='/')}")
    assert f'<li><a href="{place}"><bdi>mail</bdi></a> <span class="quiet"><time' in page.text
    assert 'href="/oauth2/sign_out"' in page.text


async def test_a_mistyped_host_is_told_so(start_gate: Start, upstream: RawUpstream) -> None:
    """Its first page says that no tool is there, and leads to the launcher."""
    gate = await start_gate(upstream.url, route=[{"name": "wiki", "host": "wiki.test"}])
    pages = {
        host: await ask(gate.port, request_bytes("/", host=host, **PAGE))
        for host in ("wikki.test", "gate.test")
    }
    assert pages["gate.test"].value("Location") == "http://gate.test/oauth2/"
    assert pages["wikki.test"].status == 404
    assert b'href="http://gate.test/oauth2/"' in pages["wikki.test"].body


async def test_addresses_without_a_tool_lead_there(scene: Story) -> None:
    """The page for an unknown address, and that of the person."""
    async with scene.visitor() as mine:
        await _sign_in(mine, scene, HOSHINO)
        pages = [
            await mine.open(scene.url + path) for path in ("/oauth2/nothing", "/oauth2/userinfo")
        ]

    assert [page.status for page in pages] == [404, 200]
    for page in pages:
        assert re.search('href="[^"]*/oauth2/">[^<]* ?[Yy]our tools</a>', page.text), page.url


async def test_a_program_without_a_tool_is_led_there(tmp_path: Path, clock: Clock) -> None:
    """A signed-in script gets the address that the page has as a link; a machine has no tools."""
    token = [{"name": "robot", "hash": hash_of(TOKEN)}]
    route = [{"name": "ops", "path": "/ops", "allow": ["signed-in", "token:robot"]}]
    async with story(tmp_path / "log", clock, token=token, route=route) as scene:
        async with scene.visitor() as mine:
            await _sign_in(mine, scene, HOSHINO)
            script = await mine.open(scene.url + "/", headers=FETCH)
        async with scene.visitor() as machine:
            headers = {**FETCH, "Authorization": f"Bearer {TOKEN}"}
            refused = await machine.open(scene.url + "/", headers=headers)

    told = [json.loads(answer.text) for answer in (script, refused)]
    assert [(one["error"], one.get("tools")) for one in told] == [
        ("no-route", scene.url + "/oauth2/"),
        ("no-route", None),
    ]


async def test_a_filter_needs_no_script(scene: Story) -> None:
    """Every word of the query must be in the name or the description of a tool."""
    async with scene.visitor() as bobs:
        await _sign_in(bobs, scene, BOB)
        found = await bobs.open(scene.url + "/oauth2/?q=CALL+for")
        none = await bobs.open(scene.url + "/oauth2/?q=%3Cnothing%3E")

    assert _Tiles(found).urls == [scene.url + "/ops"]
    assert (_Tiles(none).urls, "<nothing>" in none.text) == ([], False)


async def test_a_machine_has_no_launcher(scene: Story) -> None:
    """A bearer token gets 404, whatever it is."""
    async with scene.visitor() as machine:
        headers = {**FETCH, "Authorization": "Bearer tg_nothing"}
        answer = await machine.open(scene.url + "/oauth2/", headers=headers)

    assert answer.status == 404


@in_browser
async def test_a_box_filters_many_tools_as_one_types(
    tmp_path: Path, clock: Clock, browser: Browser
) -> None:
    """Beyond twelve tools a box leaves those with the words; the tab key leads through them."""
    routes = [
        {"name": f"tool-{number}", "path": f"/t{number}", "title": f"Tool {number}"}
        for number in range(13)
    ]
    async with story(tmp_path / "log", clock, route=routes) as scene, scene.visitor() as mine:
        page = await _sign_in(mine, scene, HOSHINO)
        tab = await browser.new_page()
        try:
            await tab.route(
                "**/*", lambda route: route.fulfill(body=page.text, headers=dict(page.headers))
            )
            await tab.goto(scene.url + "/oauth2/")
            await expect(tab.locator("#tiles > li:visible")).to_have_count(13)
            await tab.get_by_label("Find a tool").fill("tool 1")
            await expect(tab.locator("#tiles > li:visible")).to_have_count(4)
            await tab.keyboard.press("Tab")
            await tab.keyboard.press("Tab")
            await expect(tab.get_by_role("link", name="Tool 10")).not_to_be_focused()
            await expect(tab.get_by_role("link", name="Tool 1", exact=True)).to_be_focused()
            await keep_screenshot(tab, "launcher")
        finally:
            await tab.close()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("icon", "letters", "an emoji"),
        ("icon", "/etc/hostname.txt", "an emoji"),
        ("icon", "/nowhere/icon.png", "No such file"),
        ("title", "t" * 61, "60"),
        ("description", "a\nb", "one line"),
        ("launch", "/elsewhere", "own path"),
        ("launch", "https://x.example", "a path"),
        ("launch", 7, "a path"),
    ],
)
def test_what_no_tile_can_show_is_refused(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    """Each problem names its key and what is accepted."""
    file = write_smallest(tmp_path)
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}path = '/x'\n{key} = {json.dumps(value)}\n", encoding="utf-8")

    assert any(
        one.key_path == f"route[0].{key}" and said in f"{one.found} {one.expected}"
        for one in problems(file)
    )


def test_a_thousand_tools_are_drawn_once() -> None:
    """With the configuration; the page takes them in one piece, but for those with an end."""
    routes = [{"name": f"tool-{number}", "host": f"t{number}.test"} for number in range(1000)]
    settings = make_settings(route=[{**one, "title": "<b>"} for one in routes])
    generation = build(settings)
    table = generation.gate.authorizer.routes
    tiles = list(make_tiles(table.routes, generation.gate.authorizer.sites))
    assert all("<bdi>&lt;b&gt;</bdi>" in tile.html for tile in tiles)
    (whole,) = drawn(tiles, {})
    assert (str(whole["html"]).count("<li>"), whole["until"]) == (1000, 0)
    parts = list(drawn(tiles, {"tool-7": int(NOON), "tool-8": int(NOON)}))
    assert [part["until"] for part in parts] == [0, NOON, NOON, 0]
    page = Pages().render("launcher", accept_language="en", tools=parts)
    assert page.count("<li><a href=") == page.count("</span></a></li>") == 1000
    assert page.count("2026-03-01 12:00:00 UTC") == 2
