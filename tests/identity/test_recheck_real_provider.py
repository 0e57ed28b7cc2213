"""Asking again against the real OpenID provider that Tailchat runs, npm's oidc-provider 7.11.5."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from gatekit import (
    Clock,
    RawUpstream,
    Response,
    RunningGate,
    ask,
    elsewhere,
    make_settings,
    request_bytes,
    until,
)
from gatekit import running_gate as running
from openid_provider_process import OpenIdProvider, openid_provider
from process import free_port
from recheckkit import DAY, HOSHINO, HOUR, INTERVAL, OFFLINE, answered, kept_cookie, record_in
from storykit import CLIENT_ID, CLIENT_SECRET, gate_app
from visitor import Visitor

from tailchat_gate.config.model import Settings
from tailchat_gate.identity.sessions.record import SessionRecord

# The first run installs the provider's packages.
pytestmark = pytest.mark.timeout(300)


@dataclass
class Place:
    """The provider, and the port that is registered for the gate."""

    provider: OpenIdProvider
    port: int


@pytest.fixture
def place() -> Iterator[Place]:
    """Run a provider of its own for each test, because its clock only goes forward."""
    port = free_port()
    with openid_provider(apps=[gate_app(port)]) as provider:
        yield Place(provider, port)


@dataclass
class Scene:
    """A gate before a recording tool, the provider behind it, and one clock for both."""

    gate: RunningGate
    place: Place
    cookie: str = ""

    async def sign_in(self) -> None:
        """Sign in through the provider's own pages."""
        url = f"http://127.0.0.1:{self.place.port}"
        async with Visitor() as visitor:
            page = await visitor.sign_in(f"{url}/", HOSHINO.email, HOSHINO.password)
            assert (page.status, page.url) == (200, f"{url}/")
            self.cookie = f"tailchat_gate={visitor.cookies(url)['tailchat_gate']}"

    async def advance(self, seconds: int) -> None:
        """Put both clocks forward."""
        await asyncio.to_thread(self.place.provider.advance, seconds)
        self.gate.clock.now += seconds

    async def get(self) -> Response:
        """Ask for something with the last cookie, and keep the one that comes back."""
        host = f"127.0.0.1:{self.place.port}"
        response = await ask(self.gate.port, request_bytes(host=host, Cookie=self.cookie))
        self.cookie = kept_cookie(response) or self.cookie
        return response

    @property
    def record(self) -> SessionRecord:
        """What the cookie holds."""
        return record_in(self.gate, self.cookie)

    def stores(self, sid: str) -> bool:
        """Whether the gate has read a session from its store."""
        return self.gate.generation.process_state.stored_sessions.get(sid) is not None

    def calls(self, call: str) -> dict[str, int]:
        """Return how often Tailchat was called so, by outcome."""
        counted = self.gate.generation.process_state.metrics._tailchat
        return {outcome: count for (name, outcome), count in counted.items() if name == call}


async def _scene(
    place: Place, upstream: RawUpstream, log: Path, scope: str
) -> AsyncIterator[Scene]:
    settings = _settings(place, upstream, scope)
    async with running(settings, log, Clock(time.time())) as gate:
        yield Scene(gate, place)


def _settings(
    place: Place, upstream: RawUpstream, scope: str, **further: Mapping[str, object]
) -> Settings:
    return make_settings(
        upstream.url,
        server={
            "public_url": f"http://127.0.0.1:{place.port}",
            "listen": [f"127.0.0.1:{place.port}"],
        },
        tailchat={
            # Another name than the gate's, as cookies ignore ports.
            "api_url": f"http://localhost:{urlsplit(place.provider.url).port}",
            "issuer": place.provider.issuer,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "scope": scope,
        },
        session={"recheck": "15m", "lifetime": "30d"},
        **further,
    )


@pytest.fixture
async def offline(place: Place, upstream: RawUpstream, tmp_path: Path) -> AsyncIterator[Scene]:
    """Return a setting with offline_access."""
    async for found in _scene(place, upstream, tmp_path / "access.log", OFFLINE):
        yield found


@pytest.fixture
async def online(place: Place, upstream: RawUpstream, tmp_path: Path) -> AsyncIterator[Scene]:
    """Return a setting without offline_access."""
    async for found in _scene(place, upstream, tmp_path / "access.log", "openid profile"):
        yield found


