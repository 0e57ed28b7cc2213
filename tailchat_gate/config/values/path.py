"""Paths in the configuration: of requests and of files."""

import re

from tailchat_gate import syntax

PREFIX = 'a path such as "/oauth2": letters, digits and . _ ~ - between slashes, none at the end'
ROUTE_PATH = 'an absolute path such as "/wiki"'
UPSTREAM_PATH = 'an absolute path such as "/" or "/wiki"'
FILE = 'the absolute path of a file, such as "/etc/tailchat-gate/tool-ca.pem"'
STATE = 'the absolute path of a directory, such as "/var/lib/tailchat-gate", or "" for memory only'

_PREFIX = re.compile(syntax.PREFIX)
_ROUTE_PATH = re.compile(syntax.ROUTE_PATH)
_FILE = re.compile(syntax.FILE)
_REFUSED = "%?#;\\*"


def prefix(text: str) -> str:
    """Check the prefix of the gate's own paths.

    Raises ValueError, whose text says what is accepted.
    """
    if not _PREFIX.fullmatch(text):
        raise ValueError(PREFIX)
    if text == syntax.PING:
        raise ValueError(f"{PREFIX}; {syntax.PING} is taken by the gate")
    return text


def route_path(text: str) -> str:
    """Check the path of a route and remove its trailing slash (except for "/").

    Raises ValueError, whose text says what is accepted.
    """
    path = _plain(text, ROUTE_PATH)
    if text == syntax.PING:
        raise ValueError(f"{ROUTE_PATH}; {syntax.PING} is taken by the gate")
    return path


def upstream_path(text: str) -> str:
    """Check the path that a tool sees in place of the route's, as `route_path` does.

    Raises ValueError, whose text says what is accepted.
    """
    return _plain(text, UPSTREAM_PATH)


def absolute_file(text: str) -> str:
    """Check the path of a file, which need not exist; raises ValueError."""
    if not _FILE.fullmatch(text):
        raise ValueError(FILE)
    return text


def file_or_none(text: str) -> str:
    """Check the path of a file, "" for none; raises ValueError."""
    if text and not _FILE.fullmatch(text):
        raise ValueError(f'{FILE}, or "" for none')
    return text


def state_directory(text: str) -> str:
    """Check the path of the directory for state, "" for none; raises ValueError."""
    if text and not _FILE.fullmatch(text):
        raise ValueError(STATE)
    return text


def inside(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or below it, by whole segments."""
    return path == folder or path.startswith(f"{folder}/")


def stripped(outer: str, inner: str | None) -> str:
    """Return the prefix that the gate removes from paths before a tool sees them, "" for none.

    `outer` is the path of the route, `inner` the path that the tool sees in its place.
    """
    tail = "" if inner == "/" else inner
    if tail is None or outer == "/" or not outer.endswith(tail):
        return ""
    return outer.removesuffix(tail)


def _plain(text: str, expected: str) -> str:
    """Check that every server reads a path the same way, and remove its trailing slash.

    Servers read dot segments, `//`, `%`, `;` and a backslash in more than one way (RFC 3986
    sections 3.3 and 5.2.4), so these are refused; so is `*`, which has no meaning in a prefix.
    `expected` begins the text of the ValueError.
    """
    if not text.startswith("/"):
        raise ValueError(expected)
    for sign in _REFUSED:
        if sign in text:
            below = "; a path holds for everything below it" if sign == "*" else ""
            raise ValueError(f"{expected}, without {sign}{below}")
    if "//" in text:
        raise ValueError(f"{expected}, without an empty segment")
    if syntax.DOTS.search(text):
        raise ValueError(f"{expected}, without . and .. segments")
    if not _ROUTE_PATH.fullmatch(text):
        raise ValueError(f"{expected}, of visible ASCII that needs no escaping")
    return text.rstrip("/") or "/"
