"""A person with a real browser: Chromium, the gate, the stand-in Tailchat and the sample tool."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from accounts import user_named
from gatekit import Clock, RunningGate, running_gate, until
from parts import in_browser, keep_screenshot
from playwright.async_api import Browser, Page, expect
from storekit import StoredEntries
from storykit import log_in, registered, served

from tailchat_gate.demo.tool import SampleTool
from tailchat_gate.identity.revocation.state import Lock

pytestmark = in_browser

HOSHINO = user_named("hoshino")


@dataclass
class Stage:
    """The gate in front of the sample tool."""

    gate: RunningGate
    url: str
    clock: Clock
    state: Path


@pytest_asyncio.fixture(loop_scope="session")
async def stage(tmp_path: Path, clock: Clock) -> AsyncIterator[Stage]:
    """Serve all three on loopback."""
    app = SampleTool(ticks=0.05).app()
    async with registered("127.0.0.1", clock) as at, served(app) as tool_port:
        settings = at.settings(
            f"http://127.0.0.1:{tool_port}",
            pages={"sign_in": "page", "contact": "ops@example.com"},
            state={"path": str(tmp_path)},
        )
        async with running_gate(settings, tmp_path / "access.log", clock) as gate:
            yield Stage(gate, at.url, clock, tmp_path)


async def _sign_in(tab: Page, stage: Stage, path: str = "/") -> None:
    await tab.goto(stage.url + path)
    await tab.get_by_role("link", name="Sign in with Tailchat").click()
    await log_in(tab)


async def test_a_person_signs_in_uses_the_tool_and_signs_out(
    browser: Browser, stage: Stage
) -> None:
    """From the sign-in page over Tailchat to the tool, a WebSocket, a second tab, and out again."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    tab = await context.new_page()
    await tab.goto(stage.url + "/?from=link#part")
    await keep_screenshot(tab, "story-1-sign-in")
    await tab.get_by_role("link", name="Sign in with Tailchat").click()
    await keep_screenshot(tab, "story-2-tailchat-login")
    await tab.locator("input[name=email]").first.fill(HOSHINO.email)
    await tab.locator("input[name=password]").first.fill(HOSHINO.password)
    await tab.locator("input[name=password]").first.press("Enter")
    await keep_screenshot(tab, "story-3-tailchat-consent")
    await tab.get_by_role("button", name="授权").click()

    await expect(tab.get_by_text("星野 Hoshino ☆").first).to_be_visible()
    assert tab.url == stage.url + "/?from=link#part"
    await expect(tab.locator("body")).to_contain_text(HOSHINO.sub)
    await keep_screenshot(tab, "story-4-tool")

    echoed = await tab.evaluate(
        """() => new Promise((resolve, reject) => {
            const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws");
            socket.onopen = () => socket.send("星 over the gate");
            socket.onmessage = (event) => { socket.close(); resolve(event.data); };
            socket.onerror = () => reject(new Error("no WebSocket"));
        })"""
    )
    assert echoed == "星 over the gate"

    second = await context.new_page()
    await second.goto(stage.url + "/")
    await expect(second.get_by_text("星野 Hoshino ☆").first).to_be_visible()

    await second.goto(stage.url + "/oauth2/userinfo")
    await keep_screenshot(second, "story-5-who-am-i")
    await second.goto(stage.url + "/oauth2/sign_out")
    await keep_screenshot(second, "story-6-sign-out")
    await second.get_by_role("button", name="Sign out").click()
    await second.wait_for_url(stage.url + "/oauth2/sign_out")
    await keep_screenshot(second, "story-7-signed-out")
    assert [c for c in await context.cookies(stage.url) if c["name"] == "tailchat_gate"] == []

    await tab.reload()
    await expect(tab.get_by_role("link", name="Sign in with Tailchat")).to_be_visible()


async def test_a_fetch_after_the_session_ended_sees_401(browser: Browser, stage: Stage) -> None:
    """A page that is still open learns from a plain 401 that its session is over."""
    tab = await (await browser.new_context()).new_page()
    await _sign_in(tab, stage)
    await tab.wait_for_url(stage.url + "/")
    script = """async () => {
        const answer = await fetch("/api/whoami");
        return [answer.status, answer.redirected, (await answer.json()).error || ""];
    }"""
    assert (await tab.evaluate(script))[:2] == [200, False]

    stage.clock.now += 43_201

    assert await tab.evaluate(script) == [401, False, "not-signed-in"]


