"""A request (RFC 9112 sections 2 to 6) as the gate says it takes one: its limits, its refusals."""

from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address

from fuzz.reference.bearer import presented
from fuzz.reference.body import chunked
from fuzz.reference.syntax import (
    CRLF,
    DIGITS,
    HEX,
    BadError,
    Pairs,
    elements,
    field_lines,
    framing,
    is_token,
    values,
)

_END = b"\r\n\r\n"
_METHOD = 32
_NAME = 254
_PORT = 5
_HIGHEST_PORT = 65_535
_VISIBLE = frozenset(range(0x21, 0x7F))
_NAME_FIRST = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_")
_NAME_REST = _NAME_FIRST | frozenset(b".-")


@dataclass(frozen=True)
class Bounds:
    """What a request may bring: bytes of its target, its fields and its cookies; a count.

    `empty_host`: a Host without a name is taken, as a proxy sends it for a client that named none
    (RFC 9112 section 3.2).
    """

    target: int
    fields: int
    count: int
    cookies: int
    body: int = 0
    empty_host: bool = False


@dataclass
class Request:
    """A request as it was sent; `path` is its target in origin-form, `host` (name, port).

    `content` is as much of the body as there is, `complete` whether that is all of it, `size` how
    many bytes the request takes (those of its head until it is complete).
    """

    method: bytes
    target: bytes
    version: bytes
    fields: Pairs
    path: bytes
    host: tuple[bytes, bytes]
    length: int | None
    is_chunked: bool
    size: int
    content: bytes = b""
    trailers: Pairs = field(default_factory=list)
    complete: bool = False


def head(data: bytes, bounds: Bounds) -> Request | None:
    """Return the head that begins `data`, None where it is not whole. Raises BadError."""
    if _END not in data:
        return None
    start = len(CRLF) if data.startswith(CRLF) else 0
    section, _, _ = data[start:].partition(_END)
    line, newline, rest = section.partition(CRLF)
    method, target, version = _line(line, bounds)
    raw = rest + CRLF if newline else b""
    pairs = field_lines(raw)
    if len(raw) > bounds.fields or len(pairs) > bounds.count:
        raise BadError("too many fields")
    if sum(map(len, values(pairs, b"cookie"))) > bounds.cookies:
        raise BadError("too long cookies")
    presented(values(pairs, b"authorization"), values(pairs, b"x-tailchat-token"))
    host = _one_host(values(pairs, b"host"), empty=bounds.empty_host)
    if host is None and version == b"HTTP/1.1":
        raise BadError("no Host")
    length, is_chunked = framing(pairs)
    if is_chunked and version != b"HTTP/1.1":
        raise BadError("chunks in HTTP/1.0")
    size = start + len(section) + len(_END)
    path = origin_form(target, host)
    return Request(
        method, target, version, pairs, path, host or (b"", b""), length, is_chunked, size
    )


def request(data: bytes, bounds: Bounds) -> Request | None:
    """Return the request that begins `data`, None where not even its head is whole.

    Raises BadError for a body that cannot become one.
    """
    found = head(data, bounds)
    if found is None:
        return None
    behind = data[found.size :]
    if found.is_chunked:
        body = chunked(behind, bounds.body)
        found.content, found.trailers, found.complete = body.content, body.trailers, body.complete
        if found.complete:
            found.size = len(data) - len(body.rest)
    else:
        length = found.length or 0
        if bounds.body and length > bounds.body:
            raise BadError("too long a body")
        found.content = behind[:length]
        found.complete = len(found.content) == length
        if found.complete:
            found.size += length
    return found


def stays(found: Request) -> bool:
    """Tell whether the connection stays behind a request (RFC 9112 section 9.3)."""
    options = elements(found.fields, b"connection")
    return b"close" not in options and (found.version == b"HTTP/1.1" or b"keep-alive" in options)


def stream(data: bytes, bounds: Bounds) -> tuple[list[Request], str]:
    """Return the requests of a connection, the last perhaps unfinished, and what went wrong.

    "" where nothing did. Nothing is read behind a request that ends the connection. One whose
    body went wrong is among those that are found, unfinished.
    """
    found: list[Request] = []
    while data:
        try:
            one = head(data, bounds)
            found += [] if one is None else [one]
            one = request(data, bounds)
        except BadError as error:
            return found, str(error)
        if one is None:
            return found, ""
        found[-1] = one
        if not one.complete or not stays(one):
            return found, ""
        data = data[one.size :]
    return found, ""


def read_host(raw: bytes) -> tuple[bytes, bytes]:
    """Return name (lower-case, no dot at its end) and port of a Host field. Raises BadError."""
    text = raw.lower()
    if text[:1] == b"[":
        inside, bracket, rest = text[1:].partition(b"]")
        if not bracket or not HEX.union(b":.").issuperset(inside):
            raise BadError("a Host")
        try:
            name = b"[%b]" % str(IPv6Address(inside.decode("ascii"))).encode("ascii")
        except AddressValueError:
            raise BadError("a Host") from None
    else:
        name, colon, port = text.partition(b":")
        rest = colon + port
        if not name or name[0] not in _NAME_FIRST or not _NAME_REST.issuperset(name):
            raise BadError("a Host")
        if len(name) > _NAME or b".." in name:
            raise BadError("a Host")
    return name.removesuffix(b"."), _read_port(rest)


def _read_port(rest: bytes) -> bytes:
    """Return the digits behind a colon, b"" where nothing is there."""
    if not rest:
        return b""
    port = rest[1:]
    if rest[:1] != b":" or not 0 < len(port) <= _PORT or not DIGITS.issuperset(port):
        raise BadError("a Host")
    if int(port) > _HIGHEST_PORT:
        raise BadError("a Host")
    return port


def _line(line: bytes, bounds: Bounds) -> tuple[bytes, bytes, bytes]:
    parts = line.split(b" ")
    if len(parts) != len(("method", "target", "version")):
        raise BadError("a request line")
    method, target, version = parts
    if not is_token(method) or len(method) > _METHOD:
        raise BadError("a method")
    if not target or not _VISIBLE.issuperset(target) or len(target) > bounds.target:
        raise BadError("a target")
    if version not in {b"HTTP/1.0", b"HTTP/1.1"}:
        raise BadError("a version")
    return method, target, version


def _one_host(found: list[bytes], *, empty: bool) -> tuple[bytes, bytes] | None:
    if not found:
        return None
    if len(found) > 1:
        raise BadError("two Hosts")
    if empty and not found[0]:
        return b"", b""
    return read_host(found[0])


def origin_form(target: bytes, host: tuple[bytes, bytes] | None) -> bytes:
    """Return the target in origin-form (RFC 9112 section 3.2). Raises BadError."""
    if target[:1] != b"/":
        scheme, separator, rest = target.partition(b"://")
        if not separator or scheme.lower() not in {b"http", b"https"} or host is None:
            raise BadError("neither a path nor a URL")
        end = next((i for i, octet in enumerate(rest) if octet in b"/?#"), len(rest))
        if read_host(rest[:end]) != host:
            raise BadError("another host")
        target = rest[end:] if rest[end : end + 1] == b"/" else b"/" + rest[end:]
    path = target.partition(b"?")[0]
    if not _VISIBLE.issuperset(target):
        raise BadError("a target")
    if b"#" in target or b"\\" in path or b"%00" in path:
        raise BadError("a target")
    return target
