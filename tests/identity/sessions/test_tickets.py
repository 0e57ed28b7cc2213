"""Sessions in the store: short cookies, several gates, a store that is away, and the switch."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from gatekit import (
    SUB,
    Clock,
    Response,
    RunningGate,
    ask,
    elsewhere,
    request_bytes,
    running_gate,
    until,
)
from recheckkit import BOB, HOSHINO, INTERVAL, OFFLINE, answered, at_tool, kept_cookie
from rediskit import RedisServer, redis_server
from reloadkit import file_text, sections
from storykit import Story, story
from visitor import Visitor

from tailchat_gate.cli import main
from tailchat_gate.demo.users import User
from tailchat_gate.identity.sessions import stored as stored_sessions
from tailchat_gate.identity.sessions.browser_name import browser_name
from tailchat_gate.identity.sessions.stored import (
    MOST_OF_ONE,
    SEEN_SECONDS,
    StoredSession,
    StoredSessions,
)
from tailchat_gate.serving.wiring.build import build
from tailchat_gate.state.bookkeeping import DatabaseStore
from tailchat_gate.state.memory import MemoryStore

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
)


@dataclass
class Place:
    """Two gates over one store; people sign in at the first."""

    scene: Story
    second: RunningGate

    async def sign_in(self, agent: str = FIREFOX, user: User = HOSHINO) -> str:
        """Sign in with a browser of that name; return its cookie."""
        async with self.scene.visitor() as visitor:
            return await self.sign_in_with(visitor, agent, user)

    async def sign_in_with(
        self, visitor: Visitor, agent: str = FIREFOX, user: User = HOSHINO
    ) -> str:
        """Sign in with an open browser, which gets that name."""
        visitor.session.headers["User-Agent"] = agent
        page = await visitor.sign_in(f"{self.scene.url}/", user.email, user.password)
        assert (page.status, page.url) == (200, f"{self.scene.url}/")
        return at_tool(self.scene, visitor).cookie

    async def get(self, cookie: str, gate: RunningGate | None = None) -> Response:
        """Ask a gate for the tool, the first one by default."""
        return await ask((gate or self.scene.gate).port, request_bytes(Cookie=cookie))

    def stored(self, gate: RunningGate | None = None) -> StoredSessions:
        """Return the sessions that a gate knows."""
        return (gate or self.scene.gate).generation.process_state.stored_sessions


@asynccontextmanager
async def place_at(tmp_path: Path, clock: Clock, **state: str) -> AsyncIterator[Place]:
    """Run both gates with their state there."""
    session = {"store": True, "recheck": "15m", "lifetime": "13d"}
    async with story(
        tmp_path / "1.log",
        clock,
        session=session,
        state=state,
        tailchat={"scope": OFFLINE, "people_refresh": "0"},
    ) as scene:
        settings = elsewhere(scene.gate.generation.settings)
        async with running_gate(settings, tmp_path / "2.log", clock) as second:
            yield Place(scene, second)


@pytest.fixture
async def place(tmp_path: Path, clock: Clock) -> AsyncIterator[Place]:
    """Two gates over one SQLite file."""
    async with place_at(tmp_path, clock, path=str(tmp_path)) as found:
        yield found


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    """A Redis of the test's own."""
    async with redis_server() as found:
        yield found


def _told(response: Response) -> tuple[int, str]:
    return response.status, "" if response.status == 200 else response.json["error"]


# A ticket.


async def test_a_ticket_is_short_and_says_nothing(place: Place) -> None:
    """The cookie holds neither tokens nor names, and opens the tool with both known."""
    cookie = await place.sign_in()
    assert len(cookie) < 256
    assert (await place.get(cookie)).status == 200
    assert b"Hoshino" in (place.scene.tool.requests[-1].value("X-Tailchat-Nickname") or b"")


async def test_the_next_gate_knows_a_session_at_once(place: Place) -> None:
    """A request that comes to another gate right after the sign-in waits for the store alone."""
    cookie = await place.sign_in()
    response = await place.get(cookie, place.second)

    assert response.status == 200
    assert place.scene.tailchat.seen["token"].count == 1


