"""Single-use keys in the database: of all processes, one can claim a key, once."""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tailchat_gate.state.database import Database
from tailchat_gate.state.schema import ADD_CLAIM
from tailchat_gate.state.store import Claim, ClaimStatus, Outcome

#: Seconds that may pass between the check of a key's age and its use.
_CHECK_MARGIN: Final = 60
#: Claims to remember while they cannot be written.
_MOST_MISSED: Final = 10_000
_GRANTED: Final = Claim(ClaimStatus.GRANTED)
_FULL: Final = Claim(ClaimStatus.FULL)


class MissedClaim(NamedTuple):
    """A claim, when it was made, and its outcome."""

    kind: str
    key: str
    until: int
    claimed_at: float
    outcome: Outcome


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
        """Return what is stored for a key, GRANTED if the key is not stored."""
        query = "SELECT claimed_at, outcome, outcome_until FROM claim WHERE kind = ? AND key = ?"
        row = self._database.connection.execute(query, (kind, key)).fetchone()
        if row is None:
            return _GRANTED
        claimed_at, outcome, outcome_until = row
        is_kept = self._clock() < outcome_until
        return Claim(ClaimStatus.TAKEN, claimed_at, outcome if is_kept else None)

    def settle(self, kind: str, key: str, outcome: Outcome) -> bool:
        """Store the outcome of a key; see Store.settle. Returns True."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE claim SET spent = ?, sub = ?, outcome = ?, outcome_until = ? "
                "WHERE kind = ? AND key = ?",
                (int(outcome.spent), outcome.sub, outcome.data, outcome.until, kind, key),
            )
        return True

    def make_up(self, missed: Sequence[MissedClaim]) -> None:
        """Store claims that could not be stored when they were made."""
        with self._database.transaction() as connection:
            connection.executemany(
                ADD_CLAIM,
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
        """Release a key, so that it can be claimed again. Returns True."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM claim WHERE kind = ? AND key = ?", (kind, key))
        return True

    def _has_room(self, connection: sqlite3.Connection, kind: str, room: int) -> bool:
        """Whether one more key can be stored, after dropping others if necessary.

        Expired keys go first, then the oldest whose second use would do no harm.
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


class MissedClaims:
    """Claims of this process that the database could not take yet; evicts the oldest."""

    def __init__(self) -> None:
        self._missed: OrderedDict[tuple[str, str], MissedClaim] = OrderedDict()

    def add(self, kind: str, key: str, *, until: float, now: float) -> None:
        """Remember a claim."""
        self._missed[kind, key] = MissedClaim(kind, key, int(until), now, Outcome())
        if len(self._missed) > _MOST_MISSED:
            self._missed.popitem(last=False)

    def settle(self, kind: str, key: str, outcome: Outcome) -> None:
        """Store the outcome of a claim, if that is one of these."""
        if (missed := self._missed.get((kind, key))) is not None:
            self._missed[kind, key] = missed._replace(outcome=outcome)

    def release(self, kind: str, key: str) -> None:
        """Forget a claim."""
        self._missed.pop((kind, key), None)

    def take(self) -> list[MissedClaim]:
        """Return the claims to write."""
        return list(self._missed.values())

    def written(self, claims: Sequence[MissedClaim]) -> None:
        """Forget claims that were written, unless they have changed since."""
        for claim in claims:
            if self._missed.get((claim.kind, claim.key)) is claim:
                self.release(claim.kind, claim.key)


def _count(connection: sqlite3.Connection, kind: str) -> int:
    query = "SELECT count(*) FROM claim WHERE kind = ?"
    found: int = connection.execute(query, (kind,)).fetchone()[0]
    return found
