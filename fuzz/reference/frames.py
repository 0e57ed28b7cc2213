"""Where the frames of a WebSocket end (RFC 6455 section 5.2)."""

_TWO_BYTES, _EIGHT_BYTES = 126, 127
_CLOSE = 8


def frame_ends(stream: bytes) -> tuple[list[int], bool]:
    """Return where the frames of a stream end, and whether one of them closes.

    Ends that lie behind the stream are not told.
    """
    ends, closed, place = [], False, 0
    while place < len(stream):
        closed = closed or stream[place] % 16 == _CLOSE
        size = _frame_size(stream[place:])
        if not size or place + size > len(stream):
            break
        place += size
        ends.append(place)
    return ends, closed


def _frame_size(frame: bytes) -> int:
    """Return the size of the frame that begins, 0 where too little of it is there to tell."""
    if len(frame) < len(b"ab"):
        return 0
    mask, length = 4 * (frame[1] >> 7), frame[1] & 127
    extension = {_TWO_BYTES: 2, _EIGHT_BYTES: 8}.get(length, 0)
    if len(frame) < 2 + extension:
        return 0
    if extension:
        length = int.from_bytes(frame[2 : 2 + extension], "big")
    return 2 + extension + mask + length