async def test_signing_out_ends_a_session_everywhere_and_erases_it(place: Place) -> None:
    """Within half a second at the other gate; what is stored of it holds no content any more."""
    async with place.scene.visitor() as visitor:
        cookie = await place.sign_in_with(visitor)
        assert (await place.get(cookie, place.second)).status == 200
        (session,) = place.stored().of(HOSHINO.sub)
        page = await visitor.open(f"{place.scene.url}/oauth2/sign_out")
        await visitor.submit(page, "/oauth2/sign_out")

    assert _told(await place.get(cookie)) == (401, "session-ended")
    await until(lambda: place.stored(place.second).get(session.sid) is None)
    assert _told(await place.get(cookie, place.second)) == (401, "session-ended")
    kept = {record.key: record for record in place.stored(place.second).known(lost=True)}
    assert json.loads(kept[session.sid].body)["sealed"] == ""


async def test_what_tailchat_says_reaches_every_gate(place: Place) -> None:
    """A recheck at one gate is stored, and no cookie is set for it."""
    cookie = await place.sign_in()
    place.scene.tailchat.store.rename(HOSHINO.sub, "Renamed")
    place.scene.clock.now += INTERVAL
    await place.get(cookie)
    await answered(place.scene.gate)
    response = await place.get(cookie)
    assert response.values("Set-Cookie") == []
    checked = int(place.scene.clock())
    known = place.stored(place.second)
    await until(lambda: [one.checked for one in known.of(HOSHINO.sub)] == [checked])

    assert (await place.get(cookie, place.second)).status == 200
    assert place.scene.tool.requests[-1].value("X-Tailchat-Nickname") == b"Renamed"


async def test_a_request_asks_the_store_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session in use is in memory: neither the store nor the stored sessions are consulted."""
    cookie = await place.sign_in()
    await place.get(cookie)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the store was asked")

    for name in ("get", "note_use", "put"):
        monkeypatch.setattr(StoredSessions, name, fail)
    assert [(await place.get(cookie)).status for _ in range(3)] == [200] * 3


async def test_the_last_use_is_written_now_and_then(place: Place) -> None:
    """A session in use is noted every five minutes, for its owner's list."""
    store = place.scene.gate.generation.process_state.store
    assert isinstance(store, DatabaseStore)
    # It takes what is unsaved every five seconds.
    store._upkeep._save_at = math.inf
    cookie = await place.sign_in()
    stored = place.stored()
    place.scene.clock.now += SEEN_SECONDS
    await place.get(cookie)
    assert [json.loads(one.body)["seen"] for one in stored.unsaved(last=False)] == [
        int(place.scene.clock())
    ]
    place.scene.clock.now += SEEN_SECONDS - 1
    await place.get(cookie)
    assert not stored.unsaved(last=False)


def test_one_person_has_so_many_sessions(clock: Clock) -> None:
    """One more ends the one that was used longest ago, in the store as well."""
    stored = StoredSessions(MemoryStore(clock), clock)

    async def sign_in(number: int) -> None:
        now = int(clock()) + number
        await stored.put(StoredSession(f"s{number}", SUB, now + 900, now, now, sealed="x"))

    for number in range(MOST_OF_ONE + 2):
        asyncio.run(sign_in(number))

    assert len(stored.of(SUB)) == MOST_OF_ONE
    ended = [one.key for one in stored.known(lost=True) if json.loads(one.body)["sealed"] == ""]
    assert ended == ["s0", "s1"]


