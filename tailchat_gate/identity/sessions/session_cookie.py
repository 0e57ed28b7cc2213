"""The lifetimes of a session, and its sealed cookie."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookie_fields import CookieNames, CookieReader, set_cookie
from tailchat_gate.identity.sessions.record import SessionRecord, read_record, read_values
from tailchat_gate.identity.sessions.ticket import PARTS, Ticket, read_ticket, ticket_bytes
from tailchat_gate.syntax import CLOCK_SKEW

#: Browsers store 4096 bytes a cookie, and many upstreams accept 8 KiB of request head.
MAX_COOKIE_BYTES: Final = 3072
#: A session is renewed after this part of its idle lifetime, not on every request.
_RENEW_AFTER: Final = 0.25


class SessionTooLargeError(ValueError):
    """A session that does not fit into MAX_COOKIE_BYTES."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """A session's lifetimes in seconds: since its sign-in, and without a request (0 = off)."""

    absolute: float
    idle: float

    def expires_at(self, record: SessionRecord) -> float:
        """Return the Unix second at which `record` expires."""
        end = record.signed_in_at + self.absolute
        return min(end, record.seen_at + self.idle) if self.idle else end

    def ends_at(self, record: SessionRecord) -> float:
        """Return the Unix second at which the session of `record` expires, renewed or not."""
        return record.signed_in_at + self.absolute

    def is_alive(self, record: SessionRecord, now: float) -> bool:
        """Whether `record` has not expired at `now`; a record from the future is never alive."""
        return record.signed_in_at <= now + CLOCK_SKEW and now < self.expires_at(record)

    def renewal_due(self, record: SessionRecord, now: float) -> bool:
        """Whether a request at `now` should renew the idle lifetime of `record`."""
        return bool(self.idle) and now >= record.seen_at + self.idle * _RENEW_AFTER


class SessionCookie:
    """Turns records into sealed cookie values and back, and writes the Set-Cookie field.

    `tickets`: it makes tickets to stored sessions. It opens both kinds.
    """

    def __init__(
        self,
        key_ring: KeyRing,
        names: CookieNames,
        lifetimes: Lifetimes,
        clock: Callable[[], float],
        *,
        tickets: bool = False,
    ) -> None:
        self._tickets = tickets
        self.names: Final = names
        self.lifetimes: Final = lifetimes
        self.clock: Final = clock
        self._key_ring = key_ring

    def open(self, value: str) -> SessionRecord | None:
        """Return the record in a cookie value, or None if this gate did not seal it."""
        data = self._key_ring.open(value) if len(value) <= MAX_COOKIE_BYTES else None
        values = None if data is None else read_values(data)
        if values is None:
            return None
        return read_ticket(values) if len(values) == PARTS else read_record(values)

    def makes(self, record: SessionRecord) -> bool:
        """Whether a record came from a cookie of the kind that this object makes."""
        return isinstance(record, Ticket) is self._tickets

    def records_in(self, fields: Iterable[bytes], reader: CookieReader) -> Iterator[SessionRecord]:
        """Yield the records in the raw Cookie fields of a request, expired ones too."""
        for cookie_field in fields:
            for value in reader.session_values(cookie_field):
                if (record := self.open(value)) is not None:
                    yield record

    def living_in(
        self,
        fields: Iterable[bytes],
        reader: CookieReader,
        second_for: Callable[[SessionRecord], float],
    ) -> Iterator[SessionRecord]:
        """Yield the records that have not expired at the second that `second_for` returns."""
        for record in self.records_in(fields, reader):
            if self.lifetimes.is_alive(record, second_for(record)):
                yield record

    def set(self, record: SessionRecord) -> str:
        """Return the Set-Cookie value for `record`. Raises SessionTooLargeError."""
        max_age = max(0, int(self.lifetimes.expires_at(record) - self.clock()))
        data = ticket_bytes(record) if self._tickets else record.to_bytes()
        if len(data) > MAX_COOKIE_BYTES:
            raise SessionTooLargeError(
                f"the session has {len(data)} bytes, more than {MAX_COOKIE_BYTES}"
            )
        sealed = self._key_ring.seal(data)
        value = set_cookie(
            self.names.session,
            sealed,
            max_age=max_age,
            secure=self.names.secure,
            embedded=record.embedded,
        )
        if len(value) > MAX_COOKIE_BYTES:
            raise SessionTooLargeError(
                f"the session cookie has {len(value)} bytes, more than {MAX_COOKIE_BYTES}"
            )
        return value

    def renew(self, record: SessionRecord) -> str:
        """Return the Set-Cookie value that renews `record`; the old cookie stays valid too."""
        return self.set(record._replace(seen_at=int(self.clock())))

    def delete(self, *, embedded: bool = False) -> str:
        """Return the Set-Cookie value that deletes the session cookie, `embedded` a frame's."""
        secure = self.names.secure
        return set_cookie(self.names.session, "", max_age=0, secure=secure, embedded=embedded)
