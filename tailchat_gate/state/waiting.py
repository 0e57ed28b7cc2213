"""Single-use keys that processes share; waits for the outcome while another process uses one."""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from tailchat_gate.state.store import Outcome, Reservation, ReservationStatus, Store

LOOK_SECONDS: Final = 0.25


class SharedKeys(NamedTuple):
    """The single-use keys of one kind, at most `room` of them.

    `timeout`: the seconds after which a process that has reserved a key, and stored no outcome,
    is given up. `clock` returns Unix seconds.
    """

    store: Store
    kind: str
    room: int
    timeout: float
    clock: Callable[[], float]

    async def reserve(self, key: str, until: float) -> Reservation:
        """Reserve a key as `Store.reserve` does; if it is TAKEN, wait for its outcome.

        The wait ends `timeout` seconds after the other process reserved the key, and in any case
        after as many seconds here: the clock of the other process may be ahead.
        """
        reservation = await self._reserve(key, until)
        # A number of tries, because somebody may set the clock.
        for _ in range(int(self.timeout / LOOK_SECONDS)):
            if reservation.status is not ReservationStatus.TAKEN or reservation.outcome is not None:
                break
            if self.clock() - reservation.reserved_at >= self.timeout:
                break
            await asyncio.sleep(LOOK_SECONDS)
            reservation = await self.store.find_reservation(self.kind, key)
            if reservation.status is ReservationStatus.GRANTED:
                # The other process has released it.
                reservation = await self._reserve(key, until)
        return reservation

    async def settle(self, key: str, outcome: Outcome) -> None:
        """Store the outcome of a key that was reserved here."""
        await self.store.settle(self.kind, key, outcome)

    async def release(self, key: str) -> None:
        """Release a key that was not used."""
        await self.store.release(self.kind, key)

    async def _reserve(self, key: str, until: float) -> Reservation:
        return await self.store.reserve(self.kind, key, until=until, room=self.room)
