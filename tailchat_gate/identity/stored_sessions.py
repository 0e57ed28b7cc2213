"""Sessions in the store: their newest state, sealed, which every process holds in memory."""

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.session import SessionRecord
from tailchat_gate.state.store import Changes, Kind, Record, Store
from tailchat_gate.syntax import CLOCK_SKEW, COMPACT

SESSION: Final = "session"
#: Sessions that are stored, about 1.5 KiB each; the one that was written longest ago goes first.
MOST: Final = 50_000
#: The number of sessions at which expired ones are looked for first.
_FIRST_LOOK: Final = 1024

#: How new a state is: the end of its access token, when Tailchat confirmed it last.
_Rank = tuple[int, int]
_NOTHING: Final[_Rank] = (-1, -1)


def _newest(old: Record, new: Record) -> Record:
    """Merge two states of a session: two processes may write it at the same moment."""
    return old if _rank(old) > _rank(new) else new


def _latest(records: Sequence[Record]) -> Sequence[Record]:
    return records[-MOST:]


class StoredSessions:
    """Follows the sessions of the store; `clock` gives Unix seconds.

    Bodies stay sealed here, because their keys belong to a configuration.
    """

    kind: Final = Kind(SESSION, 2 * MOST, _latest, _newest)

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._by_sid: dict[str, Record] = {}
        self._look_at = _FIRST_LOOK
        store.follow(self)

    def __len__(self) -> int:
        """How many sessions are known."""
        return len(self._by_sid)

    def get(self, sid: str) -> Record | None:
        """Return the state of a session, None if it is not stored."""
        return self._by_sid.get(sid)

    def put(self, record: Record) -> Awaitable[None]:
        """Store the state of a session; the result is done once it is written."""
        self._apply(record)
        return self._store.put((record,))

    def take(self, changes: Changes) -> None:
        """Apply what was read from the store."""
        if changes.complete and not changes.doubtful:
            self._by_sid.clear()
        for record in changes.records:
            if record.intact:
                self._apply(record)

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return every session."""
        del lost
        return tuple(self._by_sid.values())

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return nothing: a state is written at once."""
        del last
        return ()

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget the sessions of a person."""
        del in_force
        for sid in [sid for sid, record in self._by_sid.items() if record.sub == sub]:
            del self._by_sid[sid]

    def _apply(self, record: Record) -> None:
        old = self._by_sid.pop(record.key, None)
        self._by_sid[record.key] = record if old is None else _newest(old, record)
        if len(self._by_sid) >= self._look_at:
            self._drop(self._expired())
            self._look_at = max(_FIRST_LOOK, min(MOST, 2 * len(self._by_sid)))
        if len(self._by_sid) > MOST:
            self._drop([next(iter(self._by_sid))])

    def _expired(self) -> Iterator[str]:
        now = self._clock()
        for sid, record in self._by_sid.items():
            if record.until is not None and record.until <= now:
                yield sid

    def _drop(self, sids: Iterable[str]) -> None:
        for sid in tuple(sids):
            del self._by_sid[sid]


class SessionVault:
    """Seals sessions for the store, and opens them; `lifetime` is the seconds that one lasts."""

    def __init__(self, stored: StoredSessions, keys: KeyRing, lifetime: float) -> None:
        self._stored = stored
        self._keys = keys
        self._lifetime = lifetime

    def save(self, record: SessionRecord) -> Awaitable[None]:
        """Store the newest state of a session; the result is done once it is written."""
        body = {
            "tokens": record.access_expires_at,
            "checked": record.checked_at,
            "sealed": self._keys.seal(record.to_bytes()),
        }
        text = json.dumps(body, separators=COMPACT)
        until = record.signed_in_at + int(self._lifetime) + CLOCK_SKEW
        return self._stored.put(Record(SESSION, record.sid, text, record.sub, until))

    def find(self, sid: str) -> SessionRecord | None:
        """Return the newest state of a session; None if it is not stored, or its key is gone."""
        stored = self._stored.get(sid)
        sealed = None if stored is None else _sealed(stored)
        data = None if sealed is None else self._keys.open(sealed)
        record = None if data is None else SessionRecord.from_bytes(data)
        return record if record is not None and record.sid == sid else None


def _fields(record: Record) -> dict[str, object]:
    try:
        found = json.loads(record.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _rank(record: Record) -> _Rank:
    fields = _fields(record)
    tokens, checked = fields.get("tokens"), fields.get("checked")
    return (tokens, checked) if type(tokens) is int and type(checked) is int else _NOTHING


def _sealed(record: Record) -> str | None:
    found = _fields(record).get("sealed")
    return found if isinstance(found, str) else None
