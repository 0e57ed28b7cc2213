"""Who is kept out, and which sessions are over: what is known of it, and what it means for one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from tailchat_gate.config.values.identifier import SUB, TOKEN
from tailchat_gate.identity.sessions.session import SessionRecord
from tailchat_gate.reasons import Reason

#: The target of a lock that keeps everybody out, persons and machines.
ALL: Final = "all"
#: Sessions of one person that are remembered singly as over. Whoever ends more of them is signed
#: out everywhere instead, which one entry tells: signing in and out in a loop costs no memory.
MOST_OF_ONE: Final = 64
#: The same of all persons together: beyond it everybody signs in anew.
MOST_OF_ALL: Final = 100_000
_FIRST_LOOK: Final = 1024
#: Seconds for which an entry is kept after its time: a clock that ran ahead may be set back, and
#: what was dropped meanwhile would be good again.
KEPT_AFTER: Final = 86_400

# Names of their own, because an enum's attribute costs ten times a global.
_LOCKED, _SESSION_ENDED = Reason.LOCKED, Reason.SESSION_ENDED
_SESSION_REVOKED: Final = Reason.SESSION_REVOKED


@dataclass(frozen=True, slots=True)
class Lock:
    """Keeps out `target`: `sub:ID`, `token:NAME` or `all`; times are Unix seconds.

    `until` is None where only an Unlock ends it. `message` is for who is kept out.
    """

    target: str
    at: int
    until: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Unlock:
    """Ends the lock on `target`."""

    target: str
    at: int


@dataclass(frozen=True, slots=True)
class EndedSession:
    """One sign-in is over, on every host; `until` is when its last session would have ended.

    `revoked`: Tailchat does not stand by it any more.
    """

    sid: str
    sub: str
    at: int
    until: int
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class SignedOut:
    """All that `target` (`sub:ID` or `all`) signed in up to the second `at` is over."""

    target: str
    at: int
    until: int


Entry = Lock | Unlock | EndedSession | SignedOut


class Rejection(NamedTuple):
    """A session or a token that is no good, and why.

    `record` is that of the session, None for a token; `lock` is None where no lock is why. In
    `retry_after` seconds it may be good again, 0 where that is not known.
    """

    reason: Reason
    record: SessionRecord | None
    lock: Lock | None
    retry_after: int = 0


_NONE: Final[Mapping[str, EndedSession]] = MappingProxyType({})


class SessionHolder(Protocol):
    """Who has a session or a token that may be over."""

    def ended_because(self, revocation: "RevocationState", now: float) -> Reason | None:
        """Return why it is no good at the Unix second `now`; None where it is."""


class RevocationState:
    """What is known of locks and ended sessions, in the memory of one process.

    `clock` gives Unix seconds. `version` grows with every change, so that a session once found
    good need not be looked at again while the number is the same: what is good turns bad by a
    change alone.
    """

    __slots__ = ("_clock", "_count", "_ended", "_locks", "_look_at", "_signed_out", "version")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._locks: dict[str, Lock] = {}
        self._signed_out: dict[str, SignedOut] = {}
        #: By sub, then by sid.
        self._ended: dict[str, dict[str, EndedSession]] = {}
        self._count = 0
        #: How many are kept before those whose time is over are looked for.
        self._look_at = _FIRST_LOOK
        self.version = 0

    def __repr__(self) -> str:
        """Numbers only."""
        return f"<RevocationState {len(self._locks)} locks, {self._count} sessions over>"

    def check(self, record: SessionRecord) -> Reason | None:
        """Return why a session is no longer good; None where it is.

        LOCKED, SESSION_ENDED or SESSION_REVOKED.
        """
        sub = record.sub
        if self._locks and self.lock_on(sub) is not None:
            return _LOCKED
        ended = self._ended.get(sub, _NONE).get(record.sid)
        if ended is not None:
            return _SESSION_REVOKED if ended.revoked else _SESSION_ENDED
        return _SESSION_ENDED if record.signed_in_at <= self.signed_out_at(sub) else None

    def bar(self, record: SessionRecord) -> Rejection | None:
        """Return what stands against a session, None where it is good."""
        lock = self.lock_on(record.sub)
        reason = self.check(record) if lock is None else _LOCKED
        return None if reason is None else Rejection(reason, record, lock)

    def lock_on(self, sub: str) -> Lock | None:
        """Return the lock that keeps a person out, None where there is none."""
        return self._in_force(SUB + sub) or self._in_force(ALL)

    def lock_on_token(self, name: str) -> Lock | None:
        """Return the lock that keeps a machine out, None where there is none."""
        return self._in_force(TOKEN + name) or self._in_force(ALL)

    def signed_out_at(self, sub: str) -> int:
        """Return the Unix second up to which everything a person signed in is over, or -1."""
        found = [self._signed_out.get(target) for target in (SUB + sub, ALL)]
        return max((one.at for one in found if one is not None), default=-1)

    def second_for(self, sub: str, now: float) -> float:
        """Return the Unix second up to which a session of a person may have begun.

        It is `now`; but who signs in after the clock was set back behind a sign-out of everything
        gets the second after that one, which is yet to come.
        """
        return max(now, self.signed_out_at(sub))

    @property
    def locks(self) -> tuple[Lock, ...]:
        """The locks in force, by target."""
        found = (self._in_force(target) for target in sorted(self._locks))
        return tuple(lock for lock in found if lock is not None)

    def apply(self, entry: Entry) -> bool:
        """Take in an entry; return whether it changed anything."""
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
        """Take in a whole history that was read anew; return what it changed.

        Locks are then as it says. What is over stays over, whether it says so or not. A `doubtful`
        history may have lost locks: it lifts those alone that it says were lifted.
        """
        read = RevocationState(self._clock)
        for entry in entries:
            read.apply(entry)
        kept = set(read._locks)
        if doubtful:
            unlocked = {entry.target for entry in entries if isinstance(entry, Unlock)}
            kept |= self._locks.keys() - unlocked
        now = int(self._clock())
        lifted = [Unlock(lock.target, now) for lock in self.locks if lock.target not in kept]
        # A lock whose time is over by this clock may be in force by another: it goes as well.
        for target in self._locks.keys() - kept - {entry.target for entry in lifted}:
            del self._locks[target]
        return [entry for entry in (*lifted, *read.entries()) if self.apply(entry)]

    def entries(self) -> list[Entry]:
        """Return the shortest history that leads here, without what ended long ago."""
        self._forget()
        ended = (entry for sessions in self._ended.values() for entry in sessions.values())
        return [*self._locks.values(), *self._signed_out.values(), *ended]

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget everything about a person; without `in_force` what has expired alone."""
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
        if any(one and one.at >= entry.at and one.until >= entry.until for one in covering):
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
        covered = [one for sub in subs for one in self._ended.pop(sub, {}).values()]
        self._count -= len(covered)
        known = self._signed_out.get(entry.target, entry)
        at = max(entry.at, known.at, *(one.at for one in covered))
        until = max(entry.until, known.until, *(one.until for one in covered))
        found = SignedOut(entry.target, at, until)
        changed = self._signed_out.get(entry.target) != found
        self._signed_out[entry.target] = found
        return changed

    def _forget(self, kept_after: int = KEPT_AFTER) -> None:
        """Drop what time ended so many seconds ago; locks, which few write, a day ago at least."""
        now = self._clock()
        for target, lock in tuple(self._locks.items()):
            if lock.until is not None and lock.until <= now - KEPT_AFTER:
                del self._locks[target]
        for target, out in tuple(self._signed_out.items()):
            if out.until <= now - kept_after:
                del self._signed_out[target]
        for sub in tuple(self._ended):
            self._forget_of(sub, now - kept_after)

    def _forget_of(self, sub: str, before: float) -> None:
        """Drop the sessions of a person whose time was over at the Unix second `before`."""
        sessions = self._ended.get(sub, {})
        over = [sid for sid, entry in sessions.items() if entry.until <= before]
        for sid in over:
            del sessions[sid]
        self._count -= len(over)
        if not sessions:
            self._ended.pop(sub, None)
