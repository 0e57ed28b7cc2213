"""Replies (RFC 9112 sections 4 to 7): all that answers one request, from a tool or the gate."""

from dataclasses import dataclass, field

from fuzz.reference.body import chunked
from fuzz.reference.rewriting import folded
from fuzz.reference.syntax import (
    CRLF,
    DIGITS,
    BadError,
    Pairs,
    elements,
    field_lines,
    framing,
    is_text,
    values,
)

_END = b"\r\n\r\n"
_STATUS = 3
_BLANKS = 7
MAX_LENGTH = 15
_FINAL = 200
_SWITCHING = 101
_NO_CONTENT = 204
_BODILESS = (204, 304)
_LARGEST_HEAD = 65_536


@dataclass
class Head:
    """The head of a reply."""

    version: bytes
    status: int
    reason: bytes
    fields: Pairs


@dataclass
class Response:
    """A final reply: the interim ones before it, its head, and as much as there is of its body.

    `rest` is what lies behind it; `until_close` that its body ends with the connection, and so is
    never known to be complete.
    """

    interim: list[Head] = field(default_factory=list)
    head: Head | None = None
    content: bytes = b""
    trailers: Pairs = field(default_factory=list)
    rest: bytes = b""
    complete: bool = False
    until_close: bool = False


def read(data: bytes, *, is_head: bool = False, obsolete: bool = False) -> Response:
    """Read the reply to one request; `is_head` says that its method was HEAD.

    `obsolete`: what old servers write is mended, and not refused: folded lines, white space before
    a colon, LF line ends, blanks in a status line, framings that say the same. A
    switch of protocols is a final reply without a body. Raises BadError.
    """
    found = Response()
    while True:
        raw, end, behind = _partition(data) if obsolete else data.partition(_END)
        if not end:
            found.rest = data
            return found
        head = _head(raw, obsolete=obsolete)
        data = behind
        if head.status >= _FINAL or head.status == _SWITCHING:
            break
        found.interim.append(head)
    found.head = head
    _body(found, data, is_head=is_head, obsolete=obsolete)
    return found


def _body(found: Response, data: bytes, *, is_head: bool, obsolete: bool) -> None:
    """Read what is behind the head by the rules of RFC 9112 section 6.3."""
    head = found.head
    if head is None:
        return
    if head.status == _SWITCHING:
        found.rest, found.complete = data, True
        return
    length, is_chunked = framing(head.fields)
    if is_chunked and head.version != b"HTTP/1.1" and not obsolete:
        raise BadError("chunks in HTTP/1.0")
    if is_head or head.status in _BODILESS:
        found.rest, found.complete = data, True
    elif is_chunked:
        body = chunked(data, padded=obsolete)
        found.content, found.trailers = body.content, body.trailers
        found.rest, found.complete = body.rest, body.complete
    elif length is not None:
        found.content, found.rest = data[:length], data[length:]
        found.complete = len(found.content) == length
    else:
        found.content, found.until_close = data, True


def _head(raw: bytes, *, obsolete: bool) -> Head:
    if len(raw) > _LARGEST_HEAD:
        raise BadError("a head")
    line, newline, section = raw.partition(CRLF)
    start, _, rest = line.partition(b" ")
    blanks = len(rest) - len(rest.lstrip(b" "))
    if obsolete and blanks <= _BLANKS:
        line = start + b" " + rest.lstrip(b" ") if rest else line
    version, status, reason = _status_line(line)
    if obsolete and newline:
        section = _mended(section)
    fields = field_lines(section + CRLF if newline else b"")
    if obsolete:
        fields = _one_framing(fields)
    framing(fields)
    return Head(version, status, reason, fields)


def _status_line(line: bytes) -> tuple[bytes, int, bytes]:
    version, status, *rest = [*line.split(b" ", 2), b""][:3]
    if version not in {b"HTTP/1.0", b"HTTP/1.1"}:
        raise BadError("a version")
    if len(status) != _STATUS or not DIGITS.issuperset(status) or status[:1] == b"0":
        raise BadError("a status")
    reason = rest[0] if rest else b""
    if not is_text(reason):
        raise BadError("a reason")
    return version, int(status), reason


