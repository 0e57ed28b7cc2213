"""The single-use keys that this process reserved in Redis, which may lose or lack them."""

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tailchat_gate.state.store import EXPIRY_MARGIN, Outcome

#: How many keys are remembered, about 500 bytes each; the oldest one is dropped first.
_MOST: Final = 10_000
#: Seconds between two searches for expired outcomes, which take about 1 KiB each.
_LOOK_SECONDS: Final = 60.0


@dataclass(slots=True)
class OwnReservation:
    """A reserved key, the nonce that shows who reserved it, and the state that the store must have.

    `behind`: the store may lack some of it. `released`: the store must not have the key.
    """

    kind: str
    key: str
    nonce: str
    until: float
    at: float
    outcome: Outcome | None = None
    behind: bool = False
    released: bool = False


class OwnReservations:
    """Remembers reservations, to repeat calls without an answer and to restore lost data."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], OwnReservation] = OrderedDict()
        self._looked_at = 0.0

    def begin(self, kind: str, key: str, until: float) -> OwnReservation:
        """Return a new reservation with a nonce of its own."""
        return OwnReservation(kind, key, os.urandom(16).hex(), until, self._clock())

    def keep(self, reservation: OwnReservation) -> None:
        """Remember a reservation."""
        self._kept[reservation.kind, reservation.key] = reservation
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        now = self._clock()
        if not self._looked_at <= now < self._looked_at + _LOOK_SECONDS:
            self._looked_at = now
            self._forget_outcomes(now)

    def _forget_outcomes(self, now: float) -> None:
        """Forget expired outcomes, because they contain a session's tokens."""
        for reservation in self._kept.values():
            outcome = reservation.outcome
            if outcome is not None and outcome.data is not None and outcome.until <= now:
                reservation.outcome = outcome._replace(data=None, sub="")

    def find(self, kind: str, key: str) -> OwnReservation | None:
        """Return the reservation of a key."""
        return self._kept.get((kind, key))

    def forget(self, reservation: OwnReservation) -> None:
        """Forget a reservation, unless the key was reserved again."""
        place = reservation.kind, reservation.key
        if self._kept.get(place) is reservation:
            del self._kept[place]

    def forget_person(self, sub: str) -> None:
        """Forget the outcomes about a person."""
        for reservation in self._kept.values():
            if reservation.outcome is not None and reservation.outcome.sub == sub:
                reservation.outcome = reservation.outcome._replace(data=None, sub="")

    def lost(self) -> None:
        """Note that the store may lack all of them."""
        for reservation in self._kept.values():
            reservation.behind = True

    def behind(self) -> list[OwnReservation]:
        """Return the reservations that the store may lack, and forget the expired ones."""
        gone = self._clock() - EXPIRY_MARGIN
        for reservation in [own for own in self._kept.values() if own.until <= gone]:
            self.forget(reservation)
        return [own for own in self._kept.values() if own.behind]
