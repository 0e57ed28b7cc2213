import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.redemptions import (
    REPLAY_WINDOW,
    AlreadyUsed,
    Redemptions,
    TooManyLogins,
)
from tailchat_gate.reasons import Reason

START = 1_800_000_000.0
EXPIRES = START + 7200


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        """Return the time set."""
        return self.now


class Redemption:
    """A redemption that counts its runs and ends when told to."""

    def __init__(self, outcome: str | Exception, *, at_once: bool = True) -> None:
        self.runs = 0
        self.finish = asyncio.Event()
        self._outcome = outcome
        if at_once:
            self.finish.set()

    async def __call__(self) -> str:
        """Wait for `finish`, then give the outcome."""
        self.runs += 1
        await self.finish.wait()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@pytest.fixture
def clock() -> Clock:
    """A clock at START."""
    return Clock()


@pytest.fixture
def states(clock: Clock) -> Redemptions[str]:
    """An empty guard."""
    return Redemptions(clock=clock)


async def waiting(tasks: int, call: Callable[[], Awaitable[str]]) -> list[asyncio.Task[str]]:
    """Start `call` in tasks and let each run until it waits."""

    async def run() -> str:
        return await call()

    started = [asyncio.create_task(run()) for _ in range(tasks)]
    for _ in range(5):
        await asyncio.sleep(0)
    return started


async def test_runs_once_for_many(states: Redemptions[str]) -> None:
    """Ten callbacks with one state at the same time redeem once and get the same result."""
    redemption = Redemption("session", at_once=False)
    tasks = await waiting(10, lambda: states.redeem_once("a", EXPIRES, redemption))
    redemption.finish.set()

    assert await asyncio.gather(*tasks) == ["session"] * 10
    assert redemption.runs == 1


async def test_states_are_apart(states: Redemptions[str]) -> None:
    """Another state is another login."""
    first, second = Redemption("one"), Redemption("two")

    assert await states.redeem_once("a", EXPIRES, first) == "one"
    assert await states.redeem_once("b", EXPIRES, second) == "two"


async def test_reload_takes_the_first_request_back(states: Redemptions[str]) -> None:
    """When a reload cancels the first request, the redemption goes on and serves the second."""
    redemption = Redemption("session", at_once=False)
    (first,) = await waiting(1, lambda: states.redeem_once("a", EXPIRES, redemption))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    (second,) = await waiting(1, lambda: states.redeem_once("a", EXPIRES, redemption))
    redemption.finish.set()

    assert await second == "session"
    assert redemption.runs == 1


async def test_reload_after_the_end(states: Redemptions[str]) -> None:
    """A first request that nobody waits for leaves its outcome to a later reload."""
    redemption = Redemption("session", at_once=False)
    (first,) = await waiting(1, lambda: states.redeem_once("a", EXPIRES, redemption))
    first.cancel()
    redemption.finish.set()
    await asyncio.gather(first, return_exceptions=True)
    await asyncio.sleep(0)

    assert await states.redeem_once("a", EXPIRES, Redemption("never")) == "session"


async def test_same_refusal_each_time(states: Redemptions[str]) -> None:
    """A refused redemption is refused again alike, with a new exception and no second run."""
    refused = LoginRefused(Reason.LOGIN_CODE_REFUSED, {"call": "token"})
    redemption = Redemption(refused)
    seen = []
    for _ in range(3):
        with pytest.raises(LoginRefused) as caught:
            await states.redeem_once("a", EXPIRES, redemption)
        seen.append(caught.value)

    assert [(one.reason, one.detail) for one in seen] == [(refused.reason, refused.detail)] * 3
    assert len({id(one) for one in [refused, *seen]}) == 4
    assert redemption.runs == 1


