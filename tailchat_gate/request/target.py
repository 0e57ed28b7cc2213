"""The request target, Host, host patterns, and other requests and paths that a request names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import AddressValueError, IPv6Address
from typing import Final, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from tailchat_gate.reasons import RefusedError
from tailchat_gate.syntax import HTTP_URL, MAX_PORT, PORT, WILDCARD

_MAX_PARAMETERS: Final = 32
_COOKIE: Final = len(b"cookie")

_T = TypeVar("_T")

#: An origin-form target: path, then an optional query (RFC 9112 section 3.2.1). Neither may have
#: control bytes, spaces and bytes above 0x7e. The path must not have raw "#" and backslash, which
#: browsers never send there and servers read in several ways; browsers do send backslashes in
#: queries.
ORIGIN_FORM: Final = r"(/[!\"$->@-\[\]-~]*+)(\?[!\"$-~]*+)?"
_ORIGIN_FORM: Final = re.compile(ORIGIN_FORM)
#: RFC 3986 section 3.2.2 without userinfo and without empty labels (one dot may end a name);
#: names are compared as ASCII (IDNA is the client's).
_HOST: Final = re.compile(
    rf"(?!.*\.\.)(\[[0-9a-f:.]{{2,45}}\]|[a-z0-9_](?:[a-z0-9_.-]{{0,253}})?)(?::({PORT}))?"
)
ENCODED_NUL: Final = "%00"


def query_pairs(query: str) -> list[tuple[str, str]]:
    """Return the decoded pairs of a query, in order.

    `query` begins with "?" or is "". A query with more parameters than any of the gate's paths
    needs counts as empty.
    """
    try:
        return parse_qsl(query[1:], keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return []


def cookie_fields(fields: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the values of the Cookie fields among the raw fields of a request, in order."""
    # The length first: it is cheap to compare, and most names differ in it.
    return [value for name, value in fields if len(name) == _COOKIE and name.lower() == b"cookie"]


class HostPatterns(Generic[_T]):
    """Values by host patterns: whole names in lower case, and wildcards.

    A wildcard covers one or more labels to the left of its name, never the bare name, and is
    compared label by label, so that "badexample.com" is never below "example.com".
    """

    def __init__(self, by_pattern: Mapping[str, _T]) -> None:
        self._exact: Final = {
            name: value for name, value in by_pattern.items() if not name.startswith(WILDCARD)
        }
        self._below: Final = {
            pattern.removeprefix(WILDCARD): value
            for pattern, value in by_pattern.items()
            if pattern.startswith(WILDCARD)
        }
        # The numbers of labels in wildcards, the longest first, so that a host with a hundred
        # labels does not need more lookups.
        self._sizes: Final = tuple(
            sorted({name.count(".") + 1 for name in self._below}, reverse=True)
        )

    def get(self, host: str) -> _T | None:
        """Return the value of a host in lower case, without port and trailing dot.

        The whole name wins over a wildcard, a longer wildcard over a shorter one.
        """
        value = self._exact.get(host)
        if value is None and self._sizes:
            labels = host.split(".")
            for size in self._sizes:
                value = self._below.get(".".join(labels[-size:]))
                if value is not None and size < len(labels) and "" not in labels:
                    return value
            return None
        return value

    def covering(self, name: str) -> list[_T]:
        """Return the values of the wildcards that cover a name, the longest first."""
        labels = name.split(".")
        values = (
            self._below.get(".".join(labels[-size:])) for size in self._sizes if size < len(labels)
        )
        return [each for each in values if each is not None]


class Host:
    """A Host field: `raw` as sent; `name` in lower case and normal form; `port`, "" for none."""

    __slots__ = ("name", "port", "raw")

    def __init__(
        self,
        raw: bytes,
        name: str,
        port: str,
    ) -> None:
        self.raw: Final = raw
        self.name: Final = name
        self.port: Final = port

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Host):
            return NotImplemented
        return (self.raw, self.name, self.port) == (other.raw, other.name, other.port)

    def __hash__(self) -> int:
        return hash((self.raw, self.name, self.port))


