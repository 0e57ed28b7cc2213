"""Reads an upstream's response and rewrites it for the client: bytes in, bytes out, no socket."""

import re
from http import HTTPStatus
from typing import Final

from tailchat_gate.proxy.message.field_rules import may_trail_response
from tailchat_gate.proxy.message.request_headers import CRLF
from tailchat_gate.proxy.message.response_fields import Expected, pass_on, without_length
from tailchat_gate.proxy.message.response_lines import (
    BadResponseError,
    Line,
    LineAction,
    ResponseLines,
    repaired,
    take_lf_head,
    with_one_framing,
)
from tailchat_gate.reasons import RefusedError
from tailchat_gate.request.body import ChunkedBody
from tailchat_gate.syntax import BARE_LINE_END_OCTETS

#: The most bytes of a response's head; nginx and Node allow 8 to 16 KiB.
MAX_HEAD_BYTES: Final = 65_536
#: The most interim responses (100, 102, 103) in front of a final one.
MAX_INTERIM: Final = 1000
_END: Final = b"\r\n\r\n"
_CR: Final = 0x0D
_LAST_CHUNK: Final = b"0\r\n"

_BARE: Final = re.compile(BARE_LINE_END_OCTETS + rb"|\x00")
_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
#: Options of Connection that must not drop a field.
_NEVER_LISTED: Final = frozenset((b"", b"close", b"content-length", b"keep-alive", b"upgrade"))
_BODILESS: Final = frozenset((HTTPStatus.NO_CONTENT.value, HTTPStatus.NOT_MODIFIED.value))
_NO_CONTENT: Final = HTTPStatus.NO_CONTENT.value
_FINAL: Final = HTTPStatus.OK.value
_SWITCHING: Final = HTTPStatus.SWITCHING_PROTOCOLS.value
# Globals: see reasons.py.
_KEEP: Final = LineAction.KEEP
_DROP: Final = LineAction.DROP
_CONTENT_LENGTH: Final = LineAction.CONTENT_LENGTH
_TRANSFER_ENCODING: Final = LineAction.TRANSFER_ENCODING
_CONNECTION: Final = LineAction.CONNECTION
_UPGRADE: Final = LineAction.UPGRADE
_CHALLENGE: Final = LineAction.CHALLENGE


