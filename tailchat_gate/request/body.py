"""The body of a request by its framing (RFC 9112 section 6): bytes in, content out; pure."""

import re
from typing import Final

from tailchat_gate.reasons import Reason, RefusedError
from tailchat_gate.request.fields import FieldSection, RawFields, split_fields
from tailchat_gate.syntax import FIELD_VALUE_OCTETS, ROUTING_FIELDS

#: Section 7.1: a size, extensions (ignored), CRLF. 15 digits cannot overflow anything.
_SIZE: Final = re.compile(rb"0*([0-9A-Fa-f]{1,15})(?:[ \t]*+;%b)?" % FIELD_VALUE_OCTETS)
_CRLF: Final = b"\r\n"
_MAX_LINE: Final = 1024
_MAX_TRAILER_BYTES: Final = 8192
_MAX_TRAILERS: Final = 64


class LengthBody:
    """A body of a known length in bytes."""

    __slots__ = ("remaining",)

    def __init__(self, length: int) -> None:
        self.remaining = length

    @property
    def complete(self) -> bool:
        """Whether all of it has arrived."""
        return not self.remaining

    @property
    def trailers(self) -> RawFields:
        """(), because trailers need chunks."""
        return ()

    def needs_more_than(self, size: int) -> bool:
        """Whether `size` further bytes cannot complete it."""
        return size < self.remaining

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes; return the content among them, and the bytes after the body."""
        size = len(data)
        if size <= self.remaining:
            self.remaining -= size
            return data, b""
        taken, self.remaining = self.remaining, 0
        return data[:taken], data[taken:]


class ChunkedBody:
    """A body in chunks, whose extensions are ignored; `trailers` is set once it is complete.

    `max_bytes` bounds the content (0 = no limit). Every chunk and every line must end with CRLF, so
    that no two parsers can split it differently. `padded`: blanks after a size are accepted, since
    old servers write them; then `mended` is set.
    """

    __slots__ = ("_awaits_end", "_in_trailers", "_left", "_max_bytes", "_padded", "_partial",
                 "_received", "complete", "mended", "trailers")  # fmt: skip

    def __init__(self, max_bytes: int = 0, *, padded: bool = False) -> None:
        self._max_bytes = max_bytes
        self._padded = padded
        self.mended = False
        self._received = 0
        #: Bytes of the current chunk that are still to come.
        self._left = 0
        #: Whether the CRLF after a chunk's data is still to come.
        self._awaits_end = False
        self._in_trailers = False
        #: The incomplete last line.
        self._partial = b""
        self.complete = False
        self.trailers: RawFields = ()

    def needs_more_than(self, size: int) -> bool:
        """Whether `size` further bytes surely cannot complete it."""
        return not self.complete and size < max(self._left, 1)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes; return the content among them, and the bytes after the body.

        Raises RefusedError, and then drops the content before the fault.
        """
        content: list[bytes] = []
        data, self._partial = self._partial + data, b""
        position = 0
        while position < len(data) and not self.complete:
            if self._left:
                piece = data[position : position + self._left]
                content.append(piece)
                self._left -= len(piece)
                position += len(piece)
                self._awaits_end = not self._left
            elif self._awaits_end:
                if not _CRLF.startswith(data[position : position + 2]):
                    raise RefusedError("a chunk that is longer than its size")
                if position + 2 > len(data):
                    break
                self._awaits_end = False
                position += 2
            elif (after := self._line(data, position)) >= 0:
                position = after
            else:
                break
        if not self.complete:
            self._partial = data[position:]
            return b"".join(content), b""
        return b"".join(content), data[position:]

    def _line(self, data: bytes, position: int) -> int:
        """Read a size line or the trailers; return the position after it, -1 if incomplete."""
        if self._in_trailers:
            return self._read_trailers(data, position)
        end = data.find(_CRLF, position)
        line = data[position : end if end >= 0 else len(data)]
        if len(line) > _MAX_LINE or b"\n" in line:
            raise RefusedError("a chunk size line that is malformed")
        if end < 0:
            return -1
        match = _SIZE.fullmatch(line)
        if match is None and self._padded:
            match = _SIZE.fullmatch(line.rstrip(b" \t"))
            self.mended = True
        if match is None:
            raise RefusedError("a chunk size that is not a number")
        self._left = int(match[1], 16)
        self._received += self._left
        if self._max_bytes and self._received > self._max_bytes:
            raise RefusedError("a body that is too large", Reason.BODY_TOO_LARGE)
        self._in_trailers = not self._left
        return end + 2

    def _read_trailers(self, data: bytes, position: int) -> int:
        if data.startswith(_CRLF, position):
            self.complete = True
            return position + 2
        end = data.find(b"\r\n\r\n", position)
        if (end if end >= 0 else len(data)) - position > _MAX_TRAILER_BYTES:
            raise RefusedError("trailers that are too long", Reason.HEAD_TOO_LARGE)
        if end < 0:
            return -1
        self.trailers = split_fields(data[position : end + 2])
        if len(self.trailers) > _MAX_TRAILERS:
            raise RefusedError("too many trailers", Reason.HEAD_TOO_LARGE)
        if any(name.lower() in ROUTING_FIELDS for name, _ in self.trailers):
            raise RefusedError("a trailer that frames or routes a message")
        self.complete = True
        return end + 4


Body = LengthBody | ChunkedBody


def body_of(section: FieldSection, max_bytes: int) -> Body | None:
    """Return the reader of the body that a section announces, None if it announces none.

    `max_bytes` bounds the content (0 = no limit). Raises RefusedError for a longer length.
    """
    if section.chunked:
        return ChunkedBody(max_bytes)
    if not section.length:
        return None
    if max_bytes and section.length > max_bytes:
        raise RefusedError("a body that is too large", Reason.BODY_TOO_LARGE)
    return LengthBody(section.length)
