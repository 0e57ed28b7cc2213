"""WebSocket frame boundaries (RFC 6455 section 5.2), found without looking at the payload."""

from typing import Final

_LENGTH_16: Final = 126
_MASK_BIT: Final = 0x80
_MASK_SIZE: Final = 4
_OPCODE_BITS: Final = 0x0F
_CLOSE: Final = 0x08
#: The bit that the opcodes of control frames have, among them that of a close frame (section 5.5).
CONTROL_BIT: Final = 0x08
_MAX_REASON: Final = 123
_FIN_CLOSE: Final = 0x88
#: The bytes of a header with an extended length, without the masking key.
_HEADER_16: Final = 4
_HEADER_64: Final = 10


def _short_frame_size(second: int) -> int:
    length = second & ~_MASK_BIT
    return 0 if length >= _LENGTH_16 else 2 + length + (_MASK_SIZE if second & _MASK_BIT else 0)


# A table, because every frame needs its size.
#: The size of a frame by its second byte, 0 if the length follows that byte.
SHORT_FRAME_SIZES: Final = tuple(map(_short_frame_size, range(256)))


class FrameTracker:
    """Follows one direction of a WebSocket.

    Bytes pass unchanged; the tracker only knows whether the last one ended a frame. At such a
    boundary a control frame may be inserted, also between fragments of a message (section 5.4).

    It never raises: the endpoints reject reserved bits, unknown opcodes, wrong masks and lengths
    in a longer form than needed. A 64-bit length with the top bit set, which section 5.2 forbids,
    is read as an unsigned number.

    It holds at most 9 bytes; its time grows with the frames, not with the bytes.

    `closed` becomes and stays True with the first byte of a close frame (section 5.5.1). No frame
    may follow that one, so nothing may be inserted. Its other bits are ignored: an invalid close
    frame ends the WebSocket as well.

    `finished` becomes and stays True once `finish` lets no further byte pass.
    """

    __slots__ = ("_header", "closed", "finished", "missing")

    def __init__(self) -> None:
        self.closed = self.finished = False
        #: The bytes so far of a frame whose length is not yet known.
        self._header = b""
        #: How many bytes of the current frame are missing, at least; 0 at a boundary.
        self.missing = 0

    @property
    def at_boundary(self) -> bool:
        """Whether the bytes seen so far end with a whole frame."""
        return not self.missing

    def feed(self, data: bytes, *, stop_at_boundary: bool = False) -> int:
        """Track bytes in order; return how many were tracked.

        With `stop_at_boundary` it stops after the first frame that ends in `data`.
        """
        size = len(data)
        end = self._finish_header(data) if self._header else self.missing
        # `end` is the end of the current frame in `data`, 0 if there is none.
        limit = 1 if stop_at_boundary and size else size
        while end < limit:
            if data[end] & _OPCODE_BITS == _CLOSE:
                self.closed = True
            frame_size = SHORT_FRAME_SIZES[data[end + 1]] if end + 1 < size else 0
            if not frame_size:
                frame_size = _frame_size(data, end)
                if not frame_size:
                    self._header = data[end:]
                    end = size
                    break
            end += frame_size
        if end > size:
            self.missing = end - size
            return size
        self.missing = 1 if self._header else 0
        return end

    def finish(self, data: bytes, close: bytes) -> bytes:
        """Track bytes of a direction that is ending; return the bytes that pass.

        These are the rest of the current frame, then the frame `close`, unless a close frame has
        passed before. Later bytes are dropped but still tracked, so that a close frame among them
        sets `closed`.
        """
        if self.finished:
            self.feed(data)
            return b""
        taken = 0 if self.at_boundary else self.feed(data, stop_at_boundary=True)
        if not self.at_boundary:
            return data
        self.finished = True
        passed = data[:taken] if self.closed else data[:taken] + close
        self.feed(data[taken:])
        return passed

    def _finish_header(self, data: bytes) -> int:
        """Return the end in `data` of a frame whose header began in earlier bytes."""
        before = len(self._header)
        header = self._header + data[: _HEADER_64 - before]
        frame_size = _frame_size(header)
        if not frame_size:
            # The header is still incomplete, so all of `data` belongs to it.
            self._header = header
            return len(data)
        self._header = b""
        return frame_size - before


def _frame_size(data: bytes, start: int = 0) -> int:
    """Return the size of the frame at `start`, its header included; 0 while that is unknown."""
    known = len(data) - start
    if known < 2:  # noqa: PLR2004 - the length is in the second byte
        return 0
    second = data[start + 1]
    if short := SHORT_FRAME_SIZES[second]:
        return short
    mask_size = _MASK_SIZE if second & _MASK_BIT else 0
    if second & ~_MASK_BIT == _LENGTH_16:
        if known < _HEADER_16:
            return 0
        return _HEADER_16 + mask_size + (data[start + 2] << 8 | data[start + 3])
    if known < _HEADER_64:
        return 0
    length = int.from_bytes(data[start + 2 : start + _HEADER_64], "big")
    return _HEADER_64 + mask_size + length


def close_frame(code: int, reason: str, *, mask: bytes = b"") -> bytes:
    """Return a close frame; `mask` is the 4-byte masking key of a frame to the server.

    A `reason` over 123 bytes is cut, between characters: it must be UTF-8 (section 5.5.1).
    """
    text = reason.encode()[:_MAX_REASON].decode("utf-8", "ignore")
    payload = code.to_bytes(2, "big") + text.encode()
    if not mask:
        return bytes((_FIN_CLOSE, len(payload))) + payload
    masked = bytes(octet ^ mask[index % 4] for index, octet in enumerate(payload))
    return bytes((_FIN_CLOSE, _MASK_BIT | len(payload))) + mask + masked