def _partition(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return a head with CRLF line ends, its end, and what is behind, for LF line ends too."""
    line, newline, _ = data.partition(b"\n")
    if not newline or not line or line.endswith(b"\r"):
        return data.partition(_END)
    raw, end, behind = data.partition(b"\n\n")
    if b"\r" in raw or b"\0" in raw:
        raise BadError("line ends of two kinds")
    return raw.replace(b"\n", CRLF), end, behind


def _one_framing(fields: Pairs) -> Pairs:
    """Return fields without a length beside a coding, and with one of equal lengths."""
    lengths = values(fields, b"content-length")
    others = [pair for pair in fields if pair[0].lower() != b"content-length"]
    if values(fields, b"transfer-encoding"):
        return others
    numbers = [one.strip(b" \t") for one in b",".join(lengths).split(b",")]
    if not lengths or not all(n and DIGITS.issuperset(n) for n in numbers):
        return fields
    if len({int(n) for n in numbers if len(n.lstrip(b"0")) <= MAX_LENGTH}) > 1:
        return fields
    return [*others, (b"Content-Length", numbers[0])]


def _mended(section: bytes) -> bytes:
    """Return field lines without folds and without white space before a colon."""
    if section[:1] in {b" ", b"\t"}:
        raise BadError("a fold of nothing")
    unfolded: list[bytes] = []
    for line in section.split(CRLF):
        if line[:1] in {b" ", b"\t"}:
            unfolded[-1] += b" " + line.lstrip(b" \t")
        else:
            unfolded.append(line)
    lines = []
    for line in unfolded:
        name, colon, value = line.partition(b":")
        lines.append(name.rstrip(b" \t") + colon + value)
    return CRLF.join(lines)


def passed_on(head: Head) -> Pairs:
    """Return the fields of a reply that its client gets, in order: none of the connection's.

    The framing is not among them; it is written anew.
    """
    # "close" is reserved as a field's name (RFC 9110 section 18.4): nobody lists one.
    listed = set(elements(head.fields, b"connection")) - {b"close", b"content-length"}
    own = {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"}
    own |= {b"proxy-connection", b"te", b"transfer-encoding", b"upgrade", b"content-length"}
    return [(n, v) for n, v in head.fields if n.lower() not in own | listed and not is_order(n)]


_ORDERS = (b"clear-site-data", b"alt-svc", b"nel", b"report-to", b"set-cookie2", b"x-send-file")
_SESSIONS = (b"sec-session-registration", b"secure-session-registration", b"x-litespeed-location")
_STARTS = (b"x-accel-", b"x-sendfile", b"x-lighttpd-send", b"x-reproxy-", b"x-envoy-")


def is_order(name: bytes) -> bool:
    """Tell whether a field of a reply reaches beyond its tool, as docs/headers.md tells."""
    found = folded(name)
    if found == b"x-accel-buffering":
        return False
    is_named = found in _ORDERS + _SESSIONS
    return is_named or found.startswith((*_STARTS, b"fly-replay", b"public-key-pins"))


def stays(head: Head) -> bool:
    """Tell whether the connection stays behind a reply (RFC 9112 section 9.3).

    Behind a 204 it does not where a body is announced, which may come all the same.
    """
    lengths, codings = framings(head)
    if head.status == _NO_CONTENT and (codings or any(value.strip(b"0") for value in lengths)):
        return False
    options = elements(head.fields, b"connection")
    if head.version == b"HTTP/1.0":
        return b"keep-alive" in options
    return b"close" not in options


def framings(head: Head) -> tuple[list[bytes], list[bytes]]:
    """Return the values of both framing fields."""
    return values(head.fields, b"content-length"), values(head.fields, b"transfer-encoding")
