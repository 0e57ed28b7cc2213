"""What all messages are made of: tokens, values, field lines (RFC 9110 section 5)."""

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
DIGITS = frozenset(b"0123456789")
HEX = DIGITS | frozenset(b"abcdefABCDEF")
#: What stands in no field value, chunk extension or reason phrase.
CONTROLS = frozenset({*range(9), *range(10, 32), 127})
CRLF = b"\r\n"
#: More digits than that, leading zeros aside, make no length.
MAX_DIGITS = 15

Pairs = list[tuple[bytes, bytes]]


class BadError(ValueError):
    """Bytes that are not what they should be, however they go on."""


def is_token(text: bytes) -> bool:
    """Tell whether text is a token (RFC 9110 section 5.6.2)."""
    return bool(text) and TOKEN.issuperset(text)


def is_text(value: bytes) -> bool:
    """Tell whether a value has no control byte but the tab."""
    return CONTROLS.isdisjoint(value)


def field_lines(raw: bytes) -> Pairs:
    """Return names and values of field lines, each with its CRLF. Raises BadError."""
    if not raw:
        return []
    *lines, rest = raw.split(CRLF)
    if rest:
        raise BadError("no CRLF at the end")
    pairs = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not is_token(name) or not is_text(value):
            raise BadError("a field line")
        pairs.append((name, value.strip(b" \t")))
    return pairs


def values(pairs: Pairs, name: bytes) -> list[bytes]:
    """Return the values of a field in order; `name` is lower-case."""
    return [value for found, value in pairs if found.lower() == name]


def elements(pairs: Pairs, name: bytes) -> list[bytes]:
    """Return the elements of a list field in order and lower case, empty ones among them."""
    found = values(pairs, name)
    return [one.strip(b" \t").lower() for value in found for one in value.split(b",")]


def content_length(pairs: Pairs) -> int | None:
    """Return the one Content-Length, None where there is none. Raises BadError."""
    found = values(pairs, b"content-length")
    if not found:
        return None
    if len(found) > 1 or not found[0] or not DIGITS.issuperset(found[0]):
        raise BadError("a length")
    if len(found[0].lstrip(b"0")) > MAX_DIGITS:
        raise BadError("a length beyond all bounds")
    return int(found[0])


def is_chunked(pairs: Pairs) -> bool:
    """Tell whether chunked is the one transfer coding. Raises BadError for any other."""
    codings = elements(pairs, b"transfer-encoding")
    if not codings:
        return False
    if codings != [b"chunked"]:
        raise BadError("a transfer coding")
    return True


def framing(pairs: Pairs) -> tuple[int | None, bool]:
    """Return the length and whether the body is chunked; never both. Raises BadError."""
    if values(pairs, b"content-length") and values(pairs, b"transfer-encoding"):
        raise BadError("two framings")
    return content_length(pairs), is_chunked(pairs)
