"""Deep links of any length that a request may have come back whole from a sign-in."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import pytest_asyncio
from accounts import user_named
from gatekit import (
    Clock,
    RawUpstream,
    RunningGate,
    ask,
    cookie_value,
    request_bytes,
    running_gate,
)
from parts import in_browser
from playwright.async_api import Browser, Page
from storykit import registered
from visitor import Page as Answer
from visitor import Visitor

from tailchat_gate.identity.oauth import return_targets
from tailchat_gate.identity.oauth.return_targets import (
    LONGEST_CARRIED,
    ReturnTargets,
    StoredTargets,
)
from tailchat_gate.request.client import ClientAddress

HOSHINO = user_named("hoshino")
ORIGIN = "http://gate.test"


def _link(size: int, seed: str = "x") -> str:
    """Return a path with a query as Kibana writes them, which no coding makes much shorter."""
    source = random.Random(seed)  # noqa: S311 - any text
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789(),:!*-_.~/"
    start = f"/app/dashboards?seed={seed}&_g=("
    return start + "".join(source.choices(letters, k=size - len(start)))


@dataclass
class Scene:
    """A gate with a tool on its own host and one on another."""

    gate: RunningGate
    tool: RawUpstream
    public: str
    wiki: str


@pytest_asyncio.fixture(loop_scope="session")
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[Scene]:
    """Serve them with a Tailchat."""
    async with registered("gate.test", clock) as at, RawUpstream() as tool:
        settings = at.settings(
            tool.url, route=[{"name": "home"}, {"name": "wiki", "host": "wiki.test"}]
        )
        async with running_gate(settings, tmp_path / "access.log", clock) as gate:
            yield Scene(gate, tool, at.url, f"http://wiki.test:{at.port}")


async def _onward(visitor: Visitor, page: Answer) -> Answer:
    """Go on by the page that takes the place of a redirect where the address is long."""
    if 'http-equiv="refresh"' not in page.text:
        return page
    (link,) = page.links
    assert (
        f'content="0; url={escape(urlsplit(link)._replace(scheme="", netloc="").geturl())}"'
        in page.text
    )
    return await visitor.open(link)


@pytest.mark.parametrize("size", [1000, 2048, 2049, 8192, 16_384])
@pytest.mark.parametrize("host", ["public", "wiki"])
@in_browser
async def test_a_long_link_comes_back_whole(scene: Scene, host: str, size: int) -> None:
    """Whatever the length, the tool is asked for what was opened; no address on the way is long."""
    url = getattr(scene, host)
    link = _link(size)
    async with Visitor() as visitor:
        page = await visitor.open(url + link)
        trail = page.trail[1:]
        page = await visitor.submit(page, "/login", email=HOSHINO.email, password=HOSHINO.password)
        trail += page.trail
        page = await visitor.submit(page, "/confirm")
        trail += page.trail

        page = await _onward(visitor, page)

    assert (page.status, page.url) == (200, url + link)
    assert scene.tool.requests[-1].line == f"GET {link} HTTP/1.1".encode()
    assert max(map(len, (one for one in trail if one != url + link))) < 4096


@in_browser
async def test_a_link_that_a_proxy_hands_to_start(scene: Scene) -> None:
    """`rd` itself may be as long as a target: it is kept where the login begins."""
    link = "/" + "a" * 9000
    async with Visitor() as visitor:
        await visitor.open(f"{scene.public}/oauth2/start?rd={quote(link)}")
        page = await visitor.sign_in(
            f"{scene.public}/oauth2/start?rd={quote(link)}", HOSHINO.email, HOSHINO.password
        )
        page = await _onward(visitor, page)

    assert page.url == scene.public + link


@in_browser
async def test_ten_tabs_with_long_links(browser: Browser, scene: Scene) -> None:
    """Ten tabs at once, each with 8 KiB of its own, on two hosts, all come back whole."""
    links = [
        (scene.wiki if number % 2 else scene.public) + _link(8192, f"tab{number}")
        for number in range(10)
    ]
    context = await browser.new_context()
    first = await context.new_page()
    await first.goto(f"{scene.wiki}/")
    await first.locator("input[name=email]").first.fill(HOSHINO.email)
    await first.locator("input[name=password]").first.fill(HOSHINO.password)
    await first.locator("input[name=password]").first.press("Enter")
    await first.get_by_role("button", name="授权").click()
    await first.wait_for_url(f"{scene.wiki}/")
    # Tailchat knows the person; both hosts of the gate do not.
    await context.clear_cookies(name="tailchat_gate")
    tabs = [await context.new_page() for _ in links]

    async def opened(tab: Page, link: str) -> str:
        await tab.goto(link)
        await tab.wait_for_url(link)
        return tab.url

    assert await asyncio.gather(*map(opened, tabs, links)) == links
    cookies = await context.cookies([scene.public, scene.wiki])
    assert sum(len(one["name"]) + len(one["value"]) for one in cookies) < 8192


@in_browser
async def test_a_forgotten_link_is_told(scene: Scene) -> None:
    """What is no longer kept is a page that says so and leads to the path."""
    first = await ask(
        scene.gate.port, request_bytes(_link(3000), host="wiki.test", Accept="text/html")
    )
    short = dict(pair.split("=", 1) for pair in urlsplit(first.value("Location")).query.split("&"))
    assert set(short) == {"rd"}
    scene.gate.clock.now += 7201

    for target in ("to=0&else=/app/dashboards", "to=0&else=//evil.test", "to=0", ""):
        response = await ask(
            scene.gate.port,
            request_bytes(f"/oauth2/back?{target}", host="wiki.test", Accept="text/html"),
        )
        path = "/app/dashboards" if "app" in target else "/"
        assert (response.status, b"login-target-lost" in response.body) == (410, True)
        assert f'href="{scene.wiki}{path}"'.encode() in response.body
        assert cookie_value(response, "tailchat_gate") == ""


@pytest.fixture
def kept(clock: Clock) -> ReturnTargets:
    """Return what keeps targets, with nothing in it."""
    return ReturnTargets(StoredTargets(b"s" * 32, clock), "/oauth2")


def _find(kept: ReturnTargets, short: str, origin: str = ORIGIN) -> str | None:
    query = dict(pair.split("=", 1) for pair in urlsplit(short).query.split("&"))
    return kept.stored.find(query["to"], origin)


def test_what_fits_travels_as_it_is(kept: ReturnTargets) -> None:
    """Only what is long, as it is or quoted, is kept; and under a short name."""
    for target in ("/", "/" + "a" * (LONGEST_CARRIED - 1), "/" + "a:" * 300):
        assert kept.short(target, origin=ORIGIN, visitor="192.0.2.1") == target
    for target in ("/" + "a" * LONGEST_CARRIED, "/" + ":" * 500, "/p?" + "%" * 500):
        short = kept.short(target, origin=ORIGIN, visitor="192.0.2.1")
        assert len(short) < LONGEST_CARRIED
        assert _find(kept, short) == target
    assert kept.shown(kept.short("/a b?" + "x" * 2000, origin=ORIGIN, visitor="")) == "/a b"


def test_a_kept_target_is_for_one_origin_and_a_while(kept: ReturnTargets, clock: Clock) -> None:
    """Another host of the gate does not get it, nor anybody after two hours."""
    short = kept.short("/" + "a" * 3000, origin=ORIGIN, visitor="192.0.2.1")

    assert _find(kept, short, "http://wiki.test") is None
    clock.now += 7199
    assert _find(kept, short) is not None
    clock.now += 2
    assert _find(kept, short) is None


def _network(address: str) -> str:
    return ClientAddress(address, "https", "").network


def test_one_visitor_pushes_out_only_their_own(
    kept: ReturnTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many links one address sends, those of others stay, up to a bound of all."""
    monkeypatch.setattr(return_targets, "MAX_BYTES_EACH", 40_000)
    monkeypatch.setattr(return_targets, "MAX_BYTES", 100_000)
    other = kept.short("/other" + "a" * 3000, origin=ORIGIN, visitor=_network("2001:db8::1"))
    for number in range(1000):
        visitor = _network(f"2001:db8:0:1::{number:x}")
        last = kept.short(f"/{number}?" + "b" * 3000, origin=ORIGIN, visitor=visitor)
    assert _find(kept, other) is not None
    assert _find(kept, last) is not None
    assert kept.stored.bytes <= 43_600
    for number in range(100):
        kept.short("/" + "c" * 3000, origin=ORIGIN, visitor=f"192.0.2.{number}")
    assert kept.stored.bytes <= 100_000
    assert _find(kept, other) is None


def test_a_link_that_is_opened_again_takes_no_more(kept: ReturnTargets) -> None:
    """The same link of the same visitor has one name."""
    names = {kept.short("/" + "a" * 3000, origin=ORIGIN, visitor="192.0.2.1") for _ in range(9)}

    assert (len(names), len(kept.stored)) == (1, 1)
