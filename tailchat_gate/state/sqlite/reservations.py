"""Single-use keys in the database: only one process can reserve a key, and only once."""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tailchat_gate.state.sqlite.database import Database
from tailchat_gate.state.sqlite.schema import ADD_RESERVATION
from tailchat_gate.state.store import USE_MARGIN, Outcome, Reservation, ReservationStatus

#: How many reservations are remembered while they cannot be written.
_MOST_MISSED: Final = 10_000
_GRANTED: Final = Reservation(ReservationStatus.GRANTED)
_FULL: Final = Reservation(ReservationStatus.FULL)


class MissedReservation(NamedTuple):
    """A reservation, when it was made, and its outcome."""

    kind: str
    key: str
    until: int
    reserved_at: float
    outcome: Outcome


class Reservations:
    """Reserves keys in a database, in the thread of its connection.

    `clock` gives Unix seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def reserve(self, kind: str, key: str, *, until: float, room: int) -> Reservation:
        """Reserve a key; see Store.reserve."""
        with self._database.transaction() as connection:
            if (reservation := self.find(kind, key)) is not _GRANTED:
                return reservation
            if not self._has_room(connection, kind, room):
                return _FULL
            row = (kind, key, self._clock(), int(until), 1, "", None, 0.0)
            connection.execute(ADD_RESERVATION, row)
        return _GRANTED

    def find(self, kind: str, key: str) -> Reservation:
        """Return the stored value of a key, GRANTED if the key is not stored."""
        query = (
            "SELECT reserved_at, outcome, outcome_until FROM reservation WHERE kind = ? AND key = ?"
        )
        row = self._database.connection.execute(query, (kind, key)).fetchone()
        if row is None:
            return _GRANTED
        reserved_at, outcome, outcome_until = row
        is_kept = self._clock() < outcome_until
        return Reservation(ReservationStatus.TAKEN, reserved_at, outcome if is_kept else None)

    def settle(self, kind: str, key: str, outcome: Outcome) -> bool:
        """Store the outcome of a key; see Store.settle. Returns True."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE reservation SET spent = ?, sub = ?, outcome = ?, outcome_until = ? "
                "WHERE kind = ? AND key = ?",
                (int(outcome.spent), outcome.sub, outcome.data, outcome.until, kind, key),
            )
        return True

    def make_up(self, missed: Sequence[MissedReservation]) -> None:
        """Store reservations that could not be stored when they were made."""
        with self._database.transaction() as connection:
            connection.executemany(
                ADD_RESERVATION,
                [
                    (
                        kind,
                        key,
                        at,
                        until,
                        int(outcome.spent),
                        outcome.sub,
                        outcome.data,
                        outcome.until,
                    )
                    for kind, key, until, at, outcome in missed
                ],
            )

    def release(self, kind: str, key: str) -> bool:
        """Release a key, so that it can be reserved again. Returns True."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM reservation WHERE kind = ? AND key = ?", (kind, key))
        return True

    def _has_room(self, connection: sqlite3.Connection, kind: str, room: int) -> bool:
        """Whether one more key can be stored, after dropping others if necessary.

        Expired keys go first, then the oldest whose second use would do no harm.
        """
        if _count(connection, kind) < room:
            return True
        connection.execute(
            "DELETE FROM reservation WHERE kind = ? AND until <= ?",
            (kind, int(self._clock()) - USE_MARGIN),
        )
        surplus = _count(connection, kind) - room + 1
        if surplus > 0:
            connection.execute(
                "DELETE FROM reservation WHERE kind = ? AND key IN (SELECT key FROM reservation "
                "WHERE kind = ? AND spent = 0 ORDER BY reserved_at LIMIT ?)",
                (kind, kind, surplus),
            )
        return _count(connection, kind) < room


class MissedReservations:
    """Reservations of this process that could not be written yet; the oldest is dropped first."""

    def __init__(self) -> None:
        self._missed: OrderedDict[tuple[str, str], MissedReservation] = OrderedDict()

    def add(self, kind: str, key: str, *, until: float, now: float) -> None:
        """Remember a reservation."""
        self._missed[kind, key] = MissedReservation(kind, key, int(until), now, Outcome())
        if len(self._missed) > _MOST_MISSED:
            self._missed.popitem(last=False)

    def settle(self, kind: str, key: str, outcome: Outcome) -> None:
        """Store the outcome of a reservation, if that is one of these."""
        if (missed := self._missed.get((kind, key))) is not None:
            self._missed[kind, key] = missed._replace(outcome=outcome)

    def release(self, kind: str, key: str) -> None:
        """Forget a reservation."""
        self._missed.pop((kind, key), None)

    def take(self) -> list[MissedReservation]:
        """Return the reservations to write; they stay until `written`."""
        return list(self._missed.values())

    def written(self, reservations: Sequence[MissedReservation]) -> None:
        """Forget reservations that were written, unless they have changed since."""
        for reservation in reservations:
            if self._missed.get((reservation.kind, reservation.key)) is reservation:
                self.release(reservation.kind, reservation.key)


def _count(connection: sqlite3.Connection, kind: str) -> int:
    query = "SELECT count(*) FROM reservation WHERE kind = ?"
    count: int = connection.execute(query, (kind,)).fetchone()[0]
    return count
