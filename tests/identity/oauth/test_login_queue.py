"""Strangers' sign-ins keep nobody from Tailchat: few at once, each client in its turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from gatekit import Clock, Response, ask, login_cookie, request_bytes, until
from recheckkit import INTERVAL, asked, at_tool, rechecked
from storykit import HOSHINO, Story, story, until_callback

from tailchat_gate.demo.faults import Hang
from tailchat_gate.identity.oauth import login_queue as module
from tailchat_gate.identity.oauth.login_queue import (
    AT_ONCE,
    FOR_FIRST,
    OF_ONE,
    WAITING_OF_ONE,
    LoginBusy,
    LoginQueue,
)

PROXY = {"trusted_proxies": ["127.0.0.1"]}


@pytest.fixture
async def scene(tmp_path: Path, clock: Clock) -> AsyncIterator[Story]:
    """Return the setting of a login behind a proxy that names the visitors."""
    async with story(tmp_path / "access.log", clock, server=PROXY) as found:
        yield found


async def _made_up(scene: Story, address: str, code: str = "made-up") -> Response:
    """Begin a login as a stranger and come back with a code of one's own making."""
    sent = {"X_Forwarded_For": address}
    begun = await ask(scene.gate.port, request_bytes("/oauth2/start?rd=/x", **sent))
    state = parse_qs(urlsplit(begun.value("Location")).query)["state"][0]
    iss = scene.gate.generation.settings.tailchat.api_url
    target = f"/oauth2/callback?code={code}&state={state}&iss={iss}"
    cookie = login_cookie(begun)
    return await ask(scene.gate.port, request_bytes(target, Cookie=cookie, **sent))


async def test_a_callback_whose_state_does_not_open_asks_tailchat_nothing(scene: Story) -> None:
    """A state of somebody's own making, or of another browser, costs Tailchat no call."""
    begun = await ask(scene.gate.port, request_bytes("/oauth2/start?rd=/x"))
    state = parse_qs(urlsplit(begun.value("Location")).query)["state"][0]
    for made_up in ("x", state[:-1], state):
        response = await ask(
            scene.gate.port, request_bytes(f"/oauth2/callback?code=c&state={made_up}&iss=i")
        )
        assert response.status == 400

    seen = scene.tailchat.seen
    assert [seen[call].count for call in ("discovery", "jwks", "token", "me")] == [0] * 4


async def test_strangers_do_not_keep_a_person_from_signing_in(scene: Story) -> None:
    """With 150 made-up callbacks of one address under way, another's sign-in succeeds."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/mine")
        hang = scene.tailchat.faults.token = Hang()
        strangers = [
            asyncio.create_task(_made_up(scene, "203.0.113.9")) for _ in range(WAITING_OF_ONE + 50)
        ]
        login_queue = scene.gate.generation.process_state.login_queue
        await until(lambda: sum(s.done() for s in strangers) == 50 - OF_ONE)
        assert (login_queue.asking, login_queue.waiting) == (OF_ONE, WAITING_OF_ONE)
        refused = [stranger.result() for stranger in strangers if stranger.done()]
        assert {(r.status, r.json["error"], r.value("Retry-After")) for r in refused} == {
            (503, "login-busy", "10")
        }
        scene.tailchat.faults.token = None
        page = await visitor.open(callback)
        assert (page.status, page.url) == (200, f"{scene.url}/mine")

        hang.release()
        rest = await asyncio.gather(*strangers)
    assert {r.json["error"] for r in rest} == {"login-busy", "login-code-refused"}
    assert (login_queue.asking, login_queue.waiting) == (0, 0)


HANDFULS = {
    "IPv4": ([f"203.0.113.{number}" for number in range(4)], AT_ONCE - FOR_FIRST + 4),
    "/64s of one /48": ([f"2001:db8:7:{number}::1" for number in range(4)], OF_ONE),
    "/48s": ([f"2001:db8:{number}::1" for number in range(1, 5)], AT_ONCE - FOR_FIRST + 4),
}


@pytest.mark.parametrize(("addresses", "most"), HANDFULS.values(), ids=HANDFULS)
async def test_a_handful_of_addresses_cannot_take_all_turns(
    scene: Story, addresses: list[str], most: int
) -> None:
    """Four strangers with twenty callbacks each leave turns for a person of another address."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/mine")
        hang = scene.tailchat.faults.token = Hang()
        strangers = [
            asyncio.create_task(_made_up(scene, address))
            for address in addresses
            for _ in range(20)
        ]
        login_queue = scene.gate.generation.process_state.login_queue
        await until(lambda: login_queue.asking + login_queue.waiting == len(strangers))
        assert login_queue.asking <= most
        scene.tailchat.faults.token = None
        page = await visitor.open(callback)
        assert (page.status, page.url) == (200, f"{scene.url}/mine")

        hang.release()
        await asyncio.gather(*strangers)


async def test_who_leaves_while_waiting_leaves_the_line(tmp_path: Path, clock: Clock) -> None:
    """Strangers whose connections end in the line have no turn, and Tailchat no call of theirs."""
    server = {**PROXY, "half_closed_timeout": "0"}
    async with story(tmp_path / "access.log", clock, server=server) as scene:
        hang = scene.tailchat.faults.token = Hang()
        strangers = [
            asyncio.create_task(_made_up(scene, "203.0.113.9")) for _ in range(OF_ONE + 20)
        ]
        login_queue = scene.gate.generation.process_state.login_queue
        await until(lambda: (login_queue.asking, login_queue.waiting) == (OF_ONE, 20))
        for stranger in strangers:
            stranger.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)
        await until(lambda: not login_queue.waiting)

        assert login_queue.asking == OF_ONE
        hang.release()
        await until(lambda: not login_queue.asking)
        assert scene.tailchat.seen["token"].count == OF_ONE


