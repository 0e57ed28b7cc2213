"""The paths an admin writes: the gate's own prefix and the prefixes of routes."""

import re

PREFIX = 'a path such as "/oauth2": letters, digits and . _ ~ - between slashes, none at the end'
ROUTE_PATH = 'an absolute path such as "/wiki"'
PING = "/ping"  # answered by the gate itself, whatever the prefix

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_ROUTE_PATH = re.compile(r"/|(?:/[A-Za-z0-9._~!$&'()+,=:@-]+)+/?")  # RFC 3986 pchar, see below
_DOTS = re.compile(r"/\.{1,2}(?:/|$)")
_REFUSED = "%?#;\\*"


def prefix(text: str) -> str:
    """Check the prefix of the gate's own paths.

    Raises ValueError, whose text says what would be right.
    """
    if not _PREFIX.fullmatch(text) or _DOTS.search(text):
        raise ValueError(PREFIX)
    if text == PING:
        raise ValueError(f"{PREFIX}; {PING} is taken by the gate")
    return text


def route_path(text: str) -> str:
    """Check the path of a route and drop its trailing slash ("/" stays).

    Refused is what servers read in more than one way (RFC 3986 sections 3.3 and 5.2.4): dot
    segments, `//`, `%`, `;`, a backslash; and `*`, which has no meaning in a prefix.
    Raises ValueError, whose text says what would be right.
    """
    if not text.startswith("/"):
        raise ValueError(ROUTE_PATH)
    for sign in _REFUSED:
        if sign in text:
            below = "; a path holds for everything below it" if sign == "*" else ""
            raise ValueError(f"{ROUTE_PATH}, without {sign}{below}")
    if "//" in text:
        raise ValueError(f"{ROUTE_PATH}, without an empty segment")
    if _DOTS.search(text):
        raise ValueError(f"{ROUTE_PATH}, without . and .. segments")
    if not _ROUTE_PATH.fullmatch(text):
        raise ValueError(f"{ROUTE_PATH}, of visible ASCII that needs no escaping")
    if text == PING:
        raise ValueError(f"{ROUTE_PATH}; {PING} is taken by the gate")
    return text.rstrip("/") or "/"


def inside(path: str, folder: str) -> bool:
    """Tell whether `path` is `folder` or below it, by whole segments."""
    return path == folder or path.startswith(f"{folder}/")
