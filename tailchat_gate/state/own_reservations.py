"""Single-use keys that this process reserved in a store that can forget or miss them."""

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tailchat_gate.state.store import EXPIRY_MARGIN, Outcome

#: Keys that are remembered, about 500 bytes each; the oldest one goes first.
_MOST: Final = 10_000
#: Seconds between two looks for outcomes that have expired, of about 1 KiB each.
_LOOK_SECONDS: Final = 60.0


@dataclass(slots=True)
class OwnReservation:
    """A key, the nonce that shows whose it is, and what the store must hold of it.

    `behind`: the store may lack some of that. `released`: it must hold nothing.
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
    """Remembers them: a call without an answer can be repeated, and what is lost written again."""

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
        """Forget outcomes that are no longer handed out: they contain a session's tokens."""
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
        """Return those that the store may lack; forget those that have expired."""
        gone = self._clock() - EXPIRY_MARGIN
        for reservation in [found for found in self._kept.values() if found.until <= gone]:
            self.forget(reservation)
        return [found for found in self._kept.values() if found.behind]
