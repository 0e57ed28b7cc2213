"""A login is redeemed once across processes and restarts, and its reload is answered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from gatekit import (
    SECRET,
    START,
    Clock,
    cookie_value,
    elsewhere,
    running_gate,
    until,
)
from storykit import callback_at, story, until_callback

from tailchat_gate.identity.oauth import shared_redemptions
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.redemptions import (
    REPLAY_WINDOW,
    AlreadyUsed,
    Redemptions,
    TooManyLogins,
)
from tailchat_gate.identity.oauth.shared_redemptions import Codec, SharedRedemptions
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.reasons import Reason
from tailchat_gate.state import waiting
from tailchat_gate.state.bookkeeping import Health
from tailchat_gate.state.sqlite.store import SqliteStore
from tailchat_gate.state.store import Outcome, Store

EXPIRES = START + 7200
KEYS = KeyRing([SECRET.encode()], "outcome")
CODEC: Codec[str] = Codec(KEYS, str.encode, bytes.decode, lambda result: result)

States = Redemptions[str]
Make = Callable[..., Awaitable[States]]


class Redemption:
    """A redemption that counts its runs, and ends when told to."""

    def __init__(self, outcome: str | Exception = "session", *, at_once: bool = True) -> None:
        self.runs = 0
        self.begun, self.finish = asyncio.Event(), asyncio.Event()
        self._outcome = outcome
        if at_once:
            self.finish.set()

    async def __call__(self) -> str:
        """Wait for `finish`, then give the outcome."""
        self.runs += 1
        self.begun.set()
        await self.finish.wait()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@pytest.fixture
async def make(tmp_path: Path, clock: Clock) -> AsyncIterator[Make]:
    """Return a function that makes what one process knows of logins, on one store."""
    async with AsyncExitStack() as stack:

        async def make(room: int = 100) -> States:
            store: Store = SqliteStore(tmp_path, clock, Health(), busy=0.2)
            await store.open()
            stack.push_async_callback(store.close)
            return Redemptions(clock=clock, shared=SharedRedemptions(store, "login", room, clock))

        yield make


async def _redeem(states: States, redemption: Redemption, key: str = "a") -> str:
    return await states.redeem_once(key, EXPIRES, redemption, codec=CODEC)


async def test_another_process_gets_the_same_result(make: Make) -> None:
    """A reload at another process, or after a restart, is answered and redeems nothing."""
    first, again = Redemption(), Redemption("never")
    assert await _redeem(await make(), first) == "session"

    assert await _redeem(await make(), again) == "session"
    assert (first.runs, again.runs) == (1, 0)


async def test_another_process_gets_the_same_refusal(make: Make) -> None:
    """A refusal is the same with its detail, wherever the callback is reloaded."""
    refused = LoginRefused(Reason.LOGIN_CODE_REFUSED, {"call": "token"})
    with pytest.raises(LoginRefused):
        await _redeem(await make(), Redemption(refused))
    with pytest.raises(LoginRefused) as caught:
        await _redeem(await make(), Redemption("never"))

    assert caught.value.reason is Reason.LOGIN_CODE_REFUSED
    assert caught.value.detail == {"call": "token"}


async def test_another_process_waits_for_a_redemption_under_way(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that comes to another process meanwhile gets the result when it is there."""
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.01)
    running = Redemption(at_once=False)
    here, there = await make(), await make()
    first = asyncio.create_task(_redeem(here, running))
    await running.begun.wait()
    second = asyncio.create_task(_redeem(there, Redemption("never")))
    await asyncio.wait((second,), timeout=0.1)
    assert not second.done()
    running.finish.set()

    assert [await first, await second] == ["session", "session"]


async def test_after_the_window_it_was_used(make: Make, clock: Clock) -> None:
    """Later on another process knows that the state was used, and nothing else."""
    await _redeem(await make(), Redemption())
    clock.now += REPLAY_WINDOW + 1

    with pytest.raises(AlreadyUsed):
        await _redeem(await make(), Redemption("never"))


async def test_a_process_that_was_killed_in_between(make: Make, clock: Clock) -> None:
    """A code that may have been sent is not sent again, although its outcome is not known."""
    running = Redemption(at_once=False)
    first = asyncio.create_task(_redeem(await make(), running))
    await running.begun.wait()
    clock.now += shared_redemptions.TIMEOUT_SECONDS

    with pytest.raises(AlreadyUsed):
        await _redeem(await make(), Redemption("never"))
    running.finish.set()
    await first


