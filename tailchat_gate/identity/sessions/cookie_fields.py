"""The gate's cookies on the wire: reads a Cookie field, removes cookies, sets and deletes them."""

import re
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Final

from tailchat_gate.bounded import ENTRY_BYTES, BoundedCache, keep_in
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
#: The same within a field, where a ";" ends a cookie and a "=" its name.
_IN_FIELD: Final = f"(?:{HOST_PREFIX})?{SESSION_COOKIE}(?:[_-][^=;]*)?".encode("ascii")
#: A cookie with one of some names. To be filled in: white space, this gate's names, other names,
#: white space. The groups are the session's name and the value.
_COOKIE: Final = b";[%b]*+(?:%b|%b)[%b]*(?:=([^;]*+))?(?=;|\\Z)"
#: Values of the session cookie to try; browsers send several only if a cookie was planted.
MAX_VALUES: Final = 4
#: Login cookies to try. A gate leaves a few in a browser; others may have been planted.
MAX_LOGINS: Final = 200

#: Bytes that are cached, of all fields with what was read of them, and of one.
_KEPT = 4 << 20
_LARGEST: Final = 24 << 10
#: Number of the last fields read that are cached in addition, each of 24 KiB at most.
_MOST_RECENT: Final = 64

#: A part of the name of each cookie of a gate, unless the operator chose another name.
_MARK: Final = SESSION_COOKIE.encode("ascii")
#: Parts of the names of Tailchat's cookies.
_MARKS: Final = (b"_session", b"_interaction")
#: White space as in `strip`, and with it all that may separate cookies.
_SPACE: Final = b" \t\n\r\x0b\x0c"
_BETWEEN: Final = b";" + _SPACE