@pytest.mark.parametrize(
    ("how", "closed"),
    [
        ("the session ends", [3000, "the session is over", True]),
        ("the gate stops", [1001, "the gate is stopping", True]),
        # What the tool answers, whatever the page closed with.
        ("the page closes", [1000, "", True]),
    ],
)
async def test_a_websocket_of_a_page(
    browser: Browser, stage: Stage, how: str, closed: list[object]
) -> None:
    """Text, bytes and a large message come back compressed; the page hears code and reason."""
    tab = await (await browser.new_context()).new_page()
    # A page without a script, which would have a WebSocket of its own.
    await _sign_in(tab, stage, "/api/whoami")
    await tab.wait_for_url(stage.url + "/api/whoami")
    echoed = await tab.evaluate(
        """async () => {
            const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws");
            socket.binaryType = "arraybuffer";
            window.socket = socket;
            window.heard = new Promise((closed) => {
                socket.onclose = (event) => closed([event.code, event.reason, event.wasClean]);
            });
            await new Promise((opened, failed) => {
                socket.onopen = opened;
                socket.onerror = () => failed(new Error("no WebSocket"));
            });
            const ask = (data) => new Promise((answered) => {
                socket.onmessage = (event) => answered(event.data);
                socket.send(data);
            });
            const bytes = new Uint8Array(await ask(new Uint8Array([0, 255, 136, 129])));
            const large = "星".repeat(300000);
            return [
                socket.extensions, await ask("星野 ☆"), [...bytes], (await ask(large)) === large,
            ];
        }"""
    )
    assert echoed[0].startswith("permessage-deflate")
    assert echoed[1:] == ["星野 ☆", [0, 255, 136, 129], True]

    async with asyncio.timeout(40):
        if how == "the session ends":
            stage.clock.now += 43_201
        elif how == "the gate stops":
            await stage.gate.server.stop()
        else:
            await tab.evaluate('socket.close(4001, "enough")')
        assert await tab.evaluate("window.heard") == closed
        await until(lambda: not stage.gate.generation.forwarder.tunnels)


async def test_a_page_hears_that_its_websocket_was_ended(browser: Browser, stage: Stage) -> None:
    """A lock closes the WebSocket of an open page with a code and words for its script."""
    tab = await (await browser.new_context()).new_page()
    await _sign_in(tab, stage)
    await tab.wait_for_url(stage.url + "/")
    await tab.evaluate(
        """() => new Promise((resolve, reject) => {
            const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws");
            socket.onopen = () => socket.send("hello");
            socket.onmessage = () => resolve();
            socket.onerror = () => reject(new Error("no WebSocket"));
            window.heard = new Promise((closed) => {
                socket.onclose = (event) => closed([event.code, event.reason, event.wasClean]);
            });
        })"""
    )
    locks = StoredEntries(stage.state, stage.clock)
    lock = Lock(f"sub:{HOSHINO.sub}", int(stage.clock()), None, "Please call the help desk")
    await asyncio.to_thread(locks.append, [lock])

    async with asyncio.timeout(40):
        closed = await tab.evaluate("window.heard")
    assert closed == [3000, "locked", True]
    await tab.reload()
    await keep_screenshot(tab, "story-8-locked")
    await expect(tab.get_by_text("Please call the help desk")).to_be_visible()
    await tab.get_by_role("link", name="Check again").click()
    await expect(tab.get_by_text("Your access has been suspended").first).to_be_visible()
    assert tab.url == f"{stage.url}/"


@pytest.mark.parametrize(
    ("page", "button"), [("sign_out", "Sign out"), ("userinfo", "Sign out everywhere")]
)
async def test_signing_out_at_a_tools_own_host(
    browser: Browser, clock: Clock, tmp_path: Path, page: str, button: str
) -> None:
    """A tool on a host of its own signs in by the public host; one sign-out ends both sessions."""
    async with registered("gate.test", clock) as at, served(SampleTool().app()) as tool_port:
        url, wiki = at.url, f"http://wiki.test:{at.port}"
        settings = at.settings(
            f"http://127.0.0.1:{tool_port}", route=[{"name": "wiki", "host": "wiki.test"}]
        )
        async with running_gate(settings, tmp_path / "access.log", clock):
            context = await browser.new_context()
            tab = await context.new_page()
            await tab.goto(f"{wiki}/?page=1")
            await log_in(tab)
            await expect(tab.get_by_text("星野 Hoshino ☆").first).to_be_visible()
            assert tab.url == f"{wiki}/?page=1"

            await tab.goto(f"{wiki}/oauth2/{page}")
            await tab.get_by_role("button", name=button).click()
            await expect(tab.get_by_role("heading", name="You are signed out")).to_be_visible()

            assert tab.url.partition("?")[0] == f"{url}/oauth2/sign_out"
            assert "pass=" not in tab.url
            everywhere = tab.get_by_text("on all devices")
            await expect(everywhere).to_be_visible(visible=button != "Sign out")
            cookies = [cookie["name"] for cookie in await context.cookies([url, wiki])]
            assert "tailchat_gate" not in cookies


async def test_events_reach_the_page_one_by_one(browser: Browser, stage: Stage) -> None:
    """An EventSource in the page receives several events of an open reply."""
    tab = await (await browser.new_context()).new_page()
    await _sign_in(tab, stage)
    await tab.wait_for_url(stage.url + "/")

    events = await tab.evaluate(
        """() => new Promise((resolve) => {
            const seen = [], source = new EventSource("/events");
            source.onmessage = (event) => {
                seen.push(event.data);
                if (seen.length === 3) { source.close(); resolve(seen); }
            };
        })"""
    )

    assert events == ["tick 1", "tick 2", "tick 3"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/oauth2/callback?code=x&state=y&iss=z", "login-state-forged"),
        ("/oauth2/callback?error=access_denied", "login-refused"),
        ("/oauth2/nothing", "no-route"),
    ],
)
async def test_problem_pages_offer_the_next_step(
    browser: Browser, stage: Stage, path: str, name: str
) -> None:
    """A problem has one heading, the request id and a way on, and is legible on a phone in dark."""
    context = await browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme="dark", locale="zh-CN"
    )
    tab = await context.new_page()
    complaints: list[str] = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))

    await tab.goto(stage.url + path)

    await keep_screenshot(tab, f"problem-{name}")
    assert await tab.locator("h1").count() == 1
    assert name in await tab.content()
    assert await tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert complaints == []
