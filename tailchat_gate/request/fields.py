"""The header section of a request: read once, strictly, and cached while clients repeat it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.authorization import TOKEN_FIELD, TokenWay, credentials_bind, read_token
from tailchat_gate.request.client import ClientAddress
from tailchat_gate.request.shapes import Shape, Values
from tailchat_gate.request.target import Claim, Host, Original, read_host
from tailchat_gate.syntax import CONTENT_LENGTH, FIELD_VALUE_OCTETS, TOKEN_OCTETS

#: Complete field lines (RFC 9112 section 5): a token, a colon right after it, no control byte but
#: the tab, CR and LF only as the pair that ends a line. Obsolete line folding does not match.
_LINES: Final = re.compile(b"(?:" + TOKEN_OCTETS + b":" + FIELD_VALUE_OCTETS + rb"\r\n)*+")
_FIELD: Final = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")
_TOKEN: Final = re.compile(TOKEN_OCTETS)
_CHUNKED: Final = b"chunked"
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
#: The values of nearly every request that a page sends.
_SAME_ORIGIN: Final = [b"same-origin"]
#: The options in common values of Connection.
_CONNECTION: Final = {
    b"keep-alive": frozenset((b"keep-alive",)),
    b"close": frozenset((b"close",)),
    b"Upgrade": frozenset((b"upgrade",)),
    b"keep-alive, Upgrade": frozenset((b"keep-alive", b"upgrade")),
}

RawFields = Sequence[tuple[bytes, bytes]]


class HeadLimits(NamedTuple):
    """Limits of a request: bytes of its target, header section and cookies; number of fields."""

    target_bytes: int
    header_bytes: int
    header_count: int
    cookie_bytes: int


class FieldSection:
    """The fields of one request, and what they say about the message itself.

    `shape` has their names, `sent_values` their values without surrounding white space. `length` is
    the Content-Length, None if there is none; `chunked` is the only other framing. `connection` and
    `upgrade` are lower-case. Results of later steps (`sent`, `visitor`, `forwarded`, `claimed`) are
    cached here, because a client repeats its fields from request to request. `known`: a section of
    the same shape that means the same; then `values` and `length` are given in place of `pairs`.
    """

    __slots__ = (
        "agent", "bearer", "binds", "chunked", "claimed", "connection", "cookies",
        "expects_continue", "forwarded", "has_body", "has_credentials", "host", "keep_alive",
        "length", "original", "other_page", "paths", "sent", "sent_for", "sent_values", "shape",
        "token_way", "upgrade", "via", "visitor", "worker_script",
    )  # fmt: skip

    def __init__(
        self,
        pairs: RawFields,
        shape: Shape | None = None,
        known: "FieldSection | None" = None,
        values: Values = (),
        length: int | None = None,
    ) -> None:
        self.host: Host
        self.via: list[bytes]
        self.shape = Shape(tuple([name for name, _ in pairs])) if shape is None else shape
        if known is not None:
            self._take(known, values, length)
            return
        self.sent_values = tuple([value for _, value in pairs])
        self.cookies = tuple(self.values(b"cookie"))
        self.chunked = self.expects_continue = False
        self.length: int | None = None
        #: Whether a body follows.
        self.has_body = False
        self.connection = _NO_OPTIONS
        #: Whether the client wants its connection to stay open, for HTTP/1.1 and for HTTP/1.0 (RFC
        #: 9112 section 9.3).
        self.keep_alive = (True, False)
        self.upgrade = b""
        #: The presented machine token, None if there is none.
        self.bearer: bytes | None = None
        self.token_way: TokenWay | None = None
        #: Whether it has Authorization or the gate's own field for a token.
        self.has_credentials = False
        #: Whether the credentials may authenticate the whole connection.
        self.binds = False
        #: Whether the script of a service worker is requested.
        self.worker_script = False
        #: Whether a page of another origin may have sent it, for access/browser_origin.py to judge.
        self.other_page = False
        self.agent = ""
        self.forget()
        self._read()

    def forget(self) -> None:
        """Drop the results that other modules have cached here.

        Each has its own attribute, since most are read once in every request.
        """
        #: Further methods that the request claims: cached by request/claims.py.
        self.claimed: frozenset[str] | None = None
        #: Further paths that the request names: cached by request/claims.py.
        self.paths: tuple[Claim, ...] | None = None
        #: The client behind a trusted proxy: (peer, ClientAddress), cached by the gate.
        self.forwarded: tuple[str, ClientAddress] | None = None
        #: The original request of forward-auth; cached by request/forwarded_request.py.
        self.original: tuple[Original | None] | None = None
        #: (finder, what it found by the cookies or the token): cached by identity/. Only the finder
        #: reads it, and knows the type.
        self.visitor: tuple[object, Any] | None = None
        #: The field lines for the upstream, and the client and route for which they were made.
        self.sent = b""
        self.sent_for: tuple[object, object, object] | None = None

    def apart(self) -> "FieldSection":
        """Return the same fields without the cached results of other modules."""
        return self.with_values(self.sent_values, self.length)

    def with_values(self, values: Values, length: int | None = None) -> "FieldSection":
        """Return a section with other values that have the same meaning for the message.

        Its cookies are those of `values`, its length is `length`.
        """
        return FieldSection((), self.shape, self, values, length)

    def _take(self, known: "FieldSection", values: Values, length: int | None) -> None:
        """Take from another section of the same shape what it means for the message."""
        self.sent_values = values
        self.cookies = self.shape.pick_cookies(values) if values else ()
        self.length = length
        self.has_body = known.chunked or bool(length)
        self.host, self.agent, self.via = known.host, known.agent, known.via
        self.chunked, self.expects_continue = known.chunked, known.expects_continue
        self.connection, self.keep_alive = known.connection, known.keep_alive
        self.upgrade, self.binds = known.upgrade, known.binds
        self.bearer, self.token_way = known.bearer, known.token_way
        self.has_credentials = known.has_credentials
        self.worker_script, self.other_page = known.worker_script, known.other_page
        self.claimed = self.paths = self.forwarded = self.original = self.visitor = None
        self.sent, self.sent_for = b"", None

    @property
    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Names and values as sent, in order."""
        return list(zip(self.shape.names, self.sent_values, strict=True))

    @property
    def headers(self) -> Mapping[str, str]:
        """The fields as text by names in any case; the first value of a repeated field."""
        return _Headers(self.shape.places, self.sent_values)

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a field in order; `name` is lower-case."""
        places = self.shape.places.get(name)
        return [self.sent_values[place] for place in places] if places else []

    def text(self, name: bytes) -> str:
        """Return the values of a field as one text, joined as RFC 9110 section 5.3 allows."""
        return b",".join(self.values(name)).decode("latin-1")

    def _read(self) -> None:
        values = self.values
        credentials, tokens = values(b"authorization"), values(TOKEN_FIELD)
        if credentials or tokens:
            self.has_credentials = True
            presented = read_token(credentials, tokens)
            if presented is not None:
                self.bearer, self.token_way = presented
            self.binds = credentials_bind(credentials)
        sites = values(b"sec-fetch-site")
        self.other_page = bool(sites or values(b"origin")) and sites != _SAME_ORIGIN
        # All browsers send the first field, some the second.
        self.worker_script = bool(values(b"service-worker")) or b"serviceworker" in values(
            b"sec-fetch-dest"
        )
        self.via = values(b"via") + values(b"cdn-loop")
        self.agent = b" ".join(values(b"user-agent")).decode("utf-8", "replace")
        self.host = read_host([host.decode("latin-1") for host in values(b"host")])
        options = self.connection = _read_options(values(b"connection"))
        stays = b"close" not in options
        self.keep_alive = (stays, stays and b"keep-alive" in options)
        self.upgrade = b",".join(values(b"upgrade")).lower()
        self.expects_continue = b",".join(values(b"expect")).lower() == b"100-continue"
        codings, lengths = values(b"transfer-encoding"), values(b"content-length")
        if codings and lengths:
            # Request smuggling relies on parsers that differ here (RFC 9112 section 6.1).
            raise RefusedError("both Content-Length and Transfer-Encoding")
        if codings:
            self.chunked = _read_codings(codings)
        if lengths:
            self.length = read_length(lengths)
        self.has_body = self.chunked or bool(self.length)


class _Headers(Mapping[str, str]):
    """Field values by name, ignoring case; decoded only when they are read."""

    __slots__ = ("_places", "_values")

    def __init__(self, places: Mapping[bytes, Sequence[int]], values: tuple[bytes, ...]) -> None:
        self._places = places
        self._values = values

    def __getitem__(self, name: str) -> str:
        return self._values[self._places[name.lower().encode()][0]].decode("latin-1")

    # These two without a KeyError inside, as Mapping has them: where compiled, one costs more than
    # all else here, and most names that are looked up are missing.
    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower().encode() in self._places

    def get(self, name: str, default: Any = None, /) -> Any:  # noqa: ANN401 - as Mapping
        places = self._places.get(name.lower().encode())
        return default if places is None else self._values[places[0]].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._places)

    def __len__(self) -> int:
        return len(self._places)


def split_fields(raw: bytes) -> list[tuple[bytes, bytes]]:
    """Return names and values of field lines, each with CRLF. Raises RefusedError."""
    if _LINES.fullmatch(raw) is None:
        raise RefusedError("a header field that is malformed")
    return [(name, value.rstrip(b" \t")) for name, value in _FIELD.findall(raw)]


def _read_options(values: list[bytes]) -> frozenset[bytes]:
    if not values:
        return _NO_OPTIONS
    known = _CONNECTION.get(values[0]) if len(values) == 1 else None
    if known is not None:
        return known
    return frozenset(
        option.strip(b" \t").lower() for value in values for option in value.split(b",")
    ) - {b""}


def _read_codings(values: list[bytes]) -> bool:
    """Return True for the one coding "chunked" (RFC 9112 sections 6.1 and 7), else raise.

    Raises RefusedError.
    """
    codings = [coding.strip(b" \t").lower() for coding in b",".join(values).split(b",")]
    if codings == [_CHUNKED]:
        return True
    if not all(map(_TOKEN.fullmatch, codings)) or _CHUNKED in codings[:-1]:
        raise RefusedError("a Transfer-Encoding that is malformed")
    raise RefusedError("a transfer coding other than chunked", Reason.CODING_REFUSED)


def read_length(values: Sequence[bytes]) -> int:
    """Return the one Content-Length; raises RefusedError, also for equal ones (RFC 9112 6.3)."""
    match = CONTENT_LENGTH.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        raise RefusedError("a Content-Length that is not one number")
    return int(match[1])
