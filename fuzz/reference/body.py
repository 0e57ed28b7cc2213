"""A chunked body (RFC 9112 section 7.1), whole or as much of it as there is."""

from dataclasses import dataclass, field

from fuzz.reference.syntax import CRLF, HEX, MAX_DIGITS, BadError, Pairs, field_lines, is_text

_SIZE_LINE = 1024
_TRAILERS = 8192
_TRAILER_COUNT = 64


@dataclass
class Chunked:
    """What there is of a chunked body: its content, and what lies behind it."""

    content: bytes = b""
    rest: bytes = b""
    trailers: Pairs = field(default_factory=list)
    complete: bool = False


def chunked(data: bytes, limit: int = 0, *, padded: bool = False) -> Chunked:
    """Read a chunked body of at most `limit` bytes (0 = any).

    `padded`: blanks may stand behind a size.
    Raises BadError for what cannot become one, however it goes on.
    """
    found = Chunked()
    announced = 0
    while True:
        line, newline, rest = data.partition(CRLF)
        if len(line) > _SIZE_LINE or b"\n" in line:
            raise BadError("a size line")
        if not newline:
            return found
        size = _size(line.rstrip(b" \t") if padded else line)
        announced += size
        if limit and announced > limit:
            raise BadError("too much")
        if not size:
            return _trailers(rest, found)
        found.content += rest[:size]
        data = rest[size:]
        if not CRLF.startswith(data[:2]):
            raise BadError("no CRLF behind a chunk")
        if len(data) < len(CRLF):
            return found
        data = data[2:]


def _size(line: bytes) -> int:
    digits = bytes(line[: next((i for i, o in enumerate(line) if o not in HEX), len(line))])
    extension = line[len(digits) :].lstrip(b" \t")
    if not digits or len(digits.lstrip(b"0")) > MAX_DIGITS:
        raise BadError("a size")
    if line != digits and (extension[:1] != b";" or not is_text(extension)):
        raise BadError("an extension")
    return int(digits, 16)


def _trailers(data: bytes, found: Chunked) -> Chunked:
    if data.startswith(CRLF):
        found.complete, found.rest = True, data[2:]
        return found
    section, end, rest = data.partition(b"\r\n\r\n")
    if len(section) > _TRAILERS:
        raise BadError("trailers")
    if not end:
        return found
    try:
        found.trailers = field_lines(section + CRLF)
    except BadError:
        raise BadError("trailers") from None
    routing = {b"content-length", b"host", b"transfer-encoding"}
    if len(found.trailers) > _TRAILER_COUNT or routing & {n.lower() for n, _ in found.trailers}:
        raise BadError("trailers")
    found.complete, found.rest = True, rest
    return found
