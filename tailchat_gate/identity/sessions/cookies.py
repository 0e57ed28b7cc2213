"""The gate's cookies on the wire: reads a Cookie field, removes cookies, sets and deletes them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from http.cookies import SimpleCookie
from typing import Final, NamedTuple

from tailchat_gate.bounded import ENTRY_BYTES, BoundedCache
from tailchat_gate.identity.oauth.login_state import SUFFIX, LoginCookie, is_name
from tailchat_gate.request.target import read_host
from tailchat_gate.syntax import HOST_PREFIX, LOGIN_COOKIE, SESSION_COOKIE

#: Tailchat's own cookies reach the gate if both share a host name, because cookies ignore
#: ports. They sign people in at Tailchat, so no tool may see them. By their whole names: a
#: Rails tool's is `_session_id`.
_TAILCHATS: Final = frozenset(
    (
        *(b"_session", b"_session.sig", b"_session.legacy", b"_session.legacy.sig"),
        *(b"_interaction", b"_interaction.sig"),
        *(b"_interaction_resume", b"_interaction_resume.sig"),
    )
)
#: Cookies of any gate: several gates may share a host name, because cookies ignore ports, and no
#: tool of one gate may see the sessions of another.
_GATES: Final = re.compile(
    f"(?:{HOST_PREFIX})?{SESSION_COOKIE}(?:[_-].*)?".encode("ascii"), re.DOTALL
)
#: Values of one name to try; browsers send more than one only if a cookie was planted.
MAX_VALUES: Final = 4
#: Login cookies to try. A gate leaves a few in a browser; others may have been planted.
MAX_LOGINS: Final = 200

#: What is in the name of each cookie of a gate, and of each of Tailchat's.
_MARKS: Final = (SESSION_COOKIE.encode("ascii"), b"_session", b"_interaction")
#: Bytes of names whose kind is kept, and the longest of them.
_KEPT_NAMES: Final = 256 << 10
_LONGEST_NAME: Final = 128


#: What stands between cookies that have a name, and around them.
_BETWEEN: Final = b"; \t\n\r\x0b\x0c"


class _Kind(Enum):
    """Whose a cookie is, by its name."""

    SESSION = "session"
    #: Of this gate beside its session, or of another.
    GATES = "gates"
    TAILCHATS = "tailchats"
    TOOLS = "tools"


#: Where a cookie begins and ends in its field, whose it is, and its value.
_Named = tuple[int, int, _Kind, bytes]
# Globals: see reasons.py.
_TOOLS, _OF_TAILCHAT, _SESSION = _Kind.TOOLS, _Kind.TAILCHATS, _Kind.SESSION


class _Read(NamedTuple):
    """A parsed Cookie field."""

    session_values: tuple[str, ...]
    for_upstream: bytes
    beside_tailchat: bytes


_NOTHING: Final = _Read((), b"", b"")


@dataclass(frozen=True, slots=True)
class CookieNames:
    """The name of the session cookie, and the start of the login cookies' names.

    `tailchat` is the host on which Tailchat has its own cookies, "" for any host.
    """

    session: str
    login: str
    secure: bool
    tailchat: str = ""

    @classmethod
    def for_origin(
        cls, public_url: str, name: str = SESSION_COOKIE, *, tailchat_url: str = ""
    ) -> "CookieNames":
        """Return the names for a public URL, based on the configured name.

        On https they have the `__Host-` prefix: no sibling domain and no plain-http page can set
        such a cookie (RFC 6265bis section 4.1.3.2).
        """
        secure = public_url.startswith("https:")
        prefix = HOST_PREFIX if secure else ""
        authority = tailchat_url.partition("://")[2].partition("/")[0]
        host = read_host([authority]).name if authority else ""
        return cls(f"{prefix}{name}", f"{prefix}{name}{LOGIN_COOKIE}", secure, host)


class CookieReader:
    """Reads the Cookie fields of requests for one set of names.

    Of names that may be a gate's or Tailchat's, whose they are is kept; of values nothing is.
    """

    def __init__(self, names: CookieNames) -> None:
        self._session = names.session.encode("ascii")
        self._login = names.login
        own = re.escape(names.session), re.escape(names.login) + f"(?:{SUFFIX})?"
        self._own = re.compile("|".join(own).encode("ascii"))
        self._tailchat = names.tailchat
        own_mark = () if _MARKS[0] in self._session else (self._session,)
        self._marks: Final = (*own_mark, *_MARKS)
        self._kinds: BoundedCache[bytes, _Kind] = BoundedCache(
            _KEPT_NAMES, cost=_cost, largest=_LONGEST_NAME + ENTRY_BYTES
        )
        #: The field that was read last: who asks for the session asks for the rest as well.
        self._last: tuple[bytes, _Read] = (b"", _NOTHING)

    def session_values(self, field: bytes) -> tuple[str, ...]:
        """Return the values of the session cookie in one Cookie field, at most MAX_VALUES."""
        return self._read(field).session_values

    def login_cookies(self, field: bytes) -> list[LoginCookie]:
        """Return the login cookies in one Cookie field, at most MAX_LOGINS."""
        wanted = self._login.encode("ascii")
        pairs = [pair.partition(b"=") for pair in field.split(b";") if wanted in pair]
        named = [LoginCookie(_text(name), _text(value)) for name, _, value in pairs]
        # Browsers send the oldest first (RFC 6265bis section 5.8.3).
        return [cookie for cookie in named if is_name(cookie.name, self._login)][-MAX_LOGINS:]

    def for_upstream(self, field: bytes, host: str = "") -> bytes:
        """Return a Cookie field without the cookies of gates and, on its host, of Tailchat.

        `host` is that of the request, "" if it names none. The other cookies keep their bytes and
        their order. b"" if no cookie is left.
        """
        read = self._read(field)
        return read.beside_tailchat if self._is_tailchats(host) else read.for_upstream

    def is_own(self, set_cookie: bytes, host: str = "") -> bool:
        """Whether a tool's Set-Cookie value would replace a cookie of a gate, or one of Tailchat's.

        Tailchat's count only if the browser would send the cookie to Tailchat.
        """
        pair, *attributes = set_cookie.split(b";")
        name, equals, _ = pair.partition(b"=")
        name = name.strip()
        # Browsers send a cookie without a name as its bare value: it could pose as any.
        if not equals or not name or self._is_hidden(name):
            return True
        return name in _TAILCHATS and (
            self._is_tailchats(host) or any(map(self._reaches_tailchat, attributes))
        )

    def forget(self) -> None:
        """Clear the cache: no further request will come."""
        self._kinds.clear()
        self._last = (b"", _NOTHING)

    def _is_tailchats(self, host: str) -> bool:
        """Whether Tailchat's cookies reach a host: its own, and hosts below it."""
        tailchat = self._tailchat
        return not tailchat or not host or host == tailchat or host.endswith("." + tailchat)

    def _reaches_tailchat(self, attribute: bytes) -> bool:
        """Whether this attribute makes browsers send a cookie of another host to Tailchat."""
        name, _, value = attribute.partition(b"=")
        domain = value.strip().lower().lstrip(b".").decode("latin-1")
        host = self._tailchat
        return name.strip().lower() == b"domain" and (host == domain or host.endswith("." + domain))

    def _read(self, field: bytes) -> _Read:
        last, read = self._last
        if last is not field:
            read = self._sort(field, self._named(field))
            self._last = (field, read)
        return read

    def _named(self, field: bytes) -> list[_Named]:
        """Return the cookies of a field that are no tool's, in order."""
        found: dict[int, _Named] = {}
        for mark in self._marks:
            place = field.find(mark)
            while place >= 0:
                start = field.rfind(b";", 0, place) + 1
                end = field.find(b";", place)
                if end < 0:
                    end = len(field)
                name, _, value = field[start:end].partition(b"=")
                kind = self._kind(name.strip())
                if kind is not _TOOLS:
                    found[start] = (start, end, kind, value)
                place = field.find(mark, end)
        return [found[start] for start in sorted(found)]

    def _sort(self, field: bytes, named: list[_Named]) -> _Read:
        values = [_text(value) for _, _, kind, value in named if kind is _SESSION]
        beside = rest = _without(field, named)
        gates = [one for one in named if one[2] is not _OF_TAILCHAT]
        if len(gates) < len(named):
            rest = _without(field, gates)
        return _Read(tuple(values[:MAX_VALUES]), rest, beside)

    def _kind(self, name: bytes) -> _Kind:
        kind = self._kinds.get(name)
        if kind is None:
            if name == self._session:
                kind = _SESSION
            elif self._is_hidden(name):
                kind = _Kind.GATES
            else:
                kind = _OF_TAILCHAT if name in _TAILCHATS else _TOOLS
            self._kinds.keep(name, kind)
        return kind

    def _is_hidden(self, name: bytes) -> bool:
        return bool(self._own.fullmatch(name) or _GATES.fullmatch(name))