async def test_signing_in_again_and_again_pushes_out_nobody(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of ended sessions makes room first, in memory and in the store."""
    monkeypatch.setattr(stored_sessions, "MOST", 200)
    stored = StoredSessions(MemoryStore(clock), clock)
    until, began = int(clock.now) + 3600, int(clock.now)
    for number in range(300):
        if number < 50:
            # The others sign in once, and before most of it.
            times = (until, began, began)
            stored.put(StoredSession(f"other-{number}", f"sub-{number}", *times, sealed="x"))
        stored.put(StoredSession(f"one-{number}", SUB, until, began, began + number, sealed="x"))
    records = list(stored.known(lost=True))
    records += [replace(one, key=f"more {one.key}") for one in records if '"sealed":""' in one.body]

    assert sum(stored.get(f"other-{number}") is not None for number in range(50)) == 50
    assert len(stored) == 200
    left = {record.key for record in StoredSessions.kind.compact(records)}
    assert len(left) == 200
    assert left >= {f"other-{number}" for number in range(50)}


def test_an_ended_session_does_not_come_back(clock: Clock) -> None:
    """A process that writes late, with a newer state, revives nothing."""
    live = StoredSession("s", SUB, 900, 0, 0, "Firefox", 7, 7, "sealed")
    late = replace(live, tokens=9, checked=9)
    kind = StoredSessions.kind
    for old, new in ((live.ended(), late), (late, live.ended())):
        merged = kind.merge(old.to_record(), new.to_record())
        assert StoredSession.from_record(merged) == live.ended()


# The store is away.


async def test_known_sessions_go_on_without_redis(
    server: RedisServer, tmp_path: Path, clock: Clock
) -> None:
    """Who is known is served; who is not gets 503 and no sign-in, and is served once it is back."""
    async with place_at(tmp_path, clock, url=server.place.url, path="") as place:
        known, unknown = await place.sign_in(), ""
        await until(lambda: len(place.stored(place.second).of(HOSHINO.sub)) == 1)
        assert (await place.get(known, place.second)).status == 200
        await server.stop()
        faults = place.second.generation.process_state.store
        await until(lambda: bool(faults.faults))
        # The first gate signs people in; the second cannot know of them.
        unknown = await place.sign_in(user=BOB)
        assert (await place.get(unknown)).status == 200
        assert (await place.get(known, place.second)).status == 200
        refused = await place.get(unknown, place.second)
        assert _told(refused) == (503, "session-store-away")
        assert refused.value("Retry-After") == "5"
        await server.start()
        await until(lambda: not faults.faults)
        await until(lambda: len(place.stored(place.second).of(BOB.sub)) == 1)

        assert (await place.get(unknown, place.second)).status == 200


# The switch.


async def _switch(place: Place, *, store: bool) -> None:
    before = place.scene.gate.generation
    session = before.settings.session.model_copy(update={"store": store})
    settings = before.settings.model_copy(update={"session": session})
    await place.scene.gate.server.swap(
        await asyncio.to_thread(build, settings, before.process_state)
    )


async def test_a_switch_moves_sessions_over(place: Place) -> None:
    """Nobody signs in again: the next request gets a cookie of the other kind, both ways."""
    ticket = await place.sign_in()
    await _switch(place, store=False)
    response = await place.get(ticket)
    assert response.status == 200
    whole = kept_cookie(response)
    assert len(whole) > 2 * len(ticket)
    assert (await place.get(whole)).values("Set-Cookie") == []

    await _switch(place, store=True)
    response = await place.get(whole)
    assert response.status == 200
    again = kept_cookie(response)
    assert len(again) < 256
    assert (await place.get(again)).values("Set-Cookie") == []
    assert (await place.get(again, place.second)).status == 200


async def test_memory_alone_is_refused(tmp_path: Path) -> None:
    """A store that forgets at a restart cannot hold sessions, and the file says which key."""
    config = tmp_path / "gate.toml"
    tables = sections("http://127.0.0.1:9", session={"store": True})
    await asyncio.to_thread(config.write_text, file_text(tables), "utf-8")
    config.chmod(0o600)
    done = await asyncio.to_thread(CliRunner().invoke, main, ["check", "-c", str(config)])

    assert done.exit_code == 2
    assert "error: session.store: " in done.output
    assert "= expected: state.path or state.url, not memory" in done.output


# Seeing and ending them.


async def test_a_person_ends_another_sign_in(place: Place) -> None:
    """The page shows both browsers; its form ends the other one alone, and needs no script."""
    phone = await place.sign_in(IPHONE)
    other = await place.sign_in(user=BOB)
    async with place.scene.visitor() as visitor:
        here = await place.sign_in_with(visitor)
        page = await visitor.open(f"{place.scene.url}/oauth2/userinfo")
        assert "Safari, iPhone" in page.text
        assert "Firefox, Linux" in page.text
        assert page.text.count('name="session"') == 1
        (sid,) = [
            one.sid for one in place.stored().of(HOSHINO.sub) if one.browser == "Safari, iPhone"
        ]
        (form,) = [form for form in page.forms if form.action == "/oauth2/sign_out"][:1]
        fields = {"csrf": form.fields["csrf"], "session": sid}
        url = f"{place.scene.url}/oauth2/sign_out"
        after = await visitor.open(url, method="POST", data=fields)

        assert after.url.startswith(f"{place.scene.url}/oauth2/userinfo?said=")
        assert "the sign-in in <bdi>Safari, iPhone</bdi> has ended" in after.text
        assert "Safari, iPhone" not in after.text[after.text.index("<dl>") :]
        # Not one of somebody else.
        (bobs,) = place.stored().of(BOB.sub)
        data = {**fields, "session": bobs.sid}
        assert "Nothing has changed" in (await visitor.open(url, method="POST", data=data)).text
        # Nor by a form of another page.
        forged = {"session": sid, "csrf": "x"}
        refused = await visitor.open(url, method="POST", data=forged)
        assert refused.url == url

    assert _told(await place.get(phone)) == (401, "session-ended")
    assert [(await place.get(cookie)).status for cookie in (here, other)] == [200, 200]


def _run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.output


async def test_the_command_lists_and_ends(place: Place, tmp_path: Path) -> None:
    """`sessions` shows everybody's or one person's, without a secret; `sessions end` ends one."""
    phone, bobs = await place.sign_in(IPHONE), await place.sign_in(user=BOB)
    state = ("--state", str(tmp_path))
    code, text = await asyncio.to_thread(_run, "sessions", f"sub:{HOSHINO.sub}", "--json", *state)
    (listed,) = json.loads(text)
    assert (code, listed["sub"], listed["browser"]) == (0, HOSHINO.sub, "Safari, iPhone")
    assert listed.keys() == {"id", "sub", "browser", "signed_in_at", "seen_at", "until"}
    code, text = await asyncio.to_thread(_run, "sessions", *state)
    assert code == 0
    assert f"sub:{BOB.sub}" in text
    assert await asyncio.to_thread(_run, "sessions", "end", listed["id"], *state) == (
        0,
        f"ended: {listed['id']} of sub:{HOSHINO.sub}\n",
    )
    state_of = place.scene.gate.generation.process_state
    await until(lambda: place.stored().get(listed["id"]) is None)
    assert _told(await place.get(phone)) == (401, "session-ended")
    assert (await place.get(bobs)).status == 200
    assert state_of.revocation.version
    code, text = await asyncio.to_thread(_run, "sessions", "end", "nobody", *state)
    assert code == 1


async def test_forgetting_a_person_ends_their_sessions(place: Place, tmp_path: Path) -> None:
    """Nothing of them is left in the store, and a ticket to them opens nothing."""
    cookie, bobs = await place.sign_in(), await place.sign_in(user=BOB)
    assert (await place.get(cookie)).status == 200
    target, state = f"sub:{HOSHINO.sub}", ("--state", str(tmp_path))
    code, text = await asyncio.to_thread(_run, "forget", target, *state)
    assert code == 0
    assert "erased: a session of" in text
    await until(lambda: not place.stored().of(HOSHINO.sub))

    assert (await place.get(cookie)).status == 401
    assert (await place.get(bobs)).status == 200
    code, text = await asyncio.to_thread(_run, "forget", target, "--list", *state)
    assert "session" not in text


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (FIREFOX, "Firefox, Linux"),
        (IPHONE, "Safari, iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/120 Safari/537.36 Edg/120", "Edge, Windows"),
        ("curl/8.5.0", ""),
        ("", ""),
    ],
)
def test_a_browser_in_words(agent: str, name: str) -> None:
    """A person recognises it; a program has no name."""
    assert browser_name(agent) == name


async def test_only_what_may_be_lost_is_written_again(clock: Clock) -> None:
    """After a fault of a write the sessions of the last seconds are; all if everything is lost."""
    stored = StoredSessions(MemoryStore(clock), clock)
    for number in range(3):
        await stored.put(StoredSession(f"s{number}", SUB, int(clock()) + 900, 0, 0, sealed="x"))
        if number < 2:
            stored.unsaved(last=False)

    assert sorted(one.key for one in stored.known(lost=False)) == ["s1", "s2"]
    assert len(tuple(stored.known(lost=True))) == 3
