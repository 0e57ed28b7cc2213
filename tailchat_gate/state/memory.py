"""The store in the memory of one process, for tests, the demo and `state.path = ""`."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence

from tailchat_gate.state.store import (
    EXPIRY_MARGIN,
    Changes,
    Follower,
    Outcome,
    Record,
    Reservation,
    ReservationStatus,
)


class _Key:
    """A key that was reserved."""

    __slots__ = ("outcome", "reserved_at", "until")

    def __init__(self, reserved_at: float, until: float) -> None:
        self.reserved_at = reserved_at
        self.until = until
        self.outcome = Outcome()


class MemoryStore:
    """Stores state until the process ends; see Store. `clock` gives Unix seconds.

    Followers have their records in memory already, so the store does not hold them again.
    """

    location = ""
    charge = None
    faults: Sequence[str] = ()

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._followers: list[Follower] = []
        self._keys: dict[str, OrderedDict[str, _Key]] = {}

    def follow(self, follower: Follower) -> None:
        """Accept a follower; there are no records for it."""
        self._followers.append(follower)

    async def open(self) -> None:
        """Tell the followers that nothing is stored."""
        for follower in self._followers:
            follower.take(Changes((), complete=True))

    def start(self) -> None:
        """Do nothing: no other process changes this store."""

    async def close(self) -> None:
        """Forget everything."""
        self._keys.clear()

    def put(self, records: Iterable[Record]) -> Awaitable[None]:
        """Return a finished awaitable: callers apply their records themselves."""
        del records
        return self.next_look()

    def next_look(self) -> "asyncio.Future[None]":
        """Return a finished future: there is nothing to read."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def written(self) -> None:
        """Return at once."""

    async def reserve(self, kind: str, key: str, *, until: float, room: int) -> Reservation:
        """Reserve a single-use key."""
        keys = self._keys.setdefault(kind, OrderedDict())
        reservation = await self.find_reservation(kind, key)
        if reservation.status is ReservationStatus.TAKEN:
            return reservation
        if len(keys) >= room and not self._make_room(keys, room):
            return Reservation(ReservationStatus.FULL)
        keys[key] = _Key(self._clock(), until)
        return reservation

    async def find_reservation(self, kind: str, key: str) -> Reservation:
        """Return the stored value of a key."""
        stored = self._keys[kind].get(key) if kind in self._keys else None
        if stored is None:
            return Reservation(ReservationStatus.GRANTED)
        is_kept = self._clock() < stored.outcome.until
        data = stored.outcome.data if is_kept else None
        return Reservation(ReservationStatus.TAKEN, stored.reserved_at, data)

    async def settle(self, kind: str, key: str, outcome: Outcome) -> None:
        """Store the outcome of a key."""
        if kind in self._keys and (stored := self._keys[kind].get(key)) is not None:
            stored.outcome = outcome

    async def release(self, kind: str, key: str) -> None:
        """Release a key, so that it can be reserved again."""
        self._keys.get(kind, OrderedDict()).pop(key, None)

    def _make_room(self, keys: "OrderedDict[str, _Key]", room: int) -> bool:
        now = self._clock()
        for key in [key for key, stored in keys.items() if stored.until <= now - EXPIRY_MARGIN]:
            del keys[key]
        if len(keys) >= room:
            for key in [key for key, stored in keys.items() if stored.until <= now]:
                del keys[key]
        if len(keys) >= room:
            unspent = next((key for key, stored in keys.items() if not stored.outcome.spent), None)
            if unspent is not None:
                del keys[unspent]
        return len(keys) < room
