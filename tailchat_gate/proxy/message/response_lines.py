"""Reads the header lines of responses, and repairs those of out-of-date servers."""

import re
from enum import IntEnum
from typing import Final, TypeVar

from tailchat_gate.bounded import keep_in
from tailchat_gate.request.authorization import challenge_binds
from tailchat_gate.request.field_names import HOP_BY_HOP, fold, is_order
from tailchat_gate.syntax import CONTENT_LENGTH, FIELD_VALUE_OCTETS, TOKEN_OCTETS

_Value = TypeVar("_Value")
_MAX_KNOWN: Final = 2048
_MAX_KNOWN_LENGTH: Final = 256
#: RFC 9112 section 4; many servers leave out the space before an empty reason.
_STATUS_LINE: Final = re.compile(
    rb"HTTP/1\.([01]) {1,8}([1-9][0-9]{2})(?: (%b))?" % FIELD_VALUE_OCTETS
)
_LINE: Final = re.compile(rb"(%b):[ \t]*+(%b)" % (TOKEN_OCTETS, FIELD_VALUE_OCTETS))
#: Options of Connection that have no meaning in HTTP/1.1.
_STAYS: Final = frozenset((b"keep-alive",))

_CRLF: Final = b"\r\n"
_FOLD: Final = re.compile(rb"\r\n[ \t]++")
_SPACE_BEFORE_COLON: Final = re.compile(rb"(?m)^(%b)[ \t]++:" % TOKEN_OCTETS)
_FRAMING: Final = re.compile(rb"(?im)^(content-length|transfer-encoding):[ \t]*+([^\r]*+)\r\n")


class LineAction(IntEnum):
    """The action of the gate on a field line."""

    KEEP = 0
    DROP = 1
    SET_COOKIE = 2
    CONTENT_LENGTH = 3
    TRANSFER_ENCODING = 4
    CONNECTION = 5
    UPGRADE = 6
    EDIT = 7
    CHALLENGE = 8
    ORDER = 9
    WORKER_SCOPE = 10
    STREAM = 11


# Globals: see reasons.py.
(
    _KEEP, _DROP, _SET_COOKIE, _CONTENT_LENGTH, _TRANSFER_ENCODING, _CONNECTION, _UPGRADE, _EDIT,
    _CHALLENGE, _ORDER, _WORKER_SCOPE, _STREAM,
) = LineAction  # fmt: skip

#: Never cached: a Set-Cookie is a secret, and the challenge of a handshake differs each time.
_NEVER_KNOWN: Final = (_SET_COOKIE, _CHALLENGE)
_ACTIONS: Final = {
    b"set-cookie": _SET_COOKIE,
    b"content-length": _CONTENT_LENGTH,
    b"transfer-encoding": _TRANSFER_ENCODING,
    b"connection": _CONNECTION,
    b"upgrade": _UPGRADE,
    b"location": _EDIT,
    b"content-location": _EDIT,
    b"refresh": _EDIT,
    b"persistent-auth": _CHALLENGE,
    b"www-authenticate": _CHALLENGE,
    b"service-worker-allowed": _WORKER_SCOPE,
    b"content-type": _STREAM,
}


#: Responses with these media types last as long as the client reads them.
_STREAMS: Final = (b"text/event-stream", b"multipart/x-mixed-replace")


class BadResponseError(ValueError):
    """An upstream sent bytes that are no response, or an ambiguous one; the text says why."""


class Line:
    """A field line of a response: the action, the line to send, and the parsed value.

    `length` is the value of a Content-Length, `options` are those of a Connection field.
    """

    __slots__ = ("action", "length", "options", "sent", "value")

    def __init__(
        self,
        action: LineAction,
        sent: bytes,
        value: bytes = b"",
        length: int = 0,
        options: frozenset[bytes] = frozenset(),
    ) -> None:
        self.action: Final = action
        self.sent: Final = sent
        self.value: Final = value
        self.length: Final = length
        self.options: Final = options


#: A field that is passed on as it is.
_AS_SENT: Final = Line(_KEEP, b"")