async def test_a_process_whose_clock_is_ahead_is_not_waited_for_longer(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the other process says that it began, the wait ends after as many looks."""
    looks, sleep = 0, asyncio.sleep

    async def look(seconds: float) -> None:
        nonlocal looks
        looks += seconds == waiting.LOOK_SECONDS
        await sleep(0)

    running = Redemption(at_once=False)
    clock.now += 3600
    first = asyncio.create_task(_redeem(await make(), running))
    await running.begun.wait()
    clock.now -= 3600
    there = await make()
    monkeypatch.setattr(asyncio, "sleep", look)
    with pytest.raises(AlreadyUsed):
        await _redeem(there, Redemption("never"))

    assert looks == shared_redemptions.TIMEOUT_SECONDS / waiting.LOOK_SECONDS
    running.finish.set()
    await first


async def test_a_code_that_was_not_sent_may_come_again(make: Make) -> None:
    """A login that was refused because too many wait is redeemed at another process."""
    with pytest.raises(LoginRefused):
        await _redeem(await make(), Redemption(LoginRefused(Reason.LOGIN_BUSY)))

    assert await _redeem(await make(), Redemption()) == "session"


async def test_who_leaves_before_the_code_is_sent_gives_it_back(make: Make) -> None:
    """The last who waits ends the redemption; another process can have it."""
    running = Redemption(at_once=False)
    states = await make()
    first = asyncio.create_task(
        states.redeem_once("a", EXPIRES, running, is_sent=lambda: False, codec=CODEC)
    )
    await running.begun.wait()
    first.cancel()
    await asyncio.wait((first,))
    shared = states._shared
    assert shared is not None
    await until(lambda: not shared._releasing)

    assert await _redeem(await make(), Redemption()) == "session"


async def test_a_full_store_refuses_another_login(make: Make) -> None:
    """One more would mean to forget another; known ones are still answered."""
    await _redeem(await make(1), Redemption())
    with pytest.raises(TooManyLogins):
        await _redeem(await make(1), Redemption("never"), "b")

    assert await _redeem(await make(1), Redemption("never")) == "session"


@pytest.mark.parametrize("copied", [True, False])
async def test_what_was_put_in_the_place_of_an_outcome_signs_nobody_in(
    make: Make, tmp_path: Path, clock: Clock, *, copied: bool
) -> None:
    """Neither the outcome of another login nor rubbish is taken for that of a used login."""
    await _redeem(await make(), Redemption(), "another")
    store = SqliteStore(tmp_path, clock, Health())
    await store.open()
    found = (await store.find_reservation("login", "another")).outcome if copied else b"\xff junk"
    await store.reserve("login", "own", until=EXPIRES, room=100)
    await store.settle("login", "own", Outcome(found, EXPIRES))
    await store.close()

    with pytest.raises(AlreadyUsed):
        await _redeem(await make(), Redemption("never"), "own")


async def test_an_outcome_under_a_key_that_is_gone_is_not_read(make: Make) -> None:
    """With another session secret a reload learns that the state was used."""
    await _redeem(await make(), Redemption())
    other = Codec(KeyRing([b"x" * 32], "outcome"), str.encode, bytes.decode, str)
    states = await make()

    with pytest.raises(AlreadyUsed):
        await states.redeem_once("a", EXPIRES, Redemption("never"), codec=other)


async def test_no_result_is_stored_in_the_clear(make: Make, tmp_path: Path) -> None:
    """What Tailchat answered may hold tokens."""
    await _redeem(await make(), Redemption("a-secret-token"))

    def everything() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    # The person whom the outcome is about is named, to be found by `forget`.
    states = await make()
    codec = CODEC._replace(subject=lambda _: "66a")
    await states.redeem_once("b", EXPIRES, Redemption("another-token"), codec=codec)
    assert b"another-token" not in await asyncio.to_thread(everything)
    assert b"66a" in await asyncio.to_thread(everything)


# With real gates.


async def test_a_callback_at_two_gates_and_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    """Its code is sent once; each of the gates opens the same session with it."""
    state = {"path": str(tmp_path)}
    async with story(tmp_path / "first.log", clock, state=state) as scene:
        first = scene.gate
        settings = elsewhere(first.generation.settings)
        async with scene.visitor() as visitor:
            url = await until_callback(visitor, scene)
            cookies = visitor.cookie(scene.url)
        async with running_gate(settings, tmp_path / "second.log", clock) as second:
            responses = [await callback_at(gate, url, cookies) for gate in (second, first)]
        async with running_gate(settings, tmp_path / "third.log", clock) as third:
            responses.append(await callback_at(third, url, cookies))
            clock.now += REPLAY_WINDOW
            await callback_at(third, url, cookies)
            late = (await third.log())[-1]
        used = scene.tailchat.seen["token"].count

    assert [response.status for response in responses] == [303, 303, 303]
    assert all(cookie_value(response, "tailchat_gate") for response in responses)
    assert used == 1
    assert late["reason"] == "login-already-used"
