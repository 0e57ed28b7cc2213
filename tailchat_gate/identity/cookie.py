"""The gate's cookies on the wire: found in a Cookie field, taken out of it, set and deleted."""

from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Final, NamedTuple

#: Tailchat's own cookies reach the gate where both share a host name, because cookies ignore
#: ports; they sign people in at Tailchat and no tool may see them.
_TAILCHAT_PREFIXES: Final = (b"_session", b"_interaction")
#: Values of one name that are tried; browsers send more than one only where a cookie was planted.
MAX_VALUES: Final = 4


#: Cookie fields whose reading is kept, and their size: 8 MiB together, whatever strangers send.
_MAX_KEPT: Final = 2048
_MAX_KEPT_BYTES: Final = 4096


class _Read(NamedTuple):
    """A Cookie field taken apart."""

    session_values: tuple[str, ...]
    for_upstream: bytes


@dataclass(frozen=True, slots=True)
class CookieNames:
    """The names of the session cookie and of the login cookie, as text."""

    session: str
    login: str
    secure: bool

    @classmethod
    def for_origin(cls, public_url: str) -> "CookieNames":
        """Return the names for a public URL.

        On https they carry the `__Host-` prefix, which no sibling domain and no plain-http page
        can set (RFC 6265bis section 4.1.3.2).
        """
        secure = public_url.startswith("https:")
        prefix = "__Host-" if secure else ""
        return cls(f"{prefix}tailchat_gate", f"{prefix}tailchat_gate_login", secure)


class CookieReader:
    """Reads the Cookie fields of requests for one set of names; what was read is kept."""

    def __init__(self, names: CookieNames) -> None:
        self._session = names.session.encode("ascii")
        self._login = names.login.encode("ascii")
        self._own = frozenset((self._session, self._login))
        self._read: dict[bytes, _Read] = {}

    def session_values(self, field: bytes) -> tuple[str, ...]:
        """Return the values of the session cookie in one Cookie field, at most MAX_VALUES."""
        return (self._read.get(field) or self._take_apart(field)).session_values

    def login_values(self, field: bytes) -> list[str]:
        """Return the values of the login cookie in one Cookie field, at most MAX_VALUES."""
        return _values(field, self._login)

    def for_upstream(self, field: bytes) -> bytes:
        """Return a Cookie field without the gate's and Tailchat's cookies.

        The other cookies keep their bytes and their order. b"" where nothing is left.
        """
        return (self._read.get(field) or self._take_apart(field)).for_upstream

    def is_own(self, set_cookie: bytes) -> bool:
        """Tell whether a Set-Cookie value from an upstream would replace a cookie of the gate."""
        name = set_cookie.partition(b"=")[0].strip()
        # Some browsers send a cookie without a name as its bare value: it could pose as any.
        return not name or name in self._own

    def forget(self) -> None:
        """Drop what was kept: no further request will be read."""
        self._read.clear()

    def _take_apart(self, field: bytes) -> "_Read":
        pairs = field.split(b";")
        kept = [pair for pair in pairs if not self._is_hidden(pair)]
        rest = field
        if len(kept) != len(pairs):
            rest = b";".join(kept).strip() if any(pair.strip() for pair in kept) else b""
        read = _Read(tuple(_values(field, self._session)), rest)
        # A browser sends the same field with every request, until some tool sets a cookie.
        if len(field) <= _MAX_KEPT_BYTES:
            if len(self._read) >= _MAX_KEPT:
                self._read.clear()
            self._read[field] = read
        return read

    def _is_hidden(self, pair: bytes) -> bool:
        name = pair.partition(b"=")[0].strip()
        return name in self._own or name.startswith(_TAILCHAT_PREFIXES)


def _values(field: bytes, wanted: bytes) -> list[str]:
    if wanted not in field:
        return []
    values: list[str] = []
    for pair in field.split(b";"):
        name, _, value = pair.partition(b"=")
        if name.strip() == wanted and len(values) < MAX_VALUES:
            values.append(value.strip().decode("ascii", "replace"))
    return values


def set_cookie(name: str, value: str, *, max_age: int, secure: bool) -> str:
    """Return a Set-Cookie value for a cookie of the gate, `max_age` in seconds (0 deletes it).

    HttpOnly and SameSite=Lax always: Strict would withhold the login cookie on the way back
    from Tailchat. Path=/ and no Domain, as `__Host-` asks.
    """
    cookie: SimpleCookie = SimpleCookie()
    cookie[name] = value
    morsel = cookie[name]
    morsel["path"] = "/"
    morsel["max-age"] = max_age
    morsel["httponly"] = True
    morsel["samesite"] = "Lax"
    morsel["secure"] = secure
    return morsel.OutputString()
