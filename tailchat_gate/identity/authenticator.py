"""Finds the visitor of a request; caches opened session cookies."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.identity.recheck import NoRecheck, Rechecks, UndecidedError
from tailchat_gate.identity.revocation.state import Rejection, RevocationState
from tailchat_gate.identity.sessions.cookie_fields import CookieReader
from tailchat_gate.identity.sessions.record import SessionRecord
from tailchat_gate.identity.sessions.session_cookie import SessionCookie, SessionTooLargeError
from tailchat_gate.identity.sessions.ticket import Ticket
from tailchat_gate.reasons import BLOCKED, Reason
from tailchat_gate.request.fields import FieldSection

#: Opened sessions in the cache, of all hosts together; each takes about 2 KiB, and about 1 KiB
#: for each tool that gets a signed identity.
CAPACITY: Final = 20_000
#: The cache's size in bytes, without the fields for tools: about 25,000 sessions of usual length.
MAX_BYTES = 96 << 20


class _Waiting(NamedTuple):
    """An opened cookie that waits for Tailchat's answer, so that it is not opened a second time.

    It is returned up to the caller's exception, because a raise costs much in each compiled frame.
    """

    by: "Authenticator"
    value: str
    record: SessionRecord


class Visitor:
    """A signed-in visitor: the session's record, and what the gate prepared from it.

    Times are Unix seconds. The record expires at `expires_at` unless it is renewed; the session
    expires at `ends_at` in any case. From `good_from` to `good_until` the session needs no new
    check; a clock that is set back voids this. `outdated`: the cookie lacks something that the
    record has. `revocation` is the version of the revocation state at the last check.
    `identity_headers` caches the header bytes of a session, by the route's name. `assertions` does
    the same for signed assertions: (signer, valid from, valid until, bytes). Both were made for the
    groups in `groups_of`.
    `opened` is the ticket that the cookie holds, None if it holds the record.
    `rechecks` is consulted about the session while a request is active, but not before
    `quiet_until`. `email` is the address for tools, "" for none.
    """

    __slots__ = (
        "assertions",
        "email",
        "ends_at",
        "expires_at",
        "good_from",
        "good_until",
        "groups_of",
        "identity_headers",
        "opened",
        "outdated",
        "quiet_until",
        "rechecks",
        "record",
        "revocation",
    )

    # Written out, because the constructor of a dataclass is not compiled.
    def __init__(
        self,
        record: SessionRecord,
        expires_at: float,
        ends_at: float,
        *,
        rechecks: Rechecks | None = None,
        email: str = "",
    ) -> None:
        self.record = record
        self.expires_at = expires_at
        self.ends_at = ends_at
        self.good_from = 0.0
        self.good_until = 0.0
        self.outdated = False
        self.revocation = -1
        self.identity_headers: dict[str, bytes] = {}
        self.assertions: dict[str, tuple[object, float, float, bytes]] = {}
        self.groups_of: Mapping[str, frozenset[str]] | None = None
        self.rechecks: Rechecks = rechecks or NoRecheck()
        self.quiet_until = 0.0
        self.email = email
        self.opened: Ticket | None = None

    def ended_because(self, revocation: RevocationState, now: float) -> Reason | None:
        """Return why the session has ended at the Unix second `now`, None if it has not.

        NOT_SIGNED_IN: its lifetime has ended. The idle lifetime does not count here: an active
        request is use of the session. Asks Tailchat when a recheck is due, as for a new request.
        """
        if now >= self.ends_at:
            return Reason.NOT_SIGNED_IN
        if self.revocation != revocation.version:
            reason = revocation.check(self.record)
            if reason is not None:
                return reason
            if self.opened is not None:
                # Its session may no longer be in the store.
                self.good_until = self.quiet_until = 0.0
            self.revocation = revocation.version
        if self.good_from <= now < max(self.good_until, self.quiet_until):
            return None
        # The next request applies what this look returned, so good_until does not change.
        look = self.rechecks.look(self.opened or self.record, now)
        self.quiet_until = look.until
        return look.refused.reason if look.refused is not None else None


class SessionCache(BoundedCache["tuple[Authenticator, str]", Visitor]):
    """Opened cookies, by the host's Authenticator and the cookie's value.

    Holds at most `capacity` of them and MAX_BYTES. All hosts share one cache, because one person
    can have any number of valid cookies, on any number of hosts below a wildcard.
    """

    __slots__ = ()

    def __init__(self, capacity: int = CAPACITY) -> None:
        least = MAX_BYTES // capacity
        # About what an entry takes: the value, its record, the visitor.
        super().__init__(MAX_BYTES, cost=lambda key, _: max(least, 2048 + 3 * len(key[1])))


class Authenticator:
    """Finds the visitor of a request by its Cookie fields.

    `opened` caches opened cookies; other hosts may share it. Every request checks again whether
    the session is alive and its owner not locked out. Cookies that do not open are not cached, so
    that junk cannot evict sessions. `rechecks` knows what happened to a session since its cookie
    was sealed. `save` stores the session when its cookie is replaced by a ticket; None if cookies
    are no tickets.
    """

    def __init__(
        self,
        cookie: SessionCookie,
        clock: Callable[[], float],
        revocation: RevocationState,
        *,
        opened: SessionCache | None = None,
        reader: CookieReader | None = None,
        rechecks: Rechecks | None = None,
        save: Callable[[SessionRecord], object] | None = None,
    ) -> None:
        self._save = save
        self._cookie = cookie
        self._clock = clock
        self._revocation = revocation
        self._reader = reader or CookieReader(cookie.names)
        self._rechecks = rechecks or NoRecheck()
        self._opened = SessionCache() if opened is None else opened

    def visitor_of(self, section: FieldSection) -> Visitor | None:
        """Return the visitor of a request with this header section, or None.

        The section caches the result; whether the session is alive is checked again.
        Raises UndecidedError if Tailchat must be asked first.
        """
        known = section.visitor
        if known is not None and known[0] is self:
            visitor: Visitor = known[1]
            if visitor.good_from <= self._clock() < visitor.good_until and (
                visitor.revocation == self._revocation.version or self._is_in_force(visitor)
            ):
                return visitor
        judged = self._after_waiting(known) or self._find(section.cookies)
        if isinstance(judged, _Waiting):
            section.visitor = (judged, None)
            raise UndecidedError(judged.record)
        section.visitor = None if judged is None else (self, judged)
        return judged

    def _find(self, fields: Sequence[bytes]) -> Visitor | _Waiting | None:
        """Return the visitor in the raw Cookie values of a request.

        If several cookies have the name, the first valid one counts, so a planted cookie beside it
        does no harm.
        """
        for cookie_field in fields:
            for value in self._reader.session_values(cookie_field):
                visitor = self._open(value)
                if visitor is not None:
                    return visitor
        return None

    def explain_rejection(self, section: FieldSection) -> Rejection | None:
        """Explain why `visitor_of` rejected a request that carries a session.

        Returns None if the request carries no session and there is no maintenance.
        """
        now = self._clock()
        living = self._cookie.living_in(
            section.cookies,
            self._reader,
            lambda record: self._revocation.second_for(record.sub, now),
        )
        for record in living:
            rejection = self._revocation.bar(record)
            if rejection is not None:
                if rejection.reason in BLOCKED:
                    # Otherwise the gate would never ask again whether Tailchat lets them in.
                    self._rechecks.look(record, now)
                return rejection
            refused = self._rechecks.look(record, now).refused
            if refused is not None:
                return Rejection(refused.reason, record, None, refused.retry_after)
        return self._revocation.maintenance()

    def opens(self, section: FieldSection, record: SessionRecord) -> bool:
        """Whether a cookie of the request holds the session of `record`, expired or not."""
        records = self._cookie.records_in(section.cookies, self._reader)
        return any(other.sid == record.sid for other in records)

    def renewal(self, visitor: Visitor) -> str | None:
        """Return the Set-Cookie value that renews the visitor's session, None if none is due."""
        due = self._cookie.lifetimes.renewal_due(visitor.record, self._clock())
        if not due and not visitor.outdated:
            return None
        if self._save is not None and visitor.opened is None:
            self._save(visitor.record)
        try:
            return self._cookie.renew(visitor.record)
        except SessionTooLargeError:
            # The newer name and picture do not fit: the browser keeps its cookie.
            return None

    def _after_waiting(self, known: tuple[object, object] | None) -> Visitor | _Waiting | None:
        """Return the visitor of a request that waited for Tailchat's answer, else None."""
        waited = known[0] if known is not None else None
        if not isinstance(waited, _Waiting) or waited.by is not self:
            return None
        return self._open(waited.value, waited.record)

    def _is_in_force(self, visitor: Visitor) -> bool:
        """Whether a visitor is not locked out; caches the answer for this revocation version."""
        revocation = self._revocation
        if visitor.revocation != revocation.version:
            # The session of a ticket may no longer be in the store: `_admit` checks that.
            if visitor.opened is not None or revocation.check(visitor.record) is not None:
                return False
            visitor.revocation = revocation.version
        return True

    def _is_alive(self, record: SessionRecord, now: float) -> bool:
        return self._cookie.lifetimes.is_alive(record, self._revocation.second_for(record.sub, now))

    def _open(self, value: str, record: SessionRecord | None = None) -> Visitor | _Waiting | None:
        """Return the visitor of a cookie; `record` is its content, if already known."""
        visitor = self._opened.get((self, value))
        if visitor is None:
            record = record or self._cookie.open(value)
            return None if record is None else self._admit(value, record)
        if visitor.good_from <= self._clock() < visitor.good_until and self._is_in_force(visitor):
            return visitor
        admitted = self._admit(value, visitor.opened or visitor.record, visitor)
        # While Tailchat is asked, it stays: it may know what the cookie lacks.
        if admitted is None:
            self._opened.drop((self, value))
        return admitted

    def _admit(
        self, value: str, record: SessionRecord, before: Visitor | None = None
    ) -> Visitor | _Waiting | None:
        """Return the visitor of a record if it is valid; `before` is the cached one."""
        now, lifetimes = self._clock(), self._cookie.lifetimes
        if not self._is_alive(record, now) or self._revocation.check(record) is not None:
            return None
        look = self._rechecks.look(record, now)
        if look.waits:
            return _Waiting(self, value, record)
        if look.refused is not None:
            return None
        expires_at = lifetimes.expires_at(record)
        good_until = min(expires_at, look.until)
        is_same = look.record is record or (before is not None and look.record == before.record)
        if before is not None and is_same and look.email == before.email:
            visitor = before
        else:
            ends_at = lifetimes.ends_at(record)
            visitor = Visitor(
                look.record, expires_at, ends_at, rechecks=self._rechecks, email=look.email
            )
            outdated = before is not None and before.outdated
            outdated = outdated or (look.record is not record and not look.renamed)
            visitor.outdated = outdated or (before is None and not self._cookie.makes(record))
            visitor.opened = record if isinstance(record, Ticket) else None
        visitor.good_from, visitor.good_until = now, good_until
        visitor.revocation = self._revocation.version
        self._opened.keep((self, value), visitor)
        return visitor
