"""The head of a request: bytes in, a head out, or a refusal before anything is forwarded."""

import re
from dataclasses import dataclass
from typing import Final

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.fields import FieldSection, Limits, read_fields
from tailchat_gate.request.target import NO_TARGET, Target, read_target
from tailchat_gate.syntax import (
    BARE_LINE_END_OCTETS,
    MAX_METHOD,
    TCHAR_OCTETS,
    TOKEN_OCTETS,
    VCHAR_OCTETS,
)

_END: Final = b"\r\n\r\n"
_CRLF: Final = b"\r\n"
#: RFC 9112 section 3: single spaces, nothing else that separates.
_LINE: Final = re.compile(rb"(%b) ([%b]++) (HTTP/[0-9]\.[0-9])" % (TOKEN_OCTETS, VCHAR_OCTETS))
#: What stands nowhere in a head; a CR at the very end may be half of a CRLF.
_BARE: Final = re.compile(BARE_LINE_END_OCTETS + rb"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FIRST: Final = re.compile(rb"[\r%b]" % TCHAR_OCTETS)
_VERSIONS: Final = {b"HTTP/1.1": False, b"HTTP/1.0": True}
#: Around the target: method, version, two spaces, an empty line before and half of a line's end.
_LINE_OVERHEAD: Final = MAX_METHOD + 13
#: Bytes that are kept, of sections and of lines: with all that is made of them.
_KEPT_SECTIONS: Final = 16 << 20
_KEPT_LINES: Final = 4 << 20
#: Of one section or line with all that is made of it.
_LARGEST_KEPT: Final = 24 << 10


# Here and elsewhere: final for the type checker, because what is frozen takes five times as long
# to make, and a field of a named tuple three times as long to read.
@dataclass(slots=True, eq=False)
class RequestLine:
    """A request line: `method` as sent, whether the version is 1.0, and the target.

    `target` is None for what only makes sense beside a Host field: absolute-form and the like,
    whose bytes are in `raw`. `sent` is the line for an upstream that is sent the same target.
    """

    method: Final[str]
    http10: Final[bool]
    raw: Final[bytes]
    target: Final[Target | None]
    sent: Final[bytes]


@dataclass(slots=True, eq=False)
class RequestHead:
    """A whole head: `method`, `target` and `fields`; `http10` says that the version is 1.0."""

    method: Final[str]
    http10: Final[bool]
    target: Final[Target]
    fields: Final[FieldSection]
    #: The request line for an upstream, with its CRLF; b"" where it is to be made.
    line: Final[bytes] = b""

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants its connection to stay."""
        return self.fields.keep_alive[self.http10]


#: Stands where a request could not be read.
NO_HEAD: Final = RequestHead("", False, NO_TARGET, FieldSection(()))  # noqa: FBT003 - a tuple


class RequestReader:
    """Reads the heads of requests; what comes again is kept.

    Nothing is kept of what does not parse, and nothing of what came only once.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines: BoundedCache[bytes, RequestLine] = BoundedCache(
            _KEPT_LINES, cost=_cost_of_line, largest=_LARGEST_KEPT, twice=True
        )
        self._sections: BoundedCache[bytes, FieldSection] = BoundedCache(
            _KEPT_SECTIONS, cost=_cost_of_section, largest=_LARGEST_KEPT, twice=True
        )

    def read(self, data: bytes) -> tuple[RequestHead, int] | None:
        """Return the head at the start of `data` and its length, or None where it is not whole.

        `data` is all that has come since the last request. Raises RefusedError, also for the
        start of what can no longer become a head.
        """
        end = data.find(_END)
        if end < 0:
            self._check_start(data)
            return None
        start = 2 if data.startswith(_CRLF) else 0  # RFC 9112 section 2.2 allows one empty line
        middle = data.find(_CRLF, start)
        line = self._lines.get(data[start:middle]) or self._read_line(data[start:middle])
        raw = data[middle + 2 : end + 2]
        fields = self._sections.get(raw) or self._read_section(raw)
        target = line.target or read_target(line.raw.decode("ascii"), fields.host)
        if not fields.host.raw and not line.http10:
            raise RefusedError("a request without a Host")
        if fields.chunked and line.http10:
            raise RefusedError("a Transfer-Encoding in HTTP/1.0")
        return RequestHead(line.method, line.http10, target, fields, line.sent), end + 4

    def forget(self) -> None:
        """Drop what was kept: no further head will be read."""
        self._lines.clear()
        self._sections.clear()

    def _read_line(self, raw: bytes) -> RequestLine:
        match = _LINE.fullmatch(raw)
        if match is None:
            if not raw.isascii():
                raise RefusedError("a request line with bytes that have to be percent-encoded")
            raise RefusedError("a request line that is malformed")
        method, target, version = match.groups()
        if len(target) > self._limits.target_bytes:
            raise RefusedError("a request target that is too long", Reason.TARGET_TOO_LONG)
        http10 = _VERSIONS.get(version)
        if http10 is None:
            raise RefusedError("an HTTP version that is not supported", Reason.VERSION_REFUSED)
        if len(method) > MAX_METHOD:
            raise RefusedError("a method that is too long")
        origin_form = target.startswith(b"/")
        line = RequestLine(
            method.decode("ascii"),
            http10,
            target,
            read_target(target.decode("ascii"), None) if origin_form else None,
            b"%b %b HTTP/1.1\r\n" % (method, target) if origin_form else b"",
        )
        self._lines.keep(raw, line)
        return line

    def _read_section(self, raw: bytes) -> FieldSection:
        section = read_fields(raw, self._limits)
        self._sections.keep(raw, section)
        return section

    def _check_start(self, data: bytes) -> None:
        """Refuse the start of a head as soon as it cannot become one, not when time is up."""
        if _FIRST.match(data) is None and data:
            raise RefusedError("bytes that are not HTTP")
        start = 2 if data.startswith(_CRLF) else 0
        line_end = data.find(_CRLF, start)
        if line_end < 0:
            if len(data) > self._limits.target_bytes + _LINE_OVERHEAD:
                raise RefusedError("a request target that is too long", Reason.TARGET_TOO_LONG)
        else:
            self._lines.get(data[start:line_end]) or self._read_line(data[start:line_end])
            if len(data) - line_end > self._limits.header_bytes + len(_END):
                raise RefusedError("a header section that is too long", Reason.HEAD_TOO_LARGE)
            if data.count(b"\n", line_end) > self._limits.header_count + 1:
                raise RefusedError("too many header fields", Reason.HEAD_TOO_LARGE)
        if _BARE.search(data) is not None:
            raise RefusedError("a line that does not end with CRLF")


def _cost_of_line(raw: bytes, _line: RequestLine) -> int:
    """Return about how many bytes a line takes: its objects, and its target in four forms."""
    return 640 + 5 * len(raw)


def _cost_of_section(raw: bytes, section: FieldSection) -> int:
    """Return about how many bytes a section takes.

    These are its objects, a pair and two strings for each field, the section itself, its fields,
    and the fields that are made of them for a tool.
    """
    return 2048 + 192 * len(section.pairs) + 3 * len(raw)
