"""WebSocket frame boundaries (RFC 6455 section 5.2), found without looking at the payload."""

from typing import Final

_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_MASK_BIT: Final = 0x80
_MAX_REASON: Final = 123
_FIN_CLOSE: Final = 0x88
#: The first byte of a whole, unfragmented close frame.
CLOSE_OPCODE: Final = bytes((_FIN_CLOSE,))


class FrameTracker:
    """Follows one direction of a WebSocket.

    Bytes pass as they are; the tracker only knows whether the last one ended a frame, which is
    where a close frame may be put in.
    """

    __slots__ = ("_header", "_remaining")

    def __init__(self) -> None:
        self._header = b""
        self._remaining = 0

    @property
    def at_boundary(self) -> bool:
        """Whether the bytes seen so far end with a whole frame."""
        return not self._remaining and not self._header

    def feed(self, data: bytes, *, stop_at_boundary: bool = False) -> int:
        """Take bytes in order; return how many were taken.

        With `stop_at_boundary` it stops behind the first frame that ends in `data`.
        """
        position, size = 0, len(data)
        while position < size:
            if self._remaining:
                step = min(self._remaining, size - position)
                self._remaining -= step
                position += step
            else:
                missing = self._header_size() - len(self._header)
                self._header += data[position : position + missing]
                position = min(position + missing, size)
                if len(self._header) < self._header_size():
                    continue
                self._remaining = self._payload_size()
                self._header = b""
            if stop_at_boundary and self.at_boundary:
                break
        return position

    def _header_size(self) -> int:
        """Return the size of the header as far as it is known."""
        if len(self._header) < 2:  # noqa: PLR2004 - the length is in the second byte
            return 2
        second = self._header[1]
        length = second & ~_MASK_BIT
        extended = {_LENGTH_16: 2, _LENGTH_64: 8}.get(length, 0)
        return 2 + extended + (4 if second & _MASK_BIT else 0)

    def _payload_size(self) -> int:
        length = self._header[1] & ~_MASK_BIT
        if length == _LENGTH_16:
            return int.from_bytes(self._header[2:4], "big")
        if length == _LENGTH_64:
            return int.from_bytes(self._header[2:10], "big")
        return length


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