class Target:
    """The target: `raw` goes upstream unchanged; `path` and `query` are its parts as text."""

    __slots__ = ("path", "query", "raw")

    def __init__(
        self,
        raw: bytes,
        path: str,
        query: str,
    ) -> None:
        self.raw: Final = raw
        self.path: Final = path
        self.query: Final = query

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Target):
            return NotImplemented
        return (self.raw, self.path, self.query) == (other.raw, other.path, other.query)

    def __hash__(self) -> int:
        return hash((self.raw, self.path, self.query))


#: For an HTTP/1.0 request without a Host (RFC 9112 section 3.2).
NO_HOST: Final = Host(b"", "", "")
#: For a request that could not be read.
NO_TARGET: Final = Target(b"", "", "")


@dataclass(frozen=True, slots=True)
class Original:
    """The visitor's request to the proxy; `method` is "" if the proxy does not name it.

    `websocket`: it requests a WebSocket, by its key or by the method of HTTP/2, because proxies do
    not forward Upgrade. `as_sent`: the subrequest is the request itself. `unstripped`: the tool
    gets the visitor's fields that are in the subrequest. `by_nginx`: the dialect is nginx's, which
    takes every status but 2xx, 401 and 403 for a fault.
    """

    method: str
    host: Host
    target: Target
    websocket: bool = False
    as_sent: bool = False
    unstripped: bool = False
    by_nginx: bool = field(default=False, compare=False)


class Purpose(Enum):
    """A tool's action on a path that a field names."""

    WRITE = "write"
    READ = "read"
    MOVE = "move"
    #: The same as the request itself: the field names a condition.
    SAME = "same"


class Claim(NamedTuple):
    """A path that a field names: `name` is the field's, in lower case.

    `authority` and `scheme` (lower case) are those of a URL, None and "" for a path alone. `target`
    is the path with its query. `relative`: it is a name within the tool's own space, which begins
    at its root, or with `in_account` at the account of the request. `start` and `end` are its
    position in the field's value.
    """

    name: bytes
    purpose: Purpose
    target: Target
    authority: Host | None
    scheme: str
    relative: bool
    in_account: bool
    start: int
    end: int


def read_host(values: Sequence[str]) -> Host:
    """Return the one valid Host of a request.

    `values` are the Host fields as text. Raises RefusedError for more than one, even equal ones
    (RFC 9112 section 3.2), and for anything but a host with an optional port.
    """
    if not values:
        return NO_HOST
    if len(values) > 1:
        raise RefusedError("more than one Host")
    raw = values[0]
    match = _HOST.fullmatch(raw.lower()) if raw.isascii() else None
    if match is None or int(match[2] or 0) > MAX_PORT:
        raise RefusedError("an invalid Host")
    name = _one_spelling(match[1]) if raw.startswith("[") else match[1].removesuffix(".")
    return Host(raw.encode("ascii"), name, match[2] or "")


def _one_spelling(address: str) -> str:
    """Return an IPv6 address in brackets in normal form: "[0:0::1]" becomes "[::1]"."""
    try:
        return f"[{IPv6Address(address[1:-1])}]"
    except AddressValueError:
        raise RefusedError("an invalid Host") from None


def read_target(raw: str, host: Host | None) -> Target:
    """Return the target of a request for `host`, None if that is not yet known.

    `raw` is the request target as text, undecodable bytes as surrogate escapes. An absolute-form
    target must name the same host as the Host field, although RFC 9112 section 3.2.2 would let the
    target win: a proxy and its upstream could disagree on that. It goes upstream in origin-form.
    Raises RefusedError.
    """
    if not raw.startswith("/"):
        raw = _from_absolute_form(raw, host)
    match = _ORIGIN_FORM.fullmatch(raw)
    if match is None:
        raise RefusedError("a request target with characters that a URL cannot carry")
    path, query = match[1], match[2] or ""
    if ENCODED_NUL in path:
        raise RefusedError("an encoded NUL in the path")
    return Target(raw.encode("ascii"), path, query)


def _from_absolute_form(raw: str, host: Host | None) -> str:
    match = HTTP_URL.fullmatch(raw)
    if match is None or host is None:
        raise RefusedError("a request target that is neither a path nor an http URL")
    authority = read_host([match[2]])
    if (authority.name, authority.port) != (host.name, host.port):
        raise RefusedError("a request target that names another host than the Host field")
    rest = match[3]
    return rest if rest.startswith("/") else "/" + rest
