"""Who sends a request: the sealed session cookie opened once, its result kept for the next."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tailchat_gate.identity.cookie import CookieReader
from tailchat_gate.identity.locks import Barred, Standing
from tailchat_gate.identity.session import SessionCookie, SessionRecord
from tailchat_gate.reasons import Reason
from tailchat_gate.request.fields import FieldSection

#: Opened sessions kept; about 2 KiB each.
CAPACITY: Final = 10_000


@dataclass(slots=True, eq=False)
class Visitor:
    """A signed-in visitor: the record in the cookie, and what was prepared from it.

    `expires_at` is the Unix second at which the record is over if it is not renewed, `ends_at`
    the one at which the session is over in any case. `standing` is the version of what is known
    of locks under which the session was last found good. `identity_headers` maps a route's name to
    the header bytes made for it, so that they are made once a session and not once a request;
    `assertions` likewise, with an assertion in them and by whom and until when they are good.
    """

    record: SessionRecord
    expires_at: float
    ends_at: float
    standing: int = -1
    identity_headers: dict[str, bytes] = field(default_factory=dict)
    assertions: dict[str, tuple[object, float, bytes]] = field(default_factory=dict, repr=False)

    def over(self, standing: Standing, now: float) -> Reason | None:
        """Return why the session is no good at the Unix second `now`; None where it is.

        NOT_SIGNED_IN where its lifetime is over. That it was idle for too long is not asked: what
        is under way is use of it.
        """
        if now >= self.ends_at:
            return Reason.NOT_SIGNED_IN
        if self.standing != standing.version:
            reason = standing.check(self.record)
            if reason is not None:
                return reason
            self.standing = standing.version
        return None


class Authenticator:
    """Finds the visitor behind the Cookie fields of a request.

    Opened cookies are kept by their value, the least recently used leaving first; whether one
    is still alive and its owner not kept out is asked again on every request. What does not open
    is not kept, so that junk cannot push out sessions.
    """

    def __init__(
        self,
        cookie: SessionCookie,
        clock: Callable[[], float],
        standing: Standing,
        *,
        capacity: int = CAPACITY,
        reader: CookieReader | None = None,
    ) -> None:
        self._cookie = cookie
        self._clock = clock
        self._standing = standing
        self._reader = reader or CookieReader(cookie.names)
        self._capacity = capacity
        self._opened: OrderedDict[str, Visitor] = OrderedDict()

    def visitor_of(self, section: FieldSection) -> Visitor | None:
        """Return the visitor of a request with this header section, or None.

        The answer is kept on the section, and asked again whether it is still alive.
        """
        known = section.visitor
        if known is not None and known[0] is self:
            visitor: Visitor = known[1]
            if self._clock() < visitor.expires_at and (
                visitor.standing == self._standing.version or self._stands(visitor)
            ):
                return visitor
        found = self.authenticate(section.cookies)
        section.visitor = None if found is None else (self, found)
        return found

    def authenticate(self, fields: Sequence[bytes]) -> Visitor | None:
        """Return the visitor of a request, or None.

        `fields` are the raw Cookie values. With several cookies of the name the first that is
        good counts: a planted one beside it costs the visitor nothing.
        """
        for cookie_field in fields:
            for value in self._reader.session_values(cookie_field):
                visitor = self._open(value)
                if visitor is not None and self._stands(visitor):
                    return visitor
        return None

    def barred(self, section: FieldSection) -> Barred | None:
        """Return who is behind a request that `visitor_of` finds no visitor in, and why none.

        It is for the answer: None where there is no session at all.
        """
        for cookie_field in section.cookies:
            for value in self._reader.session_values(cookie_field):
                visitor = self._open(value)
                barred = None if visitor is None else self._standing.bar(visitor.record)
                if barred is not None:
                    return barred
        return None

    def renewal(self, visitor: Visitor) -> str | None:
        """Return the Set-Cookie value that renews the visitor's session, where one is due."""
        if not self._cookie.lifetimes.renewal_due(visitor.record, self._clock()):
            return None
        return self._cookie.renew(visitor.record)

    def forget(self) -> None:
        """Drop the opened cookies: no further request will be asked about."""
        self._opened.clear()

    def _stands(self, visitor: Visitor) -> bool:
        """Tell whether a visitor is not kept out, and remember that until something changes."""
        standing = self._standing
        if visitor.standing != standing.version:
            if standing.check(visitor.record) is not None:
                return False
            visitor.standing = standing.version
        return True

    def _open(self, value: str) -> Visitor | None:
        visitor = self._opened.get(value)
        if visitor is None:
            return self._open_sealed(value)
        if self._clock() >= visitor.expires_at:
            del self._opened[value]
            return None
        self._opened.move_to_end(value)
        return visitor

    def _open_sealed(self, value: str) -> Visitor | None:
        record = self._cookie.open(value)
        if record is None or not self._cookie.lifetimes.is_alive(record, self._clock()):
            return None
        lifetimes = self._cookie.lifetimes
        visitor = Visitor(record, lifetimes.expires_at(record), lifetimes.ends_at(record))
        self._opened[value] = visitor
        if len(self._opened) > self._capacity:
            self._opened.popitem(last=False)
        return visitor
