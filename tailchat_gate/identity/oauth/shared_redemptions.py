"""Records redeemed logins in the store, for other processes and across restarts."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.reasons import Reason
from tailchat_gate.state.store import Outcome, ReservationStatus, Store
from tailchat_gate.state.waiting import SharedKeys

#: Seconds to wait for another process that is redeeming the same login.
TIMEOUT_SECONDS: Final = 10.0

T = TypeVar("T")


class Codec(NamedTuple, Generic[T]):
    """Stores results sealed with `keys`, because they may hold tokens.

    `subject` returns the sub of the person in a result.
    """

    keys: KeyRing
    dump: Callable[[T], bytes]
    load: Callable[[bytes], T | None]
    subject: Callable[[T], str]


@dataclass(frozen=True, slots=True)
class Redeemed(Generic[T]):
    """A login that was redeemed before, with its result or the reason of its refusal.

    Both are absent once the outcome is no longer stored.
    """

    result: T | None = None
    reason: Reason | None = None
    detail: Mapping[str, str] | None = None


class Redeemable(NamedTuple):
    """A login that this process may redeem; `full`: no more logins can be remembered."""

    full: bool = False


class SharedRedemptions:
    """Reserves logins in a store, under their own kind; `clock` gives Unix seconds."""

    def __init__(self, store: Store, kind: str, room: int, clock: Callable[[], float]) -> None:
        self._logins = SharedKeys(store, kind, room, TIMEOUT_SECONDS, clock)
        #: Tasks that release reservations.
        self._releasing: set[asyncio.Task[None]] = set()

    async def reserve(
        self, key: str, until: float, codec: Codec[T] | None
    ) -> Redeemed[T] | Redeemable:
        """Reserve a login; if it was reserved before, return its outcome.

        If the store cannot be written, the login may be redeemed: this process knows at least its
        own. If the caller is cancelled, the reservation is released.
        """
        reserving = asyncio.create_task(self._reserve(key, until, codec))
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            # The reservation may still be granted.
            self._do_later(self._give_back(key, reserving))
            raise

    async def _reserve(
        self, key: str, until: float, codec: Codec[T] | None
    ) -> Redeemed[T] | Redeemable:
        reservation = await self._logins.reserve(key, until)
        if reservation.status is ReservationStatus.TAKEN:
            return _read(key, reservation.outcome, codec)
        return Redeemable(full=reservation.status is ReservationStatus.FULL)

    async def settle(
        self,
        key: str,
        redeemed: Redeemed[T],
        codec: Codec[T] | None,
        *,
        until: float,
        spent: bool,
    ) -> None:
        """Store the outcome of a login until the Unix second `until`, for repeated callbacks."""
        if codec is None:
            await self._logins.settle(key, Outcome(spent=spent))
            return
        subject = "" if redeemed.result is None else codec.subject(redeemed.result)
        outcome = Outcome(_write(key, redeemed, codec), until, spent, subject)
        await self._logins.settle(key, outcome)

    async def release(self, key: str) -> None:
        """Release a login, because its code was not sent."""
        await self._logins.release(key)

    def release_later(self, key: str) -> None:
        """Release a login, as `release` does, without waiting."""
        self._do_later(self.release(key))

    async def _give_back(
        self, key: str, reserving: "asyncio.Task[Redeemed[T] | Redeemable]"
    ) -> None:
        reserved = await reserving
        if isinstance(reserved, Redeemable) and not reserved.full:
            await self.release(key)

    def _do_later(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)


def _write(key: str, redeemed: Redeemed[T], codec: Codec[T]) -> bytes:
    """Seal an outcome with its login, so that it cannot become the outcome of another one."""
    if redeemed.result is not None:
        body = b"+" + codec.dump(redeemed.result)
    else:
        body = b"-" + json.dumps([redeemed.reason, redeemed.detail]).encode()
    return codec.keys.seal(_mark(key) + body).encode()


def _mark(key: str) -> bytes:
    return f"{key} ".encode()


def _read(key: str, sealed: bytes | None, codec: Codec[T] | None) -> Redeemed[T]:
    """Return the stored outcome; without data if the sealing key is gone, or it is another's."""
    mark = _mark(key)
    opened = None if sealed is None or codec is None else codec.keys.open(sealed.decode("latin-1"))
    if opened is None or codec is None or not opened.startswith(mark):
        return Redeemed()
    body = opened.removeprefix(mark)
    if body[:1] == b"+":
        return Redeemed(codec.load(body[1:]))
    reason, detail = json.loads(body[1:])
    return Redeemed(reason=Reason(reason), detail=detail)
