"""Sessions in the store: their newest state, sealed; every process has all of them in memory."""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.browser_name import browser_name
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.state.store import Changes, Kind, Record, Store, is_second
from tailchat_gate.syntax import CLOCK_SKEW, COMPACT

SESSION: Final = "session"
#: The most stored sessions, about 2 KiB each; the one written longest ago is dropped first.
MOST: Final = 50_000
#: The most sessions of one person; the one used longest ago is ended first.
MOST_OF_ONE: Final = 50
#: Seconds between two writes of a session's last use.
SEEN_SECONDS: Final = 300.0
#: The number of sessions at which expired ones are first removed.
_FIRST_LOOK: Final = 1024
#: Opened sessions in memory.
_OPENED: Final = 10_000


@dataclass(frozen=True, slots=True)
class StoredSession:
    """The stored form of a session; times are Unix seconds.

    `tokens` is when its access token expires, `checked` when Tailchat last confirmed it, `seen`
    about when it was last used. `browser` is the name of the browser that signed in. `sealed` has
    the rest, and is "" once the session has ended.
    """

    sid: str
    sub: str
    until: int
    began: int
    seen: int
    browser: str = ""
    tokens: int = 0
    checked: int = 0
    sealed: str = ""

    @classmethod
    def from_record(cls, record: Record) -> "StoredSession | None":
        """Return the session of a record, None for a damaged one."""
        try:
            fields = json.loads(record.body) if record.intact else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict) or fields.keys() != _FIELDS or record.until is None:
            return None
        numbers = [fields[name] for name in ("began", "seen", "tokens", "checked")]
        texts = (fields["browser"], fields["sealed"])
        if not all(map(is_second, numbers)) or not all(isinstance(text, str) for text in texts):
            return None
        return cls(sid=record.key, sub=record.sub, until=record.until, **fields)

    def to_record(self) -> Record:
        """Return the session as a record."""
        body = json.dumps({name: getattr(self, name) for name in _ORDER}, separators=COMPACT)
        return Record(SESSION, self.sid, body, self.sub, self.until)

    def ended(self) -> "StoredSession":
        """Return what stays stored of it after its end."""
        return StoredSession(self.sid, self.sub, self.until, self.began, self.began)

    def merged(self, other: "StoredSession") -> "StoredSession":
        """Return the newer one of two states; an ended session stays ended."""
        if not (self.sealed and other.sealed):
            return other if self.sealed else self
        newer = self if self.rank > other.rank else other
        # Several sign-ins may share the session: it lasts as long as the latest.
        return replace(
            newer,
            until=max(self.until, other.until),
            began=max(self.began, other.began),
            seen=max(self.seen, other.seen),
        )

    @property
    def rank(self) -> tuple[int, int]:
        """The sort key by which the newer state is greater."""
        return self.tokens, self.checked


_ORDER: Final = ("began", "seen", "browser", "tokens", "checked", "sealed")
_FIELDS: Final = frozenset(_ORDER)
#: The end of an ended session's body.
_NO_CONTENT: Final = '"sealed":""}'


def _merge(old: Record, new: Record) -> Record:
    """Merge two states of a session, which two processes may write at the same moment."""
    before, after = StoredSession.from_record(old), StoredSession.from_record(new)
    return new if before is None or after is None else before.merged(after).to_record()


def _latest(records: Sequence[Record]) -> Sequence[Record]:
    """Return at most MOST records; those of ended sessions are dropped first."""
    ended = [record.key for record in records if record.body.endswith(_NO_CONTENT)]
    gone = set(ended[: max(len(records) - MOST, 0)])
    return [record for record in records if record.key not in gone][-MOST:]


