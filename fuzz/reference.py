"""Parsers as plain as they can be: slow, for whole messages, byte by byte from the RFCs."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_HEX = frozenset(b"0123456789abcdefABCDEF")
#: What stands in no field value, chunk extension or reason phrase (RFC 9110 section 5.5).
_CONTROLS = frozenset({*range(9), *range(10, 32), 127})
_SIZE_LINE = 1024
_TRAILERS = 8192
_TRAILER_COUNT = 64
_DIGITS = 15
_TWO_BYTES, _EIGHT_BYTES = 126, 127

Pairs = list[tuple[bytes, bytes]]


class BadError(ValueError):
    """Bytes that are not what they should be."""


def is_token(text: bytes) -> bool:
    """Tell whether text is a token (RFC 9110 section 5.6.2)."""
    return bool(text) and _TOKEN.issuperset(text)


def is_text(value: bytes) -> bool:
    """Tell whether a value has no control byte but the tab."""
    return _CONTROLS.isdisjoint(value)


def fields(raw: bytes) -> Pairs:
    """Return names and values of field lines, each with its CRLF. Raises BadError."""
    if not raw:
        return []
    *lines, rest = raw.split(b"\r\n")
    if rest:
        raise BadError("no CRLF at the end")
    pairs = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not is_token(name) or not is_text(value):
            raise BadError("a field line")
        pairs.append((name, value.strip(b" \t")))
    return pairs


@dataclass
class Chunked:
    """What there is of a chunked body: its content, and what lies behind it."""

    content: bytes = b""
    rest: bytes = b""
    trailers: Pairs = field(default_factory=list)
    complete: bool = False


def chunked(data: bytes, limit: int = 0) -> Chunked:
    """Read a chunked body (RFC 9112 section 7.1) of at most `limit` bytes (0 = any).

    Raises BadError for what cannot become one, however it goes on.
    """
    found = Chunked()
    announced = 0
    while True:
        line, newline, rest = data.partition(b"\r\n")
        if len(line) > _SIZE_LINE or b"\n" in line:
            raise BadError("a size line")
        if not newline:
            return found
        size = _size(line)
        announced += size
        if limit and announced > limit:
            raise BadError("too much")
        if not size:
            return _trailers(rest, found)
        found.content += rest[:size]
        data = rest[size:]
        if not b"\r\n".startswith(data[:2]):
            raise BadError("no CRLF behind a chunk")
        if len(data) < len(b"\r\n"):
            return found
        data = data[2:]


def _size(line: bytes) -> int:
    digits = bytes(line[: next((i for i, o in enumerate(line) if o not in _HEX), len(line))])
    extension = line[len(digits) :].lstrip(b" \t")
    if not digits or len(digits.lstrip(b"0")) > _DIGITS:
        raise BadError("a size")
    if line != digits and (extension[:1] != b";" or not is_text(extension)):
        raise BadError("an extension")
    return int(digits, 16)


def _trailers(data: bytes, found: Chunked) -> Chunked:
    if data.startswith(b"\r\n"):
        found.complete, found.rest = True, data[2:]
        return found
    section, end, rest = data.partition(b"\r\n\r\n")
    if len(section) > _TRAILERS:
        raise BadError("trailers")
    if not end:
        return found
    found.trailers = fields(section + b"\r\n")
    framing = {b"content-length", b"host", b"transfer-encoding"}
    if len(found.trailers) > _TRAILER_COUNT or framing & {n.lower() for n, _ in found.trailers}:
        raise BadError("trailers")
    found.complete, found.rest = True, rest
    return found


def frame_ends(stream: bytes) -> tuple[list[int], bool]:
    """Return where the frames of a WebSocket end (RFC 6455 section 5.2), and whether one closes.

    Ends that lie behind the stream are not told.
    """
    ends, closed, place = [], False, 0
    while place < len(stream):
        closed = closed or stream[place] % 16 == 8  # noqa: PLR2004 - the opcode of a close
        size = _frame_size(stream[place:])
        if not size or place + size > len(stream):
            break
        place += size
        ends.append(place)
    return ends, closed


def _frame_size(frame: bytes) -> int:
    """Return the size of the frame that begins, 0 where too little of it is there to tell."""
    if len(frame) < len(b"ab"):
        return 0
    mask, length = 4 * (frame[1] >> 7), frame[1] & 127
    extension = {_TWO_BYTES: 2, _EIGHT_BYTES: 8}.get(length, 0)
    if len(frame) < 2 + extension:
        return 0
    if extension:
        length = int.from_bytes(frame[2 : 2 + extension], "big")
    return 2 + extension + mask + length


def believed_hops(
    peer: str, chain: str, trusted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> list[str]:
    """Return the addresses that are believed, the peer first, then leftwards through the chain."""
    hops = [peer]
    for entry in reversed(chain.split(",")):
        address = _address(entry.strip())
        if address is None:
            break
        hops.append(str(address))
        if not any(address.version == n.version and address in n for n in trusted):
            break
    return hops


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if text[:1] == "[":
        text = text[1:].split("]", maxsplit=1)[0]
    elif text.count(":") == 1:
        text = text.split(":")[0]
    try:
        found = ipaddress.ip_address(text.split("%")[0] if "%" in text[1:] else text)
    except ValueError:
        return None
    if found.version == 6:  # noqa: PLR2004 - its own name
        return found.ipv4_mapped or found
    return found
