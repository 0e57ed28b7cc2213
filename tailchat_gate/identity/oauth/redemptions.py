"""Redeems each login once, even if its callback comes several times or in several tabs."""

import asyncio
import heapq
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.shared_redemptions import (
    Codec,
    Redeemed,
    SharedRedemptions,
)
from tailchat_gate.reasons import Reason
from tailchat_gate.state.store import EXPIRY_MARGIN, USE_MARGIN

#: Seconds after a redemption during which a repeated callback gets the same outcome.
REPLAY_WINDOW: Final = 60.0

#: The most logins remembered at a time; a used one takes about 300 bytes.
CAPACITY: Final = 100_000


#: Refusals which show that Tailchat did not take the code, unlike a timeout or a broken response.
_UNSPENT: Final = frozenset(
    (
        *(Reason.LOGIN_CODE_REFUSED, Reason.GATE_NOT_ACCEPTED),
        *(Reason.TAILCHAT_DOWN, Reason.TAILCHAT_UNTRUSTED),
    )
)
#: Refusals of logins whose code was not sent: the login may be tried again.
_UNSENT: Final = frozenset((Reason.LOGIN_BUSY,))

T = TypeVar("T")


class AlreadyUsed(LoginRefused):
    """The state was redeemed before, and the outcome is no longer stored."""

    def __init__(self) -> None:
        super().__init__(Reason.LOGIN_ALREADY_USED)


class TooManyLogins(LoginRefused):
    """The memory for logins is full, and none may be forgotten yet."""

    def __init__(self) -> None:
        super().__init__(
            Reason.INTERNAL_ERROR, {"problem": "too many logins in the last two hours"}
        )


@dataclass(frozen=True, slots=True)
class _Success(Generic[T]):
    result: T = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Refusal:
    # Not the exception: raising it again would attach ever more frames to it.
    reason: Reason
    detail: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Fault:
    """An error other than a refusal; raised to waiting callers, not stored for a reload."""

    error: Exception = field(repr=False)


_Outcome = _Success[T] | _Refusal | _Fault