async def test_a_full_line_has_room_for_who_has_nobody_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the line is full, the client with the longest part of it is turned away, not a new."""
    monkeypatch.setattr(module, "WAITING", 6)
    login_queue = LoginQueue()
    firsts = [f"c{number}" for number in range(AT_ONCE)]
    async with _held(login_queue, *firsts, *["many"] * 4, *["few"] * 2) as tasks:
        new = asyncio.create_task(_passing(login_queue, "new"))
        await until(tasks[AT_ONCE + 3].done)
        with pytest.raises(LoginBusy):
            tasks[AT_ONCE + 3].result()
        for client in ("many", "few"):
            with pytest.raises(LoginBusy):
                await _passing(login_queue, client)
        assert (login_queue.asking, login_queue.waiting) == (AT_ONCE, 6)
        tasks[0].cancel()
        tasks[1].cancel()
        tasks[2].cancel()
        await new


async def _passing(login_queue: LoginQueue, client: str) -> None:
    async with login_queue.turn(client):
        pass


async def test_strangers_do_not_keep_rechecks_from_tailchat(tmp_path: Path, clock: Clock) -> None:
    """While as many logins as may ask Tailchat, a session is confirmed beside them."""
    async with rechecked(tmp_path / "access.log", clock, outage="sign-in") as scene:
        async with scene.visitor() as visitor:
            await visitor.sign_in(f"{scene.url}/", HOSHINO.email, HOSHINO.password)
            person = at_tool(scene, visitor)
        hang = scene.tailchat.faults.token = Hang()
        strangers = [
            asyncio.create_task(_made_up(scene, f"203.0.113.{number}"))
            for number in range(AT_ONCE + 8)
        ]
        login_queue = scene.gate.generation.process_state.login_queue
        await until(lambda: login_queue.waiting == 8)
        before = asked(scene)
        scene.clock.now += INTERVAL

        assert (await person.get()).status == 200
        await until(lambda: asked(scene) == before + 1)
        hang.release()
        await asyncio.gather(*strangers)


async def test_a_login_that_was_busy_may_come_again(
    scene: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A visitor who got no turn comes back with the same code, which was never sent."""
    async with scene.visitor() as visitor:
        callback = await until_callback(visitor, scene, "/mine")
        monkeypatch.setattr(module, "WAITING_OF_ONE", 0)
        monkeypatch.setattr(module, "OF_ONE", 0)
        busy = await visitor.open(callback)
        assert (busy.status, busy.headers["Retry-After"]) == (503, "10")
        assert "login-busy" in busy.text
        assert "/oauth2/start?rd=/mine" in busy.text
        monkeypatch.undo()

        page = await visitor.open(callback)
    assert (page.status, page.url) == (200, f"{scene.url}/mine")
    assert scene.tailchat.seen["token"].count == 1


@asynccontextmanager
async def _held(
    login_queue: LoginQueue, *clients: str
) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Hold or await a turn for each client until the block ends."""
    free = asyncio.Event()

    async def hold(client: str) -> None:
        async with login_queue.turn(client):
            await free.wait()

    tasks = [asyncio.create_task(hold(client)) for client in clients]
    await until(lambda: login_queue.asking + login_queue.waiting == len(clients))
    yield tasks
    free.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (login_queue.asking, login_queue.waiting, login_queue._waiting) == (0, 0, {})


async def test_it_is_one_clients_turn_after_the_others() -> None:
    """A client with many logins lets one with few go first, each time."""
    login_queue = LoginQueue()
    order: list[str] = []
    async with _held(login_queue, *(f"c{number}" for number in range(AT_ONCE))) as holders:

        async def ask_as(client: str) -> None:
            async with login_queue.turn(client):
                order.append(client)

        waiting = [asyncio.create_task(ask_as("many")) for _ in range(5)]
        await until(lambda: login_queue.waiting == 5)
        waiting.append(asyncio.create_task(ask_as("one")))
        await until(lambda: login_queue.waiting == 6)
        holders[0].cancel()
        await asyncio.gather(*waiting)

    assert order == ["many", "one", "many", "many", "many", "many"]


async def test_who_gives_up_leaves_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is cancelled, or waits too long, leaves nothing behind, and no turn is lost."""
    login_queue = LoginQueue()
    async with _held(login_queue, *["one"] * (OF_ONE + 3)) as tasks:
        tasks[-1].cancel()
        await until(lambda: login_queue.waiting == 2)
        monkeypatch.setattr(module, "WAITING_SECONDS", 0.01)
        with pytest.raises(LoginBusy):
            async with login_queue.turn("one"):
                pass
        assert (login_queue.asking, login_queue.waiting) == (OF_ONE, 2)
        async with login_queue.turn("another"):
            assert login_queue.asking == OF_ONE + 1


async def test_a_turn_that_is_given_and_given_up_at_once_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A login that is cancelled at the moment of its turn passes it on."""
    monkeypatch.setattr(module, "OF_ONE", 1)
    login_queue = LoginQueue()
    async with _held(login_queue, "one", "one", "one") as tasks:
        tasks[0].cancel()
        await until(lambda: bool(login_queue.waiting < 2))
        tasks[1].cancel()
        await until(lambda: not login_queue.waiting)
        assert login_queue.asking == 1
