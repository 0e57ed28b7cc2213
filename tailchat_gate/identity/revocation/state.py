"""The revocation state: locks, accounts that Tailchat bans, and ended sessions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from tailchat_gate.config.values.identifier import SUB, TOKEN
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.reasons import Reason
from tailchat_gate.state.store import EXPIRY_MARGIN

#: The target of a lock that locks out everyone, persons and machines.
ALL: Final = "all"
#: Retry-After during maintenance without a known end, and the most with a known one, because the
#: lock may be lifted earlier.
RETRY_MAINTENANCE: Final = 300
MOST_RETRY: Final = 3600
#: Ended sessions of one person that are stored singly. Beyond that number the person is signed
#: out everywhere, which takes one entry: signing in and out in a loop costs no memory.
MOST_OF_ONE: Final = 64
#: The same for all persons together: beyond it everyone must sign in again.
MOST_OF_ALL: Final = 100_000
_FIRST_LOOK: Final = 1024
#: Accounts blocked for what Tailchat says of them. Beyond that number the gate forgets the oldest,
#: and learns of them again when they return.
MOST_BLOCKED: Final = 100_000

# Globals: see reasons.py.
_LOCKED, _SESSION_ENDED = Reason.LOCKED, Reason.SESSION_ENDED
_MAINTENANCE: Final = Reason.MAINTENANCE
_SESSION_REVOKED: Final = Reason.SESSION_REVOKED


@dataclass(frozen=True, slots=True)
class Lock:
    """Locks out `target`: `sub:ID`, `token:NAME` or `all`; times are Unix seconds.

    `until` is None if only an Unlock ends it. `message` is shown to locked-out visitors.
    """

    target: str
    at: int
    until: int | None = None
    message: str = ""

    @property
    def reason(self) -> Reason:
        """The reason shown: a lock on `all` accuses nobody, so it is called maintenance."""
        return _MAINTENANCE if self.target == ALL else _LOCKED

    def retry_after(self, now: float) -> int:
        """Return the seconds for Retry-After (RFC 9110 section 10.2.3)."""
        if self.until is None:
            return RETRY_MAINTENANCE
        return min(max(math.ceil(self.until - now), 1), MOST_RETRY)


@dataclass(frozen=True, slots=True)
class Unlock:
    """Ends the lock on `target`."""

    target: str
    at: int


@dataclass(frozen=True, slots=True)
class EndedSession:
    """Ends one sign-in on every host; `until` is when its last session would have expired.

    `revoked`: Tailchat no longer confirms it.
    """

    sid: str
    sub: str
    at: int
    until: int
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class SignedOut:
    """Ends all sign-ins of `target` (`sub:ID` or `all`) up to the second `at`."""

    target: str
    at: int
    until: int


Entry = Lock | Unlock | EndedSession | SignedOut


class Rejection(NamedTuple):
    """Why a session or a token is rejected.

    `record` is the session's, None for a token. `lock` is the lock in force, None for any other
    reason. `retry_after` is in how many seconds it may be valid again, 0 if that is unknown.
    """

    reason: Reason
    record: SessionRecord | None
    lock: Lock | None
    retry_after: int = 0


_NONE: Final[Mapping[str, EndedSession]] = MappingProxyType({})


class SessionHolder(Protocol):
    """The holder of a session or a token that may have ended."""

    def ended_because(self, revocation: "RevocationState", now: float) -> Reason | None:
        """Return why it has ended at the Unix second `now`, None if it has not."""


class RevocationState:
    """Locks and ended sessions, in the memory of one process.

    `clock` gives Unix seconds. `version` grows with every change. A session that was valid at some
    version needs no new check while the version is the same, because only a change can end it
    early.
    """

    __slots__ = (
        *("_clock", "_count", "_ended", "_blocked", "_locks", "_look_at", "_signed_out"),
        "version",
    )

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._locks: dict[str, Lock] = {}
        self._signed_out: dict[str, SignedOut] = {}
        #: By sub, then by sid.
        self._ended: dict[str, dict[str, EndedSession]] = {}
        #: By sub: why the account may enter no tool.
        self._blocked: dict[str, Reason] = {}
        self._count = 0
        #: The number of entries at which expired ones are removed next.
        self._look_at = _FIRST_LOOK
        self.version = 0

    def __repr__(self) -> str:
        """Numbers only."""
        return f"<RevocationState {len(self._locks)} locks, {self._count} sessions over>"

    def check(self, record: SessionRecord) -> Reason | None:
        """Return why a session was revoked, None if it was not.

        LOCKED, MAINTENANCE, one of BLOCKED, SESSION_ENDED or SESSION_REVOKED.
        """
        sub = record.sub
        if self._locks and (lock := self.lock_on(sub)) is not None:
            return lock.reason
        if self._blocked and sub in self._blocked:
            return self._blocked[sub]
        ended = self._ended.get(sub, _NONE).get(record.sid)
        if ended is not None:
            return _SESSION_REVOKED if ended.revoked else _SESSION_ENDED
        return _SESSION_ENDED if record.signed_in_at <= self.signed_out_at(sub) else None

    def bar(self, record: SessionRecord) -> Rejection | None:
        """Return the rejection of a session, None if it is valid."""
        lock = self.lock_on(record.sub)
        reason = self.check(record) if lock is None else lock.reason
        return None if reason is None else Rejection(reason, record, lock)

    def lock_on(self, sub: str) -> Lock | None:
        """Return the lock on a person, None if there is none."""
        return self._in_force(SUB + sub) or self._in_force(ALL)

    def lock_on_token(self, name: str) -> Lock | None:
        """Return the lock on a machine, None if there is none."""
        return self._in_force(TOKEN + name) or self._in_force(ALL)

    def maintenance(self) -> Rejection | None:
        """Return the rejection of everybody, signed in or not; None without a lock on all."""
        lock = self._in_force(ALL)
        return None if lock is None else Rejection(_MAINTENANCE, None, lock)

    def set_blocked(self, sub: str, reason: Reason | None) -> bool:
        """Keep an account out for what Tailchat says of it, None: no longer; return a change."""
        if self._blocked.get(sub) is reason:
            return False
        self._blocked.pop(sub, None)
        if reason is not None:
            self._blocked[sub] = reason
            if len(self._blocked) > MOST_BLOCKED:
                del self._blocked[next(iter(self._blocked))]
        self.version += 1
        return True

    def blocked(self) -> dict[str, Reason]:
        """Return the accounts that are refused for what Tailchat says about them, by sub."""
        return dict(self._blocked)

    def signed_out_at(self, sub: str) -> int:
        """Return the Unix second up to which a person's sign-ins have ended, -1 for none."""
        if not self._signed_out:
            return -1
        entries = [self._signed_out.get(target) for target in (SUB + sub, ALL)]
        return max((entry.at for entry in entries if entry is not None), default=-1)

    def second_for(self, sub: str, now: float) -> float:
        """Return the latest Unix second at which a person's session may have begun.

        It is `now`, with one exception: if the clock was set back to before a sign-out everywhere,
        a new session gets the second after that sign-out, which is still in the future.
        """
        return max(now, self.signed_out_at(sub))

    @property
    def locks(self) -> tuple[Lock, ...]:
        """The locks in force, by target."""
        in_force = (self._in_force(target) for target in sorted(self._locks))
        return tuple(lock for lock in in_force if lock is not None)

    def apply(self, entry: Entry) -> bool:
        """Apply an entry; return whether it changed anything."""
        match entry:
            case Lock():
                changed = self._locks.get(entry.target) != entry
                self._locks[entry.target] = entry
            case Unlock():
                changed = self._locks.pop(entry.target, None) is not None
            case EndedSession():
                changed = self._end(entry)
            case SignedOut():
                changed = self._sign_out(entry)
        self.version += changed
        return changed

    def renew(self, entries: Sequence[Entry], *, doubtful: bool = False) -> list[Entry]:
        """Replace the state by a full replay of the history; return what it changed.

        The history decides which locks are in force. Ended sessions stay ended, even if the history
        lacks them. A `doubtful` history may have lost locks: only its Unlock entries lift locks.
        """
        read = RevocationState(self._clock)
        for entry in entries:
            read.apply(entry)
        known = set(read._locks)
        if doubtful:
            unlocked = {entry.target for entry in entries if isinstance(entry, Unlock)}
            known |= self._locks.keys() - unlocked
        now = int(self._clock())
        lifted = [Unlock(lock.target, now) for lock in self.locks if lock.target not in known]
        # A lock that has expired by this clock may be in force by another: remove it as well.
        for target in self._locks.keys() - known - {entry.target for entry in lifted}:
            del self._locks[target]
        return [entry for entry in (*lifted, *read.entries()) if self.apply(entry)]

    def touch(self) -> None:
        """Make every session be checked again, because one may no longer be in the store."""
        self.version += 1

    def entries(self) -> list[Entry]:
        """Return the shortest history of this state, without entries that expired long ago."""
        self._forget()
        ended = (entry for sessions in self._ended.values() for entry in sessions.values())
        return [*self._locks.values(), *self._signed_out.values(), *ended]

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget everything about a person; without `in_force` only what has expired."""
        before = math.inf if in_force else self._clock()
        self._forget_of(sub, before)
        target = SUB + sub
        out, lock = self._signed_out.get(target), self._locks.get(target)
        if out is not None and out.until <= before:
            del self._signed_out[target]
        if lock is not None and (in_force or (lock.until is not None and lock.until <= before)):
            del self._locks[target]
        self.version += 1

    def _in_force(self, target: str) -> Lock | None:
        lock = self._locks.get(target)
        if lock is None or (lock.until is not None and self._clock() >= lock.until):
            return None
        return lock

    def _end(self, entry: EndedSession) -> bool:
        covering = (self._signed_out.get(target) for target in (SUB + entry.sub, ALL))
        if any(
            signed_out and signed_out.at >= entry.at and signed_out.until >= entry.until
            for signed_out in covering
        ):
            return False
        if entry.sid in self._ended.get(entry.sub, ()):
            return False
        self._ended.setdefault(entry.sub, {})[entry.sid] = entry
        self._count += 1
        if self._count >= self._look_at:
            self._forget()
            self._look_at = max(_FIRST_LOOK, 2 * self._count)
        if len(self._ended.get(entry.sub, ())) > MOST_OF_ONE:
            self._forget_of(entry.sub, self._clock())
        if self._count > MOST_OF_ALL:
            self._forget(kept_after=0)
        if len(self._ended.get(entry.sub, ())) > MOST_OF_ONE:
            self._sign_out(SignedOut(SUB + entry.sub, entry.at, entry.until))
        elif self._count > MOST_OF_ALL:
            self._sign_out(SignedOut(ALL, entry.at, entry.until))
        return True

    def _sign_out(self, entry: SignedOut) -> bool:
        subs = tuple(self._ended) if entry.target == ALL else (entry.target.removeprefix(SUB),)
        covered = [ended for sub in subs for ended in self._ended.pop(sub, {}).values()]
        self._count -= len(covered)
        known = self._signed_out.get(entry.target, entry)
        at = max(entry.at, known.at, *(ended.at for ended in covered))
        until = max(entry.until, known.until, *(ended.until for ended in covered))
        merged = SignedOut(entry.target, at, until)
        changed = self._signed_out.get(entry.target) != merged
        self._signed_out[entry.target] = merged
        return changed

    def _forget(self, kept_after: int = EXPIRY_MARGIN) -> None:
        """Drop sessions that expired more than `kept_after` seconds ago, and locks a day later.

        Locks are few, so they are never dropped early to save memory.
        """
        now = self._clock()
        for target, lock in tuple(self._locks.items()):
            if lock.until is not None and lock.until <= now - EXPIRY_MARGIN:
                del self._locks[target]
        for target, out in tuple(self._signed_out.items()):
            if out.until <= now - kept_after:
                del self._signed_out[target]
        for sub in tuple(self._ended):
            self._forget_of(sub, now - kept_after)

    def _forget_of(self, sub: str, before: float) -> None:
        """Drop the sessions of a person that expired before the Unix second `before`."""
        sessions = self._ended.get(sub, {})
        over = [sid for sid, entry in sessions.items() if entry.until <= before]
        for sid in over:
            del sessions[sid]
        self._count -= len(over)
        if not sessions:
            self._ended.pop(sub, None)
