"""The path of a request as names below a directory: decoded once, never resolved, or refused."""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from tailchat_gate.syntax import CTL, VCHAR

#: Segments of visible ASCII behind slashes, each "%" with two digits: what a URL can carry (RFC
#: 3986 section 3.3, and a little that browsers leave unescaped). No backslash, which browsers
#: and Windows take for a slash.
_SENT: Final = re.compile(rf"(?:/(?:(?![/?#%\\])[{VCHAR}]|%[0-9A-Fa-f]{{2}})*)*")
#: A slash or backslash out of an escape would be a second reading of the path; the others are
#: in no honest name.
_REFUSED: Final = re.compile(rf"[/\\{CTL}]")
#: RFC 8615: the one name with a dot in front that is meant for visitors.
_WELL_KNOWN: Final = ".well-known"


class AskedPath(NamedTuple):
    """A path below the directory: `names` as in the file system, none of them "", "." or "..".

    `folder`: it ends with a slash, so that it names a directory.
    """

    names: tuple[bytes, ...]
    folder: bool


def read_path(raw: str) -> AskedPath | None:
    """Return what a raw path asks for, None for one that is never served.

    `raw` is the path behind that of the route, as it was sent: "" or text that begins with "/".
    Never served are dot segments, empty segments, names that begin with a dot (but
    ".well-known"), and whatever decodes to a slash, a backslash, a control character or invalid
    UTF-8. What comes out of an escape is not decoded again.
    """
    if not _SENT.fullmatch(raw):
        return None
    segments = raw.split("/")[1:]
    folder = bool(segments) and not segments[-1]
    if folder:
        segments.pop()
    names: list[bytes] = []
    for segment in segments:
        octets = unquote_to_bytes(segment)
        if not _is_served(octets):
            return None
        names.append(octets)
    return AskedPath(tuple(names), folder)


def _is_served(octets: bytes) -> bool:
    try:
        name = octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    if not name or _REFUSED.search(name):
        return False
    return not name.startswith(".") or name == _WELL_KNOWN
