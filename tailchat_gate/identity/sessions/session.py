"""A session: its record, its lifetimes, and the sealed cookie."""

import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from typing import Any, Final

from tailchat_gate.identity.oauth.responses import Profile, TokenSet
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.identity.sessions.cookies import CookieNames, CookieReader, set_cookie
from tailchat_gate.syntax import CLOCK_SKEW, COMPACT

#: Browsers store 4096 bytes a cookie, and many upstreams accept 8 KiB of request head.
MAX_COOKIE_BYTES: Final = 3072
#: A session is renewed after this part of its idle lifetime, not on every request.
_RENEW_AFTER: Final = 0.25
_FIELDS: Final = {
    "sid": str,
    "sub": str,
    "nickname": str,
    "discriminator": str,
    "avatar": str,
    "signed_in_at": int,
    "seen_at": int,
    "login": str,
    "checked_at": int,
    "access_token": str,
    "access_expires_at": int,
    "refresh_token": str,
    "embedded": bool,
    "password_at": int,
}
# Without `json.loads`, which looks for white space around what has none.
_read_json: Final = json.JSONDecoder().raw_decode
_values: Final = itemgetter(*_FIELDS)
_KINDS: Final = tuple(_FIELDS.values())
_TICKET_KINDS: Final = (str, str, int, int, str, bool, int)
#: Fields that most sessions do not need.
_OPTIONAL: Final[dict[str, str | int]] = {
    "checked_at": 0,
    "access_token": "",
    "access_expires_at": 0,
    "refresh_token": "",
    "embedded": False,
    "password_at": 0,
}


class SessionTooLargeError(ValueError):
    """A session that does not fit into MAX_COOKIE_BYTES."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A signed-in visitor; times are Unix seconds.

    `sid` identifies this session. `signed_in_at` never changes: it bounds the absolute lifetime.
    A renewal changes `seen_at`. `login` is the short id of the login that made the session; it
    identifies a reloaded callback page even after a restart.

    `embedded`: this session is for a frame in a page of another site; its cookie exists in frames
    of that site's pages only.

    `password_at` is when the person gave Tailchat their password, 0 if Tailchat did not say that.
    Most sign-ins need none, because the person is already signed in to Tailchat.

    The other fields are set if sessions are rechecked: `checked_at` is when Tailchat last
    confirmed this one; the recheck uses the tokens. `access_expires_at` is 0 if unknown,
    `refresh_token` "" if there is none.
    """

    sid: str
    sub: str
    nickname: str
    discriminator: str
    avatar: str
    signed_in_at: int
    seen_at: int
    login: str
    checked_at: int = 0
    access_token: str = field(default="", repr=False)
    access_expires_at: int = 0
    refresh_token: str = field(default="", repr=False)
    embedded: bool = False
    password_at: int = 0

    @classmethod
    def begin(
        cls,
        profile: Profile,
        *,
        now: float,
        login: str,
        tokens: TokenSet | None = None,
        password_at: int = 0,
    ) -> "SessionRecord":
        """Return a new session for the person who just signed in.

        The session stores `tokens`; None if nothing will need them.
        """
        record = cls(
            sid=secrets.token_urlsafe(16),
            sub=profile.sub,
            nickname=profile.nickname,
            discriminator=profile.discriminator,
            avatar=profile.avatar,
            signed_in_at=int(now),
            seen_at=int(now),
            login=login,
            password_at=password_at,
        )
        return (
            record if tokens is None else replace(record.with_tokens(tokens), checked_at=int(now))
        )

    def with_tokens(self, tokens: TokenSet) -> "SessionRecord":
        """Return the record with other tokens."""
        return replace(
            self,
            access_token=tokens.access_token,
            access_expires_at=tokens.expires_at,
            refresh_token=tokens.refresh_token,
        )

    def with_tokens_of(self, other: "SessionRecord") -> "SessionRecord":
        """Return the record with the tokens of another state of the session."""
        return replace(
            self,
            access_token=other.access_token,
            access_expires_at=other.access_expires_at,
            refresh_token=other.refresh_token,
        )

    def has_newer_tokens(self, other: "SessionRecord") -> bool:
        """Whether the tokens are known to be newer than those of another state of the session."""
        return self.access_expires_at > other.access_expires_at > 0

    def to_bytes(self) -> bytes:
        """Return the record as compact UTF-8 JSON, without unset fields."""
        fields = {
            name: value
            for name, value in asdict(self).items()
            if name not in _OPTIONAL or value != _OPTIONAL[name]
        }
        return json.dumps(fields, ensure_ascii=False, separators=COMPACT).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "SessionRecord | None":
        """Return the record in `data`, or None for any other shape."""
        return cls.from_fields(_parsed(data))

    @classmethod
    def from_fields(cls, fields: object) -> "SessionRecord | None":
        """Return the record with these fields; None if one is missing, unknown or mistyped."""
        if not isinstance(fields, dict):
            return None
        fields = _OPTIONAL | fields
        try:
            values: tuple[Any, ...] = _values(fields)
        except KeyError:
            return None
        if len(fields) != len(_FIELDS) or tuple(map(type, values)) != _KINDS:
            return None
        return cls(*values)


def _parsed(data: bytes) -> object:
    """Return the value of compact JSON, None if `data` is no such text."""
    try:
        text = data.decode()
        value, end = _read_json(text)
    except (ValueError, RecursionError):
        return None
    return value if end == len(text) else None


@dataclass(frozen=True, slots=True)
class Ticket(SessionRecord):
    """The cookie of a stored session: its ID, and the parts that are the cookie's own.

    Among these are the times of the sign-in and of the password: a later sign-in to the same
    session must not extend the life of a stolen copy. All other fields are empty.
    """

    def to_bytes(self) -> bytes:
        """Return the ticket as compact JSON."""
        return ticket_bytes(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Ticket | None":
        """Return the ticket in `data`, or None for any other shape."""
        parts = _parsed(data)
        if not isinstance(parts, list) or tuple(map(type, parts)) != _TICKET_KINDS:
            return None
        sid, sub, signed_in_at, seen_at, login, embedded, password_at = parts
        return cls(
            *(sid, sub, "", "", "", signed_in_at, seen_at, login),
            embedded=embedded,
            password_at=password_at,
        )

    def applied_to(self, stored: SessionRecord) -> SessionRecord:
        """Return the stored session with the fields of this cookie."""
        return replace(
            stored,
            signed_in_at=self.signed_in_at,
            seen_at=self.seen_at,
            login=self.login,
            embedded=self.embedded,
            password_at=self.password_at,
        )


def ticket_bytes(record: SessionRecord) -> bytes:
    """Return a ticket to a session as compact JSON: a list, whereas a session is an object."""
    parts = (
        *(record.sid, record.sub, record.signed_in_at, record.seen_at),
        *(record.login, record.embedded, record.password_at),
    )
    return json.dumps(parts, ensure_ascii=False, separators=COMPACT).encode()


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
        if data is None:
            return None
        return (Ticket if data.startswith(b"[") else SessionRecord).from_bytes(data)

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
        return self.set(replace(record, seen_at=int(self.clock())))

    def delete(self, *, embedded: bool = False) -> str:
        """Return the Set-Cookie value that deletes the session cookie, `embedded` a frame's."""
        secure = self.names.secure
        return set_cookie(self.names.session, "", max_age=0, secure=secure, embedded=embedded)
