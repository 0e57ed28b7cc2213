"""What old servers write in a reply's head otherwise than they should, put right; pure.

Only what has one meaning is mended; the connection of a reply whose framing was is not used again,
so that another reading of it could never reach another visitor (RFC 9112 section 11.1).
"""

import re
from typing import Final

from tailchat_gate.proxy.reply_lines import BadReplyError
from tailchat_gate.syntax import CONTENT_LENGTH, TOKEN_OCTETS

_CRLF: Final = b"\r\n"
_FOLD: Final = re.compile(rb"\r\n[ \t]++")
_SPACE_BEFORE_COLON: Final = re.compile(rb"(?m)^(%b)[ \t]++:" % TOKEN_OCTETS)
_FRAMING: Final = re.compile(rb"(?im)^(content-length|transfer-encoding):[ \t]*+([^\r]*+)\r\n")


def repaired(section: bytes) -> bytes:
    """Return field lines without folding and without space before a colon.

    Both are obsolete and a proxy has to remove them (RFC 9112 sections 5.1 and 5.2). Raises
    BadReplyError where the first line is folded onto nothing.
    """
    if section[:1] in {b" ", b"\t"}:
        raise BadReplyError("a header field that is malformed")
    return _SPACE_BEFORE_COLON.sub(rb"\1:", _FOLD.sub(b" ", section))


def with_one_framing(section: bytes) -> bytes:
    """Return field lines with one framing, where all that they say of it comes to the same.

    Beside a transfer coding any length goes (RFC 9112 section 6.3); of equal lengths, in one field
    or several, one stays (RFC 9110 section 8.6). Everything else is left for others to refuse.
    """
    fields = [(name.lower(), value) for name, value in _FRAMING.findall(section)]
    lengths = [value for name, value in fields if name == b"content-length"]
    if not lengths:
        return section
    if len(lengths) < len(fields):
        return _FRAMING.sub(lambda match: b"" if _is_length(match) else match[0], section)
    numbers = [
        CONTENT_LENGTH.fullmatch(one.strip(b" \t")) for one in b",".join(lengths).split(b",")
    ]
    if not all(numbers) or len({int(number[1]) for number in numbers if number}) > 1:
        return section
    kept = b"Content-Length: %b\r\n" % (numbers[0][1] if numbers[0] else b"")
    return _FRAMING.sub(b"", section) + kept


def _is_length(match: re.Match[bytes]) -> bool:
    return match[1].lower() == b"content-length"


def take_lf_head(data: bytes) -> tuple[bytes, bytes] | None:
    """Return a head whose lines all end with LF alone as one with CRLF, and what is behind it.

    None where it is not whole yet. Where a server that ends lines with CRLF passes on an LF that
    somebody gave it, both kinds are there: that is an attempt to split the reply. Raises
    BadReplyError.
    """
    end = data.find(b"\n\n")
    head = data if end < 0 else data[: end + 1]
    if b"\r" in head or b"\0" in head:
        raise BadReplyError("line ends of two kinds in a head")
    if end < 0:
        return None
    return head.replace(b"\n", _CRLF), data[end + 2 :]
