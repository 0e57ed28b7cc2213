"""The head of a request: bytes in, a head out, or a refusal before anything is forwarded."""

import re
from typing import Final

from tailchat_gate.bounded import BoundedCache
from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.fields import FieldSection, HeadLimits
from tailchat_gate.request.sections import OFTEN, Careful, SectionReader
from tailchat_gate.request.target import ENCODED_NUL, NO_TARGET, ORIGIN_FORM, Target, read_target
from tailchat_gate.syntax import (
    BARE_LINE_END_OCTETS,
    COMMON_METHODS,
    MAX_METHOD,
    TCHAR_OCTETS,
    TOKEN_OCTETS,
    VCHAR_OCTETS,
)

_END: Final = b"\r\n\r\n"
_CRLF: Final = b"\r\n"
#: RFC 9112 section 3: single spaces between the parts, and nothing else.
_LINE: Final = re.compile(rb"(%b) ([%b]++) (HTTP/[0-9]\.[0-9])" % (TOKEN_OCTETS, VCHAR_OCTETS))
#: The form of nearly every request line; groups: method, target, its path and its query.
_PLAIN_LINE: Final = re.compile(
    rb"(%b) (%b) HTTP/1\.1" % (TOKEN_OCTETS, ORIGIN_FORM.encode("ascii"))
)
_METHODS: Final = {method.encode("ascii"): method for method in COMMON_METHODS}
#: Bytes that no head has; a CR at the very end may be half of a CRLF.
_BARE: Final = re.compile(BARE_LINE_END_OCTETS + rb"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FIRST: Final = re.compile(rb"[\r%b]" % TCHAR_OCTETS)
_VERSIONS: Final = {b"HTTP/1.1": False, b"HTTP/1.0": True}
#: Bytes beside the target: method, version, two spaces, an empty line before, half a line end.
_LINE_OVERHEAD: Final = MAX_METHOD + 13
#: The most bytes of cached request lines, and of one of them, including all objects.
_KEPT_LINES = 4 << 20
_LARGEST_LINE: Final = 24 << 10


# Here and elsewhere only final for the type checker: a frozen object takes five times as long to
# make, and a field of a named tuple three times as long to read. And with a constructor of its own,
# because that of a dataclass stays interpreted in a compiled module.
class RequestLine:
    """A request line: `method` as sent, whether the version is 1.0, and the target.

    `target` is None if it must be compared with the Host field (absolute-form); its bytes are in
    `raw`. `sent` is the line for an upstream that gets the same target.
    """

    __slots__ = ("http10", "method", "raw", "sent", "target")

    def __init__(
        self,
        method: str,
        http10: bool,  # noqa: FBT001 - a keyword makes a dict
        raw: bytes,
        target: Target | None,
        sent: bytes,
    ) -> None:
        self.method: Final = method
        self.http10: Final = http10
        self.raw: Final = raw
        self.target: Final = target
        self.sent: Final = sent


class RequestHead:
    """A whole head: `method`, `target` and `fields`; `http10` says that the version is 1.0."""

    __slots__ = ("fields", "http10", "line", "method", "target")

    def __init__(
        self,
        method: str,
        http10: bool,  # noqa: FBT001 - a keyword makes a dict
        target: Target,
        fields: FieldSection,
        line: bytes = b"",
    ) -> None:
        self.method: Final = method
        self.http10: Final = http10
        self.target: Final = target
        self.fields: Final = fields
        #: The request line for an upstream, with CRLF; b"" if it has to be made.
        self.line: Final = line

    def apart(self) -> "RequestHead":
        """Return the head without what other modules have cached on its fields."""
        fields = self.fields.apart()
        return RequestHead(self.method, self.http10, self.target, fields, self.line)

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants its connection to stay open."""
        return self.fields.keep_alive[self.http10]


#: For a request that could not be read.
NO_HEAD: Final = RequestHead("", False, NO_TARGET, FieldSection(()))  # noqa: FBT003 - a tuple


class RequestReader:
    """Reads the heads of requests; caches lines and sections that repeat.

    `often` is how often a shape of header section must come before it is read by a pattern, and
    `careful` reads all others.
    """

    def __init__(
        self, limits: HeadLimits, often: int = OFTEN, careful: Careful | None = None
    ) -> None:
        self._limits = limits
        self._lines: BoundedCache[bytes, RequestLine] = BoundedCache(
            _KEPT_LINES, cost=_cost_of_line, largest=_LARGEST_LINE, twice=True
        )
        self._sections = SectionReader(limits, often, careful)

    def read(self, data: bytes) -> tuple[RequestHead, int] | None:
        """Return the head at the start of `data` and its length, None if it is incomplete.

        `data` is all that has arrived since the last request. Raises RefusedError, also for an
        incomplete head that can no longer become valid.
        """
        middle = data.find(_CRLF)
        if middle > 0 and data.endswith(_END):
            # Most likely exactly one head, whose end need not be searched.
            fields = self._sections.known(data[middle + 2 : -2])
            if fields is not None:
                return self._head(self._line(data[:middle]), fields), len(data)
        end = data.find(_END)
        if end < 0:
            self._check_start(data)
            return None
        if not middle:
            middle = data.find(_CRLF, 2)  # RFC 9112 section 2.2 allows one empty line
        line = self._line(data[2 if data.startswith(_CRLF) else 0 : middle])
        return self._head(line, self._sections.read(data[middle + 2 : end + 2])), end + 4

    def _line(self, raw: bytes) -> RequestLine:
        return self._lines.get(raw) or self._read_line(raw)

    def _head(self, line: RequestLine, fields: FieldSection) -> RequestHead:
        target = line.target or read_target(line.raw.decode("ascii"), fields.host)
        if not fields.host.raw and not line.http10:
            raise RefusedError("a request without a Host")
        if fields.chunked and line.http10:
            raise RefusedError("a Transfer-Encoding in HTTP/1.0")
        return RequestHead(line.method, line.http10, target, fields, line.sent)

    def forget(self) -> None:
        """Clear the caches, because no further head will be read."""
        self._lines.clear()
        self._sections.forget()

    def _read_line(self, raw: bytes) -> RequestLine:
        line = self._plain_line(raw) or self._careful_line(raw)
        self._lines.keep(raw, line)
        return line

    def _plain_line(self, raw: bytes) -> RequestLine | None:
        """Return a request line of a common method for a path, in HTTP/1.1; None for any other."""
        match = _PLAIN_LINE.fullmatch(raw)
        if match is None:
            return None
        method, sent, path, query = match.groups(b"")
        known = _METHODS.get(method)
        if known is None or len(sent) > self._limits.target_bytes:
            return None
        text = path.decode("ascii")
        # As text, because `in` raises and catches a TypeError inside for bytes.
        if ENCODED_NUL in text:
            return None
        target = Target(sent, text, query.decode("ascii"))
        return RequestLine(known, False, sent, target, raw + _CRLF)  # noqa: FBT003 - not HTTP/1.0

    def _careful_line(self, raw: bytes) -> RequestLine:
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
        return RequestLine(
            method.decode("ascii"),
            http10,
            target,
            read_target(target.decode("ascii"), None) if origin_form else None,
            b"%b %b HTTP/1.1\r\n" % (method, target) if origin_form else b"",
        )

    def _check_start(self, data: bytes) -> None:
        """Refuse an incomplete head as soon as it cannot become valid. Raises RefusedError."""
        if _FIRST.match(data) is None and data:
            raise RefusedError("bytes that are not HTTP")
        start = 2 if data.startswith(_CRLF) else 0
        line_end = data.find(_CRLF, start)
        if line_end < 0:
            if len(data) > self._limits.target_bytes + _LINE_OVERHEAD:
                raise RefusedError("a request target that is too long", Reason.TARGET_TOO_LONG)
        else:
            self._line(data[start:line_end])
            if len(data) - line_end > self._limits.header_bytes + len(_END):
                raise RefusedError("a header section that is too long", Reason.HEAD_TOO_LARGE)
            if data.count(b"\n", line_end) > self._limits.header_count + 1:
                raise RefusedError("too many header fields", Reason.HEAD_TOO_LARGE)
        if _BARE.search(data) is not None:
            raise RefusedError("a line that does not end with CRLF")


def _cost_of_line(raw: bytes, _line: RequestLine) -> int:
    """Return about how many bytes a line takes: its objects, and the target in four forms."""
    return 640 + 5 * len(raw)