async def test_refusal_nobody_waits_for(states: Redemptions[str]) -> None:
    """A refusal after the only caller has gone is kept and never reported as lost."""
    redemption = Redemption(LoginRefused(Reason.TAILCHAT_SLOW), at_once=False)
    (first,) = await waiting(1, lambda: states.redeem_once("a", EXPIRES, redemption))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    redemption.finish.set()
    for _ in range(3):
        await asyncio.sleep(0)

    with pytest.raises(LoginRefused) as caught:
        await states.redeem_once("a", EXPIRES, redemption)
    assert caught.value.reason == "tailchat-slow"


@pytest.mark.parametrize("outcome", ["session", LoginRefused(Reason.LOGIN_CODE_REFUSED)])
async def test_after_the_window(
    states: Redemptions[str], clock: Clock, outcome: str | Exception
) -> None:
    """From the end of the window to the state's expiry the state counts as used."""
    redemption = Redemption(outcome)
    await asyncio.gather(states.redeem_once("a", EXPIRES, redemption), return_exceptions=True)
    for now in (START + REPLAY_WINDOW, START + REPLAY_WINDOW + 1, EXPIRES, EXPIRES + 59):
        clock.now = now
        with pytest.raises(AlreadyUsed) as caught:
            await states.redeem_once("a", EXPIRES, redemption)
        assert caught.value.reason == "login-already-used"

    assert redemption.runs == 1


async def test_window_counts_from_the_end(states: Redemptions[str], clock: Clock) -> None:
    """A slow redemption can be reloaded for as long after its end as a fast one."""
    redemption = Redemption("session", at_once=False)
    tasks = await waiting(1, lambda: states.redeem_once("a", EXPIRES, redemption))
    clock.now += 500
    redemption.finish.set()
    await tasks[0]
    clock.now += REPLAY_WINDOW - 1

    assert await states.redeem_once("a", EXPIRES, redemption) == "session"


async def test_fault_is_told_and_not_kept(states: Redemptions[str]) -> None:
    """An unexpected error reaches those who wait; a reload learns that the state was used."""
    redemption = Redemption(RuntimeError("a fault"), at_once=False)
    tasks = await waiting(2, lambda: states.redeem_once("a", EXPIRES, redemption))
    redemption.finish.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)

    assert [str(error) for error in errors] == ["a fault", "a fault"]
    with pytest.raises(AlreadyUsed):
        await states.redeem_once("a", EXPIRES, redemption)
    assert redemption.runs == 1


async def test_expired_states_are_forgotten(states: Redemptions[str], clock: Clock) -> None:
    """Memory is given back a day after states have expired."""
    for number in range(100):
        await states.redeem_once(str(number), EXPIRES + number, Redemption("x"))
    assert repr(states) == "<Redemptions 0 running, 100 used>"

    clock.now = EXPIRES + 86_400 + 49
    await states.redeem_once("new", clock.now + 7200, Redemption("x"))
    assert repr(states) == "<Redemptions 0 running, 51 used>"

    clock.now += 100_000
    await states.redeem_once("newer", clock.now + 7200, Redemption("x"))
    assert repr(states) == "<Redemptions 0 running, 1 used>"


async def test_result_is_released_after_the_window(clock: Clock) -> None:
    """After the window nothing of a result is kept, only that the state was used."""
    states: Redemptions[list[str]] = Redemptions(clock=clock)

    async def make() -> list[str]:
        return ["a profile"]

    await states.redeem_once("a", EXPIRES, make)
    clock.now += REPLAY_WINDOW
    await states.redeem_once("b", EXPIRES, make)

    assert states._used["a"] is None
    assert states._used["b"] is not None


async def test_outcome_outlives_a_state_that_expires_meanwhile(
    states: Redemptions[str], clock: Clock
) -> None:
    """A login finished in the last second can be reloaded although its state has expired."""
    clock.now = EXPIRES - 1
    await states.redeem_once("a", EXPIRES, Redemption("session"))
    clock.now += REPLAY_WINDOW - 1

    assert await states.redeem_once("a", EXPIRES, Redemption("never")) == "session"