class ResponseLines:
    """Parses field lines and status lines of responses, and caches them, because they repeat.

    Each cache holds at most 2048 lines of 256 bytes, and none that is secret. They are plain dicts,
    since each line of each response is looked up in one.
    """

    def __init__(self) -> None:
        #: The line to send for one that says nothing about the message: itself, or b"" for none.
        self.plain: Final[dict[bytes, bytes]] = {}
        self.known: Final[dict[bytes, Line]] = {}
        self.statuses: Final[dict[bytes, tuple[int, bool, bytes]]] = {}
        #: Actions by names as tools spell them.
        self._actions: dict[bytes, LineAction] = {}

    def line(self, raw: bytes) -> Line:
        """Parse a field line without its CRLF. Raises BadResponseError."""
        match = _LINE.fullmatch(raw)
        if match is None:
            raise BadResponseError("a header field that is malformed")
        name = match[1]
        action = self._actions.get(name)
        if action is None:
            action = self._action(name)
        if action is _STREAM and not match[2].lower().startswith(_STREAMS):
            action = _KEEP
        if action is _KEEP:
            _store(self.plain, raw, raw)
            return _AS_SENT
        line = _read_line(raw, name, match[2].rstrip(b" \t"), action)
        if action is _DROP or line.options == _STAYS:
            _store(self.plain, raw, b"")
        if line.action not in _NEVER_KNOWN:
            _store(self.known, raw, line)
        return line

    def _action(self, name: bytes) -> LineAction:
        """Return the action on fields of a name; cache it."""
        lower = name.lower()
        action = _ACTIONS.get(lower, _DROP if lower in HOP_BY_HOP else _KEEP)
        if action is _KEEP and is_order(fold(name)):
            action = _ORDER
        _store(self._actions, name, action)
        return action

    def status(self, raw: bytes) -> tuple[int, bool, bytes]:
        """Return a status line's status, whether its version is 1.0, and the line to send.

        Raises BadResponseError.
        """
        match = _STATUS_LINE.fullmatch(raw)
        if match is None:
            raise BadResponseError("a status line that is malformed")
        sent = b"HTTP/1.1 %b %b" % (match[2], match[3] or b"")
        parsed = (int(match[2]), match[1] == b"0", sent)
        if raw[8:10] != b"  ":
            _store(self.statuses, raw, parsed)
        return parsed


def _store(cache: dict[bytes, _Value], key: bytes, value: _Value) -> None:
    if len(key) <= _MAX_KNOWN_LENGTH:
        keep_in(cache, key, value, _MAX_KNOWN)


def _read_line(raw: bytes, name: bytes, value: bytes, action: LineAction) -> Line:
    if action is _CONTENT_LENGTH:
        match = CONTENT_LENGTH.fullmatch(value)
        if match is None:
            raise BadResponseError("a Content-Length that is not one number")
        length = int(match[1])
        return Line(action, b"%b: %d" % (name, length), value, length)
    if action is _CONNECTION:
        options = frozenset(option.strip(b" \t").lower() for option in value.split(b","))
        return Line(action, raw, value, 0, options)
    if action is _CHALLENGE and name.lower() == b"www-authenticate" and not challenge_binds(value):
        action = _KEEP
    return Line(action, raw, value)


def repaired(section: bytes) -> bytes:
    """Return field lines without line folding and without space before a colon.

    A proxy must remove both (RFC 9112 sections 5.1 and 5.2). Raises BadResponseError if the first
    line is a folded one.
    """
    if section[:1] in {b" ", b"\t"}:
        raise BadResponseError("a header field that is malformed")
    return _SPACE_BEFORE_COLON.sub(rb"\1:", _FOLD.sub(b" ", section))


def with_one_framing(section: bytes) -> bytes:
    """Return field lines with one framing field, if the framing is unambiguous.

    Beside a transfer coding each length is removed (RFC 9112 section 6.3); of equal lengths, in one
    field or several, one stays (RFC 9110 section 8.6). Anything else is returned as it is, and the
    reader rejects it.
    """
    fields = [(name.lower(), value) for name, value in _FRAMING.findall(section)]
    lengths = [value for name, value in fields if name == b"content-length"]
    if not lengths:
        return section
    if len(lengths) < len(fields):
        return _FRAMING.sub(lambda match: b"" if _is_length(match) else match[0], section)
    numbers = [
        CONTENT_LENGTH.fullmatch(length.strip(b" \t")) for length in b",".join(lengths).split(b",")
    ]
    if not all(numbers) or len({int(number[1]) for number in numbers if number}) > 1:
        return section
    framing = b"Content-Length: %b\r\n" % (numbers[0][1] if numbers[0] else b"")
    return _FRAMING.sub(b"", section) + framing


def _is_length(match: re.Match[bytes]) -> bool:
    return match[1].lower() == b"content-length"


def take_lf_head(data: bytes) -> tuple[bytes, bytes] | None:
    """Convert a head whose lines all end with LF to CRLF; return it and the bytes after it.

    Returns None if the head is incomplete. Raises BadResponseError for mixed line ends: a server
    that uses CRLF may have passed on an injected LF, which would split the response.
    """
    end = data.find(b"\n\n")
    head = data if end < 0 else data[: end + 1]
    if b"\r" in head or b"\0" in head:
        raise BadResponseError("line ends of two kinds in a head")
    if end < 0:
        return None
    return head.replace(b"\n", _CRLF), data[end + 2 :]
