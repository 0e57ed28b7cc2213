"""Reserves a key, and waits for the outcome while another process is using it."""

import asyncio
from collections.abc import Callable
from typing import Final

from tailchat_gate.state.store import Reservation, ReservationStatus, Store

LOOK_SECONDS: Final = 0.25


async def reserve_or_wait(
    store: Store,
    kind: str,
    key: str,
    *,
    until: float,
    room: int,
    patience: float,
    clock: Callable[[], float],
) -> Reservation:
    """Reserve a key as `Store.reserve` does; if it is TAKEN, wait for its outcome.

    The wait ends `patience` seconds after the other process reserved the key.
    """
    reservation = await store.reserve(kind, key, until=until, room=room)
    # A number of tries, because somebody may set the clock.
    for _ in range(int(patience / LOOK_SECONDS)):
        if reservation.status is not ReservationStatus.TAKEN or reservation.outcome is not None:
            break
        if clock() - reservation.reserved_at >= patience:
            break
        await asyncio.sleep(LOOK_SECONDS)
        reservation = await store.find_reservation(kind, key)
        if reservation.status is ReservationStatus.GRANTED:
            # The other process has released it.
            reservation = await store.reserve(kind, key, until=until, room=room)
    return reservation