def _cost(name: bytes, _kind: _Kind) -> int:
    return len(name) + ENTRY_BYTES


def _without(field: bytes, named: Sequence[_Named]) -> bytes:
    """Return a Cookie field without some of its cookies."""
    if not named:
        return field
    kept: list[bytes] = []
    place = 0
    for start, end, _, _ in named:
        if start > place:
            kept.append(field[place : start - 1])
        place = end + 1
    if place <= len(field):
        kept.append(field[place:])
    rest = b";".join(kept).strip()
    return rest if rest.strip(_BETWEEN) else b""


def _text(part: bytes) -> str:
    return part.strip().decode("ascii", "replace")


def set_cookie(name: str, value: str, *, max_age: int, secure: bool, embedded: bool = False) -> str:
    """Return a Set-Cookie value for a cookie of the gate, `max_age` in seconds (0 deletes it).

    HttpOnly and SameSite=Lax: Strict would withhold the login cookie on the way back from Tailchat.
    Path=/ and no Domain, as `__Host-` requires. `embedded`: for a frame in a page of another site;
    the browser keeps one such cookie for each site of the page around it (CHIPS: Partitioned).
    """
    cookie: SimpleCookie = SimpleCookie()
    cookie[name] = value
    morsel = cookie[name]
    morsel["path"] = "/"
    morsel["max-age"] = max_age
    morsel["httponly"] = True
    morsel["samesite"] = "None" if embedded else "Lax"
    morsel["secure"] = secure or embedded
    # http.cookies knows the attribute from Python 3.14 on.
    return morsel.OutputString() + ("; Partitioned" if embedded else "")