class Redemptions(Generic[T]):
    """The login states that were redeemed, in the memory of one process and one event loop.

    `shared` knows the states of other processes, and outlives this one; None if there are none.
    `clock` returns Unix seconds. `capacity`: the most states remembered.

    A state is remembered until it expires: after a second redemption Tailchat revokes the user's
    whole grant, and it does not notice two at the same time. `harmless`: a second redemption does
    no harm, so the oldest state is dropped when the memory is full.
    """

    __slots__ = (
        "_callers", "_capacity", "_clock", "_due", "_harmless", "_running", "_shared",
        "_unspent", "_used",
    )  # fmt: skip

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        capacity: int = CAPACITY,
        harmless: bool = False,
        shared: SharedRedemptions | None = None,
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._capacity = capacity
        self._harmless = harmless
        self._running: dict[str, asyncio.Task[_Outcome[T]]] = {}
        #: How many callers wait for each task.
        self._callers: Counter[asyncio.Task[_Outcome[T]]] = Counter()
        # None: the outcome has expired, but the state still counts as used.
        self._used: dict[str, _Success[T] | _Refusal | None] = {}
        # The used states that may be forgotten: Tailchat never took their code, or a second
        # redemption is harmless.
        self._unspent: dict[str, None] = {}
        # (when to look again, state, when it expires): one entry for each used state.
        self._due: list[tuple[float, str, float]] = []

    def __repr__(self) -> str:
        """Numbers only."""
        return f"<Redemptions {len(self._running)} running, {len(self._used)} used>"

    async def redeem_once(
        self,
        key: str,
        expires_at: float,
        make: Callable[[], Awaitable[T]],
        *,
        is_sent: Callable[[], bool] = lambda: True,
        codec: Codec[T] | None = None,
    ) -> T:
        """Return the result of `make`, which runs once for each state, and to its end.

        `make` runs in its own task: a browser that reloads the callback aborts its first request,
        but the code has been sent. Callers during the run, or within REPLAY_WINDOW seconds after
        it, get the same result or the same LoginRefused.
        `expires_at`: Unix second from which no check accepts this state any more. `is_sent`:
        whether the code has been sent; until then `make` is cancelled when its last caller leaves.
        `codec` stores the outcome for other processes; without it they learn only that the state
        was used.

        Raises LoginRefused as `make` did, AlreadyUsed after the window, TooManyLogins when full.
        """
        self._forget_expired()
        task = self._running.get(key)
        if task is None:
            if key in self._used:
                outcome = self._used[key]
                if outcome is None:
                    raise AlreadyUsed
                return _replay(outcome)
            if len(self._running) + len(self._used) >= self._capacity:
                self._make_room()
            if self._shared is not None:
                make = self._once_for_all(self._shared, key, expires_at, make, is_sent, codec)
            task = asyncio.create_task(self._run(key, expires_at, make, is_sent))
            self._running[key] = task
        return _replay(await self._outcome(key, task, is_sent))

    async def _outcome(
        self, key: str, task: "asyncio.Task[_Outcome[T]]", is_sent: Callable[[], bool]
    ) -> _Outcome[T]:
        """Wait for a task; the last caller to leave cancels it, unless its code has been sent."""
        self._callers[task] += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._callers[task] -= 1
            if not self._callers[task]:
                del self._callers[task]
                if not task.done() and not is_sent():
                    # At once, so that no other caller waits for a task that is about to end.
                    del self._running[key]
                    task.cancel()

    async def _run(
        self,
        key: str,
        expires_at: float,
        make: Callable[[], Awaitable[T]],
        is_sent: Callable[[], bool],
    ) -> _Outcome[T]:
        """Run `make` and store its outcome; raises nothing, because no caller may be left."""
        outcome: _Success[T] | _Refusal | None = None
        full = False
        try:
            outcome = _Success(await make())
        except TooManyLogins as error:
            # The shared store is full; nothing was redeemed.
            full = True
            return _Fault(error)
        except LoginRefused as refused:
            outcome = _Refusal(refused.reason, refused.detail)
        except Exception as error:  # noqa: BLE001 - handed to the waiting callers
            return _Fault(error)
        finally:
            # Also when the loop ends and cancels this task: the code may have been spent.
            if self._running.get(key) is asyncio.current_task():
                del self._running[key]
            if (
                is_sent()
                and not full
                and not (isinstance(outcome, _Refusal) and outcome.reason in _UNSENT)
            ):
                self._remember(key, expires_at, outcome)
        return outcome

    def _once_for_all(
        self,
        shared: SharedRedemptions,
        key: str,
        expires_at: float,
        make: Callable[[], Awaitable[T]],
        is_sent: Callable[[], bool],
        codec: Codec[T] | None,
    ) -> Callable[[], Awaitable[T]]:
        """Wrap `make` so that it runs once among all processes, which all get its outcome."""

        async def settle(redeemed: Redeemed[T], *, spent: bool) -> None:
            until = self._clock() + REPLAY_WINDOW
            await shared.settle(
                key, redeemed, codec, until=until, spent=spent and not self._harmless
            )

        async def make_once() -> T:
            reserved = await shared.reserve(key, expires_at, codec)
            if isinstance(reserved, Redeemed):
                return _result_of(reserved)
            if reserved.full:
                raise TooManyLogins
            try:
                result = await make()
            except LoginRefused as refused:
                if refused.reason in _UNSENT:
                    await shared.release(key)
                else:
                    refusal: Redeemed[T] = Redeemed(reason=refused.reason, detail=refused.detail)
                    await settle(refusal, spent=refused.reason not in _UNSPENT)
                raise
            except asyncio.CancelledError:
                if not is_sent():
                    shared.release_later(key)
                raise
            await settle(Redeemed(result), spent=True)
            return result

        return make_once

    def _remember(
        self, key: str, expires_at: float, outcome: "_Success[T] | _Refusal | None"
    ) -> None:
        """Remember that a state was used, and its outcome for a while."""
        self._used[key] = outcome
        if self._harmless or (isinstance(outcome, _Refusal) and outcome.reason in _UNSPENT):
            self._unspent[key] = None
        until = self._clock() + (0.0 if outcome is None else REPLAY_WINDOW)
        heapq.heappush(self._due, (until, key, expires_at + EXPIRY_MARGIN))

    def _forget_expired(self) -> None:
        """Drop outcomes whose time has passed, and states that have expired."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            _, key, expires_at = heapq.heappop(self._due)
            if expires_at <= now:
                self._used.pop(key, None)
                self._unspent.pop(key, None)
            elif key in self._used:
                self._used[key] = None
                heapq.heappush(self._due, (expires_at, key, expires_at))

    def _make_room(self) -> None:
        """Forget the oldest login that may be forgotten. Raises TooManyLogins if there is none.

        Neither strangers with made-up codes nor a visitor of many hosts can lock others out so.
        """
        if not self._unspent:
            self._forget_spent()
            return
        key = next(iter(self._unspent))
        del self._unspent[key], self._used[key]
        if len(self._due) > 2 * self._capacity:
            self._due = [entry for entry in self._due if entry[1] in self._used]
            heapq.heapify(self._due)

    def _forget_spent(self) -> None:
        """Forget every state that has expired by now. Raises TooManyLogins if none has."""
        now = self._clock()
        spent = [
            key
            for _, key, kept_until in self._due
            if kept_until - EXPIRY_MARGIN + USE_MARGIN <= now and key in self._used
        ]
        if not spent:
            raise TooManyLogins
        for key in spent:
            self._used.pop(key, None)
        self._due = [entry for entry in self._due if entry[1] in self._used]
        heapq.heapify(self._due)


def _replay(outcome: _Outcome[T]) -> T:
    """Return the result, or raise the refusal or error."""
    match outcome:
        case _Success(result):
            return result
        case _Refusal(Reason.LOGIN_ALREADY_USED):
            raise AlreadyUsed
        case _Refusal(reason, detail):
            raise LoginRefused(reason, detail)
        case _Fault(error):
            raise error


def _result_of(redeemed: Redeemed[T]) -> T:
    """Return a stored result, or raise the stored refusal."""
    if redeemed.result is not None:
        return redeemed.result
    if redeemed.reason is not None:
        raise LoginRefused(redeemed.reason, dict(redeemed.detail or {}))
    raise AlreadyUsed