class ResponseReader:
    """Turns the bytes of one connection's responses, one after another, into bytes for clients.

    After `complete` the next response may `begin`, unless `dirty`: the upstream sent bytes that
    no request asked for. They are never taken for a response (RFC 9112 section 9.2).
    """

    __slots__ = (
        "_chunk_to_client", "_chunks", "_expected", "_interim", "_known", "_length", "_lines",
        "_mended", "_options", "_partial", "_plain", "_remaining", "_switches_to", "body_bytes",
        "complete", "dirty", "head_done", "keep_client", "leftover", "personal", "started",
        "status", "stays", "switched", "until_close",
    )  # fmt: skip

    def __init__(self, lines: ResponseLines) -> None:
        self._lines = lines
        self._known = lines.known
        self._plain = lines.plain
        self._expected: Expected | None = None
        self.dirty = self.complete = self.started = self.head_done = self.switched = False
        self.keep_client = self.until_close = self.stays = False
        self.status = self.body_bytes = 0
        self.leftover = b""
        #: Whether the connection may be authenticated, by any request or response on it so far.
        self.personal = False

    def begin(self, expected: Expected) -> None:
        """Expect the response to a request."""
        self._expected = expected
        self._partial = b""
        #: Whether the response was malformed in a way that the gate repairs.
        self._mended = False
        self._interim = self.status = self.body_bytes = 0
        self._chunks: ChunkedBody | None = None
        self.started = self.head_done = self.complete = self.switched = False

    # Not part of `_fields`: mypy would take `_chunks` for None to the end of it, although `_note`
    # sets it, and the compiled form would drop the check for both framings.
    def _reset_framing(self) -> None:
        self._options = _NO_OPTIONS
        self._length: int | None = None
        self._switches_to: bytes | None = None
        self._chunks = None

    def forget(self) -> None:
        """Drop the reference to the request whose response was read."""
        self._expected = None

    def feed(self, data: bytes) -> list[bytes]:
        """Read bytes from the upstream; return the pieces to write to the client.

        Raises BadResponseError; the caller then relays nothing of `data`.
        """
        self.started = True
        out: list[bytes] = []
        if not self.head_done:
            data = self._feed_head(data, out)
        if data and self.head_done:
            self._feed_body(data, out)
        return out

    def end(self) -> list[bytes]:
        """The upstream closed: return the last pieces for the client.

        Raises BadResponseError if the response is incomplete (RFC 9112 section 8).
        """
        if self.complete:
            return []
        if not self.head_done or not self.until_close:
            raise BadResponseError("a response that is cut off")
        self.complete = True
        return [_LAST_CHUNK, CRLF] if self._chunk_to_client else []

    # The head.

    def _feed_head(self, data: bytes, out: list[bytes]) -> bytes:
        """Read heads up to the final one; return the bytes after it."""
        if self._partial:
            data, self._partial = self._partial + data, b""
        while not self.head_done:
            line_end = data.find(b"\n")
            if line_end > 0 and data[line_end - 1] != _CR:
                data = self._feed_lf_head(data, out)
                if not data:
                    return b""
                continue
            end = data.find(_END)
            if end < 0:
                if len(data) > MAX_HEAD_BYTES or _BARE.search(data):
                    raise BadResponseError("a head that is too long, or none")
                self._partial = data
                return b""
            if end > MAX_HEAD_BYTES:
                raise BadResponseError("a head that is too long")
            self._read_head(data[:end], out)
            data = data[end + 4 :]
            if self.switched:
                self.leftover = data
                return b""
        return data

    def _feed_lf_head(self, data: bytes, out: list[bytes]) -> bytes:
        """Read a head whose lines end with a bare LF; return the bytes after it."""
        head_read = take_lf_head(data)
        if len(data if head_read is None else head_read[0]) > MAX_HEAD_BYTES:
            raise BadResponseError("a head that is too long")
        if head_read is None:
            self._partial = data
            return b""
        self._mended = True
        self._read_head(head_read[0][:-2], out)
        if self.switched:
            self.leftover = head_read[1]
            return b""
        return head_read[1]

    def _read_head(self, head: bytes, out: list[bytes]) -> None:
        raw = head.split(CRLF)
        known = self._lines.statuses.get(raw[0])
        if known is None:
            known = self._lines.status(raw[0])
            # A line with two spaces is never cached, so it is noticed here each time.
            self._mended = self._mended or raw[0][8:10] == b"  "
        status, http10, line = known
        try:
            lines = self._fields(raw, line)
        except BadResponseError:
            section = head.partition(CRLF)[2] + CRLF
            raw = (CRLF + with_one_framing(repaired(section))[:-2]).split(CRLF)
            lines = self._fields(raw, line)
            # A server that sends such a head may frame what follows differently.
            self._mended = True
        if status < _FINAL:
            self._write_interim(status, lines, out)
            return
        self.status = status
        self.head_done = True
        # Chunks in HTTP/1.0 are read, and the connection ends (RFC 9112 section 6.1).
        self.stays = self._asks_to_stay(raw) if http10 else b"close" not in self._options
        if self._mended:
            self.stays = False
        self._write_head(status, lines, out)

    def _fields(self, raw_lines: list[bytes], status_line: bytes) -> list[bytes]:
        """Return the lines to pass on; apply what they say about framing.

        `raw_lines` are those of a head. A plain line only costs a lookup in `map`.
        """
        self._reset_framing()
        known, at = self._known, 0
        passed = list(map(self._plain.get, raw_lines))
        passed[0] = status_line
        for _ in range(passed.count(None)):
            at = passed.index(None, at)
            raw = raw_lines[at]
            line = known.get(raw)
            if line is None:
                line = self._lines.line(raw)
            action = line.action
            if action is _KEEP:
                passed[at] = raw
            elif action is _CONTENT_LENGTH:
                if self._length is not None:
                    raise BadResponseError("more than one Content-Length")
                self._length = line.length
                passed[at] = line.sent
            else:
                passed[at] = b"" if action is _DROP else self._note(line)
        if self._length is not None and self._chunks is not None:
            raise BadResponseError("both Content-Length and Transfer-Encoding")
        lines = list(filter(None, passed))
        if self._options and (listed := self._options - _NEVER_LISTED):
            lines[1:] = [
                raw_line
                for raw_line in lines[1:]
                if raw_line.partition(b":")[0].lower() not in listed
            ]
        return lines

    def _asks_to_stay(self, raw_lines: list[bytes]) -> bool:
        """Whether a response in HTTP/1.0 with these lines leaves the connection open."""
        lines = (self._known.get(raw) for raw in raw_lines)
        options = self._options.union(*(line.options for line in lines if line is not None))
        return b"keep-alive" in options and self._chunks is None

    def _note(self, line: Line) -> bytes:
        """Apply what a field says about the message; return the line to send, b"" for none."""
        action, expected = line.action, self._expected
        if action is _CONNECTION:
            self._options = line.options | self._options
        elif action is _TRANSFER_ENCODING:
            if line.value.lower() != b"chunked" or self._chunks is not None:
                raise BadResponseError("a transfer coding that the gate did not offer")
            self._chunks = ChunkedBody(padded=True)
        elif action is _CHALLENGE:
            self.personal = True
            return line.sent
        elif expected is None:
            pass
        elif action is not _UPGRADE:
            return pass_on(line, expected)
        elif expected.upgrade:
            # A second field makes it a list, and the client asked for one protocol.
            self._switches_to = line.value if self._switches_to is None else b","
        return b""

    def _write_interim(self, status: int, lines: list[bytes], out: list[bytes]) -> None:
        expected = self._expected
        self._interim += 1
        if expected is None or self._interim > MAX_INTERIM:
            raise BadResponseError("too many interim responses")
        if status == _SWITCHING:
            protocol = self._switches_to
            if protocol is None or protocol.lower() != expected.upgrade:
                raise BadResponseError("a protocol switch that nobody asked for")
            self.status = status
            self.switched = True
            lines += (b"Upgrade: " + protocol, b"Connection: Upgrade")
            extra = expected.extra_fields
        else:
            extra = b""
        lines = without_length(lines)
        if not expected.http10:
            out += (CRLF.join(lines), CRLF, extra, CRLF)

    def _write_head(self, status: int, lines: list[bytes], out: list[bytes]) -> None:
        """Write the head with its framing (RFC 9112 section 6.3) for the client."""
        expected = self._expected
        if expected is None:
            raise BadResponseError("a response that nobody asked for")
        self.keep_client = expected.keep_alive
        self._remaining = 0
        self._chunk_to_client = self.until_close = False
        if status == _NO_CONTENT and (self._length is not None or self._chunks is not None):
            # A body may follow although a 204 must not have one (RFC 9110 section 15.3.5).
            self.stays = self.stays and not self._length and self._chunks is None
            lines = without_length(lines)
        if expected.is_head or status in _BODILESS:
            self.complete = True
        elif self._length is not None:
            self._remaining = self._length
            self.complete = not self._length
        else:
            self.until_close = self._chunks is None
            self._chunk_to_client = not expected.http10
            if expected.http10:
                self.keep_client = False
            else:
                lines.append(b"Transfer-Encoding: chunked")
        if not self.keep_client:
            lines.append(b"Connection: close")
        elif expected.http10:
            lines.append(b"Connection: keep-alive")
        # `extra_fields` are whole lines or b""; the join puts a line end before and after them.
        lines += (expected.extra_fields, b"")
        out.append(CRLF.join(lines))

    # The body.

    def _feed_body(self, data: bytes, out: list[bytes]) -> None:
        if self.complete:
            self.dirty = True
            return
        if self._chunks is not None:
            data = self._feed_chunks(self._chunks, data)
        elif not self.until_close:
            self._remaining -= len(data)
            if self._remaining <= 0:
                self.complete = True
            if self._remaining < 0:
                data = data[: self._remaining]
                self.dirty = True
        if data:
            self.body_bytes += len(data)
            if self._chunk_to_client:
                out += (b"%x\r\n" % len(data), data, CRLF)
            else:
                out.append(data)
        if self.complete and self._chunk_to_client:
            out += (_LAST_CHUNK, self._trailers(), CRLF)

    def _feed_chunks(self, chunks: ChunkedBody, data: bytes) -> bytes:
        try:
            content, rest = chunks.feed(data)
        except RefusedError as error:
            raise BadResponseError(str(error)) from None
        self.complete = chunks.complete
        self.dirty = self.dirty or bool(rest)
        self.stays = self.stays and not chunks.mended
        return content

    def _trailers(self) -> bytes:
        """Return the trailers for a client that reads them (RFC 9110 section 6.5.1)."""
        chunks = self._chunks
        if chunks is None or self._expected is None or not self._expected.takes_trailers:
            return b""
        return b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, value in chunks.trailers
            if may_trail_response(name)
        )
