"""What is known of a session and its person, for every request; never waits."""

import asyncio
from dataclasses import replace
from typing import Final

from tailchat_gate.identity.oauth.responses import Profile
from tailchat_gate.identity.recheck import RecheckResult
from tailchat_gate.identity.rechecker import Rechecker
from tailchat_gate.identity.sessions.session import SessionRecord
from tailchat_gate.people.facts import is_asked
from tailchat_gate.people.watch import PeopleWatch


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
        """Return what is known of a session at `now`; Tailchat is asked if that is due."""
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
            record if newest == record else newest,
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
