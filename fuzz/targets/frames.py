"""Frames of a WebSocket: cut in any way they end where a plain reader says."""

from fuzz.cutting import cut, steered
from fuzz.reference.frames import frame_ends
from fuzz.target import Target
from tailchat_gate.proxy.frames import FrameTracker, close_frame

_HELD = 9


def check(data: bytes) -> None:
    """Follow a stream in pieces, at once, and frame by frame; three bytes say how it is cut."""
    sizes, data = steered(data, 3)
    ends, closed = frame_ends(data)
    _check_pieces(data, sizes, closed=closed)
    _check_stops(data, sizes, ends)
    _check_close(data)


def _check_pieces(data: bytes, sizes: bytes, *, closed: bool) -> None:
    tracker = FrameTracker()
    come = b""
    for piece in cut(data, sizes):
        assert tracker.feed(piece) == len(piece), "bytes are lost"
        come += piece
        ends, seen = frame_ends(come)
        assert tracker.at_boundary == (len(come) in {0, *ends})
        assert tracker.closed == seen
        assert len(tracker._header) <= _HELD
    assert tracker.closed == closed


def _check_stops(data: bytes, sizes: bytes, ends: list[int]) -> None:
    """With stop_at_boundary it stops behind every frame, wherever the stream is cut."""
    tracker = FrameTracker()
    stops: list[int] = []
    place = 0
    for piece in cut(data, sizes):
        rest = piece
        while rest:
            taken = tracker.feed(rest, stop_at_boundary=True)
            assert 0 < taken <= len(rest)
            place += taken
            rest = rest[taken:]
            if tracker.at_boundary:
                stops.append(place)
            else:
                assert not rest, "it stops within a frame"
    assert stops == ends


def _check_close(data: bytes) -> None:
    """A close frame is one frame, whatever the reason, and says what it was given."""
    code = int.from_bytes(data[:2], "big")
    reason = data[2:].decode("utf-8", "replace")
    for mask in (b"", b"mask"):
        frame = close_frame(code, reason, mask=mask)
        assert frame_ends(frame) == ([len(frame)], True)
        start = 2 + len(mask)
        payload = bytes(o ^ (mask[i % 4] if mask else 0) for i, o in enumerate(frame[start:]))
        assert int.from_bytes(payload[:2], "big") == code
        assert reason.startswith(payload[2:].decode("utf-8"))


TARGET = Target(
    check,
    parsers=("proxy.frames",),
    seeds=(
        b"\1\2\3\x81\x05hello",
        b"\0\0\0\x82\x85maskhello\x88\x02\x03\xe8",
        b"\4\0\0\x81\x7e\x00\x05hello\x8a\x00",
        b"\7\1\0\x01\x7f\x00\x00\x00\x00\x00\x00\x00\x05hello\x80\x80mask",
        b"\1\0\0\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xffx",
        b"\3\0\0\xff\xfe\x00\x00mask",
    ),
    words=(b"\x7e", b"\x7f", b"\xfe\x00\x00", b"\xff\x00\x00\x00\x00\x00\x00\x00\x00", b"\x88\x00"),
)
