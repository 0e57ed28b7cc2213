"""Ends sessions, and follows the locks and ended sessions of other processes."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from tailchat_gate.config.values.identifier import SUB
from tailchat_gate.identity.revocation.records import read_record, revocations, to_record
from tailchat_gate.identity.revocation.state import (
    ALL,
    EndedSession,
    Entry,
    Lock,
    RevocationState,
    SignedOut,
    Unlock,
)
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.observe.log import LOGGER_NAME
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.reasons import Reason
from tailchat_gate.state.store import Changes, Record, Store
from tailchat_gate.syntax import CLOCK_SKEW

#: Why sessions ended, as labels of metrics.
SIGNED_OUT: Final = "signed-out"
SIGNED_OUT_EVERYWHERE: Final = "signed-out-everywhere"
REVOKED: Final = "revoked"
BANNED: Final = "banned"
SESSION_ENDS: Final = (SIGNED_OUT, SIGNED_OUT_EVERYWHERE, REVOKED, BANNED)

#: Reasons about an account that do not depend on the configuration.
_ENDS_SIGN_INS: Final = frozenset((Reason.BANNED, Reason.ACCOUNT_DELETED))

_log: Final = logging.getLogger(LOGGER_NAME)


class Revocations:
    """Ends sessions: in this process at once, in all others within half a second.

    Create it before the store is opened. `clock` returns Unix seconds. `ended(sub, sid, at)` is
    called for each ended session; `sid` is "" if all that a person began by `at` have ended, and
    `sub` is "" too for those of everybody.
    """

    def __init__(
        self,
        revocation: RevocationState,
        store: Store,
        metrics: Metrics,
        clock: Callable[[], float],
        ended: Callable[[str, str, int], None] = lambda _sub, _sid, _at: None,
    ) -> None:
        self._ended = ended
        self.revocation: Final = revocation
        self.kind: Final = revocations(clock)
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._changed: Callable[[], None] = lambda: None
        store.follow(self)

    def start(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever a session or token may have been revoked or unlocked."""
        self._changed = changed

    async def end_session(self, record: SessionRecord, *, lifetime: float) -> None:
        """End the sign-in of a session on every host; returns once that is written.

        `lifetime` is how many seconds a session lasts at most.
        """
        at, until = self._span(record, lifetime)
        await self._put(EndedSession(record.sid, record.sub, at, until), SIGNED_OUT)

    def revoke(self, record: SessionRecord, *, lifetime: float) -> None:
        """End a sign-in that Tailchat no longer confirms, without waiting for the write."""
        at, until = self._span(record, lifetime)
        self._put_soon(EndedSession(record.sid, record.sub, at, until, revoked=True), REVOKED)

    async def sign_out_everywhere(self, record: SessionRecord, *, lifetime: float) -> None:
        """End every sign-in of the session's person on every host; returns once it is written."""
        at, until = self._span(record, lifetime)
        await self._put(SignedOut(SUB + record.sub, at, until), SIGNED_OUT_EVERYWHERE)

    async def order(self, entry: Lock | Unlock) -> None:
        """Apply an operator's lock or unlock in this process; returns once it is written.

        Call it only while the store has no fault: see `known`.
        """
        if self.revocation.apply(entry):
            _announce(entry)
            self._changed()
            await self._store.put((to_record(entry),))

    def set_blocked(self, sub: str, reason: Reason | None, *, lifetime: float) -> bool:
        """Keep an account out of this process for the reason from Tailchat; None lets it in again.

        Returns whether that changed anything. The sign-ins of a banned or deleted account also end
        everywhere, so that a restart while Tailchat is down does not bring them back.
        """
        if not self.revocation.set_blocked(sub, reason):
            return False
        if reason in _ENDS_SIGN_INS:
            at = int(self._clock())
            entry = SignedOut(SUB + sub, at, at + int(lifetime) + CLOCK_SKEW)
            self._put_soon(entry, BANNED)
        self._changed()
        return True

    def take(self, changes: Changes) -> None:
        """Apply what was read from the store."""
        entries: list[Entry] = []
        unreadable = 0
        for record in changes.records:
            entry = read_record(record)
            if entry is not None:
                entries.append(entry)
            unreadable += entry is None
        if unreadable:
            _log.error(
                "damaged records of locks or ended sessions are ignored",
                extra={"details": {"records": unreadable}},
            )
        if changes.complete:
            news = self.revocation.renew(entries, doubtful=changes.doubtful or unreadable > 0)
        else:
            news = [entry for entry in entries if self.revocation.apply(entry)]
        for entry in news:
            _announce(entry)
            self._note_end(entry)
        if news:
            self._changed()

    def known(self, *, lost: bool) -> Iterable[Record]:
        """Return the records that the store must hold.

        Includes locks only if the store has lost everything. Otherwise a record that was not read
        yet may have lifted them.
        """
        entries = self.revocation.entries()
        return [to_record(entry) for entry in entries if lost or not isinstance(entry, Lock)]

    def unsaved(self, *, last: bool) -> Iterable[Record]:
        """Return nothing: ended sessions are written at once."""
        del last
        return ()

    def erase(self, sub: str, *, in_force: bool) -> None:
        """Forget everything about a person; without `in_force`, except locks in force."""
        self.revocation.erase(sub, in_force=in_force)
        self._changed()

    def _note_end(self, entry: Entry) -> None:
        match entry:
            case EndedSession():
                self._ended(entry.sub, entry.sid, entry.at)
            case SignedOut():
                self._ended(entry.target.removeprefix(SUB) * (entry.target != ALL), "", entry.at)

    def _span(self, record: SessionRecord, lifetime: float) -> tuple[int, int]:
        # By another machine's clock the session may have begun in the future.
        at = max(int(self._clock()), record.signed_in_at)
        return at, at + int(lifetime) + CLOCK_SKEW

    def _put(self, entry: Entry, why: str) -> Awaitable[None]:
        """Apply an entry; the result is done once it is written."""
        # A repetition is not written again, but waits for the first write.
        return self._put_soon(entry, why) or self._store.written()

    def _put_soon(self, entry: Entry, why: str) -> Awaitable[None] | None:
        """Apply an entry; return its write, for which nobody has to wait, None if there is none."""
        if not self.revocation.apply(entry):
            return None
        self._metrics.session_ended(why)
        self._note_end(entry)
        self._changed()
        return self._store.put((to_record(entry),))


def _announce(entry: Entry) -> None:
    """Log a lock or unlock."""
    if isinstance(entry, Lock):
        details = {"target": entry.target, "until": entry.until, "notice": entry.message}
        _log.info("a lock is in force", extra={"details": details})
    elif isinstance(entry, Unlock):
        _log.info("a lock is lifted", extra={"details": {"target": entry.target}})