class StoredSessions:
    """Follows the sessions in the store; `clock` returns Unix seconds.

    They stay sealed here, because their keys belong to a configuration. `changed` is called when a
    session is gone.
    """

    kind: Final = Kind(SESSION, 2 * MOST, _latest, _merge)

    def __init__(
        self, store: Store, clock: Callable[[], float], changed: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed
        self._by_sid: dict[str, StoredSession] = {}
        self._by_sub: dict[str, dict[str, None]] = {}
        #: Ended sessions, the earliest first. They are dropped before all others, so that a person
        #: who signs in again and again does not push out other people's sessions.
        self._ended: dict[str, None] = {}
        #: When sessions were last used, if that is not written yet.
        self._seen: dict[str, int] = {}
        #: Sessions that were put lately, in two batches, because a write may have failed.
        self._put_last: dict[str, None] = {}
        self._put_before: dict[str, None] = {}
        self._look_at = _FIRST_LOOK
        store.follow(self)

    def __len__(self) -> int:
        """How many sessions are known."""
        return len(self._by_sid)

    def get(self, sid: str) -> StoredSession | None:
        """Return a session, None if it is not stored or has ended."""
        session = self._by_sid.get(sid)
        return session if session is not None and session.sealed else None

    def of(self, sub: str) -> list[StoredSession]:
        """Return a person's sessions, the last used first; everybody's for `sub` ""."""
        sessions = [self.get(sid) for sid in (self._by_sub.get(sub, ()) if sub else self._by_sid)]
        now = self._clock()
        live = [session for session in sessions if session is not None and session.until > now]
        used = [
            replace(session, seen=max(session.seen, self._seen.get(session.sid, 0)))
            for session in live
        ]
        return sorted(used, key=lambda session: (-session.seen, -session.began, session.sid))

    def note_use(self, sid: str, second: int) -> None:
        """Record that a session was used, to be written later."""
        self._seen[sid] = second

    def put(self, session: StoredSession) -> Awaitable[None]:
        """Store a session; the result is done once it is written."""
        self._apply(session)
        surplus = self.of(session.sub)[MOST_OF_ONE:]
        for other in surplus:
            self._apply(other.ended())
        if surplus:
            self._changed()
        return self._write([session.sid, *(other.sid for other in surplus)])

    def end(self, sessions: Iterable[StoredSession]) -> None:
        """End sessions, and erase their content."""
        over = [session.ended() for session in sessions]
        for ended in over:
            self._apply(ended)
        if over:
            self._changed()
            self._write([session.sid for session in over])

    def end_until(self, sub: str, sid: str, second: int) -> None:
        """End the session `sid`.

        With `sid` "", end all sessions of a person that began by a Unix second; with `sub` "" too,
        those of everybody.
        """
        if sid:
            to_end = [self._by_sid[sid]] if sid in self._by_sid else []
        else:
            sids = self._by_sub.get(sub, ()) if sub else self._by_sid
            to_end = [
                session
                for session in map(self._by_sid.__getitem__, sids)
                if session.began <= second
            ]
        self.end([session for session in to_end if session.sealed])

    def take(self, changes: Changes) -> None:
        """Apply what was read from the store."""
        before = len(self._by_sid)
        # With a fault, the store may lack sessions that this process knows.
        if changes.complete and not changes.doubtful and not self._store.faults:
            self._by_sid.clear()
            self._by_sub.clear()
            self._ended.clear()
        over = before > 0 and changes.complete
        for record in changes.records:
            session = StoredSession.from_record(record)
            if session is not None:
                over = over or not session.sealed
                self._apply(session)
        if over:
            self._changed()

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return the records that the store must hold: all if it lost them, else the latest."""
        sids = self._by_sid if lost else {**self._put_before, **self._put_last}
        return [self._by_sid[sid].to_record() for sid in sids if sid in self._by_sid]

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return the sessions whose last use is not written."""
        # The store works, so what was put before the last call is written.
        self._put_before, self._put_last = self._put_last, {}
        used = []
        for sid, at in tuple(self._seen.items()):
            session = self.get(sid)
            if session is None or last or at - session.seen >= SEEN_SECONDS:
                del self._seen[sid]
            if (
                session is not None
                and (last or at - session.seen >= SEEN_SECONDS)
                and at > session.seen
            ):
                self._apply(replace(session, seen=at))
                self._put_last[sid] = None
                used.append(self._by_sid[sid].to_record())
        return used

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget the sessions of a person."""
        del in_force
        self._drop(tuple(self._by_sub.get(sub, ())))
        self._changed()

    def _write(self, sids: Sequence[str]) -> Awaitable[None]:
        self._put_last.update(dict.fromkeys(sids))
        return self._store.put([self._by_sid[sid].to_record() for sid in sids])

    def _apply(self, session: StoredSession) -> None:
        old = self._by_sid.pop(session.sid, None)
        merged = session if old is None else old.merged(session)
        self._by_sid[session.sid] = merged
        if not merged.sealed:
            self._ended[session.sid] = None
        self._by_sub.setdefault(session.sub, {})[session.sid] = None
        if len(self._by_sid) >= self._look_at:
            now = self._clock()
            self._drop([sid for sid, session in self._by_sid.items() if session.until <= now])
            self._look_at = max(_FIRST_LOOK, min(MOST, 2 * len(self._by_sid)))
        if len(self._by_sid) > MOST:
            self._drop((next(iter(self._ended or self._by_sid)),))

    def _drop(self, sids: Iterable[str]) -> None:
        for sid in sids:
            session = self._by_sid.pop(sid)
            self._seen.pop(sid, None)
            self._ended.pop(sid, None)
            of_one = self._by_sub[session.sub]
            del of_one[sid]
            if not of_one:
                del self._by_sub[session.sub]


class SessionVault:
    """Seals sessions for the store, and opens them; `lifetime` is a session's in seconds.

    `holds_sessions`: cookies are tickets to the stored sessions. Otherwise only the newest tokens
    of some sessions are stored.
    """

    def __init__(
        self,
        stored: StoredSessions,
        keys: KeyRing,
        lifetime: float,
        *,
        holds_sessions: bool = False,
    ) -> None:
        self.stored: Final = stored
        self.holds_sessions: Final = holds_sessions
        self._keys = keys
        self._lifetime = lifetime
        self._opened: BoundedCache[str, tuple[str, SessionRecord]] = BoundedCache(_OPENED)

    def save(self, record: SessionRecord, *, agent: str = "") -> Awaitable[None]:
        """Store the newest state of a session; the result is done once it is written.

        `agent` is the User-Agent of the browser that signs in, "" if it is known already.
        """
        before = self.stored.get(record.sid)
        return self.stored.put(
            StoredSession(
                record.sid,
                record.sub,
                record.signed_in_at + int(self._lifetime) + CLOCK_SKEW,
                record.signed_in_at,
                max(record.seen_at, before.seen if before is not None else 0),
                browser_name(agent) or ("" if before is None else before.browser),
                record.access_expires_at,
                record.checked_at,
                self._keys.seal(record.to_bytes()),
            )
        )

    def refresh(self, record: SessionRecord) -> None:
        """Update a stored session after Tailchat confirmed it."""
        if self.holds_sessions and self.stored.get(record.sid) is not None:
            self.save(record)

    def find(self, sid: str) -> SessionRecord | None:
        """Return the newest state of a session, None if it is not stored or its key is gone."""
        stored = self.stored.get(sid)
        if stored is None:
            return None
        known = self._opened.get(sid)
        if known is not None and known[0] is stored.sealed:
            return known[1]
        data = self._keys.open(stored.sealed)
        record = None if data is None else SessionRecord.from_bytes(data)
        if record is None or (record.sid, record.sub) != (sid, stored.sub):
            return None
        self._opened.keep(sid, (stored.sealed, record))
        return record