class _Read:
    """A parsed Cookie field."""

    __slots__ = ("beside_tailchat", "for_upstream", "is_all_hidden", "session_values")

    def __init__(
        self,
        session_values: tuple[str, ...],
        for_upstream: bytes,
        beside_tailchat: bytes,
        *,
        is_all_hidden: bool = False,
    ) -> None:
        self.session_values: Final = session_values
        self.for_upstream: Final = for_upstream
        self.beside_tailchat: Final = beside_tailchat
        #: Whether it has only cookies of gates, with nothing between them.
        self.is_all_hidden: Final = is_all_hidden


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
    """Reads the Cookie fields of requests for one set of names."""

    def __init__(self, names: CookieNames) -> None:
        self._session = names.session.encode("ascii")
        #: A part of all names of gates' cookies, b"" if this gate's cookies have other names.
        usual = _MARK in self._session and names.login.startswith(names.session)
        self._mark = _MARK if usual else b""
        self._login = names.login
        session, login = (re.escape(name).encode("ascii") for name in (names.session, names.login))
        own = b"(%b)|%b(?:%b)?" % (session, login, SUFFIX.encode("ascii"))
        self._own = _compiled(own)
        # For a field with a ";" in front, so that each cookie begins with one.
        tailchats = b"|".join(map(re.escape, sorted(_TAILCHATS)))
        self._gates_cookies = _compiled(_COOKIE % (_SPACE, own, _IN_FIELD, _SPACE))
        self._all_cookies = _compiled(_COOKIE % (_SPACE, own, _IN_FIELD + b"|" + tailchats, _SPACE))
        self._tailchat = names.tailchat
        #: The last fields read: a request needs several results from one field, and again after it
        #: has waited for Tailchat.
        self._recent: dict[bytes, _Read] = {}
        #: Fields that came more than once: a browser sends the same cookies with each request.
        self._kept: BoundedCache[bytes, _Read] = BoundedCache(
            _KEPT, cost=_cost, largest=_LARGEST, twice=True
        )

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
        rest, beside = read.for_upstream, read.beside_tailchat
        return rest if beside is rest or not self._is_tailchats(host) else beside

    def is_reserved(self, set_cookie: bytes, host: str = "") -> bool:
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
        """Clear the caches, because no further request will come."""
        self._recent.clear()
        self._kept.clear()

    def _is_tailchats(self, host: str) -> bool:
        """Whether browsers send Tailchat's cookies to a host: its own, or one below it."""
        tailchat = self._tailchat
        return not tailchat or not host or host == tailchat or host.endswith("." + tailchat)

    def _reaches_tailchat(self, attribute: bytes) -> bool:
        """Whether this attribute makes browsers send a cookie of another host to Tailchat."""
        name, _, value = attribute.partition(b"=")
        domain = value.strip().lower().lstrip(b".").decode("latin-1")
        host = self._tailchat
        return name.strip().lower() == b"domain" and (host == domain or host.endswith("." + domain))

    def _read(self, field: bytes) -> _Read:
        read = self._recent.get(field)
        if read is None:
            read = self._kept.get(field)
            if read is None:
                read = self._take_apart(field)
                self._kept.keep(field, read)
            keep_in(self._recent, field, read, _MOST_RECENT)
        return read

    def _take_apart(self, field: bytes) -> _Read:
        return self._around_gates(field) or self._only_session(field) or self._every_cookie(field)

    def _around_gates(self, field: bytes) -> _Read | None:
        """Return the result of `_every_cookie` if the cookies of gates are adjacent, else None.

        They stay the same while a tool's cookies change, so their part of the field is cached.
        """
        first = field.find(self._mark)
        begin = field.rfind(b";", 0, first)
        end = field.find(b";", field.rfind(self._mark))
        if not self._mark or first < 0 or begin == end:
            return None
        end = len(field) if end < 0 else end
        part = field[begin + 1 : end]
        gates = self._kept.get(part)
        if gates is None:
            gates = self._only_session(part) or self._every_cookie(part)
            self._kept.keep(part, gates)
        rest = _tidy(field[:begin] + field[end:] if begin >= 0 else field[end + 1 :])
        if not gates.is_all_hidden or _names_tailchats(rest):
            return None
        return _Read(gates.session_values, rest, rest)

    def _only_session(self, part: bytes) -> _Read | None:
        """Return what `_every_cookie` does of one cookie that is the session, None for any other.

        Each new session comes so, and the pattern looks at every byte of it.
        """
        name, equals, value = part.strip().partition(b"=")
        if name != self._session or not equals or value.find(b";") >= 0:
            return None
        return _Read((_text(value),), b"", b"", is_all_hidden=True)

    def _every_cookie(self, field: bytes) -> _Read:
        whole = b";" + field
        parts = self._gates_cookies.split(whole)
        rest = field if len(parts) == 1 else _joined(parts)
        beside = rest
        if _names_tailchats(rest):
            others = self._all_cookies.split(whole)
            beside = field if len(others) == 1 else _joined(others)
        # `split` also returns the groups: the session's name if it is a session, and the value.
        pairs = zip(parts[1::3], parts[2::3], strict=True)
        values = [_text(value or b"") for session, value in pairs if session]
        return _Read(tuple(values[:MAX_VALUES]), rest, beside, is_all_hidden=not any(parts[::3]))

    def _is_hidden(self, name: bytes) -> bool:
        return bool(self._own.fullmatch(name) or _GATES.fullmatch(name))


def _cost(field: bytes, _read: _Read) -> int:
    """Return about how many bytes an entry takes: objects, the field, and the parts of it."""
    return 512 + ENTRY_BYTES + 4 * len(field)


def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


def _joined(parts: list[bytes]) -> bytes:
    """Return the Cookie field that is left after a split by a pattern with two groups."""
    return _tidy(b"".join(parts[::3])[1:])


def _tidy(rest: bytes) -> bytes:
    """Return a Cookie field without surrounding white space, b"" if it has no cookie."""
    rest = rest.strip()
    return rest if rest.strip(_BETWEEN) else b""


def _names_tailchats(rest: bytes) -> bool:
    """Whether the field may have a cookie of Tailchat's."""
    # `find`, because `in` raises and catches a TypeError inside for bytes.
    return rest.find(_MARKS[0]) >= 0 or rest.find(_MARKS[1]) >= 0


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
