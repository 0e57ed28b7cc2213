"""Logins against the real OpenID provider that Tailchat runs, npm's oidc-provider 7.11.5."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest
from accounts import user_named
from gatekit import Clock, RawUpstream, RunningGate, make_settings, running_gate
from openid_provider_process import OpenIdProvider, openid_provider
from parts import in_browser, keep_screenshot
from playwright.async_api import Browser, expect
from process import free_port
from storykit import CLIENT_ID, CLIENT_SECRET, gate_app, served
from visitor import Visitor

from tailchat_gate.demo.tool import SampleTool
from tailchat_gate.demo.users import USERS, User

# The first run installs the provider's packages.
pytestmark = pytest.mark.timeout(300)

HOSHINO = user_named("hoshino")
#: As a real Tailchat's API_URL need not be where it is reached.
ISSUER = "https://chat.example.com/"


@dataclass
class Place:
    """The provider, and the port that is registered for the gate."""

    provider: OpenIdProvider
    port: int

    @property
    def url(self) -> str:
        """The gate's public URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        """Where the provider is reached; another name than the gate's, as cookies ignore ports."""
        return self.provider.url.replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Run the provider once for all tests of this file."""
    port = free_port()
    with openid_provider(apps=[gate_app(port)], issuer=ISSUER) as provider:
        yield Place(provider, port)


async def _gate(place: Place, upstream: str, log_file: Path) -> AsyncIterator[RunningGate]:
    settings = make_settings(
        upstream,
        server={"public_url": place.url, "listen": [f"127.0.0.1:{place.port}"]},
        tailchat={
            "api_url": place.api_url,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
        },
    )
    # The real time, because the provider's clock cannot be set.
    async with running_gate(settings, log_file, Clock(time.time())) as found:
        yield found


@pytest.fixture
async def recording(
    place: Place, upstream: RawUpstream, tmp_path: Path
) -> AsyncIterator[RunningGate]:
    """Serve the gate before a recording tool."""
    async for found in _gate(place, upstream.url, tmp_path / "access.log"):
        yield found


def _lose_session(visitor: Visitor) -> None:
    """Forget the gate's session, as its end would; the provider's stays."""
    visitor.session.cookie_jar.clear(lambda cookie: cookie.key == "tailchat_gate")


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
async def test_a_login_ends_at_the_tool(
    recording: RunningGate, place: Place, upstream: RawUpstream, user: User
) -> None:
    """Login and consent of the real provider end at the tool with the sub and clean headers."""
    async with Visitor() as visitor:
        page = await visitor.sign_in(f"{place.url}/deep?x=%2F", user.email, user.password)

    assert (page.status, page.url) == (200, f"{place.url}/deep?x=%2F")
    received = upstream.requests[-1]
    assert received.value("X-Tailchat-Sub") == user.sub.encode()
    assert received.values("X-Evil") == []
    for name, value in received.fields:
        assert all(0x20 <= octet < 0x7F for octet in value), (name, value)
    if user is HOSHINO:
        nickname = (received.value("X-Tailchat-Nickname") or b"").decode()
        assert unquote(nickname) == "星野 Hoshino ☆"
        assert (received.value("X-Tailchat-Avatar") or b"").startswith(place.api_url.encode())


async def test_the_second_login_is_silent_and_prompt_login_is_not(
    recording: RunningGate, place: Place
) -> None:
    """Once consented, a new login passes without a page; prompt=login asks for the password."""
    async with Visitor() as visitor:
        await visitor.sign_in(place.url, HOSHINO.email, HOSHINO.password)
        _lose_session(visitor)
        silent = await visitor.open(f"{place.url}/again")
        asked = await visitor.open(f"{place.url}/oauth2/start?rd=/&prompt=login")

    assert (silent.status, silent.url) == (200, f"{place.url}/again")
    assert any(form.action.endswith("/login") for form in asked.forms)


async def test_a_reloaded_callback_does_not_replay_its_code(
    recording: RunningGate, place: Place, upstream: RawUpstream
) -> None:
    """A replay would revoke the grant: after a reload the next login is still silent."""
    async with Visitor() as visitor:
        page = await visitor.open(place.url + "/tool")
        page = await visitor.submit(page, "/login", email=HOSHINO.email, password=HOSHINO.password)
        page = await visitor.submit(page, "/confirm")
        callback = next(url for url in page.trail if "/oauth2/callback" in url)
        for _ in range(2):
            again = await visitor.open(callback)
            assert (again.status, again.url) == (200, place.url + "/tool")
        _lose_session(visitor)
        silent = await visitor.open(place.url + "/next")

    assert (silent.status, silent.url) == (200, place.url + "/next")


async def test_pkce_stops_a_code_in_another_login(recording: RunningGate, place: Place) -> None:
    """The provider refuses a code whose verifier is another login's."""
    callback = f"{place.url}/oauth2/callback"
    async with Visitor() as visitor:
        await visitor.sign_in(place.url, HOSHINO.email, HOSHINO.password)
        start = f"{place.url}/oauth2/start?rd=/"
        first = await visitor.open(start, stop_before=callback)
        second = await visitor.open(start, stop_before=callback)
        stolen, own = first.query["code"], second.query["code"]

        refused = await visitor.open(second.url.replace(own, stolen))

    assert (refused.status, "login-code-refused" in refused.text) == (400, True)


@in_browser
async def test_a_person_in_chromium(browser: Browser, place: Place, tmp_path: Path) -> None:
    """In a real browser the provider's own pages lead to the tool, which shows the nickname."""
    async with served(SampleTool().app()) as port:
        async for gate in _gate(place, f"http://127.0.0.1:{port}", tmp_path / "access.log"):
            tab = await (await browser.new_context()).new_page()
            await tab.goto(place.url + "/?from=link")
            await keep_screenshot(tab, "real-provider-login")
            await tab.locator("input[name=email]").fill(HOSHINO.email)
            await tab.locator("input[name=password]").fill(HOSHINO.password)
            await tab.locator("input[name=password]").press("Enter")
            await tab.locator("form[action$=confirm] button").click()

            await expect(tab.get_by_text("星野 Hoshino ☆").first).to_be_visible()
            assert tab.url == place.url + "/?from=link"
            await keep_screenshot(tab, "real-provider-tool")
            assert (await gate.log())[-1]["sub"] == HOSHINO.sub
