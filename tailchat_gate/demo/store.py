"""The state of the stand-in Tailchat: in memory, bounded, and every entry expires."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from tailchat_gate.demo.users import User

#: The most entries of one kind; the oldest is dropped for a new one.
LIMIT: Final = 1000
CODE_SECONDS: Final = 600
TOKEN_SECONDS: Final = 3600
INTERACTION_SECONDS: Final = 3600
SESSION_SECONDS: Final = 14 * 24 * 3600
GRANT_SECONDS: Final = 14 * 24 * 3600
REFRESH_SECONDS: Final = 14 * 24 * 3600

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class App:
    """An app of Tailchat's open platform; `redirect_uris` are compared character by character.

    `bot`: it has the capability "bot".
    """

    client_id: str
    client_secret: str = field(repr=False)
    redirect_uris: tuple[str, ...]
    name: str = "Tailchat Gate"
    bot: bool = True


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """An accepted authorization request; a parameter that was not sent is None or empty.

    `response_mode` is query, fragment or form_post; `scope` holds known names only.
    """

    client_id: str
    redirect_uri: str
    response_mode: str
    state: str | None
    scope: tuple[str, ...]
    prompt: frozenset[str]
    nonce: str | None
    code_challenge: str | None
    max_age: int | None


@dataclass(slots=True)
class Session:
    """One browser's session; `sub` is "" before sign-in, `grants` maps client_id to a grant."""

    uid: str
    sub: str = ""
    signed_in_at: int = 0
    grants: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the pages of a login: who signed in, and whether they consented."""

    sub: str = ""
    consented: bool = False
    grant_id: str = ""


@dataclass(slots=True)
class Interaction:
    """A pending login or consent page; `kind` says which of the two.

    `session_uid`: the signed-in session in which it started, or "". `earlier`: the result of the
    page before this one. `return_to`: the URL that continues the login.
    """

    uid: str
    kind: str
    request: AuthRequest
    session_uid: str
    grant_id: str
    missing_scope: tuple[str, ...]
    earlier: Result
    return_to: str
    result: Result | None = None


@dataclass(slots=True)
class Grant:
    """What a user allowed an app to read; consent only adds to `scope`."""

    id: str
    sub: str
    client_id: str
    scope: list[str] = field(default_factory=list)

    def allowed(self, scope: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of `scope` that were granted, in the order of the grant."""
        return tuple(name for name in self.scope if name in scope)


@dataclass(slots=True)
class Token:
    """A code, an access token or a refresh token.

    `ends_with_session`: invalid once the session `session_uid` has ended (in Tailchat: without
    offline_access). `auth_time` is None if the id_token does not have it.
    """

    value: str
    sub: str
    client_id: str
    grant_id: str
    scope: tuple[str, ...]
    session_uid: str
    ends_with_session: bool
    issued_at: float
    nonce: str | None = None
    auth_time: int | None = None
    redirect_uri: str = ""
    code_challenge: str | None = None
    used: bool = False


class Shelf(Generic[T]):
    """Entries by key, at most LIMIT; the oldest is dropped first, and each expires."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, tuple[T, float]] = OrderedDict()

    def put(self, key: str, value: T, seconds: float) -> None:
        """Store `value` for `seconds`, as the newest entry."""
        self._entries[key] = (value, self._clock() + seconds)
        self._entries.move_to_end(key)
        if len(self._entries) > LIMIT:
            self._entries.popitem(last=False)

    def get(self, key: str) -> T | None:
        """Return the value; None if it is unknown or expired."""
        value, until = self._entries.get(key, (None, 0.0))
        return value if until > self._clock() else None

    def pop(self, key: str) -> T | None:
        """Remove the value and return it as `get` would."""
        value = self.get(key)
        self._entries.pop(key, None)
        return value

    def drop(self, unwanted: Callable[[T], bool]) -> None:
        """Remove every value for which `unwanted` is true."""
        for key in [key for key, (value, _) in self._entries.items() if unwanted(value)]:
            del self._entries[key]

    def __len__(self) -> int:
        """The number of entries, including expired ones."""
        return len(self._entries)


class Store:
    """The state of one stand-in Tailchat.

    `apps` by client_id and `users` by sub may be changed at any time: the next `/open/me` returns
    a new name, and a removed user is like a deleted one in Tailchat.
    """

    def __init__(
        self, apps: Mapping[str, App], users: Mapping[str, User], clock: Callable[[], float]
    ) -> None:
        self.apps = dict(apps)
        self.users = dict(users)
        self.clock = clock
        #: The sub of the owner of each token of the gateway.
        self.api_tokens: dict[str, str] = {}
        #: The key that signs these tokens (Tailchat: SECRET, which has a public default).
        self.secret = secrets.token_urlsafe(32)
        #: The settings of the server that everybody may read (`config/client`).
        self.client_config: dict[str, object] = {
            "emailVerification": False,
            "disableUserRegister": False,
            "disableGuestLogin": False,
            "disableCreateGroup": False,
        }
        self.sessions: Shelf[Session] = Shelf(clock)
        self.session_uids: Shelf[str] = Shelf(clock)
        self.interactions: Shelf[Interaction] = Shelf(clock)
        self.grants: Shelf[Grant] = Shelf(clock)
        self.codes: Shelf[Token] = Shelf(clock)
        self.access_tokens: Shelf[Token] = Shelf(clock)
        self.refresh_tokens: Shelf[Token] = Shelf(clock)

    def keep_session(self, cookie: str, session: Session) -> None:
        """Store a session under a cookie's value, for its full lifetime from now."""
        self.sessions.put(session.uid, session, SESSION_SECONDS)
        self.session_uids.put(cookie, session.uid, SESSION_SECONDS)

    def session(self, cookie: str) -> Session | None:
        """Return the session that a cookie's value names."""
        uid = self.session_uids.get(cookie)
        return None if uid is None else self.sessions.get(uid)

    def find(self, shelf: Shelf[Token], value: str) -> Token | None:
        """Return a token that is known, not expired, and whose session still exists if it must."""
        token = shelf.get(value)
        if token is None or not token.ends_with_session:
            return token
        session = self.sessions.get(token.session_uid)
        alive = (
            session is not None
            and session.sub == token.sub
            and session.grants.get(token.client_id) == token.grant_id
        )
        return token if alive else None

    def rename(self, sub: str, nickname: str) -> None:
        """Give a user another nickname."""
        user = self.users[sub]
        claims = MappingProxyType({**user.claims, "nickname": nickname})
        self.users[sub] = replace(user, claims=claims)

    def change(self, sub: str, **changes: object) -> None:
        """Change fields of an account, for example `banned=True`."""
        self.users[sub] = replace(self.users[sub], **changes)  # type: ignore[arg-type] # the caller names fields of User

    def revoke(self, grant_id: str) -> None:
        """End a grant and everything issued under it."""
        self.grants.pop(grant_id)
        for shelf in (self.codes, self.access_tokens, self.refresh_tokens):
            shelf.drop(lambda token: token.grant_id == grant_id)
