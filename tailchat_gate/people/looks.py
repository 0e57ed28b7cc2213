"""Returns what is known about a session and its person, for every request; never waits."""

import asyncio
from dataclasses import replace
from typing import Final

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.recheck import RecheckRefused, RecheckResult
from tailchat_gate.identity.rechecker import PatientRechecks, Rechecker
from tailchat_gate.identity.sessions.session import SessionRecord, Ticket
from tailchat_gate.identity.stored_sessions import SEEN_SECONDS, SessionVault
from tailchat_gate.people.facts import is_asked
from tailchat_gate.people.watch import PeopleWatch
from tailchat_gate.reasons import Reason
from tailchat_gate.state.store import Store

#: Tickets whose session was not found, with the number of looks.
_GONE: Final = 10_000
#: Seconds after a sign-in in which one look is not enough, and how many are: another gate may have
#: to write it a second time.
_YOUNG_SECONDS: Final = 10.0
_YOUNG_LOOKS: Final = 8
_ENDED: Final = RecheckRefused(Reason.SESSION_ENDED)
_AWAY: Final = RecheckRefused(Reason.SESSION_STORE_AWAY, 5)


class TicketLooks:
    """Finds the session of a ticket, and passes it to `inner`; never waits.

    A session that this process does not know may have begun at another one just now: its request
    waits until the store was read once more. If the store cannot be read then, it is refused with
    503: a sign-in would lead back here.
    """

    def __init__(self, inner: PatientRechecks, vault: SessionVault, store: Store) -> None:
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
        found = self.inner.look(record.applied_to(stored), now)
        self._vault.stored.note_use(record.sid, int(now))
        until = min(found.until, now + SEEN_SECONDS)
        # The browser's ticket stays as it is, whatever is new; unless cookies hold sessions again.
        return found._replace(until=until, renamed=self._vault.holds_sessions)

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


class PeopleLooks:
    """Adds the current name, picture and address of a person to what is known of their session.

    `rechecker` knows the session, `watch` the person. Who is kept out is in the revocation state,
    which is consulted first.
    """

    def __init__(self, rechecker: Rechecker, watch: PeopleWatch) -> None:
        self.rechecker: Final = rechecker
        self._watch = watch
        self._refresh = watch.terms.refresh

    def look(self, record: SessionRecord, now: float) -> RecheckResult:
        """Return the state of a session at `now`; ask Tailchat if that is due."""
        found = self.rechecker.look(record, now)
        if not self._refresh or not is_asked(record.sub):
            return found
        person = self._watch.look(record.sub)
        newest = found.record
        # Tailchat may have confirmed the session since, with a newer name.
        if person.facts is not None and person.told_at >= _told_at(newest):
            newest = _renamed(newest, person.facts.profile)
        return RecheckResult(
            # The same object where nothing is new: then the visitor's headers stay.
            record if newest is record or newest == record else newest,
            min(found.until, now + self._refresh),
            found.refused,
            found.waits or person.waits,
            self._watch.address(person.facts),
            renamed=found.record is record,
        )

    def settled(self, record: SessionRecord) -> "asyncio.Future[None]":
        """Return a future that is done once `look` has more to say about a waiting session.

        All waiting requests share it: do not cancel it.
        """
        return self._watch.settled(record.sub) or self.rechecker.settled(record)

    def close(self) -> None:
        """Ask nothing more about sessions; waiting requests proceed without an answer."""
        self.rechecker.close()


def _told_at(record: SessionRecord) -> int:
    """Return the Unix second in which Tailchat told the names of a session."""
    return max(record.signed_in_at, record.checked_at)


def _renamed(record: SessionRecord, profile: Profile) -> SessionRecord:
    names = (record.nickname, record.discriminator, record.avatar)
    if names == (profile.nickname, profile.discriminator, profile.avatar):
        return record
    return replace(
        record,
        nickname=profile.nickname,
        discriminator=profile.discriminator,
        avatar=profile.avatar,
    )
