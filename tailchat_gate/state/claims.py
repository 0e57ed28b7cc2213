"""Single-use keys in the database: claimed by one process of all, once."""

import sqlite3
from collections.abc import Callable
from typing import Final

from tailchat_gate.state.database import Database
from tailchat_gate.state.schema import ADD_CLAIM
from tailchat_gate.state.store import Claim, ClaimStatus, Outcome

#: Seconds that pass between the check of a key's age and its use.
_CHECK_MARGIN: Final = 60
_GRANTED: Final = Claim(ClaimStatus.GRANTED)
_FULL: Final = Claim(ClaimStatus.FULL)


class Claims:
    """Claims keys in a database, in the thread of its connection; `clock` gives Unix seconds."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def claim(self, kind: str, key: str, *, until: float, room: int) -> Claim:
        """Claim a key; see Store.claim."""
        with self._database.transaction() as connection:
            if (found := self.find(kind, key)) is not _GRANTED:
                return found
            if not self._has_room(connection, kind, room):
                return _FULL
            row = (kind, key, self._clock(), int(until), 1, "", None, 0.0)
            connection.execute(ADD_CLAIM, row)
        return _GRANTED

    def find(self, kind: str, key: str) -> Claim:
        """Return what is stored of a key; GRANTED where it is not there."""
        query = "SELECT claimed_at, outcome, outcome_until FROM claim WHERE kind = ? AND key = ?"
        row = self._database.connection.execute(query, (kind, key)).fetchone()
        if row is None:
            return _GRANTED
        claimed_at, outcome, outcome_until = row
        is_kept = self._clock() < outcome_until
        return Claim(ClaimStatus.TAKEN, claimed_at, outcome if is_kept else None)

    def settle(self, kind: str, key: str, outcome: Outcome) -> bool:
        """Store what became of a key; see Store.settle. Returns that it is done."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE claim SET spent = ?, sub = ?, outcome = ?, outcome_until = ? "
                "WHERE kind = ? AND key = ?",
                (int(outcome.spent), outcome.sub, outcome.data, outcome.until, kind, key),
            )
        return True

    def release(self, kind: str, key: str) -> bool:
        """Let a key be claimed again. Returns that it is done."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM claim WHERE kind = ? AND key = ?", (kind, key))
        return True

    def _has_room(self, connection: sqlite3.Connection, kind: str, room: int) -> bool:
        """Tell whether one more key can be stored, after dropping what may be dropped.

        These are keys that have expired, and else the oldest whose second use would do no harm.
        """
        if _count(connection, kind) < room:
            return True
        connection.execute(
            "DELETE FROM claim WHERE kind = ? AND until <= ?",
            (kind, int(self._clock()) - _CHECK_MARGIN),
        )
        surplus = _count(connection, kind) - room + 1
        if surplus > 0:
            connection.execute(
                "DELETE FROM claim WHERE kind = ? AND key IN (SELECT key FROM claim "
                "WHERE kind = ? AND spent = 0 ORDER BY claimed_at LIMIT ?)",
                (kind, kind, surplus),
            )
        return _count(connection, kind) < room


def _count(connection: sqlite3.Connection, kind: str) -> int:
    query = "SELECT count(*) FROM claim WHERE kind = ?"
    found: int = connection.execute(query, (kind,)).fetchone()[0]
    return found
