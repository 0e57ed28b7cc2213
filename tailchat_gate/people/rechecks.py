"""Looks up the state of a session and of its person for each request, without waiting."""

import asyncio
from typing import Final

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.recheck import RecheckRefused, RecheckResult
from tailchat_gate.identity.rechecker import AwaitableRechecks, Rechecker
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.stored import SEEN_SECONDS, SessionVault
from tailchat_gate.identity.sessions.ticket import Ticket
from tailchat_gate.people.facts import is_askable
from tailchat_gate.people.watch import PeopleWatch
from tailchat_gate.reasons import Reason
from tailchat_gate.state.store import Store

#: How many tickets without a session are remembered.
_GONE: Final = 10_000
#: For so many seconds after a sign-in one look at the store is not enough but this many are,
#: because another gate may have to write the session a second time.
_YOUNG_SECONDS: Final = 10.0
_YOUNG_LOOKS: Final = 8
_ENDED: Final = RecheckRefused(Reason.SESSION_ENDED)
_AWAY: Final = RecheckRefused(Reason.SESSION_STORE_AWAY, 5)


class TicketRechecks:
    """Finds the session of a ticket, and passes it to `inner`; never waits.

    A session that this process does not know may just have begun at another process, so its request
    is held until the store was read once more. If the store cannot be read then, the request gets a
    503, because a new sign-in would lead to the same state.
    """

    def __init__(self, inner: AwaitableRechecks, vault: SessionVault, store: Store) -> None:
        self.inner: Final = inner
        self._vault = vault
        self._store = store
        self._gone: BoundedCache[str, int] = BoundedCache(_GONE)
        self._looking: dict[str, asyncio.Future[None]] = {}

    def look(self, record: SessionRecord, now: float) -> RecheckResult:
        """Return the state of a session at `now`."""
        if not isinstance(record, Ticket):
            return self.inner.look(record, now)
        stored = self._vault.find(record.sid)
        if stored is None or stored.sub != record.sub:
            return self._unknown(record, now)
        result = self.inner.look(record.applied_to(stored), now)
        self._vault.stored.note_use(record.sid, int(now))
        until = min(result.until, now + SEEN_SECONDS)
        # The browser keeps its ticket whatever is new, unless cookies hold sessions again.
        return result._replace(until=until, renamed=self._vault.holds_sessions)

    def settled(self, record: SessionRecord) -> "asyncio.Future[None]":
        """Return a future that is done once `look` has more to say about a waiting session.

        All waiting requests share it: do not cancel it.
        """
        if not isinstance(record, Ticket) or self._vault.find(record.sid) is not None:
            return self.inner.settled(record)
        looking = self._looking.get(record.sid)
        if looking is None:
            looking = self._looking[record.sid] = self._store.next_look()
            looking.add_done_callback(lambda _: self._looked(record.sid))
        return looking

    def close(self) -> None:
        """Ask nothing more; waiting requests proceed without an answer."""
        self.inner.close()

    def _looked(self, sid: str) -> None:
        del self._looking[sid]
        if not self._store.faults:
            self._gone.keep(sid, (self._gone.get(sid) or 0) + 1)

    def _unknown(self, record: SessionRecord, now: float) -> RecheckResult:
        is_young = now - record.signed_in_at < _YOUNG_SECONDS
        if (self._gone.get(record.sid) or 0) >= (_YOUNG_LOOKS if is_young else 1):
            return RecheckResult(record, now, _ENDED)
        if self._store.faults:
            return RecheckResult(record, now, _AWAY)
        return RecheckResult(record, now, waits=True)


class PeopleRechecks:
    """Adds the current name, picture and e-mail address of the person to the state of a session.

    `rechecker` knows the session, `watch` the person. Whether the person is blocked is in the
    revocation state, which is consulted before.
    """

    def __init__(self, rechecker: Rechecker, watch: PeopleWatch) -> None:
        self.rechecker: Final = rechecker
        self._watch = watch
        self._refresh = watch.terms.refresh

    def look(self, record: SessionRecord, now: float) -> RecheckResult:
        """Return the state of a session at `now`; ask Tailchat if that is due."""
        result = self.rechecker.look(record, now)
        if not self._refresh or not is_askable(record.sub):
            return result
        person = self._watch.look(record.sub)
        newest = result.record
        # Tailchat may have confirmed the session since, with a newer name.
        if person.facts is not None and person.facts_at >= _named_at(newest):
            newest = _renamed(newest, person.facts.profile)
        return RecheckResult(
            # The same object if nothing is new, so that the visitor's cached headers are used.
            record if newest is record or newest == record else newest,
            min(result.until, now + self._refresh),
            result.refused,
            result.waits or person.waits,
            self._watch.address(person.facts),
            renamed=result.record is record,
        )

    def settled(self, record: SessionRecord) -> "asyncio.Future[None]":
        """Return a future that is done once `look` has more to say about a waiting session.

        All waiting requests share it: do not cancel it.
        """
        return self._watch.settled(record.sub) or self.rechecker.settled(record)

    def close(self) -> None:
        """Ask nothing more about sessions; waiting requests proceed without an answer."""
        self.rechecker.close()


def _named_at(record: SessionRecord) -> int:
    """Return the Unix second at which Tailchat last gave the name in a session."""
    return max(record.signed_in_at, record.checked_at)


def _renamed(record: SessionRecord, profile: Profile) -> SessionRecord:
    names = (record.nickname, record.discriminator, record.avatar)
    if names == (profile.nickname, profile.discriminator, profile.avatar):
        return record
    return record.with_names_of(profile)
