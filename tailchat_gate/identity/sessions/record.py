"""The record of a session, and its JSON."""

import json
import secrets
from typing import Any, Final, NamedTuple

from tailchat_gate.identity.oauth.responses import Profile, TokenSet
from tailchat_gate.syntax import COMPACT

# Without `json.loads`, which looks for white space around what has none.
_read_json: Final = json.JSONDecoder().raw_decode


class SessionRecord(NamedTuple):
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
    access_token: str = ""
    access_expires_at: int = 0
    refresh_token: str = ""
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
            # The commands take it as an argument, which must not begin like an option.
            sid=secrets.token_urlsafe(16).replace("-", "_"),
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
            record if tokens is None else record.with_tokens(tokens)._replace(checked_at=int(now))
        )

    def with_tokens(self, tokens: TokenSet) -> "SessionRecord":
        """Return the record with other tokens."""
        return self._replace(
            access_token=tokens.access_token,
            access_expires_at=tokens.expires_at,
            refresh_token=tokens.refresh_token,
        )

    def with_tokens_of(self, other: "SessionRecord") -> "SessionRecord":
        """Return the record with the tokens of another state of the session."""
        return self._replace(
            access_token=other.access_token,
            access_expires_at=other.access_expires_at,
            refresh_token=other.refresh_token,
        )

    def with_names_of(self, named: "Profile | SessionRecord") -> "SessionRecord":
        """Return the record with the name and picture of a profile, or of another state of it."""
        return self._replace(
            nickname=named.nickname, discriminator=named.discriminator, avatar=named.avatar
        )

    def has_newer_tokens(self, other: "SessionRecord") -> bool:
        """Whether the tokens are known to be newer than those of another state of the session."""
        return self.access_expires_at > other.access_expires_at > 0

    def __repr__(self) -> str:
        """Return what a log may show: no token."""
        return f"<{type(self).__name__} {self.sid} of {self.sub}>"

    def to_bytes(self) -> bytes:
        """Return the record as compact UTF-8 JSON: a list, without unset fields at its end."""
        values: tuple[str | int, ...] = self
        while len(values) > _REQUIRED and values[-1] == _UNSET[len(values) - 1]:
            values = values[:-1]
        return json.dumps(values, ensure_ascii=False, separators=COMPACT).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "SessionRecord | None":
        """Return the record in `data`, or None for any other shape."""
        values = read_values(data)
        return None if values is None else read_record(values)

    @classmethod
    def from_fields(cls, fields: object) -> "SessionRecord | None":
        """Return the record with these fields; None if one is missing, unknown or mistyped."""
        if not isinstance(fields, dict) or fields.keys() != _NAMES:
            return None
        return read_record([fields[name] for name in cls._fields])


_KINDS: Final = tuple(SessionRecord.__annotations__.values())
_NAMES: Final = frozenset(SessionRecord._fields)
#: How many fields every session has, and the values of those that most do not need.
_REQUIRED: Final = len(_KINDS) - len(SessionRecord._field_defaults)
_UNSET: Final = (*(None,) * _REQUIRED, *SessionRecord._field_defaults.values())


def read_record(values: list[Any]) -> SessionRecord | None:
    """Return the record with these values; None if one is missing, too many or mistyped."""
    # Where one is missing that every session has, there is now a None, which is mistyped.
    filled = (*values, *_UNSET[len(values) :])
    if tuple(map(type, filled)) != _KINDS:
        return None
    return tuple.__new__(SessionRecord, filled)


def read_values(data: bytes) -> list[Any] | None:
    """Return the list that compact JSON has, None if `data` is no such text."""
    try:
        text = data.decode()
        value, end = _read_json(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and end == len(text) else None
