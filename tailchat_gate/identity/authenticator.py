"""Who sends a request: the sealed session cookie opened once, its result kept for the next."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tailchat_gate.identity.recheck import NoRecheck, Rechecks, UndecidedError
from tailchat_gate.identity.revocation.state import Rejection, RevocationState
from tailchat_gate.identity.sessions.cookies import CookieReader
from tailchat_gate.identity.sessions.session import (
    SessionCookie,
    SessionRecord,
    SessionTooLargeError,
)
from tailchat_gate.reasons import Reason
from tailchat_gate.request.fields import FieldSection

#: Opened sessions kept, of all hosts together; about 2 KiB each, and some 1 KiB for each tool
#: that gets a signed identity.
CAPACITY: Final = 20_000
#: What they take at most, without the fields for tools: some 25,000 of the usual length.
MAX_BYTES: Final = 96 << 20


@dataclass(slots=True, eq=False)
class Visitor:
    """A signed-in visitor: what is known of the session, and what was prepared from it.

    `expires_at` is the Unix second at which the record is over if it is not renewed, `ends_at`
    the one at which the session is over in any case. From `good_from`, when it was looked at, to
    `good_until` it need not be looked at again; a clock that is set back ends that too.
    `outdated`: the cookie it came in says less. `revocation` is the version of what is known of
    locks under which the session was last found good. `identity_headers` maps a route's name to
    the header bytes made for it, so that they are made once a session and not once a request;
    `assertions` likewise, with an assertion in them and by whom, from when and until when they
    are good. `rechecks` is asked about the session while something is under way for it, not
    before `quiet_until`.
    """

    record: SessionRecord
    expires_at: float
    ends_at: float
    good_until: float = 0.0
    good_from: float = 0.0
    outdated: bool = False
    revocation: int = -1
    identity_headers: dict[str, bytes] = field(default_factory=dict)
    assertions: dict[str, tuple[object, float, float, bytes]] = field(
        default_factory=dict, repr=False
    )
    rechecks: Rechecks = field(default_factory=NoRecheck, repr=False)
    quiet_until: float = 0.0

    def ended_because(self, revocation: RevocationState, now: float) -> Reason | None:
        """Return why the session is no good at the Unix second `now`; None where it is.

        NOT_SIGNED_IN where its lifetime is over. That it was idle for too long is not asked: what
        is under way is use of it. Tailchat is asked where that is due, as for a request.
        """
        if now >= self.ends_at:
            return Reason.NOT_SIGNED_IN
        if self.revocation != revocation.version:
            reason = revocation.check(self.record)
            if reason is not None:
                return reason
            self.revocation = revocation.version
        if self.good_from <= now < max(self.good_until, self.quiet_until):
            return None
        # What is learned shows at the next request, which is why good_until stays.
        look = self.rechecks.look(self.record, now)
        self.quiet_until = look.until
        return look.turned_away.reason if look.turned_away is not None else None


class SessionCache:
    """The cookies that were opened, by the host's Authenticator and their value.

    The least recently used leaves first. One for all hosts, because one person can come by any
    number of good cookies on any number of hosts below a wildcard.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._size = 0
        self._kept: OrderedDict[tuple[Authenticator, str], Visitor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, host: "Authenticator", value: str) -> Visitor | None:
        """Return the visitor behind a cookie's value on a host, None where it is not kept."""
        return self._kept.get((host, value))

    def keep(self, host: "Authenticator", value: str, visitor: Visitor) -> None:
        """Keep a visitor, as the one that was used last."""
        key = (host, value)
        if key not in self._kept:
            self._size += _cost_of(value)
        self._kept[key] = visitor
        self._kept.move_to_end(key)
        while len(self._kept) > self._capacity or self._size > MAX_BYTES:
            (_, oldest), _ = self._kept.popitem(last=False)
            self._size -= _cost_of(oldest)

    def drop(self, host: "Authenticator", value: str) -> None:
        """Forget one."""
        del self._kept[host, value]
        self._size -= _cost_of(value)

    def forget(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._size = 0


def _cost_of(value: str) -> int:
    """Return about how many bytes a kept cookie takes: the value, the record in it, the visitor."""
    return 2048 + 3 * len(value)


class Authenticator:
    """Finds the visitor behind the Cookie fields of a request.

    Cookies that were opened are kept in `opened`, which may be that of other hosts too; whether one
    is still alive and its owner not kept out is asked again on every request. What does not open
    is not kept, so that junk cannot push out sessions. `rechecks` knows what became of a session
    since its cookie was sealed.
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
    ) -> None:
        self._cookie = cookie
        self._clock = clock
        self._revocation = revocation
        self._reader = reader or CookieReader(cookie.names)
        self._rechecks = rechecks or NoRecheck()
        self._opened = SessionCache() if opened is None else opened

    def visitor_of(self, section: FieldSection) -> Visitor | None:
        """Return the visitor of a request with this header section, or None.

        The answer is kept on the section, and asked again whether it is still alive.
        Raises UndecidedError where Tailchat has to be asked first.
        """
        known = section.visitor
        if known is not None and known[0] is self:
            visitor: Visitor = known[1]
            if visitor.good_from <= self._clock() < visitor.good_until and (
                visitor.revocation == self._revocation.version or self._stands(visitor)
            ):
                return visitor
        found = self.authenticate(section.cookies)
        section.visitor = None if found is None else (self, found)
        return found

    def authenticate(self, fields: Sequence[bytes]) -> Visitor | None:
        """Return the visitor of a request, or None.

        `fields` are the raw Cookie values. With several cookies of the name the first that is
        good counts: a planted one beside it costs the visitor nothing.
        Raises UndecidedError where Tailchat has to be asked first.
        """
        for value in self._values(fields):
            visitor = self._open(value)
            if visitor is not None:
                return visitor
        return None

    def explain_rejection(self, section: FieldSection) -> Rejection | None:
        """Return whose session a request comes with that `visitor_of` finds no visitor in, and why.

        It is for the answer: None where there is no session at all.
        """
        now = self._clock()
        for value in self._values(section.cookies):
            record = self._cookie.open(value)
            if record is None or not self._is_alive(record, now):
                continue
            rejection = self._revocation.bar(record)
            if rejection is not None:
                return rejection
            away = self._rechecks.look(record, now).turned_away
            if away is not None:
                return Rejection(away.reason, record, None, away.retry_after)
        return None

    def renewal(self, visitor: Visitor) -> str | None:
        """Return the Set-Cookie value that renews the visitor's session, where one is due."""
        due = self._cookie.lifetimes.renewal_due(visitor.record, self._clock())
        if not due and not visitor.outdated:
            return None
        try:
            return self._cookie.renew(visitor.record)
        except SessionTooLargeError:
            # Under the name and picture of by now: the cookie stays what it is.
            return None

    def _values(self, fields: Sequence[bytes]) -> Iterator[str]:
        for cookie_field in fields:
            yield from self._reader.session_values(cookie_field)

    def _stands(self, visitor: Visitor) -> bool:
        """Tell whether a visitor is not kept out, and remember that until something changes."""
        revocation = self._revocation
        if visitor.revocation != revocation.version:
            if revocation.check(visitor.record) is not None:
                return False
            visitor.revocation = revocation.version
        return True

    def _is_alive(self, record: SessionRecord, now: float) -> bool:
        return self._cookie.lifetimes.is_alive(record, self._revocation.second_for(record.sub, now))

    def _open(self, value: str) -> Visitor | None:
        visitor = self._opened.get(self, value)
        if visitor is None:
            record = self._cookie.open(value)
            return None if record is None else self._admit(value, record)
        if visitor.good_from <= self._clock() < visitor.good_until and self._stands(visitor):
            self._opened.keep(self, value, visitor)
            return visitor
        self._opened.drop(self, value)
        return self._admit(value, visitor.record, visitor)

    def _admit(
        self, value: str, record: SessionRecord, before: Visitor | None = None
    ) -> Visitor | None:
        """Return the visitor with a record where it is good; `before`: who it was so far."""
        now, lifetimes = self._clock(), self._cookie.lifetimes
        if not self._is_alive(record, now) or self._revocation.check(record) is not None:
            return None
        look = self._rechecks.look(record, now)
        if look.waits:
            raise UndecidedError(record)
        if look.turned_away is not None:
            return None
        expires_at = lifetimes.expires_at(record)
        good_until = min(expires_at, look.until)
        if before is not None and look.record is record:
            visitor = before
            visitor.good_from, visitor.good_until = now, good_until
        else:
            ends_at, outdated = lifetimes.ends_at(record), look.record is not record
            visitor = Visitor(
                look.record, expires_at, ends_at, good_until, now, outdated, rechecks=self._rechecks
            )
        visitor.revocation = self._revocation.version
        self._opened.keep(self, value, visitor)
        return visitor