async def test_a_session_is_confirmed_and_refreshed(offline: Scene) -> None:
    """A consent page later the provider gives a refresh token, and takes it after the hour."""
    await offline.sign_in()
    first = offline.record
    assert "" not in {first.access_token, first.refresh_token}
    await offline.advance(INTERVAL)
    assert (await offline.get()).status == 200
    await answered(offline.gate)
    await offline.get()
    assert offline.record.access_token == first.access_token
    assert offline.record.checked_at > first.checked_at

    await offline.advance(HOUR)
    assert (await offline.get()).status == 200
    assert offline.record.access_token != first.access_token
    assert offline.record.refresh_token == first.refresh_token
    assert (offline.calls("refresh"), offline.calls("recheck")) == ({"ok": 1}, {"ok": 2})


async def test_a_refresh_token_is_rotated_late(offline: Scene) -> None:
    """After ten of its 14 days another refresh token comes, and is the one that is sent next."""
    await offline.sign_in()
    first = offline.record
    await offline.advance(10 * DAY)
    assert (await offline.get()).status == 200
    second = offline.record
    assert second.refresh_token not in {"", first.refresh_token}
    await offline.advance(2 * HOUR)

    assert (await offline.get()).status == 200
    assert offline.record.access_token != second.access_token
    assert offline.record.refresh_token == second.refresh_token
    assert (offline.calls("refresh"), offline.calls("recheck")) == ({"ok": 2}, {"ok": 2})


async def test_the_grant_ends_after_14_days(offline: Scene) -> None:
    """The provider forgets the consent, says so, and the session ends."""
    await offline.sign_in()
    await offline.advance(13 * DAY)
    assert (await offline.get()).status == 200
    await offline.advance(DAY)
    response = await offline.get()

    assert (response.status, response.json["error"]) == (401, "session-revoked")
    assert offline.calls("refresh") == {"ok": 1, "session-revoked": 1}


async def test_without_offline_access_the_hour_is_the_end(online: Scene) -> None:
    """The access token alone is good for an hour; the provider then refuses it in so many words."""
    await online.sign_in()
    assert online.record.refresh_token == ""
    await online.advance(HOUR - 60)
    assert (await online.get()).status == 200
    await online.advance(60 + INTERVAL)
    assert (await online.get()).status == 200
    await answered(online.gate)
    response = await online.get()

    assert (response.status, response.json["error"]) == (401, "session-revoked")
    assert online.calls("recheck") == {"ok": 1, "session-revoked": 1}


async def test_two_gates_spend_a_refresh_token_once(
    place: Place, upstream: RawUpstream, tmp_path: Path
) -> None:
    """Both recheck one session at once, late in the token's life: one asks, both have the answer.

    A cookie of the sign-in that comes to either of them later is served, too.
    """
    state = {"path": str(tmp_path)}
    settings = _settings(place, upstream, OFFLINE, state=state)
    clock = Clock(time.time())
    async with (
        running(settings, tmp_path / "1.log", clock) as first,
        running(elsewhere(settings), tmp_path / "2.log", clock) as second,
    ):
        one = Scene(first, place)
        await one.sign_in()
        two = Scene(second, place, one.cookie)
        begun = one.record
        await one.advance(10 * DAY)
        answers = await asyncio.gather(one.get(), two.get())
        assert [answer.status for answer in answers] == [200, 200]
        assert one.record.refresh_token == two.record.refresh_token != begun.refresh_token
        assert _sum(one, two, "refresh") == {"ok": 1}
        # These two hours pass in less time than a look at the store takes.
        await until(lambda: all(scene.stores(begun.sid) for scene in (one, two)))

        await one.advance(2 * HOUR)
        assert (await two.get()).status == 200
        old = Scene(first, place, first.seal(begun))
        one.gate.generation.process_state.tailchat.sign_ins._known.clear()
        assert (await old.get()).status == 200
        assert _sum(one, two, "refresh") == {"ok": 2}


def _sum(one: Scene, two: Scene, call: str) -> dict[str, int]:
    return dict(Counter(one.calls(call)) + Counter(two.calls(call)))