async def test_full(clock: Clock) -> None:
    """When full, known states are still answered and new ones refused until some expire."""
    states: Redemptions[str] = Redemptions(clock=clock, capacity=3)
    running = Redemption("slow", at_once=False)
    tasks = await waiting(1, lambda: states.redeem_once("a", EXPIRES, running))
    await states.redeem_once("b", EXPIRES, Redemption("done"))
    await states.redeem_once("c", EXPIRES, Redemption("done"))
    fresh = Redemption("fresh")

    with pytest.raises(TooManyLogins) as caught:
        await states.redeem_once("d", EXPIRES, fresh)
    assert caught.value.reason == "internal-error"
    assert "too many logins" in caught.value.detail["problem"]
    assert fresh.runs == 0
    assert await states.redeem_once("b", EXPIRES, fresh) == "done"

    running.finish.set()
    assert await tasks[0] == "slow"
    clock.now = EXPIRES + 61
    assert await states.redeem_once("d", clock.now + 7200, fresh) == "fresh"


async def test_made_up_codes_lock_nobody_out(clock: Clock) -> None:
    """When full, the oldest login whose code was refused makes room; a spent one never does."""
    states: Redemptions[str] = Redemptions(clock=clock, capacity=3)

    async def refuse() -> str:
        raise LoginRefused(Reason.LOGIN_CODE_REFUSED)

    await states.redeem_once("spent", EXPIRES, Redemption("session"))
    for number in range(50):
        with pytest.raises(LoginRefused, match="login-code-refused"):
            await states.redeem_once(f"made-up-{number}", EXPIRES, refuse)
    clock.now += REPLAY_WINDOW + 1

    assert await states.redeem_once("honest", EXPIRES, Redemption("fine")) == "fine"
    with pytest.raises(AlreadyUsed):
        await states.redeem_once("spent", EXPIRES, Redemption("never"))
    assert len(states._used) <= 3
    assert len(states._due) <= 8


async def test_what_is_harmless_makes_room(clock: Clock) -> None:
    """A client that redeems one after the other pushes the oldest out, and never the next one."""
    states: Redemptions[str] = Redemptions(clock=clock, capacity=3, harmless=True)
    for number in range(50):
        assert await states.redeem_once(f"{number}", EXPIRES, Redemption("done")) == "done"
    again = Redemption("never")

    assert await states.redeem_once("49", EXPIRES, again) == "done"
    assert again.runs == 0
    assert len(states._used) <= 3
    assert len(states._due) <= 8


async def test_cancelled_redemption_counts_as_used(states: Redemptions[str]) -> None:
    """A redemption that a stopping loop cancels is not tried again, for its code may be spent."""
    redemption = Redemption("session", at_once=False)
    tasks = await waiting(1, lambda: states.redeem_once("a", EXPIRES, redemption))
    states._running["a"].cancel()

    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    with pytest.raises(AlreadyUsed):
        await states.redeem_once("a", EXPIRES, redemption)


async def test_repr_shows_no_result(states: Redemptions[str]) -> None:
    """The repr of the guard and of what it keeps shows neither a state nor a result."""
    await states.redeem_once("state-id", EXPIRES, Redemption("a profile"))
    shown = repr(states) + repr(states._used["state-id"])

    assert "state-id" not in shown
    assert "profile" not in shown


async def test_what_was_not_sent_ends_with_the_last_who_waits(states: Redemptions[str]) -> None:
    """Before its code is on its way, a redemption ends with its callers, and may come again."""
    waiting = Redemption("ok", at_once=False)
    callers = [
        asyncio.create_task(states.redeem_once("a", EXPIRES, waiting, is_sent=lambda: False))
        for _ in range(2)
    ]
    await asyncio.sleep(0)
    task = states._running["a"]
    callers[0].cancel()
    await asyncio.gather(callers[0], return_exceptions=True)
    assert not task.cancelling()
    callers[1].cancel()
    await asyncio.gather(callers[1], return_exceptions=True)
    again = Redemption("again")

    assert await states.redeem_once("a", EXPIRES, again) == "again"
    assert (task.cancelled(), again.runs) == (True, 1)
    assert not states._callers
